// `trilith force-leave`: takes the node of an agent that is gone for good out of the directory.
import { type ClientOptions, clientFlags, segment, withClient } from "../client.ts";
import type { Command } from "../io.ts";

interface Options extends ClientOptions {
  readonly prune?: boolean;
  readonly wan?: boolean;
}

export const command: Command = {
  name: "force-leave",
  summary: "remove the node of an agent that is gone for good from the directory",
  define(parser, io, done) {
    clientFlags(parser)
      .argument("<node>", "the node's name")
      .option("--prune", "accepted as Consul's flag: the whole node is removed anyway")
      .option("--wan", "accepted as Consul's flag")
      .action(async (node: string, options: Options) => {
        const path = `/v1/agent/force-leave/${segment(node)}${options.prune ? "?prune=1" : ""}`;
        await withClient(options, io, (client) => client.send("PUT", path));
        done(0);
      });
  },
};
