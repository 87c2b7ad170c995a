// Answers while the configuration may become another one: the listeners stay open, and what was asked before is answered by what answered then.
import type { Clock, Timer } from "../../base/clock.ts";
import type { Responder } from "./answer.ts";
import type { From } from "./asking.ts";

/** For so long one that was replaced goes on with what it was asked before. */
const LAST_ANSWERS_MS = 10_000;

/** Answers as the last one given does. */
export class ReplacedResponder implements Responder {
  readonly #clock: Pick<Clock, "after">;
  #responder: Responder;
  readonly #ending = new Map<Responder, Timer>();

  constructor(first: Responder, clock: Pick<Clock, "after">) {
    this.#responder = first;
    this.#clock = clock;
  }

  replace(next: Responder): void {
    const before = this.#responder;
    this.#responder = next;
    const end = this.#clock.after(LAST_ANSWERS_MS, () => {
      this.#ending.delete(before);
      before.stop();
    });
    this.#ending.set(before, end);
  }

  respond(packet: Uint8Array, from: From): Uint8Array | undefined;
  respond(packet: Uint8Array, from: From, later: (answer: Uint8Array) => void): Uint8Array | "later" | undefined;
  respond(packet: Uint8Array, from: From, later?: (answer: Uint8Array) => void): Uint8Array | "later" | undefined {
    return later === undefined ? this.#responder.respond(packet, from) : this.#responder.respond(packet, from, later);
  }

  stop(): void {
    for (const [before, end] of this.#ending) {
      end.cancel();
      before.stop();
    }
    this.#ending.clear();
    this.#responder.stop();
  }
}
