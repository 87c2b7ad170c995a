// What a protocol may be handed: it names what it needs, the rest does not compile.
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import type { TrilithError } from "../base/error.ts";
import type { Http } from "../base/http.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Net } from "../base/net.ts";
import type { Processes } from "../base/process.ts";
import type { Random } from "../base/random.ts";
import type { Agent } from "./agent.ts";
import type { Connector } from "./connect.ts";
import type { Directory } from "./directory.ts";
import type { Events } from "./event.ts";
import type { Kv } from "./kv.ts";
import type { Lookup } from "./lookup.ts";
import type { Magic } from "./magic.ts";
import type { Nearby } from "./nearby.ts";
import type { Prepared } from "./prepared.ts";
import type { Probe } from "./probe.ts";
import type { Told } from "./protocol.ts";
import type { Sessions } from "./session.ts";
import type { SourceHealth } from "./source.ts";

/** Facts about this agent that every dialect tells. */
export interface Self {
  readonly version: string;
  readonly node: string;
  readonly nodeId: string;
  readonly datacenter: string;
  /** Other datacenters that can be asked, by name in lower case. */
  readonly datacenters?: readonly string[];
  /** True on a client host: its servers may know further datacenters. */
  readonly joined?: boolean;
  /** The DNS domain without dots at its ends: "consul". */
  readonly domain: string;
  readonly advertiseAddress: string;
  readonly bindAddress: string;
  /** Unix ms. */
  readonly startedAtMs: number;
  /** True for `-dev`: nothing is kept on disk. */
  readonly dev: boolean;
  /** "consul": recorded behaviour of Consul wins over our own better defaults. */
  readonly compat: "none" | "consul";
  /** True where this host is only a client: what it does not hold itself is asked of the agents it joined, on its own HTTP listener. */
  readonly client?: boolean;
  /** True while script checks are allowed, and from where. */
  readonly scripts: { readonly fromApi: boolean; readonly fromFiles: boolean };
  /** Where the agent listens, filled in as parts start: "http" → "127.0.0.1:8500". */
  readonly listening: ReadonlyMap<string, string>;
}

/** The state of a source as `doctor` shows it. */
export interface SourceState extends SourceHealth {
  readonly name: string;
}

/** All that a protocol may be handed; it gets what it names in `needs`. */
export interface Ground {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly disk: Disk;
  readonly net: Net;
  readonly http: Http;
  readonly processes: Processes;
  readonly metrics: Metrics;
  readonly directory: Directory;
  readonly kv: Kv;
  readonly sessions: Sessions;
  readonly events: Events;
  readonly agent: Agent;
  readonly lookup: Lookup;
  /** Reaches services: by one connection, or by a port that stands for one. */
  readonly connector: Connector;
  readonly prepared: Prepared;
  readonly magic: Magic;
  readonly self: Self;
  /** All ways to ask "alive?" by kind, for decoders of check definitions. */
  readonly probes: ReadonlyMap<string, Probe>;
  /** The state of every source, for start-up message and doctor. */
  readonly sources: () => readonly SourceState[];
  /** Resolves when every source has told its first list; never, where one has nothing to tell. Asked once the parts run. */
  readonly firstLists?: () => Promise<unknown>;
  /** What each dialect would answer about a service now; what fails in one is told in its place. */
  readonly answers: (
    service: string,
    signal: AbortSignal,
  ) => Promise<readonly ({ readonly protocol: string } & Told)[]>;
  /** Why nothing can be written to the data folder at present, looked at now; undefined where writing works. */
  readonly dataTrouble: () => Promise<TrilithError | undefined>;
  /**
   * Keeps a sign of life for another node, which gave it to this agent, until aborted; then it runs out after `ttlMs` unless somebody
   * vouches for it again. `life` is another text after each start of that node.
   */
  readonly vouch: (node: string, life: string, ttlMs: number, signal: AbortSignal) => Promise<void>;
  /** On a client host: the nodes that its directory comes from, the nearest first; empty while that is not known, and elsewhere. */
  readonly via?: () => readonly string[];
  /** Others of one kind on this LAN. */
  readonly nearby?: Nearby;
  /** True once it is known that the node leaves the directory when this agent stops. */
  readonly leaving?: () => boolean;
  /** Ask the agent to re-read its files, or to stop; `leave` also takes the node out of the directory. */
  readonly control: { reload(): Promise<void>; stop(leave?: boolean): void };
}
