// What rendered files are made from: what is asked for, and what whoever knows it tells.
import type { Status } from "../model/check.ts";

/** Something that a file is made from. */
export type Need =
  | {
      readonly kind: "service";
      readonly service: string;
      readonly tag?: string;
      readonly datacenter?: string;
      /** Nearest first to this node; "_agent" = the agent's own. */
      readonly near?: string;
      /** Which instances may be connected to: with all checks passing, or with warnings, too. */
      readonly health: "passing" | "routable";
    }
  | { readonly kind: "services"; readonly datacenter?: string }
  | { readonly kind: "nodes"; readonly datacenter?: string }
  /** No name: the agent's own node. */
  | { readonly kind: "node"; readonly node?: string; readonly datacenter?: string }
  | { readonly kind: "key"; readonly key: string; readonly datacenter?: string }
  | { readonly kind: "keys"; readonly prefix: string; readonly datacenter?: string }
  | { readonly kind: "file"; readonly path: string };

/** Instances can be told apart by the node they are on and their ID there. */
export interface ServiceInstance {
  readonly node: string;
  readonly nodeId: string;
  readonly nodeAddress: string;
  readonly datacenter: string;
  readonly nodeTaggedAddresses: Readonly<Record<string, string>>;
  readonly nodeMeta: Readonly<Record<string, string>>;
  readonly id: string;
  readonly name: string;
  /** Where to connect to. */
  readonly address: string;
  readonly port: number;
  readonly tags: readonly string[];
  readonly meta: Readonly<Record<string, string>>;
  readonly status: Status | "maintenance";
  /** Well, and to get no new connections: draining, or in maintenance. */
  readonly draining: boolean;
  /** Kept in answers by the guard, although its source no longer lists it. */
  readonly held: boolean;
  readonly weight: number;
  readonly weights: { readonly passing: number; readonly warning: number };
  readonly checks: readonly CheckValue[];
}

/** A check as templates see it. */
export interface CheckValue {
  readonly id: string;
  readonly name: string;
  readonly status: string;
  readonly output: string;
  readonly notes: string;
}

/** What is known of a service. */
export interface ServiceKnown {
  /** The agent's own answer, as every way out of it gives it: with what the guard holds, without what drains. By node and ID, or nearest first. */
  readonly answer: readonly ServiceInstance[];
  /** Everything that is registered, whatever its health; in the same order. */
  readonly all: readonly ServiceInstance[];
  /** Why the guard holds instances. */
  readonly held?: string;
}

export interface NodeValue {
  readonly id: string;
  readonly node: string;
  readonly address: string;
  readonly datacenter: string;
  readonly taggedAddresses: Readonly<Record<string, string>>;
  readonly meta: Readonly<Record<string, string>>;
}

export interface NodeServiceValue {
  readonly id: string;
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly tags: readonly string[];
  readonly meta: Readonly<Record<string, string>>;
}

/** What is told of each kind of need. */
export interface Known {
  readonly service: ServiceKnown;
  readonly services: readonly { readonly name: string; readonly tags: readonly string[] }[];
  readonly nodes: readonly NodeValue[];
  /** Undefined: there is none of that name. */
  readonly node: { readonly node: NodeValue; readonly services: readonly NodeServiceValue[] } | undefined;
  /** Undefined: there is none. */
  readonly key: string | undefined;
  readonly keys: readonly { readonly key: string; readonly value: string }[];
  /** Undefined: there is none. */
  readonly file: string | undefined;
}

/** What is known of a need. */
export type KnownOf<N extends Need> = Known[N["kind"]];

/** A need as a key of maps: the same for the same need. */
export function needKey(need: Need): string {
  return JSON.stringify(Object.entries(need).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** A need as people call it: `service "web"`. */
export function needText(need: Need): string {
  const place = "datacenter" in need && need.datacenter !== undefined ? ` in ${need.datacenter}` : "";
  const name = {
    service: "service" in need ? need.service : "",
    key: "key" in need ? need.key : "",
    keys: "prefix" in need ? need.prefix : "",
    file: "path" in need ? need.path : "",
    node: "node" in need ? (need.node ?? "") : "",
    services: "",
    nodes: "",
  }[need.kind];
  return `${need.kind === "keys" ? "keys below" : need.kind}${name === "" ? "" : ` "${name}"`}${place}`;
}

/** How what is known is read while a file is made; a need that nobody has asked about yet is remembered, and undefined is told for it. */
export interface Reading {
  get<N extends Need>(need: N): { readonly value: KnownOf<N> } | undefined;
  /** The file cannot be made before this is there, as a sentence's part: `key "a"`. */
  lacks(what: string): void;
}
