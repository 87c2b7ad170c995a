// Looks at this host's processes all the time, and cheaply: who says SERVICE_NAME in its environment, and what does it listen on?
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Processes } from "../../base/process.ts";
import type { ProcessStat, ProcessTable, SocketTable } from "../../base/process-table.ts";
import type { CheckOptions } from "../../wire/service-check.ts";
import { ephemeralRange, listeningSockets, type Socket } from "./ports.ts";
import { type Carrier, type FoundServices, type PlainNames, servicesOf } from "./services.ts";
import { groupOf, isOverwritten, wordsOf } from "./words.ts";

export interface ScannerMachine {
  readonly clock: Clock;
  readonly log: Log;
  readonly processes: Pick<Processes, "proc" | "exists">;
  readonly table: ProcessTable;
  /** The agent's own process, which is no service of others. */
  readonly self: number;
  readonly checks: CheckOptions;
}

/** So often the kernel's counters are looked at, which cost next to nothing. */
const TICK_MS = 200;
/** So often the socket tables are read although no count of sockets changed, with new processes and without: one may have come as another went. */
const TABLES_STIRRED_MS = 600;
const TABLES_STILL_MS = 2000;
/** So often new processes are looked for while nothing new listens: a socket may be handed on. */
const NEWCOMERS_MS = 900;
/** So often everything is looked at anew: processes that execute something else, sockets that were passed on. */
const OWNERS_MS = 5000;
const SWEEP_MS = 60_000;
/** Each of these takes at most one part in so many of the time, but is not put off for longer than this: what is slow may only wait itself. */
const SHARE = 40;
const SHARED_MOST_MS = { tables: 500, newcomers: 2000, sweep: 10_000 };
/** A process is looked at again that long after it was first seen: it may have executed its program since. */
const YOUNG_MS = 1500;
/** So many owners are looked at in one tick. */
const OWNERS_A_TICK = 200;
/** Of those that wrote over their environment so many are asked what they listen on: the eldest, whose children are workers. */
const BLANKS = 64;
/** So many of those that say nothing are asked what they listen on, where others may not be asked: the youngest, which are behind new ports. */
const SILENT = 256;
/** So many processes are looked at in one turn of the event loop. */
const STATS_A_TURN = 100;
const ENVIRON_MAX_BYTES = 8 << 20;
/** A process that hangs in the kernel answers nobody; so many may, then no further environment is read until they do. */
const HANGS_MS = 2000;
const HANGS_MOST = 2;
const TABLES: readonly SocketTable[] = ["tcp", "tcp6", "udp", "udp6"];

/** What is known of a process. */
interface Known {
  readonly stat: ProcessStat;
  readonly denied: boolean;
  /** It wrote something else over its environment. */
  readonly blank: boolean;
  readonly carrier: Carrier | undefined;
}

const NOBODY: FoundServices = { found: [], complaints: [] };

export class Scanner {
  private readonly machine: ScannerMachine;
  private readonly plain: PlainNames;
  private readonly known = new Map<number, Known>();
  private readonly carriers = new Map<number, Carrier>();
  private readonly young = new Map<number, number>();
  private listening: ReadonlyMap<string, Socket> = new Map();
  private owned = new Set<string>();
  /** The ports of those that wrote over their environment, by the program's name. */
  private unread: ReadonlyMap<string, ReadonlySet<number>> = new Map();
  /** Sockets of those that may be looked at and say nothing: nobody hides behind them. */
  private silent: ReadonlySet<string> = new Set();
  /** Something new listens, and it was not looked whose it is. */
  private strange = false;
  private container = "";
  private range: readonly [low: number, high: number] = [32_768, 60_999];
  private pulse = { pids: "", sockets: "" };
  private hanging = 0;
  private deniedCount = 0;
  private at = { tables: Number.NEGATIVE_INFINITY, newcomers: 0, owners: 0, sweep: 0 };
  private cost = { tables: 0, newcomers: 0, sweep: 0 };
  private nextOwner = 0;
  /** Somebody could not be asked, and is again. */
  private unsure = false;
  /** Something listens whose process is not known to say anything. */
  private orphans = false;
  private result: FoundServices = NOBODY;
  private first = false;

  /** @param plain the ports that bear plain names, where that is known from before */
  constructor(machine: ScannerMachine, plain: PlainNames) {
    this.machine = machine;
    this.plain = plain;
  }

  /** True once everything was looked at. */
  get complete(): boolean {
    return this.first;
  }

  get services(): FoundServices {
    return this.result;
  }

