// The directory of this process: evaluates writes, hands them to its store, and shows what the store has told as frozen views.
import type { Clock, Timer } from "../base/clock.ts";
import { codeOf, messageOf, TrilithError, wrap } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { jitter, type Random } from "../base/random.ts";
import { unlessAborted } from "../base/unless-aborted.ts";
import type { Directory, View, Written } from "../contracts/directory.ts";
import type { Batch, Commit, Row, Storage } from "../contracts/storage.ts";
import type { Reason } from "../model/reason.ts";
import {
  type Change,
  type Expect,
  GRAVE_FLOOR,
  type Index,
  idOfKey,
  keyOf,
  nodeOfKey,
  type Scope,
} from "../model/record.ts";
import { evaluate, graveTimeMs } from "./evaluate.ts";
import { FrozenView } from "./tables/frozen-view.ts";
import { difference, Tables, type Touched } from "./tables.ts";
import { Waiters } from "./watch.ts";

/** What the directory needs of its surroundings. */
export interface DirectoryBase {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** A directory with its life. */
export interface LocalDirectory extends Directory {
  readonly storage: Storage;
  /** The largest number of changes that one write may hold. */
  readonly maxChanges: number;
  /**
   * Opens the store. With an embedded store resolves when its content is in the view; with a shared one at once, the content follows
   * (`ready`) and the connection is kept up for ever. Starting twice = once.
   * @throws TrilithError as `Storage.open` of an embedded store
   */
  start(signal?: AbortSignal): Promise<void>;
  /** Ends all waiting with `stopped`, finishes writes under way and closes the store. Afterwards `view()` still answers. */
  stop(): Promise<void>;
  /** How many wait for changes. */
  readonly waiting: number;
}

interface Queued {
  readonly changes: readonly Change[];
  readonly expect: readonly Expect[];
  readonly signal: AbortSignal | undefined;
  resolve(written: Written): void;
  reject(error: unknown): void;
}

/** Writes that an embedded store makes durable together. */
interface Round {
  readonly commits: { readonly rows: Row[]; readonly promise: Promise<Written>; readonly queued: Queued }[];
  /** Answers that stand on the commits of the round. */
  readonly settle: ((failure: unknown) => void)[];
  readonly touched: Map<Scope, Index>;
}

const newRound = (): Round => ({ commits: [], settle: [], touched: new Map() });

/** Removals are remembered one by one for so long, and beyond it while there are not more than GRAVES_KEPT of them. */
const GRAVE_AGE_MS = 15 * 60_000;
const GRAVES_KEPT = 2000;
/** However young, not more than so many. */
const GRAVES_AT_MOST = 50_000;
const GRAVE_ROUND_MS = 60_000;
/** Where no graves tell which scopes are gone, it is not remembered of more of them when they moved. */
const STAMPS_AT_MOST = 100_000;
/** An unknown outcome is asked about again so often before it is handed out. */
const UNKNOWN_RETRIES = 4;
const RETRY_FIRST_MS = 50;
const RETRY_LONGEST_MS = 5000;
/** Somebody else wrote the same records in between so often: give up. */
const CONTENTION_RETRIES = 50;
/** Errors of a store that trying again can mend. */
const PASSING: ReadonlySet<string> = new Set(["unavailable", "timeout", "internal"]);

/** A directory on a store. The directory owns the store: it opens and closes it. */
export function createDirectory(storage: Storage, base: DirectoryBase): LocalDirectory {
  return new StoredDirectory(storage, base);
}

function rowsOf(tables: Tables, changes: readonly Change[], index: Index): Row[] {
  return changes.map((change) => {
    const createIndex = tables.get(change.table, change.key)?.createIndex;
    const place = { table: change.table, key: change.key, modifyIndex: index };
    return change.op === "put"
      ? { ...place, value: change.value, createIndex: createIndex ?? index }
      : { ...place, value: undefined, createIndex: createIndex ?? 0 };
  });
}

/**
 * What others put on a node, service or session while it was being removed: it came first, but was not seen in time. None can come later, as
 * whoever puts something on a record expects that record to be there.
 */
function orphansOf(tables: Tables, changes: readonly Change[]): Change[] {
  const orphans = new Map<string, Change>();
  const add = (table: "service" | "check" | "kept", key: string, why: Reason | undefined): void => {
    const change: Change = { op: "delete", table, key };
    orphans.set(`${table}\u0000${key}`, why === undefined ? change : { ...change, why });
  };
  for (const change of changes) {
    if (change.op !== "delete" || tables.get(change.table, change.key) !== undefined) continue;
    const { table, key, why } = change;
    if (table === "node") {
      for (const { node, id } of tables.list("service", keyOf.ofNode(key)))
        add("service", keyOf.service(node, id), why);
      for (const { node, id } of tables.list("check", keyOf.ofNode(key))) add("check", keyOf.check(node, id), why);
    } else if (table === "service")
      for (const { node, id } of tables.checksAbout(nodeOfKey(key), idOfKey(key)))
        add("check", keyOf.check(node, id), why);
    else if (table === "session")
      for (const { kind, id, session } of tables.list("kept"))
        if (session === key) add("kept", keyOf.kept(kind, id), why);
  }
  return [...orphans.values()];
}

function merge(into: Map<Scope, Index>, touched: Touched): void {
  for (const [scope, at] of touched) if ((into.get(scope) ?? 0) < at) into.set(scope, at);
}

class StoredDirectory implements LocalDirectory {
  readonly storage: Storage;
  readonly maxChanges: number;
  readonly #base: DirectoryBase;
  readonly #log: Log;
  /** What is being written; ahead of `#seen` by what is not durable yet. Shared stores: the same as `#seen`. */
  #tables = new Tables();
  /** What everybody sees. */
  #seen = new Tables();
  readonly #waiters = new Waiters();
  #reaching: { readonly index: Index; resolve(): void; reject(error: unknown): void }[] = [];
  #queue: Queued[] = [];
  /** Embedded stores: the writes that share the next sync. */
  #round = newRound();
  /** The round before is on its way to the disk: writes wait in the queue. */
  #inFlight = false;
  #rolling = false;
  #rounds: Promise<void> = Promise.resolve();
  #fresh = true;
  #awaySinceMs = 0;
  #state: "new" | "running" | "stopped" = "new";
  #starting: Promise<void> | undefined;
  readonly #readiness = deferred();
  #isReady = false;
  readonly #life = new AbortController();
  #following: Promise<void> | undefined;
  #graveTimer: Timer | undefined;
  readonly #commits: { add(by?: number): void };
  readonly #spared: { add(by?: number): void };

