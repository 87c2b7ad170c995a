// Consul's service and check definitions (API bodies and configuration files), typed, with Consul's words replaced by the model's; shared by protocols/consul and protocols/file.
//
// decodeService(raw, { spelling, at }) → ServiceDefinition (+ `unknown`: fields nobody knows; the API refuses them with unknownFieldText(), files tell the nearest)
// → serviceFault(), checkFault() (`faults.ts`) → registrationOf(), checkSpecOf() (`registration.ts`).

import { isObject } from "../../base/is-object.ts";
import { formatGoDuration } from "../duration.ts";
import {
  DURATIONS,
  type Field,
  NESTED_CHECK_FIELDS,
  OWN_CHECK_FIELDS,
  SERVICE_FIELDS,
  TAGGED_FIELDS,
  WEIGHT_FIELDS,
} from "./fields.ts";
import { type DecodeOptions, describe, type Fields, type Path, Reader, type UnknownField } from "./reader.ts";

export type Labels = Readonly<Record<string, string>>;
export interface Weights {
  readonly passing: number;
  readonly warning: number;
}
export interface TaggedAddress {
  readonly address: string;
  readonly port: number;
}

/** What decides how a check is asked; "" = nothing that can be asked or pushed was given. */
export type CheckKind =
  | "http"
  | "tcp"
  | "udp"
  | "grpc"
  | "h2ping"
  | "script"
  | "docker"
  | "alias"
  | "os-service"
  | "ttl"
  | "";

/** A check as it was written, typed and with Consul's words replaced by the model's. Absent durations are 0. */
export interface CheckDefinition {
  /** "" = to be named by the agent. */
  readonly id: string;
  readonly name: string;
  readonly notes: string;
  /** Checks that stand alone: the service they are about; "" = the node. */
  readonly serviceId: string;
  /** As written; see `checkFault` for whether it is one of Consul's. */
  readonly status: string;
  readonly kind: CheckKind;
  /** Raw detail for the kind's probe; see `detailOf` for the shapes. */
  readonly detail: Readonly<Record<string, unknown>>;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly ttlMs: number;
  readonly successBeforePassing: number;
  readonly failuresBeforeWarning: number;
  readonly failuresBeforeCritical: number;
  readonly deregisterAfterMs: number;
  readonly outputMaxBytes: number;
  readonly token: string;
  /** What was given, by Consul's CamelCase names; durations as Go writes them. */
  readonly given: Readonly<Record<string, unknown>>;
  readonly path: Path;
  readonly unknown: readonly UnknownField[];
}

/** A service as it was written. */
export interface ServiceDefinition {
  /** "" = the name. */
  readonly id: string;
  readonly name: string;
  readonly tags: readonly string[];
  readonly labels: Labels;
  readonly address: string;
  readonly port: number;
  readonly taggedAddresses: Readonly<Record<string, TaggedAddress>> | undefined;
  readonly weights: Weights | undefined;
  readonly socketPath: string;
  readonly enableTagOverride: boolean;
  /** `check` first, then `checks`. */
  readonly checks: readonly CheckDefinition[];
  readonly token: string;
  /** Kind, Proxy, Connect, Locality, Ports: given back unchanged, by Consul's names. */
  readonly foreign: Readonly<Record<string, unknown>>;
  readonly path: Path;
  /** Unknown fields here and in the checks. */
  readonly unknown: readonly UnknownField[];
}

/** The order in which Consul's agent looks for what to run. */
function kindOf(f: Fields): CheckKind {
  if (f.number("TTL") > 0) return "ttl";
  if (f.string("HTTP") !== "") return "http";
  if (f.string("TCP") !== "") return "tcp";
  if (f.string("UDP") !== "") return "udp";
  if (f.string("GRPC") !== "") return "grpc";
  if (f.strings("ScriptArgs").length > 0) return f.string("DockerContainerID") === "" ? "script" : "docker";
  if (f.string("H2PING") !== "") return "h2ping";
  if (f.string("OSService") !== "") return "os-service";
  if (f.string("AliasNode") !== "" || f.string("AliasService") !== "") return "alias";
  return "";
}

/**
 * Raw detail by kind: http {url, method, headers, body, disableRedirects, tlsServerName, tlsSkipVerify}; tcp {address, useTls, tlsServerName,
 * tlsSkipVerify}; udp {address}; grpc {address, useTls, tlsServerName, tlsSkipVerify} (address may end in "/service"); h2ping as tcp; script {args};
 * docker {container, args, shell}; os-service {name}; alias {node, service}; ttl {}.
 */
function detailOf(kind: CheckKind, f: Fields): Readonly<Record<string, unknown>> {
  const tls = { tlsServerName: f.string("TLSServerName"), tlsSkipVerify: f.bool("TLSSkipVerify") };
  switch (kind) {
    case "http":
      return {
        url: f.string("HTTP"),
        method: f.string("Method"),
        headers: f.get("Header")?.value ?? {},
        body: f.string("Body"),
        disableRedirects: f.bool("DisableRedirects"),
        ...tls,
      };
    case "tcp":
      return { address: f.string("TCP"), useTls: f.bool("TCPUseTLS"), ...tls };
    case "udp":
      return { address: f.string("UDP") };
    case "grpc":
      return { address: f.string("GRPC"), useTls: f.bool("GRPCUseTLS"), ...tls };
    case "h2ping":
      return { address: f.string("H2PING"), useTls: f.bool("H2PingUseTLS", true), ...tls };
    case "script":
      return { args: f.strings("ScriptArgs") };
    case "docker":
      return { container: f.string("DockerContainerID"), args: f.strings("ScriptArgs"), shell: f.string("Shell") };
    case "os-service":
      return { name: f.string("OSService") };
    case "alias":
      return { node: f.string("AliasNode"), service: f.string("AliasService") };
    default:
      return {};
  }
}

