// The protocol "zookeeper": server sets as Finagle and Aurora keep them, read into the directory and written from it.
import { openZooKeeper } from "../../base/zookeeper.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { reloadable } from "../../contracts/reloaded-source.ts";
import { Announcer } from "./announce.ts";
import { configureZooKeeper, type ZooKeeperConfig } from "./config.ts";
import { SOURCE } from "./registrations.ts";
import { ServerSetSource } from "./source.ts";

export const zookeeper: Protocol<
  ZooKeeperConfig | undefined,
  "clock" | "log" | "directory" | "lookup" | "agent" | "self" | "leaving"
> = defineProtocol({
  name: "zookeeper",
  needs: ["clock", "log", "directory", "lookup", "agent", "self", "leaving"],
  configure: configureZooKeeper,
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { clock, directory, lookup, agent, self, leaving } = ground;
    const log = ground.log.part("zookeeper");
    const announcerOf = (now: ZooKeeperConfig | undefined): Announcer | undefined =>
      now === undefined || now.announce.length === 0
        ? undefined
        : new Announcer(now, {
            ...{ clock, log, agent, directory, lookup, open: openZooKeeper, nodeId: self.nodeId },
            last: () => self.dev || leaving?.() === true,
          });
    const { node } = self;
    const make = (now: ZooKeeperConfig): ServerSetSource | undefined =>
      now.sets.length === 0
        ? undefined
        : new ServerSetSource(now, { clock, log, directory, open: openZooKeeper, node });
    const reading = reloadable({ name: SOURCE, configure: configureZooKeeper, make }, config);
    let announcer = announcerOf(config);
    return {
      get source() {
        return reading.source;
      },
      rereads: true,
      async reload(read) {
        await reading.reload(read);
        if (read === undefined) return;
        const now = configureZooKeeper(read.raw);
        if (now !== undefined && now.announce.length > 0 && announcer?.retell(now)) return;
        const before = announcer;
        announcer = announcerOf(now);
        // Of servers that are others, or the same in other words, the next one takes over what stands there; what it does not runs out with the session.
        await before?.stop(announcer === undefined ? "nobody" : "somebody");
        announcer?.start();
      },
      background: { start: () => announcer?.start(), stop: async (off) => await announcer?.stop(off && "nobody") },
      states: () => (announcer === undefined ? [] : [announcer.state()]),
      answers: async (service) => announcer?.about(service) ?? [],
    };
  },
});
