// What a program hands to one of the library's doors, looked at before anything is done with it: unknown names and wrong values are told with what would be right.
import { InputError } from "./error.ts";
import { isObject } from "./is-object.ts";
import { nearestName } from "./nearest-name.ts";

/** What is right for one option: in words ("a whole number from 1 to 65535"), and the test. */
export type Rule = readonly [what: string, isRight: (value: unknown) => boolean];

/** A rule for each option of a door: a new one does not compile until it has one. */
export type Rules<Options> = { readonly [Key in keyof Required<Options>]: Rule };

const isText = (value: unknown): boolean => typeof value === "string";

export const text: Rule = ["a text", isText];
/** Whoever gets it looks at it himself. */
export const anything: Rule = ["anything", () => true];
export const callback: Rule = ["a function", (value) => typeof value === "function"];
export const texts: Rule = [
  'a list of texts such as ["blue"]',
  (value) => Array.isArray(value) && value.every((each) => isText(each)),
];
export const labels: Rule = [
  'an object of texts such as { env: "prod" }',
  (value) => isObject(value) && Object.values(value).every((each) => isText(each)),
];
export const signal: Rule = [
  "an AbortSignal",
  (value) =>
    isObject(value) && typeof value["aborted"] === "boolean" && typeof value["addEventListener"] === "function",
];
export const milliseconds: Rule = [
  "milliseconds, a number above 0",
  (value) => typeof value === "number" && value > 0 && value <= Number.MAX_SAFE_INTEGER,
];
export const objectWith = (...methods: readonly string[]): Rule => [
  `an object with ${methods.join(", ")}`,
  (value) => isObject(value) && methods.every((method) => typeof value[method] === "function"),
];
export const wholeNumber = (least: number, most: number): Rule => [
  `a whole number from ${least} to ${most}`,
  (value) => Number.isInteger(value) && (value as number) >= least && (value as number) <= most,
];
export const oneOf = (...words: readonly (string | number)[]): Rule => [
  `one of ${words.join(", ")}`,
  (value) => words.includes(value as string),
];

/**
 * Checks the options of a door: `mustFit("connect", options, RULES)`. Programs without types say what they like, and what is not understood must not
 * be passed over in silence. An option that is undefined is as good as absent.
 * @throws InputError with the option's name, what was given, and what would be right
 */
export function mustFit<Options>(door: string, given: unknown, rules: Rules<Options>): void {
  if (given === undefined) return;
  const known = rules as Readonly<Record<string, Rule>>;
  if (!isObject(given)) throw new InputError(`${door}: options`, `${shown(given)}: expected an object`);
  for (const [name, value] of Object.entries(given)) {
    const rule = Object.hasOwn(known, name) ? known[name] : undefined;
    if (rule === undefined) {
      const near = nearestName(name, Object.keys(known));
      throw new InputError(
        `${door}: ${name}`,
        `there is no such option${near === undefined ? ";" : `: did you mean "${near}"?`} known are ${Object.keys(known).join(", ")}`,
      );
    }
    if (value !== undefined) mustBe(`${door}: ${name}`, value, rule);
  }
}

/** Checks one argument. @throws InputError */
export function mustBe(where: string, value: unknown, [what, isRight]: Rule): void {
  if (!isRight(value)) throw new InputError(where, `${shown(value)}: expected ${what}`);
}

/** A value as people write it, not too long. */
function shown(value: unknown): string {
  let written: string | undefined;
  try {
    written = typeof value === "number" || typeof value === "bigint" ? String(value) : JSON.stringify(value);
  } catch {
    // It holds itself.
  }
  written ??= String(value);
  return written.length > 80 ? `${written.slice(0, 80)}…` : written;
}
