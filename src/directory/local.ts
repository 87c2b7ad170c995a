// The directory of this process: hands writes to its store, keeps up with what the store tells, and shows it as frozen views.
import type { Clock, Timer } from "../base/clock.ts";
import { codeOf, messageOf, TrilithError, wrap } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { jitter, type Random } from "../base/random.ts";
import { unlessAborted } from "../base/unless-aborted.ts";
import type { Directory, View, Written } from "../contracts/directory.ts";
import type { Batch, Storage } from "../contracts/storage.ts";
import type { Change, Expect, Index, Scope } from "../model/record.ts";
import { clearingOf, forgettingOf } from "./graves.ts";
import { Rounds } from "./rounds.ts";
import { SharedWrites } from "./shared-writes.ts";
import { Shown } from "./shown.ts";
import { FrozenView } from "./tables/frozen-view.ts";
import { Snapshot } from "./tables/snapshot.ts";
import { difference, type Touched } from "./tables.ts";
import type { WritingGround } from "./writing.ts";

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

/** Old removals are looked for so often. */
const GRAVE_ROUND_MS = 60_000;
/** Between two tries to reach a shared store that is away. */
const RETRY_FIRST_MS = 50;
const RETRY_LONGEST_MS = 5000;
/** Errors of a store that trying again can mend. */
const PASSING: ReadonlySet<string> = new Set(["unavailable", "timeout", "internal"]);

/** A directory on a store. The directory owns the store: it opens and closes it. */
export function createDirectory(storage: Storage, base: DirectoryBase): LocalDirectory {
  return new StoredDirectory(storage, base);
}

class StoredDirectory implements LocalDirectory {
  readonly storage: Storage;
  readonly maxChanges: number;
  readonly #base: DirectoryBase;
  readonly #log: Log;
  readonly #shown = new Shown();
  readonly #rounds: Rounds | undefined;
  readonly #writes: Pick<Directory, "write">;
  #fresh = true;
  #awaySinceMs = 0;
  #state: "new" | "running" | "stopped" = "new";
  #starting: Promise<void> | undefined;
  readonly #readiness = deferred();
  #isReady = false;
  readonly #life = new AbortController();
  #following: Promise<void> | undefined;
  #graveTimer: Timer | undefined;

  constructor(storage: Storage, base: DirectoryBase) {
    this.storage = storage;
    // Graves take a few places of their own.
    this.maxChanges = Math.max(1, storage.maxChanges - Math.ceil(storage.maxChanges / 32) - 2);
    this.#base = base;
    this.#log = base.log.part("directory");
    this.#readiness.promise.catch(() => {});
    const { metrics } = base;
    const ground: WritingGround = {
      ...{ storage, shown: this.#shown, clock: base.clock, random: base.random, log: this.#log },
      commits: metrics.counter("directory_commits_total", "Writes that changed the directory"),
      spared: metrics.counter(
        "directory_spared_writes_total",
        "Writes that would have changed nothing and were not made",
      ),
    };
    this.#rounds = storage.shared ? undefined : new Rounds(ground);
    this.#writes =
      this.#rounds ??
      new SharedWrites({
        ...{ ...ground, maxChanges: this.maxChanges, life: this.#life.signal },
        barrier: (signal) => this.barrier(signal),
      });
    for (const table of ["node", "service", "check", "kv", "session", "kept", "grave"] as const)
      metrics.gauge(`directory_${table}_records`, `Records in the table ${table}`, () => this.#shown.seen.count(table));
    metrics.gauge("directory_index", "The position on the line of changes", () => this.#shown.seen.index);
    metrics.gauge("directory_waiters", "Blocking queries that wait", () => this.#shown.waiters.count);
  }

  get waiting(): number {
    return this.#shown.waiters.count;
  }

  view(): View {
    return new FrozenView(this.#shown.seen, this.#fresh, this.#fresh ? this.#base.clock.now() : this.#awaySinceMs);
  }

  changed(scope: Scope, after: Index, signal: AbortSignal): Promise<Index> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#state === "stopped") return Promise.reject(stopped());
    const at = this.#shown.seen.at(scope);
    return at > after ? Promise.resolve(at) : this.#shown.waiters.wait(scope, after, signal);
  }

  async ready(signal?: AbortSignal): Promise<void> {
    if (this.#isReady) return;
    await unlessAborted(this.#readiness.promise, signal);
  }

  async barrier(signal?: AbortSignal): Promise<Index> {
    if (this.#state === "stopped") throw stopped();
    if (!this.storage.shared || this.storage.latest === undefined) return this.#shown.seen.index;
    await this.ready(signal);
    await this.#shown.reached(await this.storage.latest(signal), signal);
    return this.#shown.seen.index;
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
        this.#shown.tables = snapshot.tables();
        this.#shown.tables.stampChecks();
        this.#shown.publish(new Map());
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
    this.#shown.end(stopped());
    await this.#rounds?.end(stopped());
    this.#life.abort(stopped());
    if (!this.#isReady) this.#readiness.reject(stopped());
    await this.#following;
    if (was === "running") await this.storage.close();
  }

  #nowReady(): void {
    this.#isReady = true;
    this.#readiness.resolve();
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
    return this.#writes.write(changes, expect, signal);
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
        const batches = opened ? this.storage.follow?.(this.#shown.seen.index, signal) : this.storage.open(signal);
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
      const known = this.#shown.tables.index;
      if (batch.index > known) {
        const rows = batch.rows.filter((row) => row.modifyIndex > known);
        const touched = this.#shown.tables.apply(rows, batch.index);
        this.#shown.publish(touched);
      }
      this.#fresh = true;
      return;
    }
    snapshot.take(batch);
    if (!batch.complete) return;
    const next = snapshot.tables();
    snapshot.clear();
    const restarted = next.index < this.#shown.seen.index;
    if (restarted)
      this.#log.warn(
        `the store ${this.storage.name} went back from index ${this.#shown.seen.index} to ${next.index}: its content was replaced`,
      );
    const first = !this.#isReady;
    let touched: Touched;
    if (first || restarted) {
      next.stampChecks();
      touched = new Map(Array.from(difference(this.#shown.seen, next), (each) => [each, next.at(each)]));
    } else touched = next.inherit(this.#shown.seen);
    this.#shown.tables = next;
    this.#shown.publish(touched, restarted);
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
      const clearing = clearingOf(this.#shown.seen, Math.min(this.maxChanges, 1000), this.#base.clock.now());
      if (clearing === undefined) return;
      const written = await this.write(clearing.changes, clearing.expect, this.#life.signal);
      // Another process is at it.
      if (written.result !== "written") return;
    }
  }

  /** The same in this view alone: the store only tells of removals, and not when it forgets them. */
  #forgetGraves(): void {
    const { tables } = this.#shown;
    const rows = forgettingOf(tables, this.#base.clock.now());
    if (rows !== undefined) this.#shown.publish(tables.apply(rows, tables.index));
  }
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
