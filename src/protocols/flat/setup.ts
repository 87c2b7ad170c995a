// The protocol "flat": lists of endpoints in files, in whatever form they are kept.
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { reloadable } from "../../contracts/reloaded-source.ts";
import { configureFlat, type FlatConfig } from "./config.ts";
import { SOURCE } from "./registrations.ts";
import { FlatSource } from "./source.ts";

export const flat: Protocol<FlatConfig | undefined, "clock" | "disk" | "log" | "directory" | "self"> = defineProtocol({
  name: "flat",
  needs: ["clock", "disk", "log", "directory", "self"],
  configure: configureFlat,
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { clock, disk, directory } = ground;
    const { node } = ground.self;
    const machine = { clock, disk, directory, log: ground.log.part(SOURCE), node };
    const make = (now: FlatConfig): FlatSource => new FlatSource(now, machine);
    return reloadable({ name: SOURCE, configure: configureFlat, make }, config);
  },
});
