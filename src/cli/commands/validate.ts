// `trilith validate FILES`: reads configuration and service files as an agent would, and says what is wrong and where.
import { type Command, json } from "../io.ts";

export const command: Command = {
  name: "validate",
  summary: "check configuration and service files without an agent",
  define(parser, io, done) {
    parser
      .argument("<paths...>", "files or folders (JSON, HCL)")
      .option("--quiet", "print errors only")
      .option("--json", "print JSON")
      .action(async (paths: readonly string[], options: { readonly quiet?: boolean; readonly json?: boolean }) => {
        const { validateFiles } = await import("../../protocols/consul/cli.ts");
        const { settingsFaults } = await import("../../index.ts");
        const { errors, warnings } = await validateFiles(paths, undefined, settingsFaults);
        if (options.json) io.out(json({ valid: errors.length === 0, errors, warnings }));
        else {
          if (errors.length > 0) io.err(`Config validation failed: ${errors.join("\n")}\n`);
          if (!options.quiet) for (const warning of warnings) io.err(`warning: ${warning}\n`);
          if (errors.length === 0 && !options.quiet) io.out("Configuration is valid!\n");
        }
        done(errors.length === 0 ? 0 : 1);
      });
  },
};
