// Configuration entries as Consul reads them: which kinds there are, which fields they have, what is refused, and what a reader is shown. Pure.
import { TrilithError } from "../../base/error.ts";
import { multiError } from "../../wire/consul-definition/kind-faults.ts";

/** An entry as it is kept and shown: Consul's names, what was not told left out. */
export type ConfigEntry = Readonly<Record<string, unknown>>;

/** How a field is read; `true` = whatever it is, kept as told. */
type Field = "text" | "whole" | "flag" | "labels" | "texts" | true | Part;
/** An object with fields of its own, or a list of such; `always` is shown of each even where it was not told. */
type Part =
  | { readonly of: Fields; readonly always?: ConfigEntry }
  | { readonly each: Fields; readonly always?: ConfigEntry };
type Fields = Readonly<Record<string, Field>>;

interface Kind {
  readonly fields: Fields;
  /** Shown even where they were not told. */
  readonly always: ConfigEntry;
  /** The only name there is. */
  readonly single?: string;
  /** What the entry's validation has against it, in Consul's words; undefined = nothing. */
  fault?(entry: ConfigEntry): string | undefined;
}

const MESH_GATEWAY: Field = { of: { Mode: "text" } };
const EXPOSE: Field = {
  of: {
    Checks: "flag",
    Paths: {
      each: { ListenerPort: "whole", Path: "text", LocalPathPort: "whole", Protocol: "text", ParsedFromCheck: "flag" },
    },
  },
};
const TRANSPARENT: Field = { of: { OutboundListenerPort: "whole", DialedDirectly: "flag" } };
const ENVOY_EXTENSIONS: Field = {
  each: { Name: "text", Required: "flag", Arguments: true, ConsulVersion: "text", EnvoyVersion: "text" },
};
const UPSTREAM: Fields = {
  ...{ Name: "text", Peer: "text", EnvoyListenerJSON: "text", EnvoyClusterJSON: "text", Protocol: "text" },
  ...{ ConnectTimeoutMs: "whole", MeshGateway: MESH_GATEWAY, BalanceOutboundConnections: "text" },
  Limits: { of: { MaxConnections: "whole", MaxPendingRequests: "whole", MaxConcurrentRequests: "whole" } },
  PassiveHealthCheck: {
    of: {
      ...{ Interval: true, MaxFailures: "whole", EnforcingConsecutive5xx: "whole", MaxEjectionPercent: "whole" },
      BaseEjectionTime: true,
    },
  },
};
const OF_UPSTREAM: ConfigEntry = { Peer: "", MeshGateway: {} };
const UPSTREAM_CONFIG: Field = {
  of: { Overrides: { each: UPSTREAM, always: OF_UPSTREAM }, Defaults: { of: UPSTREAM, always: OF_UPSTREAM } },
};
const NOTHING: ConfigEntry = {};
const own = (entry: ConfigEntry, name: string): ConfigEntry => (entry[name] ?? NOTHING) as ConfigEntry;

