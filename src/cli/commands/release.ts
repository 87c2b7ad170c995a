// `trilith release NAME`: ends the sharp-drop guard's hold on a service by hand.
import { type ClientOptions, clientFlags, clientFor, segment } from "../client.ts";
import type { Command } from "../io.ts";

export const command: Command = {
  name: "release",
  summary: "end the sharp-drop guard's hold on a service",
  define(parser, io, done) {
    clientFlags(parser)
      .argument("<service>", "the service whose old instances are still answered")
      .action(async (service: string, options: ClientOptions) => {
        const client = clientFor(options, io);
        try {
          const { released } = JSON.parse(
            await (await client.request("POST", `/v1/trilith/release/${segment(service)}`)).text(),
          ) as { released: boolean };
          io.out(
            released ? `${service}: released; answers show what is recorded now\n` : `${service}: nothing was held\n`,
          );
          done(released ? 0 : 1);
        } finally {
          await client.close();
        }
      });
  },
};
