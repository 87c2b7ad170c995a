// `trilith lock`: runs a command while holding a lock or a place of a semaphore, with Consul's flags.
import { systemClock } from "../../base/clock.ts";
import { codeOf, InputError, messageOf } from "../../base/error.ts";
import { type ChildProcess, systemProcesses } from "../../base/process.ts";
import { onSignals } from "../../base/signals.ts";
import { type ClientOptions, clientFlags, clientFor } from "../client.ts";
import type { Command, Io } from "../io.ts";
import { type Holding, hold } from "../locking.ts";

interface Options extends ClientOptions {
  readonly n: string;
  readonly name?: string;
  readonly timeout?: string;
  readonly try?: string;
  readonly childExitCode?: boolean;
  readonly monitorRetry: string;
  readonly passStdin?: boolean;
  readonly shell: boolean;
  readonly verbose?: boolean;
}

/** Between SIGTERM and SIGKILL. */
const GRACE_MS = 5_000;
const ENDING: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM"];
const FORWARDED: readonly NodeJS.Signals[] = ["SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT"];

export const command: Command = {
  name: "lock",
  summary: "run a command while holding a lock: trilith lock prefix cmd…",
  passThrough: true,
  define(parser, io, done) {
    clientFlags(parser)
      .usage("[flags] <prefix> <command> [arguments...]")
      .argument("<prefix>", "the lock's key is <prefix>/.lock")
      .argument("<command...>", "what to run while the lock is held")
      .option("-n <count>", "how many may hold it at once; more than 1 makes it a semaphore", "1")
      .option("--name <name>", "the session's name (default: made of the command and the prefix)")
      .option("--timeout <duration>", "give up waiting after this long (default: never)")
      .option("--try <duration>", "the older name of --timeout")
      .option("--child-exit-code", "exit with 2 if the command failed")
      .option("--monitor-retry <count>", "how many failures of the agent in a row to tolerate while holding", "3")
      .option("--pass-stdin", "pass standard input to the command")
      .option("--shell", "run the command in $SHELL or /bin/sh", true)
      .option("--no-shell", "run the command itself, without a shell")
      .option("--verbose", "say what happens")
      .action(async (prefix: string, words: readonly string[], options: Options) => {
        // Signals are the command's.
        io.close();
        done(await new Locked(prefix, words, options, io).run());
      });
  },
};

function whole(text: string, flag: string, least: number): number {
  const number = Number(text.replace(/^=/, ""));
  if (!Number.isInteger(number) || number < least)
    throw new InputError(flag, `"${text}": expected a whole number of ${least} or more`);
  return number;
}

async function durationMs(text: string | undefined, flag: string): Promise<number> {
  if (text === undefined) return 0;
  const { parseGoDuration } = await import("../../protocols/consul/cli.ts");
  const ms = parseGoDuration(text, flag);
  if (ms < 0) throw new InputError(flag, `"${text}": expected a duration of 0 or more`);
  return ms;
}

/** One run of the command. */
class Locked {
  readonly #prefix: string;
  readonly #words: readonly string[];
  readonly #options: Options;
  readonly #io: Io;
  readonly #stop = new AbortController();
  /** The first signal that asks for the end. */
  #asked: NodeJS.Signals | undefined;
  #child: ChildProcess | undefined;
  #grace: { cancel(): void } | undefined;

  constructor(prefix: string, words: readonly string[], options: Options, io: Io) {
    this.#prefix = prefix.replace(/^\/+/, "");
    this.#words = words;
    this.#options = options;
    this.#io = io;
  }

