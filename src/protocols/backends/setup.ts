// The protocol "backends": hosts POST themselves into a list that a load balancer reads, as dynproxy keeps one.
import { messageOf } from "../../base/error.ts";
import { withinNetworks } from "../../base/networks.ts";
import { httpListener } from "../../contracts/http-listener.ts";
import { defineProtocol, type Protocol, type Told } from "../../contracts/protocol.ts";
import { type BackendsConfig, configureBackends } from "./config.ts";
import { backendList, createBackendsHandler, takeOver } from "./server.ts";

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
    const part = log.part("backends");
    const own = { config, agent, lookup, clock, allowed, tcp: probes.get("tcp"), log: part };
    const handle = createBackendsHandler(own);
    let taken: Promise<void> | undefined;
    return {
      rereads: "anew",
      registers: true,
      background: {
        start() {
          taken = takeOver(own).catch((error: unknown) =>
            part.error(`back ends of another service: ${messageOf(error)}`),
          );
        },
        stop: async () => await taken,
      },
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
