// A part of the configuration that somebody wrote: its keys one by one, each checked, with a text that says which and what would be right.
import { InputError } from "../base/error.ts";
import { isObject } from "../base/is-object.ts";
import { parseGoDuration } from "./duration.ts";

/** One object of the configuration. What is not there is undefined; what is there and wrong throws InputError with its place. */
export interface Given {
  /** Where it stands: "zookeeper", "zookeeper.sets[0]". */
  readonly where: string;
  raw(key: string): unknown;
  /** @param what says what would be right: "a path such as \"/services\"" */
  text(key: string, what: string, good?: RegExp): string | undefined;
  flag(key: string): boolean | undefined;
  /** A whole number. */
  number(key: string, least: number, most: number): number | undefined;
  /** Milliseconds of a duration such as "10s". */
  duration(key: string, leastMs: number): number | undefined;
  /** One or a list of something; empty where the key is absent. */
  list<T>(key: string, read: (value: unknown, where: string) => T): readonly T[];
  texts(key: string, what: string, good?: RegExp): readonly string[];
  /** An object of texts; without a prototype. */
  words(key: string, what: string): Readonly<Record<string, string>>;
  wrong(key: string, what: string): InputError;
}

/** @throws InputError where it is no object, or has a key that is not among `keys` */
export function given(value: unknown, where: string, keys: readonly string[], example: string): Given {
  if (!isObject(value))
    throw new InputError(where, `expected an object such as ${example}, but got ${JSON.stringify(value)}`);
  const strange = Object.keys(value).find((key) => !keys.includes(key));
  if (strange !== undefined) throw new InputError(`${where}.${strange}`, `unknown key; known are ${keys.join(", ")}`);
  const raw = (key: string): unknown => (Object.hasOwn(value, key) ? value[key] : undefined);
  const at = (key: string): string => `${where}.${key}`;
  const bad = (place: string, what: string, found: unknown): InputError =>
    new InputError(place, `expected ${what}, but got ${JSON.stringify(found)}`);
  const textOf = (found: unknown, place: string, what: string, good: RegExp): string => {
    if (typeof found !== "string" || !good.test(found)) throw bad(place, what, found);
    return found;
  };
  const self: Given = {
    where,
    raw,
    text: (key, what, good = /\S/) => (raw(key) === undefined ? undefined : textOf(raw(key), at(key), what, good)),
    flag(key) {
      const found = raw(key);
      if (found !== undefined && typeof found !== "boolean") throw bad(at(key), "true or false", found);
      return found;
    },
    number(key, least, most) {
      const found = raw(key);
      if (found === undefined) return undefined;
      if (typeof found !== "number" || !Number.isInteger(found) || found < least || found > most)
        throw bad(at(key), `a whole number from ${least} to ${most}`, found);
      return found;
    },
    duration(key, leastMs) {
      const found = raw(key);
      if (found === undefined) return undefined;
      const ms = parseGoDuration(textOf(found, at(key), 'a duration such as "10s"', /\S/), at(key));
      if (ms < leastMs) throw bad(at(key), `at least ${leastMs} ms`, found);
      return ms;
    },
    list(key, read) {
      const found = raw(key);
      if (found === undefined) return [];
      return Array.isArray(found) ? found.map((one, i) => read(one, `${at(key)}[${i}]`)) : [read(found, at(key))];
    },
    texts: (key, what, good = /\S/) => self.list(key, (one, place) => textOf(one, place, what, good)),
    words(key, what) {
      const found = raw(key) ?? {};
      if (!isObject(found)) throw bad(at(key), what, found);
      const words: Record<string, string> = Object.create(null);
      for (const [name, one] of Object.entries(found)) words[name] = textOf(one, `${at(key)}.${name}`, what, /(?:)/);
      return words;
    },
    wrong: (key, what) => bad(at(key), what, raw(key)),
  };
  return self;
}
