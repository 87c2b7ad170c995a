// Whom this agent leans on: the servers it joined, the agents of other datacenters; what it asks them and what it hands on to them.
import type { Clock } from "../../base/clock.ts";
import type { Durable } from "../../base/durable.ts";
import type { Handler, Http } from "../../base/http.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { Servers } from "../../base/servers.ts";
import type { Directory } from "../../contracts/directory.ts";
import type { SourceState } from "../../contracts/ground.ts";
import type { Kv } from "../../contracts/kv.ts";
import type { Settings } from "../../contracts/settings.ts";
import { keyOf } from "../../model/record.ts";
import { createRemoteStorage, type RemoteStorage } from "../remote.ts";
import type { RunningSessions } from "../session.ts";
import { ALIVE_CHECK } from "./consul-wire.ts";
import { createDatacenters, type Datacenters } from "./datacenters.ts";
import { kvAt, sessionsAt } from "./kept.ts";
import { createProxy } from "./proxy.ts";
import { type QueriesElsewhere, queriesOf } from "./queries.ts";

export interface OthersOptions {
  readonly settings: Pick<Settings, "join" | "datacenters" | "datacenter">;
  /** This host's node. */
  readonly node: string;
  readonly durable: Durable;
  readonly http: Http;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** The other agents of one agent. */
export interface Others {
  /** The store of a client host; undefined = this agent has one of its own. */
  readonly storage: RemoteStorage | undefined;
  /** The keys of a client host, and its sessions on top of what answers for those of the copy; undefined = this agent has its own. */
  readonly kept: { readonly kv: Kv; sessions(own: RunningSessions): RunningSessions } | undefined;
  /** Answers for other datacenters. */
  readonly upstream: Datacenters;
  /** Prepared queries of a datacenter where they are kept by others: our own on a client host, and other known ones. */
  queries(datacenter: string): QueriesElsewhere | undefined;
  /** How it stands with the joined servers, for people; empty where none are. */
  state(): readonly SourceState[];
  /** Puts the handing on in front of a handler. */
  inFrontOf(own: Handler, directory: () => Directory): Handler;
}

/** Builds them; nothing is asked yet. */
export function createOthers({ settings, node, durable, http, clock, random, log }: OthersOptions): Others {
  const { join } = settings;
  const serversOf = (urls: readonly string[]): Servers => new Servers({ urls, token: join?.token, http, clock, log });
  const joined = join === undefined ? undefined : serversOf(join.servers);
  const datacenters = new Map(
    Object.entries(settings.datacenters ?? {}).map(([name, urls]) => [name.toLowerCase(), serversOf(urls)] as const),
  );
  const storage =
    join === undefined || joined === undefined
      ? undefined
      : createRemoteStorage({
          servers: joined,
          node,
          datacenter: settings.datacenter,
          livenessMs: join.livenessMs,
          durable,
          clock,
          random,
          log,
        });
  return {
    storage,
    kept:
      joined === undefined || storage === undefined
        ? undefined
        : { kv: kvAt(joined, () => storage.ofConsul()), sessions: (own) => sessionsAt(joined, own) },
    upstream: createDatacenters({
      own: settings.datacenter,
      ...(joined === undefined ? {} : { joined }),
      datacenters,
      clock,
      random,
      log,
    }),
    queries(datacenter) {
      const lower = datacenter.toLowerCase();
      const servers = lower === settings.datacenter.toLowerCase() ? joined : datacenters.get(lower);
      return servers === undefined ? undefined : queriesOf(servers, node);
    },
    state: () => (storage === undefined ? [] : [{ name: "join", ...storage.state() }]),
    inFrontOf: (own, directory) =>
      createProxy(
        {
          datacenter: settings.datacenter,
          ...(joined === undefined ? {} : { joined }),
          datacenters,
          sessionNode: () =>
            directory().view().get("node", keyOf.node(node)) === undefined || storage === undefined
              ? undefined
              : { Node: node, ...(storage.ofConsul() ? { NodeChecks: [ALIVE_CHECK] } : {}) },
          caughtUp: (signal) => directory().barrier(signal),
          clock,
          log,
        },
        own,
      ),
  };
}
