// A durable store for tests: lives in memory, survives the agent's restart as long as the test holds it, counts writes and fails on demand.

import type { Durable, DurableWrite } from "../../src/base/durable.ts";
import { wrap } from "../../src/base/error.ts";

export interface FakeDurable extends Durable {
  /** How many writes (each all or nothing) there were. */
  readonly writes: number;
  /** Every change written, in order. */
  readonly log: readonly DurableWrite[];
  /** Set to make all writes fail with it. */
  failure: Error | undefined;
}

export function fakeDurable(): FakeDurable {
  const tables = new Map<string, Map<string, Uint8Array>>();
  const log: DurableWrite[] = [];
  let writes = 0;
  return {
    failure: undefined,
    get writes() {
      return writes;
    },
    log,
    async write(changes) {
      // As with a disk, it takes a moment, and fails only then.
      await new Promise((resolve) => setImmediate(resolve));
      if (this.failure !== undefined) throw this.failure;
      writes++;
      for (const change of changes) {
        log.push(change);
        let table = tables.get(change.table);
        if (table === undefined) {
          table = new Map();
          tables.set(change.table, table);
        }
        if (change.value === undefined) table.delete(change.key);
        else table.set(change.key, change.value);
      }
    },
    async *entries(table) {
      for (const entry of tables.get(table) ?? []) yield entry;
    },
    get: (table, key) => tables.get(table)?.get(key),
    async trouble() {
      return this.failure === undefined ? undefined : wrap(this.failure, "the data folder");
    },
    async close() {},
  };
}
