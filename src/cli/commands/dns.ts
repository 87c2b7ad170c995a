// `trilith dns setup docker|resolved|dnsmasq`: shows how a system's resolvers are told to ask the agent, writes it with --apply, takes it back with --undo.
import type { Command } from "../io.ts";

interface Options {
  readonly apply?: boolean;
  readonly undo?: boolean;
  readonly domain: string;
  readonly address?: string;
  readonly port: string;
  readonly root: string;
}

export const command: Command = {
  name: "dns",
  summary: "setup docker|resolved|dnsmasq: make this system's resolvers ask the agent",
  define(parser, io, done) {
    parser
      .command("setup <what>")
      .description("show how to make docker, resolved (systemd) or dnsmasq ask the agent")
      .option("--apply", "make the change; daemons are not restarted")
      .option("--undo", "show how to undo it; with --apply undo it, byte for byte")
      .option("--domain <name>", "the agent's DNS domain", "consul")
      .option("--address <ip>", "where the agent answers (default for docker: the bridge's address; else 127.0.0.1)")
      .option("--port <port>", "the agent's DNS port (resolved, dnsmasq)", "8600")
      .option("--root <folder>", "a folder to put before every path, for another system's files", "")
      .action(async (what: string, options: Options) => {
        const { applySetup, applyUndo, planSetup, planText, planUndo, setupTarget } = await import(
          "../../protocols/dns/cli.ts"
        );
        const { InputError } = await import("../../base/error.ts");
        const target = setupTarget(what);
        const port = Number(options.port);
        if (!Number.isInteger(port) || port < 1 || port > 65_535)
          throw new InputError("--port", `"${options.port}" is not a port from 1 to 65535`);
        const root = options.root.replace(/\/+$/, "");
        if (options.undo) {
          const plan = await planUndo({ target, root });
          if (options.apply) await applyUndo(plan);
          io.out(planText(plan, options.apply === true, true));
        } else {
          const { domain, address } = options;
          const plan = await planSetup({ target, domain, port, root, ...(address === undefined ? {} : { address }) });
          if (options.apply) await applySetup(plan);
          io.out(planText(plan, options.apply === true, false));
        }
        done(0);
      });
  },
};
