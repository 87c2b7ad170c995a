// Stone 1, the directory: one truth on one number line.

import type { Resident } from "../model/instance.ts";
import type { Change, Entry, Expect, Index, Scope, Table } from "../model/record.ts";

/** What became of a write. `unknown`: a time-out; the same write may be repeated, its id makes that safe. */
export type Written =
  | { readonly result: "written"; readonly index: Index }
  | { readonly result: "expectation-failed" }
  | { readonly result: "unknown"; readonly cause: Error };

/**
 * A frozen picture of the directory. Owned by the caller, never changes, costs nothing to keep briefly; all reads are
 * synchronous and never block. Lookups of nodes, services and checks ignore ASCII case; KV keys do not.
 */
export interface View {
  /** Everything up to here is in the view. At least 1. */
  readonly index: Index;
  /** Milliseconds since the epoch at which the view was known to be the truth; for a directory whose store is away, the moment it went. */
  readonly asOfMs: number;
  /** False while the store or the server behind the directory is away: this is the last known good. */
  readonly fresh: boolean;
  /** The last change in a scope, deletions included; at least 1, and no lower after a restart or compaction. */
  at(scope: Scope): Index;
  get<T extends Table>(table: T, key: string): Entry<T> | undefined;
  /** Records whose key starts with `prefix`, in the order of the keys' UTF-8 bytes. */
  list<T extends Table>(table: T, prefix?: string): Iterable<Entry<T>>;
  /** How many records a table holds. */
  count(table: Table): number;
  /** Names of all services as registered, in order. */
  serviceNames(): Iterable<string>;
  /** All instances of a service with node and checks (node checks first), ordered by node name, then ID. Empty if unknown. */
  residents(service: string): readonly Resident[];
  /** All instances on a node, ordered by ID. */
  residentsOn(node: string): readonly Resident[];
  /** All instances and nodes that answer at an IP address (service address or node address), for PTR. */
  atAddress(ip: string): { readonly nodes: readonly Entry<"node">[]; readonly residents: readonly Resident[] };
  /** The keys that a session holds, in order. */
  heldBy(session: string): readonly Entry<"kv">[];
}

/**
 * The one truth. Reads are synchronous on frozen views; there is one writer in this process and perhaps many processes.
 * Writes that would change nothing are not written, move no index and wake nobody.
 */
export interface Directory {
  /** The view of this moment. Never blocks. */
  view(): View;
  /**
   * Writes all changes or none. Resolves when they are durable and this process's view has reached them; blocks on disk or network.
   * A put of an equal record and a delete of a missing one are dropped; if nothing is left, resolves at once with the current index.
   * Removing a node removes its services and checks, removing a service removes its checks, removing a session what is
   * kept with it.
   * @throws TrilithError `too-large`, `invalid`, `read-only`, `unavailable` (the store is away), `stopped`
   */
  write(changes: readonly Change[], expect?: readonly Expect[], signal?: AbortSignal): Promise<Written>;
  /**
   * Resolves with the scope's index once it is greater than `after`; at once if it is already. Never resolves for a change outside the scope.
   * Rejects with the signal's reason when aborted. Holds no timer.
   */
  changed(scope: Scope, after: Index, signal: AbortSignal): Promise<Index>;
  /** Resolves when everything acknowledged anywhere before the call is in `view()`; blocks on the network with a shared store. */
  barrier(signal?: AbortSignal): Promise<Index>;
  /** Resolves when the first whole picture is in the view (at once for an embedded store). */
  ready(signal?: AbortSignal): Promise<void>;
}
