// A real Consul as the server of a client host: its catalog followed by three blocking queries and read where they say that something moved.
import { setMaxListeners } from "node:events";
import type { Clock } from "../../base/clock.ts";
import { TrilithError } from "../../base/error.ts";
import type { Servers } from "../../base/servers.ts";
import type { Written } from "../../contracts/directory.ts";
import type { Batch, Commit } from "../../contracts/storage.ts";
import { type Index, keyOf, type Tables } from "../../model/record.ts";
import { isDrainCheck, type Json, text } from "../../wire/consul-catalog.ts";
import { SignOfLife } from "./consul-alive.ts";
import { commitToConsul } from "./consul-commit.ts";
import { Mirror, nameOf } from "./consul-mirror.ts";
import { aliveRows, checkRow, type Held, list, nodeRow, serviceRows } from "./consul-rows.ts";
import { ALIVE_PREFIX } from "./consul-wire.ts";
import { mustBeHere } from "./trilith-feed.ts";

export interface ConsulFeedOptions {
  readonly servers: Servers;
  /** The one that is followed. */
  readonly url: string;
  /** This host's node and datacenter. */
  readonly node: string;
  readonly datacenter: string;
  readonly clock: Clock;
  /** The directory is at this index already; numbers go on from there. */
  readonly after: Index;
}

/** A blocking query waits for so long; a server that does not answer for a while longer is away. */
const WAIT_S = 30;
const WAIT_HEAD_MS = (WAIT_S * 17 * 1000) / 16 + 5000;
const READERS = 8;
/** After reading every service the next round waits for so many times as long as it took. */
const SWEEP = { times: 4, longestMs: 10_000 } as const;
/** Changes that come within so long are read together. */
const GATHER_MS = 20;

/** One connection to one server; a broken one is thrown away. */
export class ConsulFeed {
  readonly #options: ConsulFeedOptions;
  readonly #mirror: Mirror;
  readonly #alive: SignOfLife;
  /** Every service's tags, as one text. */
  #names = new Map<string, string>();
  /** Services that have changed, to be read. */
  readonly #dirty = new Set<string>();
  /** True where any service may have changed. */
  #sweepDue = false;
  readonly #batches: Batch[] = [];
  #wake: (() => void) | undefined;
  #work: (() => void) | undefined;
  #failure: unknown;

