// The protocol "hosts": hosts files that are written from the directory, for whoever resolves names by nothing else.
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { configureHosts, type HostsRule } from "./config.ts";
import { HostsWriter } from "./writer.ts";

export const hosts: Protocol<
  readonly HostsRule[] | undefined,
  "clock" | "disk" | "log" | "directory" | "lookup" | "agent" | "self" | "firstLists"
> = defineProtocol({
  name: "hosts",
  needs: ["clock", "disk", "log", "directory", "lookup", "agent", "self", "firstLists"],
  configure: configureHosts,
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { clock, disk, directory, lookup, agent, self, firstLists } = ground;
    const log = ground.log.part("hosts");
    const writers = config.map(
      (rule) =>
        new HostsWriter(rule, {
          ...{ clock, disk, log, directory, lookup, agent, firstLists, node: self.node, domain: self.domain },
        }),
    );
    return {
      background: {
        start() {
          for (const writer of writers) writer.start();
        },
        async stop() {
          await Promise.all(writers.map((writer) => writer.stop()));
        },
      },
      states: () => writers.map((writer) => writer.state()),
      answers: async (service) =>
        writers.flatMap((writer, i) =>
          writer
            .linesAbout(service)
            .map((line) => ({ to: `readers of ${config[i]?.path}`, text: line.replace("\t", " ") })),
        ),
    };
  },
});
