// The kernel's tables of processes and listening sockets (/proc), read cheaply and often; the only door to them for sources.
import { closeSync, openSync, read, readdirSync, readlinkSync, readSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { setImmediate as nextTurn } from "node:timers/promises";
import { promisify } from "node:util";
import { throwIfShort } from "./shortage.ts";

/** A process's identity and what changes when it executes another program. */
export interface ProcessStat {
  /** The name the kernel shows, at most 15 characters; a program may change it. */
  readonly name: string;
  /** Clock ticks since boot: with the pid the process's identity. */
  readonly startTicks: number;
  /** Another text after each exec (where its program and environment lie in memory). */
  readonly program: string;
  /** True for threads of the kernel, which have neither program nor environment. */
  readonly kernel: boolean;
}

export type SocketTable = "tcp" | "tcp6" | "udp" | "udp6";

/**
 * What may be looked at about all processes. What is gone is undefined, what is forbidden is "denied"; nothing throws but `Shortage`, where
 * this process has no descriptors left to look.
 */
export interface ProcessTable {
  /** True where the system has a /proc like Linux's. */
  here(): boolean;
  /** `pids`: another number after each new process or thread; `sockets`: mostly another text after a socket was bound or closed. */
  pulse(): { readonly pids: string; readonly sockets: string };
  pids(): Promise<number[]>;
  /** Undefined where it is gone or only waits to be collected. */
  stat(pid: number): ProcessStat | undefined;
  /** At most `maxBytes` of the environment with which its program was started. May wait for ever where the process hangs in the kernel. */
  environ(pid: number, maxBytes: number): Promise<Uint8Array | "denied" | undefined>;
  /** The inodes of the sockets that it holds. */
  sockets(pid: number): Promise<ReadonlySet<string> | "denied" | undefined>;
  /** Its network namespace, "net:[4026531840]"; undefined where that may not be known. */
  network(pid: number | "self"): string | undefined;
  /** The rows of a socket table of this process's own network namespace; of TCP the listening ones, and perhaps more. */
  table(name: SocketTable): Promise<string>;
}

const readFile = promisify(read);
const CHUNK_FIRST_BYTES = 8 << 10;
const CHUNK_MOST_BYTES = 64 << 10;
/** So many links are read in one turn of the event loop. */
const LINKS_A_TURN = 500;

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? "";
function refusal(error: unknown): "denied" | undefined {
  throwIfShort(error);
  return ["EACCES", "EPERM"].includes(codeOf(error)) ? "denied" : undefined;
}
/** What cannot be read is not there. */
function absent(error: unknown): undefined {
  throwIfShort(error);
}

const scratch = Buffer.alloc(16 << 10);
/** One read of a small file of /proc, which the kernel answers from memory. */
function small(path: string): string | undefined {
  let file: number | undefined;
  try {
    file = openSync(path, "r");
    return scratch.toString("latin1", 0, readSync(file, scratch, 0, scratch.length, null));
  } catch (error) {
    return absent(error);
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/**
 * Reads on until the end, `maxBytes`, or `enough`. Opening never waits; reading may, for the memory of a process that hangs, and is done
 * elsewhere than in the event loop. @throws errno errors
 */
async function chunks(
  path: string,
  maxBytes: number,
  enough: (chunk: Buffer, size: number) => boolean,
): Promise<Buffer> {
  const file = openSync(path, "r");
  try {
    const all: Buffer[] = [];
    let size = CHUNK_FIRST_BYTES;
    for (let total = 0; total < maxBytes; size = Math.min(size * 2, CHUNK_MOST_BYTES)) {
      const chunk = Buffer.allocUnsafe(Math.min(size, maxBytes - total));
      const { bytesRead } = await readFile(file, chunk, 0, chunk.length, null);
      if (bytesRead === 0) break;
      total += bytesRead;
      all.push(chunk.subarray(0, bytesRead));
      if (enough(chunk.subarray(0, bytesRead), chunk.length)) break;
    }
    return all.length === 1 && all[0] !== undefined ? all[0] : Buffer.concat(all);
  } finally {
    closeSync(file);
  }
}

/** The numbers in use, without the memory they take, which changes all the time. */
function inUse(text: string | undefined): string {
  return [...(text ?? "").matchAll(/^((?:TCP|UDP)6?): inuse (\d+)/gm)].map((match) => match[2]).join(" ");
}

/** Reads /proc/<pid>/stat. Fields are counted from 3, behind the name, which may hold blanks and parentheses [proc(5)]. */
function parseStat(text: string): ProcessStat | undefined {
  const end = text.lastIndexOf(")");
  const fields = text.slice(end + 2).split(" ");
  const field = (number: number): string => fields[number - 3] ?? "0";
  if (end < 0 || field(3) === "Z" || field(3) === "X") return undefined;
  return {
    name: Buffer.from(text.slice(text.indexOf("(") + 1, end), "latin1").toString("utf8"),
    startTicks: Number(field(22)),
    program: [26, 50, 51].map((number) => field(number).trim()).join(" "),
    kernel: field(23) === "0",
  };
}

/** This system's table. */
export const systemProcessTable: ProcessTable = {
  here: () => small("/proc/self/stat") !== undefined && small("/proc/net/tcp") !== undefined,
  pulse: () => ({
    pids: small("/proc/loadavg")?.trim().split(" ")[4] ?? "",
    sockets: `${inUse(small("/proc/net/sockstat"))} ${inUse(small("/proc/net/sockstat6"))}`,
  }),
  async pids() {
    const names = (await readdir("/proc").catch(absent)) ?? [];
    return names.flatMap((name) => (/^\d/.test(name) ? [Number(name)] : []));
  },
  stat(pid) {
    const text = small(`/proc/${pid}/stat`);
    return text === undefined ? undefined : parseStat(text);
  },
  environ: (
    pid,
    maxBytes, // What does not fill its buffer was the last of it.
  ) => chunks(`/proc/${pid}/environ`, maxBytes, (chunk, size) => chunk.length < size).catch(refusal),
  async sockets(pid) {
    const found = new Set<string>();
    let files: string[];
    try {
      files = readdirSync(`/proc/${pid}/fd`);
    } catch (error) {
      return refusal(error);
    }
    for (const [i, file] of files.entries()) {
      if (i % LINKS_A_TURN === LINKS_A_TURN - 1) await nextTurn();
      try {
        const link = readlinkSync(`/proc/${pid}/fd/${file}`);
        if (link.startsWith("socket:[")) found.add(link.slice(8, -1));
      } catch (error) {
        // A file that was closed meanwhile.
        if (refusal(error) !== undefined) return "denied";
      }
    }
    return found;
  },
  network(pid) {
    try {
      return readlinkSync(`/proc/${pid}/ns/net`);
    } catch {
      return undefined;
    }
  },
  async table(name) {
    // The kernel lists the listening ones first: what follows them is of no use, and may be very long.
    const others = (chunk: Buffer): boolean => {
      const lines = chunk.toString("latin1").trimEnd().split("\n");
      return /^\s*\d+: \S+ \S+ 0[1-9B-F] /.test(lines.at(-1) ?? "");
    };
    const never = (): boolean => false;
    try {
      return (await chunks(`/proc/net/${name}`, 1 << 24, name.startsWith("tcp") ? others : never)).toString("latin1");
    } catch (error) {
      return absent(error) ?? "";
    }
  },
};
