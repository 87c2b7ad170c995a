// The protocol "dns": names of services and nodes answered over UDP and TCP.
import { hostPort } from "../../base/net.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { createResponder } from "./answer.ts";
import { type DnsConfig, policyOf, readConfig } from "./config.ts";
import { createServer } from "./server.ts";

type Needs = "directory" | "lookup" | "clock" | "random" | "log" | "net" | "self" | "metrics";

/** See README.md for the keys and the names. */
export const dns: Protocol<DnsConfig, Needs> = defineProtocol({
  name: "dns",
  needs: ["directory", "lookup", "clock", "random", "log", "net", "self", "metrics"],
  configure: readConfig,
  setup(config, ground) {
    if (config.port === -1) return undefined;
    const { directory, lookup, clock, random, net, self, metrics } = ground;
    const log = ground.log.part("dns");
    const policy = policyOf(config, self.compat === "consul", self.domain);
    const responder = createResponder({ policy, directory, lookup, clock, random, log, metrics, self });
    const { hosts, port, tcpIdleMs } = config;
    if (hosts.some((host) => host !== "::1" && !host.startsWith("127.")))
      log.debug("listens beyond this host", { hosts: hosts.map((host) => hostPort(host, port)) });
    return { listeners: [createServer({ net, clock, log, responder, hosts, port, tcpIdleMs })] };
  },
});
