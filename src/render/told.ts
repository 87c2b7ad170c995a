// What an agent tells in JSON, as what files are made from.

import { NODE_MAINTENANCE_CHECK, SERVICE_MAINTENANCE_CHECK, type Status } from "../model/check.ts";
import { DRAIN_CHECK } from "../wire/consul-catalog.ts";
import type { CheckValue, Known, NodeValue, ServiceInstance } from "./needs.ts";

/** A node as Consul's API lists it. */
export interface NodeRow {
  readonly ID?: string;
  readonly Node: string;
  readonly Address: string;
  readonly Datacenter?: string;
  readonly TaggedAddresses?: Readonly<Record<string, string>> | null;
  readonly Meta?: Readonly<Record<string, string>> | null;
}

interface ServiceRow {
  readonly ID: string;
  readonly Service: string;
  readonly Address: string;
  readonly Port: number;
  readonly Tags?: readonly string[] | null;
  readonly Meta?: Readonly<Record<string, string>> | null;
  readonly Weights?: { readonly Passing: number; readonly Warning: number } | null;
}

/** One instance of /v1/health/service. */
export interface HealthRow {
  readonly Node: NodeRow;
  readonly Service: ServiceRow;
  readonly Checks: readonly {
    readonly CheckID: string;
    readonly Name: string;
    readonly Status: string;
    readonly Output?: string;
    readonly Notes?: string;
  }[];
}

/** An endpoint of the agent's own answers. */
export interface AnsweredRow {
  readonly address: string;
  readonly port: number;
  readonly weight: number;
  readonly node: string;
  readonly id: string;
  readonly status: Status;
  readonly tags: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly held?: true;
}

export function nodeOf(row: NodeRow): NodeValue {
  return {
    id: row.ID ?? "",
    node: row.Node,
    address: row.Address,
    datacenter: row.Datacenter ?? "",
    taggedAddresses: row.TaggedAddresses ?? {},
    meta: row.Meta ?? {},
  };
}

const isMaintenance = (id: string): boolean =>
  id === NODE_MAINTENANCE_CHECK || id.startsWith(SERVICE_MAINTENANCE_CHECK);
const STATES = ["passing", "warning", "critical"] as const;

function worstOf(checks: readonly CheckValue[]): Status {
  return STATES[Math.max(0, ...checks.map(({ status }) => STATES.indexOf(status as Status)))] ?? "critical";
}

/** An instance with its checks. */
export function instanceOf({ Node: node, Service: service, Checks: rows }: HealthRow): ServiceInstance {
  const checks = rows.map(({ CheckID, Name, Status: status, Output = "", Notes = "" }) => ({
    id: CheckID,
    name: Name,
    status,
    output: Output,
    notes: Notes,
  }));
  const inMaintenance = checks.some(({ id, status }) => status === "critical" && isMaintenance(id));
  const isWithdrawn = inMaintenance || checks.some(({ id }) => id.startsWith(DRAIN_CHECK));
  const others = worstOf(checks.filter(({ id }) => !isMaintenance(id) && !id.startsWith(DRAIN_CHECK)));
  const weights = service.Weights ?? { Passing: 1, Warning: 1 };
  const about = nodeOf(node);
  return {
    node: about.node,
    nodeId: about.id,
    nodeAddress: about.address,
    datacenter: about.datacenter,
    nodeTaggedAddresses: about.taggedAddresses,
    nodeMeta: about.meta,
    id: service.ID,
    name: service.Service,
    address: service.Address === "" ? about.address : service.Address,
    port: service.Port,
    tags: service.Tags ?? [],
    meta: service.Meta ?? {},
    status: inMaintenance ? "maintenance" : worstOf(checks),
    draining: isWithdrawn && others !== "critical",
    held: false,
    weight: others === "warning" ? weights.Warning : weights.Passing,
    weights: { passing: weights.Passing, warning: weights.Warning },
    checks,
  };
}

/** Which instance it is, among those of a service. */
export const keyOf = ({ node, id }: { readonly node: string; readonly id: string }): string => `${node}\0${id}`;

/** An endpoint of an answer with what is registered about it, or was (`known`). */
export function answeredOf(name: string, row: AnsweredRow, known: ServiceInstance | undefined): ServiceInstance {
  const about = known ?? {
    nodeId: "",
    nodeAddress: row.address,
    datacenter: "",
    nodeTaggedAddresses: {},
    nodeMeta: {},
    weights: { passing: row.weight, warning: row.weight },
    checks: [],
  };
  return {
    ...about,
    name,
    node: row.node,
    id: row.id,
    address: row.address,
    port: row.port,
    tags: row.tags,
    meta: row.labels,
    status: row.status,
    weight: row.weight,
    draining: false,
    held: row.held === true,
  };
}

/** By node and ID, as consul-template sorts them. */
export function byNodeAndId(a: ServiceInstance, b: ServiceInstance): number {
  if (a.node !== b.node) return a.node < b.node ? -1 : 1;
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

/** /v1/catalog/services */
export function servicesOf(json: unknown): Known["services"] {
  return Object.entries((json ?? {}) as Readonly<Record<string, readonly string[]>>)
    .map(([name, tags]) => ({ name, tags }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** /v1/catalog/node/NAME; null where there is none. */
export function nodeWithServicesOf(json: unknown): Known["node"] {
  const found = json as { readonly Node?: NodeRow; readonly Services?: Readonly<Record<string, ServiceRow>> } | null;
  if (!found?.Node) return undefined;
  const { address } = nodeOf(found.Node);
  return {
    node: nodeOf(found.Node),
    services: Object.values(found.Services ?? {})
      .map((row) => ({
        id: row.ID,
        name: row.Service,
        address: row.Address === "" ? address : row.Address,
        port: row.Port,
        tags: row.Tags ?? [],
        meta: row.Meta ?? {},
      }))
      .sort((a, b) => (a.name === b.name ? (a.id < b.id ? -1 : 1) : a.name < b.name ? -1 : 1)),
  };
}

/** /v1/kv; undefined where nothing is. */
export function pairsOf(json: unknown): Known["keys"] {
  return ((json ?? []) as readonly { readonly Key: string; readonly Value: string | null }[]).map((pair) => ({
    key: pair.Key,
    value: Buffer.from(pair.Value ?? "", "base64").toString(),
  }));
}
