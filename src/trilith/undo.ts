// What a start has to take back when the agent stops, or when the start fails half-way.
import { messageOf } from "../base/error.ts";
import type { Log } from "../base/log.ts";

/** Steps back, run once each in reverse order; one that fails is logged and holds up none of the others. */
export class Undo {
  readonly #steps: { readonly what: string; readonly run: () => Promise<void> | void }[] = [];

  push(what: string, run: () => Promise<void> | void): void {
    this.#steps.push({ what, run });
  }

  async all(log: Log): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step.run();
      } catch (error) {
        log.error(`could not stop ${step.what}`, { error: messageOf(error) });
      }
    }
  }
}
