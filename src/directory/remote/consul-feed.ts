// A real Consul as the server of a client host: its catalog followed by three blocking queries and read where they say that something moved.
import { setMaxListeners } from "node:events";
import type { Clock } from "../../base/clock.ts";
import { TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Servers } from "../../base/servers.ts";
import type { Written } from "../../contracts/directory.ts";
import type { Batch, Commit, Row } from "../../contracts/storage.ts";
import { type Change, type Index, keyOf, type Table, type Tables } from "../../model/record.ts";
import { isDrainCheck, type Json, text } from "../../wire/consul-catalog.ts";
import { ALIVE_PREFIX, checkFrom, drainOperation, gist, instanceFrom, nodeFrom, operationOf } from "./consul-wire.ts";
import { mustBeHere } from "./trilith-feed.ts";

export interface ConsulFeedOptions {
  readonly servers: Servers;
  /** The one that is followed. */
  readonly url: string;
  /** This host's node and datacenter. */
  readonly node: string;
  readonly datacenter: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The directory is at this index already; numbers go on from there. */
  readonly after: Index;
}

type Mirrored = "node" | "service" | "check" | "alive";

/** One record as this side holds it. */
interface Held {
  readonly table: Mirrored;
  readonly key: string;
  readonly value: Tables[Mirrored];
  /** The server's own numbers. */
  readonly createIndex: Index;
  readonly serverIndex: Index;
  /** The number that the directory knows it by. */
  readonly modifyIndex: Index;
}

/** A blocking query waits for so long; a server that does not answer for a while longer is away. */
const WAIT_S = 30;
const WAIT_HEAD_MS = (WAIT_S * 17 * 1000) / 16 + 5000;
const READERS = 8;
/** After reading every service the next round waits for so many times as long as it took. */
const SWEEP = { times: 4, longestMs: 10_000 } as const;
/** Consul takes no shorter TTL. */
const LEAST_TTL_S = 10;
const GENERIC_WAIT_MS = 20;

const number = (value: unknown): number => (typeof value === "number" ? value : 0);
const list = (value: unknown): readonly Json[] => (Array.isArray(value) ? (value as Json[]) : []);

/** One connection to one server; a broken one is thrown away. */
export class ConsulFeed {
  readonly #options: ConsulFeedOptions;
  readonly #held = new Map<string, Held>();
  /** Keys of what is held, by service name in lower case. */
  readonly #instances = new Map<string, Set<string>>();
  /** Keys of the checks of each service, by the service's key. */
  readonly #owned = new Map<string, Set<string>>();
  #index: Index;
  #names = new Map<string, string>();
  readonly #dirty = new Set<string>();
  readonly #batches: Batch[] = [];
  #wake: (() => void) | undefined;
  #work: (() => void) | undefined;
  #failure: unknown;
  #session: { readonly id: string; readonly life: string } | undefined;

