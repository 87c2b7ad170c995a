// The protocol "etcd": services that others wrote into etcd, in Registrator's and in SkyDNS' layout.
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { configureEtcd, type EtcdConfig } from "./config.ts";
import { EtcdSource } from "./source.ts";

type Needs = "clock" | "random" | "log" | "disk" | "directory" | "probes" | "self";

export const etcd: Protocol<EtcdConfig | undefined, Needs> = defineProtocol({
  name: "etcd",
  needs: ["clock", "random", "log", "disk", "directory", "probes", "self"],
  configure: configureEtcd,
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { clock, random, log, disk, directory, probes, self } = ground;
    return {
      source: new EtcdSource(config, { clock, random, log, disk, directory, node: self.node, tcp: probes.get("tcp") }),
    };
  },
});
