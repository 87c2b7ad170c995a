// Services that a program follows: the newest answer is at hand, and the last one stays where nobody answers any more.
import type { Clock, Timer } from "../../base/clock.ts";
import { TrilithError } from "../../base/error.ts";
import { jitter, type Random } from "../../base/random.ts";
import { type NameSource, type Names, pause, type Sought } from "../grpc/names.ts";

export interface FollowedParts {
  readonly source: NameSource;
  readonly clock: Pick<Clock, "after">;
  readonly random: Pick<Random, "fraction">;
}

/** Follows each service from the first question on, until nobody has asked for a while. Keeps no program running. */
export interface Followed {
  /** What is known at this moment; undefined where an answer has to be waited for. */
  peek(sought: Sought): Names | undefined;
  /** The same, waited for. @throws TrilithError where nothing was ever heard and nobody answers; the signal's reason */
  now(sought: Sought, signal?: AbortSignal): Promise<Names>;
  /** Calls back with each answer from now on, while the service is followed. */
  changed(sought: Sought, told: (names: Names) => void): { stop(): void };
}

/** After so long without a question a service is followed no more. */
const IDLE_MS = 60_000;
const FIRST_RETRY_MS = 100;
const SLOWEST_RETRY_MS = 5_000;
/** Whoever has an old answer waits only so long for a new one. */
const PATIENCE_MS = 1_000;
/** So long the last endpoints stay where a source that is back knows nobody: it may have just started. */
const DOUBT_MS = 10_000;
/** So many services are remembered; of more, the one that is followed no more for the longest time is forgotten. */
const MOST_REMEMBERED = 1_024;

/** See `Followed`. */
export function createFollowed(parts: FollowedParts): Followed {
  const topics = new Map<string, Topic>();
  const forgetOne = (): void => {
    for (const [key, each] of topics)
      if (each.isIdle) {
        topics.delete(key);
        return;
      }
  };
  const topic = (sought: Sought): Topic => {
    const { service, labels, tags = [], datacenter } = sought;
    const key = JSON.stringify([service, Object.entries(labels).sort(), [...tags].sort(), datacenter]);
    let found = topics.get(key);
    if (found === undefined) {
      found = new Topic(sought, parts);
      if (topics.size >= MOST_REMEMBERED) forgetOne();
    } else topics.delete(key);
    // The last one is the one that was asked for last.
    topics.set(key, found);
    return found;
  };
  return {
    peek: (sought) => topic(sought).peek(),
    now: (sought, signal) => topic(sought).now(signal),
    changed(sought, told) {
      const { listeners } = topic(sought);
      listeners.add(told);
      return { stop: () => void listeners.delete(told) };
    },
  };
}

interface Waiter {
  readonly resolve: (names: Names) => void;
  readonly reject: (error: unknown) => void;
}

class Topic {
  readonly listeners: Set<(names: Names) => void> = new Set();
  readonly #sought: Sought;
  readonly #parts: FollowedParts;
  readonly #waiters = new Set<Waiter>();
  #names: Names | undefined;
  /** True from the first answer of this run on. */
  #current = false;
  #running: AbortController | undefined;
  /** Cuts the pause after a failure short. */
  #hurry: (() => void) | undefined;
  #idle: Timer | undefined;
  #doubt: Timer | undefined;

  constructor(sought: Sought, parts: FollowedParts) {
    this.#sought = sought;
    this.#parts = parts;
  }

  /** Nobody has asked for a while, and nobody listens. */
  get isIdle(): boolean {
    return this.#running === undefined && this.listeners.size === 0;
  }

  peek(): Names | undefined {
    this.#follow();
    return this.#current ? this.#names : undefined;
  }

  now(signal?: AbortSignal): Promise<Names> {
    const known = this.peek();
    if (known !== undefined) return Promise.resolve(known);
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const { clock } = this.#parts;
      const over = (): void => {
        this.#waiters.delete(waiter);
        signal?.removeEventListener("abort", onAbort);
        hold.cancel();
      };
      const onAbort = (): void => {
        over();
        reject(signal?.reason);
      };
      const waiter: Waiter = {
        resolve(names) {
          over();
          resolve(names);
        },
        reject(error) {
          over();
          reject(error);
        },
      };
      // What is open in the background would let a program end that waits for nothing but this.
      const old = this.#names;
      const hold = clock.after(
        old === undefined ? IDLE_MS : PATIENCE_MS,
        () => (old === undefined ? undefined : waiter.resolve({ ...old, fresh: false })),
        true,
      );
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(waiter);
      this.#hurry?.();
    });
  }

  #follow(): void {
    const { clock } = this.#parts;
    this.#idle?.cancel();
    this.#idle = clock.after(IDLE_MS, () => this.#stop());
    if (this.#running !== undefined) return;
    this.#running = new AbortController();
    void this.#run(this.#running.signal);
  }

  #stop(): void {
    this.#running?.abort();
    this.#running = undefined;
    this.#current = false;
    this.#doubt?.cancel();
    const { name } = this.#parts.source;
    const silent = new TrilithError(
      "timeout",
      `${name} did not say where "${this.#sought.service}" is within ${IDLE_MS} ms`,
    );
    for (const { reject } of this.#waiters) reject(silent);
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { source, clock, random } = this.#parts;
    let pauseMs = FIRST_RETRY_MS;
    while (!signal.aborted) {
      let first = true;
      try {
        for await (const names of source.follow(this.#sought, signal)) {
          if (signal.aborted) return;
          pauseMs = FIRST_RETRY_MS;
          this.#take(names, first);
          first = false;
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#failed(error);
      }
      if (signal.aborted) return;
      const hurry = new AbortController();
      this.#hurry = () => hurry.abort();
      signal.addEventListener("abort", this.#hurry, { once: true });
      await pause(jitter(pauseMs, 0.2, random), clock, hurry.signal);
      signal.removeEventListener("abort", this.#hurry);
      this.#hurry = undefined;
      pauseMs = Math.min(pauseMs * 2, SLOWEST_RETRY_MS);
    }
  }

  #take(names: Names, first: boolean): void {
    this.#doubt?.cancel();
    const had = this.#names?.endpoints.length ?? 0;
    if (names.endpoints.length === 0 && had > 0 && (!names.fresh || first)) {
      if (names.fresh) this.#doubt = this.#parts.clock.after(DOUBT_MS, () => this.#tell(names));
      this.#tell({ ...(this.#names as Names), fresh: false });
      return;
    }
    this.#tell(names);
  }

  #tell(names: Names): void {
    this.#names = names;
    this.#current = true;
    for (const told of this.listeners) told(names);
    for (const { resolve } of this.#waiters) resolve(names);
  }

  #failed(error: unknown): void {
    if (this.#names !== undefined) this.#tell({ ...this.#names, fresh: false });
    else for (const { reject } of this.#waiters) reject(error);
  }
}
