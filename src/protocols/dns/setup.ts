// The protocol "dns": names of services and nodes answered over UDP and TCP.
import { hostPort } from "../../base/net.ts";
import { defineProtocol, type Listener, type Protocol } from "../../contracts/protocol.ts";
import { createResponder } from "./answer.ts";
import { type DnsConfig, policyOf, readConfig } from "./config.ts";
import { type Containers, createContainers } from "./containers.ts";
import { createAccess, type Network } from "./networks.ts";
import { createPlaces } from "./places.ts";
import { createRecursors } from "./recursors.ts";
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
    const policy = policyOf(config, self.compat === "consul", self.domain);
    const places = createPlaces(net);
    // Containers that ask nobody else need the rest of the world as well.
    const recursors = config.recursors ?? (bridge === undefined ? [] : (["system"] as const));
    let containers: Containers | undefined;
    const recursion =
      recursors.length === 0
        ? undefined
        : {
            access: createAccess(policy.recursionFrom, () => containers?.networks() ?? NO_NETWORKS),
            recursors: createRecursors({
              servers: recursors,
              strategy: config.recursorStrategy,
              timeoutMs: config.recursorTimeoutMs,
              cacheBytes: config.recursorCacheBytes,
              resolvConf: config.resolvConf,
              isOwn: places.isOwn,
              ...{ net, disk, clock, random, log, metrics },
            }),
          };
    const responder = createResponder({
      ...{ policy, directory, lookup, prepared, magic, clock, random, log, metrics, self },
      ...(recursion === undefined ? {} : { recursion }),
    });
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
    return { listeners, answers: async (service) => tellOf(responder, service, self) };
  },
});
