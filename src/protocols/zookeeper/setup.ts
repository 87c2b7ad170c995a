// The protocol "zookeeper": server sets as Finagle and Aurora keep them, read into the directory and written from it.
import { openZooKeeper } from "../../base/zookeeper.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { offUntilRestart, reloadable } from "../../contracts/reloaded-source.ts";
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
    if (config === undefined) return offUntilRestart(SOURCE, ground.log, configureZooKeeper);
    const { clock, directory, lookup, agent, self, leaving } = ground;
    const log = ground.log.part("zookeeper");
    const announcer =
      config.announce.length === 0
        ? undefined
        : new Announcer(config, {
            ...{ clock, log, agent, directory, lookup, open: openZooKeeper, nodeId: self.nodeId },
            last: () => self.dev || leaving?.() === true,
          });
    const { node } = self;
    const make = (now: ZooKeeperConfig): ServerSetSource | undefined =>
      now.sets.length === 0
        ? undefined
        : new ServerSetSource(now, { clock, log, directory, open: openZooKeeper, node });
    const { source, reload } = reloadable(
      { name: SOURCE, clock, directory, node, configure: configureZooKeeper, make },
      config,
    );
    return {
      ...(source === undefined ? {} : { source }),
      rereads: true,
      async reload(read) {
        await reload(read);
        if (read === undefined) return;
        const now = configureZooKeeper(read.raw);
        if (writtenBy(now) !== writtenBy(config))
          log.warn(
            "zookeeper.announce, or who is told, is another one now: what is written follows it after a restart",
          );
        if (source === undefined && now !== undefined && now.sets.length > 0)
          log.warn("zookeeper.sets was empty when this agent started: a restart reads them");
      },
      ...(announcer === undefined
        ? {}
        : {
            background: announcer,
            states: () => [announcer.state()],
            answers: async (service: string) => announcer.about(service),
          }),
    };
  },
});

/** What the announcing depends on, to see whether it is another one. */
function writtenBy(config: ZooKeeperConfig | undefined): string {
  if (config === undefined || config.announce.length === 0) return "";
  const { sets: _, ...rest } = config;
  return JSON.stringify(rest);
}
