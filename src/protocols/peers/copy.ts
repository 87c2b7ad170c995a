// Another host's own, copied into this host's directory: only what that host says of itself, for as long as it is heard.
import type { Timer } from "../../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { View } from "../../contracts/directory.ts";
import type { Ground } from "../../contracts/ground.ts";
import { type Check, NODE_ALIVE_CHECK, NODE_DEAD_OUTPUT, NODE_DEAD_SOURCE } from "../../model/check.ts";
import type { Node } from "../../model/node.ts";
import type { Authority, Reason } from "../../model/reason.ts";
import { type Change, keyOf, scope, type Tables } from "../../model/record.ts";
import type { Hello, OwnRow } from "./lines.ts";

/** Whoever says nothing for so long is not there, unless something comes in that this process, held up itself, was late to read. */
const SILENT_MS = 2_400;
const LAST_LOOK_MS = 100;
const RETRY_MS = 1_000;

export interface CopyOptions extends Pick<Ground, "clock" | "directory" | "vouch"> {
  readonly log: Log;
}

/** Where and as who a host is heard. */
export interface Claim {
  readonly hello: Hello;
  /** `host:port`. */
  readonly place: string;
  /** Set where the node is reached at the address it was asked at, whatever it says itself. */
  readonly address?: string;
}

/** One other host, under its node's name. */
export class Copy {
  readonly name: string;
  readonly #options: CopyOptions;
  readonly #log: Log;
  #claim: Claim;
  /** By table and id, as the host told them last; undefined until it has told everything. */
  #rows: Map<string, OwnRow> | undefined;
  readonly #reasons = new Map<string, Reason>();
  #vouching: AbortController | undefined;
  #connected: AbortController | undefined;
  #silence: Timer | undefined;
  #bell: (() => void) | undefined;
  #told = false;

  constructor(options: CopyOptions, claim: Claim) {
    this.#options = options;
    this.#log = options.log;
    this.#claim = claim;
    this.name = claim.hello.node;
  }

  get claim(): Claim {
    return this.#claim;
  }
  /** True while it is believed to live. */
  get living(): boolean {
    return this.#vouching !== undefined;
  }
  /** True while a stream of it stands. */
  get connected(): boolean {
    return this.#connected !== undefined;
  }

