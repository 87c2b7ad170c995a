// `trilith watch`: prints what Consul's API shows of something, or runs a program on every change of it, with Consul's flags.
import { systemClock } from "../../base/clock.ts";
import { codeOf, InputError, messageOf } from "../../base/error.ts";
import { systemProcesses } from "../../base/process.ts";
import { systemRandom } from "../../base/random.ts";
import { type ClientOptions, clientFlags, withClient } from "../client.ts";
import { type Command, collect, type Io } from "../io.ts";

interface Options extends ClientOptions {
  readonly type?: string;
  readonly key?: string;
  readonly prefix?: string;
  readonly service?: string;
  readonly tag?: readonly string[];
  readonly passingonly?: string;
  readonly state?: string;
  readonly name?: string;
  readonly filter?: string;
  readonly shell: boolean;
}

/** An answer that has not begun after the longest wait an agent adds to the usual 300 s will not come. */
const HEAD_TIMEOUT_MS = 340_000;
/** Between SIGTERM and SIGKILL for a program that runs when the watch ends. */
const GRACE_MS = 2000;

export const command: Command = {
  name: "watch",
  summary: "print part of the directory, or run a program on each change: trilith watch --type key --key a cmd…",
  passThrough: true,
  define(parser, io, done) {
    clientFlags(parser)
      .usage("--type <type> [flags] [command] [arguments...]")
      .argument(
        "[command...]",
        "run at once and on each change, with JSON on standard input and CONSUL_INDEX; without a command the JSON is printed once",
      )
      .option("--type <type>", "key, keyprefix, services, nodes, service, checks or event")
      .option("--key <key>", "for type key")
      .option("--prefix <prefix>", "for type keyprefix")
      .option("--service <name>", "for type service; for type checks instead of --state")
      .option("--tag <tag>", "for type service: only instances with this tag (repeatable)", collect)
      .option("--passingonly <bool>", "for type service: only instances whose checks all pass (true or false)")
      .option("--state <state>", "for type checks: any, passing, warning or critical")
      .option("--name <name>", "for type event: only events of this name")
      .option("--filter <expression>", "only those that match, in Consul's filter language")
      .option("--shell", "run the command in $SHELL or /bin/sh", true)
      .option("--no-shell", "run the command itself, without a shell")
      .action(async (words: readonly string[], options: Options) => {
        done(await watch(words, options, io));
      });
  },
};

async function watch(words: readonly string[], options: Options, io: Io): Promise<number> {
  const { follow, parseExact, planOf, printed } = await import("../../protocols/consul/cli.ts");
  const plan = planOf({
    type: options.type ?? "",
    ...of("key", options.key),
    ...of("prefix", options.prefix),
    ...of("service", options.service),
    ...of("tags", options.tag),
    ...of("passingOnly", passingOnly(options.passingonly)),
    ...of("state", options.state),
    ...of("name", options.name),
    ...of("filter", options.filter),
    ...of("stale", options.stale),
  });
  let asked = false;
  let exitCode = 0;
  await withClient(options, io, async (client) => {
    await follow(
      plan,
      {
        ...{ clock: systemClock, random: systemRandom, signal: io.signal },
        async ask(path) {
          const response = await client.request("GET", path, { missing: true, headTimeoutMs: HEAD_TIMEOUT_MS });
          const text = await response.text();
          const index = response.headers["x-consul-index"];
          const json = text === "" || response.status === 404 ? undefined : parseExact(text);
          asked = true;
          return { status: response.status, index: typeof index === "string" ? index : undefined, json };
        },
        onFailure(error, pauseMs) {
          // Who has never answered is a wrong address, or a wrong question.
          if (!asked || codeOf(error) === "invalid") throw error;
          io.err(`${messageOf(error)}; trying again in ${(pauseMs / 1000).toFixed(1)} s\n`);
        },
      },
      async (index, data) => {
        if (words.length === 0) {
          io.out(printed(data));
          return false;
        }
        const failure = await run(words, options, index, data, io);
        if (failure === undefined) return true;
        io.err(`Error executing handler: ${failure}\n`);
        exitCode = 1;
        return false;
      },
    );
  });
  return exitCode;
}

function of<K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> {
  return value === undefined ? {} : ({ [key]: value } as Record<K, V>);
}

function passingOnly(text: string | undefined): boolean | undefined {
  if (text === undefined || /^(1|t|true)$/i.test(text)) return text === undefined ? undefined : true;
  if (/^(0|f|false)$/i.test(text)) return false;
  throw new InputError("--passingonly", `"${text}": expected true or false`);
}

/** Runs the program with what was seen on its standard input. Returns what went wrong; an end that was asked for is nothing wrong. */
async function run(
  words: readonly string[],
  { shell }: Options,
  index: string,
  data: unknown,
  io: Io,
): Promise<string | undefined> {
  const { handlerInput } = await import("../../protocols/consul/cli.ts");
  const line = shell ? [io.env("SHELL") || "/bin/sh", "-c", words.join(" ")] : words;
  const child = systemProcesses.start(line, {
    env: { CONSUL_INDEX: index, TRILITH_INDEX: index },
    // In a group of its own, so that what a shell started gets the signals, too.
    detached: true,
    stdin: "pipe",
  });
  // A program need not read what it is given.
  child.stdin?.on("error", () => {});
  child.stdin?.end(handlerInput(data));
  const signalGroup = (signal: NodeJS.Signals): void => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    try {
      systemProcesses.kill(-child.pid, signal);
    } catch {
      // It has just gone.
    }
  };
  let grace: { cancel(): void } | undefined;
  const onStop = (): void => {
    signalGroup("SIGTERM");
    grace = systemClock.after(GRACE_MS, () => signalGroup("SIGKILL"), true);
  };
  if (io.signal.aborted) onStop();
  io.signal.addEventListener("abort", onStop, { once: true });
  try {
    return await new Promise<string | undefined>((resolve) => {
      child.once("error", (error) => resolve(`${line[0]}: ${messageOf(error)}`));
      child.once("exit", (code, signal) => {
        if (code === 0 || io.signal.aborted) resolve(undefined);
        else resolve(signal === null ? `exit status ${code}` : `signal: ${signal}`);
      });
    });
  } finally {
    grace?.cancel();
    io.signal.removeEventListener("abort", onStop);
  }
}
