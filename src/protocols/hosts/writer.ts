// Keeps one hosts file in step with the directory: routable instances only, nobody's lines but its own, never empty by mistake.
import { Bell, Bells, folderOf } from "../../base/bells.ts";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { messageOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Agent } from "../../contracts/agent.ts";
import type { Directory } from "../../contracts/directory.ts";
import { FollowedServices } from "../../contracts/follow-services.ts";
import type { SourceState } from "../../contracts/ground.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import type { Endpoint } from "../../model/query.ts";
import { keyOf } from "../../model/record.ts";
import type { HostsRule } from "./config.ts";
import { HostsFile } from "./file.ts";
import { linesOf, type Names, namesIn, namesOf, type Placed, type PlacedNode } from "./names.ts";

export interface WriterMachine {
  readonly clock: Clock;
  readonly disk: Pick<Disk, "info" | "readText" | "realPath" | "replace" | "overwrite" | "bell">;
  readonly log: Log;
  readonly directory: Pick<Directory, "view" | "ready" | "changed">;
  readonly lookup: Pick<Lookup, "resolveNow" | "follow">;
  readonly agent: Pick<Agent, "services">;
  /** This host's node. */
  readonly node: string;
  readonly domain: string;
  /** Resolves when every source has told its first list. */
  readonly firstLists: (() => Promise<unknown>) | undefined;
}

/** Bursts of changes are one file. */
const TOGETHER_MS = 50;
/** Where the system does not tell that somebody changed the file, it is looked at so often; after a failure, too. */
const LOOK_AGAIN_MS = 15_000;
/** What an earlier life wrote stays so long where not every source has told its first list. */
const SETTLE_MS = 30_000;
/** The service that is the agent itself. */
const AGENT = "consul";

export class HostsWriter {
  readonly #rule: HostsRule;
  readonly #machine: WriterMachine;
  readonly #file: HostsFile;
  readonly #followed: FollowedServices;
  readonly #bell = new Bell();
  readonly #stop = new AbortController();
  /** Who reads the file does so on this host. */
  readonly #onThisHost: boolean;
  #running: Promise<void> | undefined;
  /** Until then what stands in the file is not taken out. */
  #settled = false;
  #names: Names = { names: new Map(), not: [] };
  #trouble: string | undefined;
  #told: string | undefined;

