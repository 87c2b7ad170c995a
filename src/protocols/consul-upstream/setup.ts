// The protocol "consul-upstream": services of another Consul, or of a Trilith, as hearsay.
import { Servers } from "../../base/servers.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { reloadable } from "../../contracts/reloaded-source.ts";
import { type ConsulUpstreamConfig, configureConsulUpstream, type UpstreamConfig } from "./config.ts";
import { ConsulUpstreamSource } from "./source.ts";
import { SOURCE } from "./told.ts";

type Needs = "clock" | "random" | "log" | "disk" | "http" | "directory" | "self";

export const consulUpstream: Protocol<ConsulUpstreamConfig | undefined, Needs> = defineProtocol({
  name: "consul-upstream",
  needs: ["clock", "random", "log", "disk", "http", "directory", "self"],
  configure: configureConsulUpstream,
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { clock, random, log, disk, http, directory, self } = ground;
    const { node } = self;
    const serversOf = async ({ urls, token, caFile }: UpstreamConfig): Promise<Servers> =>
      new Servers({
        ...{ urls, token, http, clock, log },
        ...(caFile === undefined ? {} : { tls: { ca: await disk.readText(caFile) } }),
      });
    const make = (now: ConsulUpstreamConfig): ConsulUpstreamSource =>
      new ConsulUpstreamSource(now, { clock, random, log, directory, node, serversOf });
    return reloadable({ name: SOURCE, clock, directory, node, configure: configureConsulUpstream, make }, config);
  },
});
