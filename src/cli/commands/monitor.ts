// `trilith monitor`: the agent's log as it is written, until interrupted.
import { type ClientOptions, clientFlags, withClient } from "../client.ts";
import type { Command } from "../io.ts";

interface Options extends ClientOptions {
  readonly logLevel: string;
  readonly logJson?: boolean;
}

export const command: Command = {
  name: "monitor",
  summary: "the agent's log as it is written, until interrupted",
  define(parser, io, done) {
    clientFlags(parser)
      .option("--log-level <level>", "trace, debug, info, warn or err", "info")
      .option("--log-json", "as lines of JSON")
      .action(async (options: Options) => {
        const query = new URLSearchParams({ loglevel: options.logLevel });
        if (options.logJson) query.set("logjson", "true");
        try {
          await withClient(options, io, async (client) => {
            const { body } = await client.request("GET", `/v1/agent/monitor?${query}`);
            body.setEncoding("utf8");
            for await (const text of body as AsyncIterable<string>) io.out(text);
          });
          io.err(
            "Remote side ended the monitor! This usually means that the remote side crashed or refused the connection.\n",
          );
          done(1);
        } catch (error) {
          // Being interrupted is how this ends.
          if (!io.signal.aborted) throw error;
          done(0);
        }
      });
  },
};
