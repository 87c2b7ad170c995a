// A file of counters that several programs of one user write at once, each its own part: read and written in place, at once (it lies in memory, or nearly).
import type { Stats } from "node:fs";
import { fs } from "./lazy-fs.ts";

/** An open file. */
export interface CounterFile {
  /** Fills `into` from there; false where that cannot be read. */
  read(offset: number, into: Uint8Array): boolean;
  /** False where that cannot be written. */
  write(offset: number, bytes: Uint8Array): boolean;
  /** True where another file, or none, has its name by now. */
  isReplaced(): boolean;
  close(): void;
}

/** This process, as others can tell it from a later one with its number. */
export interface OwnProcess {
  readonly pid: number;
  readonly uid: number;
  /** Clock ticks since boot. */
  readonly startTicks: bigint;
  /** The inode of its pid namespace. */
  readonly namespace: bigint;
}

/**
 * Opens this user's file in a folder to which everybody may add files; where it is missing one of `size` bytes, which begin with `head`, is made.
 * Undefined where that is not possible, or what is there is no regular file of that size that is this user's alone.
 */
export function openCounterFile(folder: string, size: number, head: Uint8Array): CounterFile | undefined {
  const uid = process.geteuid?.();
  // Who starts a setuid program decides what it connects to: that must not teach its user's other programs.
  if (uid === undefined || uid !== process.getuid?.()) return undefined;
  const { closeSync, constants, fstatSync, lstatSync, openSync, readSync, writeSync } = fs();
  const path = `${folder}/${uid}`;
  const flags = constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY;
  let descriptor: number | undefined;
  let found: Stats;
  try {
    try {
      descriptor = openSync(path, flags);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") return undefined;
      makeFile(folder, path, size, head);
      descriptor = openSync(path, flags);
    }
    found = fstatSync(descriptor);
    if (!found.isFile() || found.uid !== uid || (found.mode & 0o022) !== 0 || found.size !== size)
      throw new Error(`${path} is not used`);
  } catch {
    if (descriptor !== undefined) closeSync(descriptor);
    return undefined;
  }
  const opened = descriptor;
  const whole = (call: () => number, length: number): boolean => {
    try {
      return call() === length;
    } catch {
      return false;
    }
  };
  return {
    read: (offset, into) => whole(() => readSync(opened, into, 0, into.length, offset), into.length),
    write: (offset, bytes) => whole(() => writeSync(opened, bytes, 0, bytes.length, offset), bytes.length),
    isReplaced() {
      try {
        const now = lstatSync(path, { throwIfNoEntry: false });
        return now?.ino !== found.ino || now.dev !== found.dev;
      } catch {
        // Out of reach: that says nothing.
        return false;
      }
    },
    close: () => closeSync(opened),
  };
}

/** Under another name first, so that nobody ever sees half of one; all of its bytes are taken on the disk. */
function makeFile(folder: string, path: string, size: number, head: Uint8Array): void {
  const { closeSync, constants, linkSync, openSync, unlinkSync, writeSync } = fs();
  const temporary = `${folder}/.${path.slice(folder.length + 1)}.${process.pid}.${process.hrtime.bigint()}`;
  const descriptor = openSync(
    temporary,
    constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o600,
  );
  try {
    const bytes = Buffer.alloc(size);
    bytes.set(head);
    if (writeSync(descriptor, bytes, 0, size, 0) === size) linkSync(temporary, path);
  } catch (error) {
    // Another one was quicker: that is the one to take.
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  } finally {
    closeSync(descriptor);
    unlinkSync(temporary);
  }
}

/** Who this process is to the file system; undefined where the system has no such numbers. */
export function effectiveUid(): number | undefined {
  return process.geteuid?.();
}

/** Undefined where /proc does not tell. */
export function ownProcess(): OwnProcess | undefined {
  const own = startTicks("self", process.pid);
  try {
    const namespace = fs().statSync("/proc/self/ns/pid", { bigint: true }).ino;
    return own === undefined
      ? undefined
      : { pid: process.pid, uid: process.geteuid?.() ?? 0, startTicks: own, namespace };
  } catch {
    return undefined;
  }
}

/** False where no process has this number. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

/** When a process began, in clock ticks since boot (/proc/PID/stat, field 22); undefined where that is not told, 0 for one that ended and waits for its parent. */
export function startTicks(name: string, pid: number): bigint | undefined {
  try {
    const text = fs().readFileSync(`/proc/${name}/stat`, "latin1");
    // A /proc of another pid namespace tells another number.
    if (Number.parseInt(text, 10) !== pid) return undefined;
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? 0n : BigInt(fields[19] ?? "");
  } catch {
    return undefined;
  }
}

/** The system's number of an error code ("ECONNREFUSED"); 0 where it has none. */
export function errnoOf(code: string): number {
  return (process.getBuiltinModule("node:os").constants.errno as Readonly<Record<string, number>>)[code] ?? 0;
}

/** Calls back when this thread ends in an orderly way; nothing asynchronous is done any more then. */
export function atEnd(callback: (thread: "main" | "worker") => void): void {
  const { isMainThread } = process.getBuiltinModule("node:worker_threads");
  process.once("exit", () => callback(isMainThread ? "main" : "worker"));
}
