// The protocol "consul-upstream": services of another Consul, or of a Trilith, as hearsay.
import type { Disk } from "../../base/disk.ts";
import { InputError, messageOf } from "../../base/error.ts";
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
        ...(caFile === undefined ? {} : { tls: { ca: await authority(caFile, disk) } }),
      });
    const make = (now: ConsulUpstreamConfig): ConsulUpstreamSource =>
      new ConsulUpstreamSource(now, { clock, random, log, directory, node, serversOf });
    return reloadable({ name: SOURCE, configure: configureConsulUpstream, make }, config);
  },
});

/** @throws TrilithError that names the key */
async function authority(path: string, disk: Pick<Disk, "readText">): Promise<string> {
  try {
    return await disk.readText(path);
  } catch (error) {
    throw new InputError("ca_file", `cannot be read: ${messageOf(error)}`, error);
  }
}
