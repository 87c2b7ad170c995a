// Processes: the only door to starting, signalling and looking at them.
import { type ChildProcess, spawn } from "node:child_process";
import { readdir, readFile, readlink } from "node:fs/promises";
import type { Socket } from "node:net";
import { hostname, userInfo } from "node:os";
import { type ProcessTable, systemProcessTable } from "./process-table.ts";

export type { ChildProcess };

/** How a finished command ended. */
export interface Finished {
  /** Null where a signal ended it. */
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** Standard output and error as they came, the last `keepBytes`. */
  readonly output: Uint8Array;
  readonly totalBytes: number;
}

export interface Processes {
  readonly pid: number;
  hostname(): string;
  /** The user's name; the number of one that the system's list of users does not name. */
  userName(): string;
  /** HOME, else what the system's list of users says; undefined where neither says anything. */
  homeFolder(): string | undefined;
  env(name: string): string | undefined;
  /**
   * Runs a command in a process group of its own, output captured. When aborted, the whole group gets SIGTERM, then SIGKILL after
   * `graceMs` (at the latest when this process exits); the promise rejects with the signal's reason at once, without waiting for the group to obey. @throws errno errors if it cannot start
   */
  run(
    command: readonly string[],
    options: {
      readonly signal?: AbortSignal;
      readonly keepBytes?: number;
      readonly graceMs?: number;
      /** Called with each piece of standard output and error as it comes: what was said counts also where the run is aborted. */
      readonly onOutput?: (chunk: Uint8Array) => void;
      readonly env?: Readonly<Record<string, string>>;
      readonly input?: Uint8Array | string;
      /** What the command left running may keep its output open: waited for it is so long, then the command has finished. Unless told, to its end. */
      readonly outputGraceMs?: number;
    },
  ): Promise<Finished>;
  /** Starts a command with the caller's own input (unless told) and output. */
  start(
    command: readonly string[],
    options?: {
      readonly env?: Readonly<Record<string, string>>;
      readonly detached?: boolean;
      readonly stdin?: "inherit" | "ignore" | "pipe";
    },
  ): ChildProcess;
  /** True while the process exists (also where it belongs to somebody else). */
  exists(pid: number): boolean;
  kill(pid: number, signal: NodeJS.Signals): void;
  /** When a process started, in clock ticks since boot (with the pid its identity); undefined where it is gone or /proc is missing. */
  startTime(pid: number): Promise<number | undefined>;
  /** Reads a file below /proc; undefined where the process is gone or may not be looked at. */
  proc(path: string): Promise<string | undefined>;
  procList(path: string): Promise<string[]>;
  procLink(path: string): Promise<string | undefined>;
  /** All processes at a glance; absent where they cannot be looked at. */
  readonly table?: ProcessTable;
}

/** What the system's list of users says; undefined for a user that is not in it, as in `docker run --user 1000`. */
function fromPasswd(look: () => string): string | undefined {
  try {
    return look();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_SYSTEM_ERROR") return undefined;
    throw error;
  }
}

/** The system's processes. */
export const systemProcesses: Processes = {
  pid: process.pid,
  hostname: () => hostname(),
  userName: () =>
    fromPasswd(() => userInfo().username) ?? (process.geteuid?.() === 0 ? "root" : `${process.geteuid?.()}`),
  homeFolder: () => process.env["HOME"] || fromPasswd(() => userInfo().homedir),
  env: (name) => process.env[name],
  run: (command, options) =>
    new Promise((resolve, reject) => {
      const { signal, keepBytes = 4096, graceMs = 2000 } = options;
      if (signal?.aborted) return reject(signal.reason);
      const [file = "", ...args] = command;
      const child = spawn(file, args, {
        detached: true,
        stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
        ...(options.env === undefined ? {} : { env: { ...process.env, ...options.env } }),
      });
      let kept = Buffer.alloc(0);
      let totalBytes = 0;
      let killer: NodeJS.Timeout | undefined;
      const group = (name: NodeJS.Signals): void => {
        if (child.pid === undefined) return;
        try {
          process.kill(-child.pid, name);
        } catch {
          // The group is gone already: that is what was wanted.
        }
      };
      const kill = (): void => {
        process.off("exit", kill);
        group("SIGKILL");
      };
      const onAbort = (): void => {
        group("SIGTERM");
        killer = setTimeout(kill, graceMs);
        killer.unref();
        // Whoever takes no SIGTERM must not outlive this process because its time was not up.
        process.once("exit", kill);
        child.stdout?.destroy();
        child.stderr?.destroy();
        child.unref();
        reject(signal?.reason);
      };
      const take = (chunk: Buffer): void => {
        totalBytes += chunk.length;
        options.onOutput?.(chunk);
        kept = Buffer.concat([kept, chunk]);
        if (kept.length > keepBytes) kept = kept.subarray(kept.length - keepBytes);
      };
      child.stdout?.on("data", take);
      child.stderr?.on("data", take);
      child.once("error", (error) => {
        signal?.removeEventListener("abort", onAbort);
        reject(error);
      });
      if (options.input !== undefined) {
        child.stdin?.on("error", () => {});
        child.stdin?.end(options.input);
      }
      signal?.addEventListener("abort", onAbort, { once: true });
      if (options.outputGraceMs !== undefined)
        child.once("exit", (exitCode, endedBy) => {
          const wait = setTimeout(() => {
            signal?.removeEventListener("abort", onAbort);
            // It is read on, so that whoever still writes is neither ended nor stopped by that; it keeps nobody here.
            for (const stream of [child.stdout, child.stderr]) (stream as Socket | null)?.unref();
            resolve({ exitCode, signal: endedBy, output: kept, totalBytes });
          }, options.outputGraceMs);
          child.once("close", () => clearTimeout(wait));
        });
      child.once("close", (exitCode, endedBy) => {
        signal?.removeEventListener("abort", onAbort);
        if (killer !== undefined && !groupExists(child.pid)) {
          clearTimeout(killer);
          process.off("exit", kill);
        }
        resolve({ exitCode, signal: endedBy, output: kept, totalBytes });
      });
    }),
  start(command, options = {}) {
    const [file = "", ...args] = command;
    return spawn(file, args, {
      stdio: [options.stdin ?? "inherit", "inherit", "inherit"],
      detached: options.detached ?? false,
      env: { ...process.env, ...options.env },
    });
  },
  exists(pid) {
    try {
      process.kill(pid, 0);
      return true;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === "EPERM";
    }
  },
  kill: (pid, signal) => void process.kill(pid, signal),
  async startTime(pid) {
    const text = await this.proc(`${pid}/stat`);
    // Field 22 [proc(5)]; the command in field 2 may hold blanks and parentheses.
    const ticks = Number(text?.slice(text.lastIndexOf(")") + 2).split(" ")[19]);
    return Number.isFinite(ticks) ? ticks : undefined;
  },
  proc: (path) => readFile(`/proc/${path}`, "utf8").catch(() => undefined),
  procList: (path) => readdir(`/proc/${path}`).catch(() => []),
  procLink: (path) => readlink(`/proc/${path}`).catch(() => undefined),
  table: systemProcessTable,
};

function groupExists(pid: number | undefined): boolean {
  if (pid === undefined) return false;
  try {
    process.kill(-pid, 0);
    return true;
  } catch {
    return false;
  }
}
