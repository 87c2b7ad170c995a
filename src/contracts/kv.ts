// Keys and values with check-and-set, as promised to every dialect that has them (the rules live in directory/kv.ts).
import type { Change, Entry, Expect, Index } from "../model/record.ts";
import type { View, Written } from "./directory.ts";

/** What plans are made on: a view, or a view with changes of one's own on top of it. */
export type Records = Pick<View, "get" | "list">;

/** How to set a key. At most one of `cas`, `acquire`, `release`. */
export interface KvSet {
  readonly flags?: bigint;
  /** Only if the key stands at this modifyIndex; 0 = only if it does not exist. */
  readonly cas?: Index;
  readonly acquire?: string;
  readonly release?: string;
  /** The key goes by itself after so many milliseconds, unless it is set again; without it a time that was set before is taken back. */
  readonly ttlMs?: number;
}

/** What a KV operation would write, worked out on a view: put together by transactions. */
export type KvPlan =
  | { readonly ok: true; readonly changes: readonly Change[]; readonly expect: readonly Expect[] }
  | {
      readonly ok: false;
      /** The lock is free, but its last holder's session ended without releasing it, less than its lock delay ago. */
      readonly delayed?: true;
    };

/** The key-value store on the directory's line. Retries by itself when others write in between. */
export interface Kv {
  /** As this process has it. @throws TrilithError `unsupported` on a client host, which holds no keys: `read` them */
  get(key: string): Entry<"kv"> | undefined;
  /** As it stands in the store, or at the servers of a client host. @throws TrilithError `unavailable` where these do not answer */
  read(key: string, signal?: AbortSignal): Promise<Entry<"kv"> | undefined>;
  /** False where the condition did not hold. @throws InputError at "acquire" (no such session), TrilithError `too-large` */
  set(key: string, value: Uint8Array, options?: KvSet): Promise<boolean>;
  /** True unless `cas` did not hold; a missing key counts as deleted. */
  delete(key: string, options?: { readonly cas?: Index }): Promise<boolean>;
  /** Deletes every key that begins with the prefix ("" = all); in one write where the store takes so many. */
  deleteTree(prefix: string): Promise<void>;
  /** What `set` would write, seen from these records: for transactions. @throws as `set` */
  planSet(records: Records, key: string, value: Uint8Array, options?: KvSet): KvPlan;
  /** What `delete` would write, seen from these records. */
  planDelete(records: Records, key: string, options?: { readonly cas?: Index }): KvPlan;
}

export type { Written };