  constructor(options: ConsulFeedOptions) {
    this.#options = options;
    const { servers, url, node, after } = options;
    this.#mirror = new Mirror({
      node,
      after,
      tell: (batch) => {
        this.#batches.push(batch);
        this.#wake?.();
      },
    });
    this.#alive = new SignOfLife(servers, url, this.#mirror);
  }

  /** First the whole, then every change; ends by throwing. */
  async *batches(signal: AbortSignal): AsyncGenerator<Batch, never> {
    const stop = new AbortController();
    const until = AbortSignal.any([signal, stop.signal]);
    // So many requests are under way at once.
    setMaxListeners(0, until);
    until.addEventListener(
      "abort",
      () => {
        this.#wake?.();
        this.#work?.();
      },
      { once: true },
    );
    const running: Promise<void>[] = [];
    try {
      // The bells' indexes come first: what changes while the rest is read rings them.
      const [nodes, checks, services, alive] = await Promise.all([
        this.#get("/v1/catalog/nodes", until),
        this.#get("/v1/health/state/any", until),
        this.#get("/v1/catalog/services", until),
        this.#get(`/v1/kv/${ALIVE_PREFIX}?recurse`, until),
      ]);
      for (const { Datacenter } of list(nodes.value).slice(0, 1))
        mustBeHere(text(Datacenter), this.#options.datacenter, this.#options.url);
      const names = Object.keys((services.value ?? {}) as object);
      const rows: Held[] = [];
      for (const raw of list(nodes.value)) rows.push(nodeRow(raw));
      for (const raw of list(checks.value)) if (text(raw["ServiceID"]) === "") rows.push(checkRow(raw));
      rows.push(...aliveRows(alive.value));
      await inParallel(names, READERS, async (name) => {
        const { value } = await this.#get(`/v1/health/service/${encodeURIComponent(name)}`, until);
        for (const each of serviceRows(list(value))) rows.push(each);
      });
      this.#names = tagsOf(services.value);
      yield this.#mirror.begin(rows, Math.max(nodes.index, checks.index, services.index));
      running.push(
        this.#ring("/v1/catalog/nodes", nodes.index, until, (value, at) => this.#tookNodes(list(value), at)),
        this.#ring("/v1/health/state/any", checks.index, until, (value, at) => this.#tookChecks(list(value), at)),
        this.#ring("/v1/catalog/services", services.index, until, (value) => this.#tookServices(value)),
        this.#ring(`/v1/kv/${ALIVE_PREFIX}?recurse`, alive.index, until, (value, at) => this.#tookAlive(value, at)),
        this.#read(until),
      );
      for (;;) {
        const batch = this.#batches.shift();
        if (batch !== undefined) {
          yield batch;
          continue;
        }
        if (this.#failure !== undefined) throw this.#failure;
        if (signal.aborted) throw signal.reason;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          if (until.aborted) resolve();
        });
      }
    } finally {
      stop.abort(new TrilithError("stopped", "this connection is given up"));
      await Promise.all(running);
    }
  }

  #get(path: string, signal: AbortSignal, headTimeoutMs?: number): Promise<{ value: unknown; index: Index }> {
    const { servers, url } = this.#options;
    return servers.indexed(url, path, signal, headTimeoutMs);
  }

  /** Asks again and again, each time until something has moved. */
  async #ring(
    path: string,
    from: Index,
    signal: AbortSignal,
    moved: (value: unknown, at: Index) => void,
  ): Promise<void> {
    let index = from;
    const { clock } = this.#options;
    try {
      while (!signal.aborted) {
        const began = clock.monotonic();
        const mark = path.includes("?") ? "&" : "?";
        const found = await this.#get(
          `${path}${mark}index=${Math.max(1, index)}&wait=${WAIT_S}s`,
          signal,
          WAIT_HEAD_MS,
        );
        // The catalog's numbers only grow: one that went back belongs to another content, of which everything is read. Those of keys go back when graves are cleared.
        if (found.index < index && !path.startsWith("/v1/kv/"))
          throw new TrilithError(
            "unavailable",
            `${this.#options.url}${path}: X-Consul-Index went back from ${index} to ${found.index}: the catalog was replaced and is read anew`,
          );
        if (found.index < index) index = 0;
        else {
          if (found.index !== index) moved(found.value, found.index);
          index = found.index;
        }
        if (clock.monotonic() - began < GATHER_MS) await clock.sleep(GATHER_MS, signal);
      }
    } catch (error) {
      this.#fail(error, signal);
    }
  }

  #fail(error: unknown, signal: AbortSignal): void {
    if (signal.aborted) return;
    this.#failure ??= error;
    this.#wake?.();
    this.#work?.();
  }

  #tookNodes(nodes: readonly Json[], at: Index): void {
    const rows = nodes.map((raw) => nodeRow(raw));
    this.#mirror.replace("node", rows, at, () => true);
  }

  #tookChecks(checks: readonly Json[], at: Index): void {
    const ofNodes: Held[] = [];
    const seen = new Set<string>();
    const draining = new Set<string>();
    for (const raw of checks) {
      if (isDrainCheck(raw)) {
        const key = keyOf.service(text(raw["Node"]), text(raw["ServiceID"]));
        draining.add(key);
        const held = this.#mirror.get("service", key)?.value as Tables["service"] | undefined;
        if (held?.draining !== true) this.#mark(held?.name ?? text(raw["ServiceName"]));
        continue;
      }
      const row = checkRow(raw);
      const { serviceId } = row.value as Tables["check"];
      if (serviceId === "") {
        ofNodes.push(row);
        continue;
      }
      seen.add(row.key);
      // An instance is read together with its checks, so that nobody sees it without.
      if (this.#mirror.get("check", row.key)?.serverIndex !== row.serverIndex)
        this.#mark(this.#serviceNameOf(row.value as Tables["check"]) ?? text(raw["ServiceName"]));
    }
    for (const held of this.#mirror.values()) {
      if (held.table === "service" && held.serverIndex <= at) {
        const instance = held.value as Tables["service"];
        if (instance.draining === true && !draining.has(held.key)) this.#mark(instance.name);
      }
      if (held.table !== "check") continue;
      const check = held.value as Tables["check"];
      if (check.serviceId !== "" && !seen.has(held.key) && held.serverIndex <= at)
        this.#mark(this.#serviceNameOf(check) ?? "");
    }
    this.#mirror.replace("check", ofNodes, at, (value) => (value as Tables["check"]).serviceId === "");
  }

  #serviceNameOf(check: Tables["check"]): string | undefined {
    const held = this.#mirror.get("service", keyOf.service(check.node, check.serviceId));
    return (held?.value as Tables["service"] | undefined)?.name;
  }

  #tookServices(value: unknown): void {
    const names = tagsOf(value);
    // What has visibly changed comes first; the rest may have changed in ways that this list does not show.
    for (const [name, tags] of names) if (this.#names.get(name) !== tags) this.#mark(name);
    for (const name of this.#names.keys()) if (!names.has(name)) this.#mark(name);
    this.#names = names;
    this.#sweepDue = true;
    this.#work?.();
  }

  #tookAlive(value: unknown, at: Index): void {
    this.#mirror.replace("alive", aliveRows(value), at, () => true);
  }

  #mark(name: string): void {
    if (name === "") return;
    this.#dirty.add(name);
    this.#work?.();
  }

  /** Reads the services that may have changed. */
  async #read(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    let sweptUntil = 0;
    try {
      while (!signal.aborted) {
        if (this.#dirty.size > 0) {
          const names = [...this.#dirty];
          this.#dirty.clear();
          await this.#readServices(names, signal);
          continue;
        }
        const leftMs = sweptUntil - clock.monotonic();
        if (this.#sweepDue && leftMs <= 0) {
          this.#sweepDue = false;
          const began = clock.monotonic();
          await this.#readServices([...this.#names.keys()], signal);
          const tookMs = clock.monotonic() - began;
          sweptUntil = clock.monotonic() + Math.min(SWEEP.longestMs, tookMs * SWEEP.times);
          continue;
        }
        await new Promise<void>((resolve) => {
          const timer = this.#sweepDue ? clock.after(leftMs, resolve) : undefined;
          this.#work = () => {
            timer?.cancel();
            resolve();
          };
          if (signal.aborted) this.#work();
        });
        this.#work = undefined;
      }
    } catch (error) {
      this.#fail(error, signal);
    }
  }

  async #readServices(names: readonly string[], signal: AbortSignal, consistent = ""): Promise<void> {
    await inParallel(names, READERS, async (name) => {
      const { value, index } = await this.#get(`/v1/health/service/${encodeURIComponent(name)}${consistent}`, signal);
      this.#tookService(name, list(value), index);
    });
  }

  #tookService(name: string, entries: readonly Json[], at: Index): void {
    const rows = [...serviceRows(entries)];
    const present = new Set(rows.map(({ table, key }) => nameOf(table, key)));
    const gone: Held[] = [];
    for (const held of this.#mirror.instancesOf(name)) {
      if (held.serverIndex > at) continue;
      if (!present.has(nameOf("service", held.key))) gone.push(held);
      const { node, id } = held.value as Tables["service"];
      for (const check of this.#mirror.checksOf(node, id))
        if (!present.has(nameOf("check", check.key)) && check.serverIndex <= at) gone.push(check);
    }
    this.#mirror.change(rows, gone, at);
  }

  /** Everything is read anew from the leader; resolves with the index at which it is told. */
  async latest(signal: AbortSignal): Promise<Index> {
    setMaxListeners(0, signal);
    const [nodes, checks, services] = await Promise.all([
      this.#get("/v1/catalog/nodes?consistent", signal),
      this.#get("/v1/health/state/any?consistent", signal),
      this.#get("/v1/catalog/services?consistent", signal),
    ]);
    this.#tookNodes(list(nodes.value), nodes.index);
    this.#names = tagsOf(services.value);
    const names = new Set([...this.#names.keys(), ...this.#mirror.serviceNames()]);
    await this.#readServices([...names], signal, "?consistent");
    this.#tookChecks(list(checks.value), checks.index);
    return this.#mirror.index;
  }

  /** One transaction. This host's own records are set whatever stands there; those of others only as they are known. */
  commit(commit: Commit, signal: AbortSignal): Promise<Written> {
    const { servers, url } = this.#options;
    return commitToConsul({ servers, url, mirror: this.#mirror }, commit, signal);
  }

  /** One sign of life. */
  alive(node: string, life: string, ttlMs: number, signal: AbortSignal): Promise<void> {
    return this.#alive.give(node, life, ttlMs, signal);
  }
}

/** Names with their tags as one text, to see what has changed. */
function tagsOf(value: unknown): Map<string, string> {
  return new Map(
    Object.entries((value ?? {}) as Record<string, unknown>).map(([name, tags]) => [name, JSON.stringify(tags)]),
  );
}

async function inParallel<T>(items: readonly T[], most: number, work: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < items.length) await work(items[next++] as T);
  };
  const done = await Promise.allSettled(Array.from({ length: Math.min(most, items.length) }, worker));
  for (const each of done) if (each.status === "rejected") throw each.reason;
}
