// What one place is about to multicast in answer to others: delayed, gathered, said at most once a second, left out where somebody else said it.
import type { Clock, Timer } from "../../../base/clock.ts";
import type { DnsRecord } from "../../../wire/dns/index.ts";
import { packAnswers } from "./packets.ts";
import { type Owned, onWire } from "./records.ts";

/** The same record is not multicast again within this; in defence against a probe within a quarter of it [RFC 6762 §6]. */
const AGAIN_AFTER_MS = 1000;
const DEFENCE_AFTER_MS = 250;
/** Answers wait for others this long at most [RFC 6762 §6.4]. */
const GATHER_MS = 500;

interface Waiting {
  readonly owned: Owned;
  dueMs: number;
  /** The moment before which it may not be said. */
  earliestMs: number;
}

/** Records that explain an answer: SRV for a PTR, addresses for an SRV. */
export type Explain = (answers: readonly Owned[]) => readonly Owned[];

export class Outbox {
  readonly #clock: Clock;
  readonly #send: (packet: Uint8Array) => void;
  readonly #explain: Explain;
  readonly #waiting = new Map<string, Waiting>();
  #timer: Timer | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;

  constructor(clock: Clock, send: (packet: Uint8Array) => void, explain: Explain) {
    this.#clock = clock;
    this.#send = send;
    this.#explain = explain;
  }

  /** Says records after `delayMs`, later those that were said just now. `defence`: they answer a probe. */
  answer(records: Iterable<Owned>, delayMs: number, defence = false): void {
    const now = this.#clock.monotonic();
    for (const owned of records) {
      const earliestMs = owned.saidAtMs + (defence ? DEFENCE_AFTER_MS : AGAIN_AFTER_MS);
      const dueMs = Math.max(now + delayMs, earliestMs);
      const waiting = this.#waiting.get(owned.id);
      if (waiting === undefined) this.#waiting.set(owned.id, { owned, dueMs, earliestMs });
      else {
        waiting.dueMs = Math.min(waiting.dueMs, dueMs);
        waiting.earliestMs = Math.min(waiting.earliestMs, earliestMs);
      }
    }
    if (delayMs === 0) this.#flush();
    else this.#arm();
  }

  /** Says records whatever was said just now, after `delayMs`: announcements, and what somebody else said wrongly. */
  announce(records: Iterable<Owned>, delayMs = 0): void {
    const now = this.#clock.monotonic();
    for (const owned of records) this.#waiting.set(owned.id, { owned, dueMs: now + delayMs, earliestMs: now });
    if (delayMs === 0) this.#flush();
    else this.#arm();
  }

  /** Records end: TTL 0, at once. `flush` false where another one's records of that name must not go with them. */
  goodbye(records: readonly Owned[], flush = true): void {
    for (const owned of records) this.#waiting.delete(owned.id);
    const wire = records.map((owned) => onWire(owned, 0, flush && owned.unique));
    for (const packet of packAnswers(wire, [])) this.#send(packet);
  }

  /** Somebody else said the same record with as long a life: no need to [RFC 6762 §7.4]. */
  saidByAnother(id: string, ttlS: number): void {
    const waiting = this.#waiting.get(id);
    if (waiting !== undefined && ttlS >= waiting.owned.ttlS) this.#waiting.delete(id);
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#waiting.clear();
  }

  #arm(): void {
    let first = Number.POSITIVE_INFINITY;
    for (const { dueMs } of this.#waiting.values()) first = Math.min(first, dueMs);
    if (first === Number.POSITIVE_INFINITY || (this.#timer !== undefined && this.#timerAtMs <= first)) return;
    this.#timer?.cancel();
    this.#timerAtMs = first;
    this.#timer = this.#clock.after(first - this.#clock.monotonic(), () => {
      this.#timer = undefined;
      this.#flush();
    });
  }

  /** Says what is due, and with it what may be said already and would be soon. */
  #flush(): void {
    // A timer may come up to a millisecond early.
    const now = this.#clock.monotonic() + 1;
    const answers: Owned[] = [];
    let anyDue = false;
    for (const { dueMs } of this.#waiting.values()) anyDue = anyDue || dueMs <= now;
    if (anyDue)
      for (const [id, { owned, dueMs, earliestMs }] of this.#waiting)
        if (earliestMs <= now && dueMs <= now + GATHER_MS) {
          answers.push(owned);
          this.#waiting.delete(id);
        }
    if (answers.length > 0) {
      const additionals = this.#explain(answers).filter((owned) => owned.saidAtMs + AGAIN_AFTER_MS <= now);
      const wire = (owned: Owned): DnsRecord => onWire(owned, owned.ttlS, owned.unique);
      for (const packet of packAnswers(answers.map(wire), additionals.map(wire))) this.#send(packet);
      for (const owned of answers) owned.saidAtMs = this.#clock.monotonic();
      // Those that found no room are said when asked for; taking them as said costs at most a second.
      for (const owned of additionals) owned.saidAtMs = this.#clock.monotonic();
    }
    this.#arm();
  }
}
