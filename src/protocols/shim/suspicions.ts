// What programs saw of backends, summed; where their failures grew the agent tries the backend itself, so that no user's word counts for another.
import type { Clock, Timer } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Metrics } from "../../base/metrics.ts";
import type { Net } from "../../base/net.ts";
import { jitter, type Random } from "../../base/random.ts";
import {
  decodeObserved,
  OBSERVED_BLOCKS,
  OBSERVED_BYTES,
  OBSERVED_ENTRIES,
  type SeenBlock,
} from "../../wire/hook-observed.ts";

const LOOK_MS = 1_000;
/** Looking takes at most one part in so many of the time. */
const LOOK_SHARE = 50;
const CONNECT_MS = 2_000;
const AT_ONCE = 16;
/** So many backends of a service are tried because one of them has failed. */
const MOST_BESIDE = 64;
/** One backend is tried at most so often, and one that refuses more and more rarely. */
const TRY_AGAIN_MS = 1_000;
const TRY_RAREST_MS = 10_000;
/** So many users' files are read; a folder that everybody may write to can hold any number. */
const MOST_USERS = 256;
/** Nobody connects so often between two looks: the numbers were written by hand. */
const MOST_GROWTH = 10_000_000;

/** A backend's key in the maps here. */
export const backendKey = (address: string, port: number): string => `${address} ${port}`;

export interface SuspicionsParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Pick<Disk, "list">;
  /** Reads a file that anybody may have made, where it is the user's and has that size (base/mapped-file.ts). */
  readonly read: (path: string, uid: number, bytes: number) => Promise<Uint8Array | undefined>;
  readonly net: Pick<Net, "connect">;
  readonly metrics: Metrics;
  /** The TCP backends that stand in the table, by `backendKey`; nothing else is ever connected to. */
  readonly backends: () => ReadonlySet<string>;
  /** The other TCP backends of the services that have this one. */
  readonly beside: (address: string, port: number) => readonly { readonly address: string; readonly port: number }[];
  /** The backends that a program's address may stand for: itself, and what it is another address of. */
  readonly meant: (address: string, port: number) => readonly { readonly address: string; readonly port: number }[];
  /** A backend refuses, or does no longer. `news`: it did not before; `refused`: it said so itself (each time is told), which confirms that what is held is lost. */
  readonly changed: (
    address: string,
    port: number,
    how: { readonly suspect: boolean; readonly news: boolean; readonly refused: boolean },
  ) => void;
}

export interface Suspicions {
  /** Begins to read the folder; until then nothing is known. */
  watch(folder: string): void;
  isSuspect(address: string, port: number): boolean;
  count(): number;
  /** Users whose files this agent may not read. */
  unread(): number;
  /** Why nothing can be read at present; undefined where it can. */
  trouble(): string | undefined;
  stop(): Promise<void>;
}

/** What was last read of a user's file: connects and failures by block and entry. */
interface Counted {
  readonly connects: Float64Array;
  readonly failures: Float64Array;
}

interface Trial {
  readonly address: string;
  readonly port: number;
  /** Monotonic milliseconds of the last try's end; -Infinity = never. */
  lastMs: number;
  /** Failures in a row, 0 = it answers. */
  failed: number;
  running: boolean;
  timer: Timer | undefined;
}

