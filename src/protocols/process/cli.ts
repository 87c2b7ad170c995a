// `trilith run`: starts a program, finds the ports it listens on, keeps the agent told, forwards signals, drains, keeps the exit code.
import { type Clock, systemClock, type Timer } from "../../base/clock.ts";
import { InputError, messageOf, TrilithError } from "../../base/error.ts";
import { createHttp, type Http } from "../../base/http.ts";
import { type ChildProcess, type Processes, systemProcesses } from "../../base/process.ts";
import { type Random, systemRandom } from "../../base/random.ts";
import { onSignals } from "../../base/signals.ts";
import { type Exit, exitCodeOf, exitOf, isInForeground, STAND_IN_SIGNALS, startFault } from "../../base/stand-in.ts";
import type { Status } from "../../model/check.ts";
import { isPrintable } from "../../wire/consul-definition/faults.ts";
import { goDuration } from "./announce.ts";
import { type AgentAddress, Link, type LinkEvent } from "./link.ts";
import { type ListeningPort, liveStat, PortFinder } from "./ports.ts";
import {
  type CheckWord,
  PortNames,
  parseCheckWord,
  SCRIPT_TIMEOUT_MS,
  type StatedPort,
  type Statement,
} from "./statement.ts";
import { RUN_MARK } from "./words.ts";

export { type Advertised, advertise } from "./advertise.ts";
export { announcementOf, durationOf, idOf } from "./announce.ts";

/** The command line's wishes, as typed. */
export interface RunFlags {
  readonly command: readonly string[];
  readonly name?: string;
  readonly tags: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly ports: readonly string[];
  readonly checks: readonly string[];
  /** Go durations. */
  readonly interval: string;
  readonly drain: string;
  readonly stopTimeout: string;
  readonly agent: AgentAddress;
}

/** The machine a wrapper runs on; tests bring their own pieces. */
export interface RunMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly processes: Processes;
  readonly http: Http & { close(): Promise<void> };
  onSignals(names: readonly NodeJS.Signals[], callback: (name: NodeJS.Signals) => void): { close(): void };
}

/** Ports are looked for so often at first, and at the slowest once nothing changes. */
const LOOK_FIRST_MS = 20;
const LOOK_SLOWEST_MS = 1000;
/** Looking takes at most one part in so many of the time. */
const LOOK_SHARE = 50;
const LOOK_RAREST_MS = 5000;
/** A port that is gone is looked for once more after so long: the sockets of a program that ends are closed before its end is told. */
const GONE_MS = 100;
/** For so long ports are expected any moment. */
const LOOK_FAST_FOR_MS = 2000;
/** The whole state is repeated so often, also when nothing changed. */
const REPEAT_MS = 30_000;
/** Without a port for so long the user is told. */
const NO_PORT_MS = 10_000;
/** How long the agent may take to take a line over before the program is stopped, or its end is told. */
const TAKEN_MS = 1000;

/**
 * Runs a command to its end.
 * @returns the exit code: the program's own, 128 + n when signal n ended it, 127 or 126 when it could not be started
 * @throws InputError for flags that make no sense
 */
export async function run(
  flags: RunFlags,
  io: { err(text: string): void },
  machine: RunMachine = {
    clock: systemClock,
    random: systemRandom,
    processes: systemProcesses,
    http: createHttp(),
    onSignals,
  },
): Promise<number> {
  const wrapped = new Wrapped(flags, io, machine);
  try {
    return await wrapped.run();
  } finally {
    await machine.http.close();
  }
}

function duration(text: string, flag: string): number {
  const ms = goDuration(text, flag);
  if (ms < 0) throw new InputError(flag, `"${text}": expected a duration of 0 or more`);
  return ms;
}

