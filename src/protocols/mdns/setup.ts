// The protocol "mdns": services of the LAN without any server, announced and found by multicast DNS and DNS-SD, beside Avahi and everybody else's.
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { Announcer } from "./announce.ts";
import { createMdns } from "./engine.ts";
import { configureMdns, type MdnsConfig } from "./setup-config.ts";
import { tellOf } from "./setup-tell.ts";
import { LanSource } from "./source.ts";
import { Lan } from "./source-lan.ts";

export const mdns: Protocol<
  MdnsConfig | undefined,
  "clock" | "random" | "log" | "disk" | "net" | "processes" | "directory" | "agent" | "self"
> = defineProtocol({
  name: "mdns",
  needs: ["clock", "random", "log", "disk", "net", "processes", "directory", "agent", "self"],
  configure: configureMdns,
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { clock, random, disk, net, processes, directory, agent, self } = ground;
    const log = ground.log.part("mdns");
    const { interfaces } = config;
    const loopback = interfaces?.some((name) => net.interfaces().some((one) => one.name === name && one.internal));
    const lan = new Lan(
      () =>
        createMdns({
          ...{ clock, random, log, net, hostName: config.hostName ?? processes.hostname() },
          ...(interfaces === undefined ? {} : { interfaces: (name) => interfaces.includes(name) }),
          ...(loopback === true ? { loopback } : {}),
        }),
      clock,
    );
    const announcer = new Announcer(lan, config, {
      ...{ clock, log, disk, net, processes, agent, nodeId: self.nodeId },
      changed: () => source.ring(),
    });
    const source = new LanSource(lan, announcer, config.discover, {
      ...{ clock, log, net, directory, node: self.node, nodeId: self.nodeId },
    });
    return {
      source,
      background: announcer,
      rereads: true,
      async reload(read) {
        const now = read === undefined ? undefined : configureMdns(read.raw);
        if (now === undefined) return;
        for (const [key, was, is] of [
          ["interfaces", config.interfaces, now.interfaces],
          ["host_name", config.hostName, now.hostName],
        ] as const)
          if (JSON.stringify(was) !== JSON.stringify(is))
            log.warn(
              `mdns.${key} is another one now: it counts after a restart, as everything that is announced would have to say goodbye`,
            );
        announcer.retell(now);
        source.discover(now.discover);
      },
      answers: async (service) => tellOf(lan, announcer, service),
    };
  },
});
