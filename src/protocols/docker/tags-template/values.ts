// What the Go templates of Registrator's -tags work on: a container's inspect object seen with Go's eyes, and values read, compared and printed.
import { InputError } from "../../../base/error.ts";

/** Whatever JSON holds; undefined and null are Go's nil. */
export type Value = unknown;

/** Objects of the inspect answer that are maps in Go: a key that is not there gives the empty value instead of an error. */
const MAPS: ReadonlySet<string> = new Set([
  "Labels",
  "Ports",
  "Networks",
  "PortBindings",
  "ExposedPorts",
  "Volumes",
  "Options",
  "Sysctls",
]);
/** Fields that Docker leaves out of its answer while they are empty. */
const OPTIONAL: ReadonlySet<string> = new Set([
  "StopSignal",
  "StopTimeout",
  "Healthcheck",
  "Health",
  "Shell",
  "MacAddress",
  "Node",
  "Domainname",
  "OnBuild",
]);
const isMap = new WeakSet<object>();

/** Refuses a template, or what it meets, in the words of Go's text/template. @throws InputError */
export function fail(text: string): never {
  throw new InputError("", `template: tags: ${text}`);
}

/** Go's word for what a value is, near enough for an error. */
export function kindOf(value: Value): string {
  if (value === null || value === undefined) return "nil";
  return Array.isArray(value) ? "list" : typeof value === "object" ? "map" : typeof value;
}

/** A field of an object, by its name in Go. @throws InputError where there is none, and Go would know that */
export function field(value: Value, name: string): Value {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== "object" || Array.isArray(value))
    return fail(`can't evaluate field ${name} in type ${kindOf(value)}`);
  const from = value as Record<string, unknown>;
  // The Go client spells Id as ID and the like.
  const key = Object.hasOwn(from, name)
    ? name
    : isMap.has(from)
      ? undefined
      : Object.keys(from).find((candidate) => candidate.toLowerCase() === name.toLowerCase());
  if (key === undefined) {
    if (isMap.has(from) || OPTIONAL.has(name)) return "";
    return fail(`can't evaluate field ${name}: the container has none`);
  }
  const found = from[key];
  if (MAPS.has(key) && typeof found === "object" && found !== null) isMap.add(found);
  return found;
}

/** What comes out of JSON are maps throughout: a key that is not there is no mistake. */
export function everyKeyOptional(value: Value): Value {
  if (typeof value !== "object" || value === null) return value;
  if (!Array.isArray(value)) isMap.add(value);
  for (const item of Object.values(value)) everyKeyOptional(item);
  return value;
}

/** The value as a string; `what` asks for it. @throws InputError */
export function asText(value: Value, what: string): string {
  return typeof value === "string" ? value : fail(`${what}: expected a string, found ${kindOf(value)}`);
}

/** The value as an integer; `what` asks for it. @throws InputError */
export function asInteger(value: Value, what: string): number {
  return typeof value === "number" && Number.isInteger(value)
    ? value
    : fail(`${what}: expected an integer, found ${kindOf(value)}`);
}

/** The value as a list, nil as an empty one; `what` asks for it. @throws InputError */
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

/** False for what is empty: nil, 0, "", false, lists and maps without content. */
export function truthy(value: Value): boolean {
  if (Array.isArray(value)) return value.length > 0;
  return typeof value === "object" && value !== null ? Object.keys(value).length > 0 : Boolean(value);
}
