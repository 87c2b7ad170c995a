// Alias checks: a check that stands as the checks of another service or node stand, and follows them at once. Texts as Consul writes them.
import type { Clock, Timer } from "../base/clock.ts";
import { messageOf } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Directory } from "../contracts/directory.ts";
import type { Outcome, Status } from "../model/check.ts";
import { keyOf, scope } from "../model/record.ts";
import { fieldsOf } from "./checks/detail.ts";
import type { CheckRecord } from "./records.ts";

/** What an alias check follows. */
export interface AliasDetail {
  /** "" = this host's own. */
  readonly node: string;
  /** A service's ID; "" = the node alone. */
  readonly service: string;
}

/** Reads an alias check's detail. @throws InputError that names the key */
export function aliasDetail(raw: unknown): AliasDetail {
  const fields = fieldsOf("alias", raw, ["node", "service"]);
  const detail = { node: fields.text("node", ""), service: fields.text("service", "") };
  if (detail.node === "" && detail.service === "") fields.fail("service", "the ID of a service, or a node's name");
  return detail;
}

export interface AliasOptions {
  readonly directory: Directory;
  readonly clock: Clock;
  readonly log: Log;
  /** This host's node. */
  readonly node: string;
  /** True = a node that nobody knows has no checks and so passes, as Consul has it; otherwise it is critical like a missing service. */
  readonly missingNodePasses: boolean;
  /** This host's checks of a service ("" = of the node). */
  readonly checksOf: (serviceId: string) => Iterable<CheckRecord>;
  readonly hasService: (id: string) => boolean;
  readonly stands: (checkId: string, outcome: Outcome) => void;
}

/** Beside following every change, everything is looked at again from time to time, as Consul does. */
const AGAIN_MS = 60_000;

/** What counts of a check that is followed. */
interface Followed {
  readonly name: string;
  readonly status: Status;
  readonly output: string;
}

/** All alias checks of a host. */
export class Aliases {
  readonly #options: AliasOptions;
  readonly #details = new Map<string, AliasDetail>();
  /** Alias checks by the service of this host that they follow. */
  readonly #local = new Map<string, Set<string>>();
  /** Alias checks by the other node that they follow, in lower case, with what ends the watch over it. */
  readonly #remote = new Map<string, { readonly ids: Set<string>; readonly end: AbortController }>();
  readonly #dirty = new Set<string>();
  readonly #watching = new Set<Promise<void>>();
  #timer: Timer | undefined;
  #planned = false;
  #stopped = false;

  constructor(options: AliasOptions) {
    this.#options = options;
  }

