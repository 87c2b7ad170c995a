// The tables of a directory as they are being written and as everybody sees them, and who waits for what is seen to move.
import type { Index } from "../model/record.ts";
import { Tables, type Touched } from "./tables.ts";
import { Waiters } from "./watch.ts";

/** What is written, what is seen of it, and who waits. */
export class Shown {
  /** What is being written; ahead of what is seen by what is not durable yet. Shared stores: the same as what is seen. */
  tables: Tables = new Tables();
  /** Who waits for a scope to move. */
  readonly waiters: Waiters = new Waiters();
  #seen = new Tables();
  #reaching: { readonly index: Index; resolve(): void; reject(error: unknown): void }[] = [];
  #ended: Error | undefined;

  /** What everybody sees; nobody changes it any more. */
  get seen(): Tables {
    return this.#seen;
  }

  /** Shows the tables as they are now and wakes whom it concerns. */
  publish(touched: Touched, restarted = false): void {
    this.#seen = this.tables.clone();
    const { index } = this.#seen;
    if (this.#reaching.length > 0) {
      const reached = this.#reaching.filter((waiting) => waiting.index <= index);
      this.#reaching = this.#reaching.filter((waiting) => waiting.index > index);
      for (const waiting of reached) waiting.resolve();
    }
    this.waiters.wake(touched, restarted);
  }

  /** Resolves when what is seen has come to `index`. @throws the signal's reason, or that of the end */
  reached(index: Index, signal: AbortSignal | undefined): Promise<void> {
    if (this.#seen.index >= index) return Promise.resolve();
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = (): void => {
        this.#reaching = this.#reaching.filter((each) => each !== waiting);
        reject(signal?.reason);
      };
      const waiting = {
        index,
        resolve() {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
        reject(error: unknown) {
          signal?.removeEventListener("abort", onAbort);
          reject(error);
        },
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#reaching.push(waiting);
    });
  }

  /** Nobody waits any more, and nothing is waited for from now on. */
  end(reason: Error): void {
    this.#ended = reason;
    this.waiters.end(reason);
    for (const waiting of this.#reaching.splice(0)) waiting.reject(reason);
  }
}
