// `trilith reload`: has the agent read its configuration and service files again (as SIGHUP does).
import { type ClientOptions, clientFlags, withClient } from "../client.ts";
import type { Command } from "../io.ts";

export const command: Command = {
  name: "reload",
  summary: "make the agent read its files again",
  define(parser, io, done) {
    clientFlags(parser).action(async (options: ClientOptions) => {
      await withClient(options, io, (client) => client.send("PUT", "/v1/agent/reload"));
      io.out("Configuration reload triggered\n");
      done(0);
    });
  },
};