class Wrapped {
  private readonly flags: RunFlags;
  private readonly io: { err(text: string): void };
  private readonly machine: RunMachine;
  private readonly name: string;
  private readonly wanted: readonly number[];
  private readonly checks: readonly CheckWord[];
  private readonly intervalMs: number;
  private readonly drainMs: number;
  private readonly stopTimeoutMs: number;
  private readonly names: PortNames;
  private readonly checkIds: readonly string[];
  private statement: Statement | undefined;
  /** The number of the last statement sent. */
  private stated = 0;
  private link: Link | undefined;
  private agentTold: "nothing" | "away" | "refused" = "nothing";
  private stopping = false;

  constructor(flags: RunFlags, io: { err(text: string): void }, machine: RunMachine) {
    this.flags = flags;
    this.io = io;
    this.machine = machine;
    const [file] = flags.command;
    if (file === undefined || file === "")
      throw new InputError("", "a command is missing: trilith run --name web -- python3 -m http.server 0");
    this.name = flags.name ?? file.slice(file.lastIndexOf("/") + 1);
    if (this.name === "" || this.name.includes("/") || !isPrintable(this.name))
      throw new InputError(
        "--name",
        `${JSON.stringify(this.name)}: expected a name without slashes and control characters`,
      );
    this.wanted = flags.ports.map((text) => {
      const port = Number(text);
      if (!/^\d+$/.test(text) || port < 1 || port > 65_535)
        throw new InputError("--port", `"${text}": expected a whole number from 1 to 65535`);
      return port;
    });
    this.intervalMs = duration(flags.interval, "--interval");
    if (this.intervalMs <= 0) throw new InputError("--interval", `"${flags.interval}": expected more than 0`);
    this.drainMs = duration(flags.drain, "--drain");
    this.stopTimeoutMs = duration(flags.stopTimeout, "--stop-timeout");
    // Pushed checks get their names before the program starts, so that it can be told them.
    this.checkIds = flags.checks.map(() => `${this.name}:${machine.random.uuid().slice(0, 8)}`);
    this.checks = flags.checks.map((word, i) => parseCheckWord(word, this.intervalMs, this.checkIds[i] as string));
    this.names = new PortNames(this.name);
  }

  private note(text: string): void {
    this.io.err(`trilith run: ${text}\n`);
  }

  async run(): Promise<number> {
    const { processes } = this.machine;
    const canLook = (await processes.proc("self/stat")) !== undefined;
    if (!canLook && this.wanted.length === 0)
      throw new InputError(
        "--port",
        "is needed on this system: ports are found by looking into /proc, which only Linux has",
      );
    let child: ChildProcess | undefined;
    const waiting: NodeJS.Signals[] = [];
    const signals = this.machine.onSignals(STAND_IN_SIGNALS, (name) => {
      if (child === undefined) waiting.push(name);
      else void this.onSignal(child, name);
    });
    const ended = new AbortController();
    try {
      const ttl = this.checks.findIndex((word) => !("script" in word) && word.check.kind === "ttl");
      child = processes.start(this.flags.command, {
        env: { [RUN_MARK]: "1", ...(ttl === -1 ? {} : { TRILITH_CHECK_ID: this.checkIds[ttl] as string }) },
      });
      const exit = exitOf(child);
      for (const name of waiting) void this.onSignal(child, name);
      const pid = child.pid;
      const looking = pid === undefined ? Promise.resolve() : this.watch(pid, canLook, ended.signal);
      let result: Exit;
      try {
        result = await exit;
      } catch (error) {
        const { text, exitCode } = startFault(error);
        this.note(`${this.flags.command[0]}: ${text}`);
        return exitCode;
      }
      ended.abort(new Error("the program ended"));
      await looking;
      const text = `process ${pid} (${this.name}) ${
        result.signal === null ? `exited with code ${result.code}` : `was ended by ${result.signal}`
      }`;
      await this.link?.gone(!this.stopping && (result.code ?? 1) !== 0, text, TAKEN_MS);
      return exitCodeOf(result);
    } finally {
      signals.close();
      ended.abort(new Error("the wrapper ends"));
      await this.link?.close();
      this.stopTimer?.cancel();
    }
  }

