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
    const writerOf = (rule: HostsRule): Kept => {
      const parts = { clock, disk, log, directory, lookup, agent, firstLists, node: self.node, domain: self.domain };
      return { rule, writer: new HostsWriter(rule, parts) };
    };
    let all = config.map(writerOf);
    return {
      rereads: true,
      async reload(read) {
        if (read === undefined) return;
        const rules = configureHosts(read.raw) ?? [];
        const before = all;
        all = rules.map(
          (rule) => before.find((one) => JSON.stringify(one.rule) === JSON.stringify(rule)) ?? writerOf(rule),
        );
        for (const one of before)
          if (!all.includes(one)) {
            // What another rule writes to the same place it writes over what stands there; elsewhere nobody keeps it true any more.
            const goesOn = rules.some(({ path, block }) => path === one.rule.path && block === one.rule.block);
            await one.writer.stop(goesOn ? "stays" : "goes");
          }
        for (const { writer } of all) writer.start();
      },
      background: {
        start() {
          for (const { writer } of all) writer.start();
        },
        async stop(off) {
          await Promise.all(all.map(({ writer }) => writer.stop(off && "goes")));
        },
      },
      states: () => all.map(({ writer }) => writer.state()),
      answers: async (service) =>
        all.flatMap(({ rule, writer }) =>
          writer.linesAbout(service).map((line) => ({ to: `readers of ${rule.path}`, text: line.replace("\t", " ") })),
        ),
    };
  },
});

interface Kept {
  readonly rule: HostsRule;
  readonly writer: HostsWriter;
}
