// What definitions of checks need from this agent: the probes' parsers, and whether scripts may run.
import { TrilithError } from "../../base/error.ts";
import type { CheckDefinition, CheckKind } from "../../wire/consul-definition/decode.ts";
import type { Call, ConsulGround } from "./call.ts";
import { Refusal } from "./errors.ts";

/**
 * Hands a check's detail to the probe of its kind. The result throws TrilithError `invalid` for kinds this agent cannot ask, and for details that
 * make no sense; of http checks Consul takes any, so that with `compat: consul` they are registered and critical.
 */
export function detailParser(
  ground: Pick<ConsulGround, "probes" | "self">,
): (kind: CheckKind, detail: Readonly<Record<string, unknown>>) => unknown {
  return (kind, detail) => {
    const probe = ground.probes.get(kind);
    if (probe === undefined)
      throw new TrilithError(
        "invalid",
        `Invalid check: this agent has no ${kind} checks; it has ${[...ground.probes.keys(), "ttl"].sort().join(", ")}`,
      );
    const fault = kind === "http" && ground.self.compat === "consul" ? requestFault(detail) : undefined;
    return probe.parse(fault === undefined ? detail : { ...detail, fault });
  };
}

/** What Go's HTTP client says of a request that it cannot make; undefined for others. A path alone is asked of the service itself. */
export function requestFault(detail: Readonly<Record<string, unknown>>): string | undefined {
  const url = String(detail["url"] ?? "");
  const method = String(detail["method"] ?? "") || "GET";
  const quoted = JSON.stringify(url);
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(method)) return `net/http: invalid method ${JSON.stringify(method)}`;
  if (url.startsWith("/")) return undefined;
  if (url.startsWith(":")) return `parse ${quoted}: missing protocol scheme`;
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(url)?.[1];
  if (scheme === undefined && /^[^/?#]*:/.test(url))
    return `parse ${quoted}: first path segment in URL cannot contain colon`;
  const verb = method.charAt(0).toUpperCase() + method.slice(1).toLowerCase();
  if (!/^https?$/i.test(scheme ?? ""))
    return `${verb} ${quoted}: unsupported protocol scheme ${JSON.stringify((scheme ?? "").toLowerCase())}`;
  return URL.canParse(url) ? undefined : `${verb} ${quoted}: http: no Host in request URL`;
}

/** @throws Refusal 500 where a check would run a command and callers may not bring commands */
export function refuseScripts(call: Call, checks: readonly CheckDefinition[]): void {
  if (call.ground.self.scripts.fromApi) return;
  if (checks.some(({ kind }) => kind === "script" || kind === "docker"))
    throw new Refusal(
      500,
      "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true",
    );
}

const DEFAULT_OUTPUT_BYTES = 4096;

/** True where a check keeps more of an output than `maxBytes`. */
export function allowsMore(spec: { readonly outputMaxBytes?: number }, maxBytes: number): boolean {
  return (spec.outputMaxBytes ?? DEFAULT_OUTPUT_BYTES) > maxBytes;
}

/** A check whose output is kept no longer than the agent allows. */
export function limitOutput<T extends { readonly outputMaxBytes?: number }>(spec: T, maxBytes: number): T {
  return allowsMore(spec, maxBytes) ? { ...spec, outputMaxBytes: maxBytes } : spec;
}