  constructor(options: ConsulFeedOptions) {
    this.#options = options;
    this.#index = options.after;
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
      for (const raw of list(nodes.value)) rows.push(this.#nodeRow(raw));
      for (const raw of list(checks.value)) if (text(raw["ServiceID"]) === "") rows.push(this.#checkRow(raw));
      rows.push(...aliveRows(alive.value));
      await inParallel(names, READERS, async (name) => {
        const { value } = await this.#get(`/v1/health/service/${encodeURIComponent(name)}`, until);
        for (const each of this.#serviceRows(list(value))) rows.push(each);
      });
      this.#names = tagsOf(services.value);
      const top = Math.max(1, this.#index + 1, nodes.index, checks.index, services.index);
      this.#index = top;
      const found = new Map<string, Held>();
      for (const row of rows) {
        const name = nameOf(row.table, row.key);
        const other = found.get(name);
        if (other === undefined || other.serverIndex <= row.serverIndex)
          found.set(name, { ...row, modifyIndex: Math.min(row.serverIndex, top) });
      }
      for (const row of found.values()) this.#hold(row);
      yield { kind: "snapshot", index: top, rows: Array.from(found.values(), rowOf), complete: true };
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
        // Many changes in a row are read together.
        if (clock.monotonic() - began < GENERIC_WAIT_MS) await clock.sleep(GENERIC_WAIT_MS, signal);
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
    const rows = nodes.map((raw) => this.#nodeRow(raw));
    this.#replace("node", rows, at, () => true);
  }

  #tookChecks(checks: readonly Json[], at: Index): void {
    const ofNodes: Held[] = [];
    const seen = new Set<string>();
    const draining = new Set<string>();
    for (const raw of checks) {
      if (isDrainCheck(raw)) {
        const key = keyOf.service(text(raw["Node"]), text(raw["ServiceID"]));
        draining.add(key);
        const held = this.#held.get(nameOf("service", key))?.value as Tables["service"] | undefined;
        if (held?.draining !== true) this.#mark(held?.name ?? text(raw["ServiceName"]));
        continue;
      }
      const row = this.#checkRow(raw);
      const { serviceId } = row.value as Tables["check"];
      if (serviceId === "") {
        ofNodes.push(row);
        continue;
      }
      seen.add(row.key);
      // An instance is read together with its checks, so that nobody sees it without.
      if (this.#held.get(nameOf("check", row.key))?.serverIndex !== row.serverIndex)
        this.#mark(this.#serviceNameOf(row.value as Tables["check"]) ?? text(raw["ServiceName"]));
    }
    for (const held of this.#held.values()) {
      if (held.table === "service" && held.serverIndex <= at) {
        const instance = held.value as Tables["service"];
        if (instance.draining === true && !draining.has(held.key)) this.#mark(instance.name);
      }
      if (held.table !== "check") continue;
      const check = held.value as Tables["check"];
      if (check.serviceId !== "" && !seen.has(held.key) && held.serverIndex <= at)
        this.#mark(this.#serviceNameOf(check) ?? "");
    }
    this.#replace("check", ofNodes, at, (value) => (value as Tables["check"]).serviceId === "");
  }

  #serviceNameOf(check: Tables["check"]): string | undefined {
    const held = this.#held.get(nameOf("service", keyOf.service(check.node, check.serviceId)));
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

  #sweepDue = false;

  #tookAlive(value: unknown, at: Index): void {
    this.#replace("alive", aliveRows(value), at, () => true);
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
    const rows = [...this.#serviceRows(entries)];
    const present = new Set(rows.map(({ table, key }) => nameOf(table, key)));
    const gone: Held[] = [];
    for (const key of this.#instances.get(name.toLowerCase()) ?? []) {
      const held = this.#held.get(nameOf("service", key));
      if (held === undefined || held.serverIndex > at) continue;
      if (!present.has(nameOf("service", key))) gone.push(held);
      const { node, id } = held.value as Tables["service"];
      for (const check of this.#checksOf(node, id))
        if (!present.has(nameOf("check", check.key)) && check.serverIndex <= at) gone.push(check);
    }
    this.#change(rows, gone, at);
  }

  *#checksOf(node: string, serviceId: string): Generator<Held> {
    for (const key of this.#owned.get(keyOf.service(node, serviceId)) ?? []) {
      const held = this.#held.get(nameOf("check", key));
      if (held !== undefined) yield held;
    }
  }

  /** Instances with their own checks and those of their nodes. */
  *#serviceRows(entries: readonly Json[]): Generator<Held> {
    for (const entry of entries) {
      const node = entry["Node"] as Json;
      const service = entry["Service"] as Json;
      const name = text(node["Node"]);
      yield this.#nodeRow(node);
      const checks = list(entry["Checks"]);
      const drain = checks.find(isDrainCheck);
      const instance = instanceFrom(name, service, drain !== undefined);
      const row = heldOf("service", keyOf.service(name, instance.id), instance, service);
      yield { ...row, serverIndex: Math.max(row.serverIndex, number(drain?.["ModifyIndex"])) };
      for (const check of checks) if (check !== drain) yield this.#checkRow(check);
    }
  }

  #nodeRow(raw: Json): Held {
    const node = nodeFrom(raw);
    return heldOf("node", keyOf.node(node.name), node, raw);
  }

  #checkRow(raw: Json): Held {
    const check = checkFrom(raw);
    return heldOf("check", keyOf.check(check.node, check.id), check, raw);
  }

  /** A whole list of a table: what is missing from it is gone. */
  #replace(table: Mirrored, rows: readonly Held[], at: Index, covers: (value: Tables[Mirrored]) => boolean): void {
    const present = new Set(rows.map(({ key }) => key));
    const gone: Held[] = [];
    for (const held of this.#held.values())
      if (held.table === table && !present.has(held.key) && held.serverIndex <= at && covers(held.value))
        gone.push(held);
    this.#change(rows, gone, at);
  }

  /** True where a client host lives. */
  readonly #isClient = (node: string): boolean => {
    if (node.toLowerCase() === this.#options.node.toLowerCase()) return true;
    const held = this.#held.get(nameOf("node", keyOf.node(node)));
    return held !== undefined && (held.value as Tables["node"]).external !== true;
  };

  /** Takes rows over as far as they are news, and tells of them. `at`: the server's index of the answer that they came from. */
  #change(rows: readonly Held[], gone: readonly Held[], at: Index): void {
    const news: Held[] = [];
    for (let row of rows) {
      const held = this.#held.get(nameOf(row.table, row.key));
      if (held !== undefined) {
        // An instance that no longer drains is told by what is missing, which has no number of its own.
        const routableAgain = row.table === "service" && isDraining(held) && !isDraining(row) && at > held.serverIndex;
        if (routableAgain) row = { ...row, serverIndex: Math.max(row.serverIndex, at) };
        // An answer that was on its way while this side wrote is older than what was written.
        if (held.serverIndex >= row.serverIndex) continue;
        if (row.table !== "alive" && held.table === row.table) {
          const node = (row.value as { readonly node?: string; readonly name: string }).node;
          const client = node !== undefined && this.#isClient(node);
          const table = row.table;
          const same =
            gist(table, held.value as Tables["node"], client) === gist(table, row.value as Tables["node"], client);
          // What this host wrote comes back without what Consul has no place for: it stays as it was written.
          if (same && this.#isOwn(held)) {
            this.#held.set(nameOf(row.table, row.key), { ...held, serverIndex: row.serverIndex });
            continue;
          }
        }
      }
      news.push(row);
    }
    this.#emit(news, gone, at);
  }

  #isOwn(held: Held): boolean {
    const own = this.#options.node.toLowerCase();
    return held.key === own || held.key.startsWith(`${own}\u0000`);
  }

