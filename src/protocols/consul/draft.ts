// A view with changes on top of it that nobody else sees yet: what the operations of one transaction read and write.
import type { View } from "../../contracts/directory.ts";
import type { Records } from "../../contracts/kv.ts";
import { sameValue } from "../../model/codec.ts";
import { compareUtf8 } from "../../model/order.ts";
import {
  type Change,
  type Entry,
  type Expect,
  type Index,
  keyIn,
  keyOf,
  nodeOfKey,
  SEPARATOR,
  type Table,
  type Tables,
} from "../../model/record.ts";

/** The index of what is not written yet: no condition holds against it. */
export const PENDING: Index = Number.MAX_SAFE_INTEGER;

/** Changes upon a view. Their order is kept; what goes takes along what belongs to it, as the directory does. */
export class Draft implements Records {
  readonly base: View;
  readonly changes: Change[] = [];
  readonly #own = new Map<Table, Map<string, Entry<Table> | undefined>>();
  readonly #expected = new Map<string, Expect>();

  constructor(base: View) {
    this.base = base;
  }

  /** What must still stand as it does in the view for all of this to be right. */
  get expect(): readonly Expect[] {
    return [...this.#expected.values()];
  }

  get<T extends Table>(table: T, key: string): Entry<T> | undefined {
    const own = this.#own.get(table);
    const plain = keyIn(table, key);
    return own?.has(plain) === true ? (own.get(plain) as Entry<T> | undefined) : this.base.get(table, key);
  }

  *list<T extends Table>(table: T, prefix = ""): Generator<Entry<T>> {
    const plain = keyIn(table, prefix);
    const own = [...(this.#own.get(table) ?? [])].filter(([key]) => key.startsWith(plain));
    if (own.length === 0) {
      yield* this.base.list(table, prefix);
      return;
    }
    const all = new Map<string, Entry<Table>>();
    for (const entry of this.base.list(table, prefix)) all.set(keyOfEntry(table, entry), entry);
    for (const [key, entry] of own)
      if (entry === undefined) all.delete(key);
      else all.set(key, entry);
    for (const key of [...all.keys()].sort(compareUtf8)) yield all.get(key) as unknown as Entry<T>;
  }

  /** The record is to stand as it does in the view. Nothing for what this draft has changed itself. */
  rely(table: Table, key: string, at: Index = this.base.get(table, key)?.modifyIndex ?? 0): void {
    const name = `${table}${SEPARATOR}${keyIn(table, key)}`;
    if (this.#own.get(table)?.has(keyIn(table, key)) === true || this.#expected.has(name)) return;
    this.#expected.set(name, { table, key: keyIn(table, key), at });
  }

  make(change: Change): void {
    const { table } = change;
    const key = keyIn(table, change.key);
    this.changes.push({ ...change, key });
    if (change.op === "put") {
      const createIndex = this.get(table, key)?.createIndex ?? PENDING;
      this.#set(table, key, { ...change.value, createIndex, modifyIndex: PENDING } as Entry<Table>);
      return;
    }
    const service = table === "service" ? this.get("service", key) : undefined;
    const onNode = keyOf.ofNode(table === "node" ? key : nodeOfKey(key));
    for (const check of table === "node" || service !== undefined ? [...this.list("check", onNode)] : [])
      if (service === undefined || check.serviceId === service.id)
        this.#set("check", keyOf.check(check.node, check.id), undefined);
    if (table === "node")
      for (const each of [...this.list("service", onNode)])
        this.#set("service", keyOf.service(each.node, each.id), undefined);
    this.#set(table, key, undefined);
  }

  /** An entry of this draft with the indexes it got when everything was written at `index`. */
  asWritten<T extends Table>(table: T, key: string, entry: Entry<T>, index: Index): Entry<T> {
    if (entry.modifyIndex !== PENDING) return entry;
    const before = this.base.get(table, key);
    const after = this.get(table, key);
    const unchanged = before !== undefined && after !== undefined && sameValue(bare(before), bare(after));
    return {
      ...entry,
      createIndex: entry.createIndex === PENDING ? index : entry.createIndex,
      modifyIndex: unchanged ? before.modifyIndex : index,
    };
  }

  #set(table: Table, key: string, entry: Entry<Table> | undefined): void {
    let own = this.#own.get(table);
    if (own === undefined) {
      own = new Map();
      this.#own.set(table, own);
    }
    own.set(key, entry);
  }
}

function bare<T extends Table>({ createIndex: _, modifyIndex: __, ...rest }: Entry<T>): unknown {
  return rest;
}

function keyOfEntry(table: Table, entry: Entry<Table>): string {
  switch (table) {
    case "node":
      return keyOf.node((entry as Tables["node"]).name);
    case "service":
      return keyOf.service((entry as Tables["service"]).node, (entry as Tables["service"]).id);
    case "check":
      return keyOf.check((entry as Tables["check"]).node, (entry as Tables["check"]).id);
    case "kv":
      return (entry as Tables["kv"]).key;
    case "kept":
      return keyOf.kept((entry as Tables["kept"]).kind, (entry as Tables["kept"]).id);
    case "session":
      return (entry as Tables["session"]).id;
    case "alive":
      return keyOf.alive((entry as Tables["alive"]).node);
    case "grave":
      throw new Error("graves are nobody's to draft");
  }
}
