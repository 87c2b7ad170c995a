// What a wrapper states about its program, line by line, and the registrations that follow from it. Pure.
import { InputError } from "../../base/error.ts";
import { isObject } from "../../base/is-object.ts";
import type { CheckSpec, Status } from "../../model/check.ts";
import type { Registration } from "../../model/instance.ts";
import { parseGoDuration } from "../../wire/duration.ts";
import { isLoopbackHost, type ListeningPort } from "./ports.ts";

/** A listening port under the service name that the wrapper gave it. */
export interface StatedPort extends ListeningPort {
  readonly name: string;
  /** True for the port that all checks are about. */
  readonly first: boolean;
}

/** A check as asked for with --check. `id` is set for those that are pushed. */
export interface StatedCheck {
  readonly kind: "http" | "tcp" | "ttl";
  readonly detail: Readonly<Record<string, unknown>>;
  readonly intervalMs: number;
  readonly ttlMs: number;
  readonly id: string;
  readonly name: string;
}

/** The whole state of one wrapped program. */
export interface Statement {
  readonly pid: number;
  /** Start of the process in clock ticks since boot; 0 where the system does not tell. */
  readonly start: number;
  /** What tells several statements of one process apart: the name under which it advertises itself; "" under `trilith run`. */
  readonly part: string;
  readonly name: string;
  /** The command line, for people. */
  readonly command: string;
  readonly tags: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly ports: readonly StatedPort[];
  readonly checks: readonly StatedCheck[];
  readonly draining: boolean;
}

/** One line from a wrapper. `n` counts them; the agent answers `{"taken": n}` when its list has taken it over. */
export type Line =
  | { readonly n: number; readonly state: Statement }
  | { readonly n: number; readonly gone: { readonly died: boolean; readonly text: string } }
  | {
      readonly n: number;
      readonly report: { readonly check: string; readonly status: Status; readonly output: string };
    };

/** What the agent answers. */
export type Reply = { readonly taken: number } | { readonly error: string };

/** The value, where it fits. @throws InputError that names where it stood and what was expected */
export function need<T>(value: unknown, where: string, fits: (value: unknown) => value is T, what: string): T {
  if (!fits(value)) throw new InputError(where, `${JSON.stringify(value) ?? "nothing"}: expected ${what}`);
  return value;
}
export const isText = (value: unknown): value is string => typeof value === "string";
export const isName = (value: unknown): value is string =>
  typeof value === "string" && value !== "" && !value.includes("\0");
const isFlag = (value: unknown): value is boolean => typeof value === "boolean";
export const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
export const isPid = (value: unknown): value is number => isCount(value) && value > 0;
export const isPort = (value: unknown): value is number => isPid(value) && value <= 65_535;
export const isMs = (value: unknown): value is number =>
  typeof value === "number" && Number.isFinite(value) && value >= 0 && value < 2 ** 42;
export const isProtocol = (value: unknown): value is "tcp" | "udp" => value === "tcp" || value === "udp";
const isKind = (value: unknown): value is StatedCheck["kind"] => value === "http" || value === "tcp" || value === "ttl";
const isStatus = (value: unknown): value is Status =>
  value === "passing" || value === "warning" || value === "critical";
const isList = (value: unknown): value is readonly unknown[] => Array.isArray(value) && value.length <= 10_000;

