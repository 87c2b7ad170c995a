// `trilith join`: Consul's verb. Agents of Trilith meet in the store they share; the agent says what to do instead.
import { messageOf } from "../../base/error.ts";
import { type ClientOptions, clientFlags, withClient } from "../client.ts";
import type { Command } from "../io.ts";

interface Options extends ClientOptions {
  readonly wan?: boolean;
}

export const command: Command = {
  name: "join",
  summary: "as Consul's join; the agent answers how Trilith agents get together",
  define(parser, io, done) {
    clientFlags(parser)
      .argument("<addresses...>", "agents to join")
      .option("--wan", "accepted as Consul's flag")
      .action(async (addresses: readonly string[], options: Options) => {
        const wan = options.wan ? "?wan=1" : "";
        let joined = 0;
        await withClient(options, io, async (client) => {
          for (const address of addresses)
            try {
              await client.send("PUT", `/v1/agent/join/${encodeURIComponent(address)}${wan}`);
              joined++;
            } catch (error) {
              if (io.signal.aborted) throw error;
              io.err(`Error joining address '${address}': ${messageOf(error)}\n`);
            }
        });
        if (joined > 0) io.out(`Successfully joined cluster by contacting ${joined} nodes.\n`);
        else io.err("Failed to join any nodes.\n");
        done(joined === addresses.length ? 0 : 1);
      });
  },
};
