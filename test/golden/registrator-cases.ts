// The recorded cases of Registrator, read and put into the words of this project: what was recorded, and what a translation came to.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { grpcProbe } from "../../src/agent/checks/grpc.ts";
import { httpProbe } from "../../src/agent/checks/http.ts";
import { scriptProbe } from "../../src/agent/checks/script.ts";
import { tcpProbe } from "../../src/agent/checks/tcp.ts";
import { createHttp } from "../../src/base/http.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemProcesses } from "../../src/base/process.ts";
import type { Probe } from "../../src/contracts/probe.ts";
import type { CheckSpec } from "../../src/model/check.ts";
import type { Registration } from "../../src/model/instance.ts";
import { execProbe } from "../../src/protocols/docker/exec.ts";
import { type Container, readContainer } from "../../src/protocols/docker/inspect.ts";
import { type TranslateOptions, translate } from "../../src/protocols/docker/registrator.ts";
import { parseTemplate } from "../../src/protocols/docker/tags-template.ts";
import { parseGoDuration } from "../../src/wire/duration.ts";

const golden = join(import.meta.dirname, "registrator");
export const read = (path: string): unknown => JSON.parse(readFileSync(join(golden, path), "utf8"));

export interface Recorded {
  readonly kind: string;
  readonly name: string;
  readonly flags: readonly string[];
  readonly hostname_resolves: boolean;
  readonly puts: readonly { readonly body: Body; readonly status: number }[] | null;
  readonly registered: readonly Held[] | null;
  readonly variants_seen?: readonly (readonly Held[])[];
  readonly inspect: Readonly<Record<string, unknown>> | null;
  readonly run: Run | readonly Run[];
}
/** How a container was started. */
export interface Run {
  readonly image: string;
  readonly name: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly cmd: readonly string[];
}
interface Body {
  readonly ID: string;
  readonly Name: string;
  readonly Port: number | string;
  readonly Address?: string;
  readonly Tags?: readonly string[];
  readonly Meta?: Readonly<Record<string, string>>;
  readonly Check: Readonly<Record<string, unknown>> | null;
}
interface Held {
  readonly ID: string;
  readonly Service: string;
  readonly Address: string;
  readonly Port: number | string;
  readonly Tags: readonly string[];
  readonly Meta: Readonly<Record<string, string>>;
}

export const HOST = "reghost";
export const HOST_IP = "192.0.2.10";
export const cases = (read("cases.json") as Recorded[]).filter(({ kind }) => kind === "static");

const probes = new Map<string, Pick<Probe, "parse">>([
  ["http", httpProbe(createHttp())],
  ["tcp", tcpProbe(systemNet)],
  ["script", scriptProbe(systemProcesses)],
  ["grpc", grpcProbe()],
  ["docker", execProbe(createHttp(), [])],
]);

export const defaults: TranslateOptions = {
  ip: "",
  internal: false,
  explicit: false,
  useIpFromLabel: "",
  tags: () => "",
  compat: false,
  hostname: HOST,
  hostIp: HOST_IP,
  scripts: true,
  probes,
  nodeAddress: "192.0.2.99",
};

export function optionsOf(recorded: Recorded, compat: boolean): TranslateOptions {
  const value = (flag: string): string => {
    const at = recorded.flags.indexOf(flag);
    return at < 0 ? "" : (recorded.flags[at + 1] ?? "");
  };
  const template = parseTemplate(value("-tags"));
  return {
    ...defaults,
    compat,
    hostIp: recorded.hostname_resolves ? HOST_IP : "",
    ip: value("-ip"),
    internal: recorded.flags.includes("-internal"),
    explicit: recorded.flags.includes("-explicit"),
    useIpFromLabel: value("-useIpFromLabel"),
    tags: (container) => template(container.raw),
    scripts: recorded.name !== "check-script-consul-scripts-disabled",
  };
}

/** The containers of a case: the full inspect answers where they were kept, else the shortened ones. */
export function containersOf(recorded: Recorded): Container[] {
  return Object.entries(recorded.inspect ?? {}).map(([name, short]) => {
    for (const file of [`inspect/${recorded.name}.json`, `inspect/${recorded.name}.${name}.json`]) {
      let raw: unknown;
      try {
        raw = read(file);
      } catch {
        continue;
      }
      if ((raw as { Name?: string }).Name === `/${name}`) return readContainer(raw);
    }
    return readContainer(short);
  });
}

