// `trilith leave`: has the agent take its node out of the directory and stop.
import { type ClientOptions, clientFlags, clientFor } from "../client.ts";
import type { Command } from "../io.ts";

export const command: Command = {
  name: "leave",
  summary: "have the agent take its node out of the directory and stop",
  define(parser, io, done) {
    clientFlags(parser).action(async (options: ClientOptions) => {
      const client = clientFor(options, io);
      try {
        await (await client.request("PUT", "/v1/agent/leave")).text();
        io.out("Graceful leave complete\n");
        done(0);
      } finally {
        await client.close();
      }
    });
  },
};