  /** For people. */
  text(): string {
    if (!this.first) return "the processes of this host are being looked at";
    const far = [...this.carriers.values()].filter(({ elsewhere }) => elsewhere).length;
    const names = this.carriers.size - far;
    const others =
      far === 0
        ? ""
        : `; ${far} ${names === 0 ? "" : "more "}${far === 1 ? "does so" : "do so"} in other network namespaces, whose ports are not seen here: trilith announce registers them, or an agent there`;
    const words = `${names === 0 ? "no process says" : `${names} ${names === 1 ? "process says" : "processes say"}`} SERVICE_NAME${others}`;
    const blank = [...this.unread]
      .map(
        ([name, ports]) =>
          `${name} (port ${[...ports]
            .sort((a, b) => a - b)
            .slice(0, 3)
            .join(", ")})`,
      )
      .sort();
    const said =
      blank.length === 0
        ? words
        : `${words}; ${blank.slice(0, 5).join(", ")}${blank.length > 5 ? " …" : ""} wrote over ${blank.length === 1 ? "its" : "their"} ` +
          "environment, so that nobody can read it: use trilith run, or trilith announce --pid";
    const open = [...this.listening]
      .filter(([inode]) => !this.owned.has(inode) && !this.silent.has(inode))
      .map(([, { port }]) => port)
      .filter((port) => ![...this.unread.values()].some((ports) => ports.has(port)));
    if (this.deniedCount === 0 || open.length === 0) return said;
    const ports = [...new Set(open)].sort((a, b) => a - b);
    const shown = `${ports.slice(0, 5).join(", ")}${ports.length > 5 ? " …" : ""}`;
    const are = this.deniedCount === 1 ? "1 process" : `${this.deniedCount} processes`;
    return (
      `${said}; ${are} of others may not be looked at (perhaps behind port ${shown}): run the agent with their rights, ` +
      "as root or with the capabilities CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
    );
  }

  /** Looks until aborted; `changed` is called when there is something new, and after the first look. */
  async run(signal: AbortSignal, changed: () => void): Promise<void> {
    const { clock, log } = this.machine;
    let before = "";
    let broken = "";
    const tell = (): void => {
      this.result = servicesOf(this.carriers.values(), this.listening, this.range, this.plain, this.machine.checks);
      const now = JSON.stringify(this.result);
      if (now !== before) changed();
      before = now;
    };
    while (!signal.aborted) {
      try {
        if (!this.first) {
          this.container = groupOf((await this.machine.processes.proc("self/cgroup")) ?? "").container;
          this.range = await ephemeralRange(this.machine.processes);
        }
        // What a look found that broke off is not told yet.
        if ((await this.look(signal)) || broken !== "") tell();
        broken = "";
      } catch (error) {
        if (messageOf(error) !== broken) log.error("the processes could not be looked at", { error: messageOf(error) });
        broken = messageOf(error);
        this.beginAnew();
        if (this.forgetDead()) tell();
      }
      await clock.sleep(TICK_MS, signal).catch(() => {});
    }
  }

  /** One look. True where something about carriers or sockets changed. */
  private async look(signal: AbortSignal): Promise<boolean> {
    const { clock, table } = this.machine;
    const began = clock.monotonic();
    const pulse = table.pulse();
    const newcomers = pulse.pids !== this.pulse.pids;
    const replaced = this.verify();
    const due = (what: keyof Scanner["cost"], ms: number): boolean =>
      began - this.at[what] >= Math.max(ms, Math.min(this.cost[what] * SHARE, SHARED_MOST_MS[what]));
    let changed = !this.first || replaced.changed;
    let fresh: readonly string[] = [];
    const stirred = newcomers ? TABLES_STIRRED_MS : TABLES_STILL_MS;
    if (due("tables", pulse.sockets === this.pulse.sockets ? stirred : TICK_MS)) {
      const sockets = await this.tables();
      fresh = [...sockets.keys()].filter((inode) => !this.listening.has(inode));
      changed ||= fresh.length > 0 || [...this.listening.keys()].some((inode) => !sockets.has(inode));
      this.listening = sockets;
      this.pulse = { ...this.pulse, sockets: pulse.sockets };
      this.spent("tables", began);
    }
    const already = new Set(this.carriers.keys());
    const looking = newcomers || this.young.size > 0;
    const atOnce = replaced.executed || this.unsure || (looking && fresh.length > 0);
    if (!this.first || atOnce || (looking && due("newcomers", NEWCOMERS_MS))) {
      this.pulse = { ...this.pulse, pids: pulse.pids };
      const from = clock.monotonic();
      if (await this.inspect(fresh.length > 0 ? "young" : "new", signal)) changed = true;
      this.spent("newcomers", from);
    }
    const again = began - this.at.owners >= OWNERS_MS;
    if (again) this.at.owners = began;
    for (const pid of this.carriers.keys())
      if ((fresh.length > 0 || again || !already.has(pid)) && (await this.sockets(pid))) changed = true;
    this.own();
    if (!this.first || again || fresh.length > 0) await this.lookAtBlank();
    this.strange ||= fresh.length > 0;
    if (this.deniedCount > 0 && this.strange && (!this.first || again)) await this.lookAtSilent();
    // Somebody may have executed a program that says more than the one it was.
    this.orphans ||= fresh.some((inode) => !this.owned.has(inode));
    if (this.first && (this.orphans || began - this.at.sweep >= SWEEP_MS) && due("sweep", 0)) {
      this.orphans = false;
      const from = clock.monotonic();
      if (await this.inspect("all", signal)) {
        changed = true;
        for (const pid of this.carriers.keys()) await this.sockets(pid);
        this.own();
      }
      this.spent("sweep", from);
    }
    if (signal.aborted) return false;
    this.first = true;
    return changed;
  }