  constructor(rule: HostsRule, machine: WriterMachine) {
    this.#rule = rule;
    this.#machine = machine;
    this.#file = new HostsFile(rule, machine);
    this.#onThisHost = /^(127\.|::1$)/.test(rule.asker);
    const { directory, lookup } = machine;
    const query = {
      order: "stable",
      asker: rule.asker,
      ...(rule.tags.length === 0 ? {} : { tags: rule.tags }),
    } as const;
    this.#followed = new FollowedServices({
      ...{ directory, lookup, services: rule.services, query, changed: this.#bell.ring },
    });
  }

  start(): void {
    if (this.#stop.signal.aborted) return;
    this.#running ??= this.#run().catch((error: unknown) => {
      if (!this.#stop.signal.aborted)
        this.#machine.log.error(`${this.#rule.path} is not written any more`, { error: messageOf(error) });
    });
  }

  /** Takes out what was written where that is wished: by the rule, unless told. */
  async stop(written: "goes" | "stays" = this.#rule.remove ? "goes" : "stays"): Promise<void> {
    const begun = this.#running !== undefined;
    this.#stop.abort(new Error("stopped"));
    this.#bell.ring();
    await this.#running;
    if (written !== "goes" || !begun) return;
    try {
      await this.#file.write(undefined);
    } catch (error) {
      this.#machine.log.warn(`${this.#rule.path}: what was written stays there: ${messageOf(error)}`);
    }
  }

  state(): SourceState {
    const { names, not } = this.#names;
    const addresses = new Set([...names.values()].flatMap((all) => [...all])).size;
    const words = [
      `${names.size} ${names.size === 1 ? "name" : "names"} of ${addresses} ${addresses === 1 ? "address" : "addresses"}`,
      ...not.slice(0, 3),
      ...(not.length > 3 ? [`and ${not.length - 3} more cannot be written`] : []),
      ...(this.#trouble === undefined ? [] : [this.#trouble]),
    ];
    return {
      name: "hosts",
      ok: this.#trouble === undefined,
      text: `${this.#rule.path}${this.#file.way}: ${words.join("; ")}`,
    };
  }

  /** The lines in which a service stands, for `why`. */
  linesAbout(service: string): readonly string[] {
    const endpoints = this.#followed.answers().get(service.toLowerCase())?.endpoints ?? [];
    const addresses = new Set(endpoints.map((endpoint) => this.#addressOf(endpoint)));
    return linesOf(this.#names.names).filter((line) => addresses.has(line.split("\t")[0] ?? ""));
  }

  async #run(): Promise<void> {
    const { clock, directory } = this.#machine;
    const { signal } = this.#stop;
    const bells = new Bells(this.#machine, this.#bell.ring);
    await directory.ready(signal);
    const others = [this.#follow(() => this.#followed.run(signal)), this.#follow(() => this.#settle(signal))];
    if (this.#rule.nodes.length > 0) others.push(this.#follow(() => this.#followNodes(signal)));
    if (this.#rule.from === "host" || this.#rule.names.some((name) => name.includes("{container}")))
      others.push(this.#follow(() => this.#followServices(signal)));
    try {
      // Let the first answers come in.
      await clock.sleep(TOGETHER_MS, signal);
      while (!signal.aborted) {
        await bells.set([folderOf(this.#rule.path), this.#rule.path]);
        await this.#bring();
        const again = clock.after(LOOK_AGAIN_MS, this.#bell.ring);
        await this.#bell.heard();
        again.cancel();
        await clock.sleep(TOGETHER_MS, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      bells.close();
      await Promise.all(others);
    }
  }

  /** Something that goes on until the end. */
  async #follow(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!this.#stop.signal.aborted)
        this.#machine.log.error(`${this.#rule.path}: not everything is followed any more`, { error: messageOf(error) });
    }
  }

  async #settle(signal: AbortSignal): Promise<void> {
    const { clock, firstLists } = this.#machine;
    const over = new AbortController();
    await Promise.race([
      clock.sleep(SETTLE_MS, AbortSignal.any([signal, over.signal])),
      ...(firstLists === undefined ? [] : [firstLists()]),
    ]).finally(() => over.abort(new Error("settled")));
    this.#settled = true;
    this.#bell.ring();
  }

  async #followNodes(signal: AbortSignal): Promise<void> {
    await Promise.all(
      (["nodes", "checks"] as const).map(async (scope) => {
        const { directory } = this.#machine;
        for (let at = directory.view().at(scope); !signal.aborted; this.#bell.ring())
          at = await directory.changed(scope, at, signal);
      }),
    );
  }

  /** What this host's containers are called changes with the directory's services. */
  async #followServices(signal: AbortSignal): Promise<void> {
    const { directory } = this.#machine;
    for (let at = directory.view().at("services"); !signal.aborted; this.#bell.ring())
      at = await directory.changed("services", at, signal);
  }

  /** Brings the file to what the directory says now. */
  async #bring(): Promise<void> {
    const { path } = this.#rule;
    const { log } = this.#machine;
    try {
      const { others, lines } = await this.#file.read();
      this.#names = this.#namesNow(new Set(namesIn(others).keys()), lines);
      if (await this.#file.write(linesOf(this.#names.names)))
        log.debug(`${path}: ${this.#names.names.size} names are written`);
      this.#trouble = undefined;
    } catch (error) {
      this.#trouble = (await this.#isNowhere(error))
        ? `there is no folder ${folderOf(path)}: make it, or name another path`
        : messageOf(error);
    }
    if (this.#trouble !== this.#told && this.#trouble !== undefined) log.warn(`${path}: ${this.#trouble}`);
    this.#told = this.#trouble;
  }

  async #isNowhere(error: unknown): Promise<boolean> {
    if ((error as { readonly code?: unknown }).code !== "ENOENT") return false;
    try {
      return (await this.#machine.disk.info(folderOf(this.#rule.path))) === undefined;
    } catch {
      return false;
    }
  }

  #namesNow(taken: ReadonlySet<string>, standing: readonly string[]): Names {
    const { agent, node, domain } = this.#machine;
    const own = agent.services();
    const placed: Placed[] = [];
    for (const [service, { endpoints }] of this.#followed.answers()) {
      if (service === AGENT && this.#rule.services === undefined) continue;
      for (const endpoint of endpoints) {
        const { instance } = endpoint.resident;
        const here = instance.node.toLowerCase() === node.toLowerCase();
        if (this.#rule.from === "host" && !here) continue;
        const held = here ? own.get(instance.id) : undefined;
        const container = held?.instance.origin.source === "docker" ? held.asked?.aka?.[0] : undefined;
        placed.push({
          ...{ instance, address: this.#addressOf(endpoint) },
          ...(container === undefined ? {} : { container }),
        });
      }
    }
    const found = namesOf(placed, this.#nodes(), this.#rule, this.#rule.domain ?? domain, taken);
    if (this.#settled) return found;
    // Not everything has been read since the start: what an earlier life wrote is more likely right than gone.
    const names = new Map(found.names);
    for (const [name, addresses] of namesIn(standing.join("\n")))
      if (!taken.has(name)) names.set(name, new Set([...(names.get(name) ?? []), ...addresses]));
    return { ...found, names };
  }

  /** Without ports, a published one is of no use: on this host a container's own address is, with the port on which it listens. */
  #addressOf({ address, resident: { instance } }: Endpoint): string {
    if (!this.#onThisHost || instance.node.toLowerCase() !== this.#machine.node.toLowerCase()) return address;
    return instance.addresses?.find(({ reach }) => reach === "bridge")?.host ?? address;
  }

  /** Nodes that nothing says are down. */
  #nodes(): readonly PlacedNode[] {
    if (this.#rule.nodes.length === 0) return [];
    const view = this.#machine.directory.view();
    const nodes: PlacedNode[] = [];
    for (const { name, address } of view.list("node")) {
      if (this.#rule.from === "host" && name.toLowerCase() !== this.#machine.node.toLowerCase()) continue;
      let critical = false;
      for (const { serviceId, status } of view.list("check", keyOf.ofNode(name)))
        if (serviceId === "" && status === "critical") critical = true;
      if (!critical) nodes.push({ name, address });
    }
    return nodes;
  }
}
