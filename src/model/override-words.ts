// The words of overrides: reading them, adding them to those said before, and what they make of a registration. Pure.
import { InputError, messageOf } from "../base/error.ts";
import type { CheckSpec } from "./check.ts";
import type { Registration, ServiceFacts } from "./instance.ts";
import type { Override } from "./override.ts";

/** One word: a key, how its value counts, and the value. */
interface Word {
  readonly key: string;
  readonly sign: "=" | "+=" | "-=";
  readonly value: string;
}

const SHAPE = /^([A-Za-z]+(?:\.[^=]*?)?)(\+=|-=|=)(.*)$/s;
const KEYS = "name=, tags=, tags+=, tags-=, weight=, port=, address=, label.KEY=, check=, hidden";
const CHECKS =
  "check=none, check=tcp, check=http:/path (asked of the service itself) or check=URL, each with @SECONDS behind it for its interval";
const INTERVAL_MS = 10_000;

/** Reads one word. @throws InputError that says what was given and what would be right */
function wordOf(text: string): Word {
  const wrong = (right: string): never => {
    throw new InputError(`override "${text}"`, `expected ${right}`);
  };
  if (text === "hidden") return { key: "hidden", sign: "=", value: "true" };
  const [, key = "", sign = "=", value = ""] = SHAPE.exec(text) ?? [];
  if (/[\u0000-\u001f]/.test(text)) wrong("no control characters");
  const word = { key, sign: sign as Word["sign"], value };
  if (key === "tags") return value === "" && sign !== "=" ? wrong("at least one tag behind it") : word;
  if (sign !== "=") return wrong(`one of ${KEYS}: only tags can be added to (+=) and taken from (-=)`);
  const whole = (from: number, to: number): Word =>
    /^\d{1,9}$/.test(value) && Number(value) >= from && Number(value) <= to
      ? word
      : wrong(`a whole number from ${from} to ${to}`);
  switch (key) {
    case "name":
      return value.trim() === "" || value.includes("/") ? wrong("a name without slashes") : word;
    case "weight":
      return whole(0, 65_535);
    case "port":
      return whole(0, 65_535);
    case "address":
      return /^[0-9A-Za-z_.:-]+$/.test(value) ? word : wrong("an IP address or host name");
    case "hidden":
      return /^(true|false)$/.test(value) ? word : wrong("hidden, hidden=true or hidden=false");
    case "check":
      checkWord(word);
      return word;
    default:
      return /^label\..+/.test(key) ? word : wrong(`one of ${KEYS}`);
  }
}

/** @throws InputError */
function checkWord({ value }: Word): { readonly kind: string; readonly url: string; readonly intervalMs: number } {
  const [, what = "", seconds] = /^(.*?)(?:@(\d{1,6})s?)?$/s.exec(value) ?? [];
  const path = /^http:(\/(?!\/).*)$/.exec(what)?.[1];
  const url = path ?? (/^https?:\/\/./.test(what) && URL.canParse(what) ? what : "");
  const intervalMs = seconds === undefined ? INTERVAL_MS : Number(seconds) * 1000;
  if (intervalMs === 0 || !(what === "none" || what === "tcp" || url !== ""))
    throw new InputError(`override "check=${value}"`, `expected ${CHECKS}`);
  return { kind: url === "" ? what : "http", url, intervalMs };
}

const textOf = ({ key, sign, value }: Word): string =>
  key === "hidden" && value === "true" ? "hidden" : `${key}${sign}${value}`;
const list = (value: string): readonly string[] => value.split(",").filter((one) => one !== "");