/** See `SuspicionsParts`. */
export function createSuspicions(parts: SuspicionsParts): Suspicions {
  const { clock, random, disk, net, backends, beside, meant, changed } = parts;
  const connects = parts.metrics.counter("hook_connects_total", "Connections that hooked programs made to services");
  const failures = parts.metrics.counter("hook_failures_total", "Tries to connect of hooked programs that failed");
  const over = new AbortController();
  const users = new Map<string, Counted>();
  const trials = new Map<string, Trial>();
  const waiting: Trial[] = [];
  const running = new Set<Promise<void>>();
  let unread = 0;
  let trouble: string | undefined;
  let first = true;
  let life: Promise<void> | undefined;

  const trialOf = (address: string, port: number): Trial => {
    const key = backendKey(address, port);
    let trial = trials.get(key);
    if (trial === undefined) {
      trial = { address, port, lastMs: Number.NEGATIVE_INFINITY, failed: 0, running: false, timer: undefined };
      trials.set(key, trial);
    }
    return trial;
  };

  /** How a try ended: undefined = it says nothing about the backend. */
  const attempt = async ({ address, port }: Trial): Promise<"answers" | "refuses" | "silent" | undefined> => {
    const limit = new AbortController();
    const alarm = clock.after(CONNECT_MS, () => limit.abort(new TrilithError("timeout", "no answer")));
    try {
      const socket = await net.connect({ host: address, port }, AbortSignal.any([limit.signal, over.signal]));
      socket.destroy();
      return "answers";
    } catch (error) {
      if (over.signal.aborted) return undefined;
      if (limit.signal.aborted) return "silent";
      const cause = (error as { cause?: unknown }).cause ?? error;
      const errno = String((cause as { code?: unknown }).code);
      if (errno === "ECONNREFUSED" || errno === "ECONNRESET") return "refuses";
      return ["EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT", "EHOSTDOWN"].includes(errno) ? "silent" : undefined;
    } finally {
      alarm.cancel();
    }
  };

  const run = async (trial: Trial): Promise<void> => {
    const how = await attempt(trial);
    trial.lastMs = clock.monotonic();
    trial.running = false;
    if (over.signal.aborted || how === undefined) return;
    const before = trial.failed > 0;
    trial.failed = how === "answers" ? 0 : trial.failed + 1;
    const suspect = trial.failed > 0;
    const news = before !== suspect;
    if (how === "refuses" || news) changed(trial.address, trial.port, { suspect, news, refused: how === "refuses" });
    // What ended one may have ended others, which programs would find out one by one.
    if (trial.failed === 1) for (const each of beside(trial.address, trial.port).slice(0, MOST_BESIDE)) soon(each);
    if (trial.failed > 0) later(trial, Math.min(TRY_RAREST_MS, TRY_AGAIN_MS * 2 ** Math.min(trial.failed - 1, 10)));
  };
  const pump = (): void => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const round = run(next).finally(() => {
        running.delete(round);
        pump();
      });
      running.add(round);
      if (running.size >= AT_ONCE) return;
    }
  };
  const tryNow = (trial: Trial): void => {
    if (trial.running || over.signal.aborted) return;
    const key = backendKey(trial.address, trial.port);
    if (!backends().has(key)) {
      // It left the table: whoever comes back under its address begins anew.
      trials.delete(key);
      return;
    }
    trial.timer?.cancel();
    trial.timer = undefined;
    trial.running = true;
    waiting.push(trial);
    if (running.size < AT_ONCE) pump();
  };
  const later = (trial: Trial, ms: number): void => {
    trial.timer?.cancel();
    trial.timer = clock.after(jitter(ms, 0.1, random), () => tryNow(trial));
  };

  /** Tries a backend, but none more often than it may be. */
  const soon = ({ address, port }: { readonly address: string; readonly port: number }): void => {
    const trial = trialOf(address, port);
    if (trial.running || trial.timer !== undefined) return;
    const sinceMs = clock.monotonic() - trial.lastMs;
    if (sinceMs >= TRY_AGAIN_MS) tryNow(trial);
    else later(trial, TRY_AGAIN_MS - sinceMs);
  };

  const grown = (now: number, before: number): number => {
    // Another entry took the place, or the program that counts began anew.
    const by = now < before ? now : now - before;
    return by <= MOST_GROWTH ? by : 0;
  };
  /** Takes one user's blocks in. */
  const take = (user: string, blocks: readonly SeenBlock[]): void => {
    let counted = users.get(user);
    // What was seen before this agent lived is not counted again.
    const baseline = first && counted === undefined;
    if (counted === undefined) {
      const size = OBSERVED_BLOCKS * OBSERVED_ENTRIES;
      counted = { connects: new Float64Array(size), failures: new Float64Array(size) };
      users.set(user, counted);
    }
    for (const { place, entries } of blocks)
      for (const [i, seen] of entries) {
        const at = place * OBSERVED_ENTRIES + i;
        const more = grown(seen.connects, counted.connects[at] as number);
        const failed = grown(seen.failures, counted.failures[at] as number);
        counted.connects[at] = seen.connects;
        counted.failures[at] = seen.failures;
        if (baseline) continue;
        if (more > 0) connects.add(more);
        if (failed === 0) continue;
        failures.add(failed);
        for (const each of meant(seen.address, seen.port)) soon(each);
      }
  };

  const look = async (folder: string): Promise<void> => {
    const names = (await disk.list(folder)).filter((name) => /^(0|[1-9]\d{0,9})$/.test(name));
    const present = new Set(names);
    for (const user of users.keys()) if (!present.has(user)) users.delete(user);
    let denied = 0;
    let taken = 0;
    for (const name of names) {
      try {
        // Somebody else's file under that name is nobody's word, and keeps nobody's out.
        const bytes = await parts.read(`${folder}/${name}`, Number(name), OBSERVED_BYTES);
        if (bytes === undefined) continue;
        if (++taken > MOST_USERS) break;
        take(name, decodeObserved(bytes));
      } catch (error) {
        if (codeOf(error) === "not-allowed") denied++;
        else if (codeOf(error) !== "invalid") throw error;
      }
    }
    unread = denied;
    first = false;
    for (const [key, trial] of trials)
      if (
        trial.failed === 0 &&
        !trial.running &&
        trial.timer === undefined &&
        clock.monotonic() - trial.lastMs > TRY_RAREST_MS
      )
        trials.delete(key);
  };

  return {
    watch(folder) {
      life ??= (async () => {
        while (!over.signal.aborted) {
          const beganMs = clock.monotonic();
          try {
            await look(folder);
            trouble = undefined;
          } catch (error) {
            trouble = `what programs saw cannot be read in ${folder}: ${messageOf(error)}`;
          }
          const tookMs = clock.monotonic() - beganMs;
          await clock.sleep(Math.max(LOOK_MS, tookMs * LOOK_SHARE), over.signal).catch(() => undefined);
        }
      })();
    },
    isSuspect: (address, port) => (trials.get(backendKey(address, port))?.failed ?? 0) > 0,
    count: () => [...trials.values()].filter(({ failed }) => failed > 0).length,
    unread: () => unread,
    trouble: () => trouble,
    async stop() {
      over.abort(new TrilithError("stopped", "the hook's table is no longer written"));
      for (const { timer } of trials.values()) timer?.cancel();
      await Promise.all([life, ...running]);
    },
  };
}