  /** Looks for ports and keeps the agent told until aborted. */
  private async watch(pid: number, canLook: boolean, signal: AbortSignal): Promise<void> {
    const { clock, processes } = this.machine;
    const started = clock.monotonic();
    const start = (await liveStat(processes, pid))?.startTicks ?? (await processes.startTime(pid)) ?? 0;
    if (signal.aborted && start === 0) return;
    this.statement = {
      pid,
      start,
      part: "",
      name: this.name,
      command: this.flags.command.join(" ").slice(0, 200),
      tags: this.flags.tags,
      labels: this.flags.labels,
      ports: [],
      checks: this.checks.map(({ check }) => check),
      draining: false,
    };
    this.link = new Link(this.machine, this.flags.agent, (event) => this.onLink(event));
    const scripts = this.checks.map((word) => ("script" in word ? this.runScript(word, signal) : Promise.resolve()));
    const finder = new PortFinder(processes, pid);
    let lookMs = LOOK_FIRST_MS;
    let last = "";
    let stated: readonly StatedPort[] = [];
    let held = false;
    let statedAt = Number.NEGATIVE_INFINITY;
    let told = false;
    while (!signal.aborted) {
      const lookedAt = clock.monotonic();
      const found = canLook ? await finder.look(lookMs < LOOK_SLOWEST_MS) : [];
      if (signal.aborted) break;
      const ports = this.names.give(await this.select(found, finder, canLook));
      // The reason of the end says more than that nothing listens any more.
      const shrunk = stated.some((port) => !ports.some((one) => one.name === port.name && one.port === port.port));
      held = shrunk && !held;
      if (held) {
        await clock.sleep(GONE_MS, signal).catch(() => {});
        continue;
      }
      const text = JSON.stringify(ports);
      const now = clock.monotonic();
      if (text !== last || now - statedAt > REPEAT_MS) {
        if (text !== last) lookMs = LOOK_FIRST_MS;
        last = text;
        stated = ports;
        statedAt = now;
        this.state({ ports });
      }
      if (!told && ports.length === 0 && now - started > NO_PORT_MS) {
        told = true;
        this.note(
          `"${this.name}" does not listen on any port so far, so there is nothing to register${
            finder.hidden
              ? " (some of its processes run as another user and cannot be looked at: name the port with --port)"
              : ""
          }`,
        );
      }
      await clock.sleep(lookMs, signal).catch(() => {});
      if (now - started < LOOK_FAST_FOR_MS) continue;
      // Programs with very many open files are looked at less often, so that looking stays cheap.
      lookMs = Math.max(
        Math.min(lookMs * 1.5, LOOK_SLOWEST_MS),
        Math.min((now - lookedAt) * LOOK_SHARE, LOOK_RAREST_MS),
      );
    }
    await Promise.all(scripts);
  }

  /** The ports to register, the one that may bear the plain name first. */
  private async select(
    found: readonly ListeningPort[],
    finder: PortFinder,
    canLook: boolean,
  ): Promise<readonly ListeningPort[]> {
    if (this.wanted.length === 0) return found;
    const own = this.wanted.map((port) => found.filter((one) => one.port === port));
    if (own.every((ports) => ports.length > 0)) return own.flat();
    // What is asked for by number may listen on the program's behalf without being its descendant (docker-proxy), or as another user.
    const all = canLook
      ? await finder.everybody()
      : this.wanted.map((port) => ({ protocol: "tcp" as const, port, host: "" }));
    return own.flatMap((ports, i) => (ports.length > 0 ? ports : all.filter(({ port }) => port === this.wanted[i])));
  }

  private state(change: Partial<Statement>): number {
    this.statement = { ...(this.statement as Statement), ...change };
    this.stated = this.link?.state(this.statement) ?? 0;
    return this.stated;
  }

