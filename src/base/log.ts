// The log: one line per event, a sentence and fields; pino behind it in the program, silence for library users.

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  trace(text: string, fields?: LogFields): void;
  debug(text: string, fields?: LogFields): void;
  info(text: string, fields?: LogFields): void;
  warn(text: string, fields?: LogFields): void;
  error(text: string, fields?: LogFields): void;
  /** A log whose lines carry `part: name`. */
  part(name: string): Log;
  /** Hears every line of every level and part until closed; absent where the log lets nobody listen. */
  follow?(listener: LogListener): { close(): void };
  /** Leaves out what is below this level from now on; absent where the log's maker decides that. */
  setLevel?(level: LogLevel): void;
}

/** Hears one line. Must not throw and must not block. */
export type LogListener = (level: LogLevel, part: string, text: string, fields: LogFields) => void;

/** Says nothing. */
export const silentLog: Log = {
  trace() {},
  debug() {},
  info() {},
  warn() {},
  error() {},
  part: () => silentLog,
};

type Line = (text: string, fields?: LogFields) => void;

/** A log's five ways to say something, each made for its level. */
function levels(at: (level: LogLevel) => Line): Pick<Log, LogLevel> {
  return { trace: at("trace"), debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** A log that hands each line to a function: for tests and for `monitor`. */
export function callbackLog(
  line: (level: LogLevel, part: string, text: string, fields: LogFields) => void,
  part = "",
): Log {
  const at =
    (level: LogLevel) =>
    (text: string, fields: LogFields = {}): void =>
      line(level, part, text, fields);
  return {
    ...levels(at),
    part: (name) => callbackLog(line, part === "" ? name : `${part}.${name}`),
  };
}

/** Hands every line on to a log, and to whoever follows. */
export function tappedLog(to: Log): Log & Required<Pick<Log, "follow">> {
  const listeners = new Set<LogListener>();
  const follow = (listener: LogListener): { close(): void } => {
    listeners.add(listener);
    return { close: () => void listeners.delete(listener) };
  };
  const tap = (inner: Log, part: string): Log & Required<Pick<Log, "follow">> => {
    const at =
      (level: LogLevel) =>
      (text: string, fields: LogFields = {}): void => {
        inner[level](text, fields);
        for (const listener of listeners) listener(level, part, text, fields);
      };
    return {
      ...levels(at),
      part: (name) => tap(inner.part(name), part === "" ? name : `${part}.${name}`),
      follow,
    };
  };
  return { ...tap(to, ""), ...(to.setLevel === undefined ? {} : { setLevel: (level) => to.setLevel?.(level) }) };
}

/** The program's log by pino, as JSON lines or (on a terminal) as plain text, to standard error; what is below the level is left out. */
export async function programLog(
  first: LogLevel,
  format: "text" | "json",
): Promise<Log & Required<Pick<Log, "setLevel">>> {
  if (format === "json") {
    const { pino } = await import("pino");
    const logger = pino(
      { level: first, base: null, timestamp: pino.stdTimeFunctions.isoTime },
      pino.destination({ fd: 2, sync: true }),
    );
    const log = callbackLog((at, part, text, fields) => logger[at](part === "" ? fields : { part, ...fields }, text));
    return {
      ...log,
      setLevel(level) {
        logger.level = level;
      },
    };
  }
  const RANK: Record<LogLevel, number> = { trace: 0, debug: 1, info: 2, warn: 3, error: 4 };
  let least = RANK[first];
  const log = callbackLog((at, part, text, fields) => {
    if (RANK[at] < least) return;
    const extra = Object.entries(fields).map(
      ([key, value]) => ` ${key}=${typeof value === "string" ? value : JSON.stringify(value)}`,
    );
    process.stderr.write(
      `${new Date().toISOString()} [${at.toUpperCase()}]  ${part === "" ? "agent" : part}: ${text}${extra.join("")}\n`,
    );
  });
  return {
    ...log,
    setLevel(level) {
      least = RANK[level];
    },
  };
}
