// Standing in for a program: this process starts it, hands it the signals that it gets itself, and ends as it did.
import { codeOf, messageOf } from "./error.ts";
import type { ChildProcess, Processes } from "./process.ts";

/** The signals that are the program's. */
export const STAND_IN_SIGNALS: readonly NodeJS.Signals[] = [
  "SIGTERM",
  "SIGINT",
  "SIGHUP",
  "SIGQUIT",
  "SIGUSR1",
  "SIGUSR2",
];

/** How a program ended. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Resolves when it ended; rejects where it could not be started. */
export function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve({ code, signal }));
  });
}

/** The exit code that a shell would have told: the program's own, or 128 and the signal's number. */
export function exitCodeOf({ code, signal }: Exit): number {
  return signal === null ? (code ?? 1) : 128 + signalNumber(signal);
}

/** Why a program could not be started, in a shell's words and with its exit code. */
export function startFault(error: unknown): { readonly text: string; readonly exitCode: number } {
  if (codeOf(error) === "not-found") return { text: "command not found", exitCode: 127 };
  return { text: codeOf(error) === "not-allowed" ? "permission denied" : messageOf(error), exitCode: 126 };
}

/** True where this process is in its terminal's foreground group: Ctrl-C then reaches the program, being in the same group, without help. */
export async function isInForeground(processes: Pick<Processes, "pid" | "proc">): Promise<boolean> {
  const text = await processes.proc(`${processes.pid}/stat`);
  // The group is field 5, the terminal's foreground group field 8; the command in field 2 may hold blanks and parentheses [proc(5)].
  const [, , group, , , foreground] = (text ?? "").slice((text ?? "").lastIndexOf(")") + 2).split(" ");
  return Number(foreground) > 0 && foreground === group;
}

const NUMBERS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGILL: 4,
  SIGTRAP: 5,
  SIGABRT: 6,
  SIGBUS: 7,
  SIGFPE: 8,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGSEGV: 11,
  SIGUSR2: 12,
  SIGPIPE: 13,
  SIGALRM: 14,
  SIGTERM: 15,
  SIGSTKFLT: 16,
  SIGXCPU: 24,
  SIGXFSZ: 25,
  SIGVTALRM: 26,
  SIGPROF: 27,
  SIGIO: 29,
  SIGPWR: 30,
  SIGSYS: 31,
};

/** Linux's numbers, as shells report them. */
function signalNumber(name: string): number {
  return NUMBERS[name] ?? 15;
}
