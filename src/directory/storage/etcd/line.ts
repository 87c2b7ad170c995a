// How far the watch has come, and the nudge that makes it come further where no record changes.
import type { Clock, Timer } from "../../../base/clock.ts";
import { messageOf } from "../../../base/error.ts";
import type { EtcdClient } from "../../../base/etcd/client.ts";
import { EtcdError } from "../../../base/etcd/error.ts";
import type { Log } from "../../../base/log.ts";
import type { Index } from "../../../model/record.ts";
import type { Layout } from "./keys.ts";
import type { EtcdTiming } from "./timing.ts";

/**
 * The line of revisions as the watch delivers it. etcd's revision also moves for what is not watched (other users, leases, markers), so
 * an index that was promised to a caller may never come by as an event. Progress reports would say so, but up to etcd 3.4.24 and 3.5.7
 * they may overtake events [etcd issue 15220]; therefore a key of our own in the watched range is written, and its event comes in order.
 */
export class Line {
  readonly #client: EtcdClient;
  readonly #at: Layout;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #timing: EtcdTiming;
  #delivered: Index = 0;
  #wanted: Index = 0;
  #following: AbortSignal | undefined;
  #timer: Timer | undefined;
  #ticking = false;
  #refused = false;

  constructor(client: EtcdClient, at: Layout, clock: Clock, log: Log, timing: EtcdTiming) {
    this.#client = client;
    this.#at = at;
    this.#clock = clock;
    this.#log = log;
    this.#timing = timing;
  }

  get delivered(): Index {
    return this.#delivered;
  }

  /** True while etcd refuses the nudge for good (no space, no permission). */
  get refused(): boolean {
    return this.#refused;
  }

  /** A watch runs from here on, until the signal. */
  follow(signal: AbortSignal): void {
    this.#following = signal;
    signal.addEventListener("abort", () => this.#timer?.cancel(), { once: true });
    this.#arm(this.#timing.tickMs);
  }

  /** The watch has delivered everything up to here; a lower index than before means that the store was set back. */
  reached(index: Index, reset = false): void {
    if (reset) this.#wanted = 0;
    this.#delivered = index;
    if (this.#delivered >= this.#wanted) this.#timer?.cancel();
  }

  /** Somebody waits until the watch reaches `index`. */
  want(index: Index): void {
    if (index <= this.#wanted) return;
    this.#wanted = index;
    this.#refused = false;
    this.#arm(this.#timing.tickMs);
  }

  #arm(ms: number): void {
    if (this.#ticking || this.#following === undefined || this.#following.aborted) return;
    this.#timer?.cancel();
    if (this.#delivered >= this.#wanted) return;
    this.#timer = this.#clock.after(ms, () => void this.#tick(ms, this.#following as AbortSignal));
  }

  async #tick(afterMs: number, signal: AbortSignal): Promise<void> {
    if (this.#delivered >= this.#wanted || signal.aborted) return;
    this.#ticking = true;
    try {
      await this.#client.call("put", { key: this.#at.tick, value: Buffer.alloc(0) }, { signal });
    } catch (error) {
      if (!signal.aborted) {
        this.#refused = error instanceof EtcdError && !error.temporary;
        this.#log.debug("etcd took no tick", { error: messageOf(error), wanted: this.#wanted });
      }
    } finally {
      this.#ticking = false;
    }
    this.#arm(Math.min(afterMs * 2, 2_000));
  }
}
