// The functions that Go's text/template gives every template.
import type { TemplateFunction } from "./action.ts";
import { asInteger, asList, asText, fail, kindOf, print, printAll, truthy, type Value } from "./values.ts";

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

/** @throws TemplateFault for a text beside a number and the like, as in Go: it would never be so */
function equal(a: Value, b: Value, what: string): boolean {
  const isOne = (value: Value): boolean => value !== null && value !== undefined;
  if (isOne(a) && isOne(b) && typeof a !== typeof b)
    fail(`${what}: incompatible types for comparison: ${kindOf(a)} and ${kindOf(b)}`);
  return isOne(a) ? a === b : !isOne(b);
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

/** The first value that is so, else the last one; those behind it are not worked out. */
function until(args: readonly (() => Value)[], isSo: (value: Value) => boolean): Value {
  let value: Value;
  for (const arg of args) {
    value = arg();
    if (isSo(value)) break;
  }
  return value;
}

function lazily(work: (args: readonly (() => Value)[]) => Value): TemplateFunction {
  return { least: 1, most: 99, lazily: work, call: (args) => work(args.map((arg) => () => arg)) };
}

/** Go's own functions, without prototype; `missing` is what `index` gives for a key that a map does not have. */
export function goFunctions(
  missing: (map: Readonly<Record<string, unknown>>) => Value,
): Record<string, TemplateFunction> {
  return Object.assign(Object.create(null) as Record<string, TemplateFunction>, {
    and: lazily((args) => until(args, (value) => !truthy(value))),
    or: lazily((args) => until(args, truthy)),
    not: { least: 1, most: 1, call: ([value]) => !truthy(value) },
    eq: { least: 2, most: 99, call: ([first, ...rest]) => rest.some((value) => equal(first, value, "eq")) },
    ne: { least: 2, most: 2, call: ([a, b]) => !equal(a, b, "ne") },
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
            : value === null || value === undefined || typeof value === "object"
              ? Object.keys(value ?? {}).length
              : fail(`len of type ${kindOf(value)}`),
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
          return Object.hasOwn(map, name) ? map[name] : missing(map);
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
  } satisfies Record<string, TemplateFunction>);
}
