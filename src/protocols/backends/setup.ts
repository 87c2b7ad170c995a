// The protocol "backends": hosts POST themselves into a list that a load balancer reads, as dynproxy keeps one.
import { withinNetworks } from "../../base/networks.ts";
import { httpListener } from "../../contracts/http-listener.ts";
import { defineProtocol, type Protocol, type Told } from "../../contracts/protocol.ts";
import { type BackendsConfig, configureBackends } from "./config.ts";
import { backendList, createBackendsHandler } from "./server.ts";

export const backends: Protocol<
  BackendsConfig | undefined,
  "clock" | "log" | "net" | "http" | "agent" | "lookup" | "probes"
> = defineProtocol({
  name: "backends",
  needs: ["clock", "log", "net", "http", "agent", "lookup", "probes"],
  configure: configureBackends,
  setup(config, { clock, log, net, http, agent, lookup, probes }) {
    if (config === undefined) return undefined;
    // Looked at with each request: interfaces come and go.
    const allowed = (address: string): boolean =>
      withinNetworks(config.networks ?? net.interfaces().map(({ cidr }) => cidr))(address);
    const handle = createBackendsHandler({
      config,
      agent,
      lookup,
      clock,
      allowed,
      tcp: probes.get("tcp"),
      log: log.part("backends"),
    });
    return {
      rereads: "anew",
      registers: true,
      async answers(service): Promise<readonly Told[]> {
        if (service.toLowerCase() !== config.service.toLowerCase()) return [];
        const text = backendList({ config, lookup }, "txt").trim().split("\n").join(", ");
        const to = config.networks?.join(", ") ?? "the networks of this host's interfaces";
        return [{ to, text: `GET /proxy/backends.txt: ${text === "" ? "nothing" : text}` }];
      },
      listeners: [httpListener("backends", http, { host: config.host, port: config.port }, handle)],
    };
  },
});
