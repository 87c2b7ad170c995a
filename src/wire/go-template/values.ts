// What Go templates work on: values seen with Go's eyes, read, compared and printed.

/** Whatever JSON holds; undefined and null are Go's nil. A function is a method, called with what stands behind it. */
export type Value = unknown;

/** What is wrong with a template or with what it met; who parses it says where. */
export class TemplateFault extends Error {}

/** @throws TemplateFault */
export function fail(text: string): never {
  throw new TemplateFault(text);
}

/** Go's word for what a value is, near enough for an error. */
export function kindOf(value: Value): string {
  if (value === null || value === undefined) return "nil";
  return Array.isArray(value) ? "list" : typeof value === "object" ? "map" : typeof value;
}

/** The value as a string; `what` asks for it. @throws TemplateFault */
export function asText(value: Value, what: string): string {
  return typeof value === "string" ? value : fail(`${what}: expected a string, found ${kindOf(value)}`);
}

/** The value as an integer; `what` asks for it. @throws TemplateFault */
export function asInteger(value: Value, what: string): number {
  return typeof value === "number" && Number.isInteger(value)
    ? value
    : fail(`${what}: expected an integer, found ${kindOf(value)}`);
}

/** The value as a list, nil as an empty one; `what` asks for it. @throws TemplateFault */
export function asList(value: Value, what: string): readonly Value[] {
  if (value === null || value === undefined) return [];
  return Array.isArray(value) ? value : fail(`${what}: expected a list, found ${kindOf(value)}`);
}

/** A value as Go's `%v` prints it. */
export function print(value: Value): string {
  if (value === null || value === undefined) return "<no value>";
  if (Array.isArray(value)) return `[${value.map(print).join(" ")}]`;
  if (typeof value !== "object") return String(value);
  return `map[${Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, item]) => `${key}:${print(item)}`)
    .join(" ")}]`;
}

/** Values as Go's `fmt.Sprint` joins them: with a blank between two of which none is a string. */
export function printAll(values: readonly Value[]): string {
  let text = "";
  for (const [i, value] of values.entries()) {
    if (i > 0 && typeof value !== "string" && typeof values[i - 1] !== "string") text += " ";
    text += print(value);
  }
  return text;
}

/** False for what is empty: nil, 0, "", false, lists and maps without content. */
export function truthy(value: Value): boolean {
  if (Array.isArray(value)) return value.length > 0;
  return typeof value === "object" && value !== null ? Object.keys(value).length > 0 : Boolean(value);
}
