// What keeps a file from being emptied by an answer that nobody has guarded: a Consul's, or an agent's that has just come back.
import type { ServiceInstance } from "./needs.ts";
import { keyOf } from "./told.ts";

/** What is to be used, and why it is more than the answer. */
export interface Passed {
  readonly answer: readonly ServiceInstance[];
  readonly held?: string;
}

/**
 * Keeps instances that vanished (that are registered no more, rather than unwell or draining) where more than half of a service's did at once, until
 * `release`.
 */
export class Hold {
  #last: readonly ServiceInstance[] = [];
  #holding = false;

  get holding(): boolean {
    return this.#holding;
  }

  /** `guarded`: whoever answers holds such losses itself, so that the answer is to be believed. */
  pass(answer: readonly ServiceInstance[], all: readonly ServiceInstance[], guarded: boolean): Passed {
    const there = new Set([...all, ...answer].map(keyOf));
    const gone = this.#last.filter((one) => !there.has(keyOf(one)));
    // What is held goes on to be, also where whoever answers guards again; what came back is not held any more.
    if ((!guarded || this.#holding) && gone.length * 2 > this.#last.length) {
      this.#holding = true;
      const text = `${gone.length} of ${this.#last.length} instances vanished at once; they are kept until that has lasted`;
      return { answer: [...answer, ...gone.map((one) => ({ ...one, held: true }))], held: text };
    }
    this.#holding = false;
    this.#last = answer;
    return { answer };
  }

  /** The next answer is believed. */
  release(): void {
    this.#holding = false;
    this.#last = [];
  }
}
