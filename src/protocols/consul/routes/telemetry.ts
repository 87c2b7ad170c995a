// /v1/agent/metrics and /v1/agent/monitor: what the agent counts and what it logs, as they happen.
import { PassThrough } from "node:stream";
import type { LogFields, LogLevel } from "../../../base/log.ts";
import type { Sample } from "../../../base/metrics.ts";
import { NODE_ALIVE_CHECK } from "../../../model/check.ts";
import { keyOf } from "../../../model/record.ts";
import type { Call, Reply, Row } from "../call.ts";
import { Refusal } from "../errors.ts";
import { LOG_LEVELS } from "../log-levels.ts";
import { PROMETHEUS_TYPE, prometheusText } from "../prometheus.ts";

/** What dashboards made for Consul ask for, by Consul's names: [dotted name, Prometheus' name, help, value]. */
function ofConsul({ ground }: Call): readonly (readonly [string, string, string, number])[] {
  const view = ground.directory.view();
  let servers = 0;
  let alive = 0;
  for (const { name, external } of view.list("node")) {
    if (external === true) continue;
    servers++;
    if (view.get("check", keyOf.check(name, NODE_ALIVE_CHECK))?.status !== "critical") alive++;
  }
  let names = 0;
  for (const _ of view.serviceNames()) names++;
  return [
    [
      "consul.autopilot.healthy",
      "consul_autopilot_healthy",
      "1 while the directory is at hand and every agent is alive",
      view.fresh && alive === servers ? 1 : 0,
    ],
    [
      "consul.autopilot.failure_tolerance",
      "consul_autopilot_failure_tolerance",
      "How many agents may go until none is left",
      Math.max(0, alive - 1),
    ],
    ["consul.members.servers", "consul_members_servers", "Agents that are alive", alive],
    ["consul.server.isLeader", "consul_server_is_leader", "1 while the directory is at hand", view.fresh ? 1 : 0],
    ["consul.state.nodes", "consul_state_nodes", "Nodes in the directory", view.count("node")],
    ["consul.state.services", "consul_state_services", "Names of services in the directory", names],
    [
      "consul.state.service_instances",
      "consul_state_service_instances",
      "Instances of services in the directory",
      view.count("service"),
    ],
    ["consul.state.kv_entries", "consul_state_kv_entries", "Keys in the directory", view.count("kv")],
    ["consul.session_ttl.active", "consul_session_ttl_active", "Sessions in the directory", view.count("session")],
  ];
}

function metrics(call: Call): Reply {
  const samples = call.ground.metrics.read();
  const gauges = ofConsul(call);
  const datacenter = call.ground.self.datacenter;
  if (wantsPrometheus(call)) {
    if (!call.config.prometheus)
      return { headers: { "X-Consul-Reason": "Prometheus is not enabled since its retention time is not positive" } };
    const own = gauges.map(
      ([, name, help, value]): Sample => ({ name, help, kind: "gauge", labels: { datacenter }, value }),
    );
    return { text: prometheusText([...samples, ...own]), type: PROMETHEUS_TYPE };
  }
  return { json: shown(call) };
}

/** By `?format=prometheus`, or by what a scraper accepts. */
function wantsPrometheus({ query, request }: Call): boolean {
  if (query.get("format") === "prometheus") return true;
  return String(request.headers.accept ?? "")
    .split(",")
    .map((type) => type.split(";").map((part) => part.trim()))
    .some(
      ([type = "", parameter]) =>
        type.toLowerCase() === "application/openmetrics-text" ||
        // The number is Consul's own slip; Prometheus itself says 0.0.4.
        (type.toLowerCase() === "text/plain" && parameter === "version=0.4.0"),
    );
}

