// Other hosts under this one's name or ID, and this host's own former names.
import type { Clock } from "../base/clock.ts";
import { messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Directory, View } from "../contracts/directory.ts";
import { NODE_ALIVE_CHECK } from "../model/check.ts";
import type { Node } from "../model/node.ts";
import type { Reason } from "../model/reason.ts";
import { keyOf } from "../model/record.ts";

/** A sign of life that nobody renews is gone by then: the usual time to live (15 s), and what a store takes to notice. */
const OUTLIVE_MS = 20_000;

export interface RivalsOptions {
  readonly node: Node;
  /** The `life` of this agent's own sign of life. */
  readonly life: string | undefined;
  readonly directory: Directory;
  /** False where no other host can hold this name. */
  readonly shared: boolean;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Who else is called as this host is. */
export class Rivals {
  readonly #options: RivalsOptions;

  constructor(options: RivalsOptions) {
    this.#options = options;
  }

  /** Who else lives under this node's name or ID; undefined = nobody. */
  rival(view: View): string | undefined {
    if (!this.#options.shared) return undefined;
    const { name, id } = this.#options.node;
    const sameName = view.get("node", keyOf.node(name));
    if (sameName !== undefined && sameName.id !== "" && sameName.id !== id && this.#lives(view, sameName.name))
      return (
        `the node name "${name}" belongs to another live host: node ID ${sameName.id} at ${sameName.address}, this one has ${id} at ` +
        `${this.#options.node.address}; give one of them another name`
      );
    for (const other of view.list("node"))
      if (other.id === id && other.name.toLowerCase() !== name.toLowerCase() && this.#lives(view, other.name))
        return (
          `the node ID ${id} belongs to the live host "${other.name}" at ${other.address}, too; was this host's data folder copied? ` +
          `Give "${name}" a node ID and a data folder of its own`
        );
    return undefined;
  }

  /**
   * Resolves when nobody lives under this node's name or ID. Where somebody seems to, it may be this host itself, before it was renamed or
   * given a fresh data folder: that sign of life runs out by itself. @throws TrilithError `conflict` where it does not
   */
  async outlive(): Promise<void> {
    const { directory, clock, log, signal } = this.#options;
    const late = new AbortController();
    const timer = clock.after(OUTLIVE_MS, () => late.abort());
    try {
      for (let said = false; ; said = true) {
        const view = directory.view();
        const rival = this.rival(view);
        if (rival === undefined) return;
        if (late.signal.aborted || view.count("alive") === 0) throw new TrilithError("conflict", rival);
        if (!said) log.warn(`${rival}; waiting ${OUTLIVE_MS / 1000} s: if that was this host before, it falls silent`);
        await directory
          .changed("alive", view.at("alive"), AbortSignal.any([signal, late.signal]))
          .catch((error: unknown) => {
            if (!late.signal.aborted) throw error;
          });
      }
    } finally {
      timer.cancel();
    }
  }

  #lives(view: View, name: string): boolean {
    const sign = view.get("alive", keyOf.alive(name));
    if (sign !== undefined) return sign.life !== this.#options.life;
    // A directory without signs of life (a Consul's) tells by the node's check.
    return view.count("alive") === 0 && view.get("check", keyOf.check(name, NODE_ALIVE_CHECK))?.status === "passing";
  }

  /** A host that was renamed takes its records along: nothing stays under the old name. */
  async removeFormerNames(): Promise<void> {
    const { directory, clock } = this.#options;
    const { id, name } = this.#options.node;
    const view = directory.view();
    if (id === "" || this.rival(view) !== undefined) return;
    const why: Reason = {
      code: "replaced",
      text: `the host is called "${name}" now`,
      confirmed: true,
      atMs: clock.now(),
    };
    const former = [...view.list("node")].filter(
      (node) => node.id === id && node.name.toLowerCase() !== name.toLowerCase(),
    );
    if (former.length === 0) return;
    try {
      await directory.write(
        former.map((node) => ({ op: "delete", table: "node", key: keyOf.node(node.name), why })),
        undefined,
        this.#options.signal,
      );
    } catch (error) {
      this.#options.log.warn("the records under this host's former name could not be removed", {
        error: messageOf(error),
      });
    }
  }
}
