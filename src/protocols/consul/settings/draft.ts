// What is gathered while configuration files and flags are read, before it becomes settings.
import type { LogLevel } from "../../../base/log.ts";
import type { Settings } from "../../../contracts/settings.ts";
import type { WatchConfig } from "../watch-config.ts";
import type { Value } from "./value.ts";

/** What is gathered while files and flags are read; later ones win. */
export interface Draft {
  node?: string;
  nodeId?: string;
  datacenter?: string;
  domain?: string;
  dataDir?: string;
  dev?: boolean;
  compat?: Settings["compat"];
  storage?: Settings["storage"];
  etcd?: { endpoints: readonly string[]; prefix: string; livenessMs: number };
  /** Trilith's own `join` and `--join`: URLs. */
  join?: readonly string[];
  /** Consul's retry_join and start_join: hosts of the cluster; servers of a cluster name each other there, too. */
  readonly cluster: { readonly key: string; readonly value: Value }[];
  server?: boolean;
  joinLivenessMs?: number;
  joinToken?: string;
  /** Trilith's own `peers` and what belongs to it. */
  readonly peers: { -readonly [K in keyof NonNullable<Settings["peers"]>]?: NonNullable<Settings["peers"]>[K] };
  datacenters?: Record<string, readonly string[]>;
  client?: string;
  httpAddress?: string;
  dnsAddress?: string;
  bindAddress?: string;
  advertiseAddress?: string;
  readonly nodeLabels: Record<string, string>;
  httpPort?: number;
  scripts?: boolean;
  localScripts?: boolean;
  checkUpdateMs?: number;
  leaveOnTerm?: boolean;
  logLevel?: LogLevel;
  logFormat?: "text" | "json";
  readonly dns: Record<string, unknown>;
  readonly soa: Record<string, number>;
  readonly consul: Record<string, unknown>;
  readonly docker: Record<string, unknown>;
  readonly process: Record<string, unknown>;
  readonly magic: { v4?: string; v6?: string };
  readonly guard: Partial<Writable<Settings["guard"]>>;
  readonly hook: { enabled: boolean; readonly keys: Record<string, unknown> };
  /** Trilith's own `protocols` and `--mdns`: raw configuration by protocol. */
  readonly told: Record<string, unknown>;
  readonly servicePaths: string[];
  /** True = checks speak TLS as the agent does. */
  tlsForChecks?: boolean;
  /** The agent's own TLS files and name, by the key they were given under. */
  readonly tls: Map<keyof NonNullable<Settings["checkTls"]>, { readonly key: string; readonly value: string }>;
  readonly ignored: Set<string>;
  readonly watches: WatchConfig[];
  /** What files told under keys that a reload does not take, as text by key. */
  readonly untilRestart: Record<string, string>;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

export type Setter = (draft: Draft, value: Value) => void;
/** Taken over, or accepted without an effect. A name with `*` covers everything below it. */
export type Known = Setter | "ignored";

/** A configuration of which nothing is told yet. */
export function newDraft(): Draft {
  return {
    nodeLabels: Object.create(null) as Record<string, string>,
    cluster: [],
    peers: {},
    magic: {},
    guard: {},
    hook: { enabled: true, keys: {} },
    dns: {},
    soa: {},
    consul: {},
    docker: {},
    process: {},
    told: Object.create(null) as Record<string, unknown>,
    servicePaths: [],
    tls: new Map(),
    ignored: new Set(),
    watches: [],
    untilRestart: Object.create(null) as Record<string, string>,
  };
}
