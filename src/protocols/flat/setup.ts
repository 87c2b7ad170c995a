// The protocol "flat": lists of endpoints in files, in whatever form they are kept.
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { configureFlat, type FlatConfig } from "./config.ts";
import { FlatSource } from "./source.ts";

export const flat: Protocol<FlatConfig | undefined, "clock" | "disk" | "log" | "directory" | "self"> = defineProtocol({
  name: "flat",
  needs: ["clock", "disk", "log", "directory", "self"],
  configure: configureFlat,
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { clock, disk, directory, self } = ground;
    return {
      source: new FlatSource(config, { clock, disk, directory, log: ground.log.part("flat"), node: self.node }),
    };
  },
});