  private onLink(event: LinkEvent): void {
    if (event.event === "connected") {
      // After a refusal, being connected is no good news yet.
      if (this.agentTold !== "away") return;
      this.note(`connected to the agent at ${this.flags.agent.shown}`);
      this.agentTold = "nothing";
    } else if (event.event === "away") {
      if (this.agentTold === "away" || this.stopping) return;
      this.agentTold = "away";
      this.note(
        `no agent answers at ${this.flags.agent.shown}: "${this.name}" runs all the same and is registered as soon as one does`,
      );
    } else if (this.agentTold !== "refused") {
      this.agentTold = "refused";
      this.note(`the agent at ${this.flags.agent.shown} did not register "${this.name}": ${event.text}`);
    }
  }

  private stopTimer: Timer | undefined;
  private draining = false;

  private async onSignal(child: ChildProcess, name: NodeJS.Signals): Promise<void> {
    const { clock } = this.machine;
    if (name === "SIGTERM" || name === "SIGINT" || name === "SIGQUIT") this.stopping = true;
    if ((name === "SIGINT" || name === "SIGQUIT") && (await isInForeground(this.machine.processes))) return;
    if (name === "SIGTERM" && !this.draining && this.link !== undefined && (this.statement?.ports.length ?? 0) > 0) {
      this.draining = true;
      const taken = await this.link.taken(this.state({ draining: true }), TAKEN_MS);
      // Where nobody could be told, nobody stops asking: waiting would help nobody.
      if (taken && this.drainMs > 0 && !this.hurried) await this.pause(this.drainMs);
      // A second signal has reached the program already.
      if (this.hurried) return;
      this.stopTimer = clock.after(this.stopTimeoutMs, () => {
        this.draining = false;
        this.stopping = false;
        this.state({ draining: false });
        this.note(`"${this.name}" still runs ${this.flags.stopTimeout} after SIGTERM and is back in answers`);
      });
    } else if (this.draining) {
      // Asked again: no more waiting.
      this.hurried = true;
      this.endPause?.();
    }
    child.kill(name);
  }

  private hurried = false;
  private endPause: (() => void) | undefined;

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.machine.clock.after(ms, resolve, true);
      this.endPause = () => {
        timer.cancel();
        resolve();
      };
    });
  }

  /** Runs a check's script at its interval, with the wrapper's own rights, and pushes the results. */
  private async runScript(
    word: { readonly script: string; readonly check: { readonly id: string } },
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, processes } = this.machine;
    while (!signal.aborted) {
      const first = this.statement?.ports.find((port) => port.first);
      if (first !== undefined) {
        // The agent must know the check before it can be told its result.
        await this.link?.taken(this.stated, TAKEN_MS);
        const timeout = AbortSignal.any([signal, timeoutOf(clock, SCRIPT_TIMEOUT_MS)]);
        let status: Status;
        let output: string;
        try {
          const result = await processes.run(["/bin/sh", "-c", word.script], {
            signal: timeout,
            env: { TRILITH_PORT: String(first.port) },
          });
          status = result.exitCode === 0 ? "passing" : result.exitCode === 1 ? "warning" : "critical";
          output = new TextDecoder().decode(result.output);
        } catch (error) {
          status = "critical";
          output = timeout.aborted ? `timed out after ${SCRIPT_TIMEOUT_MS / 1000} s` : messageOf(error);
        }
        if (signal.aborted) return;
        this.link?.report(word.check.id, status, output);
      }
      await clock.sleep(first === undefined ? 100 : this.intervalMs, signal).catch(() => {});
    }
  }
}

function timeoutOf(clock: Clock, ms: number): AbortSignal {
  const controller = new AbortController();
  clock.after(ms, () => controller.abort(new TrilithError("timeout", `not done after ${ms} ms`)));
  return controller.signal;
}
