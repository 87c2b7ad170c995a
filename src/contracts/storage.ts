// Where the directory sleeps, and who numbers its changes.
import type { Change, Expect, Index, Table, Tables } from "../model/record.ts";
import type { Written } from "./directory.ts";

/** One record as it came out of the store; `value` undefined = gone. */
export interface Row<T extends Table = Table> {
  readonly table: T;
  readonly key: string;
  readonly value: Tables[T] | undefined;
  readonly createIndex: Index;
  readonly modifyIndex: Index;
}

/**
 * A piece of the line of changes. A `snapshot` replaces everything (it may come in several parts; the last one has `complete: true`),
 * a `delta` holds whole transactions up to and including `index`. Snapshots may come again at any time (compaction, long absence).
 */
export type Batch =
  | { readonly kind: "snapshot"; readonly index: Index; readonly rows: readonly Row[]; readonly complete: boolean }
  | { readonly kind: "delta"; readonly index: Index; readonly rows: readonly Row[] }
  /** The store went away (`false`) or is back (`true`); sent by shared stores only. */
  | { readonly kind: "reachable"; readonly reachable: boolean; readonly atMs: number };

/** One write, made unique so that repeating it after an unknown outcome is safe. */
export interface Commit {
  /** Unique per write. */
  readonly id: string;
  /** At most one change per key. Never empty. */
  readonly changes: readonly Change[];
  readonly expect: readonly Expect[];
}

/**
 * A store. Owned by the directory alone, which calls `open` once, then `commit` concurrently (a store may group commits into one
 * sync or transaction, but each commit is all or nothing and keeps its own expectations).
 */
export interface Storage {
  readonly name: string;
  /** True: other processes write too, and tables change only from what `follow` delivers. */
  readonly shared: boolean;
  /** Shared stores: true where old graves are cleared by another directory, which does not tell: this one forgets them by itself. */
  readonly clearedElsewhere?: true;
  /** The largest number of changes one commit may hold; larger ones are refused by the directory or split by `adopt`. */
  readonly maxChanges: number;
  /** The largest number of changes that may be tried as one commit where it cannot be split; `maxChanges` when absent. May still be refused as `too-large`. */
  readonly maxWhole?: number;
  /** Yields the whole content as snapshot batches, then ends. @throws TrilithError `locked`, `newer-data`, `disk-full`, `read-only`, `unavailable` */
  open(signal?: AbortSignal): AsyncIterable<Batch>;
  /**
   * Resolves when the commit is durable. Repeating a commit with the same id after `unknown` writes it at most once and tells its index.
   * An embedded store returns the commit's index; the directory then applies the changes itself, in the order of indexes.
   */
  commit(commit: Commit, signal?: AbortSignal): Promise<Written>;
  /**
   * Shared stores: everything after `after`, for ever, reconnecting by itself; ends only when aborted. Whenever the connection stands
   * (also the first time) something is yielded, if only `reachable: true` or a delta without rows that tells the index reached: the
   * directory waits for that index in barriers.
   */
  follow?(after: Index, signal: AbortSignal): AsyncIterable<Batch>;
  /** Shared stores: the store's index as of a linearizable read made now. */
  latest?(signal?: AbortSignal): Promise<Index>;
  /** Shared stores: keeps `alive/<node>` present under a lease until aborted; then, unless `keep`, lets it run out by itself. */
  alive?(node: string, life: string, ttlMs: number, signal: AbortSignal): Promise<void>;
  /** Lets go of everything that `open` took; nothing is asked of it afterwards. */
  close(): Promise<void>;
}
