// Work with a limit of time, all of which can be ended at once.
import type { Clock } from "./clock.ts";

/** Many signals rather than one with many listeners, which Node warns of and searches through one by one. */
export class Limits {
  readonly #clock: Pick<Clock, "after">;
  readonly #running = new Set<AbortController>();

  constructor(clock: Pick<Clock, "after">) {
    this.#clock = clock;
  }

  /** Does something whose signal is aborted after `ms`, with that reason. */
  async within<T>(ms: number, reason: () => Error, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const limit = new AbortController();
    this.#running.add(limit);
    const timer = this.#clock.after(ms, () => limit.abort(reason()));
    try {
      return await work(limit.signal);
    } finally {
      timer.cancel();
      this.#running.delete(limit);
    }
  }

  /** Ends everything under way with this reason. */
  end(reason: Error): void {
    for (const limit of this.#running) limit.abort(reason);
  }
}
