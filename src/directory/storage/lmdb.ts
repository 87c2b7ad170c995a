// The default store: the records in the data folder, numbered by a counter of this process.
import type { Durable, DurableWrite } from "../../base/durable.ts";
import { TrilithError } from "../../base/error.ts";
import type { Written } from "../../contracts/directory.ts";
import type { Batch, Commit, Row, Storage } from "../../contracts/storage.ts";
import { decodeRecord, encodeRecord } from "../../model/codec.ts";
import type { Index, Table, Tables } from "../../model/record.ts";

const TABLES: Readonly<Record<Table, string>> = {
  node: "d.node",
  service: "d.service",
  check: "d.check",
  kv: "d.kv",
  session: "d.session",
  alive: "d.alive",
  kept: "d.kept",
  grave: "d.grave",
};
const META = { table: "d.meta", key: "index" } as const;
/** createIndex and modifyIndex in front of the record. */
const HEAD_BYTES = 16;
const ROWS_PER_BATCH = 5000;

function encodeRow<T extends Table>(table: T, value: Tables[T], createIndex: Index, modifyIndex: Index): Uint8Array {
  const record = encodeRecord(table, value);
  const bytes = new Uint8Array(HEAD_BYTES + record.length);
  const head = new DataView(bytes.buffer);
  head.setFloat64(0, createIndex);
  head.setFloat64(8, modifyIndex);
  bytes.set(record, HEAD_BYTES);
  return bytes;
}

function headOf(bytes: Uint8Array): { readonly createIndex: Index; readonly modifyIndex: Index } {
  if (bytes.length < HEAD_BYTES) throw new TrilithError("damaged", "a record is cut short");
  const head = new DataView(bytes.buffer, bytes.byteOffset, HEAD_BYTES);
  return { createIndex: head.getFloat64(0), modifyIndex: head.getFloat64(8) };
}

/** The store in the data folder. The folder stays open when the store is closed: it belongs to whoever opened it. */
export function lmdbStorage(durable: Durable): Storage {
  let last: Index = 1;
  /** Records whose change is not on disk yet, as the commits behind it must see them. */
  const pending = new Map<string, { createIndex: Index; modifyIndex: Index; commit: Index }>();
  const nameOf = (table: Table, key: string): string => `${table}\u0000${key}`;

  function stand(table: Table, key: string): { readonly createIndex: Index; readonly modifyIndex: Index } {
    const waiting = pending.get(nameOf(table, key));
    if (waiting !== undefined) return waiting;
    const stored = durable.get(TABLES[table], key);
    return stored === undefined ? { createIndex: 0, modifyIndex: 0 } : headOf(stored);
  }

  return {
    name: "lmdb",
    shared: false,
    maxChanges: 1_000_000,
    async *open(): AsyncGenerator<Batch> {
      const kept = durable.get(META.table, META.key);
      last = kept === undefined ? 1 : Number(Buffer.from(kept).toString());
      if (!Number.isSafeInteger(last) || last < 1)
        throw new TrilithError("damaged", `the index of the data is ${last}`);
      let rows: Row[] = [];
      for (const table of Object.keys(TABLES) as Table[])
        for await (const [key, bytes] of durable.entries(TABLES[table])) {
          rows.push({ table, key, value: decodeRecord(table, bytes.subarray(HEAD_BYTES)), ...headOf(bytes) });
          if (rows.length < ROWS_PER_BATCH) continue;
          yield { kind: "snapshot", index: last, rows, complete: false };
          rows = [];
        }
      yield { kind: "snapshot", index: last, rows, complete: true };
    },
    async commit({ changes, expect }: Commit): Promise<Written> {
      for (const { table, key, at } of expect)
        if (stand(table, key).modifyIndex !== at) return { result: "expectation-failed" };
      const index = last + 1;
      const after = changes.map((change) => {
        const { table, key } = change;
        const createIndex = stand(table, key).createIndex || index;
        return change.op === "put"
          ? { table, key, createIndex, modifyIndex: index, value: encodeRow(table, change.value, createIndex, index) }
          : { table, key, createIndex: 0, modifyIndex: 0, value: undefined };
      });
      const writes: DurableWrite[] = after.map(({ table, key, value }) => ({ table: TABLES[table], key, value }));
      writes.push({ ...META, value: Buffer.from(String(index)) });
      for (const { table, key, createIndex, modifyIndex } of after)
        pending.set(nameOf(table, key), { createIndex, modifyIndex, commit: index });
      last = index;
      try {
        // Called in the same turn, so that the order of writes is the order of indexes.
        await durable.write(writes);
      } finally {
        for (const { table, key } of changes) {
          const name = nameOf(table, key);
          if (pending.get(name)?.commit === index) pending.delete(name);
        }
      }
      return { result: "written", index };
    },
    async close() {},
  };
}
