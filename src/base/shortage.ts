// What this host has run out of: file descriptors, memory, processes. Whatever fails for that says nothing about who was to be reached.
import { messageOf, TrilithError } from "./error.ts";

const LACKING: Readonly<Record<string, string>> = {
  EMFILE: "this process may open no more files and connections (its limit of file descriptors, ulimit -n)",
  ENFILE: "this host may open no more files and connections (fs.file-max)",
  ENOBUFS: "this host has no memory left for network buffers",
  ENOMEM: "this host has no memory left",
};

/** Thrown instead of a verdict about somebody else. Its message says what is lacking. */
export class Shortage extends TrilithError {
  constructor(lacking: string, cause: unknown) {
    super("unavailable", `${lacking}: ${messageOf(cause)}`, cause);
    this.name = "Shortage";
  }
}

/** Throws `Shortage` where anything in an error's chain of causes is one. `said`: also look at errnos within messages, for libraries that keep nothing else. */
export function throwIfShort(error: unknown, said = false): void {
  let at: unknown = error;
  for (let depth = 0; at !== null && at !== undefined && depth < 8; depth++) {
    if (at instanceof Shortage) throw at;
    const { code, syscall, cause, errors } = at as {
      code?: unknown;
      syscall?: unknown;
      cause?: unknown;
      errors?: unknown;
    };
    // With sockets EAGAIN is the other side's backlog.
    if (code === "EAGAIN" && typeof syscall === "string" && syscall.startsWith("spawn"))
      throw new Shortage("this host may start no more processes", error);
    const named = said ? /\b(EMFILE|ENFILE|ENOBUFS|ENOMEM)\b/.exec(messageOf(at))?.[1] : undefined;
    const lacking = LACKING[typeof code === "string" && Object.hasOwn(LACKING, code) ? code : (named ?? "")];
    if (lacking !== undefined) throw new Shortage(lacking, error);
    at = cause ?? (Array.isArray(errors) ? errors.at(-1) : undefined);
  }
}
