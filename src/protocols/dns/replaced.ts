// Answers while the configuration may become another one: the listeners stay open, and what was asked before is answered by what answered then.
import type { Responder } from "./answer.ts";
import type { From } from "./asking.ts";

/** One that answers, and how many of its questions still wait for their answers. */
interface Answering {
  readonly responder: Responder;
  waiting: number;
}

/** Answers as the last one given does. One that was replaced ends with the last answer to what it was asked before. */
export class ReplacedResponder implements Responder {
  #now: Answering;
  readonly #before = new Set<Answering>();

  constructor(first: Responder) {
    this.#now = { responder: first, waiting: 0 };
  }

  replace(next: Responder): void {
    const before = this.#now;
    this.#now = { responder: next, waiting: 0 };
    this.#before.add(before);
    this.#endIfDone(before);
  }

  respond(packet: Uint8Array, from: From): Uint8Array | undefined;
  respond(packet: Uint8Array, from: From, later: (answer: Uint8Array) => void): Uint8Array | "later" | undefined;
  respond(packet: Uint8Array, from: From, later?: (answer: Uint8Array) => void): Uint8Array | "later" | undefined {
    const now = this.#now;
    if (later === undefined) return now.responder.respond(packet, from);
    const answer = now.responder.respond(packet, from, (bytes) => {
      now.waiting--;
      try {
        later(bytes);
      } finally {
        this.#endIfDone(now);
      }
    });
    if (answer === "later") now.waiting++;
    return answer;
  }

  #endIfDone(before: Answering): void {
    if (before.waiting === 0 && this.#before.delete(before)) before.responder.stop();
  }

  stop(): void {
    for (const { responder } of this.#before) responder.stop();
    this.#before.clear();
    const { responder } = this.#now;
    // What was asked before is not answered any more; it may listen again.
    this.#now = { responder, waiting: 0 };
    responder.stop();
  }
}