  async run(): Promise<number> {
    const { name, n, monitorRetry } = this.#options;
    if (this.#prefix === "") throw new InputError("prefix", "must not be empty");
    const wish = {
      prefix: this.#prefix,
      limit: whole(n, "-n", 1),
      sessionName: name ?? `Consul lock for '${this.#words.join(" ")}' at '${this.#prefix}'`,
      timeoutMs: await durationMs(this.#options.timeout ?? this.#options.try, "--timeout"),
      monitorRetries: whole(monitorRetry, "--monitor-retry", 0),
    };
    const signals = onSignals([...ENDING, ...FORWARDED], (signal) => this.#onSignal(signal));
    try {
      this.#tell(
        wish.limit === 1
          ? `Setting up lock at path: ${this.#prefix.replace(/\/+$/, "")}/.lock`
          : `Setting up semaphore (limit ${wish.limit}) at prefix: ${this.#prefix}`,
      );
      this.#tell("Attempting lock acquisition");
      const holding = await hold(
        wish,
        (signal) => clientFor(this.#options, { env: this.#io.env, signal }),
        this.#stop.signal,
      );
      if (holding === undefined) {
        this.#io.err("Shutdown triggered or timeout during lock acquisition\n");
        return 1;
      }
      return await this.#whileHeld(holding);
    } finally {
      signals.close();
      this.#grace?.cancel();
    }
  }

  async #whileHeld(holding: Holding): Promise<number> {
    const onLost = (): void => {
      this.#io.err(`${messageOf(holding.lost.reason)}; the command is ended\n`);
      this.#end("SIGTERM");
    };
    let failed = false;
    try {
      if (!this.#stop.signal.aborted) {
        holding.lost.addEventListener("abort", onLost, { once: true });
        failed = !(await this.#runChild());
        holding.lost.removeEventListener("abort", onLost);
        this.#tell("Child terminated, releasing lock");
      }
    } finally {
      await holding.release();
    }
    if (await holding.cleanUp()) this.#tell("Cleanup succeeded");
    else this.#tell("Cleanup aborted, lock in use");
    // Whoever runs something after this must know that it was not alone.
    if (holding.lost.aborted) return 1;
    return failed && this.#options.childExitCode === true ? 2 : 0;
  }

  /** True: it ended well. */
  async #runChild(): Promise<boolean> {
    const line = this.#options.shell ? [this.#io.env("SHELL") ?? "/bin/sh", "-c", this.#words.join(" ")] : this.#words;
    const passStdin = this.#options.passStdin === true;
    this.#tell(`Starting handler '${this.#words.join(" ")}'`);
    const child = systemProcesses.start(line, {
      env: { CONSUL_LOCK_HELD: "true", TRILITH_LOCK_HELD: "true" },
      // In a group of its own what a shell started gets the signals, too; who reads the terminal has to stay in its group.
      detached: !passStdin,
      stdin: passStdin ? "inherit" : "ignore",
    });
    this.#child = child;
    // A signal or a loss may have come first.
    if (this.#asked !== undefined) this.#end(this.#asked);
    return await new Promise((resolve) => {
      child.once("error", (error) => {
        const why = codeOf(error) === "not-found" ? "command not found" : messageOf(error);
        this.#io.err(`Error executing handler: ${line[0]}: ${why}\n`);
        resolve(false);
      });
      child.once("exit", (code, signal) => {
        if (code !== 0)
          this.#io.err(`Error running handler: ${signal === null ? `exit status ${code}` : `signal: ${signal}`}\n`);
        resolve(code === 0);
      });
    });
  }

  #onSignal(signal: NodeJS.Signals): void {
    if (ENDING.includes(signal)) {
      this.#asked ??= signal;
      this.#stop.abort();
      this.#end(signal);
    } else this.#forward(signal);
  }

  /** Asks the command to end, and sees to it. */
  #end(signal: NodeJS.Signals): void {
    if (this.#child === undefined) return;
    this.#tell(`Terminating child pid ${this.#child.pid}`);
    this.#forward(signal, true);
    this.#grace ??= systemClock.after(GRACE_MS, () => {
      this.#tell(`Child did not exit after grace period of ${GRACE_MS / 1000}s`);
      this.#forward("SIGKILL", true);
    });
  }

  /** To the command itself; `all`: to what it started as well. */
  #forward(signal: NodeJS.Signals, all = false): void {
    const child = this.#child;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    try {
      systemProcesses.kill(all && this.#options.passStdin !== true ? -child.pid : child.pid, signal);
    } catch (error) {
      this.#tell(`could not forward ${signal}: ${messageOf(error)}`);
    }
  }

  #tell(text: string): void {
    if (this.#options.verbose === true) this.#io.out(`${text}\n`);
  }
}