const KINDS: Readonly<Record<string, Kind>> = {
  "service-defaults": {
    fields: {
      ...{ Protocol: "text", Mode: "text", TransparentProxy: TRANSPARENT, MutualTLSMode: "text" },
      ...{ MeshGateway: MESH_GATEWAY, Expose: EXPOSE, ExternalSNI: "text", MaxInboundConnections: "whole" },
      ...{ LocalConnectTimeoutMs: "whole", LocalRequestTimeoutMs: "whole", BalanceInboundConnections: "text" },
      ...{ UpstreamConfig: UPSTREAM_CONFIG, RateLimits: true },
      ...{ Destination: { of: { Addresses: "texts", Port: "whole" } }, EnvoyExtensions: ENVOY_EXTENSIONS },
    },
    always: { Protocol: "", TransparentProxy: {}, MeshGateway: {}, Expose: {} },
    fault: serviceDefaultsFault,
  },
  "proxy-defaults": {
    fields: {
      ...{
        Config: true,
        Mode: "text",
        TransparentProxy: TRANSPARENT,
        MutualTLSMode: "text",
        MeshGateway: MESH_GATEWAY,
      },
      ...{ Expose: EXPOSE, EnvoyExtensions: ENVOY_EXTENSIONS, FailoverPolicy: true, PrioritizeByLocality: true },
      AccessLogs: {
        of: {
          ...{ Enabled: "flag", DisableListenerLogs: "flag", Type: "text", Path: "text", JSONFormat: "text" },
          TextFormat: "text",
        },
      },
    },
    always: { Config: null, TransparentProxy: {}, MeshGateway: {}, Expose: {}, AccessLogs: {} },
    single: "global",
    fault: (entry) => faultsOf(metaFaults(entry)) ?? tlsModeFault(entry),
  },
  "service-resolver": {
    fields: {
      ...{ DefaultSubset: "text", Subsets: true, Redirect: true, Failover: true, ConnectTimeout: true },
      ...{ RequestTimeout: true, LoadBalancer: true, PrioritizeByLocality: true },
    },
    always: {},
    fault: named,
  },
  "service-router": { fields: { Routes: true }, always: { Routes: null }, fault: named },
  "service-splitter": { fields: { Splits: true }, always: { Splits: null }, fault: splitterFault },
  "service-intentions": { fields: { Sources: true, JWT: true }, always: { Sources: null }, fault: intentionsFault },
  "ingress-gateway": {
    fields: { TLS: true, Listeners: true, Defaults: true },
    always: { Listeners: null },
    fault: named,
  },
  "terminating-gateway": { fields: { Services: true }, always: { Services: null }, fault: named },
  "exported-services": { fields: { Services: true }, always: { Services: null }, single: "default" },
  mesh: {
    fields: {
      ...{ TransparentProxy: true, AllowEnablingPermissiveMutualTLS: "flag", TLS: true, HTTP: true, Peering: true },
      ValidateClusters: "flag",
    },
    always: { TransparentProxy: { MeshDestinationsOnly: false } },
    single: "mesh",
  },
};
/** Kinds whose fields are kept as they were told. */
const OTHER_KINDS: ReadonlySet<string> = new Set([
  ...["api-gateway", "bound-api-gateway", "file-system-certificate", "http-route", "inline-certificate"],
  ...["jwt-provider", "sameness-group", "tcp-route"],
]);
const COMMON: Fields = { Kind: "text", Name: "text", Meta: "labels" };

/** Whether there are entries of a kind. */
export const isKind = (kind: string): boolean => Object.hasOwn(KINDS, kind) || OTHER_KINDS.has(kind);

/** An entry out of a body. @throws TrilithError `invalid` in Consul's words for what cannot be read */
export function readEntry(raw: unknown): ConfigEntry {
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new TrilithError("invalid", "Payload does not contain a kind/Kind key at the top level");
  const told = raw as Record<string, unknown>;
  const kind = "Kind" in told ? told["Kind"] : told["kind"];
  if (kind === undefined)
    throw new TrilithError("invalid", "Payload does not contain a kind/Kind key at the top level");
  if (typeof kind !== "string") throw new TrilithError("invalid", "Kind value in payload is not a string");
  if (!isKind(kind)) throw new TrilithError("invalid", `invalid config entry kind: ${kind}`);
  const known = KINDS[kind];
  const unknown: string[] = [];
  const entry: Record<string, unknown> =
    known === undefined
      ? asTold(told)
      : { ...known.always, ...readFields(told, { ...COMMON, ...known.fields }, "", unknown) };
  const fault = multiError(unknown.map((key) => unknownText(key)));
  if (fault !== undefined) throw new TrilithError("invalid", fault);
  entry["Kind"] = kind;
  entry["Name"] ??= known?.single ?? "";
  if (entry["Name"] === "" && known?.single !== undefined) entry["Name"] = known.single;
  if (typeof entry["Protocol"] === "string") entry["Protocol"] = entry["Protocol"].toLowerCase();
  return entry;
}

/** What is wrong with an entry that could be read, in Consul's words; undefined = nothing. */
export function entryFault(entry: ConfigEntry): string | undefined {
  const [kind, name] = [entry["Kind"] as string, entry["Name"]];
  const known = KINDS[kind];
  if (known?.single !== undefined && name !== known.single)
    return kind === "exported-services"
      ? `exported-services Name must be ${JSON.stringify(known.single)}`
      : `invalid name (${JSON.stringify(name)}), only ${JSON.stringify(known.single)} is supported`;
  return known?.fault === undefined ? named(entry) : known.fault(entry);
}

