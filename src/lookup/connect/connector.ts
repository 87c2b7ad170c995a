// Reaches services for this agent or program: one balancer, all proxies, and what they share.
import type { Log } from "../../base/log.ts";
import type { Metrics } from "../../base/metrics.ts";
import type { Udp } from "../../base/udp.ts";
import type { Connector, ProxyListener, ProxyOn } from "../../contracts/connect.ts";
import type { Query } from "../../model/query.ts";
import { BufferPool } from "./buffers.ts";
import { subjectOfQuery } from "./subject.ts";
import { Tally } from "./tally.ts";
import { listenTcp, type ProxyParts, type ProxyShare } from "./tcp-proxy.ts";
import { type Reach, reachService } from "./tries.ts";
import { listenUdp } from "./udp-proxy.ts";

export interface ConnectorParts extends Omit<Reach, "isOwn"> {
  readonly udp: Udp;
  readonly log: Log;
  readonly metrics: Metrics;
  /** How many files this process may have open. */
  readonly filesLimit: number;
  /** This host's addresses, for what listens on all of them. */
  readonly interfaces: () => readonly { readonly address: string }[];
}

/** A connector with its end. */
export interface RunningConnector extends Connector {
  /** Stops all proxies; open connections have so long to end. Afterwards nothing is open. */
  stop(drainMs?: number): Promise<void>;
}

/** What an agent needs besides: its store, its HTTP connections, its log. */
const FILES_LEFT = 128;
/** Kept free at any time, for connections to backends and what else cannot wait. */
const FILES_SPARE = 16;
const SHORT_EVERY_MS = 60_000;

/** See `ConnectorParts`. */
export function createConnector(parts: ConnectorParts): RunningConnector {
  const { metrics, clock } = parts;
  const log = parts.log.part("connect");
  const running = new Set<ProxyListener>();
  /** Where it listens itself: addresses by port. */
  const own = { tcp: new Map<number, Set<string>>(), udp: new Map<number, Set<string>>() };
  const pool = new BufferPool();
  // A connection that is passed on takes two.
  const places = Math.max(16, Math.floor((parts.filesLimit - FILES_LEFT) / 2));
  // Whoever uses up the files, libuv would close further clients without a word to anybody.
  const highest = parts.filesLimit - FILES_SPARE;
  let taken = 0;
  let shortMs = Number.NEGATIVE_INFINITY;
  const reach: Reach = {
    ...parts,
    isOwn(address, port, transport) {
      const hosts = own[transport].get(port);
      if (hosts === undefined || hosts.has(address)) return hosts !== undefined;
      if (!ANY.some((host) => hosts.has(host))) return false;
      return LOOPBACK.test(address) || parts.interfaces().some((each) => each.address === address);
    },
  };
  const share: ProxyShare = {
    reach,
    log,
    pool,
    enter(fd = 0) {
      if (taken >= places || fd >= highest) return false;
      taken++;
      return true;
    },
    left() {
      taken--;
    },
    short() {
      if (clock.monotonic() - shortMs < SHORT_EVERY_MS) return;
      shortMs = clock.monotonic();
      log.warn(
        `too many connections: ${taken} are open, and this process may have ${parts.filesLimit} files (ulimit -n, LimitNOFILE=)`,
      );
    },
  };
  metrics.gauge("proxy_connections_open", "Connections that are passed on now (UDP: clients)", () => taken);

  return {
    async dial(query, options = {}) {
      const { socket, target, retries } = await reachService(reach, query, options);
      socket.once("close", () => parts.balancer.closed(target));
      const { address, port } = target.backend;
      return { socket, backend: { address, port }, retries };
    },
    async proxy(on, query, options = {}) {
      let made: ProxyListener | undefined;
      let here = false;
      const name = options.name ?? nameOf(on, query);
      const all: ProxyParts = {
        ...share,
        name,
        query,
        options,
        tally: new Tally(metrics, name),
        ended() {
          if (made === undefined) return;
          running.delete(made);
          if (here) own[made.status().protocol].get(made.port)?.delete(made.host);
        },
      };
      if ("server" in on) made = await listenTcp(on.server, all);
      else if ("datagrams" in on) made = await listenUdp(on.datagrams, { ...all, udp: parts.udp });
      else made = on.protocol === "udp" ? await listenUdp(on, { ...all, udp: parts.udp }) : await listenTcp(on, all);
      here = "host" in on || on.here === true;
      if (here) {
        const ports = own[made.status().protocol];
        ports.set(made.port, (ports.get(made.port) ?? new Set()).add(made.host));
      }
      running.add(made);
      return made;
    },
    proxies: () => [...running],
    async stop(drainMs) {
      await Promise.all([...running].map((each) => each.stop(drainMs)));
    },
  };
}

const ANY = ["0.0.0.0", "::"] as const;
const LOOPBACK = /^(127\.|::1$)/;

function nameOf(on: ProxyOn, query: Query): string {
  if (!("host" in on)) return subjectOfQuery(query);
  return `${on.port}${on.protocol === "udp" ? "/udp" : ""}=${subjectOfQuery(query)}`;
}