/** Reads one line. @throws InputError saying which key is wrong */
export function parseLine(text: string): Line {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new InputError("", `not a line of JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const line = need(raw, "line", isObject, "an object");
  const n = need(line["n"], "n", isCount, "a count");
  if (line["report"] !== undefined) {
    const report = need(line["report"], "report", isObject, "an object");
    return {
      n,
      report: {
        check: need(report["check"], "report.check", isName, "a check's ID"),
        status: need(report["status"], "report.status", isStatus, "passing, warning or critical"),
        output: need(report["output"], "report.output", isText, "text"),
      },
    };
  }
  if (line["gone"] !== undefined) {
    const gone = need(line["gone"], "gone", isObject, "an object");
    return {
      n,
      gone: {
        died: need(gone["died"], "gone.died", isFlag, "true or false"),
        text: need(gone["text"], "gone.text", isText, "text"),
      },
    };
  }
  const state = need(line["state"], "state", isObject, "an object");
  return {
    n,
    state: {
      pid: need(state["pid"], "pid", isPid, "a process ID"),
      start: need(state["start"], "start", isCount, "a number of clock ticks"),
      part: need(state["part"] ?? "", "part", isText, "text"),
      name: need(state["name"], "name", isName, "a name"),
      command: need(state["command"], "command", isText, "text"),
      tags: readTags(state["tags"]),
      labels: readLabels(state["labels"]),
      ports: need(state["ports"], "ports", isList, "a list").map((raw, i) => {
        const port = need(raw, `ports[${i}]`, isObject, "an object");
        return {
          protocol: need(port["protocol"], `ports[${i}].protocol`, isProtocol, "tcp or udp"),
          port: need(port["port"], `ports[${i}].port`, isPort, "a port from 1 to 65535"),
          host: need(port["host"], `ports[${i}].host`, isText, "an IP address or nothing"),
          name: need(port["name"], `ports[${i}].name`, isName, "a name"),
          first: need(port["first"], `ports[${i}].first`, isFlag, "true or false"),
        };
      }),
      checks: readChecks(state["checks"]),
      draining: need(state["draining"], "draining", isFlag, "true or false"),
    },
  };
}

/** @throws InputError */
export function readTags(raw: unknown): readonly string[] {
  return need(raw, "tags", isList, "a list").map((tag, i) => need(tag, `tags[${i}]`, isText, "text"));
}

/** @throws InputError */
export function readLabels(raw: unknown): Readonly<Record<string, string>> {
  const labels: Record<string, string> = Object.create(null);
  for (const [key, value] of Object.entries(need(raw, "labels", isObject, "an object")))
    labels[key] = need(value, `labels.${key}`, isText, "text");
  return labels;
}

/** @throws InputError */
export function readChecks(raw: unknown): readonly StatedCheck[] {
  return need(raw, "checks", isList, "a list").map((one, i) => {
    const check = need(one, `checks[${i}]`, isObject, "an object");
    return {
      kind: need(check["kind"], `checks[${i}].kind`, isKind, "http, tcp or ttl"),
      detail: need(check["detail"], `checks[${i}].detail`, isObject, "an object"),
      intervalMs: need(check["intervalMs"], `checks[${i}].intervalMs`, isMs, "milliseconds"),
      ttlMs: need(check["ttlMs"], `checks[${i}].ttlMs`, isMs, "milliseconds"),
      id: need(check["id"], `checks[${i}].id`, isText, "text"),
      name: need(check["name"], `checks[${i}].name`, isText, "text"),
    };
  });
}

/** What a run is known by: the process, and the part of it that states. */
export interface RunIdentity {
  readonly pid: number;
  readonly start: number;
  readonly part: string;
}

/** What identifies a run of a program over restarts of wrapper and agent. */
export function runKey({ pid, start, part }: RunIdentity): string {
  return part === "" ? `${pid}:${start}` : `${pid}:${start}#${part}`;
}

/** The inverse of the foreign IDs that `registrationsOf` gives: "pid:start[#part]:port/protocol". */
export function runOfForeignId(foreignId: string): RunIdentity | undefined {
  const match = /^(\d+):(\d+)(?:#([\s\S]*))?:\d+\/(?:tcp|udp)$/.exec(foreignId);
  return match === null ? undefined : { pid: Number(match[1]), start: Number(match[2]), part: match[3] ?? "" };
}

/** A stated check as the agent makes it. @throws TrilithError `invalid` */
export function checkSpecOf(
  check: StatedCheck,
  parse: (kind: string, detail: Readonly<Record<string, unknown>>) => unknown,
): CheckSpec {
  return {
    id: check.id,
    name: check.name,
    notes: "",
    kind: check.kind,
    detail: check.kind === "ttl" ? {} : parse(check.kind, check.detail),
    intervalMs: check.intervalMs,
    timeoutMs: 0,
    ...(check.kind === "ttl" ? { ttlMs: check.ttlMs } : {}),
  };
}

/**
 * One registration per port. Checks are about the first port; `tcp` about every TCP port.
 * @param parse the probe's own reading of a detail. @throws TrilithError `invalid`
 */
export function registrationsOf(
  statement: Statement,
  parse: (kind: string, detail: Readonly<Record<string, unknown>>) => unknown,
): Registration[] {
  return statement.ports.map((port) => {
    const udp = port.protocol === "udp";
    const checks = statement.checks
      .filter((check) => port.first || (check.kind === "tcp" && !udp && check.detail["address"] === ""))
      .map((check) => checkSpecOf(check, parse));
    const labels: Record<string, string> = Object.create(null);
    for (const [key, value] of Object.entries(statement.labels)) labels[key] = value;
    return {
      id: `${statement.name}:${statement.pid}:${port.port}${udp ? ":udp" : ""}`,
      name: port.name,
      tags: udp && !statement.tags.includes("udp") ? [...statement.tags, "udp"] : statement.tags,
      labels,
      address: port.host,
      port: port.port,
      // What listens on loopback only stays on its host.
      ...(isLoopbackHost(port.host) ? { addresses: [{ host: port.host, port: port.port, reach: "loopback" }] } : {}),
      ...(statement.draining ? { draining: true } : {}),
      checks,
      foreignId: `${runKey(statement)}:${port.port}/${port.protocol}`,
      text: `process ${statement.pid} (${statement.command}), port ${port.port}/${port.protocol}`,
    } satisfies Registration;
  });
}

/** A --check word: a check that the agent makes or the program answers for, or a script that the wrapper runs. */
export type CheckWord = { readonly check: StatedCheck } | { readonly script: string; readonly check: StatedCheck };

/**
 * Reads `http:/path`, `http://…`, `https://…`, `tcp`, `tcp:host:port`, `ttl:30s` and `script:command`.
 * @param id names checks that are pushed, so that the program can report under a name it was told
 * @throws InputError that says what is allowed
 */
export function parseCheckWord(word: string, intervalMs: number, id: string): CheckWord {
  const colon = word.indexOf(":");
  const kind = colon === -1 ? word : word.slice(0, colon);
  const rest = colon === -1 ? "" : word.slice(colon + 1);
  const asked = (as: "http" | "tcp", detail: Record<string, unknown>, name: string): CheckWord => ({
    check: { kind: as, detail, intervalMs, ttlMs: 0, id: "", name },
  });
  if ((kind === "http" || kind === "https") && rest.startsWith("//")) {
    if (URL.canParse(word)) return asked("http", { url: word }, "");
  } else if (kind === "http" && (rest === "" || rest.startsWith("/"))) {
    return asked("http", { url: rest === "" ? "/" : rest }, "");
  } else if (kind === "tcp" && (rest === "" || /:\d+$/.test(rest))) {
    return asked("tcp", { address: rest }, "");
  } else if (kind === "ttl") {
    const ttlMs = parseGoDuration(rest, `--check "${word}"`);
    if (ttlMs > 0)
      return { check: { kind: "ttl", detail: {}, intervalMs: 0, ttlMs, id, name: "reported by the program" } };
  } else if (kind === "script" && rest !== "") {
    // Without a result for so long nobody runs the script any more.
    const ttlMs = intervalMs * 2 + SCRIPT_TIMEOUT_MS;
    return { script: rest, check: { kind: "ttl", detail: {}, intervalMs: 0, ttlMs, id, name: `script: ${rest}` } };
  }
  throw new InputError(
    `--check "${word}"`,
    "expected http:/path, http://host/path, tcp, tcp:host:port, ttl:30s or script:command",
  );
}

/** A script of --check that takes longer is ended and counts as critical. */
export const SCRIPT_TIMEOUT_MS = 30_000;

/**
 * Names for ports that stay the same while ports come and go: the first port (the one asked for, else the lowest TCP port seen first) bears
 * the plain name as long as it is there, the others `name-port`.
 */
export class PortNames {
  private readonly name: string;
  private first: string | undefined;
  constructor(name: string) {
    this.name = name;
  }

  /** @param ports in the order in which they may become the first */
  give(ports: readonly ListeningPort[]): StatedPort[] {
    const key = (port: ListeningPort): string => `${port.protocol}:${port.port}`;
    if (!ports.some((port) => key(port) === this.first))
      this.first = ports[0] === undefined ? undefined : key(ports[0]);
    return ports.map((port) => {
      const first = key(port) === this.first;
      return { ...port, first, name: first ? this.name : `${this.name}-${port.port}` };
    });
  }
}
