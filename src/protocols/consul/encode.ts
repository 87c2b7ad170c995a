// Records of the directory and the agent as Consul's JSON objects. `null` against `{}` and `[]` is as recorded.
import type { HeldCheck } from "../../contracts/agent.ts";
import type { View } from "../../contracts/directory.ts";
import type { Check } from "../../model/check.ts";
import type { Instance, Resident, ServiceFacts, TaggedAddress } from "../../model/instance.ts";
import type { KvPair } from "../../model/kv.ts";
import type { Labels } from "../../model/node.ts";
import { type Entry, keyOf, type Session } from "../../model/record.ts";
import { DRAIN_CHECK } from "../../wire/consul-catalog.ts";
import { formatGoDuration } from "../../wire/duration.ts";

type Json = Record<string, unknown>;

const NO_PROXY: Json = { Mode: "", MeshGateway: {}, Expose: {} };
const PROXY_FIELDS: readonly string[] = [
  ...["EnvoyExtensions", "DestinationServiceName", "DestinationServiceID", "LocalServiceAddress", "LocalServicePort"],
  ...["LocalServiceSocketPath", "Mode", "Config", "Upstreams", "MutualTLSMode", "MeshGateway", "Expose"],
  ...["TransparentProxy", "AccessLogs"],
];
/** Kinds of which the agent, too, shows how they are set up. */
const PROXIES: ReadonlySet<unknown> = new Set([
  ...["connect-proxy", "mesh-gateway", "terminating-gateway", "ingress-gateway", "api-gateway"],
]);

/** A proxy's setting in Consul's names, whatever case they were told in. */
function proxyOf(instance: Instance): Json {
  const told = foreignOf(instance, "Proxy");
  if (typeof told !== "object" || told === null) return NO_PROXY;
  const proxy: Json = { ...NO_PROXY };
  for (const [key, value] of Object.entries(told)) {
    const plain = key.replaceAll("_", "").toLowerCase();
    const name = PROXY_FIELDS.find((one) => one.toLowerCase() === plain);
    if (value !== null) proxy[name ?? key] = value;
  }
  return proxy;
}

/** Whether an instance is connected to the mesh by itself, as it was told in any case. */
function connectOf(instance: Instance): Json {
  const told = foreignOf(instance, "Connect");
  if (typeof told !== "object" || told === null) return {};
  return Object.entries(told).some(([key, value]) => key.toLowerCase() === "native" && value === true)
    ? { Native: true }
    : {};
}

/** Whether a map has no entries. */
function isEmpty(map: object): boolean {
  for (const _ in map) return false;
  return true;
}

/** A map with its names in order, as Go writes maps. */
function sorted<T>(map: Readonly<Record<string, T>>): Record<string, T> {
  const result: Record<string, T> = Object.create(null);
  for (const key of Object.keys(map).sort()) result[key] = map[key] as T;
  return result;
}

const orNull = (labels: Labels): Labels | null => (isEmpty(labels) ? null : sorted(labels));

const foreignOf = (record: { readonly foreign?: Readonly<Record<string, unknown>> }, name: string): unknown =>
  record.foreign?.[name];

/** A node as the catalog lists it. */
export function encodeNode(node: Entry<"node">): Json {
  return {
    ID: node.id,
    Node: node.name,
    Address: node.address,
    Datacenter: node.datacenter,
    TaggedAddresses: orNull(node.taggedAddresses),
    Meta: orNull(node.labels),
    CreateIndex: node.enteredAt ?? node.createIndex,
    ModifyIndex: node.modifyIndex,
  };
}

/** Tagged addresses as Consul's agent completes them: what it registers is told for its address family, too; the catalog's are left alone. */
function taggedAddresses(facts: ServiceFacts, complete: boolean): Json | undefined {
  const result: Record<string, { Address: string; Port: number }> = Object.create(null);
  const put = (role: string, { address, port }: TaggedAddress): void => {
    result[role] ??= { Address: address, Port: port };
  };
  for (const [role, tagged] of Object.entries(facts.taggedAddresses ?? {})) put(role, tagged);
  if (complete) {
    const suffix = /^\d+\.\d+\.\d+\.\d+$/.test(facts.address)
      ? "ipv4"
      : facts.address.includes(":")
        ? "ipv6"
        : undefined;
    if (suffix !== undefined) for (const side of ["lan", "wan"]) put(`${side}_${suffix}`, facts);
  }
  return isEmpty(result) ? undefined : sorted(result);
}

