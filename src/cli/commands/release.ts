// `trilith release NAME`: ends the sharp-drop guard's hold on a service by hand.
import { type ClientOptions, clientFlags, segment, withClient } from "../client.ts";
import type { Command } from "../io.ts";

export const command: Command = {
  name: "release",
  summary: "end the sharp-drop guard's hold on a service",
  define(parser, io, done) {
    clientFlags(parser)
      .argument("<service>", "the service whose old instances are still in answers")
      .action(async (service: string, options: ClientOptions) => {
        const path = `/v1/trilith/release/${segment(service)}`;
        const answer = await withClient(options, io, (client) => client.send("POST", path));
        const { released } = JSON.parse(answer) as { readonly released: boolean };
        io.out(
          released ? `${service}: released; answers show what is recorded now\n` : `${service}: nothing was held\n`,
        );
        done(released ? 0 : 1);
      });
  },
};
