// Records as bytes and back: JSON in which bytes and big integers survive; used by every store and by snapshots.
import { TrilithError } from "../base/error.ts";
import type { Table, Tables } from "./record.ts";

/**
 * What user-given keys live in: no property is inherited, so that names like `__proto__` and `constructor` are ordinary. A class with an
 * empty prototype instead of `Object.create(null)`, because engines keep the latter as slow hash tables (several times the memory).
 */
const Plain = function Plain() {} as unknown as new () => Record<string, unknown>;
Plain.prototype = Object.freeze(Object.create(null));

const MARK = "$";

function pack(value: unknown, where: string): unknown {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      if (!Number.isFinite(value)) throw new TrilithError("invalid", `${where}: ${value} cannot be stored`);
      return value;
    case "bigint":
      return { $bigint: value.toString() };
    case "undefined":
      return undefined;
    case "object":
      break;
    default:
      throw new TrilithError("invalid", `${where}: a ${typeof value} cannot be stored`);
  }
  if (value === null) return null;
  if (value instanceof Uint8Array)
    return { $bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64") };
  if (Array.isArray(value)) return value.map((item, i) => pack(item, `${where}[${i}]`) ?? null);
  const result = new Plain();
  for (const key of Object.keys(value))
    result[key.startsWith(MARK) ? MARK + key : key] = pack((value as Record<string, unknown>)[key], `${where}.${key}`);
  return result;
}

function unpack(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return Object.freeze(value.map(unpack));
  const result = new Plain();
  for (const key of Object.keys(value)) {
    const item = (value as Record<string, unknown>)[key];
    if (!key.startsWith(MARK)) result[key] = unpack(item);
    else if (key.startsWith(MARK + MARK)) result[key.slice(1)] = unpack(item);
    else if (key === "$bytes" && typeof item === "string") return new Uint8Array(Buffer.from(item, "base64"));
    else if (key === "$bigint" && typeof item === "string") return BigInt(item);
    else throw new TypeError(`unknown mark ${key}`);
  }
  return Object.freeze(result);
}

/** A record as UTF-8 JSON. Fields this version does not know are kept. @throws TrilithError `invalid` for what JSON cannot hold */
export function encodeRecord<T extends Table>(table: T, value: Tables[T]): Uint8Array {
  return new TextEncoder().encode(recordText(table, value));
}

/** A record as text of one line of JSON, to be read back by `recordFrom`. @throws TrilithError `invalid` for what JSON cannot hold */
export function recordText<T extends Table>(table: T, value: Tables[T]): string {
  return JSON.stringify(pack(value, table));
}

/** A record from the parsed JSON of `recordText`, frozen, without inherited properties anywhere. @throws TrilithError `damaged` */
export function recordFrom<T extends Table>(table: T, parsed: unknown): Tables[T] {
  try {
    const value = unpack(parsed);
    if (typeof value !== "object" || value === null || Array.isArray(value) || value instanceof Uint8Array)
      throw new TypeError("not an object");
    return value as unknown as Tables[T];
  } catch (cause) {
    throw new TrilithError(
      "damaged",
      `a record of table "${table}" cannot be read: ${(cause as Error).message}`,
      cause,
    );
  }
}

/** A record from its bytes, frozen, without inherited properties anywhere. @throws TrilithError `damaged` */
export function decodeRecord<T extends Table>(table: T, bytes: Uint8Array): Tables[T] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8"));
  } catch (cause) {
    throw new TrilithError(
      "damaged",
      `a record of table "${table}" cannot be read: ${(cause as Error).message}`,
      cause,
    );
  }
  return recordFrom(table, parsed);
}

/** A deep, frozen copy of a value made of JSON types, bytes and big integers; properties that are undefined are left out. */
export function frozenCopy<T>(value: T): T {
  return copy(value) as T;
}

function copy(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (Array.isArray(value)) return Object.freeze(value.map(copy));
  const result = new Plain();
  for (const key of Object.keys(value)) {
    const item = (value as Record<string, unknown>)[key];
    if (item !== undefined) result[key] = copy(item);
  }
  return Object.freeze(result);
}

/** Whether two values made of JSON types, bytes and big integers mean the same; an undefined property equals a missing one. */
export function sameValue(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (a instanceof Uint8Array || b instanceof Uint8Array)
    return a instanceof Uint8Array && b instanceof Uint8Array && Buffer.compare(a, b) === 0;
  if (Array.isArray(a) || Array.isArray(b))
    return Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((item, i) => sameValue(item, b[i]));
  return covers(a, b) && covers(b, a);
}

function covers(a: object, b: object): boolean {
  for (const key of Object.keys(a)) {
    const item = (a as Record<string, unknown>)[key];
    const other = Object.hasOwn(b, key) ? (b as Record<string, unknown>)[key] : undefined;
    if (!sameValue(item, other)) return false;
  }
  return true;
}
