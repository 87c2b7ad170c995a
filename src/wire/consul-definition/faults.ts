// What Consul's validation has against definitions, in its words and order.
import type { CheckDefinition, Labels, ServiceDefinition, Weights } from "./decode.ts";
import { kindFaults, multiError } from "./kind-faults.ts";

const STATUSES: ReadonlySet<string> = new Set(["", "passing", "warning", "critical"]);

/** What Consul's validation has against a check ("Interval must be > 0 …"), in its words; undefined = nothing. The status is not looked at. */
export function checkFault(check: CheckDefinition): string | undefined {
  const given = (name: string): boolean => {
    const value = check.given[name];
    return Array.isArray(value) ? value.length > 0 : value !== undefined && value !== "";
  };
  const alias = given("AliasNode") || given("AliasService");
  const asked = ["ScriptArgs", "HTTP", "TCP", "UDP", "GRPC", "H2PING", "OSService"].some(given);
  if (check.intervalMs > 0 && check.ttlMs > 0) return "Interval and TTL cannot both be specified";
  if (asked && check.intervalMs <= 0)
    return "Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks";
  if (asked && alias) return "Interval cannot be set for Alias checks";
  if (alias && check.ttlMs > 0) return "TTL must be not be set for Alias checks";
  if (!asked && !alias && check.ttlMs <= 0) return "TTL must be > 0 for TTL checks";
  if (check.outputMaxBytes < 0) return "MaxOutputMaxSize must be positive";
  if (check.failuresBeforeWarning > check.failuresBeforeCritical)
    return "FailuresBeforeWarning can't be higher than FailuresBeforeCritical";
  return undefined;
}

/** True where a check's status is one that a check may start with ("" = not given). */
export function statusKnown(check: CheckDefinition): boolean {
  return STATUSES.has(check.status);
}
/** Consul's words for a service's check whose status is not known. */
export const STATUS_FAULT = "Status for checks must 'passing', 'warning', 'critical'";

/** What Consul has against metadata (labels): "Couldn't load metadata pair ('a b', 'v'): Key contains invalid characters"; undefined = nothing. `reserved` = Consul's own keys, too. */
export function metaFault(labels: Labels, reserved = false): string | undefined {
  const pairs = Object.entries(labels);
  if (pairs.length > 64) return "Node metadata cannot contain more than 64 key/value pairs";
  for (const [key, value] of pairs) {
    const fault = metaPairFault(key, value, reserved);
    if (fault !== undefined) return `Couldn't load metadata pair ('${key}', '${value}'): ${fault}`;
  }
  return undefined;
}

function metaPairFault(key: string, value: string, reserved: boolean): string | undefined {
  if (key === "") return "Key cannot be blank";
  if (!/^[a-zA-Z0-9_-]+$/.test(key)) return "Key contains invalid characters";
  if (key.length > 128) return "Key is too long (limit: 128 characters)";
  if (!reserved && key.startsWith("consul-")) return "Key prefix 'consul-' is reserved for internal use";
  if (new TextEncoder().encode(value).length > 512) return "Value is too long (limit: 512 characters)";
  return undefined;
}

function weightsFault(weights: Weights): string | undefined {
  if (weights.passing < 1) return "Passing must be greater than 0";
  if (weights.warning < 0) return "Warning must be greater or equal than 0";
  if (weights.passing > 65_535 || weights.warning > 65_535) return "DNS Weight must be between 0 and 65535";
  return undefined;
}

/** True where every character may be shown (Go's unicode.IsPrint): letters, marks, numbers, punctuation, symbols and the blank. */
export function isPrintable(text: string): boolean {
  return /^[\x20-\x7e]*$/.test(text) || /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]*$/u.test(text);
}

/**
 * What there is against a service name, a service ID or a check ID; undefined = nothing. Paths that hold characters that cannot be shown are
 * refused (as by Consul), so what bears such a name could not be asked for or taken out again over HTTP.
 */
export function nameFault(what: string, text: string): string | undefined {
  if (isPrintable(text)) return undefined;
  return `Invalid ${what} ${JSON.stringify(text)}: it may not hold control characters or others that cannot be shown`;
}

/** What Consul's validation has against a service (checks included), in the words and the order of its API; undefined = nothing. */
export function serviceFault(service: ServiceDefinition): string | undefined {
  if (service.name === "") return "Missing service name";
  const named =
    nameFault("service name", service.name) ??
    nameFault("service ID", service.id) ??
    service.checks.map((check) => nameFault("check ID", check.id)).find((fault) => fault !== undefined);
  if (named !== undefined) return named;
  if (service.address === "0.0.0.0" || service.address === "::" || service.address === "[::]")
    return "Invalid service address";
  const weights = service.weights === undefined ? undefined : weightsFault(service.weights);
  if (weights !== undefined) return `Invalid Weights: ${weights}`;
  const meta = metaFault(service.labels);
  if (meta !== undefined) return `Invalid Service Meta: ${meta}`;
  const { port, socketPath, foreign } = service;
  const kind = foreign["Kind"];
  const ofKind = multiError(
    kindFaults({
      kind: typeof kind === "string" ? kind : "",
      port,
      socketPath,
      proxy: foreign["Proxy"],
      connect: foreign["Connect"],
      locality: foreign["Locality"],
    }),
  );
  if (ofKind !== undefined) return `Validation failed: ${ofKind}`;
  for (const check of service.checks) {
    const fault = checkFault(check);
    if (fault !== undefined) return `Invalid check: ${fault}`;
  }
  if (!service.checks.every(statusKnown)) return STATUS_FAULT;
  return undefined;
}