  /** A stream of this host stands from now on; `cut` ends it when the host falls silent. Until `release` it keeps the copy in step. */
  hold(claim: Claim, cut: AbortController): { readonly release: () => Promise<void> } {
    const { vouch } = this.#options;
    const again = this.#vouching !== undefined && this.#claim.hello.life === claim.hello.life;
    this.#claim = claim;
    this.#rows = undefined;
    this.#told = false;
    this.#connected = cut;
    if (!again) {
      const before = this.#vouching;
      const vouching = new AbortController();
      this.#vouching = vouching;
      vouch(this.name, claim.hello.life, 0, vouching.signal).catch((error: unknown) => {
        if (codeOf(error) !== "stopped")
          this.#log.warn(`the sign of life of "${this.name}" could not be kept`, { error: messageOf(error) });
      });
      before?.abort();
    }
    this.heard();
    const work = this.#keep(claim.hello.life, cut.signal);
    return {
      release: async () => {
        cut.abort(new TrilithError("stopped", "the stream ended"));
        if (this.#connected === cut) this.#connected = undefined;
        await work;
      },
    };
  }

  /** Something came from it. */
  heard(): void {
    this.#silence?.cancel();
    const { clock } = this.#options;
    this.#silence = clock.after(SILENT_MS, () => {
      this.#silence = clock.after(LAST_LOOK_MS, () =>
        this.silent(`nothing was heard for ${SILENT_MS + LAST_LOOK_MS} ms`),
      );
    });
  }

  /** It is taken for dead: its sign of life goes, and with it its instances from answers. */
  silent(why: string): void {
    this.#silence?.cancel();
    this.#silence = undefined;
    this.#connected?.abort(new TrilithError("timeout", why));
    this.#connected = undefined;
    if (this.#vouching === undefined) return;
    this.#log.warn(`node "${this.name}" at ${this.#claim.place} is not heard: ${why}`);
    this.#vouching.abort();
    this.#vouching = undefined;
    // Later than that only if the store does not take it: then liveness says so, as the sign of life is gone.
    this.#dead(NODE_DEAD_OUTPUT, "second-hand", `is not heard: ${why}`).catch((error: unknown) => {
      if (codeOf(error) !== "stopped")
        this.#log.warn(`the check of "${this.name}" could not be written`, { error: messageOf(error) });
    });
  }

  /** Its check turns critical. */
  async #dead(output: string, authority: Authority, text: string): Promise<void> {
    const { clock, directory } = this.#options;
    const key = keyOf.check(this.name, NODE_ALIVE_CHECK);
    const standing = directory.view().get("check", key);
    if (standing === undefined) return;
    const { createIndex: _, modifyIndex: __, ...check } = standing;
    const foreignId = String(clock.now());
    const origin = { source: NODE_DEAD_SOURCE, authority, foreignId, text: `node "${this.name}" ${text}` };
    const value: Check = { ...check, status: "critical", output, origin };
    await directory.write([{ op: "put", table: "check", key, value }]);
  }

  /** It said so itself: its instances are out of answers when this resolves, and with `leave` its node is gone. */
  async goodbye(leave: boolean): Promise<void> {
    const { clock, directory } = this.#options;
    const vouching = this.#vouching;
    this.#rows = undefined;
    this.#silence?.cancel();
    this.#silence = undefined;
    const atMs = clock.now();
    this.#log.info(`node "${this.name}" says goodbye${leave ? " and leaves" : ""}`);
    if (leave) {
      const why: Reason = { code: "goodbye", text: `node "${this.name}" left`, confirmed: true, atMs };
      await directory.write([
        { op: "delete", table: "node", key: keyOf.node(this.name), why },
        { op: "delete", table: "alive", key: keyOf.alive(this.name) },
      ]);
    } else await this.#dead("Agent stopped: it said goodbye", "first-hand", "said goodbye");
    vouching?.abort();
    // Its next life may be heard by now, at another place.
    if (this.#vouching === vouching) this.#vouching = undefined;
  }

  /** No more timers; what stands stays as it is. */
  stop(): void {
    this.#silence?.cancel();
    this.#silence = undefined;
    this.#vouching?.abort();
    this.#vouching = undefined;
  }

  /** Takes what the host says of itself. @throws TrilithError `conflict` where it speaks of another one */
  take(whole: boolean, rows: readonly OwnRow[]): void {
    const all = whole ? new Map<string, OwnRow>() : this.#rows;
    if (all === undefined) throw new TrilithError("damaged", "changes before the whole list");
    const own = keyOf.node(this.name);
    for (const row of rows) {
      const name = `${row.table}\u0000${row.id}`;
      if (row.value === undefined) {
        all.delete(name);
        if (row.why !== undefined) this.#reasons.set(row.id, row.why);
        continue;
      }
      const about = row.table === "node" ? row.value.name : row.value.node;
      if (keyOf.node(about) !== own || (row.table === "node" && row.value.id !== this.#claim.hello.nodeId))
        throw new TrilithError(
          "conflict",
          `node "${this.name}" speaks of node "${about}": a host is the authority for itself only`,
        );
      all.set(name, row);
    }
    this.#rows = all;
    this.#bell?.();
  }

  /** Keeps the directory in step, whoever else writes there, until aborted. */
  async #keep(life: string, signal: AbortSignal): Promise<void> {
    const { clock, directory } = this.#options;
    while (!signal.aborted) {
      const round = new AbortController();
      const rung = new Promise<void>((resolve) => {
        this.#bell = resolve;
      });
      const pass = (): void => round.abort(signal.reason);
      signal.addEventListener("abort", pass, { once: true });
      try {
        // A check that says "alive" stands only beside a sign of life.
        const alive = (): boolean => directory.view().get("alive", keyOf.alive(this.name))?.life === life;
        while (!alive()) await directory.changed("alive", directory.view().at("alive"), signal);
        const at = await this.#write(signal);
        await Promise.race([rung, directory.changed(scope.node(this.name), at, round.signal)]);
      } catch (error) {
        if (signal.aborted || codeOf(error) === "stopped") return;
        this.#log.warn(`the directory does not take what "${this.name}" says, trying again`, {
          error: messageOf(error),
        });
        await clock.sleep(RETRY_MS, signal).catch(() => {});
      } finally {
        signal.removeEventListener("abort", pass);
        round.abort();
      }
    }
  }

  /** Writes what differs; returns where the node then stands. */
  async #write(signal: AbortSignal): Promise<number> {
    const { directory } = this.#options;
    const rows = this.#rows;
    const reasons = [...this.#reasons];
    const own = scope.node(this.name);
    if (rows === undefined || !rows.has("node\u0000")) return directory.view().at(own);
    await this.#clear(directory.view(), signal);
    const view = directory.view();
    const before = view.at(own);
    const changes = this.#changes(view, rows);
    const written = await directory.write(changes, [], signal);
    // Not those that came meanwhile, for what goes with the next write.
    for (const [id, why] of reasons) if (this.#reasons.get(id) === why) this.#reasons.delete(id);
    if (written.result === "unknown") throw written.cause;
    if (!this.#told) {
      this.#told = true;
      this.#log.info(`node "${this.name}" is heard at ${this.#claim.place}`);
    }
    // Seen before the write, so that nothing that others write meanwhile is missed: this write itself is looked at once more.
    return before;
  }

  /** What stands in its place and is another host's: an earlier one of this name, or this one under an earlier name. */
  async #clear(view: View, signal: AbortSignal): Promise<void> {
    const { clock, directory } = this.#options;
    const { nodeId, node } = this.#claim.hello;
    const changes: Change[] = [];
    for (const standing of view.list("node")) {
      const named = keyOf.node(standing.name) === keyOf.node(node);
      if (named === (standing.id === nodeId)) continue;
      const text = named
        ? `another host is called "${node}" now (node ID ${nodeId})`
        : `the host is called "${node}" now`;
      const why: Reason = { code: "replaced", text, confirmed: true, atMs: clock.now() };
      changes.push({ op: "delete", table: "node", key: keyOf.node(standing.name), why });
    }
    if (changes.length > 0) await directory.write(changes, [], signal);
  }

  #changes(view: View, rows: ReadonlyMap<string, OwnRow>): Change[] {
    const changes: Change[] = [];
    const atMs = this.#options.clock.now();
    for (const row of rows.values()) {
      if (row.value === undefined) continue;
      if (row.table === "node")
        changes.push({ op: "put", table: "node", key: keyOf.node(this.name), value: this.#reached(row.value) });
      else
        changes.push({
          op: "put",
          table: row.table,
          key: keyOf.service(this.name, row.id),
          value: row.value,
        } as Change);
    }
    // Nodes first, then services, then their checks.
    const order = ["node", "service", "check"];
    changes.sort((a, b) => order.indexOf(a.table) - order.indexOf(b.table));
    for (const table of ["check", "service"] as const)
      for (const { id } of view.list(table, keyOf.ofNode(this.name))) {
        if (rows.has(`${table}\u0000${id}`)) continue;
        const told = table === "service" ? this.#reasons.get(id) : undefined;
        const why: Reason = told ?? {
          code: "deregistered",
          text: `node "${this.name}" no longer has it`,
          confirmed: true,
          atMs,
        };
        changes.push({ op: "delete", table, key: keyOf.service(this.name, id), why });
      }
    return changes;
  }

  /** The node under the address at which this host reaches it. */
  #reached(node: Node): Tables["node"] {
    const { address } = this.#claim;
    if (address === undefined || address === node.address) return node;
    const tagged = Object.entries(node.taggedAddresses).map(([role, at]) => [role, at === node.address ? address : at]);
    return { ...node, address, taggedAddresses: Object.fromEntries(tagged) as Node["taggedAddresses"] };
  }
}