export function translateAll(recorded: Recorded, compat = false): { registrations: Registration[]; complaints: string[] } {
  const containers = containersOf(recorded);
  const options = optionsOf(recorded, compat);
  const all = containers.map((container) =>
    translate(container, options, (id) => containers.find((other) => other.id === id || other.name === id)),
  );
  return {
    registrations: all.flatMap((one) => one.registrations),
    complaints: all.flatMap((one) => one.complaints.map(({ about, text }) => `${about}: ${text}`)),
  };
}

const MARK = /\{(hostname|hostip|cid12|cip|hostport)(?::([^}]*))?\}/g;

/** Fills a recording's marks in; a text that is nothing but a host port becomes a number. */
export function fill(value: unknown, containers: readonly Container[]): unknown {
  if (Array.isArray(value)) return value.map((item) => fill(item, containers));
  if (typeof value === "object" && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fill(item, containers)]));
  if (typeof value !== "string") return value;
  const [main] = containers.slice(-1);
  const filled = value.replace(MARK, (_, mark: string, of: string | undefined) => {
    const container = mark === "hostport" || of === undefined ? main : containers.find(({ name }) => name === of);
    if (container === undefined) throw new Error(`${value}: no such container`);
    if (mark === "hostname") return HOST;
    if (mark === "hostip") return HOST_IP;
    if (mark === "cid12") return container.id.slice(0, 12);
    if (mark === "hostport") return container.ports.get(of ?? "")?.[0]?.hostPort ?? "?";
    return container.ipAddress || (container.networks[0]?.ipv4 ?? "");
  });
  return value.startsWith("{hostport") ? Number(filled) : filled;
}

const ms = (value: unknown): number | undefined => (value === undefined ? undefined : parseGoDuration(String(value)));

/** A check in the words of the recording. */
function consulCheck(check: CheckSpec): Record<string, unknown> {
  const detail = (check.detail ?? {}) as Record<string, unknown>;
  const method = detail["method"] === "GET" ? undefined : detail["method"];
  return {
    HTTP: check.kind === "http" ? detail["url"] : undefined,
    Method: check.kind === "http" ? method : undefined,
    TCP: check.kind === "tcp" ? detail["address"] : undefined,
    ScriptArgs: check.kind === "script" ? detail["args"] : undefined,
    GRPC: check.kind === "grpc" ? detail["address"] : undefined,
    GRPCUseTLS: check.kind === "grpc" && detail["useTls"] === true ? true : undefined,
    TLSSkipVerify: detail["tlsSkipVerify"] === true ? true : undefined,
    TTL: check.ttlMs,
    Interval: check.kind === "ttl" ? undefined : check.intervalMs,
    Timeout: check.timeoutMs === 0 ? undefined : check.timeoutMs,
    Status: check.initial,
    DeregisterCriticalServiceAfter: check.deregisterAfterMs,
  };
}

function recordedCheck(check: Body["Check"]): Record<string, unknown> | undefined {
  if (check === null) return undefined;
  return {
    HTTP: check["HTTP"],
    Method: check["Method"],
    TCP: check["TCP"],
    ScriptArgs: check["ScriptArgs"],
    GRPC: check["GRPC"],
    GRPCUseTLS: check["GRPCUseTLS"],
    TLSSkipVerify: check["TLSSkipVerify"],
    TTL: ms(check["TTL"]),
    Interval: ms(check["Interval"]),
    Timeout: ms(check["Timeout"]),
    Status: check["Status"],
    DeregisterCriticalServiceAfter: ms(check["DeregisterCriticalServiceAfter"]),
  };
}

const byId = (a: { ID: string }, b: { ID: string }): number => (a.ID < b.ID ? -1 : 1);

/** What was registered, field by field: of the entries with one ID, those that the recording saw win. */
export function wanted(recorded: Recorded, containers: readonly Container[] = containersOf(recorded)): unknown[][] {
  const variants = recorded.variants_seen ?? [recorded.registered ?? []];
  return variants.map((held) =>
    held
      .map((entry) => {
        const put = (recorded.puts ?? []).find(({ body }) => body.ID === entry.ID && body.Name === entry.Service);
        return fill(
          {
            ID: entry.ID,
            Name: entry.Service,
            Port: entry.Port,
            Address: entry.Address,
            Tags: entry.Tags,
            Meta: entry.Meta,
            Check: recordedCheck(put?.body.Check ?? null),
          },
          containers,
        ) as { ID: string };
      })
      .sort(byId),
  );
}

export function got(registrations: readonly Registration[]): unknown[] {
  return registrations
    .map((r) => ({
      ID: r.id,
      Name: r.name,
      Port: r.port,
      Address: r.address,
      Tags: [...r.tags],
      Meta: { ...r.labels },
      Check: r.checks[0] === undefined ? undefined : consulCheck(r.checks[0]),
    }))
    .sort(byId);
}

