// `trilith version`: which Trilith, on which Node.js.
import { Option } from "commander";
import { packageVersion } from "../../base/terminal.ts";
import type { Command } from "../io.ts";

export const command: Command = {
  name: "version",
  summary: "print the version",
  define(parser, io, done) {
    parser
      .addOption(new Option("--format <how>", "how to print it").choices(["pretty", "json"]).default("pretty"))
      .action((options: { format: string }) => {
        const version = packageVersion();
        if (options.format === "json") io.out(`${JSON.stringify({ Version: version, Node: process.version })}\n`);
        else io.out(`Trilith v${version}\n`);
        done(0);
      });
  },
};
