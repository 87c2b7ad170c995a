// Many moments, one timer: a heap of named deadlines, for check intervals, TTLs and held-back outputs.
import type { Clock, Timer } from "./clock.ts";

interface Moment {
  readonly name: string;
  readonly atMs: number;
}

/** A set of named deadlines on the clock's monotonic time. Setting a name again moves it. */
export class Deadlines {
  readonly #clock: Clock;
  readonly #due: (name: string) => void;
  /** A binary heap by time. Moved and deleted names leave their old moments in it until they come up. */
  #heap: Moment[] = [];
  readonly #current = new Map<string, Moment>();
  #timer: Timer | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;

  /** `due` is called once for every deadline that is reached; the name is gone by then and may be set again. */
  constructor(clock: Clock, due: (name: string) => void) {
    this.#clock = clock;
    this.#due = due;
  }

  get size(): number {
    return this.#current.size;
  }

  has(name: string): boolean {
    return this.#current.has(name);
  }

  /** Milliseconds until a deadline, 0 where it is overdue; undefined for a name that is not set. */
  left(name: string): number | undefined {
    const moment = this.#current.get(name);
    return moment === undefined ? undefined : Math.max(0, moment.atMs - this.#clock.monotonic());
  }

  /** Due `ms` from now. */
  set(name: string, ms: number): void {
    const moment: Moment = { name, atMs: this.#clock.monotonic() + Math.max(0, ms) };
    this.#current.set(name, moment);
    this.#push(moment);
    // A name that is moved on and on (a TTL kept alive) must not fill the heap.
    if (this.#heap.length > 64 && this.#heap.length > 4 * this.#current.size) this.#rebuild();
    this.#arm();
  }

  delete(name: string): void {
    this.#current.delete(name);
    if (this.#current.size === 0) this.clear();
  }

  clear(): void {
    this.#current.clear();
    this.#heap = [];
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#timerAtMs = Number.POSITIVE_INFINITY;
  }

  #arm(): void {
    let first = this.#heap[0];
    while (first !== undefined && this.#current.get(first.name) !== first) {
      this.#pop();
      first = this.#heap[0];
    }
    if (first === undefined) {
      this.#timer?.cancel();
      this.#timer = undefined;
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      return;
    }
    if (this.#timer !== undefined && this.#timerAtMs <= first.atMs) return;
    this.#timer?.cancel();
    this.#timerAtMs = first.atMs;
    this.#timer = this.#clock.after(first.atMs - this.#clock.monotonic(), () => this.#fire());
  }

  #fire(): void {
    this.#timer = undefined;
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    // A timer may come up to a millisecond early; what is due then is due.
    const now = this.#clock.monotonic() + 1;
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined || first.atMs > now) break;
      this.#pop();
      if (this.#current.get(first.name) !== first) continue;
      this.#current.delete(first.name);
      this.#due(first.name);
    }
    this.#arm();
  }

  #rebuild(): void {
    this.#heap = [];
    for (const moment of this.#current.values()) this.#push(moment);
  }

  #push(moment: Moment): void {
    const heap = this.#heap;
    let i = heap.push(moment) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const above = heap[parent] as Moment;
      if (above.atMs <= moment.atMs) break;
      heap[i] = above;
      i = parent;
    }
    heap[i] = moment;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && (heap[child + 1] as Moment).atMs < (heap[child] as Moment).atMs) child++;
      const below = heap[child] as Moment;
      if (below.atMs >= last.atMs) break;
      heap[i] = below;
      i = child;
    }
    heap[i] = last;
  }
}
