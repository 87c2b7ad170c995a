// What an agent is told at start, in Trilith's own words; foreign configuration files are translated into this by their protocol's folder.
import type { LogLevel } from "../base/log.ts";
import type { Labels } from "../model/node.ts";

/** What an agent is told: by its flags and files, or by `createTrilith`. Times in milliseconds. */
export interface Settings {
  /** The node's name; the host name when absent. */
  readonly node?: string;
  /** The node's UUID; kept in the data folder (made once) when absent. */
  readonly nodeId?: string;
  readonly datacenter: string;
  /** The DNS domain without dots at its ends. */
  readonly domain: string;
  /** Absent with `dev`: nothing is kept. */
  readonly dataDir?: string;
  readonly dev: boolean;
  readonly compat: "none" | "consul";
  readonly storage: "memory" | "lmdb" | "etcd";
  readonly etcd?: {
    /** `http://host:port` of one or several members. */
    readonly endpoints: readonly string[];
    /** Everything lies below this prefix; default "/trilith/". */
    readonly prefix: string;
    /** Without a sign of life for so long a node counts as gone; default 15 000. */
    readonly livenessMs: number;
    readonly username?: string;
    readonly password?: string;
    readonly caFile?: string;
    readonly certFile?: string;
    readonly keyFile?: string;
  };
  /** This host is only a client: its directory is kept in step with another agent's (Trilith's or a real Consul's), nothing is stored here. */
  readonly join?: {
    /** `http://host:port` of one or several agents, tried in their order. */
    readonly servers: readonly string[];
    /** Without a sign of life for so long this host's node turns critical at the servers; default 15 000. */
    readonly livenessMs: number;
    /** Sent with every request to the servers, where they want one. */
    readonly token?: string;
  };
  /** No server: agents that see each other show each other their own services (protocols/peers). */
  readonly peers?: {
    /** How others are found. */
    readonly find: "tailnet" | "lan" | "list";
    /** For "list": `host` or `host:port` of one or several others; also taken with the other ways. */
    readonly hosts?: readonly string[];
    /** Where this agent shows its own, and where others are looked for that tell no port; default 8504. */
    readonly port?: number;
    /** The address to listen at; by default the tailnet's, or the one this agent binds. */
    readonly bind?: string;
    /** The secret that all hosts of a LAN share; at least 16 characters. */
    readonly key?: string;
    /** tailscaled's unix socket, where it is elsewhere. */
    readonly tailscaled?: string;
  };
  /** Other datacenters: the URLs of their agents, by the datacenter's name in lower case. */
  readonly datacenters?: Readonly<Record<string, readonly string[]>>;
  /** Where listeners bind unless they have an address of their own; default 127.0.0.1. */
  readonly clientAddress: string;
  readonly bindAddress: string;
  /** The address other hosts reach this node at. */
  readonly advertiseAddress?: string;
  readonly nodeLabels: Labels;
  /** -1 = off. */
  readonly httpPort: number;
  readonly scripts: { readonly fromApi: boolean; readonly fromFiles: boolean };
  /**
   * What checks bring to their TLS connections: PEM files, and the name of servers for checks that tell none (the node's when absent).
   * Absent: the system's authorities, no certificate, the name that was connected to.
   */
  readonly checkTls?: {
    readonly caFile?: string;
    readonly certFile?: string;
    readonly keyFile?: string;
    readonly serverName?: string;
  };
  /** How often everything is compared with the directory, before jitter; default 60 000. */
  readonly antiEntropyMs: number;
  /** How long a change of check output alone may wait; default 300 000; 0 = not at all. */
  readonly checkUpdateMs: number;
  /** Leave the directory (deregister the node) when stopped by SIGTERM; default false. */
  readonly leaveOnTerm: boolean;
  readonly guard: {
    /** The share of instances (0..1) that must go within `windowMs` for the guard to hold; default 0.5. */
    readonly dropShare: number;
    /** Services with fewer instances than this are never held; default 3. */
    readonly minInstances: number;
    readonly windowMs: number;
    readonly holdMs: number;
    /** Below this percentage of healthy instances all are answered; default 0 = off. */
    readonly panicPercent: number;
    readonly perService: Readonly<Record<string, Partial<Omit<Settings["guard"], "perService">>>>;
  };
  /**
   * Where magic addresses lie (contracts/magic.ts): `v4` a range such as "127.128.0.0/9" (the default), `v6` one of unique local addresses
   * (by default one made for this host alone and kept).
   */
  readonly magic?: { readonly v4?: string; readonly v6?: string };
  readonly log: { readonly level: LogLevel; readonly format: "text" | "json" };
  /** Raw configuration by protocol name, handed to that protocol's `configure`; `false` switches it off. */
  readonly protocols: Readonly<Record<string, unknown>>;
  /** What was accepted without having an effect, to be warned about by name at start. */
  readonly ignored: readonly string[];
  /**
   * What was told that a reload does not take, by the name under which it was told ("ports.http"), as text: so that a reload can say by name what is
   * another one and waits for a restart. Absent = by the settings' own names.
   */
  readonly untilRestart?: Readonly<Record<string, string>>;
}

/** What holds where nothing is told. */
export const defaultSettings: Settings = {
  datacenter: "dc1",
  domain: "consul",
  dev: false,
  compat: "none",
  storage: "lmdb",
  clientAddress: "127.0.0.1",
  bindAddress: "127.0.0.1",
  nodeLabels: {},
  httpPort: 8500,
  scripts: { fromApi: false, fromFiles: false },
  antiEntropyMs: 60_000,
  checkUpdateMs: 300_000,
  leaveOnTerm: false,
  guard: { dropShare: 0.5, minInstances: 3, windowMs: 60_000, holdMs: 600_000, panicPercent: 0, perService: {} },
  log: { level: "info", format: "text" },
  protocols: {},
  ignored: [],
};