  private spent(what: keyof Scanner["cost"], from: number): void {
    this.at[what] = this.machine.clock.monotonic();
    this.cost[what] = this.at[what] - from;
  }

  private async tables(): Promise<Map<string, Socket>> {
    const found = new Map<string, Socket>();
    for (const name of TABLES)
      for (const socket of listeningSockets(
        await this.machine.table.table(name),
        name.startsWith("tcp") ? "tcp" : "udp",
      ))
        found.set(socket.inode, socket);
    return found;
  }

  /** Which of the sockets belong to somebody. */
  private own(): void {
    this.owned = new Set([...this.carriers.values()].flatMap(({ sockets }) => [...sockets]));
  }

  /** What do those listen on here that wrote over their environment? Who listens on nothing is nobody's concern. */
  private async lookAtBlank(): Promise<void> {
    const blank = [...this.known].flatMap(([pid, { blank, stat }]) => (blank ? [{ pid, stat }] : []));
    blank.sort((a, b) => a.stat.startTicks - b.stat.startTicks);
    const found = new Map<string, Set<number>>();
    for (const { pid, stat } of blank.slice(0, BLANKS)) {
      const held = await this.machine.table.sockets(pid);
      if (held === undefined || held === "denied") continue;
      for (const inode of held) {
        const port = this.listening.get(inode)?.port;
        if (port !== undefined) found.set(stat.name, (found.get(stat.name) ?? new Set()).add(port));
      }
    }
    this.unread = found;
  }

  /** Which ports are of those that may be looked at, the agent itself among them? Only what is left may be of others. */
  private async lookAtSilent(): Promise<void> {
    this.strange = false;
    const silent = new Set([...this.silent].filter((inode) => this.listening.has(inode)));
    let left = [...this.listening.keys()].filter((inode) => !this.owned.has(inode) && !silent.has(inode)).length;
    const asked = [...this.known]
      .filter(([, { stat, denied, blank }]) => !stat.kernel && !denied && !blank)
      .sort(([, a], [, b]) => b.stat.startTicks - a.stat.startTicks);
    for (const [pid] of asked.slice(0, SILENT)) {
      if (left <= 0) break;
      const held = await this.machine.table.sockets(pid);
      if (held === undefined || held === "denied") continue;
      for (const inode of held)
        if (this.listening.has(inode) && !this.owned.has(inode) && !silent.has(inode)) {
          silent.add(inode);
          left--;
        }
    }
    this.silent = silent;
  }

  /** Looks whether carriers still are who they were. */
  private verify(): { readonly changed: boolean; readonly executed: boolean } {
    const pids = [...this.carriers.keys()];
    let changed = false;
    let executed = false;
    const most = Math.min(pids.length, OWNERS_A_TICK);
    for (let i = 0; i < most; i++) {
      const pid = pids[this.nextOwner++ % pids.length] as number;
      const stat = this.machine.table.stat(pid);
      if (sameProgram(stat, this.known.get(pid)?.stat)) continue;
      this.forget(pid);
      changed = true;
      executed ||= stat !== undefined;
    }
    return { changed, executed };
  }

  private forget(pid: number): void {
    const known = this.known.get(pid);
    if (known === undefined) return;
    if (known.denied) this.deniedCount--;
    this.known.delete(pid);
    this.young.delete(pid);
    this.carriers.delete(pid);
  }

  /** Drops those that are gone for sure although nobody can be looked at: to ask that takes no descriptor. True where there were some. */
  private forgetDead(): boolean {
    const dead = [...this.carriers.keys()].filter((pid) => !this.machine.processes.exists(pid));
    for (const pid of dead) this.forget(pid);
    return dead.length > 0;
  }

