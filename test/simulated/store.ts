// A shared store in memory that misbehaves on purpose: unknown outcomes, late and repeated deliveries, compaction, lost leases, several writers.
import { TrilithError } from "../../src/base/error.ts";
import type { Random } from "../../src/base/random.ts";
import type { Written } from "../../src/contracts/directory.ts";
import type { Batch, Commit, Row, Storage } from "../../src/contracts/storage.ts";
import { type Index, keyOf } from "../../src/model/record.ts";

/** How often (0..1) each kind of trouble happens. Everything is decided by the seed. */
export interface Faults {
  /** A commit's outcome is unknown: never done, done, or done later. */
  readonly unknown: number;
  /** A commit or a linearizable read is refused for now. */
  readonly unavailable: number;
  /** A delivery comes again, alone or with what came before it. */
  readonly repeat: number;
  /** The store goes away for a while, as told by `reachable`. */
  readonly away: number;
  /** History is forgotten after a commit. */
  readonly compact: number;
  /** The whole comes although nothing was missed. */
  readonly snapshot: number;
  /** Opening or following breaks with an error. */
  readonly breaks: number;
  /** Everything takes up to so many turns. */
  readonly turns: number;
}

export const NO_FAULTS: Faults = {
  unknown: 0,
  unavailable: 0,
  repeat: 0,
  away: 0,
  compact: 0,
  snapshot: 0,
  breaks: 0,
  turns: 0,
};

/** One transaction as it happened. */
export interface Transaction {
  readonly index: Index;
  readonly rows: readonly Row[];
}

/** A source of randomness that can be repeated. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const fraction = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const bytes = (count: number): Uint8Array => Uint8Array.from({ length: count }, () => Math.floor(fraction() * 256));
  return {
    fraction,
    below: (below) => Math.floor(fraction() * below),
    uuid: () =>
      Buffer.from(bytes(16))
        .toString("hex")
        .replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-"),
    bytes,
  };
}

const nameOf = ({ table, key }: { readonly table: string; readonly key: string }): string => `${table}\u0000${key}`;

/** The one truth behind any number of clients. */
export class SimulatedStore {
  /** Everything that ever happened, for checkers. */
  readonly log: Transaction[] = [];
  index: Index = 1;
  readonly #rows = new Map<string, Row>();
  readonly #outcomes = new Map<string, Written>();
  readonly #late = new Map<string, Commit>();
  readonly #random: Random;
  #faults: Faults;
  #compactedTo: Index = 1;
  #bells = new Set<() => void>();

  constructor(seed: number, faults: Partial<Faults> = {}) {
    this.#random = seededRandom(seed);
    this.#faults = { ...NO_FAULTS, ...faults };
  }

  /** Everything as it stands. */
  get rows(): readonly Row[] {
    return [...this.#rows.values()];
  }

  /** No more trouble from now on; what is late arrives now. */
  heal(): void {
    this.#faults = NO_FAULTS;
    for (const commit of [...this.#late.values()]) this.#apply(commit);
    this.#ring();
  }

  /** Forgets history: who stands before now is given the whole. */
  compact(): void {
    this.#compactedTo = this.index;
    this.#ring();
  }

  /** A node's lease runs out. */
  loseLease(node: string): void {
    this.#write([{ op: "delete", table: "alive", key: keyOf.alive(node) }]);
  }

  /** Another client. */
  client(): Storage {
    return {
      name: "simulated",
      shared: true,
      maxChanges: 128,
      open: () => this.#open(),
      commit: (commit) => this.#commit(commit),
      follow: (after, signal) => this.#follow(after, signal),
      latest: async () => {
        await this.#turns();
        this.#maybeRefuse();
        return this.index;
      },
      alive: (node, life, _ttlMs, signal) => this.#alive(node, life, signal),
      close: async () => {},
    };
  }

  #chance(share: number): boolean {
    return share > 0 && this.#random.fraction() < share;
  }

  async #turns(most = this.#faults.turns): Promise<void> {
    for (let left = most === 0 ? 0 : this.#random.below(most + 1); left > 0; left--) await null;
  }

  #maybeRefuse(): void {
    if (this.#chance(this.#faults.unavailable)) throw new TrilithError("unavailable", "the simulated store refuses");
  }

  #maybeBreak(): void {
    if (this.#chance(this.#faults.breaks)) throw new TrilithError("unavailable", "the simulated connection broke");
  }

  #ring(): void {
    for (const bell of [...this.#bells]) bell();
  }

  async #commit(commit: Commit): Promise<Written> {
    await this.#turns();
    this.#maybeRefuse();
    if (this.#chance(this.#faults.unknown)) {
      const cause = new TrilithError("timeout", "the simulated store does not answer");
      const kind = this.#random.below(3);
      if (kind === 0) this.#apply(commit);
      else if (kind === 1 && !this.#outcomes.has(commit.id)) {
        this.#late.set(commit.id, commit);
        void this.#turns(40).then(() => {
          const late = this.#late.get(commit.id);
          if (late !== undefined) this.#apply(late);
        });
      }
      await this.#turns();
      return { result: "unknown", cause };
    }
    const written = this.#apply(commit);
    await this.#turns();
    return written;
  }