  constructor(storage: Storage, base: DirectoryBase) {
    this.storage = storage;
    // Graves take a few places of their own.
    this.maxChanges = Math.max(1, storage.maxChanges - Math.ceil(storage.maxChanges / 32) - 2);
    this.#base = base;
    this.#log = base.log.part("directory");
    this.#readiness.promise.catch(() => {});
    const { metrics } = base;
    this.#commits = metrics.counter("directory_commits_total", "Writes that changed the directory");
    this.#spared = metrics.counter(
      "directory_spared_writes_total",
      "Writes that would have changed nothing and were not made",
    );
    for (const table of ["node", "service", "check", "kv", "session", "kept", "grave"] as const)
      metrics.gauge(`directory_${table}_records`, `Records in the table ${table}`, () => this.#seen.count(table));
    metrics.gauge("directory_index", "The position on the line of changes", () => this.#seen.index);
    metrics.gauge("directory_waiters", "Blocking queries that wait", () => this.#waiters.count);
  }

  get waiting(): number {
    return this.#waiters.count;
  }

  view(): View {
    return new FrozenView(this.#seen, this.#fresh, this.#fresh ? this.#base.clock.now() : this.#awaySinceMs);
  }

  changed(scope: Scope, after: Index, signal: AbortSignal): Promise<Index> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#state === "stopped") return Promise.reject(stopped());
    const at = this.#seen.at(scope);
    return at > after ? Promise.resolve(at) : this.#waiters.wait(scope, after, signal);
  }

  async ready(signal?: AbortSignal): Promise<void> {
    if (this.#isReady) return;
    await unlessAborted(this.#readiness.promise, signal);
  }

  async barrier(signal?: AbortSignal): Promise<Index> {
    if (this.#state === "stopped") throw stopped();
    if (!this.storage.shared || this.storage.latest === undefined) return this.#seen.index;
    await this.ready(signal);
    await this.#reached(await this.storage.latest(signal), signal);
    return this.#seen.index;
  }

  start(signal?: AbortSignal): Promise<void> {
    this.#starting ??= this.#start(signal);
    return this.#starting;
  }

  async #start(signal?: AbortSignal): Promise<void> {
    if (this.#state === "stopped") throw stopped();
    this.#state = "running";
    if (this.storage.shared) {
      this.#fresh = false;
      this.#awaySinceMs = this.#base.clock.now();
      this.#following = this.#keepUp();
    } else {
      try {
        const life = signal === undefined ? this.#life.signal : AbortSignal.any([signal, this.#life.signal]);
        const snapshot = new Snapshot();
        for await (const batch of this.storage.open(life)) if (batch.kind === "snapshot") snapshot.take(batch);
        this.#tables = snapshot.tables();
        this.#tables.stampChecks();
        this.#publish(new Map());
        this.#nowReady();
      } catch (error) {
        this.#readiness.reject(error);
        throw error;
      }
    }
    this.#armGraves();
  }

  async stop(): Promise<void> {
    if (this.#state === "stopped") return;
    const was = this.#state;
    this.#state = "stopped";
    this.#graveTimer?.cancel();
    this.#waiters.end(stopped());
    for (const queued of this.#queue.splice(0)) queued.reject(stopped());
    await this.#rounds;
    this.#life.abort(stopped());
    for (const waiting of this.#reaching.splice(0)) waiting.reject(stopped());
    if (!this.#isReady) this.#readiness.reject(stopped());
    await this.#following;
    if (was === "running") await this.storage.close();
  }

  #nowReady(): void {
    this.#isReady = true;
    this.#readiness.resolve();
  }

  /** Shows the tables as they are now and wakes whom it concerns. */
  #publish(touched: Touched, restarted = false): void {
    this.#seen = this.#tables.clone();
    const { index } = this.#seen;
    if (this.#reaching.length > 0) {
      const reached = this.#reaching.filter((waiting) => waiting.index <= index);
      this.#reaching = this.#reaching.filter((waiting) => waiting.index > index);
      for (const waiting of reached) waiting.resolve();
    }
    this.#waiters.wake(touched, restarted);
  }

  #reached(index: Index, signal: AbortSignal | undefined): Promise<void> {
    if (this.#seen.index >= index) return Promise.resolve();
    if (this.#state === "stopped") return Promise.reject(stopped());
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = (): void => {
        this.#reaching = this.#reaching.filter((each) => each !== waiting);
        reject(signal?.reason);
      };
      const waiting = {
        index,
        resolve() {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
        reject(error: unknown) {
          signal?.removeEventListener("abort", onAbort);
          reject(error);
        },
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#reaching.push(waiting);
    });
  }

  write(changes: readonly Change[], expect: readonly Expect[] = [], signal?: AbortSignal): Promise<Written> {
    if (this.#state === "stopped") return Promise.reject(stopped());
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (!this.#isReady)
      return Promise.reject(
        new TrilithError(
          "unavailable",
          `the directory's store (${this.storage.name}) has not answered since the start: nothing can be written yet`,
        ),
      );
    if (this.storage.shared) return this.#writeShared(changes, expect, signal);
    return new Promise((resolve, reject) => {
      const queued: Queued = { changes, expect, signal, resolve, reject };
      if (this.#inFlight) {
        this.#queue.push(queued);
        return;
      }
      // Goes to the store in this very turn, so that what others make durable in the same turn shares the sync.
      this.#accept(queued);
      if (!this.#rolling && this.#round.commits.length > 0) this.#rounds = this.#roll();
    });
  }

  /** Embedded stores: evaluates a write upon those before it and hands it to the store, as part of the round that is open. */
  #accept(queued: Queued): void {
    if (queued.signal?.aborted) {
      queued.reject(queued.signal.reason);
      return;
    }
    const round = this.#round;
    try {
      const id = this.#base.random.uuid();
      const found = evaluate(this.#tables, queued.changes, queued.expect, id, this.#base.clock.now());
      if (found.kind === "write") {
        this.#mustFit(found.changes);
        const index = this.#tables.index + 1;
        const rows = rowsOf(this.#tables, found.changes, index);
        const promise = this.storage.commit({ id, changes: found.changes, expect: queued.expect }, queued.signal);
        promise.catch(() => {});
        merge(round.touched, this.#tables.apply(rows, index));
        round.commits.push({ rows, promise, queued });
        return;
      }
      const written: Written =
        found.kind === "failed" ? { result: "expectation-failed" } : { result: "written", index: this.#tables.index };
      if (found.kind === "nothing") this.#spared.add();
      // Said on the strength of what this round has accepted so far: true when that is.
      if (round.commits.length === 0) queued.resolve(written);
      else round.settle.push((failure) => (failure === undefined ? queued.resolve(written) : queued.reject(failure)));
    } catch (error) {
      queued.reject(error);
    }
  }

  /** Round after round while there is something to write: made durable together, then shown together. */
  async #roll(): Promise<void> {
    this.#rolling = true;
    while (this.#round.commits.length > 0) {
      // Whoever writes in this turn takes part.
      await this.#base.clock.yield();
      const round = this.#round;
      this.#inFlight = true;
      const results = await Promise.allSettled(round.commits.map(({ promise }) => promise));
      this.#conclude(round, results);
      this.#inFlight = false;
      this.#round = newRound();
      for (const queued of this.#queue.splice(0)) this.#accept(queued);
    }
    this.#rolling = false;
  }

  #conclude({ commits, settle, touched }: Round, results: readonly PromiseSettledResult<Written>[]): void {
    const asForeseen = results.every(
      (result, i) =>
        result.status === "fulfilled" &&
        result.value.result === "written" &&
        result.value.index === commits[i]?.rows[0]?.modifyIndex,
    );
    let failure: unknown;
    if (asForeseen) this.#publish(touched);
    else {
      // Back to what is durable, and from there only what the store took.
      this.#tables = this.#seen.clone();
      const again = new Map<Scope, Index>();
      results.forEach((result, i) => {
        if (result.status === "rejected") failure ??= result.reason;
        else if (result.value.result === "written") {
          const { index } = result.value;
          const changes = (commits[i]?.rows ?? []).map(toChange);
          merge(again, this.#tables.apply(rowsOf(this.#tables, changes, index), index));
        }
      });
      this.#publish(again);
    }
    results.forEach((result, i) => {
      const queued = commits[i]?.queued;
      if (result.status === "rejected") queued?.reject(result.reason);
      else {
        if (result.value.result === "written") this.#commits.add();
        queued?.resolve(result.value);
      }
    });
    for (const each of settle) each(failure);
  }

  #mustFit(changes: readonly Change[]): void {
    const { name, maxChanges, maxWhole = maxChanges } = this.storage;
    if (changes.length > maxWhole)
      throw new TrilithError(
        "too-large",
        `a write of ${changes.length} changes is too large: ${name} takes at most ${maxWhole} at once`,
      );
  }

  async #writeShared(changes: readonly Change[], expect: readonly Expect[], signal?: AbortSignal): Promise<Written> {
    /** True once the view is known to hold everything that was acknowledged before this write began. */
    let caughtUp = false;
    const catchUp = async (): Promise<void> => {
      await this.barrier(signal);
      caughtUp = true;
    };
    for (let tries = 0; ; tries++) {
      const id = this.#base.random.uuid();
      let found: ReturnType<typeof evaluate>;
      try {
        found = evaluate(this.#seen, changes, expect, id, this.#base.clock.now(), true);
      } catch (error) {
        if (caughtUp) throw error;
        await catchUp();
        continue;
      }
      if (found.kind === "failed") {
        if (caughtUp) return { result: "expectation-failed" };
        await catchUp();
        continue;
      }
      if (found.kind === "nothing") {
        if (caughtUp || found.assumed.length === 0) {
          this.#spared.add();
          return { result: "written", index: this.#seen.index };
        }
        await catchUp();
        continue;
      }
      const assumed = found.assumed.filter(
        ({ table, key }) => !expect.some((each) => each.table === table && each.key === key),
      );
      const tooLarge =
        found.changes.length > this.storage.maxChanges || expect.length + assumed.length > this.storage.maxChanges;
      if (tooLarge && found.cascaded.length > 0 && changes.length <= this.maxChanges) {
        // A whole node does not fit: its parts go first, each piece whole.
        const piece = Math.max(1, Math.floor(this.maxChanges / 2));
        for (let at = 0; at < found.cascaded.length; at += piece) {
          const written = await this.#writeShared(found.cascaded.slice(at, at + piece), [], signal);
          if (written.result === "unknown") return written;
        }
        continue;
      }
      this.#mustFit(found.changes);
      const outcome = await this.#commit({ id, changes: found.changes, expect: [...expect, ...assumed] }, signal);
      if (outcome.result === "unknown") return outcome;
      if (outcome.result === "written") {
        this.#commits.add();
        await this.#reached(outcome.index, signal);
        const orphans = orphansOf(this.#seen, found.changes);
        if (orphans.length > 0) await this.#writeShared(orphans, [], signal);
        return outcome;
      }
      // The caller's own expectation, or only what was taken for granted: the view tells once it has caught up.
      if (tries >= CONTENTION_RETRIES)
        throw new TrilithError(
          "unavailable",
          `${tries} attempts to write failed because others wrote the same records`,
        );
      await catchUp();
    }
  }

  async #commit(commit: Commit, signal: AbortSignal | undefined): Promise<Written> {
    const life = signal === undefined ? this.#life.signal : AbortSignal.any([signal, this.#life.signal]);
    for (let tries = 1; ; tries++) {
      let outcome: Written;
      try {
        outcome = await this.storage.commit(commit, life);
      } catch (error) {
        // A refusal now says nothing about the attempt before.
        if (tries === 1) throw error;
        outcome = { result: "unknown", cause: wrap(error, "asking again") };
      }
      if (outcome.result !== "unknown" || tries >= UNKNOWN_RETRIES || life.aborted) return outcome;
      this.#log.debug("the outcome of a write is unknown, asking again", {
        id: commit.id,
        cause: messageOf(outcome.cause),
      });
      try {
        await this.#base.clock.sleep(jitter(RETRY_FIRST_MS * 2 ** (tries - 1), 0.5, this.#base.random), life);
      } catch {
        return outcome;
      }
    }
  }

  /** Shared stores: reads the whole, then follows, for ever. */
  async #keepUp(): Promise<void> {
    const { signal } = this.#life;
    let opened = false;
    let pauseMs = RETRY_FIRST_MS;
    let complaint = "";
    while (!signal.aborted) {
      const snapshot = new Snapshot();
      try {
        const batches = opened ? this.storage.follow?.(this.#seen.index, signal) : this.storage.open(signal);
        if (batches === undefined)
          throw new TrilithError("internal", `store ${this.storage.name} is shared but cannot be followed`);
        for await (const batch of batches) {
          this.#take(batch, snapshot);
          pauseMs = RETRY_FIRST_MS;
          complaint = "";
        }
        if (opened) throw new TrilithError("unavailable", "the store's line of changes ended");
        if (!this.#isReady) throw new TrilithError("unavailable", "the store's content ended before it was complete");
        opened = true;
        continue;
      } catch (error) {
        if (signal.aborted) return;
        this.#away(this.#base.clock.now());
        if (!this.#isReady && !PASSING.has(codeOf(error))) {
          this.#log.error(`the store ${this.storage.name} cannot be used: ${messageOf(error)}`);
          this.#readiness.reject(error);
          return;
        }
        const said = messageOf(error);
        // Each try may fail in the same way, for hours.
        this.#log[said === complaint ? "debug" : "warn"](
          `the store ${this.storage.name} is away, trying again: ${said}`,
        );
        complaint = said;
      }
      try {
        await this.#base.clock.sleep(jitter(pauseMs, 0.3, this.#base.random), signal);
      } catch {
        return;
      }
      pauseMs = Math.min(pauseMs * 2, RETRY_LONGEST_MS);
    }
  }

  #away(atMs: number): void {
    if (this.#fresh) this.#awaySinceMs = atMs;
    this.#fresh = false;
  }

  #take(batch: Batch, snapshot: Snapshot): void {
    if (batch.kind === "reachable") {
      if (batch.reachable) this.#fresh = this.#isReady;
      else this.#away(batch.atMs);
      return;
    }
    if (batch.kind === "delta") {
      // Repeated deliveries: what the view holds already is left out.
      const known = this.#tables.index;
      if (batch.index > known) {
        const rows = batch.rows.filter((row) => row.modifyIndex > known);
        const touched = this.#tables.apply(rows, batch.index);
        this.#publish(touched);
      }
      this.#fresh = true;
      return;
    }
    snapshot.take(batch);
    if (!batch.complete) return;
    const next = snapshot.tables();
    snapshot.clear();
    const restarted = next.index < this.#seen.index;
    if (restarted)
      this.#log.warn(
        `the store ${this.storage.name} went back from index ${this.#seen.index} to ${next.index}: its content was replaced`,
      );
    const first = !this.#isReady;
    let touched: Touched;
    if (first || restarted) {
      next.stampChecks();
      touched = new Map(Array.from(difference(this.#seen, next), (each) => [each, next.at(each)]));
    } else touched = next.inherit(this.#seen);
    this.#tables = next;
    this.#publish(touched, restarted);
    this.#fresh = true;
    if (first) this.#nowReady();
  }

  #armGraves(): void {
    this.#graveTimer = this.#base.clock.after(jitter(GRAVE_ROUND_MS, 0.3, this.#base.random), () => {
      this.#clearGraves()
        .catch((error: unknown) => {
          if (this.#state === "running") this.#log.warn(wrap(error, "old graves could not be cleared").message);
        })
        .finally(() => {
          if (this.#state === "running") this.#armGraves();
        });
    });
  }

  /** Old removals are folded into one number, so that memory and store stay small. */
  async #clearGraves(): Promise<void> {
    if (!this.#isReady || !this.#fresh) return;
    if (this.storage.clearedElsewhere === true) {
      this.#forgetGraves();
      return;
    }
    for (;;) {
      const { keys, floor } = this.#oldGraves(Math.min(this.maxChanges, 1000) - 1);
      if (keys.length === 0) return;
      const tables = this.#seen;
      const changes: Change[] = keys.map((key) => ({ op: "delete", table: "grave", key }));
      const expect: Expect[] = [];
      if (floor > tables.floor) {
        changes.push({ op: "put", table: "grave", key: GRAVE_FLOOR, value: { scopes: [], floor } });
        expect.push({ table: "grave", key: GRAVE_FLOOR, at: tables.get("grave", GRAVE_FLOOR)?.modifyIndex ?? 0 });
      }
      const written = await this.write(changes, expect, this.#life.signal);
      // Another process is at it.
      if (written.result !== "written") return;
    }
  }

  /** The oldest graves that need not be kept, at most so many, and the floor that stands for them. */
  #oldGraves(most: number): { readonly keys: readonly string[]; readonly floor: Index } {
    const tables = this.#seen;
    const total = tables.count("grave");
    const keys: string[] = [];
    let { floor } = tables;
    if (total <= GRAVES_KEPT) return { keys, floor };
    const young = this.#base.clock.now() - GRAVE_AGE_MS;
    for (const [key, grave] of tables.entries("grave")) {
      if (key === GRAVE_FLOOR || keys.length >= most) break;
      const left = total - keys.length;
      if (left <= GRAVES_KEPT || (graveTimeMs(key) > young && left <= GRAVES_AT_MOST)) break;
      keys.push(key);
      if (grave.modifyIndex > floor && !grave.scopes.every((each) => tables.movedAfter(each, grave.modifyIndex)))
        floor = grave.modifyIndex;
    }
    return { keys, floor };
  }

  /** The same in this view alone: the store only tells of removals, and not when it forgets them. */
  #forgetGraves(): void {
    const { index } = this.#tables;
    const old = this.#oldGraves(Number.POSITIVE_INFINITY);
    // What goes at a Consul leaves no grave.
    const floor = this.#seen.stamped > STAMPS_AT_MOST ? index : old.floor;
    const { keys } = old;
    if (keys.length === 0 && floor === this.#seen.floor) return;
    const row = { table: "grave", createIndex: index, modifyIndex: index } as const;
    const rows: Row[] = keys.map((key) => ({ ...row, key, value: undefined }));
    // A floor of the same index would count as known.
    rows.push(
      { ...row, key: GRAVE_FLOOR, value: undefined },
      { ...row, key: GRAVE_FLOOR, value: { scopes: [], floor } },
    );
    this.#publish(this.#tables.apply(rows, index));
  }
}

/** Puts a snapshot together from its parts. */
class Snapshot {
  #rows: Row[] = [];
  #index: Index = 1;

  take(batch: Extract<Batch, { kind: "snapshot" }>): void {
    for (const row of batch.rows) this.#rows.push(row);
    this.#index = Math.max(1, batch.index);
  }

  tables(): Tables {
    return Tables.from(this.#rows, this.#index);
  }

  clear(): void {
    this.#rows = [];
  }
}

function toChange(row: Row): Change {
  return row.value === undefined
    ? { op: "delete", table: row.table, key: row.key }
    : ({ op: "put", table: row.table, key: row.key, value: row.value } as Change);
}

function deferred(): { readonly promise: Promise<void>; resolve(): void; reject(error: unknown): void } {
  let resolve = (): void => {};
  let reject = (_: unknown): void => {};
  const promise = new Promise<void>((fulfil, refuse) => {
    resolve = fulfil;
    reject = refuse;
  });
  return { promise, resolve, reject };
}

function stopped(): TrilithError {
  return new TrilithError("stopped", "the directory is stopping");
}
