// A clock that stands still until a test moves it: timers fire in order of their time while `advance` runs.
import type { Clock, Timer } from "../../src/base/clock.ts";
import { sleepOn } from "../../src/base/clock.ts";

interface Pending {
  readonly atMs: number;
  readonly order: number;
  readonly callback: () => void;
}

/** A `Clock` under a test's control. */
export interface FakeClock extends Clock {
  /**
   * Moves time on by `ms`, firing due timers at their own time, each followed by a rest in which promises (and, through the real
   * event loop, pending I/O such as a disk write) may go on and set further timers. Resolves when everything due has run.
   */
  advance(ms: number): Promise<void>;
  /** Moves time on without resting in between: only timers and what they do synchronously. */
  advanceNow(ms: number): void;
  /** Moves time on as if the process had slept: what was due meanwhile fires afterwards, late. */
  stall(ms: number): void;
  /** Lets promises and pending I/O go on without moving time. */
  settle(): Promise<void>;
  /** Keeps time from moving until this work of the real machine has ended, however long that takes; hands it back. */
  during<T>(work: Promise<T>): Promise<T>;
  /** Puts the wall clock elsewhere without moving monotonic time: a jump. */
  jump(toMs: number): void;
  /** How many timers run. */
  readonly timers: number;
  /** Milliseconds until the next timer fires; undefined without timers. */
  nextInMs(): number | undefined;
}

/** Turns of the real event loop after each fired timer: enough for a promise chain over a worker thread or two. */
const TURNS = 3;

/** Makes a fake clock. `startMs`: the wall clock's first reading, milliseconds since the epoch. */
export function fakeClock(startMs: number = Date.UTC(2026, 0, 1)): FakeClock {
  let monotonicMs = 1000;
  let offsetMs = startMs - monotonicMs;
  let order = 0;
  // A binary heap by time, then by order of setting, so that thousands of timers stay quick.
  const heap: Pending[] = [];
  const cancelled = new Set<Pending>();
  const before = (a: Pending, b: Pending): boolean => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
  const push = (item: Pending): void => {
    let i = heap.push(item) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(item, heap[parent] as Pending)) break;
      heap[i] = heap[parent] as Pending;
      i = parent;
    }
    heap[i] = item;
  };
  const pop = (): Pending | undefined => {
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1] as Pending, heap[child] as Pending)) child++;
      if (!before(heap[child] as Pending, last)) break;
      heap[i] = heap[child] as Pending;
      i = child;
    }
    heap[i] = last;
    return first;
  };
  const peek = (): Pending | undefined => {
    for (;;) {
      const first = heap[0];
      if (first === undefined || !cancelled.has(first)) return first;
      cancelled.delete(first);
      pop();
    }
  };
  /** Fires the next timer due until `untilMs`; false if none is. */
  const fireOne = (untilMs: number): boolean => {
    const next = peek();
    if (next === undefined || next.atMs > untilMs) return false;
    pop();
    monotonicMs = Math.max(monotonicMs, next.atMs);
    next.callback();
    return true;
  };
  const underWay = new Set<Promise<unknown>>();
  const rest = async (): Promise<void> => {
    do {
      await Promise.allSettled(underWay);
      for (let i = 0; i < TURNS; i++) await new Promise((resolve) => setImmediate(resolve));
    } while (underWay.size > 0);
  };
  const clock: FakeClock = {
    now: () => monotonicMs + offsetMs,
    monotonic: () => monotonicMs,
    after(ms, callback): Timer {
      const item: Pending = { atMs: monotonicMs + Math.max(0, ms), order: order++, callback };
      let over = false;
      const wrapped: Pending = {
        ...item,
        callback: () => {
          over = true;
          callback();
        },
      };
      push(wrapped);
      return {
        cancel() {
          if (over) return;
          over = true;
          cancelled.add(wrapped);
        },
      };
    },
    sleep: (ms, signal) => sleepOn(clock, ms, signal),
    yield: () => new Promise((resolve) => setImmediate(resolve)),
    async advance(ms) {
      const untilMs = monotonicMs + ms;
      await rest();
      while (fireOne(untilMs)) {
        const now = monotonicMs;
        // Timers of the same moment fire together, then everything rests.
        while ((peek()?.atMs ?? Number.POSITIVE_INFINITY) <= now) fireOne(now);
        await rest();
      }
      monotonicMs = untilMs;
      await rest();
    },
    advanceNow(ms) {
      const untilMs = monotonicMs + ms;
      while (fireOne(untilMs));
      monotonicMs = untilMs;
    },
    stall(ms) {
      monotonicMs += ms;
      while (fireOne(monotonicMs));
    },
    settle: rest,
    during(work) {
      underWay.add(work);
      const over = (): void => void underWay.delete(work);
      work.then(over, over);
      return work;
    },
    jump(toMs) {
      offsetMs = toMs - monotonicMs;
    },
    get timers() {
      return heap.length - cancelled.size;
    },
    nextInMs() {
      const next = peek();
      return next === undefined ? undefined : next.atMs - monotonicMs;
    },
  };
  return clock;
}
