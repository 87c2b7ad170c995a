// `trilith hook`: runs a program that finds services by name, address and port, without knowing of it; the work is done in protocols/shim/cli.ts.
import { agentAddress, DEFAULT_ADDRESS } from "../../base/agent-address.ts";
import { InputError } from "../../base/error.ts";
import { dataFolder } from "../data-folder.ts";
import type { Command } from "../io.ts";

interface Options {
  readonly table?: string;
  readonly print?: boolean;
  readonly libc?: string;
  readonly httpAddr?: string;
  readonly token?: string;
}

export const command: Command = {
  name: "hook",
  summary:
    "run a program that reaches services by name, port included: trilith hook -- curl http://web.service.consul/",
  passThrough: true,
  define(parser, io, done) {
    parser
      .usage("[flags] -- <command> [arguments...]")
      .argument("[command...]", "the program and its arguments, after --")
      .option("--table <path>", "the agent's table, where the agent is not to be asked")
      .option("--print", "print the variables instead, for a Dockerfile, a unit or a shell")
      .option("--libc <name>", "for which programs: glibc or musl (default: as the program's file says)")
      .option(
        "--http-addr <address>",
        "the agent's HTTP address: host:port, http://…, unix:///path (TRILITH_HTTP_ADDR)",
      )
      .option("--token <token>", "the agent's token (TRILITH_HTTP_TOKEN)")
      .action(async (words: readonly string[], options: Options) => {
        // Without it flags of the program would have been taken for ours.
        if (words.length > 0 && !(parser as unknown as { readonly rawArgs: readonly string[] }).rawArgs.includes("--"))
          throw new InputError("", `put -- before the command: trilith hook -- ${words.join(" ")}`);
        const { text, base, socketPath } = agentAddress(options.httpAddr);
        const token = options.token ?? io.env("TRILITH_HTTP_TOKEN") ?? io.env("CONSUL_HTTP_TOKEN");
        // Signals are the program's.
        io.close();
        const { hook } = await import("../../protocols/shim/cli.ts");
        done(
          await hook(
            {
              command: words,
              ...(options.table === undefined ? {} : { table: options.table }),
              // An agent that is named keeps its data nobody knows where.
              ...(text === DEFAULT_ADDRESS
                ? { lastTable: `${io.env("TRILITH_DATA_DIR") ?? dataFolder(io)}/hook/table` }
                : {}),
              ...(options.print === undefined ? {} : { print: options.print }),
              ...(options.libc === undefined ? {} : { libc: options.libc }),
              agent: {
                base,
                shown: text,
                ...(socketPath === undefined ? {} : { socketPath }),
                ...(token === undefined ? {} : { token }),
              },
            },
            io,
          ),
        );
      });
  },
};
