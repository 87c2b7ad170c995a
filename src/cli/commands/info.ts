// `trilith info`: the agent's own figures, section by section, as Consul prints them.
import { type ClientOptions, clientFlags, withClient } from "../client.ts";
import { type Command, json } from "../io.ts";

/** Figures by section. */
type Stats = Readonly<Record<string, Readonly<Record<string, string>>>>;

const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1);

function statsText(stats: Stats): string {
  const lines = Object.entries(stats)
    .sort(byName)
    .flatMap(([section, figures]) => [
      `${section}:\n`,
      ...Object.entries(figures)
        .sort(byName)
        .map(([key, value]) => `\t${key} = ${value}\n`),
    ]);
  return lines.join("");
}

export const command: Command = {
  name: "info",
  summary: "the agent's own figures",
  define(parser, io, done) {
    clientFlags(parser).action(async (options: ClientOptions) => {
      const { Stats } = await withClient(options, io, (client) =>
        client.get<{ readonly Stats: Stats }>("/v1/agent/self"),
      );
      io.out(options.json ? json(Stats) : statsText(Stats));
      done(0);
    });
  },
};
