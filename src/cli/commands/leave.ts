// `trilith leave`: has the agent take its node out of the directory and stop.
import { type ClientOptions, clientFlags, withClient } from "../client.ts";
import type { Command } from "../io.ts";

export const command: Command = {
  name: "leave",
  summary: "make the agent remove its node from the directory and stop",
  define(parser, io, done) {
    clientFlags(parser).action(async (options: ClientOptions) => {
      await withClient(options, io, (client) => client.send("PUT", "/v1/agent/leave"));
      io.out("Graceful leave complete\n");
      done(0);
    });
  },
};
