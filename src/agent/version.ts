// A number that grows with every change of the list, and those who wait for it to grow.
import type { Index } from "../model/record.ts";

interface Waiter {
  readonly after: Index;
  wake(version: Index): void;
  end(reason: unknown): void;
}

export class Version {
  #now: Index = 1;
  #waiters = new Set<Waiter>();
  #ended: { readonly reason: unknown } | undefined;

  get now(): Index {
    return this.#now;
  }

  grow(): void {
    this.#now++;
    for (const waiter of this.#waiters) if (waiter.after < this.#now) waiter.wake(this.#now);
  }

  /** Resolves once the number is greater than `after`; rejects with the signal's reason, or the reason of `end`. Holds no timer. */
  past(after: Index, signal: AbortSignal): Promise<Index> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      if (this.#ended !== undefined) return reject(this.#ended.reason);
      if (this.#now > after) return resolve(this.#now);
      const leave = (): void => {
        this.#waiters.delete(waiter);
        signal.removeEventListener("abort", onAbort);
      };
      const onAbort = (): void => waiter.end(signal.reason);
      const waiter: Waiter = {
        after,
        wake(version) {
          leave();
          resolve(version);
        },
        end(reason) {
          leave();
          reject(reason);
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }

  /** Nobody waits any longer. */
  end(reason: unknown): void {
    this.#ended = { reason };
    for (const waiter of this.#waiters) waiter.end(reason);
  }
}
