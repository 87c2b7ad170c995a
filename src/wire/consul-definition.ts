// Consul's service and check definitions (API bodies and configuration files) as normalised fields: shared by protocols/consul and protocols/file, pure.
//
// Use: decodeService(raw, {spelling, at}) → ServiceDefinition (+ `unknown`: fields nobody knows; the API refuses them with unknownFieldText(), files
// complain with nearestField()) → serviceFault()/checkFault(): what Consul's own validation says, in its words → registrationOf(definition, parseDetail)
// → fits model Registration, checkSpecOf(check, parseDetail) → fits model CheckSpec (wire may not import model, so the types are structural).
// `parseDetail(kind, detail)` is `ground.probes.get(kind)!.parse(detail)`; it is not called for "ttl" and "alias".
import { InputError } from "../base/error.ts";
import { nearestName, plainName } from "../base/nearest-name.ts";
import { formatGoDuration, parseDurationValue } from "./duration.ts";
import { kindFaults, multiError } from "./service-kind.ts";

/** Keys from the definition's root to a field, as written in the input; numbers are places in lists. */
export type Path = readonly (string | number)[];

export interface DecodeOptions {
  /**
   * `api`: names as Go's JSON decoder takes them (any case, a few snake_case aliases). `file`: snake_case, with or without underscores, any case,
   * and a list of one object where an object belongs, as HCL blocks give it.
   */
  readonly spelling: "api" | "file";
  /** Where a field stands, for the messages of errors: "web.hcl:3: service.port". Default: the path joined by dots. */
  readonly at?: (path: Path) => string;
  /** The path of `raw` itself. */
  readonly path?: Path;
}

type Labels = Readonly<Record<string, string>>;
interface Weights {
  readonly passing: number;
  readonly warning: number;
}
interface TaggedAddress {
  readonly address: string;
  readonly port: number;
}

