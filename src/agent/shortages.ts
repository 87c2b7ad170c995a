// Checks that this host could not ask, for it lacked what that takes: logged now and then, and complained about until a minute has passed without one.
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Shortage } from "../base/shortage.ts";
import type { Complaint } from "./outside-list.ts";
import { OWN } from "./owners.ts";

/** So long a shortage is told, and so long nothing is logged again. */
const TOLD_MS = 60_000;

/** What was lacking lately. */
export class Shortages {
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #log: Log;
  #last: { readonly atMs: number; readonly text: string } | undefined;
  #loggedMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Pick<Clock, "monotonic">, log: Log) {
    this.#clock = clock;
    this.#log = log;
  }

  /** A check of this name could not be asked. */
  met(checkId: string, shortage: Shortage): void {
    const atMs = this.#clock.monotonic();
    const text = `checks cannot be asked and stay as they are: ${shortage.message}`;
    this.#last = { atMs, text };
    if (atMs - this.#loggedMs < TOLD_MS) return;
    this.#loggedMs = atMs;
    this.#log.error(text, { check: checkId });
  }

  /** None, or one. */
  complaints(): readonly Complaint[] {
    if (this.#last === undefined || this.#clock.monotonic() - this.#last.atMs >= TOLD_MS) return [];
    return [{ from: OWN, about: "checks", text: this.#last.text }];
  }
}
