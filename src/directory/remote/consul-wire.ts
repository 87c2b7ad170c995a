// Records of the directory as a Consul server's catalog takes and tells them, and back.
import type { Check } from "../../model/check.ts";
import { NODE_ALIVE_CHECK } from "../../model/check.ts";
import type { Instance, Origin } from "../../model/instance.ts";
import type { Labels, Node, Witnessed } from "../../model/node.ts";
import type { Change, Tables } from "../../model/record.ts";
import {
  CLIENT_META,
  checkFactsFrom,
  DRAIN_CHECK,
  FOREIGN,
  type Json,
  labelsFrom,
  ORIGIN_META,
  object,
  serviceFrom,
  text,
  WITNESSED_META,
} from "../../wire/consul-catalog.ts";

/**
 * The name under which a client host's own check stands in a Consul's catalog: the servers of a Consul take any node with a check called
 * serfHealth for one of their members, and deregister it when it is none.
 */
export const ALIVE_CHECK = "trilith-alive";
const ALIVE_NAME = "Trilith Health Status";
const SERF_NAME = "Serf Health Status";
/** Consul takes 512 bytes a value. */
const META_BYTES = 500;

/** JSON of ASCII only, so that a piece has as many bytes as characters. */
const ascii = (value: unknown): string =>
  JSON.stringify(value).replace(/[^\x20-\x7e]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Signs of life are keys below this one, each held by a session. */
export const ALIVE_PREFIX = "trilith/alive/";

/** The operation that says, or no longer says, that an instance is draining; undefined where that has not changed. */
export function drainOperation(instance: Instance, before: Instance | undefined): Json | undefined {
  const draining = instance.draining === true;
  if (draining === (before?.draining === true)) return undefined;
  const check = { Node: instance.node, CheckID: DRAIN_CHECK + instance.id };
  if (!draining) return { Check: { Verb: "delete", Check: check } };
  const rest = { Name: "Draining", Status: "critical", Notes: "on its way out", ServiceID: instance.id };
  return { Check: { Verb: "set", Check: { ...check, ...rest } } };
}

/** Of everything that came from a Consul's catalog. */
const ORIGIN: Origin = { source: "catalog", authority: "second-hand", text: "told by a Consul server" };

const isText = (value: unknown): value is string => typeof value === "string";

/** Metadata that begins with "consul-" is Consul's own; what its agents say of themselves is not said of a client host. */
function nodeMeta(node: Node): Json {
  if (node.external === true) return { ...node.labels, ...outsideMeta(node) };
  const own = Object.entries(node.labels).filter(([key]) => !key.startsWith("consul-"));
  return { ...Object.fromEntries(own), [CLIENT_META]: "true" };
}

function outsideMeta({ origin, witnessed }: Node): Json {
  const text = witnessed === undefined ? "" : ascii(witnessed);
  const pieces = Array.from({ length: Math.ceil(text.length / META_BYTES) }, (_, i) => [
    WITNESSED_META + i,
    text.slice(i * META_BYTES, (i + 1) * META_BYTES),
  ]);
  return { ...(origin === undefined ? {} : { [ORIGIN_META]: ascii(origin) }), ...Object.fromEntries(pieces) };
}

/** The inverse; what somebody spoiled counts as not there. */
function outsideFrom(meta: Labels): Pick<Node, "origin" | "witnessed"> {
  let pieces = "";
  for (let i = 0; meta[WITNESSED_META + i] !== undefined; i++) pieces += meta[WITNESSED_META + i];
  const parsed = (json: string): unknown => {
    try {
      return JSON.parse(json);
    } catch {
      return undefined;
    }
  };
  const origin = object(parsed(meta[ORIGIN_META] ?? ""));
  const witnessed = parsed(pieces);
  const isWitnessed = (one: unknown): one is Witnessed => {
    const { service, source, by } = object(one);
    return typeof service === "string" && typeof source === "string" && Array.isArray(by) && by.every(isText);
  };
  return {
    ...(typeof origin["source"] === "string" ? { origin: origin as unknown as Origin } : {}),
    ...(Array.isArray(witnessed) && witnessed.every(isWitnessed) ? { witnessed } : {}),
  };
}

/** A node of /v1/catalog/nodes. */
export function nodeFrom(raw: Json): Node {
  const { [CLIENT_META]: client, ...all } = labelsFrom(raw["Meta"]);
  const meta = Object.entries(all).filter(([key]) => key !== ORIGIN_META && !key.startsWith(WITNESSED_META));
  return {
    id: text(raw["ID"]),
    name: text(raw["Node"]),
    address: text(raw["Address"]),
    datacenter: text(raw["Datacenter"]),
    taggedAddresses: labelsFrom(raw["TaggedAddresses"]),
    labels: Object.assign(Object.create(null), Object.fromEntries(meta)) as Labels,
    // Of all others the Consul itself says whether they live.
    ...(client === undefined ? { external: true, ...outsideFrom(all) } : {}),
  };
}

/** A service of /v1/health/service on its node. */
export function instanceFrom(node: string, raw: Json, draining = false): Instance {
  return { node, ...serviceFrom(raw), ...(draining ? { draining } : {}), origin: ORIGIN };
}

/** A check of /v1/health. */
export function checkFrom(raw: Json): Check {
  const check = checkFactsFrom(raw);
  const alive = check.id === ALIVE_CHECK;
  return { ...check, ...(alive ? { id: NODE_ALIVE_CHECK, name: SERF_NAME } : {}), origin: ORIGIN };
}

/** The name of a check in the catalog. `client`: its node is one on which a client host lives. */
const checkName = (id: string, client: boolean): string => (client && id === NODE_ALIVE_CHECK ? ALIVE_CHECK : id);

function nodeOp(node: Node): Json {
  return {
    ID: node.id,
    Node: node.name,
    Address: node.address,
    Datacenter: node.datacenter,
    TaggedAddresses: node.taggedAddresses,
    Meta: nodeMeta(node),
  };
}

/** Tagged addresses as Consul's agents complete them. */
function taggedOf(instance: Instance): Record<string, { Address: string; Port: number }> {
  const result: Record<string, { Address: string; Port: number }> = {};
  for (const [role, { address, port }] of Object.entries(instance.taggedAddresses ?? {}))
    result[role] = { Address: address, Port: port };
  if (instance.origin.source === ORIGIN.source) return result;
  const family = /^\d+(\.\d+){3}$/.test(instance.address) ? "ipv4" : instance.address.includes(":") ? "ipv6" : "";
  if (family !== "")
    for (const side of ["lan", "wan"])
      result[`${side}_${family}`] ??= { Address: instance.address, Port: instance.port };
  return result;
}

function serviceOp(instance: Instance): Json {
  const foreign: Record<string, unknown> = {};
  for (const name of FOREIGN) if (instance.foreign?.[name] !== undefined) foreign[name] = instance.foreign[name];
  return {
    ID: instance.id,
    Service: instance.name,
    Tags: instance.tags,
    Meta: instance.labels,
    Address: instance.address,
    Port: instance.port,
    TaggedAddresses: taggedOf(instance),
    Weights: { Passing: instance.weights?.passing ?? 1, Warning: instance.weights?.warning ?? 1 },
    EnableTagOverride: instance.enableTagOverride ?? false,
    ...(instance.socketPath === undefined ? {} : { SocketPath: instance.socketPath }),
    ...foreign,
  };
}

function checkOp(check: Check, client: boolean): Json {
  const alive = client && check.id === NODE_ALIVE_CHECK;
  return {
    Node: check.node,
    CheckID: checkName(check.id, client),
    Name: alive ? ALIVE_NAME : check.name,
    Status: check.foreign?.["ShownStatus"] ?? check.status,
    Notes: check.notes,
    Output: check.output,
    ServiceID: check.serviceId,
    Type: check.type,
  };
}

/**
 * A change as an operation of Consul's transactions; undefined where there is nothing to do. `before`: what stands there as far as is known;
 * `cas`: only where it stands at this ModifyIndex.
 */
export function operationOf(
  change: Change,
  before: Tables["node" | "service" | "check"] | undefined,
  cas: number | undefined,
  isClient: (node: string) => boolean,
): Json | undefined {
  const verb = (word: string): string => (cas === undefined ? word : word === "set" ? "cas" : `${word}-cas`);
  const at = cas === undefined ? {} : { ModifyIndex: cas };
  if (change.op === "delete") {
    if (before === undefined) return undefined;
    if (change.table === "node")
      return { Node: { Verb: verb("delete"), Node: { Node: (before as Node).name, ...at } } };
    const { node, id, name } = before as Instance | Check;
    // Consul wants to know the service's name as well.
    if (change.table === "service")
      return { Service: { Verb: verb("delete"), Node: node, Service: { ID: id, Service: name, ...at } } };
    return { Check: { Verb: verb("delete"), Check: { Node: node, CheckID: checkName(id, isClient(node)), ...at } } };
  }
  if (change.table === "node") return { Node: { Verb: verb("set"), Node: { ...nodeOp(change.value), ...at } } };
  if (change.table === "service")
    return { Service: { Verb: verb("set"), Node: change.value.node, Service: { ...serviceOp(change.value), ...at } } };
  const check = change.value as Check;
  return { Check: { Verb: verb("set"), Check: { ...checkOp(check, isClient(check.node)), ...at } } };
}

/** What of a record the catalog keeps, as text: two records with the same text are the same to Consul. */
export function gist(
  table: "node" | "service" | "check",
  value: Tables["node" | "service" | "check"],
  client: boolean,
): string {
  const sorted = (map: Json): unknown[] => Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1));
  if (table === "node") {
    const { ID, Address, TaggedAddresses, Meta } = nodeOp(value as Node);
    return JSON.stringify([ID, Address, sorted(object(TaggedAddresses)), sorted(object(Meta))]);
  }
  if (table === "service") {
    const op = serviceOp(value as Instance);
    const { Service, Tags, Meta, Address, Port, TaggedAddresses, Weights, EnableTagOverride, SocketPath } = op;
    const draining = (value as Instance).draining === true;
    const rest = [Service, Tags, Address, Port, Weights, EnableTagOverride, SocketPath ?? "", draining];
    return JSON.stringify([...rest, sorted(object(Meta)), sorted(object(TaggedAddresses))]);
  }
  const { Name, Status, Notes, Output, ServiceID } = checkOp(value as Check, client);
  return JSON.stringify([Name, Status, Notes, Output, ServiceID]);
}