/** A field that no definition of its kind has. */
export interface UnknownField {
  readonly key: string;
  readonly path: Path;
  /** The spelling of the known field that comes nearest; undefined where none is near. */
  readonly nearest: string | undefined;
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

type FieldType =
  | "string"
  | "int"
  | "bool"
  | "strings"
  | "duration"
  | "map" // text → text
  | "headers" // text → texts
  | "object"
  | "objects"
  | "any";

interface Field {
  /** Consul's CamelCase name. */
  readonly name: string;
  /** In files. */
  readonly snake: string;
  readonly type: FieldType;
  /** Other names the API takes. */
  readonly api?: readonly string[];
  /** Other names files take (without underscores, lower case). */
  readonly file?: readonly string[];
}

const field = (
  name: string,
  snake: string,
  type: FieldType,
  api: readonly string[] = [],
  file: readonly string[] = [],
): Field => ({ name, snake, type, api, file });

const SERVICE_FIELDS: readonly Field[] = [
  field("ID", "id", "string"),
  field("Name", "name", "string"),
  field("Tags", "tags", "strings"),
  field("Address", "address", "string"),
  field("TaggedAddresses", "tagged_addresses", "object", ["tagged_addresses"]),
  field("Meta", "meta", "map"),
  field("Port", "port", "int"),
  field("Ports", "ports", "any"),
  field("SocketPath", "socket_path", "string", ["socket_path"]),
  field("EnableTagOverride", "enable_tag_override", "bool", ["enable_tag_override"]),
  field("Weights", "weights", "object"),
  field("Check", "check", "object"),
  field("Checks", "checks", "objects"),
  field("Kind", "kind", "string"),
  field("Token", "token", "string"),
  field("Proxy", "proxy", "any"),
  field("Connect", "connect", "any"),
  field("Locality", "locality", "any"),
];

const WEIGHT_FIELDS: readonly Field[] = [field("Passing", "passing", "int"), field("Warning", "warning", "int")];
const TAGGED_FIELDS: readonly Field[] = [field("Address", "address", "string"), field("Port", "port", "int")];

const CHECK_FIELDS: readonly Field[] = [
  field("Name", "name", "string"),
  field("Notes", "notes", "string"),
  field("Status", "status", "string"),
  field("ScriptArgs", "args", "strings", ["Args", "script_args"], ["scriptargs"]),
  field("HTTP", "http", "string"),
  field("H2PING", "h2ping", "string"),
  field("H2PingUseTLS", "h2ping_use_tls", "bool", ["h2ping_use_tls"]),
  field("Header", "header", "headers"),
  field("Method", "method", "string"),
  field("Body", "body", "string"),
  field("DisableRedirects", "disable_redirects", "bool", ["disable_redirects"]),
  field("TCP", "tcp", "string"),
  field("TCPUseTLS", "tcp_use_tls", "bool", ["tcp_use_tls"]),
  field("UDP", "udp", "string"),
  field("Interval", "interval", "duration"),
  field("AliasNode", "alias_node", "string", ["alias_node"]),
  field("AliasService", "alias_service", "string", ["alias_service"]),
  field("DockerContainerID", "docker_container_id", "string", ["docker_container_id"]),
  field("Shell", "shell", "string"),
  field("GRPC", "grpc", "string"),
  field("GRPCUseTLS", "grpc_use_tls", "bool", ["grpc_use_tls"]),
  field("OSService", "os_service", "string", ["os_service"]),
  field("TLSServerName", "tls_server_name", "string", ["tls_server_name"]),
  field("TLSSkipVerify", "tls_skip_verify", "bool", ["tls_skip_verify"]),
  field("Timeout", "timeout", "duration"),
  field("TTL", "ttl", "duration"),
  field("SuccessBeforePassing", "success_before_passing", "int"),
  field("FailuresBeforeWarning", "failures_before_warning", "int"),
  field("FailuresBeforeCritical", "failures_before_critical", "int"),
  field("ProxyHTTP", "proxy_http", "string"),
  field("ProxyGRPC", "proxy_grpc", "string"),
  field("DeregisterCriticalServiceAfter", "deregister_critical_service_after", "duration", [
    "deregister_critical_service_after",
  ]),
  field("OutputMaxSize", "output_max_size", "int"),
];
/** A check within a service: its identity is CheckID there [FACTS 3]. */
const NESTED_CHECK_FIELDS: readonly Field[] = [
  field("CheckID", "id", "string", [], ["checkid"]),
  field("ServiceID", "service_id", "string", ["service_id"]),
  field("Token", "token", "string"),
  ...CHECK_FIELDS,
];
/** A check of its own: its identity is ID there. */
const OWN_CHECK_FIELDS: readonly Field[] = [
  field("ID", "id", "string", [], ["checkid"]),
  field("ServiceID", "service_id", "string", ["service_id"]),
  field("Token", "token", "string"),
  ...CHECK_FIELDS,
];

interface Index {
  readonly api: ReadonlyMap<string, Field>;
  readonly file: ReadonlyMap<string, Field>;
}
const indexes = new Map<readonly Field[], Index>();
function indexOf(fields: readonly Field[]): Index {
  let index = indexes.get(fields);
  if (index === undefined) {
    const api = new Map<string, Field>();
    const file = new Map<string, Field>();
    for (const one of fields) {
      for (const name of [one.name, ...(one.api ?? [])]) api.set(name.toLowerCase(), one);
      for (const name of [plainName(one.snake), plainName(one.name), ...(one.file ?? [])]) file.set(name, one);
    }
    index = { api, file };
    indexes.set(fields, index);
  }
  return index;
}

/** Go's text for a field that the decoder does not know. */
export function unknownFieldText(unknown: UnknownField): string {
  return `json: unknown field ${JSON.stringify(unknown.key)}`;
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "an object";
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

class Reader {
  readonly unknown: UnknownField[] = [];
  readonly options: DecodeOptions;
  constructor(options: DecodeOptions) {
    this.options = options;
  }

  fail(path: Path, message: string): never {
    throw new InputError(this.options.at?.(path) ?? path.join("."), message);
  }

  /** The object at a place; in files also the single object of a list. `null` counts as an empty object. */
  object(value: unknown, path: Path): { readonly value: Readonly<Record<string, unknown>>; readonly path: Path } {
    if (value === null || value === undefined) return { value: {}, path };
    if (isObject(value)) return { value, path };
    if (this.options.spelling === "file" && Array.isArray(value)) {
      if (value.length === 1 && isObject(value[0])) return { value: value[0], path: [...path, 0] };
      if (value.length > 1 && value.every(isObject)) return this.fail(path, "is given more than once");
    }
    return this.fail(path, `must be an object, not ${describe(value)}`);
  }

  /** Reads the known fields of an object; the value of each is checked and given by the field's CamelCase name. */
  fields(value: Readonly<Record<string, unknown>>, path: Path, fields: readonly Field[]): Fields {
    const index = indexOf(fields);
    const found = new Map<string, { readonly value: unknown; readonly path: Path }>();
    for (const key of Object.keys(value)) {
      const here = [...path, key];
      const known = this.options.spelling === "api" ? index.api.get(key.toLowerCase()) : index.file.get(plainName(key));
      if (known === undefined) {
        const names = fields.map((one) => (this.options.spelling === "api" ? one.name : one.snake));
        this.unknown.push({ key, path: here, nearest: nearestName(key, names) });
        continue;
      }
      const raw = value[key];
      if (raw === null || raw === undefined) continue;
      found.set(known.name, { value: this.typed(raw, here, known.type), path: here });
    }
    return new Fields(found);
  }

  private typed(raw: unknown, path: Path, type: FieldType): unknown {
    switch (type) {
      case "string":
        return typeof raw === "string" ? raw : this.fail(path, `must be text, not ${describe(raw)}`);
      case "int":
        return typeof raw === "number" && Number.isSafeInteger(raw)
          ? raw
          : this.fail(path, `must be a whole number, not ${describe(raw)}`);
      case "bool":
        return typeof raw === "boolean" ? raw : this.fail(path, `must be true or false, not ${describe(raw)}`);
      case "duration":
        return parseDurationValue(raw, this.options.at?.(path) ?? path.join("."));
      case "strings":
        return this.strings(raw, path);
      case "map":
      case "headers": {
        const map = this.object(raw, path);
        const result: Record<string, unknown> = Object.create(null);
        for (const [key, item] of Object.entries(map.value))
          result[key] =
            type === "headers" ? this.strings(item, [...map.path, key]) : this.text(item, [...map.path, key]);
        return result;
      }
      case "object":
      case "objects":
      case "any":
        return raw;
    }
  }

  private text(raw: unknown, path: Path): string {
    if (typeof raw === "string") return raw;
    // Files are read leniently here: `version = 3` in HCL means the text "3".
    if (this.options.spelling === "file" && (typeof raw === "number" || typeof raw === "boolean")) return String(raw);
    return this.fail(path, `must be text, not ${describe(raw)}`);
  }

  private strings(raw: unknown, path: Path): readonly string[] {
    if (!Array.isArray(raw)) return this.fail(path, `must be a list of texts, not ${describe(raw)}`);
    return raw.map((item, i) => this.text(item, [...path, i]));
  }
}

class Fields {
  private readonly found: ReadonlyMap<string, { readonly value: unknown; readonly path: Path }>;
  constructor(found: ReadonlyMap<string, { readonly value: unknown; readonly path: Path }>) {
    this.found = found;
  }
  get(name: string): { readonly value: unknown; readonly path: Path } | undefined {
    return this.found.get(name);
  }
  string(name: string): string {
    return (this.found.get(name)?.value as string | undefined) ?? "";
  }
  number(name: string): number {
    return (this.found.get(name)?.value as number | undefined) ?? 0;
  }
  bool(name: string, otherwise = false): boolean {
    return (this.found.get(name)?.value as boolean | undefined) ?? otherwise;
  }
  strings(name: string): readonly string[] {
    return (this.found.get(name)?.value as readonly string[] | undefined) ?? [];
  }
  names(): Iterable<string> {
    return this.found.keys();
  }
}

const DURATIONS: ReadonlySet<string> = new Set(
  CHECK_FIELDS.filter((one) => one.type === "duration").map((one) => one.name),
);

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
  for (const name of ["Kind", "Proxy", "Connect", "Locality", "Ports"]) {
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

/** The fields of the model's CheckSpec that a definition fills in. */
export interface CheckSpecFields {
  readonly id: string;
  readonly name: string;
  readonly notes: string;
  readonly kind: string;
  readonly detail: unknown;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly ttlMs?: number;
  readonly initial?: "passing" | "warning" | "critical";
  readonly thresholds?: {
    readonly successBeforePassing?: number;
    readonly failuresBeforeWarning?: number;
    readonly failuresBeforeCritical?: number;
  };
  readonly deregisterAfterMs?: number;
  readonly outputMaxBytes?: number;
  readonly foreign: Readonly<Record<string, unknown>>;
}

/** The fields of the model's Registration that a definition fills in. */
export interface RegistrationFields {
  readonly id: string;
  readonly name: string;
  readonly tags: readonly string[];
  readonly labels: Labels;
  readonly address: string;
  readonly port: number;
  readonly taggedAddresses?: Readonly<Record<string, TaggedAddress>>;
  readonly weights?: Weights;
  readonly socketPath?: string;
  readonly enableTagOverride?: boolean;
  readonly foreign?: Readonly<Record<string, unknown>>;
  readonly checks: readonly CheckSpecFields[];
}

/** A checked definition as the model's check. `parseDetail` is the probe's own `parse`; it may throw. */
export function checkSpecOf(
  check: CheckDefinition,
  parseDetail: (kind: CheckKind, detail: Readonly<Record<string, unknown>>) => unknown,
): CheckSpecFields {
  const thresholds: Record<string, number> = {};
  if (check.successBeforePassing > 0) thresholds["successBeforePassing"] = check.successBeforePassing;
  if (check.failuresBeforeWarning > 0) thresholds["failuresBeforeWarning"] = check.failuresBeforeWarning;
  if (check.failuresBeforeCritical > 0) thresholds["failuresBeforeCritical"] = check.failuresBeforeCritical;
  const pushed = check.kind === "ttl" || check.kind === "alias" || check.kind === "";
  return {
    id: check.id,
    name: check.name,
    notes: check.notes,
    kind: check.kind === "" ? "none" : check.kind,
    detail: pushed ? check.detail : parseDetail(check.kind, check.detail),
    intervalMs: check.intervalMs,
    timeoutMs: check.timeoutMs,
    ...(check.ttlMs > 0 ? { ttlMs: check.ttlMs } : {}),
    ...(check.status === "" ? {} : { initial: check.status as "passing" }),
    ...(Object.keys(thresholds).length > 0 ? { thresholds } : {}),
    ...(check.deregisterAfterMs > 0 ? { deregisterAfterMs: check.deregisterAfterMs } : {}),
    ...(check.outputMaxBytes > 0 ? { outputMaxBytes: check.outputMaxBytes } : {}),
    foreign: check.given,
  };
}

/** A checked definition as the model's registration; its ID is the name where none was given. */
export function registrationOf(
  service: ServiceDefinition,
  parseDetail: (kind: CheckKind, detail: Readonly<Record<string, unknown>>) => unknown,
): RegistrationFields {
  return {
    id: service.id === "" ? service.name : service.id,
    name: service.name,
    tags: service.tags,
    labels: service.labels,
    address: service.address,
    port: service.port,
    ...(service.taggedAddresses === undefined ? {} : { taggedAddresses: service.taggedAddresses }),
    ...(service.weights === undefined ? {} : { weights: service.weights }),
    ...(service.socketPath === "" ? {} : { socketPath: service.socketPath }),
    ...(service.enableTagOverride ? { enableTagOverride: true } : {}),
    ...(Object.keys(service.foreign).length > 0 ? { foreign: service.foreign } : {}),
    checks: service.checks.map((check) => checkSpecOf(check, parseDetail)),
  };
}
