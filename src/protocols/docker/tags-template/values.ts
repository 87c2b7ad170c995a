// What the Go templates of Registrator's -tags work on: a container's inspect object seen with Go's eyes.
import { fail, kindOf, type Value } from "../../../wire/go-template/values.ts";

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

/** A field of an object, by its name in Go. @throws TemplateFault where there is none, and Go would know that */
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
