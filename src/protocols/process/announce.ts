// What `trilith announce` says to the agent, from its flags.
import { InputError, messageOf } from "../../base/error.ts";
import type { Processes } from "../../base/process.ts";
import { isPrintable } from "../../wire/consul-definition/faults.ts";
import { parseGoDuration } from "../../wire/duration.ts";
import type { Announcement } from "./announcements.ts";
import { parseCheckWord } from "./statement.ts";

/** The flags, as typed. */
export interface AnnounceFlags {
  readonly name?: string;
  readonly id?: string;
  readonly port?: string;
  readonly address?: string;
  readonly udp?: boolean;
  readonly tag?: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly check?: readonly string[];
  readonly interval: string;
  readonly ttl?: string;
  readonly pid?: string;
}

const TTL_LEAST_MS = 1000;

/** A Go duration in milliseconds. @throws InputError that says what would be right */
export function goDuration(text: string, flag: string): number {
  try {
    return parseGoDuration(text);
  } catch (error) {
    throw new InputError(flag, `${messageOf(error)}; right would be "10s" or "1m30s"`);
  }
}

/** A positive Go duration in milliseconds. @throws InputError */
export function durationOf(text: string, flag: string, leastMs = 1): number {
  const ms = goDuration(text, flag);
  if (ms < leastMs) throw new InputError(flag, `"${text}": expected ${leastMs / 1000}s or more`);
  return ms;
}

/** A port. @throws InputError */
function portOf(text: string | undefined): number {
  if (text === undefined) throw new InputError("--port", "missing: which port does it listen on?");
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535)
    throw new InputError("--port", `"${text}": expected a whole number from 1 to 65535`);
  return port;
}

/** A name. @throws InputError */
function nameOf(text: string | undefined): string {
  if (text === undefined) throw new InputError("--name", "missing: trilith announce --name web --port 80");
  if (text === "" || !isPrintable(text))
    throw new InputError("--name", `${JSON.stringify(text)}: expected a name without control characters`);
  return text;
}

/** The ID under which something is announced. @throws InputError */
export function idOf({ id, name, port, udp }: Pick<AnnounceFlags, "id" | "name" | "port" | "udp">): string {
  return id ?? `${nameOf(name)}:${portOf(port)}${udp === true ? ":udp" : ""}`;
}

/** @throws InputError for flags that make no sense, and for a process that is not there */
export async function announcementOf(
  flags: AnnounceFlags,
  processes: Pick<Processes, "startTime" | "exists">,
): Promise<Announcement> {
  const intervalMs = durationOf(flags.interval, "--interval");
  const pid = flags.pid === undefined ? 0 : Number(flags.pid);
  if (flags.pid !== undefined && (!/^\d+$/.test(flags.pid) || pid < 1))
    throw new InputError("--pid", `"${flags.pid}": expected the number of a process`);
  const start = pid === 0 ? 0 : ((await processes.startTime(pid)) ?? 0);
  if (pid !== 0 && start === 0 && !processes.exists(pid)) throw new InputError("--pid", `there is no process ${pid}`);
  return {
    id: idOf(flags),
    name: nameOf(flags.name),
    protocol: flags.udp === true ? "udp" : "tcp",
    port: portOf(flags.port),
    address: flags.address ?? "",
    tags: flags.tag ?? [],
    labels: flags.labels,
    checks: (flags.check ?? []).map((word) => {
      const read = parseCheckWord(word, intervalMs, "");
      if ("script" in read || read.check.kind === "ttl")
        throw new InputError("--check", `"${word}": expected http:/path, http://host/path, tcp or tcp:host:port`);
      return read.check;
    }),
    ttlMs: flags.ttl === undefined ? 0 : durationOf(flags.ttl, "--ttl", TTL_LEAST_MS),
    pid,
    start,
  };
}