  /** What a look has noted that broke off, and not gone on to look at, is looked at by the next. */
  private beginAnew(): void {
    this.pulse = { pids: "", sockets: "" };
    this.at.owners = Number.NEGATIVE_INFINITY;
    this.orphans = true;
  }

  /**
   * Reads what the processes say that are new, or execute another program by now: of those seen lately each is looked at once more, all of
   * them at once with "young"; "all" looks at everybody. True where a carrier came or went.
   */
  private async inspect(whom: "new" | "young" | "all", signal: AbortSignal): Promise<boolean> {
    const { clock, table } = this.machine;
    const now = clock.monotonic();
    this.unsure = false;
    const pids = new Set(await table.pids());
    let changed = false;
    for (const pid of [...this.known.keys()])
      if (!pids.has(pid)) {
        changed ||= this.carriers.has(pid);
        this.forget(pid);
      }
    const starts = new Set([...this.carriers.values()].map(({ pid, startTicks }) => `${pid}:${startTicks}`));
    for (const identity of this.plain.keys()) if (this.first && !starts.has(identity)) this.plain.delete(identity);
    let looked = 0;
    for (const pid of pids) {
      if (signal.aborted) return changed;
      const known = this.known.get(pid);
      const seen = this.young.get(pid);
      const grown = seen === undefined || now - seen >= YOUNG_MS;
      if (known !== undefined && whom !== "all" && (seen === undefined || (whom === "new" && !grown))) continue;
      if (grown) this.young.delete(pid);
      if (++looked % STATS_A_TURN === 0) await clock.yield();
      const stat = table.stat(pid);
      if (stat === undefined || sameProgram(stat, known?.stat)) continue;
      const was = this.carriers.get(pid);
      const next = await this.ask(pid, stat);
      if (next === undefined) {
        this.unsure = true;
        continue;
      }
      this.forget(pid);
      this.known.set(pid, next);
      if (this.first) this.young.set(pid, now);
      if (next.denied) this.deniedCount++;
      if (next.carrier !== undefined) this.carriers.set(pid, next.carrier);
      changed ||= was !== undefined || next.carrier !== undefined;
    }
    return changed;
  }

  /** What a process says; undefined where that cannot be known now. */
  private async ask(pid: number, stat: ProcessStat): Promise<Known | undefined> {
    const { processes, self, table } = this.machine;
    const silent: Known = { stat, denied: false, blank: false, carrier: undefined };
    if (stat.kernel || pid === self) return silent;
    if (this.hanging >= HANGS_MOST) return undefined;
    const environ = await this.patiently(table.environ(pid, ENVIRON_MAX_BYTES));
    if (environ === "denied") return { ...silent, denied: true };
    if (environ === undefined) return silent;
    const words = wordsOf(environ);
    if (words === undefined) return { ...silent, blank: isOverwritten(environ) };
    if (words.wrapped) return silent;
    const { container, unit } = groupOf((await processes.proc(`${pid}/cgroup`)) ?? "");
    // Containers are Docker's matter; those in the agent's own container are its neighbours.
    if (container !== this.container) return silent;
    // What was read is of this program only if it has not executed another one meanwhile.
    if (!sameProgram(table.stat(pid), stat)) return undefined;
    const { startTicks, name: program } = stat;
    const network = table.network(pid);
    const elsewhere = network !== undefined && network !== table.network("self");
    return { ...silent, carrier: { pid, startTicks, program, unit, env: words.env, elsewhere, sockets: new Set() } };
  }

  private async patiently<T>(reading: Promise<T>): Promise<T | undefined> {
    let late = false;
    let timer: { cancel(): void } | undefined;
    const over = new Promise<undefined>((resolve) => {
      timer = this.machine.clock.after(HANGS_MS, () => {
        late = true;
        this.hanging++;
        resolve(undefined);
      });
    });
    const read = reading.finally(() => {
      timer?.cancel();
      if (late) this.hanging--;
    });
    return await Promise.race([read, over]);
  }

  /** Looks again which sockets a carrier holds. True where that changes something about those that listen. */
  private async sockets(pid: number): Promise<boolean> {
    const held = await this.machine.table.sockets(pid);
    const carrier = this.carriers.get(pid);
    if (held === undefined || held === "denied" || carrier === undefined) return false;
    const listens = new Set([...held].filter((inode) => this.listening.has(inode)));
    const same = listens.size === carrier.sockets.size && [...listens].every((inode) => carrier.sockets.has(inode));
    if (same) return false;
    this.carriers.set(pid, { ...carrier, sockets: listens });
    return true;
  }
}

function sameProgram(a: ProcessStat | undefined, b: ProcessStat | undefined): boolean {
  return a !== undefined && b !== undefined && a.startTicks === b.startTicks && a.program === b.program;
}
