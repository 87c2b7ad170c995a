// Where a resolver has its endpoints from: one source, and another one as long as the first has never answered.
import type { Clock } from "../../base/clock.ts";
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Labels } from "../../model/node.ts";

/** What is looked for. */
export interface Sought {
  readonly service: string;
  /** All of them are needed; without a prototype. */
  readonly labels: Labels;
  /** All of these, too. */
  readonly tags?: readonly string[];
  /** Another datacenter than that of whoever is asked; only agents know any. */
  readonly datacenter?: string;
}

/** One endpoint of a service. */
export interface NameEndpoint {
  /** The preferred one first. */
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  readonly weight: number;
  readonly labels: Labels;
  /** How near it is to this host: 0 on it, 1 in its zone, 2 elsewhere; absent = not known. */
  readonly tier?: 0 | 1 | 2;
}

/** One order everywhere: whoever is asked shuffles, and "first" and "round-robin" go by it. */
export function inOneOrder(
  a: { readonly host: string; readonly port: number },
  b: { readonly host: string; readonly port: number },
): number {
  if (a.host === b.host) return a.port - b.port;
  return a.host < b.host ? -1 : 1;
}

/** What a source says at one moment. */
export interface Names {
  readonly endpoints: readonly NameEndpoint[];
  /** False: nothing of that name is known at all. */
  readonly known: boolean;
  /** False: the last known good, because what is behind it does not answer. */
  readonly fresh: boolean;
}

/** Somebody who knows names. */
export interface NameSource {
  /** For messages: "the agent at 127.0.0.1:8500". */
  readonly name: string;
  /** Resolves where it can be asked at present. @throws TrilithError saying why it cannot */
  reach(signal: AbortSignal): Promise<void>;
  /** What is found now and after every change. Ends when aborted. @throws TrilithError when it can be asked no more */
  follow(sought: Sought, signal: AbortSignal): AsyncIterable<Names>;
}

/** How often it is looked whether the first source is there, while the second one stands in. */
const LOOK_MS = 2_000;

/**
 * The first source; where it has never answered, the second one until it does. Who once had answers of the first keeps to it: the second
 * knows another part of the world, and what is away comes back.
 */
export function preferring(first: NameSource, second: NameSource, clock: Pick<Clock, "after">): NameSource {
  let answered = false;
  return {
    name: `${first.name}, else ${second.name}`,
    async reach(signal) {
      try {
        await first.reach(signal);
      } catch (error) {
        signal.throwIfAborted();
        await second.reach(signal).catch((other: unknown) => {
          throw new TrilithError("unavailable", `${messageOf(error)}; ${messageOf(other)}`, other);
        });
      }
    },
    async *follow(sought, signal) {
      let why: unknown;
      if (!answered) {
        try {
          await first.reach(signal);
        } catch (error) {
          signal.throwIfAborted();
          why = error;
        }
      }
      if (answered || why === undefined) {
        for await (const names of first.follow(sought, signal)) {
          answered = true;
          yield names;
        }
        return;
      }
      const over = new AbortController();
      const stop = (): void => over.abort(signal.reason);
      signal.addEventListener("abort", stop, { once: true });
      void back(first, clock, over);
      try {
        await second.reach(over.signal);
        for await (const names of second.follow(sought, over.signal)) yield names;
      } catch (error) {
        if (over.signal.aborted) return;
        throw new TrilithError("unavailable", `${messageOf(why)}; ${messageOf(error)}`, error);
      } finally {
        over.abort();
        signal.removeEventListener("abort", stop);
      }
    },
  };
}

/** Aborts as soon as the source can be asked. */
async function back(source: NameSource, clock: Pick<Clock, "after">, over: AbortController): Promise<void> {
  while (!over.signal.aborted) {
    try {
      await pause(LOOK_MS, clock, over.signal);
      await source.reach(over.signal);
      over.abort();
    } catch {
      // Not there yet, or nobody waits any more: why, the next try says.
    }
  }
}

/** Unlike `Clock.sleep` it keeps no program running, and an abort is its ordinary end. */
export function pause(ms: number, clock: Pick<Clock, "after">, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      timer.cancel();
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = clock.after(ms, done);
    signal.addEventListener("abort", done, { once: true });
  });
}
