// Which removals need not be remembered one by one any more: they are folded into one number, so that memory and store stay small.
import type { Row } from "../contracts/storage.ts";
import { type Change, type Expect, GRAVE_FLOOR, type Index } from "../model/record.ts";
import { graveTimeMs } from "./evaluate.ts";
import type { Tables } from "./tables.ts";

/** Removals are remembered one by one for so long, and beyond it while there are not more than GRAVES_KEPT of them. */
const GRAVE_AGE_MS = 15 * 60_000;
const GRAVES_KEPT = 2000;
/** However young, not more than so many. */
const GRAVES_AT_MOST = 50_000;
/** Where no graves tell which scopes are gone, it is not remembered of more of them when they moved. */
const STAMPS_AT_MOST = 100_000;

/** The oldest graves that need not be kept, at most so many, and the floor that stands for them. */
function oldGraves(
  tables: Tables,
  most: number,
  nowMs: number,
): { readonly keys: readonly string[]; readonly floor: Index } {
  const total = tables.count("grave");
  const keys: string[] = [];
  let { floor } = tables;
  if (total <= GRAVES_KEPT) return { keys, floor };
  const young = nowMs - GRAVE_AGE_MS;
  for (const [key, grave] of tables.entries("grave")) {
    if (key === GRAVE_FLOOR || keys.length >= most) break;
    const left = total - keys.length;
    if (left <= GRAVES_KEPT || (graveTimeMs(key) > young && left <= GRAVES_AT_MOST)) break;
    keys.push(key);
    if (grave.modifyIndex > floor && !grave.scopes.every((each) => tables.movedAfter(each, grave.modifyIndex)))
      floor = grave.modifyIndex;
  }
  return { keys, floor };
}

/** A write of at most `most` changes that clears old graves; undefined where none need go. */
export function clearingOf(
  tables: Tables,
  most: number,
  nowMs: number,
): { readonly changes: readonly Change[]; readonly expect: readonly Expect[] } | undefined {
  const { keys, floor } = oldGraves(tables, most - 1, nowMs);
  if (keys.length === 0) return undefined;
  const changes: Change[] = keys.map((key) => ({ op: "delete", table: "grave", key }));
  const expect: Expect[] = [];
  if (floor > tables.floor) {
    changes.push({ op: "put", table: "grave", key: GRAVE_FLOOR, value: { scopes: [], floor } });
    expect.push({ table: "grave", key: GRAVE_FLOOR, at: tables.get("grave", GRAVE_FLOOR)?.modifyIndex ?? 0 });
  }
  return { changes, expect };
}

/** The same for tables alone, at their index: of a store that only tells of removals, and not when it forgets them. */
export function forgettingOf(tables: Tables, nowMs: number): readonly Row[] | undefined {
  const { index } = tables;
  const old = oldGraves(tables, Number.POSITIVE_INFINITY, nowMs);
  // What goes at a Consul leaves no grave.
  const floor = tables.stamped > STAMPS_AT_MOST ? index : old.floor;
  const { keys } = old;
  if (keys.length === 0 && floor === tables.floor) return undefined;
  const row = { table: "grave", createIndex: index, modifyIndex: index } as const;
  const rows: Row[] = keys.map((key) => ({ ...row, key, value: undefined }));
  // A floor of the same index would count as known.
  rows.push({ ...row, key: GRAVE_FLOOR, value: undefined }, { ...row, key: GRAVE_FLOOR, value: { scopes: [], floor } });
  return rows;
}
