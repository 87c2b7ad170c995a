// How many results in a row it takes until a check's status changes.
import type { Outcome, Status, Thresholds } from "../model/check.ts";

/** Counts results. Counters start full, so that the first result always counts; a warning counts as a success. */
export class ResultCounter {
  readonly #successBeforePassing: number;
  readonly #failuresBeforeWarning: number;
  readonly #failuresBeforeCritical: number;
  #successes: number;
  #failures: number;

  constructor(thresholds: Partial<Thresholds> = {}) {
    this.#successBeforePassing = thresholds.successBeforePassing ?? 0;
    this.#failuresBeforeCritical = thresholds.failuresBeforeCritical ?? 0;
    this.#failuresBeforeWarning = thresholds.failuresBeforeWarning ?? this.#failuresBeforeCritical;
    this.#successes = this.#successBeforePassing;
    this.#failures = this.#failuresBeforeCritical;
  }

  /** Counts a result; returns the status it brings about, or undefined where status and output stay as they are. */
  count(outcome: Outcome): Status | undefined {
    if (outcome.final === true) return outcome.status;
    if (outcome.status !== "critical") {
      this.#successes++;
      this.#failures = 0;
      return this.#successes >= this.#successBeforePassing ? outcome.status : undefined;
    }
    this.#failures++;
    this.#successes = 0;
    if (this.#failures >= this.#failuresBeforeCritical) return "critical";
    return this.#failures >= this.#failuresBeforeWarning ? "warning" : undefined;
  }
}
