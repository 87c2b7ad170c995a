// consul://: services of a Consul agent (or of a Trilith one), with Registrator's registration bodies.
import { TrilithError } from "../../../base/error.ts";
import type { CheckSpec } from "../../../model/check.ts";
import { formatGoDuration } from "../../../wire/duration.ts";
import type { Backend, BackendGround, Entry } from "./backend.ts";
import { consulApi, segment } from "./consul-api.ts";
import { unexpected } from "./http.ts";
import type { RegistryUri } from "./uri.ts";

type Json = Readonly<Record<string, unknown>>;

/** A check as Consul's agent takes it. */
function checkBody(check: CheckSpec): Json {
  const detail = (check.detail ?? {}) as Json;
  return {
    ...(check.kind === "docker" ? { DockerContainerID: detail["container"] } : {}),
    ...(check.kind === "script" || check.kind === "docker" ? { ScriptArgs: detail["args"] } : {}),
    ...(check.kind === "ttl" ? {} : { Interval: formatGoDuration(check.intervalMs) }),
    ...(check.timeoutMs > 0 ? { Timeout: formatGoDuration(check.timeoutMs) } : {}),
    ...(check.ttlMs === undefined ? {} : { TTL: formatGoDuration(check.ttlMs) }),
    ...(check.kind === "http" ? { HTTP: detail["url"] } : {}),
    ...(detail["method"] === undefined ? {} : { Method: detail["method"] }),
    ...(check.kind === "tcp" ? { TCP: detail["address"] } : {}),
    ...(check.initial === undefined ? {} : { Status: check.initial }),
    ...(detail["tlsSkipVerify"] === true ? { TLSSkipVerify: true } : {}),
    ...(check.kind === "grpc" ? { GRPC: detail["address"] } : {}),
    ...(check.kind === "grpc" && detail["useTls"] === true ? { GRPCUseTLS: true } : {}),
    ...(check.deregisterAfterMs === undefined
      ? {}
      : { DeregisterCriticalServiceAfter: formatGoDuration(check.deregisterAfterMs) }),
  };
}

/** The body of `PUT /v1/agent/service/register`, its keys in the order in which Registrator's client writes them. */
export function registrationBody(entry: Entry): Json {
  const [check] = entry.checks;
  return {
    ID: entry.id,
    Name: entry.name,
    ...(entry.tags.length > 0 ? { Tags: entry.tags } : {}),
    Port: entry.port,
    ...(entry.ip === "" ? {} : { Address: entry.ip }),
    ...(Object.keys(entry.labels).length > 0 ? { Meta: entry.labels } : {}),
    Check: check === undefined ? null : checkBody(check),
    Checks: null,
  };
}

function standing(name: unknown, port: unknown, address: unknown, tags: unknown, meta: unknown): string {
  const labels = Object.entries((meta as Json | null) ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([name, port, address ?? "", tags ?? [], labels]);
}

/** The backend for consul://, consul-unix:// and consul-tls://. */
export function consulBackend(uri: RegistryUri, ground: BackendGround): Backend {
  const api = consulApi(uri, ground);
  const services = async (signal: AbortSignal): Promise<readonly [id: string, service: Json][]> => {
    const answer = await api.request("GET", "/v1/agent/services", signal);
    if (answer.status !== 200) throw unexpected("", answer);
    const value: unknown = JSON.parse(answer.text);
    if (typeof value !== "object" || value === null)
      throw new TrilithError("unavailable", "GET /v1/agent/services: the answer is not an object");
    return Object.entries(value as Record<string, Json>);
  };
  return {
    scheme: uri.scheme,
    place: ({ id }) => id,
    content: ({ name, port, ip, tags, labels }) => standing(name, port, ip, tags, labels),
    ping: (signal) => api.ping(uri.scheme, signal),
    async read(places, signal) {
      const wanted = new Set(places);
      const found = new Map<string, string>();
      for (const [id, service] of await services(signal))
        if (wanted.has(id))
          found.set(
            id,
            standing(service["Service"], service["Port"], service["Address"], service["Tags"], service["Meta"]),
          );
      return found;
    },
    async list(signal) {
      return (await services(signal)).map(([id, service]) => ({ place: id, id, name: String(service["Service"]) }));
    },
    async write(entry, signal) {
      const body = `${JSON.stringify(registrationBody(entry))}\n`;
      const answer = await api.request("PUT", "/v1/agent/service/register", signal, body);
      if (answer.status !== 200) throw unexpected("", answer);
    },
    // Consul's own TTLs are checks, which the service itself keeps alive.
    async refresh() {},
    async remove(place, signal) {
      const answer = await api.request("PUT", `/v1/agent/service/deregister/${segment(place)}`, signal);
      if (answer.status !== 200 && answer.status !== 404) throw unexpected("", answer);
    },
    close() {},
  };
}
