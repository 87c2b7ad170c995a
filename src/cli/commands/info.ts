// `trilith info`: the agent's own figures, section by section, as Consul prints them.
import { type ClientOptions, clientFlags, clientFor } from "../client.ts";
import type { Command } from "../io.ts";

export const command: Command = {
  name: "info",
  summary: "the agent's own figures",
  define(parser, io, done) {
    clientFlags(parser).action(async (options: ClientOptions) => {
      const client = clientFor(options, io);
      try {
        const { Stats } = await client.get<{ Stats: Record<string, Record<string, string>> }>("/v1/agent/self");
        if (options.json) io.out(`${JSON.stringify(Stats, null, 2)}\n`);
        else
          for (const section of Object.keys(Stats).sort()) {
            io.out(`${section}:\n`);
            for (const [key, value] of Object.entries(Stats[section] ?? {}).sort(([a], [b]) => (a < b ? -1 : 1)))
              io.out(`\t${key} = ${value}\n`);
          }
        done(0);
      } finally {
        await client.close();
      }
    });
  },
};