  #emit(news: readonly Held[], gone: readonly Held[], at: Index, more: readonly Row[] = []): Index {
    if (news.length === 0 && gone.length === 0 && more.length === 0) return this.#index;
    const known = this.#index;
    const index = Math.max(at, known + 1);
    this.#index = index;
    const rows: Row[] = [];
    for (const each of news) {
      // Answers come in any order, numbers only grow: what comes late gets a later number than the server's.
      const held: Held = { ...each, modifyIndex: each.serverIndex > known ? Math.min(each.serverIndex, index) : index };
      this.#hold(held);
      rows.push(rowOf(held));
    }
    for (const { table, key, createIndex } of gone) {
      this.#drop(table, key);
      rows.push({ table, key, value: undefined, createIndex, modifyIndex: index });
    }
    for (const row of more) rows.push({ ...row, modifyIndex: index, createIndex: index });
    // A node before what is on it, a service before its checks; within that in the order of numbers.
    rows.sort((a, b) => a.modifyIndex - b.modifyIndex || RANK[a.table] - RANK[b.table]);
    this.#batches.push({ kind: "delta", index, rows });
    this.#wake?.();
    return index;
  }

  #hold(held: Held): void {
    this.#drop(held.table, held.key);
    this.#held.set(nameOf(held.table, held.key), held);
    const [index, name] = this.#groupOf(held);
    if (index === undefined) return;
    let keys = index.get(name);
    if (keys === undefined) {
      keys = new Set();
      index.set(name, keys);
    }
    keys.add(held.key);
  }

  #drop(table: Mirrored, key: string): void {
    const before = this.#held.get(nameOf(table, key));
    if (before === undefined) return;
    this.#held.delete(nameOf(table, key));
    const [index, name] = this.#groupOf(before);
    const keys = index?.get(name);
    keys?.delete(key);
    if (keys?.size === 0) index?.delete(name);
  }

  /** The index in which a record is found by what it belongs to, and its name there. */
  #groupOf(held: Held): readonly [Map<string, Set<string>> | undefined, string] {
    if (held.table === "service") return [this.#instances, serviceOf(held)];
    if (held.table !== "check") return [undefined, ""];
    const { node, serviceId } = held.value as Tables["check"];
    return [this.#owned, keyOf.service(node, serviceId)];
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
    const names = new Set([...this.#names.keys(), ...this.#instances.keys()]);
    await this.#readServices([...names], signal, "?consistent");
    this.#tookChecks(list(checks.value), checks.index);
    return this.#index;
  }

  /** One transaction. This host's own records are set whatever stands there; those of others only as they are known. */
  async commit({ changes, expect }: Commit, signal: AbortSignal): Promise<Written> {
    for (const { table, key, at } of expect)
      if ((this.#held.get(nameOf(table, key))?.modifyIndex ?? 0) !== at) return { result: "expectation-failed" };
    const wanted = changes.filter(({ table }) => table !== "grave");
    const order = (change: Change): number => (change.op === "put" ? RANK[change.table] : 10 - RANK[change.table]);
    wanted.sort((a, b) => order(a) - order(b));
    const own = this.#options.node.toLowerCase();
    const operations: { readonly json: Json; readonly guarded: boolean }[] = [];
    for (const change of wanted) {
      const before = this.#held.get(nameOf(change.table, change.key));
      const theirs = change.key !== own && !change.key.startsWith(`${own}\u0000`);
      const guarded = theirs && expect.some(({ table, key }) => table === change.table && key === change.key);
      const cas = guarded ? (before?.serverIndex ?? 0) : undefined;
      const json = operationOf(change, before?.value as Tables["node"] | undefined, cas, this.#isClient);
      if (json !== undefined) operations.push({ json, guarded });
    }
    // Last, so that the results of the others keep their places.
    for (const change of wanted) {
      if (change.table !== "service" || change.op !== "put") continue;
      const before = this.#held.get(nameOf("service", change.key))?.value as Tables["service"] | undefined;
      const json = drainOperation(change.value, before);
      if (json !== undefined) operations.push({ json, guarded: false });
    }
    const results = operations.length === 0 ? [] : await this.#transact(operations, signal);
    if ("result" in results) return results;
    let at = 0;
    let next = 0;
    const news: Held[] = [];
    const gone: Held[] = [];
    for (const change of wanted) {
      const before = this.#held.get(nameOf(change.table, change.key));
      if (change.op === "delete") {
        if (before !== undefined) gone.push(before);
        continue;
      }
      const raw = (Object.values(results[next++] ?? {})[0] ?? {}) as Json;
      const serverIndex = number(raw["ModifyIndex"]);
      at = Math.max(at, serverIndex);
      const createIndex = number(raw["CreateIndex"]) || before?.createIndex || this.#index + 1;
      const table = change.table as Mirrored;
      news.push({
        table,
        key: change.key,
        value: change.value as Tables[Mirrored],
        createIndex,
        serverIndex,
        modifyIndex: 0,
      });
    }
    const graves: Row[] = changes.flatMap((change) =>
      change.table !== "grave"
        ? []
        : [
            {
              table: "grave",
              key: change.key,
              value: change.op === "put" ? change.value : undefined,
              createIndex: 0,
              modifyIndex: 0,
            },
          ],
    );
    return { result: "written", index: this.#emit(news, gone, at, graves) };
  }

  async #transact(
    operations: readonly { readonly json: Json; readonly guarded: boolean }[],
    signal: AbortSignal,
  ): Promise<readonly Json[] | Written> {
    const { servers, url } = this.#options;
    const body = JSON.stringify(operations.map(({ json }) => json));
    let status: number;
    let answer: string;
    try {
      const response = await servers.askOne(url, {
        path: "/v1/txn",
        method: "PUT",
        headers: { "content-type": "application/json" },
        body,
        signal,
      });
      status = response.status;
      answer = await response.text();
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      return { result: "unknown", cause: error as Error };
    }
    if (status === 200) return list((JSON.parse(answer) as Json)["Results"]);
    if (status === 409) {
      const errors = list((JSON.parse(answer) as Json)["Errors"]);
      const refused = errors.filter(({ OpIndex }) => operations[number(OpIndex)]?.guarded !== true);
      if (refused.length === 0) return { result: "expectation-failed" };
      throw new TrilithError("invalid", `${url} refuses: ${refused.map(({ What }) => text(What)).join("; ")}`);
    }
    const said = `${url}/v1/txn: status ${status}: ${answer.slice(0, 200)}`;
    throw new TrilithError(status === 413 ? "too-large" : status === 400 ? "invalid" : "unavailable", said);
  }

  /** One sign of life: a key held by a session that this renews; the session ends when nobody does, and takes the key along. */
  async alive(node: string, life: string, ttlMs: number, signal: AbortSignal): Promise<void> {
    const put = async (path: string, body = ""): Promise<{ status: number; text: string }> => {
      const answer = await this.#options.servers.askOne(this.#options.url, { path, method: "PUT", body, signal });
      const said = await answer.text();
      if (answer.status !== 200 && answer.status !== 404)
        throw new TrilithError(
          "unavailable",
          `${this.#options.url}${path}: status ${answer.status}: ${said.slice(0, 200)}`,
        );
      return { status: answer.status, text: said };
    };
    if (this.#session?.life === life && (await put(`/v1/session/renew/${this.#session.id}`)).status === 404)
      this.#session = undefined;
    if (this.#session?.life !== life) {
      const created = await put(
        "/v1/session/create",
        JSON.stringify({
          Name: `trilith alive ${node}`,
          TTL: `${Math.max(LEAST_TTL_S, Math.ceil(ttlMs / 1000))}s`,
          LockDelay: "0s",
          Behavior: "delete",
          NodeChecks: [],
        }),
      );
      this.#session = { id: text((JSON.parse(created.text) as Json)["ID"]), life };
    }
    const key = keyOf.alive(node);
    const held = this.#held.get(nameOf("alive", key));
    if ((held?.value as Tables["alive"] | undefined)?.life === life) return;
    const at = `/v1/kv/${ALIVE_PREFIX}${encodeURIComponent(key)}`;
    const taken = await put(`${at}?acquire=${this.#session.id}`, JSON.stringify({ node, life }));
    if (taken.text.trim() === "true") return;
    // The sign of this host's former life is still held: it was this host's own, or a rival's, which the agent has seen to.
    const deleted = await this.#options.servers.askOne(this.#options.url, { path: at, method: "DELETE", signal });
    await deleted.text();
    await put(`${at}?acquire=${this.#session.id}`, JSON.stringify({ node, life }));
  }
}

const RANK: Readonly<Record<Table, number>> = {
  node: 0,
  service: 1,
  check: 2,
  alive: 3,
  kv: 4,
  session: 4,
  kept: 4,
  grave: 5,
};

const nameOf = (table: Table, key: string): string => `${table}\u0001${key}`;
const isDraining = (held: Held): boolean => (held.value as Tables["service"]).draining === true;
const serviceOf = (held: Held): string => (held.value as Tables["service"]).name.toLowerCase();

function heldOf(table: Mirrored, key: string, value: Tables[Mirrored], raw: Json): Held {
  const serverIndex = number(raw["ModifyIndex"]);
  return { table, key, value, createIndex: number(raw["CreateIndex"]), serverIndex, modifyIndex: serverIndex };
}

function rowOf({ table, key, value, createIndex, modifyIndex }: Held): Row {
  return { table, key, value, createIndex, modifyIndex };
}

function aliveRows(value: unknown): Held[] {
  const rows: Held[] = [];
  for (const pair of list(value)) {
    // A key whose session has ended, or that nobody ever held, is no sign.
    if (text(pair["Session"]) === "") continue;
    try {
      const { node, life } = JSON.parse(Buffer.from(text(pair["Value"]), "base64").toString("utf8")) as Tables["alive"];
      if (typeof node === "string" && typeof life === "string")
        rows.push(heldOf("alive", keyOf.alive(node), { node, life }, pair));
    } catch {
      // Somebody else's key under our name says nothing.
    }
  }
  return rows;
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
