// The protocol "consul-upstream": services of another Consul, or of a Trilith, as hearsay.
import { Servers } from "../../base/servers.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { type ConsulUpstreamConfig, configureConsulUpstream } from "./config.ts";
import { ConsulUpstreamSource } from "./source.ts";

type Needs = "clock" | "random" | "log" | "disk" | "http" | "directory" | "self";

export const consulUpstream: Protocol<ConsulUpstreamConfig | undefined, Needs> = defineProtocol({
  name: "consul-upstream",
  needs: ["clock", "random", "log", "disk", "http", "directory", "self"],
  configure: configureConsulUpstream,
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { clock, random, log, disk, http, directory, self } = ground;
    const source = new ConsulUpstreamSource(config, {
      ...{ clock, random, log, directory, node: self.node },
      serversOf: async ({ urls, token, caFile }) =>
        new Servers({
          ...{ urls, token, http, clock, log },
          ...(caFile === undefined ? {} : { tls: { ca: await disk.readText(caFile) } }),
        }),
    });
    return { source };
  },
});
