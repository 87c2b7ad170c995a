// What `trilith announce` registers: it lives as long as a process, until a time runs out, or until it is taken back.
import type { Clock } from "../../base/clock.ts";
import { type Code, codeOf, InputError, messageOf, TrilithError } from "../../base/error.ts";
import type { Handler, IncomingMessage, ServerResponse } from "../../base/http.ts";
import { isObject } from "../../base/is-object.ts";
import type { Log } from "../../base/log.ts";
import type { Processes } from "../../base/process.ts";
import { bodyOf, isFromHere } from "../../base/requests.ts";
import type { Agent } from "../../contracts/agent.ts";
import type { CheckSpec } from "../../model/check.ts";
import type { Registration } from "../../model/instance.ts";
import { isLoopbackHost, lives } from "./ports.ts";
import {
  checkSpecOf,
  isCount,
  isMs,
  isName,
  isPid,
  isPort,
  isProtocol,
  isText,
  need,
  readChecks,
  readLabels,
  readTags,
  type StatedCheck,
} from "./statement.ts";

/** The body of `POST /v1/trilith/announce`. */
export interface Announcement {
  /** "" = `name:port`. */
  readonly id: string;
  readonly name: string;
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  /** "" = this host's own. */
  readonly address: string;
  readonly tags: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly checks: readonly StatedCheck[];
  /** Without another announcement for so long it is critical; 0 = not so. */
  readonly ttlMs: number;
  /** It goes with this process; 0 = with none. */
  readonly pid: number;
  /** The process's start in clock ticks since boot; 0 where the system does not tell. */
  readonly start: number;
}

export interface AnnouncedMachine {
  readonly clock: Clock;
  readonly log: Log;
  readonly processes: Pick<Processes, "proc" | "exists">;
  readonly agent: Pick<Agent, "services" | "register" | "deregister" | "report">;
  /** A probe's own reading of a check's detail. @throws TrilithError `invalid` */
  parse(kind: string, detail: Readonly<Record<string, unknown>>): unknown;
  /** Called when something was announced or taken back. */
  changed(): void;
}

/** The origin of what is announced. */
const FROM = "announce";
const LOOK_MS = 250;
const BODY_MAX_BYTES = 1 << 20;
/** Silent for so many times its TTL, and this long at least, it is taken out. */
const FORGET_TTLS = 3;
const FORGET_LEAST_MS = 60_000;
/** @see `foreignIdOf` */
const FOREIGN = /^(?:(\d+):(\d+)|-):(tcp|udp)$/;

/** Reads a body. @throws InputError saying which key is wrong */
function readAnnouncement(raw: unknown): Announcement {
  const body = need(raw, "body", isObject, "an object");
  return {
    id: need(body["id"] ?? "", "id", isText, "text"),
    name: need(body["name"], "name", isName, "a name"),
    protocol: need(body["protocol"] ?? "tcp", "protocol", isProtocol, "tcp or udp"),
    port: need(body["port"], "port", isPort, "a port from 1 to 65535"),
    address: need(body["address"] ?? "", "address", isText, "an address or nothing"),
    tags: readTags(body["tags"] ?? []),
    labels: readLabels(body["labels"] ?? {}),
    checks: readChecks(body["checks"] ?? []),
    ttlMs: need(body["ttlMs"] ?? 0, "ttlMs", isMs, "milliseconds"),
    pid: body["pid"] === undefined || body["pid"] === 0 ? 0 : need(body["pid"], "pid", isPid, "a process ID"),
    start: need(body["start"] ?? 0, "start", isCount, "a number of clock ticks"),
  };
}

/** The registration that an announcement asks for. @throws TrilithError `invalid` */
function registrationOf(
  announcement: Announcement,
  parse: (kind: string, detail: Readonly<Record<string, unknown>>) => unknown,
): Registration {
  const { name, protocol, port, address, tags, labels, ttlMs, pid, start } = announcement;
  const id = announcement.id === "" ? `${name}:${port}${protocol === "udp" ? ":udp" : ""}` : announcement.id;
  const checks: CheckSpec[] = announcement.checks.map((check) => checkSpecOf(check, parse));
  if (ttlMs > 0)
    checks.push({
      id: ttlCheckId(id),
      name: "announced again in time",
      notes: "",
      kind: "ttl",
      detail: {},
      intervalMs: 0,
      timeoutMs: 0,
      ttlMs,
      initial: "passing",
      deregisterAfterMs: Math.max(ttlMs * FORGET_TTLS, FORGET_LEAST_MS),
    });
  return {
    id,
    name,
    tags: protocol === "udp" && !tags.includes("udp") ? [...tags, "udp"] : tags,
    labels,
    address,
    port,
    ...(isLoopbackHost(address) ? { addresses: [{ host: address, port, reach: "loopback" }] } : {}),
    checks,
    foreignId: `${pid === 0 ? "-" : `${pid}:${start}`}:${protocol}`,
    text: `announced${pid === 0 ? "" : ` for process ${pid}`}, port ${port}/${protocol}`,
  };
}

function ttlCheckId(id: string): string {
  return `announce:${id}`;
}

/** One announcement with a process. */
interface Watched {
  readonly id: string;
  readonly foreignId: string;
  readonly pid: number;
  readonly start: number;
}

export class Announcements {
  readonly handle: Handler = (request, response) => this.serve(request, response);
  private readonly machine: AnnouncedMachine;
  private stopping: AbortController | undefined;
  private watching: Promise<void> = Promise.resolve();