const weightsOf = ({ weights }: ServiceFacts): Json => ({
  Passing: weights?.passing ?? 1,
  Warning: weights?.warning ?? 1,
});

/** True for what came in through an agent (and gets completed addresses), false for what was written straight into the catalog. */
const fromAgent = (instance: Instance): boolean => instance.origin.source !== CATALOG_SOURCE;

/** The origin's source of everything that was written straight into the catalog. */
export const CATALOG_SOURCE = "catalog";

/** A service as the agent shows it. */
export function encodeAgentService(instance: Instance, datacenter: string): Json {
  const kind = foreignOf(instance, "Kind");
  return {
    ...(kind === undefined ? {} : { Kind: kind }),
    ID: instance.id,
    Service: instance.name,
    Tags: instance.tags,
    Meta: sorted(instance.labels),
    Port: instance.port,
    Address: instance.address,
    ...(instance.socketPath === undefined ? {} : { SocketPath: instance.socketPath }),
    TaggedAddresses: taggedAddresses(instance, true),
    Weights: weightsOf(instance),
    EnableTagOverride: instance.enableTagOverride ?? false,
    ...(PROXIES.has(kind) ? { Proxy: proxyOf(instance) } : {}),
    ...("Native" in connectOf(instance) ? { Connect: { Native: true } } : {}),
    Datacenter: datacenter,
    Locality: foreignOf(instance, "Locality"),
  };
}

/** A service within node and health answers. */
export function encodeNodeService(instance: Entry<"service">): Json {
  const kind = foreignOf(instance, "Kind");
  return {
    ...(kind === undefined ? {} : { Kind: kind }),
    ID: instance.id,
    Service: instance.name,
    Tags: instance.tags,
    Address: instance.address,
    TaggedAddresses: taggedAddresses(instance, fromAgent(instance)),
    Meta: orNull(instance.labels),
    ...(instance.port === 0 ? {} : { Port: instance.port }),
    SocketPath: instance.socketPath,
    Weights: weightsOf(instance),
    EnableTagOverride: instance.enableTagOverride ?? false,
    Locality: foreignOf(instance, "Locality"),
    Proxy: proxyOf(instance),
    Connect: connectOf(instance),
    PeerName: "",
    CreateIndex: instance.createIndex,
    ModifyIndex: instance.modifyIndex,
  };
}

/** An instance with its node, flat, as /v1/catalog/service lists it. */
export function encodeCatalogService({ instance, node }: Resident): Json {
  return {
    ID: node.id,
    Node: node.name,
    Address: node.address,
    Datacenter: node.datacenter,
    TaggedAddresses: orNull(node.taggedAddresses),
    NodeMeta: orNull(node.labels),
    ServiceKind: foreignOf(instance, "Kind") ?? "",
    ServiceID: instance.id,
    ServiceName: instance.name,
    ServiceTags: instance.tags,
    ServiceAddress: instance.address,
    ServiceTaggedAddresses: taggedAddresses(instance, fromAgent(instance)),
    ServiceWeights: weightsOf(instance),
    ServiceMeta: sorted(instance.labels),
    ServicePort: instance.port,
    ServiceSocketPath: instance.socketPath ?? "",
    ServiceEnableTagOverride: instance.enableTagOverride ?? false,
    ServiceProxy: proxyOf(instance),
    ServiceConnect: connectOf(instance),
    ServiceLocality: foreignOf(instance, "Locality") ?? null,
    CreateIndex: instance.createIndex,
    ModifyIndex: instance.modifyIndex,
  };
}

function durationText(check: Check, name: "Interval" | "Timeout", ms: number | undefined): unknown {
  const told = foreignOf(check, name);
  if (told !== undefined) return told;
  return ms === undefined || ms === 0 ? "" : formatGoDuration(ms);
}

/** A check with the service it belongs to, if any. Without indexes it is the agent's own, which has none. */
export function encodeCheck(check: Check | Entry<"check">, service: ServiceFacts | undefined): Json {
  return {
    Node: check.node,
    CheckID: check.id,
    Name: check.name,
    Status: foreignOf(check, "ShownStatus") ?? check.status,
    Notes: check.notes,
    Output: check.output,
    ServiceID: check.serviceId,
    ServiceName: service?.name ?? "",
    ServiceTags: service?.tags ?? [],
    Type: foreignOf(check, "Type") ?? check.type,
    Interval: durationText(check, "Interval", check.intervalMs),
    Timeout: durationText(check, "Timeout", check.timeoutMs),
    ExposedPort: foreignOf(check, "ExposedPort") ?? 0,
    Definition: foreignOf(check, "Definition") ?? {},
    CreateIndex: "createIndex" in check ? check.createIndex : 0,
    ModifyIndex: "modifyIndex" in check ? check.modifyIndex : 0,
  };
}