/** What is said once new words are added to old ones: a newer word takes the place of what it contradicts. @throws InputError */
export function addWords(old: readonly string[], more: readonly string[]): readonly string[] {
  if (more.length === 0) throw new InputError("override", `nothing is said: expected ${KEYS}`);
  let words: readonly Word[] = old.map(wordOf);
  for (const word of more.map(wordOf)) {
    if (word.key !== "tags" || word.sign === "=") words = words.filter(({ key }) => key !== word.key);
    else {
      const same = (tag: string): boolean => list(word.value).includes(tag);
      words = words.flatMap((before) => {
        if (before.key !== "tags" || before.sign === "=") return [before];
        const left = list(before.value).filter((tag) => !same(tag));
        return left.length === 0 ? [] : [{ ...before, value: left.join(",") }];
      });
    }
    words = [...words, word];
  }
  return words.map(textOf);
}

/**
 * An override as a file states it: whom it is for, and the words. `at` names a place in the file, for messages and as who says so.
 * @throws InputError
 */
export function readOverride(
  value: unknown,
  path: readonly (string | number)[],
  at: (path: readonly (string | number)[]) => string,
): Override {
  const right = 'expected an object such as {"for": "web-1", "set": ["name=shop", "tags+=v2"]}';
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new InputError(at(path), right);
  const { for: target, set, ...rest } = value as Readonly<Record<string, unknown>>;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw new InputError(at([...path, unknown]), `unknown key: ${right}`);
  const words = typeof set === "string" ? [set] : set;
  if (typeof target !== "string" || target === "" || !Array.isArray(words)) throw new InputError(at(path), right);
  if (!words.every((word): word is string => typeof word === "string")) throw new InputError(at(path), right);
  try {
    return { for: target, set: addWords([], words), by: at(path) };
  } catch (error) {
    throw new InputError(at(path), messageOf(error), error);
  }
}

/** What the words make of a registration; undefined = it is hidden. `parse` reads a check's detail for its kind. */
export function applyWords(
  r: Registration,
  words: readonly string[],
  parse: (kind: string, detail: unknown) => unknown,
): Registration | undefined {
  let now = r;
  let hidden = false;
  for (const word of words.map(wordOf)) {
    const { key, sign, value } = word;
    if (key === "hidden") hidden = value === "true";
    else if (key === "name") now = { ...now, name: value };
    else if (key === "port") now = { ...withoutAddresses(now), port: Number(value) };
    else if (key === "address") now = { ...withoutAddresses(now), address: value };
    else if (key === "weight")
      now = {
        ...now,
        weights: { passing: Number(value), warning: now.weights?.warning ?? Math.min(1, Number(value)) },
      };
    else if (key === "tags") now = { ...now, tags: tagsOf(now.tags, sign, list(value)) };
    else if (key === "check") now = { ...now, checks: checksOf(word, parse) };
    else {
      const { [key.slice("label.".length)]: _old, ...labels } = now.labels;
      now = { ...now, labels: value === "" ? labels : { ...labels, [key.slice("label.".length)]: value } };
    }
  }
  return hidden ? undefined : now;
}

/** An address that was told outweighs those a lookup would pick from. */
function withoutAddresses(r: Registration): Registration {
  const { addresses: _addresses, taggedAddresses: _tagged, ...rest } = r;
  return rest;
}

function tagsOf(tags: readonly string[], sign: Word["sign"], value: readonly string[]): readonly string[] {
  if (sign === "=") return value;
  if (sign === "-=") return tags.filter((tag) => !value.includes(tag));
  return [...tags, ...value.filter((tag) => !tags.includes(tag))];
}

function checksOf(word: Word, parse: (kind: string, detail: unknown) => unknown): readonly CheckSpec[] {
  const { kind, url, intervalMs } = checkWord(word);
  if (kind === "none") return [];
  const detail = parse(kind, kind === "http" ? { url } : {});
  return [{ id: "", name: "", notes: "set by an override", kind, detail, intervalMs, timeoutMs: 0 }];
}

/** What of a registration differs from another form of it, as it was before. */
export function changedFacts(before: Registration, after: Registration): Partial<ServiceFacts> {
  const facts = ["name", "tags", "labels", "address", "port", "weights"] as const;
  return Object.fromEntries(
    facts.flatMap((key) => (JSON.stringify(before[key]) === JSON.stringify(after[key]) ? [] : [[key, before[key]]])),
  );
}
