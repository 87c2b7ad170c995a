// Watches in configuration files: what is watched, and the script or URL that is told.
import { InputError } from "../../base/error.ts";
import { nearestName } from "../../base/nearest-name.ts";
import { parseDurationValue } from "../../wire/duration.ts";
import type { KeyPath } from "./settings/value.ts";
import { planOf, type WatchParams } from "./watch-plan.ts";

/** Who is told. */
export type WatchHandler =
  /** A command with its arguments, or one line for a shell. */
  | { readonly kind: "script"; readonly command: readonly string[] | string }
  | {
      readonly kind: "http";
      readonly url: string;
      readonly method: string;
      readonly headers: Readonly<Record<string, readonly string[]>>;
      readonly timeoutMs: number;
      readonly skipVerify: boolean;
    };

/** One watch of the agent. Made of JSON types only, so that equal ones are told by their text. */
export interface WatchConfig {
  readonly params: WatchParams;
  readonly handler: WatchHandler;
}

const KEYS = [
  ...["type", "datacenter", "token", "key", "prefix", "service", "tag", "passingonly", "state", "name", "stale"],
  ...["filter", "handler", "handler_type", "args", "http_handler_config"],
];
const HTTP_KEYS = ["path", "method", "timeout", "header", "tls_skip_verify"];
const TIMEOUT_MS = 10_000;

/** One object of a file, its fields by lower-case name. */
class Fields {
  readonly #fields = new Map<string, { readonly key: string; readonly value: unknown }>();
  readonly #path: KeyPath;
  readonly #at: (path: KeyPath) => string;

  constructor(raw: unknown, path: KeyPath, at: (path: KeyPath) => string, known: readonly string[]) {
    // An HCL block is a list of one object.
    const inner = Array.isArray(raw) && raw.length === 1 ? (raw[0] as unknown) : raw;
    this.#path = inner === raw ? path : [...path, 0];
    this.#at = at;
    if (typeof inner !== "object" || inner === null || Array.isArray(inner))
      throw new InputError(at(path), `${JSON.stringify(raw)}: expected an object`);
    for (const [key, value] of Object.entries(inner)) {
      const lower = key.toLowerCase();
      if (!known.includes(lower)) {
        const nearest = nearestName(lower, known);
        const meant = nearest === undefined ? "" : `: did you mean "${nearest}"?`;
        throw new InputError(at([...this.#path, key]), `unknown key "${key}"${meant}`);
      }
      if (value !== null) this.#fields.set(lower, { key, value });
    }
  }

  fail(name: string, what: string): never {
    const key = this.#fields.get(name)?.key;
    throw new InputError(this.#at(key === undefined ? this.#path : [...this.#path, key]), what);
  }
  has(name: string): boolean {
    return this.#fields.has(name);
  }
  raw(name: string): unknown {
    return this.#fields.get(name)?.value;
  }
  path(name: string): KeyPath {
    return [...this.#path, this.#fields.get(name)?.key ?? name];
  }
  text(name: string): string | undefined {
    const value = this.raw(name);
    if (value === undefined || typeof value === "string") return value;
    return this.fail(name, `${JSON.stringify(value)}: expected a text`);
  }
  flag(name: string): boolean | undefined {
    const value = this.raw(name);
    if (value === undefined || typeof value === "boolean") return value;
    if (value === "true" || value === "false") return value === "true";
    return this.fail(name, `${JSON.stringify(value)}: expected true or false`);
  }
  texts(name: string): readonly string[] | undefined {
    const value = this.raw(name);
    if (value === undefined) return undefined;
    if (typeof value === "string") return [value];
    if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value as string[];
    return this.fail(name, `${JSON.stringify(value)}: expected a list of texts`);
  }
}

/** Reads the `watches` of a file. @throws InputError with file, line and key */
export function readWatches(raw: unknown, path: KeyPath, at: (path: KeyPath) => string): readonly WatchConfig[] {
  const list = Array.isArray(raw) ? raw : [raw];
  return list.map((one, i) => readWatch(one, Array.isArray(raw) ? [...path, i] : path, at));
}

function readWatch(raw: unknown, path: KeyPath, at: (path: KeyPath) => string): WatchConfig {
  const fields = new Fields(raw, path, at, KEYS);
  const given = <K extends keyof WatchParams>(key: K, value: WatchParams[K] | undefined): Partial<WatchParams> =>
    value === undefined ? {} : { [key]: value };
  const params: WatchParams = {
    type: fields.text("type") ?? "",
    ...given("key", fields.text("key")),
    ...given("prefix", fields.text("prefix")),
    ...given("service", fields.text("service")),
    ...given("tags", fields.texts("tag")),
    ...given("passingOnly", fields.flag("passingonly")),
    ...given("state", fields.text("state")),
    ...given("name", fields.text("name")),
    ...given("filter", fields.text("filter")),
    ...given("stale", fields.flag("stale")),
    ...given("datacenter", fields.text("datacenter")),
  };
  try {
    planOf(params);
  } catch (error) {
    return fields.fail("type", (error as Error).message);
  }
  return { params, handler: readHandler(fields, at) };
}

function readHandler(fields: Fields, at: (path: KeyPath) => string): WatchHandler {
  const kind = fields.text("handler_type") ?? "script";
  if (kind !== "script" && kind !== "http") return fields.fail("handler_type", `Handler type '${kind}' not recognized`);
  const line = fields.text("handler");
  const args = fields.texts("args");
  const given = [line, args].filter((each) => each !== undefined).length + (kind === "http" ? 1 : 0);
  if (given > 1) fields.fail("args", "Only one watch handler allowed");
  if (given === 0) fields.fail("type", "Must define a watch handler");
  if (kind === "script") {
    if (args !== undefined && (args.length === 0 || args[0] === "")) fields.fail("args", "Must define a watch handler");
    return { kind, command: args ?? (line as string) };
  }
  if (!fields.has("http_handler_config"))
    fields.fail("handler_type", "http_handler_config is missing: expected its path");
  const http = new Fields(fields.raw("http_handler_config"), fields.path("http_handler_config"), at, HTTP_KEYS);
  const url = http.text("path") ?? "";
  if (!/^https?:\/\/./.test(url))
    http.fail("path", `Requires 'path' to be set: expected a URL such as "http://host/path"`);
  const headers: Record<string, readonly string[]> = Object.create(null);
  const raw = http.raw("header");
  const header = Array.isArray(raw) && raw.length === 1 ? (raw[0] as unknown) : raw;
  for (const [name, value] of Object.entries((header ?? {}) as object)) {
    const values: unknown = typeof value === "string" ? [value] : value;
    if (!Array.isArray(values) || !values.every((each) => typeof each === "string"))
      http.fail("header", `"${name}": expected a list of texts`);
    headers[name] = values as string[];
  }
  const timeout = http.raw("timeout");
  return {
    kind,
    url,
    method: http.text("method") ?? "POST",
    headers,
    timeoutMs: timeout === undefined ? TIMEOUT_MS : parseDurationValue(timeout, at(http.path("timeout"))),
    skipVerify: http.flag("tls_skip_verify") ?? false,
  };
}
