// `trilith version`: which Trilith, on which Node.js.
import { packageVersion } from "../../base/terminal.ts";
import type { Command } from "../io.ts";

export const command: Command = {
  name: "version",
  summary: "print the version",
  define(parser, io, done) {
    parser.option("--format <pretty|json>", "how to print it", "pretty").action((options: { format: string }) => {
      const version = packageVersion();
      if (options.format === "json") io.out(`${JSON.stringify({ Version: version, Node: process.version })}\n`);
      else io.out(`Trilith v${version}\n`);
      done(0);
    });
  },
};
