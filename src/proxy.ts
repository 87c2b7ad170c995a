// Ports of this host that stand for services, for any program and `trilith proxy`: by the agent of this host, without one by the tailnet.
import { agentAddress } from "./base/agent-address.ts";
import { systemClock } from "./base/clock.ts";
import { InputError, messageOf } from "./base/error.ts";
import { type Log, silentLog } from "./base/log.ts";
import { createMetrics, processMetrics } from "./base/metrics.ts";
import { hostPort, ipFamily, systemNet } from "./base/net.ts";
import {
  callback,
  milliseconds,
  mustBe,
  mustFit,
  objectWith,
  oneOf,
  type Rule,
  type Rules,
  text,
  texts,
  wholeNumber,
} from "./base/options.ts";
import { openFilesLimit, systemTcp } from "./base/tcp.ts";
import { systemUdp } from "./base/udp.ts";
import { followedServices, ownBalancer } from "./connect.ts";
import type { Backend, Backends, ProxyListener, ProxyOptions, ProxyStatus } from "./contracts/connect.ts";
import { createConnector } from "./lookup/connect/connector.ts";
import { subjectOfQuery } from "./lookup/connect/subject.ts";
import type { Names, Sought } from "./lookup/grpc/names.ts";
import { backendsOf } from "./lookup/node/backends.ts";
import type { Followed } from "./lookup/node/followed.ts";
import { mustDiffer, proxyRuleFromText } from "./model/proxy-rule.ts";
import type { Query } from "./model/query.ts";
import { prometheusText } from "./protocols/consul/prometheus.ts";
import { POLICIES } from "./wire/hook-table.ts";

/** What `proxy` is told besides its ports; the rest as a connector takes it. */
export interface ProxyServiceOptions extends Omit<ProxyOptions, "name" | "port"> {
  /** Where ports listen that name no address; default 127.0.0.1. */
  readonly bind?: string;
  /** The agent's DNS domain, for names such as "redis.service.consul"; default "consul". */
  readonly domain?: string;
  /** The agent to ask, and its token; as for `find`. */
  readonly agent?: string;
  readonly token?: string;
  readonly log?: Log;
  /** Told of each service at once and whenever something changes, as a sentence: "redis: 2 instances". */
  readonly onState?: (text: string) => void;
}

const atLeast0: Rule = ["milliseconds, a number from 0", (value) => typeof value === "number" && value >= 0];
const OPTIONS: Rules<ProxyServiceOptions> = {
  bind: text,
  domain: text,
  agent: text,
  token: text,
  log: objectWith("warn", "error", "part"),
  onState: callback,
  policy: oneOf(...POLICIES),
  caller: text,
  tryMs: milliseconds,
  limitMs: milliseconds,
  proxyProtocol: oneOf(1, 2),
  idleMs: milliseconds,
  clients: wholeNumber(1, 1_048_576),
  drainMs: atLeast0,
};

/** Ports that stand for services, until `stop`. */
export interface Proxies {
  /** What each port did so far, in the order they were given. */
  status(): readonly ProxyStatus[];
  /** The figures in Prometheus' text format 0.0.4. */
  metrics(): string;
  /** Listens no more at once; open connections go on until they end or for `drainMs`. Twice = once, the shorter time counts. */
  stop(drainMs?: number): Promise<void>;
}

/** Services are asked for so often at least, so that they stay followed. */
const STILL_WANTED_MS = 20_000;

/**
 * Listens at ports that stand for services, each written as `[HOST:]PORT[/udp]=NAME`: "6379=redis.service.consul", "53/udp=dns". Connections go to the
 * instance that the balancer chooses, or to the next one where that does not take them. Listens whether or not an agent is there yet; where
 * it goes away, what it said last goes on to be used.
 * @throws InputError for what cannot be understood, TrilithError `address-in-use`, `not-allowed` where a port cannot be had; then none is open
 */
