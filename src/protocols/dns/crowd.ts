// The open TCP connections of listeners: bounded, and whoever has asked nothing for the longest makes room for a new one.
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Socket } from "../../base/net.ts";

/** Each connection holds memory; those that only sit there must not keep others out [RFC 7766 §6.2.3]. */
const MOST_CONNECTIONS = 1000;
const WARN_EVERY_MS = 60_000;

/** See the first line. */
export class Crowd {
  readonly #clock: Clock;
  readonly #log: Log;
  /** Each with whether it may be closed for another's sake; the longest silent first. */
  readonly #open = new Map<Socket, () => boolean>();
  #warnedMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock, log: Log) {
    this.#clock = clock;
    this.#log = log;
  }

  /** Takes a connection in. */
  add(socket: Socket, idle: () => boolean): void {
    if (this.#open.size >= MOST_CONNECTIONS) this.#makeRoom();
    this.#open.set(socket, idle);
  }

  /** It asked something. */
  asked(socket: Socket): void {
    const idle = this.#open.get(socket);
    if (idle === undefined) return;
    this.#open.delete(socket);
    this.#open.set(socket, idle);
  }

  remove(socket: Socket): void {
    this.#open.delete(socket);
  }

  #makeRoom(): void {
    let [victim] = this.#open.keys();
    for (const [socket, idle] of this.#open)
      if (idle()) {
        victim = socket;
        break;
      }
    if (victim !== undefined) this.#open.delete(victim);
    victim?.destroy();
    const nowMs = this.#clock.monotonic();
    if (nowMs - this.#warnedMs < WARN_EVERY_MS) return;
    this.#warnedMs = nowMs;
    this.#log.warn(`more than ${MOST_CONNECTIONS} DNS connections over TCP: those that ask nothing are closed early`);
  }
}
