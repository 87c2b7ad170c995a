// The functions that a -tags template may call: Registrator's own, and those of Go's text/template.
import { messageOf } from "../../../base/error.ts";
import { compile, type Pattern } from "../../../wire/regexp.ts";
import {
  asInteger,
  asList,
  asText,
  emptyOf,
  everyKeyOptional,
  fail,
  kindOf,
  print,
  printAll,
  truthy,
  type Value,
} from "./values.ts";

type Call = (args: readonly Value[]) => Value;

/** An element counted from the start, or from the end for negative numbers, held within the list. */
function element(list: readonly Value[], index: number, what: string): string {
  if (list.length === 0) return fail(`${what}: the list is empty`);
  const at = index < 0 ? Math.max(0, list.length + index) : Math.min(index, list.length - 1);
  return asText(list[at], what);
}

function pattern(text: string): Pattern {
  try {
    return compile(text);
  } catch (error) {
    return fail(`"${text}" is not a regular expression: ${messageOf(error)}`);
  }
}

/** The place of the first value that is so, else of the last one. */
function firstOf(args: readonly Value[], isSo: (value: Value) => boolean): number {
  const at = args.findIndex(isSo);
  return at < 0 ? args.length - 1 : at;
}

/** `slice` of a string or a list; a string is counted in bytes. */
function sliced([value, from, to]: readonly Value[]): Value {
  const whole = typeof value === "string" ? Buffer.from(value) : asList(value, "slice");
  const start = from === undefined ? 0 : asInteger(from, "slice");
  const end = to === undefined ? whole.length : asInteger(to, "slice");
  if (start < 0 || end > whole.length || end < start) return fail(`slice: ${start} to ${end} is out of range`);
  const part = whole.slice(start, end);
  return Buffer.isBuffer(part) ? part.toString() : part;
}

const HTML: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&#34;",
  "'": "&#39;",
  "\u0000": "\ufffd",
};

function compare(args: readonly Value[], what: string): number {
  const [a, b] = args;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return typeof a === "string" && typeof b === "string"
    ? a < b
      ? -1
      : a > b
        ? 1
        : 0
    : fail(`${what}: incompatible types for comparison`);
}