export async function proxy(ports: readonly string[], options: ProxyServiceOptions = {}): Promise<Proxies> {
  mustBe("proxy: ports", ports, texts);
  mustFit("proxy", options, OPTIONS);
  const { bind = "127.0.0.1", domain = "consul", agent, token, log = silentLog, onState = () => {}, ...how } = options;
  if (ipFamily(bind) === 0) throw new InputError("bind", `"${bind}": expected an IP address such as 127.0.0.1`);
  const rules = ports.map((text) => proxyRuleFromText(text, domain));
  mustDiffer(rules, bind);
  for (const { protocol, port } of rules)
    if (protocol === "udp" && how.proxyProtocol !== undefined)
      throw new InputError(`${port}/udp`, "the PROXY protocol is for TCP only");

  const credentials = token === undefined ? {} : { token };
  const near = followedServices({ ...credentials, ...(agent === undefined ? {} : { agent }) });
  // Other datacenters are known to agents only: nobody stands in for them.
  const far = followedServices({ ...credentials, agent: agentAddress(agent).text });
  const followedFor = ({ datacenter }: Sought): Followed => (datacenter === undefined ? near : far);
  const nearby = nearFirst();
  const metrics = createMetrics();
  processMetrics(metrics);
  const soughts = new Map<Query, Sought>(rules.map(({ query }) => [query, soughtOf(query)]));
  const connector = createConnector({
    find(query, signal) {
      const sought = soughts.get(query) ?? soughtOf(query);
      const followed = followedFor(sought);
      const known = followed.peek(sought);
      return known === undefined ? followed.now(sought, signal).then(nearby) : nearby(known);
    },
    balancer: ownBalancer(),
    tcp: systemTcp,
    udp: systemUdp,
    clock: systemClock,
    log,
    metrics,
    filesLimit: openFilesLimit(),
    interfaces: () => systemNet.interfaces(),
  });
  const listeners: ProxyListener[] = [];
  const over = new AbortController();
  try {
    for (const { host = bind, port, protocol, query } of rules)
      listeners.push(await connector.proxy({ host, port, protocol }, query, how));
  } catch (error) {
    await connector.stop(0);
    throw error;
  }

  const watches = [...soughts].map(([query, sought]) => {
    let last = "";
    const tell = (text: string): void => {
      if (text === last) return;
      last = text;
      onState(`${subjectOfQuery(query)}: ${text}`);
    };
    const followed = followedFor(sought);
    const watch = followed.changed(sought, (names) => tell(stateOf(names)));
    followed.now(sought, over.signal).then(
      (names) => tell(stateOf(names)),
      (error: unknown) =>
        over.signal.aborted || tell(`${messageOf(error)}; connections are taken as soon as that changes`),
    );
    return watch;
  });
  const stillWanted = (): void => {
    for (const sought of soughts.values()) followedFor(sought).peek(sought);
    timer = systemClock.after(STILL_WANTED_MS, stillWanted);
  };
  let timer = systemClock.after(STILL_WANTED_MS, stillWanted);

  let stopped: Promise<void> | undefined;
  return {
    metrics: () => prometheusText(metrics.read()),
    status: () => listeners.map((listener) => listener.status()),
    stop(drainMs) {
      const all = Promise.all(listeners.map((listener) => listener.stop(drainMs)));
      stopped ??= all.then(() => {
        over.abort(new Error("the proxy is stopped"));
        timer.cancel();
        for (const watch of watches) watch.stop();
      });
      return stopped;
    },
  };
}

function soughtOf({ service, labels = {}, tags = [], datacenter }: Query): Sought {
  return { service, labels, tags, ...(datacenter === undefined ? {} : { datacenter }) };
}

function stateOf({ endpoints, known, fresh }: Names): string {
  const count = endpoints.length;
  const where = endpoints
    .slice(0, 3)
    .flatMap(({ addresses: [first] }) => (first ? [hostPort(first.host, first.port)] : []));
  const more = count > where.length ? `, and ${count - where.length} more` : "";
  const found =
    count === 0 ? (known ? "no healthy instance" : "there is no such service") : `${where.join(", ")}${more}`;
  return fresh ? found : `${found} (the last known good: nobody says anything newer)`;
}

/** Backends on this very host come first, as an agent would have it. */
function nearFirst(): (names: Names) => Backends {
  const made = new WeakMap<Backends["endpoints"], readonly Backend[]>();
  return (names) => {
    const backends = backendsOf(names);
    let endpoints = made.get(backends.endpoints);
    if (endpoints === undefined) {
      const own = new Set(systemNet.interfaces().map(({ address }) => address));
      endpoints = backends.endpoints.map((each) =>
        own.has(each.address) || each.address.startsWith("127.") ? { ...each, tier: 0 } : each,
      );
      made.set(backends.endpoints, endpoints);
    }
    return { ...backends, endpoints };
  };
}