  /** The first execution decides; what is still on its way arrives before its repetition. */
  #apply(commit: Commit): Written {
    this.#late.delete(commit.id);
    const known = this.#outcomes.get(commit.id);
    if (known !== undefined) return known;
    const holds = commit.expect.every((each) => (this.#rows.get(nameOf(each))?.modifyIndex ?? 0) === each.at);
    const outcome: Written = holds
      ? { result: "written", index: this.#write(commit.changes) }
      : { result: "expectation-failed" };
    this.#outcomes.set(commit.id, outcome);
    return outcome;
  }

  #write(changes: Commit["changes"]): Index {
    if (new Set(changes.map(nameOf)).size !== changes.length) throw new Error("a commit names a key twice");
    if (changes.length > 128) throw new Error("a commit is larger than the store said it takes");
    this.index++;
    const rows: Row[] = [];
    for (const change of changes) {
      const name = nameOf(change);
      const before = this.#rows.get(name);
      const place = { table: change.table, key: change.key, modifyIndex: this.index };
      if (change.op === "put") {
        const row: Row = { ...place, value: change.value, createIndex: before?.createIndex ?? this.index };
        this.#rows.set(name, row);
        rows.push(row);
      } else if (before !== undefined) {
        this.#rows.delete(name);
        rows.push({ ...place, value: undefined, createIndex: before.createIndex });
      }
    }
    this.log.push({ index: this.index, rows });
    if (this.#chance(this.#faults.compact)) this.#compactedTo = this.index;
    this.#ring();
    return this.index;
  }

  async *#open(): AsyncGenerator<Batch> {
    await this.#turns();
    this.#maybeBreak();
    yield* this.#whole();
  }

  async *#whole(): AsyncGenerator<Batch> {
    const { index } = this;
    const rows = this.rows;
    const parts = 1 + this.#random.below(3);
    const size = Math.ceil(rows.length / parts);
    for (let part = 0; part < parts; part++) {
      yield { kind: "snapshot", index, rows: rows.slice(part * size, (part + 1) * size), complete: part === parts - 1 };
      await this.#turns();
    }
  }

  async *#follow(after: Index, signal: AbortSignal): AsyncGenerator<Batch> {
    let position = after;
    await this.#turns();
    this.#maybeBreak();
    yield { kind: "reachable", reachable: true, atMs: 0 };
    while (!signal.aborted) {
      await this.#turns();
      this.#maybeBreak();
      if (this.#chance(this.#faults.away)) {
        yield { kind: "reachable", reachable: false, atMs: 0 };
        await this.#turns(20);
        yield { kind: "reachable", reachable: true, atMs: 0 };
      }
      // A connection that begins anew delivers again what was delivered already.
      if (this.#chance(this.#faults.repeat)) position = Math.max(1, position - this.#random.below(4));
      if (position < this.#compactedTo || this.#chance(this.#faults.snapshot)) {
        const { index } = this;
        yield* this.#whole();
        position = index;
        continue;
      }
      const from = this.log.findIndex(({ index }) => index > position);
      if (from < 0) {
        // Nothing new: the position alone.
        if (this.#chance(0.5)) yield { kind: "delta", index: position, rows: [] };
        await this.#news(position, signal);
        continue;
      }
      const some = this.log.slice(from, from + 1 + this.#random.below(3));
      const last = some.at(-1) as Transaction;
      const delta: Batch = { kind: "delta", index: last.index, rows: some.flatMap(({ rows }) => rows) };
      yield delta;
      position = last.index;
      if (this.#chance(this.#faults.repeat)) yield delta;
    }
  }

  /** Resolves when there is something after a position, or when aborted. */
  async #news(position: Index, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.index <= position && position >= this.#compactedTo)
      await new Promise<void>((resolve) => {
        const bell = (): void => {
          this.#bells.delete(bell);
          signal.removeEventListener("abort", bell);
          resolve();
        };
        this.#bells.add(bell);
        signal.addEventListener("abort", bell, { once: true });
      });
  }

  async #alive(node: string, life: string, signal: AbortSignal): Promise<void> {
    const key = keyOf.alive(node);
    this.#write([{ op: "put", table: "alive", key, value: { node, life } }]);
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener("abort", () => resolve(), { once: true });
    });
    this.loseLease(node);
  }
}