  constructor(machine: AnnouncedMachine) {
    this.machine = machine;
  }

  /** Watches the processes of what is announced, also what was before the agent's last end. */
  start(): void {
    if (this.stopping !== undefined) return;
    this.stopping = new AbortController();
    this.watching = this.watch(this.stopping.signal);
  }

  async stop(): Promise<void> {
    this.stopping?.abort(new TrilithError("stopped", "the agent is stopping"));
    await this.watching;
  }

  /** What is announced now: tells whether a port is, for that process, or for this host without naming one. */
  ports(): (pid: number, protocol: "tcp" | "udp", port: number) => boolean {
    const held = new Set<string>();
    for (const { instance } of this.machine.agent.services().values()) {
      const match = instance.origin.source === FROM ? FOREIGN.exec(instance.origin.foreignId ?? "") : null;
      if (match === null) continue;
      const [, pid = "", , protocol] = match;
      if (pid !== "" || instance.address === "" || isLoopbackHost(instance.address))
        held.add(`${pid} ${protocol} ${instance.port}`);
    }
    return (pid, protocol, port) => held.has(`${pid} ${protocol} ${port}`) || held.has(` ${protocol} ${port}`);
  }

  private async watch(signal: AbortSignal): Promise<void> {
    const { agent, clock, log, processes } = this.machine;
    while (!signal.aborted) {
      const watched: Watched[] = [];
      for (const { instance } of agent.services().values()) {
        const { source, foreignId = "" } = instance.origin;
        const match = source === FROM ? FOREIGN.exec(foreignId) : null;
        if (match?.[1] !== undefined)
          watched.push({ id: instance.id, foreignId, pid: Number(match[1]), start: Number(match[2]) });
      }
      for (const { id, foreignId, pid, start } of watched) {
        if (await lives(processes, pid, start)) continue;
        // It may be announced for another process by now.
        if (agent.services().get(id)?.instance.origin.foreignId !== foreignId) continue;
        try {
          await agent.deregister(FROM, id, {
            code: "died",
            text: `process ${pid}, for which it was announced, ended`,
            confirmed: true,
            atMs: clock.now(),
          });
        } catch (error) {
          if (codeOf(error) !== "not-found" && !signal.aborted)
            log.warn(`"${id}" of a process that ended could not be taken out`, { error: messageOf(error) });
        }
      }
      await clock.sleep(LOOK_MS, signal).catch(() => {});
    }
  }

  private async announce(announcement: Announcement): Promise<string> {
    const { agent, processes } = this.machine;
    const { pid, start } = announcement;
    if (pid !== 0 && !(await lives(processes, pid, start)))
      throw new InputError(
        "pid",
        `process ${pid} is not there as the agent sees it: it has ended, or lives in another PID namespace than the agent`,
      );
    const registration = registrationOf(announcement, this.machine.parse);
    await agent.register(FROM, registration, { replaceChecks: true });
    if (announcement.ttlMs > 0)
      await agent.report(ttlCheckId(registration.id), { status: "passing", output: "announced" });
    this.machine.changed();
    return registration.id;
  }

  private async withdraw(id: string): Promise<void> {
    const { agent, clock } = this.machine;
    if (agent.services().get(id)?.instance.origin.source !== FROM)
      throw new TrilithError("not-found", `nothing is announced under the ID "${id}"`);
    await agent.deregister(FROM, id, {
      code: "deregistered",
      text: "was taken back",
      confirmed: true,
      atMs: clock.now(),
    });
    this.machine.changed();
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const reply = (status: number, json: object, headers: Record<string, string> = {}): void => {
      response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store", ...headers });
      response.end(`${JSON.stringify(json)}\n`);
    };
    try {
      if (!isFromHere(request))
        throw new TrilithError("not-allowed", "only programs on this host can announce themselves");
      // Web pages of others tell where they come from.
      if (request.headers.origin !== undefined)
        throw new TrilithError("not-allowed", `a web page of ${request.headers.origin} may not announce anything here`);
      if (request.method === "POST")
        return reply(200, { id: await this.announce(readAnnouncement(await jsonOf(request, this.machine.clock))) });
      if (request.method !== "DELETE")
        return reply(405, problem("invalid", `${request.method} is not for this path: use POST or DELETE`), {
          allow: "POST, DELETE",
        });
      const { id } = need(await jsonOf(request, this.machine.clock), "body", isObject, "an object");
      await this.withdraw(need(id, "id", isName, "an ID"));
      reply(200, {});
    } catch (error) {
      const status = STATUS[codeOf(error)] ?? 500;
      reply(status, problem(codeOf(error), messageOf(error)));
    } finally {
      // What was not read must not stand before the connection's next request.
      request.resume();
    }
  }
}

const problem = (code: Code, message: string): object => ({ error: { code, message } });

const STATUS: Readonly<Partial<Record<Code, number>>> = {
  invalid: 400,
  "not-allowed": 403,
  "not-found": 404,
  conflict: 409,
  "too-large": 413,
  stopped: 503,
};

async function jsonOf(request: IncomingMessage, clock: Clock): Promise<unknown> {
  const body = await bodyOf(request, clock, BODY_MAX_BYTES);
  try {
    return JSON.parse(body.toString("utf8"));
  } catch (error) {
    throw new InputError("body", `is not JSON: ${messageOf(error)}`);
  }
}
