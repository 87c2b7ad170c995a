// `trilith services register|deregister`: Consul's spelling of `trilith register` and `trilith deregister`.
import type { Command } from "../io.ts";
import { command as deregister } from "./deregister.ts";
import { command as register } from "./register.ts";

export const command: Command = {
  name: "services",
  summary: "register | deregister, as Consul spells it",
  define(parser, io, done) {
    for (const sub of [register, deregister]) sub.define(parser.command(sub.name).description(sub.summary), io, done);
  },
};
