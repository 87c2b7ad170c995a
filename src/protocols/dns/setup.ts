// The protocol "dns": names of services and nodes answered over UDP and TCP.
import { hostPort } from "../../base/net.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { createResponder } from "./answer.ts";
import { type DnsConfig, policyOf, readConfig } from "./config.ts";
import { createAccess, type Network } from "./networks.ts";
import { createPlaces } from "./places.ts";
import { createRecursors } from "./recursors.ts";
import { createServer } from "./server.ts";

type Needs = "directory" | "lookup" | "prepared" | "clock" | "random" | "log" | "net" | "disk" | "self" | "metrics";

const NO_NETWORKS: readonly Network[] = [];

/** See README.md for the keys and the names. */
export const dns: Protocol<DnsConfig, Needs> = defineProtocol({
  name: "dns",
  needs: ["directory", "lookup", "prepared", "clock", "random", "log", "net", "disk", "self", "metrics"],
  configure: readConfig,
  setup(config, ground) {
    if (config.port === -1) return undefined;
    const { directory, lookup, prepared, clock, random, net, disk, self, metrics } = ground;
    const log = ground.log.part("dns");
    const policy = policyOf(config, self.compat === "consul", self.domain);
    const { hosts, port, tcpIdleMs } = config;
    const places = createPlaces(net);
    const recursion =
      config.recursors === undefined || config.recursors.length === 0
        ? undefined
        : {
            access: createAccess(config.recursionFrom, () => NO_NETWORKS),
            recursors: createRecursors({
              recursors: config.recursors,
              strategy: config.recursorStrategy,
              timeoutMs: config.recursorTimeoutMs,
              cacheBytes: config.recursorCacheBytes,
              resolvConf: config.resolvConf,
              isOwn: places.isOwn,
              ...{ net, disk, clock, random, log, metrics },
            }),
          };
    const responder = createResponder({
      ...{ policy, directory, lookup, prepared, clock, random, log, metrics, self },
      ...(recursion === undefined ? {} : { recursion }),
    });
    if (hosts.some((host) => host !== "::1" && !host.startsWith("127.")))
      log.debug("listens beyond this host", { hosts: hosts.map((host) => hostPort(host, port)) });
    return { listeners: [createServer({ net, clock, log, responder, hosts, port, tcpIdleMs, places })] };
  },
});
