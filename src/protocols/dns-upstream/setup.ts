// The protocol "dns-upstream": services that DNS elsewhere knows, by SRV records or by the addresses of a name.
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { reloadable } from "../../contracts/reloaded-source.ts";
import { Nameservers } from "../../wire/dns/index.ts";
import { configureDnsUpstream, type DnsUpstreamConfig, refuseOwnDomain } from "./config.ts";
import { SOURCE } from "./registrations.ts";
import { DnsUpstreamSource } from "./source.ts";

const RESOLV_CONF = "/etc/resolv.conf";

type Needs = "clock" | "random" | "log" | "disk" | "net" | "directory" | "probes" | "self";

export const dnsUpstream: Protocol<DnsUpstreamConfig | undefined, Needs> = defineProtocol({
  name: "dns-upstream",
  needs: ["clock", "random", "log", "disk", "net", "directory", "probes", "self"],
  configure: configureDnsUpstream,
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { clock, random, log, disk, net, directory, probes, self } = ground;
    const { node } = self;
    const make = (now: DnsUpstreamConfig): DnsUpstreamSource => {
      refuseOwnDomain(now, self.domain);
      return new DnsUpstreamSource(now, {
        ...{ clock, random, log, directory, node, tcp: probes.get("tcp") },
        nameservers: (servers) =>
          new Nameservers({
            ...{ servers, strategy: "sequential", timeoutMs: now.timeoutMs, resolvConf: RESOLV_CONF },
            ...{ net, disk, clock, random },
            // The source says itself which name is not answered, and why.
            log: { ...log, warn: log.debug },
            // Names of this agent's own domain are refused; of others it asks, as everybody, whom it was told.
            isOwn: () => false,
          }),
      });
    };
    return reloadable({ name: SOURCE, configure: configureDnsUpstream, make }, config);
  },
});
