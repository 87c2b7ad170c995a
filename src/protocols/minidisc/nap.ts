// A pause that can be cut short: for loops that look again after a while, or as soon as there is a reason to.
import type { Clock } from "../../base/clock.ts";

export class Nap {
  readonly #clock: Pick<Clock, "after">;
  readonly #over: AbortSignal;
  #wake: (() => void) | undefined;

  /** After `over` there is no pause any more, and the one under way ends. */
  constructor(clock: Pick<Clock, "after">, over: AbortSignal) {
    this.#clock = clock;
    this.#over = over;
    over.addEventListener("abort", () => this.wake(), { once: true });
  }

  /** Ends the pause that is under way; nothing where there is none. */
  wake(): void {
    this.#wake?.();
  }

  /** Resolves after `ms`, or when woken. One at a time. */
  async pause(ms: number): Promise<void> {
    if (this.#over.aborted) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        timer.cancel();
        this.#wake = undefined;
        resolve();
      };
      const timer = this.#clock.after(ms, done);
      this.#wake = done;
    });
  }
}
