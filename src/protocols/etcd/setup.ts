// The protocol "etcd": services that others wrote into etcd, in Registrator's and in SkyDNS' layout.
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { reloadable } from "../../contracts/reloaded-source.ts";
import { configureEtcd, type EtcdConfig } from "./config.ts";
import { SOURCE } from "./registrations.ts";
import { EtcdSource } from "./source.ts";

type Needs = "clock" | "random" | "log" | "disk" | "directory" | "probes" | "self";

export const etcd: Protocol<EtcdConfig | undefined, Needs> = defineProtocol({
  name: "etcd",
  needs: ["clock", "random", "log", "disk", "directory", "probes", "self"],
  configure: configureEtcd,
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { clock, random, log, disk, directory, probes, self } = ground;
    const { node } = self;
    const machine = { clock, random, log, disk, directory, node, tcp: probes.get("tcp") };
    const make = (now: EtcdConfig): EtcdSource => new EtcdSource(now, machine);
    return reloadable({ name: SOURCE, configure: configureEtcd, make }, config);
  },
});
