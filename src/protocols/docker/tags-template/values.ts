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
/** Fields that Docker leaves out of its answer while they are empty, with what the Go client has there then. */
const OPTIONAL: ReadonlyMap<string, () => Value> = new Map<string, () => Value>([
  ...["StopSignal", "MacAddress", "Domainname"].map((name) => [name, () => ""] as const),
  ["StopTimeout", () => 0],
  ...["Shell", "OnBuild", "Mounts", "ExecIDs"].map((name) => [name, () => []] as const),
  ...[...MAPS].map((name) => [name, emptyMap] as const),
  // What the Go client keeps by value has all its fields, empty.
  ["Health", () => everyKeyOptional({ Status: "", FailingStreak: 0, Log: [] })],
]);
/** Fields that the Go client keeps as a pointer: missing, they are nil. */
const POINTERS: ReadonlySet<string> = new Set(["Healthcheck", "Node", "IPAMConfig", "LogConfig"]);
/** Fields that the Go client keeps as a time. */
const TIMES: ReadonlySet<string> = new Set(["Created", "StartedAt", "FinishedAt"]);
/** Objects that are maps in Go, with what a key gives that they do not have: no value at all, or an empty one. */
const maps = new WeakMap<object, { readonly missing: Value }>();
const NO_VALUE = { missing: undefined };
const EMPTY = { missing: "" };

/** "2026-11-20T13:25:28.120Z" as Go's time prints itself. */
function goTime(text: string): string {
  const [, day, time, fraction = ""] = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?Z$/.exec(text) ?? [];
  return day === undefined ? text : `${day} ${time}${fraction.replace(/\.?0+$/, "")} +0000 UTC`;
}

function emptyMap(): Value {
  const map = {};
  maps.set(map, NO_VALUE);
  return map;
}

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
    : maps.has(from)
      ? undefined
      : Object.keys(from).find((candidate) => candidate.toLowerCase() === name.toLowerCase());
  if (key === undefined) {
    const map = maps.get(from);
    if (map !== undefined) return map.missing;
    if (POINTERS.has(name)) return undefined;
    const empty = OPTIONAL.get(name);
    return empty === undefined ? fail(`can't evaluate field ${name}: the container has none`) : empty();
  }
  const found = from[key];
  // Docker writes null for lists and maps without content.
  if (found === null && !maps.has(from) && !POINTERS.has(key)) return MAPS.has(key) ? emptyMap() : [];
  if (MAPS.has(key) && typeof found === "object" && found !== null) maps.set(found, NO_VALUE);
  return TIMES.has(key) && typeof found === "string" ? goTime(found) : found;
}

/** What Go's `index` gives for a key that a map does not have: an empty value like the others. */
export function emptyOf(map: Readonly<Record<string, unknown>>): Value {
  const [like] = Object.values(map);
  if (like === undefined || typeof like !== "object") return "";
  return Array.isArray(like) ? [] : everyKeyOptional({});
}

/** What comes out of JSON are maps throughout: a key that is not there is no mistake. */
export function everyKeyOptional(value: Value): Value {
  if (typeof value !== "object" || value === null) return value;
  if (!Array.isArray(value)) maps.set(value, EMPTY);
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