/** Undefined for an empty object where `mayBeEmpty`. */
function readCheck(
  reader: Reader,
  raw: unknown,
  path: Path,
  fields: readonly Field[],
  mayBeEmpty = false,
): CheckDefinition | undefined {
  const before = reader.unknown.length;
  const object = reader.object(raw, path);
  if (mayBeEmpty && Object.keys(object.value).length === 0) return undefined;
  const f = reader.fields(object.value, object.path, fields);
  const kind = kindOf(f);
  const given: Record<string, unknown> = Object.create(null);
  for (const name of f.names()) {
    const value = f.get(name)?.value;
    given[name] = DURATIONS.has(name) ? formatGoDuration(value as number) : value;
  }
  return {
    id: f.string(fields === OWN_CHECK_FIELDS ? "ID" : "CheckID"),
    name: f.string("Name"),
    notes: f.string("Notes"),
    serviceId: f.string("ServiceID"),
    status: f.string("Status"),
    kind,
    detail: detailOf(kind, f),
    intervalMs: f.number("Interval"),
    timeoutMs: f.number("Timeout"),
    ttlMs: f.number("TTL"),
    successBeforePassing: f.number("SuccessBeforePassing"),
    failuresBeforeWarning: f.number("FailuresBeforeWarning"),
    failuresBeforeCritical: f.number("FailuresBeforeCritical"),
    deregisterAfterMs: f.number("DeregisterCriticalServiceAfter"),
    outputMaxBytes: f.number("OutputMaxSize"),
    token: f.string("Token"),
    given,
    path: object.path,
    unknown: reader.unknown.slice(before),
  };
}

/**
 * Reads a check that stands alone (API check/register, `check {}` and `checks []` of files).
 * @throws InputError for a field of the wrong type, with its place
 */
export function decodeCheck(raw: unknown, options: DecodeOptions): CheckDefinition {
  const reader = new Reader(options);
  const path = options.path ?? [];
  if (!isObject(raw) && !(options.spelling === "file" && Array.isArray(raw)))
    return reader.fail(path, `a check must be an object, not ${describe(raw)}`);
  // Undefined only where it may be empty.
  return readCheck(reader, raw, path, OWN_CHECK_FIELDS)!;
}

/**
 * Reads a service definition.
 * @throws InputError for a field of the wrong type, with its place
 */
export function decodeService(raw: unknown, options: DecodeOptions): ServiceDefinition {
  const reader = new Reader(options);
  const root = options.path ?? [];
  if (!isObject(raw) && !(options.spelling === "file" && Array.isArray(raw)))
    return reader.fail(root, `a service must be an object, not ${describe(raw)}`);
  const object = reader.object(raw, root);
  const f = reader.fields(object.value, object.path, SERVICE_FIELDS);

  let taggedAddresses: Record<string, TaggedAddress> | undefined;
  const tagged = f.get("TaggedAddresses");
  if (tagged !== undefined) {
    taggedAddresses = Object.create(null) as Record<string, TaggedAddress>;
    const map = reader.object(tagged.value, tagged.path);
    for (const [role, value] of Object.entries(map.value)) {
      const one = reader.object(value, [...map.path, role]);
      const fields = reader.fields(one.value, one.path, TAGGED_FIELDS);
      taggedAddresses[role] = { address: fields.string("Address"), port: fields.number("Port") };
    }
  }

  let weights: Weights | undefined;
  const weighed = f.get("Weights");
  if (weighed !== undefined) {
    const one = reader.object(weighed.value, weighed.path);
    const fields = reader.fields(one.value, one.path, WEIGHT_FIELDS);
    weights = {
      passing: (fields.get("Passing")?.value as number | undefined) ?? (options.spelling === "file" ? 1 : 0),
      warning: (fields.get("Warning")?.value as number | undefined) ?? (options.spelling === "file" ? 1 : 0),
    };
  }

  const checks: CheckDefinition[] = [];
  const add = (value: unknown, path: Path, mayBeEmpty: boolean): void => {
    const check = readCheck(reader, value, path, NESTED_CHECK_FIELDS, mayBeEmpty);
    if (check !== undefined) checks.push(check);
  };
  const single = f.get("Check");
  if (single !== undefined) {
    // Repeated `check` blocks of HCL are several checks.
    if (options.spelling === "file" && Array.isArray(single.value))
      for (const [i, value] of single.value.entries()) add(value, [...single.path, i], true);
    // An empty check is none; an empty one in a list is one that says nothing.
    else add(single.value, single.path, true);
  }
  const several = f.get("Checks");
  if (several !== undefined) {
    if (Array.isArray(several.value))
      for (const [i, value] of several.value.entries())
        add(value, [...several.path, i], value === null || options.spelling === "file");
    else if (options.spelling === "file") add(several.value, several.path, true);
    else reader.fail(several.path, `must be a list of checks, not ${describe(several.value)}`);
  }

  const foreign: Record<string, unknown> = Object.create(null);
  for (const name of ["Kind", "Proxy", "Connect", "Locality"]) {
    const value = f.get(name)?.value;
    if (value !== undefined && value !== "") foreign[name] = value;
  }
  return {
    id: f.string("ID"),
    name: f.string("Name"),
    tags: f.strings("Tags"),
    labels: (f.get("Meta")?.value as Labels | undefined) ?? (Object.create(null) as Labels),
    address: f.string("Address"),
    port: f.number("Port"),
    taggedAddresses,
    weights,
    socketPath: f.string("SocketPath"),
    enableTagOverride: f.bool("EnableTagOverride"),
    checks,
    token: f.string("Token"),
    foreign,
    path: object.path,
    unknown: reader.unknown,
  };
}