/** A check of the directory; its service is looked up. */
export function encodeCheckOf(view: View, check: Entry<"check">): Json {
  const service = check.serviceId === "" ? undefined : view.get("service", keyOf.service(check.node, check.serviceId));
  return encodeCheck(check, service);
}

/** An instance with node and checks, as /v1/health/service lists it. */
export function encodeResident({ instance, node, checks }: Resident): Json {
  return {
    Node: encodeNode(node),
    Service: encodeNodeService(instance),
    Checks: [...checks, ...drainChecks(instance)].map((check) =>
      encodeCheck(check, check.serviceId === "" ? undefined : instance),
    ),
  };
}

/** Clients who read the checks themselves are told by one that an instance is on its way out: Consul has no other word for it. None for others. */
export function drainChecks(instance: Entry<"service">): readonly Entry<"check">[] {
  if (instance.draining !== true) return [];
  const { node, id: serviceId, modifyIndex } = instance;
  const facts = { id: DRAIN_CHECK + serviceId, node, name: "Draining", notes: "on its way out", output: "", type: "" };
  return [{ ...facts, status: "critical", serviceId, createIndex: modifyIndex, modifyIndex }];
}

const NO_DEFINITION: unknown = {
  Interval: "0s",
  Timeout: "0s",
  DeregisterCriticalServiceAfter: "0s",
  HTTP: "",
  Header: null,
  Method: "",
  Body: "",
  TLSServerName: "",
  TLSSkipVerify: false,
  TCP: "",
  TCPUseTLS: false,
  UDP: "",
  GRPC: "",
  OSService: "",
  GRPCUseTLS: false,
};

/** A check as /v1/agent/health shows it: another shape than everywhere else [FACTS 5]. */
export function encodeAgentHealthCheck({ check }: HeldCheck, service: ServiceFacts | undefined): Json {
  const tags = check.serviceId === "" ? [] : (service?.tags ?? []);
  return {
    Node: check.node,
    CheckID: check.id,
    Name: check.name,
    Status: check.status,
    Notes: check.notes,
    Output: check.output,
    ServiceID: check.serviceId,
    ServiceName: check.serviceId === "" ? "" : (service?.name ?? ""),
    ServiceTags: tags.length === 0 ? null : tags,
    Type: "",
    ExposedPort: 0,
    Definition: NO_DEFINITION,
    CreateIndex: 0,
    ModifyIndex: 0,
  };
}

/** A key with its value in base64; flags beyond 2^53 stay a bigint. */
export function encodeKv(pair: KvPair & Pick<Entry<"kv">, "createIndex" | "modifyIndex">): Json {
  return {
    LockIndex: pair.lockIndex,
    Key: pair.key,
    Flags: isExact(pair.flags) ? Number(pair.flags) : pair.flags,
    Value:
      pair.value.length === 0
        ? null
        : Buffer.from(pair.value.buffer, pair.value.byteOffset, pair.value.byteLength).toString("base64"),
    ...(pair.session === undefined ? {} : { Session: pair.session }),
    CreateIndex: pair.createIndex,
    ModifyIndex: pair.modifyIndex,
  };
}

/** True where a double holds the number. */
export function isExact(flags: bigint): boolean {
  return flags <= BigInt(Number.MAX_SAFE_INTEGER);
}

/** A session. What was given as an empty list stays one; what was not given is null. */
export function encodeSession(session: Session & Pick<Entry<"session">, "createIndex" | "modifyIndex">): Json {
  return {
    ID: session.id,
    Name: session.name,
    Node: session.node,
    LockDelay: session.lockDelayMs * 1e6,
    Behavior: session.behavior,
    TTL: foreignOf(session, "TTL") ?? (session.ttlMs === undefined ? "" : formatGoDuration(session.ttlMs)),
    NodeChecks: session.nodeChecks,
    ServiceChecks:
      session.serviceChecks.length === 0
        ? (foreignOf(session, "ServiceChecks") ?? null)
        : session.serviceChecks.map(({ id, namespace }) => ({ ID: id, Namespace: namespace })),
    ...((session.checks?.length ?? 0) === 0 ? {} : { Checks: session.checks }),
    CreateIndex: session.createIndex,
    ModifyIndex: session.modifyIndex,
  };
}
