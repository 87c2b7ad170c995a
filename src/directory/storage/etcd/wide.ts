// Commits with more changes or expectations than etcd takes operations in a flat transaction: a nested one, with conditions on ranges.

import { EtcdError } from "../../../base/etcd/error.ts";
import {
  type Compare,
  type RangeRequest,
  type RequestOp,
  Result,
  Target,
  type TxnRequest,
} from "../../../base/etcd/proto.ts";
import type { Table } from "../../../model/record.ts";
import { absent, standsAt } from "./compares.ts";

// etcd counts the operations (and conditions) of each level: a transaction with n of them may hold nested ones with limit - n each
// [etcd 3.4 etcdserver/api/v3rpc/key.go checkTxnRequest]. Nested operations are all done or none, as flat ones are. Conditions have to
// stand on the outermost level, or those behind them would be done alone; so they are drawn together: "as it was at revision R" for many
// keys is "no key from the first to the last was written after R". That says nothing of keys that were deleted since. A put that keeps
// the key's lease fails the transaction where the key is gone. For keys that are deleted it is enough that nothing was deleted since R by
// the directory of any process: each leaves a grave in the commit that deletes. Keys that have to exist and are not changed get
// conditions of their own.

/** One condition: a key and the revision it has to stand at (0 = not there). */
export interface WideCondition {
  readonly table: Table;
  readonly key: Buffer;
  readonly at: number;
  /** What the same commit does to the key. */
  readonly change: "put" | "delete" | undefined;
}

/** Conditions on existing keys that the commit does not change. */
export const MOST_SINGLES = 64;
/** Ranges that conditions are drawn together to; few keys each, so that what others write in between seldom lies inside. */
const SPANS = 32;
/** Operations of one nested transaction. With 2 + SPANS + 8 tables + MOST_SINGLES conditions outside there is room for 22. */
const NESTED = 16;

/** True where a range cannot stand for it. */
export const isSingle = ({ at, change }: WideCondition): boolean => at !== 0 && change === undefined;

/** What has to be known before: the marker, and how every key of a condition stands; in portions of at most `most`. */
export function wideReads(
  marker: Buffer,
  conditions: readonly WideCondition[],
  most: number,
): readonly (readonly RangeRequest[])[] {
  const reads: RangeRequest[] = [{ key: marker }, ...conditions.map(({ key }) => ({ key, keysOnly: true }))];
  return portions(reads, most);
}

/**
 * The transaction that does `operations` if the marker is not there and all conditions, which held at `revision`, still hold. It may
 * fail although they do, where others wrote keys in between.
 * @param graves the prefix of all graves' keys
 */
export function wideTransaction(
  marker: Buffer,
  graves: Buffer,
  conditions: readonly WideCondition[],
  operations: readonly RequestOp[],
  revision: number,
): TxnRequest {
  const byTable = new Map<Table, Buffer[]>();
  const existing = new Set<string>();
  for (const condition of conditions) {
    if (isSingle(condition)) continue;
    const { table, key, at, change } = condition;
    const keys = byTable.get(table);
    if (keys === undefined) byTable.set(table, [key]);
    else keys.push(key);
    if (at !== 0 && change === "put") existing.add(key.toString());
  }
  const perSpan = Math.max(1, Math.ceil(conditions.length / SPANS));
  const spans = [...byTable.values()].flatMap((keys) => portions(keys.sort(Buffer.compare), perSpan));
  const since = (key: Buffer, rangeEnd: Buffer): Compare => ({
    ...{ result: Result.less, target: Target.mod, modRevision: revision + 1 },
    ...{ key, rangeEnd },
  });
  const untouched = spans.map((keys) => since(keys[0] as Buffer, Buffer.concat([keys.at(-1) as Buffer, Buffer.of(0)])));
  if (conditions.some(({ at, change }) => at !== 0 && change === "delete"))
    untouched.push(since(graves, Buffer.concat([graves, Buffer.of(0xff)])));
  const guarded = operations.map((operation): RequestOp => {
    const { requestPut: put } = operation;
    return put !== undefined && existing.has(Buffer.from(put.key).toString())
      ? { requestPut: { ...put, ignoreLease: true } }
      : operation;
  });
  return {
    compare: [absent(marker), ...untouched, ...conditions.filter(isSingle).map(standsAt)],
    success: portions(guarded, NESTED).map(
      (success): RequestOp => ({ requestTxn: { compare: [], success, failure: [] } }),
    ),
    failure: [],
  };
}

/** A put that was to find its key did not. */
export function isKeyGone(error: unknown): boolean {
  return error instanceof EtcdError && error.details.includes("key not found");
}

function portions<T>(all: readonly T[], most: number): T[][] {
  const cut: T[][] = [];
  for (let at = 0; at < all.length; at += most) cut.push(all.slice(at, at + most));
  return cut;
}
