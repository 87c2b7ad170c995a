// `trilith md`: Minidisc's command line; the work is done in protocols/minidisc/cli.ts.
import type { Command as Commander } from "commander";
import { codeOf, messageOf } from "../../base/error.ts";
import { invokedAs } from "../../base/program.ts";
import { type Command, type Io, pairs, printable } from "../io.ts";
import { calledAs } from "../links.ts";

interface Options {
  readonly compat?: boolean;
  readonly socket?: string;
  readonly proxy?: string;
}

export const command: Command = {
  name: "md",
  summary: "list | find | advertise services on the tailnet, as Minidisc's md does, without any agent",
  define(parser, io, done) {
    const cli = (): Promise<typeof import("../../protocols/minidisc/cli.ts")> =>
      import("../../protocols/minidisc/cli.ts");
    flags(parser.command("list"))
      .description("all services of the tailnet, this host's first")
      .action(async (options: Options) => {
        const count = await (await cli()).mdList(tailnet(options, io), { ...writing(io), printable });
        done(count === 0 ? missed(options) : 0);
      });
    flags(parser.command("find"))
      .description("address and port of the first service with that name and these labels")
      .argument("<name>", "the service's name")
      .argument("[labels...]", "key=value, all of them needed")
      .action(async (name: string, labels: readonly string[], options: Options) => {
        const found = await (await cli()).mdFind(name, pairs(labels, "labels"), tailnet(options, io), {
          ...writing(io),
          printable,
        });
        done(found ? 0 : missed(options));
      });
    flags(parser.command("advertise"))
      .description("advertise what a YAML file says, until SIGINT or SIGTERM")
      .argument("<file>", "services: [{name, address, labels}]; - = standard input")
      .addHelpText(
        "after",
        `
services:
  - name: web
    address: :8080            # a port of this host
    labels: {env: prod}
  - name: printer
    address: 100.64.0.9:631   # elsewhere on the tailnet`,
      )
      .action(async (file: string, options: Options) => {
        // To md a file that cannot be read is a wrong command line.
        const unread = isMd(options) ? 2 : 1;
        try {
          done(await (await cli()).mdAdvertise(file, tailnet(options, io), { ...writing(io), printable }, unread));
        } catch (error) {
          // A file that cannot be had is no mistake of the command line.
          if (codeOf(error) === "invalid") throw error;
          io.err(`${calledAs(invokedAs(), "md")} advertise: ${messageOf(error)}\n`);
          done(codeOf(error) === "not-found" ? unread : 1);
        }
      });
  },
};

function flags(command: Commander): Commander {
  return command
    .option(
      "--compat",
      "md's exit codes: 0 also where nothing is found, 2 for a file that cannot be read; so it is when called by the name md",
    )
    .option("--socket <path>", "tailscaled's socket; default TS_SOCKET, then /var/run/tailscale/tailscaled.sock")
    .option("--proxy <host:port>", "tailscaled's SOCKS5 proxy for userspace networking; default ALL_PROXY");
}

/** True where exit codes have to be md's. */
const isMd = ({ compat }: Options): boolean => compat === true || calledAs(invokedAs(), "md") === "md";

/** Trilith's commands end with 1 where nothing is found, md does not. */
const missed = (options: Options): number => (isMd(options) ? 0 : 1);

const writing = ({ out, err, stdin, signal }: Io): Pick<Io, "out" | "err" | "stdin" | "signal"> => ({
  out,
  err,
  stdin,
  signal,
});

function tailnet({ socket, proxy }: Options, io: Io): { readonly socket?: string; readonly proxy?: string } {
  const path = socket ?? io.env("TS_SOCKET");
  const general = io.env("ALL_PROXY") ?? io.env("all_proxy") ?? "";
  const through = proxy ?? (/^socks5/i.test(general) ? general : undefined);
  return { ...(path === undefined ? {} : { socket: path }), ...(through === undefined ? {} : { proxy: through }) };
}