/** Where it stands on the line of changes, and that it was read before, is not part of an entry. */
const PLACE: ReadonlySet<string> = new Set(["createindex", "modifyindex", "hash"]);

function unknownText(key: string): string {
  const text = `invalid config key ${JSON.stringify(key)}`;
  return key.toLowerCase().endsWith("namespace") ? `${text}, namespaces are a consul enterprise feature` : text;
}

const plain = (key: string): string => key.replaceAll("_", "").toLowerCase();

function asTold(told: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const entry: Record<string, unknown> = Object.create(null);
  for (const [key, value] of Object.entries(told)) {
    if (PLACE.has(plain(key)) || value === null) continue;
    const name = Object.keys(COMMON).find((one) => plain(one) === plain(key));
    if (name === undefined) entry[key] = value;
    else entry[name] = readField(value, COMMON[name] as Field, name, []);
  }
  return entry;
}

function readFields(
  told: Readonly<Record<string, unknown>>,
  fields: Fields,
  at: string,
  unknown: string[],
): Record<string, unknown> {
  const names = new Map(Object.keys(fields).map((name) => [plain(name), name]));
  const result: Record<string, unknown> = Object.create(null);
  for (const [key, value] of Object.entries(told)) {
    const name = names.get(plain(key));
    if (name === undefined) {
      if (at !== "" || !PLACE.has(plain(key))) unknown.push(at + key);
    } else if (value !== null) {
      const read = readField(value, fields[name] as Field, `${at}${name}`, unknown);
      // As Go leaves out what says nothing.
      if (!isZero(read)) result[name] = read;
    }
  }
  return result;
}

function isZero(value: unknown): boolean {
  return value === "" || value === 0 || value === false || (Array.isArray(value) && value.length === 0);
}

/** Texts, numbers and flags stand in for one another, as Consul's decoder has it. */
function readField(value: unknown, field: Field, at: string, unknown: string[]): unknown {
  const wrong = (expected: string): never => {
    throw new TrilithError(
      "invalid",
      `1 error(s) decoding:\n\n* '${at}' expected type '${expected}', got unconvertible value ${JSON.stringify(value)}`,
    );
  };
  if (field === true) return value;
  if (field === "text") {
    if (typeof value === "object") return wrong("string");
    return typeof value === "boolean" ? (value ? "1" : "0") : String(value);
  }
  if (field === "whole") {
    const number = typeof value === "boolean" ? Number(value) : Number(value === "" ? 0 : value);
    return typeof value === "object" || !Number.isFinite(number) ? wrong("int") : Math.trunc(number);
  }
  if (field === "flag") {
    if (typeof value === "number") return value !== 0;
    if (value === "true" || value === "1") return true;
    if (value === "" || value === "false" || value === "0") return false;
    return typeof value === "boolean" ? value : wrong("bool");
  }
  if (field === "texts")
    return (Array.isArray(value) ? value : [value]).map((one) => readField(one, "text", at, unknown));
  if (field === "labels") {
    if (typeof value !== "object" || Array.isArray(value)) return wrong("map");
    const labels: Record<string, unknown> = Object.create(null);
    for (const [key, one] of Object.entries(value as object)) labels[key] = readField(one, "text", at, unknown);
    return labels;
  }
  if (!("of" in field)) {
    const list = Array.isArray(value) ? value : [value];
    return list.map((one, i) => readField(one, { ...field, of: field.each }, `${at}[${i}]`, unknown));
  }
  const [object] = Array.isArray(value) && value.length === 1 ? value : [value];
  if (typeof object !== "object" || object === null || Array.isArray(object)) return wrong("map");
  return { ...field.always, ...readFields(object as Record<string, unknown>, field.of, `${at}.`, unknown) };
}

const META_MAX_PAIRS = 64;
const META_KEY_MAX_BYTES = 128;
const META_VALUE_MAX_BYTES = 512;