/** As go-metrics shows an interval. */
function shown(call: Call): unknown {
  const samples = call.ground.metrics.read();
  const gauges = ofConsul(call);
  const { clock, self } = call.ground;
  const { datacenter } = self;
  const seconds = Math.max(1, (clock.now() - self.startedAtMs) / 1000);
  const byName = (a: { readonly Name: string }, b: { readonly Name: string }): number => (a.Name < b.Name ? -1 : 1);
  return {
    Timestamp: `${new Date(clock.now()).toISOString().slice(0, 19).replace("T", " ")} +0000 UTC`,
    Gauges: [
      ...gauges.map(([name, , , value]) => ({ Name: name, Value: value, Labels: { datacenter } })),
      ...samples
        .filter(({ kind }) => kind === "gauge")
        .map(({ name, value, labels }) => ({ Name: `trilith.${name}`, Value: value, Labels: labels })),
    ].sort(byName),
    Points: [],
    // Counted since the start, where Consul tells its last ten seconds.
    Counters: samples
      .filter(({ kind }) => kind === "counter")
      .map(({ name, value, labels }) => ({
        Name: `trilith.${name}`,
        Count: value,
        Rate: value / seconds,
        Sum: value,
        Min: Math.min(1, value),
        Max: Math.min(1, value),
        Mean: Math.min(1, value),
        Stddev: 0,
        Labels: labels,
      }))
      .sort(byName),
    Samples: [],
  };
}

/** How often a stream of metrics tells them, as go-metrics ends its intervals. */
const STREAM_EVERY_MS = 10_000;

/** The metrics again and again, until the reader goes or is so slow that it has not taken the last ones. */
function metricsStream(call: Call): Reply {
  const { clock } = call.ground;
  const stream = new PassThrough();
  let timer = clock.after(STREAM_EVERY_MS, tell);
  function tell(): void {
    // Who does not keep up gets fewer of them.
    if (stream.readableLength + stream.writableLength < BEHIND_MAX_BYTES)
      stream.write(`${JSON.stringify(shown(call), null, 4)}\n`);
    timer = clock.after(STREAM_EVERY_MS, tell);
  }
  stream.once("close", () => timer.cancel());
  return { stream };
}

const RANK: Readonly<Record<LogLevel, number>> = { trace: 0, debug: 1, info: 2, warn: 3, error: 4 };
/** A reader may be behind by so much; what comes then is dropped and counted. */
const BEHIND_MAX_BYTES = 1 << 20;

function monitor(call: Call): Reply {
  const asked = call.query.get("loglevel");
  const level = asked === "" ? "info" : LOG_LEVELS.get(asked.toLowerCase());
  if (level === undefined) throw new Refusal(400, `Unknown log level: ${asked}`);
  const { log, clock } = call.ground;
  const json = call.query.has("logjson");
  const stream = new PassThrough();
  let dropped = 0;
  const line = (at: LogLevel, part: string, text: string, fields: LogFields): void => {
    const time = new Date(clock.now()).toISOString();
    stream.write(json ? jsonLine(time, at, part, text, fields) : textLine(time, at, part, text, fields));
  };
  const following = log.follow?.((at, part, text, fields) => {
    if (RANK[at] < RANK[level]) return;
    if (stream.readableLength + stream.writableLength > BEHIND_MAX_BYTES) dropped++;
    else {
      if (dropped > 0) line("warn", "monitor", `${dropped} lines were dropped: the reader is too slow`, {});
      dropped = 0;
      line(at, part, text, fields);
    }
  });
  if (following === undefined) throw new Refusal(501, "this agent's log cannot be followed");
  stream.once("close", () => following.close());
  return { stream };
}

const moduleOf = (part: string): string => (part === "" || part === "agent" ? "agent" : `agent.${part}`);

/** As Consul's log lines look. */
function textLine(time: string, level: LogLevel, part: string, text: string, fields: LogFields): string {
  const label = `[${level.toUpperCase()}]`.padEnd(7);
  const extra = Object.entries(fields).map(([key, value]) => {
    const shown = typeof value === "string" ? value : JSON.stringify(value);
    return ` ${key}=${/[\s"=]/.test(String(shown)) ? JSON.stringify(shown) : shown}`;
  });
  return `${time} ${label} ${moduleOf(part)}: ${text}${extra.length === 0 ? "" : `:${extra.join("")}`}\n`.replace(
    /[\r\n]+(?!$)/g,
    " ",
  );
}

function jsonLine(time: string, level: LogLevel, part: string, text: string, fields: LogFields): string {
  const head = { "@level": level, "@message": text, "@module": moduleOf(part), "@timestamp": time };
  return `${JSON.stringify({ ...fields, ...head })}\n`;
}

const GET = ["GET"] as const;
export const telemetryRows: readonly Row[] = [
  { pattern: "/v1/agent/metrics", methods: GET, endpoint: metrics },
  { pattern: "/v1/agent/metrics/stream", methods: GET, endpoint: metricsStream },
  { pattern: "/v1/agent/monitor", methods: GET, endpoint: monitor },
];
