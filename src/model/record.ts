// The records that the directory holds, table by table, and how a record is addressed, numbered and changed.
import type { Check } from "./check.ts";
import type { Instance } from "./instance.ts";
import type { KvPair } from "./kv.ts";
import type { Node } from "./node.ts";
import type { Reason } from "./reason.ts";

/** A position on the directory's line of changes: a positive integer that only grows; 0 means "before everything". */
export type Index = number;

/** A session that holds locks (Consul's sessions). Durations in milliseconds. */
export interface Session {
  readonly id: string;
  readonly name: string;
  readonly node: string;
  readonly lockDelayMs: number;
  readonly behavior: "release" | "delete";
  readonly ttlMs?: number;
  readonly nodeChecks: readonly string[];
  readonly serviceChecks: readonly { readonly id: string; readonly namespace: string }[];
  /** Further checks of the node, whatever they are about. */
  readonly checks?: readonly string[];
  /** It is over, and its locks are being released, in several writes because they are many. */
  readonly ended?: true;
  /** The dialect's own words, handed back unchanged (Consul's text of the TTL). */
  readonly foreign?: Readonly<Record<string, unknown>>;
}

/** A sign of life: present while the agent of `node` keeps its lease in a shared store. */
export interface Alive {
  readonly node: string;
  /** The life that signs: another one after each start of the agent. */
  readonly life: string;
}

/**
 * What a dialect keeps beside the records that every wing knows: Consul's prepared queries, configuration entries, network coordinates.
 * Only the dialect that wrote it reads `value`.
 */
export interface Kept {
  /** What it is, as the dialect names it: "consul.coordinate". */
  readonly kind: string;
  /** Unique within its kind. */
  readonly id: string;
  readonly value: unknown;
  /** It is there as long as this session is: removing the session removes it. */
  readonly session?: string;
}

/** What is left of a removed record (or of one that moved away from a scope), so that no waiter sleeps on stale data. */
export interface Grave {
  /** The scopes that the change touched and that no living record speaks for any more. */
  readonly scopes: readonly Scope[];
  /** The nodes and services that were removed. */
  readonly gone?: readonly { readonly table: Table; readonly key: string }[];
  readonly why?: Reason;
  /** Only in the record `GRAVE_FLOOR`: removals up to here are no longer remembered one by one; no scope's index is below. */
  readonly floor?: Index;
}

/** The key of the one grave that stands for all that were cleared away. */
export const GRAVE_FLOOR = "floor";

/** The tables of the directory. Keys are made by `keyOf`. */
export interface Tables {
  readonly node: Node;
  readonly service: Instance;
  readonly check: Check;
  readonly kv: KvPair;
  readonly session: Session;
  readonly alive: Alive;
  readonly kept: Kept;
  readonly grave: Grave;
}

/** A table's name. */
export type Table = keyof Tables;

/** A record with its place on the line of changes. */
export type Entry<T extends Table> = Tables[T] & { readonly createIndex: Index; readonly modifyIndex: Index };

/** One change. A `delete` may say why, for the guard and for "why is it gone?". Deleting what is not there changes nothing. */
export type Change =
  | { [T in Table]: { readonly op: "put"; readonly table: T; readonly key: string; readonly value: Tables[T] } }[Table]
  | { readonly op: "delete"; readonly table: Table; readonly key: string; readonly why?: Reason };

/** A condition on a write: the record stands at this modifyIndex; 0 = it does not exist. */
export interface Expect {
  readonly table: Table;
  readonly key: string;
  readonly at: Index;
}

/** NUL, which joins the parts of keys: no name may contain it. */
export const SEPARATOR = "\u0000";

/** The keys of the tables. Parts are joined by NUL, which no name may contain; node and check keys ignore ASCII case. */
export const keyOf = {
  node: (node: string): string => node.toLowerCase(),
  service: (node: string, id: string): string => node.toLowerCase() + SEPARATOR + id,
  check: (node: string, id: string): string => node.toLowerCase() + SEPARATOR + id,
  kv: (key: string): string => key,
  session: (id: string): string => id,
  alive: (node: string): string => node.toLowerCase(),
  kept: (kind: string, id: string): string => kind + SEPARATOR + id,
  /** The prefix under which everything of a kind lies that a dialect keeps. */
  ofKind: (kind: string): string => kind + SEPARATOR,
  /** The prefix under which all services or checks of a node lie. */
  ofNode: (node: string): string => node.toLowerCase() + SEPARATOR,
} as const;

/** The part of a service's or check's key that names its node, as `keyOf.node` writes it. */
export function nodeOfKey(key: string): string {
  return key.slice(0, key.indexOf(SEPARATOR));
}

/** The part of a service's or check's key that is its ID on the node. */
export function idOfKey(key: string): string {
  return key.slice(key.indexOf(SEPARATOR) + 1);
}

/** A key, or the beginning of one, as the table has it: nodes are told apart without the case of their names. */
export function keyIn(table: Table, key: string): string {
  if (table === "node" || table === "alive") return key.toLowerCase();
  if (table !== "service" && table !== "check") return key;
  const end = key.indexOf(SEPARATOR);
  return end < 0 ? key : key.slice(0, end).toLowerCase() + key.slice(end);
}

/**
 * What a waiter waits for. `service:` covers the health of a service (instances, their nodes and checks), `instances:` only
 * instances and their nodes; `node:` a node with its services and checks; `tree:` all keys below a prefix; `kept:` what a dialect keeps of one kind; `alive` signs of life that
 * come and go. Names in scopes are lower case.
 */
export type Scope =
  | "alive"
  | "nodes"
  | "services"
  | "checks"
  | "sessions"
  | `node:${string}`
  | `service:${string}`
  | `instances:${string}`
  | `checks:${string}`
  | `kv:${string}`
  | `tree:${string}`
  | `session:${string}`
  | `kept:${string}`;

/** Makes scopes; every name is brought to the case in which scopes are compared. */
export const scope = {
  node: (name: string): Scope => `node:${name.toLowerCase()}`,
  /** Health of a service: its instances, their nodes, their checks. */
  service: (name: string): Scope => `service:${name.toLowerCase()}`,
  /** Instances of a service and their nodes, not their checks. */
  instances: (name: string): Scope => `instances:${name.toLowerCase()}`,
  /** The checks that belong to a service's instances, without node checks. */
  checksOf: (name: string): Scope => `checks:${name.toLowerCase()}`,
  kv: (key: string): Scope => `kv:${key}`,
  tree: (prefix: string): Scope => `tree:${prefix}`,
  session: (id: string): Scope => `session:${id}`,
  /** Everything of one kind that a dialect keeps. */
  kept: (kind: string): Scope => `kept:${kind}`,
} as const;