  /** Follows from now on. The first look comes within this turn. */
  begin(record: CheckRecord): void {
    const { id } = record.spec;
    this.end(id);
    if (this.#stopped) return;
    const detail = aliasDetail(record.spec.detail);
    this.#details.set(id, detail);
    if (this.#isLocal(detail)) {
      const ids = this.#local.get(detail.service);
      if (ids === undefined) this.#local.set(detail.service, new Set([id]));
      else ids.add(id);
    } else this.#watch(detail.node.toLowerCase(), id);
    this.#look(id);
    this.#timer ??= this.#options.clock.after(AGAIN_MS, () => this.#again());
  }

  end(checkId: string): void {
    const detail = this.#details.get(checkId);
    if (detail === undefined) return;
    this.#details.delete(checkId);
    this.#dirty.delete(checkId);
    const ids = this.#local.get(detail.service);
    ids?.delete(checkId);
    if (ids?.size === 0) this.#local.delete(detail.service);
    const name = detail.node.toLowerCase();
    const remote = this.#remote.get(name);
    if (remote?.ids.delete(checkId) && remote.ids.size === 0) {
      this.#remote.delete(name);
      remote.end.abort();
    }
    if (this.#details.size > 0) return;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** A service of this host ("" = the node) came, went, or one of its checks changed. */
  changed(serviceId: string): void {
    if (this.#local.size === 0) return;
    if (serviceId !== "") for (const id of this.#local.get(serviceId) ?? []) this.#look(id);
    else for (const ids of this.#local.values()) for (const id of ids) this.#look(id);
  }

  /** How an alias check stands by what is known now. */
  outcome(checkId: string, detail: AliasDetail): Outcome {
    return this.#isLocal(detail) ? this.#localOutcome(detail, new Set([checkId])) : this.#remoteOutcome(detail);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const id of [...this.#details.keys()]) this.end(id);
    await Promise.all(this.#watching);
  }

  #isLocal(detail: AliasDetail): boolean {
    return detail.node === "" || detail.node.toLowerCase() === this.#options.node.toLowerCase();
  }

  /** Looks at the end of this turn: changes made together are seen together. */
  #look(id: string): void {
    this.#dirty.add(id);
    if (this.#planned) return;
    this.#planned = true;
    void Promise.resolve().then(() => {
      this.#planned = false;
      const ids = [...this.#dirty];
      this.#dirty.clear();
      for (const dirty of ids) {
        const detail = this.#details.get(dirty);
        if (detail !== undefined) this.#options.stands(dirty, this.outcome(dirty, detail));
      }
    });
  }

  #again(): void {
    for (const id of this.#details.keys()) this.#look(id);
    this.#timer = this.#options.clock.after(AGAIN_MS, () => this.#again());
  }

  /**
   * Alias checks among those that are followed count as what they follow, each once: two that follow each other (or the same node) must
   * not hold each other critical for ever.
   */
  #localOutcome(detail: AliasDetail, seen: Set<string>): Outcome {
    const { node, checksOf, hasService } = this.#options;
    const followed: Followed[] = [];
    for (const of of new Set(["", detail.service]))
      for (const { spec, check } of checksOf(of)) {
        if (seen.has(spec.id)) continue;
        seen.add(spec.id);
        const next = this.#details.get(spec.id);
        if (next === undefined) followed.push(check);
        else
          followed.push({
            name: check.name,
            ...(this.#isLocal(next) ? this.#localOutcome(next, seen) : this.#remoteOutcome(next)),
          });
      }
    return this.#worst(followed, detail.service === "" || hasService(detail.service) ? "" : notFound(detail, node));
  }

  #remoteOutcome(detail: AliasDetail): Outcome {
    const { directory, missingNodePasses } = this.#options;
    const view = directory.view();
    const followed: Followed[] = [];
    for (const check of view.list("check", keyOf.ofNode(detail.node)))
      if (check.serviceId === "" || check.serviceId === detail.service) followed.push(check);
    let missing = "";
    if (detail.service !== "" && view.get("service", keyOf.service(detail.node, detail.service)) === undefined)
      missing = notFound(detail, detail.node);
    else if (detail.service === "" && !missingNodePasses && view.get("node", keyOf.node(detail.node)) === undefined)
      missing = `Node ${detail.node} could not be found`;
    return this.#worst(followed, missing);
  }

  #worst(followed: readonly Followed[], missing: string): Outcome {
    if (missing !== "") return { status: "critical", output: missing };
    const bad =
      followed.find(({ status }) => status === "critical") ?? followed.findLast(({ status }) => status === "warning");
    if (bad !== undefined)
      return { status: bad.status, output: `Aliased check ${JSON.stringify(bad.name)} failing: ${bad.output}` };
    return { status: "passing", output: followed.length === 0 ? "No checks found." : "All checks passing." };
  }

  /** Looks at the alias checks that follow a node whenever something about it changed in the directory. */
  #watch(name: string, id: string): void {
    const known = this.#remote.get(name);
    if (known !== undefined) {
      known.ids.add(id);
      return;
    }
    const { directory, log } = this.#options;
    const ids = new Set([id]);
    const end = new AbortController();
    this.#remote.set(name, { ids, end });
    const mine = scope.node(name);
    const watching: Promise<void> = (async () => {
      let after = directory.view().at(mine);
      while (!end.signal.aborted) {
        after = await directory.changed(mine, after, end.signal);
        for (const one of ids) this.#look(one);
      }
    })()
      .catch((error: unknown) => {
        // They are still looked at from time to time.
        if (!end.signal.aborted) log.warn(`watching node ${name} for alias checks ended`, { error: messageOf(error) });
      })
      .finally(() => this.#watching.delete(watching));
    this.#watching.add(watching);
  }
}

function notFound(detail: AliasDetail, node: string): string {
  return `Service ${detail.service} could not be found on node ${node}`;
}
