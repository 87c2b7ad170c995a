// What this side holds of a Consul's catalog, and what becomes known to the directory when that changes; numbers that only grow.
import type { Batch, Row } from "../../contracts/storage.ts";
import { type Index, keyOf, type Table, type Tables } from "../../model/record.ts";
import type { Held, Mirrored } from "./consul-rows.ts";
import { gist } from "./consul-wire.ts";

/** A node before what is on it, a service before its checks. */
export const RANK: Readonly<Record<Table, number>> = {
  node: 0,
  service: 1,
  check: 2,
  alive: 3,
  kv: 4,
  session: 4,
  kept: 4,
  grave: 5,
};

/** A record of any table by one key. */
export const nameOf = (table: Table, key: string): string => `${table}\u0001${key}`;
const isDraining = (held: Held): boolean => (held.value as Tables["service"]).draining === true;
const serviceOf = (held: Held): string => (held.value as Tables["service"]).name.toLowerCase();

function rowOf({ table, key, value, createIndex, modifyIndex }: Held): Row {
  return { table, key, value, createIndex, modifyIndex };
}

export interface MirrorOptions {
  /** This host's node. */
  readonly node: string;
  /** The directory is at this index already; numbers go on from there. */
  readonly after: Index;
  /** Takes every change after `begin`. */
  readonly tell: (batch: Batch) => void;
}

/** The records of one Consul, each with the server's numbers and with the one that the directory knows it by. */
export class Mirror {
  /** The directory's. */
  index: Index;
  readonly #node: string;
  readonly #tell: (batch: Batch) => void;
  readonly #held = new Map<string, Held>();
  /** Keys of what is held, by service name in lower case. */
  readonly #instances = new Map<string, Set<string>>();
  /** Keys of the checks of each service, by the service's key. */
  readonly #owned = new Map<string, Set<string>>();

  constructor({ node, after, tell }: MirrorOptions) {
    this.#node = node;
    this.index = after;
    this.#tell = tell;
  }

  get(table: Table, key: string): Held | undefined {
    return this.#held.get(nameOf(table, key));
  }

  values(): Iterable<Held> {
    return this.#held.values();
  }

  /** In lower case. */
  serviceNames(): Iterable<string> {
    return this.#instances.keys();
  }

  *instancesOf(service: string): Generator<Held> {
    for (const key of this.#instances.get(service.toLowerCase()) ?? []) {
      const held = this.get("service", key);
      if (held !== undefined) yield held;
    }
  }

  *checksOf(node: string, serviceId: string): Generator<Held> {
    for (const key of this.#owned.get(keyOf.service(node, serviceId)) ?? []) {
      const held = this.get("check", key);
      if (held !== undefined) yield held;
    }
  }

  /** True where a client host lives. */
  readonly isClient = (node: string): boolean => {
    if (node.toLowerCase() === this.#node.toLowerCase()) return true;
    const held = this.get("node", keyOf.node(node));
    return held !== undefined && (held.value as Tables["node"]).external !== true;
  };

  /** True for the key of this host's node and of what is on it. */
  isOwn(key: string): boolean {
    const own = this.#node.toLowerCase();
    return key === own || key.startsWith(`${own}\u0000`);
  }

  /** Holds a whole catalog. `at`: the server's index of it. What was read twice counts as it was last. */
  begin(rows: readonly Held[], at: Index): Batch {
    const top = Math.max(1, this.index + 1, at);
    this.index = top;
    const found = new Map<string, Held>();
    for (const row of rows) {
      const name = nameOf(row.table, row.key);
      const other = found.get(name);
      if (other === undefined || other.serverIndex <= row.serverIndex)
        found.set(name, { ...row, modifyIndex: Math.min(row.serverIndex, top) });
    }
    for (const row of found.values()) this.#hold(row);
    return { kind: "snapshot", index: top, rows: Array.from(found.values(), rowOf), complete: true };
  }

  /** A whole list of a table: what is missing from it is gone. */
  replace(table: Mirrored, rows: readonly Held[], at: Index, covers: (value: Tables[Mirrored]) => boolean): void {
    const present = new Set(rows.map(({ key }) => key));
    const gone: Held[] = [];
    for (const held of this.#held.values())
      if (held.table === table && !present.has(held.key) && held.serverIndex <= at && covers(held.value))
        gone.push(held);
    this.change(rows, gone, at);
  }

  /** Takes rows over as far as they are news, and tells of them. `at`: the server's index of the answer that they came from. */
  change(rows: readonly Held[], gone: readonly Held[], at: Index): void {
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
          const client = node !== undefined && this.isClient(node);
          const table = row.table;
          const same =
            gist(table, held.value as Tables["node"], client) === gist(table, row.value as Tables["node"], client);
          // What this host wrote comes back without what Consul has no place for: it stays as it was written.
          if (same && this.isOwn(held.key)) {
            this.#held.set(nameOf(row.table, row.key), { ...held, serverIndex: row.serverIndex });
            continue;
          }
        }
      }
      news.push(row);
    }
    this.emit(news, gone, at);
  }

  /** Makes it so, and tells of it. `more`: rows that have no place in a Consul, such as graves. Returns the index at which it is told. */
  emit(news: readonly Held[], gone: readonly Held[], at: Index, more: readonly Row[] = []): Index {
    if (news.length === 0 && gone.length === 0 && more.length === 0) return this.index;
    const known = this.index;
    const index = Math.max(at, known + 1);
    this.index = index;
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
    this.#tell({ kind: "delta", index, rows });
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
}
