// The one error class of the project and its closed list of codes.

/** Every way in which something can go wrong. Each dialect owns a `Record<Code, …>`, so that a new code breaks the build until all answer. */
export type Code =
  | "invalid" // the input is wrong: the message says what was given, where, and what would be right
  | "not-found"
  | "conflict" // somebody else holds that name, id or file
  | "too-large"
  | "not-allowed" // forbidden by configuration or by the operating system
  | "unsupported"
  | "unavailable" // a store, server or peer is away, or this host has run out of something; trying later makes sense
  | "timeout"
  | "stopped" // this agent is stopping
  | "locked" // another process uses the data folder
  | "newer-data" // written by a newer version
  | "damaged" // data that cannot be read
  | "disk-full"
  | "read-only"
  | "address-in-use"
  | "internal";

/** An error with a code for programs and a sentence for people. */
export class TrilithError extends Error {
  readonly code: Code;
  constructor(code: Code, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "TrilithError";
    this.code = code;
  }
}

/** Input that is wrong at a place: file, line, column, key. */
export class InputError extends TrilithError {
  readonly where: string;
  constructor(where: string, message: string, cause?: unknown) {
    super("invalid", where === "" ? message : `${where}: ${message}`, cause);
    this.name = "InputError";
    this.where = where;
  }
}

const BY_ERRNO: Readonly<Record<string, Code>> = {
  ENOENT: "not-found",
  EACCES: "not-allowed",
  EPERM: "not-allowed",
  EADDRINUSE: "address-in-use",
  ENOSPC: "disk-full",
  EDQUOT: "disk-full",
  EROFS: "read-only",
  ECONNREFUSED: "unavailable",
  ECONNRESET: "unavailable",
  EPIPE: "unavailable",
  EHOSTUNREACH: "unavailable",
  ENETUNREACH: "unavailable",
  ETIMEDOUT: "timeout",
};

/** The code of anything thrown: a TrilithError's own, an errno's nearest, else "internal". */
export function codeOf(error: unknown): Code {
  if (error instanceof TrilithError) return error.code;
  const errno = (error as { code?: unknown } | null)?.code;
  return (typeof errno === "string" ? BY_ERRNO[errno] : undefined) ?? "internal";
}

/** Anything thrown as a TrilithError, with what was being done in front of its message. */
export function wrap(error: unknown, doing: string): TrilithError {
  return new TrilithError(codeOf(error), `${doing}: ${messageOf(error)}`, error);
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