function metaFaults(entry: ConfigEntry): string[] {
  const faults: string[] = [];
  const pairs = Object.entries(own(entry, "Meta") as Record<string, string>);
  if (pairs.length > META_MAX_PAIRS) faults.push(`Meta exceeds maximum element count ${META_MAX_PAIRS}`);
  for (const [key, value] of pairs) {
    if (Buffer.byteLength(key) > META_KEY_MAX_BYTES)
      faults.push(`Meta key ${JSON.stringify(key)} exceeds maximum length ${META_KEY_MAX_BYTES}`);
    if (Buffer.byteLength(value) > META_VALUE_MAX_BYTES)
      faults.push(`Meta value for key ${JSON.stringify(key)} exceeds maximum length ${META_VALUE_MAX_BYTES}`);
  }
  return faults;
}

const faultsOf = (faults: readonly string[]): string | undefined => multiError(faults);

function named(entry: ConfigEntry): string | undefined {
  return entry["Name"] === "" ? "Name is required" : faultsOf(metaFaults(entry));
}

function tlsModeFault(entry: ConfigEntry): string | undefined {
  const mode = entry["MutualTLSMode"] ?? "";
  return mode === "" || mode === "strict" || mode === "permissive"
    ? undefined
    : `Invalid MutualTLSMode ${JSON.stringify(mode)}. Must be one of "", "strict", or "permissive".`;
}

function serviceDefaultsFault(entry: ConfigEntry): string | undefined {
  const name = entry["Name"];
  if (name === "") return "Name is required";
  if (name === "*") return "service-defaults name must be the name of a service, and not a wildcard";
  const faults = metaFaults(entry);
  const balance = entry["BalanceInboundConnections"] ?? "";
  if (balance !== "" && balance !== "exact_balance")
    faults.push(`invalid value for balance_inbound_connections: ${String(balance)}`);
  if ("UpstreamConfig" in entry && "Destination" in entry)
    return faultsOf([...faults, "UpstreamConfig and Destination are mutually exclusive for service defaults"]);
  const upstream = own(entry, "UpstreamConfig");
  for (const override of (upstream["Overrides"] ?? []) as readonly ConfigEntry[]) {
    const of = override["Name"] ?? "";
    if (of === "") faults.push("error in upstream override for : Name is required");
    if (of === "*") faults.push("error in upstream override for *: Wildcard name is not supported");
  }
  if ((own(upstream, "Defaults")["Name"] ?? "") !== "") faults.push("error in upstream defaults: Name must be empty");
  if ("Destination" in entry) faults.push(...destinationFaults(own(entry, "Destination")));
  return tlsModeFault(entry) ?? faultsOf(faults);
}

function destinationFaults(destination: ConfigEntry): readonly string[] {
  const faults: string[] = [];
  const addresses = (destination["Addresses"] ?? []) as readonly string[];
  if (addresses.length === 0) faults.push("Destination must contain at least one valid address");
  const seen = new Set<string>();
  for (const address of addresses) {
    if (seen.has(address)) faults.push(`Duplicate address '${address}' is not allowed`);
    else if (address.includes("*") || address === "" || address.length > 253)
      faults.push(
        `Destination address '${address}' is invalid Could not validate address ${address} as an IP or Hostname`,
      );
    seen.add(address);
  }
  const port = (destination["Port"] ?? 0) as number;
  if (port < 1 || port > 65_535) faults.push(`Invalid Port number ${port}`);
  return faults;
}

function splitterFault(entry: ConfigEntry): string | undefined {
  const name = named(entry);
  if (name !== undefined) return name;
  const splits = (entry["Splits"] ?? []) as unknown;
  if (!Array.isArray(splits) || splits.length === 0) return "no splits configured";
  const weights = splits.map((split) => {
    const found = Object.entries((split ?? {}) as object).find(([key]) => plain(key) === "weight");
    return Number(found?.[1] ?? 0);
  });
  const sum = weights.reduce((all, one) => all + one, 0);
  return Math.abs(sum - 100) < 0.01 ? undefined : `the sum of all split weights must be 100, not ${sum.toFixed(6)}`;
}

function intentionsFault(entry: ConfigEntry): string | undefined {
  const name = named(entry);
  if (name !== undefined) return name;
  const sources = (entry["Sources"] ?? []) as unknown;
  return Array.isArray(sources) && sources.length > 0 ? undefined : "At least one source is required";
}
