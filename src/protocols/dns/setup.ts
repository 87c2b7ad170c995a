// The protocol "dns": names of services and nodes answered over UDP and TCP.
import { hostPort } from "../../base/net.ts";
import { defineProtocol, type Listener, type Protocol } from "../../contracts/protocol.ts";
import { createResponder, type Responder } from "./answer.ts";
import { type DnsConfig, policyOf, readConfig } from "./config.ts";
import { type Containers, createContainers } from "./containers.ts";
import { createAccess, type Network } from "./networks.ts";
import { createPlaces } from "./places.ts";
import { createRecursors, type Recursors } from "./recursors.ts";
import { ReplacedResponder } from "./replaced.ts";
import { createServer } from "./server.ts";
import { tellOf } from "./tell.ts";

type Needs =
  | "magic"
  | "directory"
  | "lookup"
  | "prepared"
  | "clock"
  | "random"
  | "log"
  | "net"
  | "disk"
  | "self"
  | "metrics";

const NO_NETWORKS: readonly Network[] = [];

/** See README.md for the keys and the names. */
export const dns: Protocol<DnsConfig, Needs> = defineProtocol({
  name: "dns",
  needs: ["magic", "directory", "lookup", "prepared", "clock", "random", "log", "net", "disk", "self", "metrics"],
  configure: readConfig,
  setup(config, ground) {
    const { hosts, port, tcpIdleMs, bridge, bridgePort, procNet } = config;
    if (port === -1 && bridge === undefined) return undefined;
    const { magic, directory, lookup, prepared, clock, random, net, disk, self, metrics } = ground;
    const log = ground.log.part("dns");
    const places = createPlaces(net);
    let containers: Containers | undefined;
    /** What answers by a configuration; where it listens is no part of that. */
    const responderOf = (now: DnsConfig): Responder => {
      const policy = policyOf(now, self.compat === "consul", self.domain);
      // Containers that ask nobody else need the rest of the world as well.
      const servers = now.recursors ?? (bridge === undefined ? [] : (["system"] as const));
      const recursors = (): Recursors =>
        createRecursors({
          servers,
          strategy: now.recursorStrategy,
          timeoutMs: now.recursorTimeoutMs,
          cacheBytes: now.recursorCacheBytes,
          resolvConf: now.resolvConf,
          isOwn: places.isOwn,
          ...{ net, disk, clock, random, log, metrics },
        });
      const access = createAccess(policy.recursionFrom, () => containers?.networks() ?? NO_NETWORKS);
      return createResponder({
        ...{ policy, directory, lookup, prepared, magic, clock, random, log, metrics, self },
        ...(servers.length === 0 ? {} : { recursion: { access, recursors: recursors() } }),
      });
    };
    const responder = new ReplacedResponder(responderOf(config));
    let last = textOf(config);
    const listeners: Listener[] = [];
    const shared = { net, clock, log, responder, tcpIdleMs, places };
    if (port !== -1) listeners.push(createServer({ ...shared, hosts, port }));
    if (bridge !== undefined) {
      const covered = (address: string): boolean =>
        port === bridgePort &&
        (hosts.includes(address) || hosts.includes(address.includes(":") ? "::" : "0.0.0.0") || hosts.includes("::"));
      containers = createContainers({ ...shared, port: bridgePort, bridges: bridge, disk, procNet, covered });
      listeners.push(containers.listener);
    }
    if (port !== -1 && hosts.some((host) => host !== "::1" && !host.startsWith("127.")))
      log.debug("listens beyond this host", { hosts: hosts.map((host) => hostPort(host, port)) });
    return {
      listeners,
      states: () => (containers === undefined ? [] : [{ name: "dns", ...containers.state() }]),
      answers: async (service) => tellOf(responder, service, self),
      rereads: true,
      async reload(read) {
        if (read === undefined) return;
        const now = readConfig(read.raw);
        for (const [key, name] of UNTIL_RESTART)
          if (JSON.stringify(now[key]) !== JSON.stringify(config[key]))
            log.warn(`${name} is another one now: it counts after a restart`);
        const text = textOf(now);
        if (text === last) return;
        responder.replace(responderOf(now));
        last = text;
      },
    };
  },
});

/** Where it listens; each with the keys that say so. */
const UNTIL_RESTART: readonly (readonly [key: keyof DnsConfig, name: string])[] = [
  ["hosts", "dns.host (client_addr, addresses.dns)"],
  ["port", "dns.port (ports.dns)"],
  ["tcpIdleMs", "dns.tcpIdleMs"],
  ["bridge", "dns.bridge (dns_config.bridge)"],
  ["bridgePort", "dns.bridgePort"],
  ["procNet", "dns.procNet"],
];

/** To see whether another configuration is of any difference to answers. */
function textOf(config: DnsConfig): string {
  const rest = Object.entries(config).filter(([key]) => !UNTIL_RESTART.some(([one]) => one === key));
  return JSON.stringify(rest, (_key, value: unknown) => (value instanceof Map ? [...value] : value));
}
