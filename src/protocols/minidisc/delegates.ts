// A leader's delegates: each followed by itself, so that one that is slow or hangs hides nobody, and one that died is gone at once.
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { Asker } from "./ask.ts";
import { Follower } from "./follower.ts";
import { type AddrPort, addrPortText, type StreamedService } from "./wire.ts";

export interface DelegatesOptions {
  readonly asker: Asker;
  readonly clock: Pick<Clock, "monotonic" | "after">;
  readonly random: Pick<Random, "fraction">;
  /** Called after every change of what they say. */
  readonly changed: () => void;
}

/** A client waits two seconds for the whole list. */
const ANSWER_MS = 1_000;
/** One that did not answer the last time is not waited for so long again. */
const DOUBTED_MS = 250;
const POLL_MS = 2_000;
const BEAT_MS = 1_000;
/** One that does not answer is kept for so long: it may be stopped in a debugger, and does not announce itself again. */
const KEPT_MS = 600_000;
/** More processes than that do not share a host. */
const MOST = 256;

export class Delegates {
  readonly #options: DelegatesOptions;
  readonly #followers = new Map<string, Follower>();
  readonly #ending = new Set<Promise<void>>();
  #ended = false;

  constructor(options: DelegatesOptions) {
    this.#options = options;
  }

  get addresses(): readonly AddrPort[] {
    return [...this.#followers.values()].map(({ to }) => to);
  }

  has(address: string): boolean {
    return this.#followers.has(address);
  }

  /** Adds one; a known one is asked again. False where there are too many. */
  add(to: AddrPort): boolean {
    const key = addrPortText(to);
    const known = this.#followers.get(key);
    if (known !== undefined) {
      known.hurry();
      return true;
    }
    if (this.#ended || this.#followers.size >= MOST) return false;
    const { asker, clock, random } = this.#options;
    const follower = new Follower({
      asker,
      clock,
      random,
      to,
      pollMs: POLL_MS,
      timeoutMs: ANSWER_MS,
      beatMs: BEAT_MS,
      changed: () => this.#changed(key, follower),
    });
    this.#followers.set(key, follower);
    follower.start();
    this.#options.changed();
    return true;
  }

  /** What all of them say at present, each asked anew unless it tells by itself. */
  async services(): Promise<readonly StreamedService[]> {
    const lists = await Promise.all(
      [...this.#followers].map(async ([key, follower]) => {
        const list = await follower.fresh(follower.state.failing === undefined ? ANSWER_MS : DOUBTED_MS);
        this.#changed(key, follower);
        return list ?? [];
      }),
    );
    return lists.flat();
  }

  /** What they said last, without those that do not answer. */
  known(): readonly StreamedService[] {
    return [...this.#followers.values()].flatMap(({ state }) =>
      state.failing === undefined ? (state.services ?? []) : [],
    );
  }

  async end(): Promise<void> {
    this.#ended = true;
    for (const key of [...this.#followers.keys()]) this.#remove(key);
    await Promise.all(this.#ending);
  }

  #changed(key: string, follower: Follower): void {
    if (this.#followers.get(key) !== follower) return;
    const { failing } = follower.state;
    const forMs = failing === undefined ? 0 : this.#options.clock.monotonic() - failing.sinceMs;
    if (failing?.kind === "refused" || forMs > KEPT_MS) this.#remove(key);
    this.#options.changed();
  }

  #remove(key: string): void {
    const follower = this.#followers.get(key);
    this.#followers.delete(key);
    if (follower === undefined) return;
    const ending = follower.stop().finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }
}
