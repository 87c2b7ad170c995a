// What the commands of this folder run on: an mDNS engine of their own in this process, and how they are told to stop.
import type { Clock } from "../../../base/clock.ts";
import type { Mdns } from "../engine.ts";

/** Where a command writes, what it is called, and who stops it. */
export interface Shell {
  /** "avahi-browse", "trilith browse": for usage, version and faults. */
  readonly program: string;
  out(text: string): void;
  err(text: string): void;
  env(name: string): string | undefined;
  /** Aborted by SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
}

export interface Machine {
  readonly clock: Clock;
  /** A new engine that was not started. */
  mdns(): Mdns;
  /** True where another mDNS stack is on this host: an avahi-daemon, an agent. What is sent to this host alone is for that one then. */
  isCrowded(): Promise<boolean>;
}

/** Avahi gives up a resolution after so long. */
export const RESOLVE_MS = 5000;

/** Avahi's last words after a signal. */
export function quitting(shell: Shell): void {
  const text = shell.signal.reason instanceof Error ? shell.signal.reason.message : "";
  shell.err(`Got ${text.includes("SIGTERM") ? "SIGTERM" : "SIGINT"}, quitting.\n`);
}

/** Runs an engine for as long as `work` takes; it is stopped (goodbyes included) whatever happens. */
export async function withEngine<T>(machine: Machine, work: (mdns: Mdns, crowded: boolean) => Promise<T>): Promise<T> {
  const crowded = await machine.isCrowded();
  const mdns = machine.mdns();
  try {
    await mdns.start();
    return await work(mdns, crowded);
  } finally {
    await mdns.stop();
  }
}

/** Something that is ended from several sides, once; also by the signal. */
export class Ending {
  readonly reached: Promise<void>;
  readonly end: () => void;
  constructor(signal: AbortSignal) {
    let resolve!: () => void;
    this.reached = new Promise<void>((done) => {
      resolve = done;
    });
    this.end = () => {
      signal.removeEventListener("abort", resolve);
      resolve();
    };
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", resolve, { once: true });
  }
}
