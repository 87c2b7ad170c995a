// `trilith run`: runs a program and registers what it listens on; the work is done in protocols/process/cli.ts.
import { type Command, collect, pairs } from "../io.ts";
import { agentOf, mustHaveDashes, type WrapOptions, wrapFlags } from "../wrapped.ts";

interface Options extends WrapOptions {
  readonly name?: string;
  readonly tag?: readonly string[];
  readonly label?: readonly string[];
  readonly port?: readonly string[];
  readonly check?: readonly string[];
  readonly interval: string;
  readonly drain: string;
  readonly stopTimeout: string;
}

export const command: Command = {
  name: "run",
  summary: "run a program and register what it listens on: trilith run --name web -- cmd…",
  passThrough: true,
  define(parser, io, done) {
    wrapFlags(
      parser
        .usage("[flags] -- <command> [arguments...]")
        .argument("<command...>", "the program and its arguments, after --")
        .option("--name <name>", "the service's name (default: the program's)")
        .option("--tag <tag>", "a tag (repeatable)", collect)
        .option("--label <key=value>", "a label (repeatable)", collect)
        .option(
          "--port <port>",
          "register this port only (repeatable; default: all that the program listens on)",
          collect,
        )
        .option("--check <check>", "http:/path, tcp, ttl:30s, script:command (repeatable)", collect)
        .option("--interval <duration>", "how often to check", "10s")
        .option("--drain <duration>", "on SIGTERM: how long to be out of answers before the program gets it", "500ms")
        .option("--stop-timeout <duration>", "back into answers if it is still running this long after SIGTERM", "10s"),
    ).action(async (words: readonly string[], options: Options) => {
      mustHaveDashes(parser, "run", words);
      const agent = agentOf(options, io);
      // Signals are the program's.
      io.close();
      const { run } = await import("../../protocols/process/cli.ts");
      done(
        await run(
          {
            command: words,
            ...(options.name === undefined ? {} : { name: options.name }),
            tags: options.tag ?? [],
            labels: pairs(options.label ?? [], "--label"),
            ports: options.port ?? [],
            checks: options.check ?? [],
            interval: options.interval,
            drain: options.drain,
            stopTimeout: options.stopTimeout,
            agent,
          },
          io,
        ),
      );
    });
  },
};
