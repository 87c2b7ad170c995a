// `trilith hook`: runs a program that finds services by name, address and port, without knowing of it; the work is done in protocols/shim/cli.ts.
import { DEFAULT_ADDRESS } from "../../base/agent-address.ts";
import { dataFolder } from "../data-folder.ts";
import type { Command } from "../io.ts";
import { agentOf, mustHaveDashes, type WrapOptions, wrapFlags } from "../wrapped.ts";

interface Options extends WrapOptions {
  readonly table?: string;
  readonly print?: boolean;
  readonly libc?: string;
}

export const command: Command = {
  name: "hook",
  summary:
    "run a program that reaches services by name, port included: trilith hook -- curl http://web.service.consul/",
  passThrough: true,
  define(parser, io, done) {
    wrapFlags(
      parser
        .usage("[flags] -- <command> [arguments...]")
        .argument("[command...]", "the program and its arguments, after --")
        .option("--table <path>", "the agent's table, to use without asking the agent")
        .option("--print", "print the environment variables instead, for a Dockerfile, a unit or a shell")
        .option("--libc <name>", "the C library of the program: glibc or musl (default: read from its file)"),
    ).action(async (words: readonly string[], options: Options) => {
      if (words.length > 0) mustHaveDashes(parser, "hook", words);
      const agent = agentOf(options, io);
      // Signals are the program's.
      io.close();
      const data = io.env("TRILITH_DATA_DIR") ?? dataFolder(io);
      const { hook } = await import("../../protocols/shim/cli.ts");
      done(
        await hook(
          {
            command: words,
            ...(options.table === undefined ? {} : { table: options.table }),
            // An agent that is named keeps its data nobody knows where.
            ...(agent.shown === DEFAULT_ADDRESS && data !== undefined ? { lastTable: `${data}/hook/table` } : {}),
            ...(options.print === undefined ? {} : { print: options.print }),
            ...(options.libc === undefined ? {} : { libc: options.libc }),
            agent,
          },
          io,
        ),
      );
    });
  },
};
