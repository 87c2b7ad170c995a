// Looks at containers: lists and inspects, a few at a time, and keeps what was last known of each.
import type { Clock, Timer } from "../../base/clock.ts";
import { messageOf } from "../../base/error.ts";
import { jitter, type Random } from "../../base/random.ts";
import type { Reason } from "../../model/reason.ts";
import type { Engine } from "./client.ts";
import { type Container, describe, shortId } from "./inspect.ts";

/** What is known of the engine's containers; outlives connections, so that a daemon that is away takes nothing down. */
export interface Known {
  /** The running ones by ID. */
  readonly running: Map<string, Container>;
  /** Why containers that ran are not in `running` any more. */
  readonly departed: Map<string, Reason>;
  /** Containers that are there but could not be read, with the number of attempts. */
  readonly unread: Map<string, { readonly attempts: number; readonly text: string }>;
  /** Those that ended with a failure and are kept for it, as they last ran. */
  readonly failed: Map<string, Container>;
}

/** Which containers that do not run stay known as `failed`. */
export interface Keeping {
  readonly keeps: (exitCode: number) => boolean;
  /** Containers that counted before this process began; these stay, too, where they failed meanwhile. */
  readonly before: ReadonlySet<string>;
}

export interface Scan {
  /** Lists, and looks at every container that is new, missing or different, with `all` at every one. Rejects if the list cannot be had. */
  relist(all: boolean): Promise<void>;
  /** Looks at one container again; resolves after the first attempt, whatever came of it, and goes on trying by itself. */
  look(id: string): Promise<void>;
  /** True while a look at the container is under way. */
  looking(id: string): boolean;
  /** Its process ended, says the engine: it is out at once; a look follows, for it may have been started again. */
  died(id: string, name: string, exitCode: number, stopped: boolean): void;
}

const PARALLEL = 16;
const RETRY_MIN_MS = 100;
const RETRY_MAX_MS = 30_000;
const RETRY_JITTER = 0.2;

interface Look {
  /** Something happened since the inspect in flight was sent: its answer may be old. */
  again: boolean;
  readonly attempted: Promise<void>;
}

/** Starts looking through `engine` until the signal; `changed` is called whenever `known` became different. */
export function startScan(
  engine: Engine,
  known: Known,
  machine: { readonly clock: Clock; readonly random: Random },
  signal: AbortSignal,
  changed: () => void,
  keeping: Keeping = { keeps: () => false, before: new Set() },
): Scan {
  const { clock, random } = machine;
  const looks = new Map<string, Look>();
  const retries = new Map<string, { readonly attempts: number; readonly timer: Timer }>();
  const fingerprints = new Map<string, string>();
  const waiting: (() => void)[] = [];
  let busy = 0;

  const slot = async (): Promise<void> => {
    if (busy >= PARALLEL) await new Promise<void>((resolve) => waiting.push(resolve));
    else busy++;
  };
  const free = (): void => {
    const next = waiting.shift();
    if (next === undefined) busy--;
    else next();
  };

  const leave = (id: string, reason: Reason): void => {
    const ran = known.running.delete(id);
    if (known.failed.delete(id) || ran) known.departed.set(id, reason);
  };

  const take = (id: string, container: Container | undefined): void => {
    known.unread.delete(id);
    if (container?.running) {
      const runs = known.running.get(id);
      // What it is registered as stays as it was: a container on its way out loses its networks one by one.
      known.running.set(id, container.stopping && runs !== undefined ? { ...runs, stopping: true } : container);
      known.failed.delete(id);
      known.departed.delete(id);
      return;
    }
    fingerprints.delete(id);
    const failed = known.failed.get(id);
    const before = known.running.get(id) ?? failed;
    if (container !== undefined && keeping.keeps(container.exitCode)) {
      if (before !== undefined || keeping.before.has(id)) known.failed.set(id, before ?? container);
      known.running.delete(id);
      return;
    }
    if (before === undefined) return;
    const text =
      container === undefined
        ? `container ${describe(before)} was removed`
        : `container ${describe(before)} is not running, exit code ${container.exitCode}`;
    leave(id, { code: container === undefined ? "missing" : "died", text, confirmed: true, atMs: clock.now() });
  };

  const fail = (id: string, error: unknown): void => {
    const attempts = (retries.get(id)?.attempts ?? 0) + 1;
    const delayMs = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** (attempts - 1));
    const timer = clock.after(jitter(delayMs, RETRY_JITTER, random), () => void look(id));
    retries.set(id, { attempts, timer });
    known.unread.set(id, { attempts, text: messageOf(error) });
  };

  const inspect = async (id: string, state: { again: boolean }, attempted: () => void): Promise<void> => {
    await slot();
    try {
      do {
        state.again = false;
        try {
          const container = await engine.inspect(id);
          if (state.again) continue;
          retries.delete(id);
          take(id, container);
        } catch (error) {
          if (signal.aborted) return;
          if (!state.again) fail(id, error);
        }
      } while (state.again && !signal.aborted);
    } finally {
      looks.delete(id);
      free();
      attempted();
    }
    changed();
  };

  const look = (id: string): Promise<void> => {
    if (signal.aborted) return Promise.resolve();
    retries.get(id)?.timer.cancel();
    const underWay = looks.get(id);
    if (underWay !== undefined) {
      underWay.again = true;
      return underWay.attempted;
    }
    let attempted = (): void => {};
    const state: Look = {
      again: false,
      attempted: new Promise((resolve) => {
        attempted = resolve;
      }),
    };
    looks.set(id, state);
    void inspect(id, state, attempted);
    return state.attempted;
  };

  signal.addEventListener(
    "abort",
    () => {
      for (const { timer } of retries.values()) timer.cancel();
      for (const resume of waiting.splice(0)) resume();
    },
    { once: true },
  );

  return {
    look,
    looking: (id) => looks.has(id),
    async relist(all) {
      const listed = await engine.list();
      const ids = new Set<string>();
      const looking: Promise<void>[] = [];
      for (const { id, fingerprint } of listed) {
        ids.add(id);
        if (all || !known.running.has(id) || fingerprints.get(id) !== fingerprint) looking.push(look(id));
        fingerprints.set(id, fingerprint);
      }
      // The list may be older than an event that came meanwhile: only a look at the container itself proves that it is gone.
      const others = new Set([...known.running.keys(), ...known.unread.keys(), ...known.failed.keys()]);
      if (all) for (const id of keeping.before) others.add(id);
      for (const id of others) if (!ids.has(id)) looking.push(look(id));
      await Promise.all(looking);
    },
    died(id, name, exitCode, stopped) {
      const ran = known.running.get(id);
      const who = ran?.name || name;
      if (ran !== undefined && keeping.keeps(exitCode)) {
        known.running.delete(id);
        known.failed.set(id, ran);
      } else
        leave(id, {
          code: stopped ? "stopped" : "died",
          text: `container ${who === "" ? shortId(id) : `${who} (${shortId(id)})`} ${stopped ? "was stopped" : "died"}, exit code ${exitCode}`,
          confirmed: true,
          atMs: clock.now(),
        });
      fingerprints.delete(id);
      changed();
      void look(id);
    },
  };
}
