// Declarative decoders for JSON bodies: a list of fields per body, names in any case, unknown names refused, as Go does it.
import { InputError, messageOf, TrilithError } from "../../base/error.ts";
import { parseGoDuration } from "../../wire/duration.ts";
import { Refusal } from "./errors.ts";
import { decodeJson } from "./json.ts";

/** Turns a JSON value (never null) into a value of its type. `at` names the place for errors. @throws TrilithError `invalid` */
export type Decoder<T> = (raw: unknown, at: string) => T;

/** One decoder for every field of T. */
export type FieldsOf<T> = { readonly [K in keyof T]-?: Decoder<Exclude<T[K], undefined>> };

function nameOf(raw: unknown): string {
  if (Array.isArray(raw)) return "array";
  return typeof raw === "boolean" ? "bool" : typeof raw;
}

function mismatch(raw: unknown, at: string, type: string): never {
  const what = typeof raw === "number" ? `number ${raw}` : nameOf(raw);
  throw new TrilithError("invalid", `json: cannot unmarshal ${what} into Go struct field ${at} of type ${type}`);
}

export const text: Decoder<string> = (raw, at) => (typeof raw === "string" ? raw : mismatch(raw, at, "string"));
export const flag: Decoder<boolean> = (raw, at) => (typeof raw === "boolean" ? raw : mismatch(raw, at, "bool"));
export const integer: Decoder<number> = (raw, at) =>
  typeof raw === "number" && Number.isInteger(raw) ? raw : mismatch(raw, at, "int");
export const number: Decoder<number> = (raw, at) => (typeof raw === "number" ? raw : mismatch(raw, at, "float64"));
/** Anything, handed on as it is. */
export const anything: Decoder<unknown> = (raw) => raw;

/** Bytes written in base64, as Go's encoding/base64 takes them. */
export const base64: Decoder<Uint8Array> = (raw, at) => {
  const given = text(raw, at).replace(/[\r\n]/g, "");
  const wrong = given.search(/[^A-Za-z0-9+/]/);
  const end = wrong === -1 ? given.length : wrong;
  const padded = given.length % 4 === 0 && /^={0,2}$/.test(given.slice(end)) && end % 4 !== 1;
  if (!padded) throw new TrilithError("invalid", `illegal base64 data at input byte ${end}`);
  return Buffer.from(given, "base64");
};

/** Milliseconds of "10s", or of a number of nanoseconds. */
export const durationMs: Decoder<number> = (raw, at) => {
  if (typeof raw === "number") return Math.trunc(raw) / 1e6;
  return parseGoDuration(text(raw, at));
};

/** A list; null at the top of a body is an empty one. */
export function list<T>(item: Decoder<T>): Decoder<readonly T[]> {
  return (raw, at) => {
    if (raw === null && at === "") return [];
    if (!Array.isArray(raw)) mismatch(raw, at, "[]");
    return (raw as unknown[]).map((one, i) => item(one, `${at}[${i}]`));
  };
}

/** A map with names chosen by the user. */
export function map<T>(item: Decoder<T>): Decoder<Readonly<Record<string, T>>> {
  return (raw, at) => {
    if (typeof raw !== "object" || Array.isArray(raw)) mismatch(raw, at, "map");
    const result: Record<string, T> = Object.create(null);
    for (const [key, value] of Object.entries(raw as object))
      if (value !== null) result[key] = item(value, `${at}.${key}`);
    return result;
  };
}

/**
 * An object with known fields. Names count in any case; `aliases` are further names by field; fields that are null are absent.
 * `lenient` ignores unknown fields (sessions) instead of refusing them; `nulls` says what null means for fields that have a default.
 */
export function record<T extends object>(
  type: string,
  fields: FieldsOf<T>,
  options: {
    readonly aliases?: Readonly<Record<string, keyof T & string>>;
    readonly lenient?: boolean;
    readonly nulls?: Partial<T>;
  } = {},
): Decoder<T> {
  const known = new Map<string, { readonly field: keyof T & string; readonly decode: Decoder<unknown> }>();
  for (const field of Object.keys(fields) as (keyof T & string)[])
    known.set(field.toLowerCase(), { field, decode: fields[field] });
  for (const [alias, field] of Object.entries(options.aliases ?? {}))
    known.set(alias.toLowerCase(), { field, decode: fields[field] });
  return (raw, at) => {
    if (raw === null) return {} as T;
    if (typeof raw !== "object" || Array.isArray(raw))
      throw new TrilithError(
        "invalid",
        `json: cannot unmarshal ${nameOf(raw)} into Go value of type ${at === "" ? type : at}`,
      );
    const result: Partial<Record<keyof T, unknown>> = {};
    for (const [key, value] of Object.entries(raw as object)) {
      const found = known.get(key.toLowerCase());
      if (found === undefined) {
        if (options.lenient === true) continue;
        throw new TrilithError("invalid", `json: unknown field ${JSON.stringify(key)}`);
      }
      if (value !== null) result[found.field] = found.decode(value, `${type}.${found.field}`);
      else if (options.nulls?.[found.field] !== undefined) result[found.field] = options.nulls[found.field];
    }
    return result as T;
  };
}

/** Decodes a body. @throws Refusal 400 "Request decode failed: …" */
export function decodeBody<T>(bytes: Uint8Array, decoder: Decoder<T>, prefix = "Request decode failed: "): T {
  try {
    return decoder(decodeJson(bytes), "");
  } catch (error) {
    if (error instanceof InputError || (error instanceof TrilithError && error.code === "invalid"))
      throw new Refusal(400, prefix + messageOf(error));
    throw error;
  }
}
