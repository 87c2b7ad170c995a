// The store that forgets: everything in memory, for -dev and for tests.
import type { Written } from "../../contracts/directory.ts";
import type { Batch, Commit, Row, Storage } from "../../contracts/storage.ts";
import type { Index } from "../../model/record.ts";

/** A store without a disk. Nothing outlives the process. */
export function memoryStorage(): Storage {
  const rows = new Map<string, Row>();
  let index: Index = 1;
  const nameOf = (at: { readonly table: string; readonly key: string }): string => `${at.table}\u0000${at.key}`;
  return {
    name: "memory",
    shared: false,
    maxChanges: 1_000_000,
    async *open(): AsyncGenerator<Batch> {
      yield { kind: "snapshot", index, rows: [...rows.values()], complete: true };
    },
    async commit({ changes, expect }: Commit): Promise<Written> {
      for (const each of expect)
        if ((rows.get(nameOf(each))?.modifyIndex ?? 0) !== each.at) return { result: "expectation-failed" };
      index++;
      for (const change of changes) {
        const name = nameOf(change);
        if (change.op === "delete") rows.delete(name);
        else
          rows.set(name, {
            table: change.table,
            key: change.key,
            value: change.value,
            createIndex: rows.get(name)?.createIndex ?? index,
            modifyIndex: index,
          });
      }
      return { result: "written", index };
    },
    async close() {},
  };
}
