// The scheduler: runs thousands of checks, each at its interval, one result at a time, never more at once than it may.
import type { Clock } from "../base/clock.ts";
import { Deadlines } from "../base/deadlines.ts";
import { messageOf, TrilithError } from "../base/error.ts";
import { jitter, type Random } from "../base/random.ts";
import { Shortage } from "../base/shortage.ts";
import type { Outcome } from "../model/check.ts";

/** One check to be run again and again. */
export interface Job {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** True = asking is little more than waiting: it takes no slot. */
  readonly light?: boolean;
  /** Asks once. Should obey the signal; where it does not, its slot is taken from it and its answer ignored. */
  readonly run: (signal: AbortSignal) => Promise<Outcome>;
  /** Called with each result, never after the job was removed or the scheduler stopped. */
  readonly done: (outcome: Outcome) => void;
  /** Called instead where this host lacks what asking takes; the job is run again when it is due. */
  readonly short?: (shortage: Shortage) => void;
}

export interface SchedulerOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** How many run at once, beside light ones; default 256. */
  readonly maxRunning?: number;
}

/** How far an interval is varied in both directions, so that checks that started together drift apart. */
const JITTER_SHARE = 0.05;
/** A check whose last run took longer goes into the slow lane. */
const SLOW_MS = 1000;
/** Time between the signal and taking the slot away from a probe that does not obey it. */
const GRACE_MS = 100;
/** Consul's shortest interval. */
const MIN_INTERVAL_MS = 1000;

interface Task {
  readonly id: string;
  readonly job: Job;
  slow: boolean;
  /** Set while it runs. */
  abort: AbortController | undefined;
  removed: boolean;
}

/**
 * Runs jobs. The first run comes at a random moment within the interval, the next one interval (varied by 5 %) after the start of the
 * last, or at once where that took longer. Due jobs wait in two lanes, first come first served: those whose last run was slow may hold at most half
 * of the slots, so that targets that hang take nothing from those that answer.
 */
export class Scheduler {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #maxRunning: number;
  readonly #tasks = new Map<string, Task>();
  readonly #due: Deadlines;
  readonly #fast = new Lane<Task>();
  readonly #slow = new Lane<Task>();
  #running = 0;
  #slowRunning = 0;
  #lightRunning = 0;
  #stopped = false;
  readonly #idle: (() => void)[] = [];

  constructor(options: SchedulerOptions) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.#maxRunning = Math.max(2, options.maxRunning ?? 256);
    this.#due = new Deadlines(options.clock, (id) => {
      const task = this.#tasks.get(id);
      if (task === undefined) return;
      if (task.job.light === true) return void this.#run(task);
      (task.slow ? this.#slow : this.#fast).push(task);
      this.#start();
    });
  }

  get running(): number {
    return this.#running + this.#lightRunning;
  }

  get waiting(): number {
    return this.#fast.size + this.#slow.size;
  }

  get size(): number {
    return this.#tasks.size;
  }

  has(id: string): boolean {
    return this.#tasks.has(id);
  }

  /** Adds a job, or replaces it: what ran for the old one is ended and counts no more. */
  set(id: string, job: Job): void {
    if (this.#stopped) return;
    this.delete(id);
    this.#tasks.set(id, { id, job, slow: false, abort: undefined, removed: false });
    this.#due.set(id, this.#random.fraction() * Math.max(MIN_INTERVAL_MS, job.intervalMs));
  }

  delete(id: string): void {
    const task = this.#tasks.get(id);
    if (task === undefined) return;
    task.removed = true;
    this.#tasks.delete(id);
    this.#due.delete(id);
    task.abort?.abort(new TrilithError("stopped", "the check was removed"));
  }

  /** Ends everything; resolves when nothing of it runs any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#due.clear();
    const tasks = [...this.#tasks.values()];
    this.#tasks.clear();
    for (const task of tasks) {
      task.removed = true;
      task.abort?.abort(new TrilithError("stopped", "the agent is stopping"));
    }
    if (this.running > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  #start(): void {
    while (this.#running < this.#maxRunning) {
      const slowMayRun = this.#slowRunning < this.#maxRunning >> 1;
      const task = this.#fast.shift() ?? (slowMayRun ? this.#slow.shift() : undefined);
      if (task === undefined) return;
      if (!task.removed) void this.#run(task);
    }
  }

  async #run(task: Task): Promise<void> {
    const { job } = task;
    const slow = task.slow;
    const abort = new AbortController();
    task.abort = abort;
    const light = job.light === true;
    if (light) this.#lightRunning++;
    else this.#running++;
    if (slow) this.#slowRunning++;
    const startedMs = this.#clock.monotonic();
    const outcome = await this.#ask(job, abort);
    if (light) this.#lightRunning--;
    else this.#running--;
    if (slow) this.#slowRunning--;
    task.abort = undefined;
    if (!task.removed) {
      const tookMs = this.#clock.monotonic() - startedMs;
      task.slow = !light && tookMs > SLOW_MS;
      this.#due.set(task.id, jitter(Math.max(MIN_INTERVAL_MS, job.intervalMs), JITTER_SHARE, this.#random) - tookMs);
      if (outcome instanceof Shortage) job.short?.(outcome);
      else job.done(outcome);
    }
    if (this.running === 0) for (const resolve of this.#idle.splice(0)) resolve();
    if (!this.#stopped) this.#start();
  }

  /** One run, over at the latest a moment after its time-out or its removal. Never rejects. */
  #ask(job: Job, abort: AbortController): Promise<Outcome | Shortage> {
    return new Promise((resolve) => {
      let over = false;
      const end = (outcome: Outcome | Shortage): void => {
        if (over) return;
        over = true;
        timeout.cancel();
        grace?.cancel();
        resolve(outcome);
      };
      const lost = (text: string): Outcome => ({ status: "critical", output: text, final: true });
      let grace: { cancel(): void } | undefined;
      const timeout = this.#clock.after(job.timeoutMs, () =>
        abort.abort(new TrilithError("timeout", `the check took longer than ${job.timeoutMs} ms`)),
      );
      abort.signal.addEventListener(
        "abort",
        () => {
          // Removed or stopping: nobody waits for the answer. Timed out: the probe may say so in its own words.
          if (!(abort.signal.reason instanceof TrilithError) || abort.signal.reason.code !== "timeout")
            return end(lost("stopped"));
          grace = this.#clock.after(GRACE_MS, () => end(lost(`Timed out after ${job.timeoutMs} ms`)));
        },
        { once: true },
      );
      let answer: Promise<Outcome>;
      try {
        answer = job.run(abort.signal);
      } catch (error) {
        return end(lost(`the check itself failed: ${messageOf(error)}`));
      }
      answer.then(end, (error: unknown) =>
        end(error instanceof Shortage ? error : lost(`the check itself failed: ${messageOf(error)}`)),
      );
    });
  }
}

/** A queue: first in, first out, without moving everything at each step. */
class Lane<T> {
  #items: T[] = [];
  #head = 0;

  get size(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  shift(): T | undefined {
    if (this.#head >= this.#items.length) return undefined;
    const item = this.#items[this.#head++];
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }
}
