// A durable map from text to bytes in the data folder, by lmdb: many writers share one sync, and a write is told only when it is on disk.
import { join } from "node:path";

/** One change to a durable table; `value` undefined removes. */
export interface DurableWrite {
  readonly table: string;
  readonly key: string;
  readonly value: Uint8Array | undefined;
}

/** Tables of text → bytes. Keys of any length and content. */
export interface Durable {
  /** All or nothing; resolves when synced to disk. Writes of the same turn (and of those waiting meanwhile) share one sync. */
  write(writes: readonly DurableWrite[]): Promise<void>;
  entries(table: string): AsyncIterable<readonly [key: string, value: Uint8Array]>;
  get(table: string, key: string): Uint8Array | undefined;
  close(): Promise<void>;
}

export const durableFile = (folder: string): string => join(folder, "trilith.mdb");