function printf(args: readonly Value[]): string {
  let next = 1;
  return asText(args[0], "printf").replace(
    /%([-+# 0]*)(\d*)(?:\.(\d+))?([%vsdqtfgexXoc])/g,
    (_, flags: string, wide: string, exact: string | undefined, verb: string) => {
      if (verb === "%") return "%";
      const value = args[next++];
      const text = formatted(value, verb, exact === undefined ? undefined : Number(exact));
      const signed = typeof value === "number" && flags.includes("+") && !text.startsWith("-") ? `+${text}` : text;
      if (flags.includes("-")) return signed.padEnd(Number(wide));
      if (!flags.includes("0")) return signed.padStart(Number(wide));
      // Zeros stand between a number's sign and its digits.
      const sign = typeof value === "number" ? (/^[-+]/.exec(signed)?.[0] ?? "") : "";
      return sign + signed.slice(sign.length).padStart(Number(wide) - sign.length, "0");
    },
  );
}

/** As many digits as JavaScript writes behind a point. */
const MOST_DIGITS = 100;

/** A value as a verb of Go's fmt writes it; `exact`: digits behind a number's point, characters of a text. */
function formatted(value: Value, verb: string, exact: number | undefined): string {
  if (typeof value !== "number") {
    const whole = print(value);
    const text = exact !== undefined && /[svq]/.test(verb) ? [...whole].slice(0, exact).join("") : whole;
    if (verb === "q") return JSON.stringify(text);
    if (!/[xX]/.test(verb)) return text;
    const hex = Buffer.from(text).toString("hex");
    return verb === "X" ? hex.toUpperCase() : hex;
  }
  if (verb === "x") return value.toString(16);
  if (verb === "X") return value.toString(16).toUpperCase();
  if (verb === "f") return value.toFixed(Math.min(exact ?? 6, MOST_DIGITS));
  if (verb === "e") return value.toExponential(Math.min(exact ?? 6, MOST_DIGITS)).replace(/e([+-])(\d)$/, "e$10$2");
  if (verb === "o") return value.toString(8);
  if (verb === "q") return JSON.stringify(print(value));
  if (verb !== "c") return print(value);
  const isCharacter = Number.isInteger(value) && value >= 0 && value <= 0x10_ffff;
  return isCharacter ? String.fromCodePoint(value) : "\ufffd";
}

/** Arguments each function takes: at least, at most. */
export const FUNCTIONS: Readonly<
  Record<string, { readonly least: number; readonly most: number; readonly call: Call }>
> = Object.assign(Object.create(null), {
  // Registrator's own.
  strSlice: {
    least: 1,
    most: 3,
    call: ([text, from, to]) => {
      const whole = asText(text, "strSlice");
      if (from === undefined) return whole;
      const start = asInteger(from, "strSlice");
      const end = to === undefined ? whole.length : asInteger(to, "strSlice");
      if (start < 0 || end < 0 || start > whole.length || end > whole.length) return whole;
      return end < start ? whole.slice(start) : whole.slice(start, end);
    },
  },
  sIndex: {
    least: 2,
    most: 2,
    call: ([i, list]) => element(asList(list, "sIndex"), asInteger(i, "sIndex"), "sIndex"),
  },
  mIndex: {
    least: 2,
    most: 2,
    call: ([key, map]) => {
      const from = (map ?? {}) as Record<string, unknown>;
      if (kindOf(from) !== "map") return fail(`mIndex: expected a map, found ${kindOf(map)}`);
      const name = asText(key, "mIndex");
      return Object.hasOwn(from, name) ? from[name] : "";
    },
  },
  toUpper: { least: 1, most: 1, call: ([text]) => asText(text, "toUpper").toUpperCase() },
  toLower: { least: 1, most: 1, call: ([text]) => asText(text, "toLower").toLowerCase() },
  replace: {
    least: 4,
    most: 4,
    call: ([times, old, by, text]) => {
      let left = asInteger(times, "replace");
      const [find, put, whole] = [asText(old, "replace"), asText(by, "replace"), asText(text, "replace")];
      if (left < 0) return whole.replaceAll(find, () => put);
      let done = "";
      let rest = whole;
      for (let at = rest.indexOf(find); left > 0 && at >= 0 && find !== ""; left--, at = rest.indexOf(find)) {
        done += rest.slice(0, at) + put;
        rest = rest.slice(at + find.length);
      }
      return done + rest;
    },
  },
  join: { least: 2, most: 2, call: ([by, list]) => asList(list, "join").map(print).join(asText(by, "join")) },
  split: { least: 2, most: 2, call: ([by, text]) => asText(text, "split").split(asText(by, "split")) },
  splitIndex: {
    least: 3,
    most: 3,
    call: ([i, by, text]) =>
      element(asText(text, "splitIndex").split(asText(by, "splitIndex")), asInteger(i, "splitIndex"), "splitIndex"),
  },
  matchFirstElement: {
    least: 2,
    most: 2,
    call: ([text, list]) => {
      const matches = pattern(asText(text, "matchFirstElement"));
      return asList(list, "matchFirstElement").find((item) => matches.found(print(item))) ?? "";
    },
  },
  matchAllElements: {
    least: 2,
    most: 2,
    call: ([text, list]) => {
      const matches = pattern(asText(text, "matchAllElements"));
      return asList(list, "matchAllElements").filter((item) => matches.found(print(item)));
    },
  },
  jsonParse: {
    least: 1,
    most: 1,
    call: ([text]) => {
      try {
        return everyKeyOptional(JSON.parse(asText(text, "jsonParse")));
      } catch (error) {
        return fail(`jsonParse: ${messageOf(error)}`);
      }
    },
  },
  // Go's.
  and: { least: 1, most: 99, call: (args) => args[firstOf(args, (value) => !truthy(value))] },
  or: { least: 1, most: 99, call: (args) => args[firstOf(args, truthy)] },
  not: { least: 1, most: 1, call: ([value]) => !truthy(value) },
  eq: { least: 2, most: 99, call: ([first, ...rest]) => rest.some((value) => value === first) },
  ne: { least: 2, most: 2, call: ([a, b]) => a !== b },
  lt: { least: 2, most: 2, call: (args) => compare(args, "lt") < 0 },
  le: { least: 2, most: 2, call: (args) => compare(args, "le") <= 0 },
  gt: { least: 2, most: 2, call: (args) => compare(args, "gt") > 0 },
  ge: { least: 2, most: 2, call: (args) => compare(args, "ge") >= 0 },
  len: {
    least: 1,
    most: 1,
    call: ([value]) =>
      typeof value === "string"
        ? Buffer.byteLength(value)
        : Array.isArray(value)
          ? value.length
          : Object.keys(value ?? {}).length,
  },
  index: {
    least: 1,
    most: 99,
    call: ([value, ...keys]) =>
      keys.reduce((from: Value, key) => {
        if (typeof key === "number") {
          const list = asList(from, "index");
          return key >= 0 && key < list.length ? list[key] : fail(`index: ${key} is out of range`);
        }
        const name = asText(key, "index");
        if (kindOf(from) !== "map") return fail(`index: can't index ${kindOf(from)}`);
        const map = from as Record<string, unknown>;
        return Object.hasOwn(map, name) ? map[name] : emptyOf(map);
      }, value),
  },
  slice: { least: 1, most: 3, call: sliced },
  html: { least: 0, most: 99, call: (args) => printAll(args).replace(/[&<>"'\0]/g, (c) => HTML[c] ?? c) },
  urlquery: {
    least: 0,
    most: 99,
    call: (args) =>
      encodeURIComponent(printAll(args))
        .replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
        .replaceAll("%20", "+"),
  },
  print: { least: 0, most: 99, call: printAll },
  println: { least: 0, most: 99, call: (args) => `${args.map(print).join(" ")}\n` },
  printf: { least: 1, most: 99, call: printf },
} satisfies Record<string, { least: number; most: number; call: Call }>);
/** Registrator has it; here a template may not reach the network. */
export const NOT_OFFERED = "httpGet";
