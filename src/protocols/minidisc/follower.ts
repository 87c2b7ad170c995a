// Keeping up with one Minidisc process: a Trilith's stream where there is one, questions from time to time elsewhere; the last list known good stays.
import type { Clock } from "../../base/clock.ts";
import { TrilithError } from "../../base/error.ts";
import { jitter, type Random } from "../../base/random.ts";
import { fromLabels } from "../../model/label-tags.ts";
import type { Asker, Listed, Reply } from "./ask.ts";
import { Nap } from "./nap.ts";
import { type AddrPort, addrPortText, type Dropped, type StreamedService, type WireService } from "./wire.ts";

/** What is known of the process at an address. */
export interface Followed {
  /** `asking`: not answered yet; `plain`: an original implementation; `trilith`: its stream is read. */
  readonly kind: "asking" | "plain" | "trilith";
  /** The last list known good; undefined before the first. */
  readonly services: readonly StreamedService[] | undefined;
  readonly dropped: readonly Dropped[];
  /** When it last said so, on the clock's monotonic time. */
  readonly atMs: number;
  /** Set while it does not answer: how, and since when (monotonic). */
  readonly failing?: { readonly kind: "refused" | "silent" | "other"; readonly text: string; readonly sinceMs: number };
  readonly delegates: readonly AddrPort[];
}

export interface FollowerOptions {
  readonly asker: Asker;
  readonly clock: Pick<Clock, "monotonic" | "after">;
  readonly random: Pick<Random, "fraction">;
  readonly to: AddrPort;
  /** How often an original implementation is asked. */
  readonly pollMs: number;
  readonly timeoutMs: number;
  /** How often a Trilith gives a sign of life. */
  readonly beatMs: number;
  /** What was listed last is forgotten so long after the process is gone ("refused"), or has fallen silent. Default: kept. */
  readonly forgetMs?: { readonly refused: number; readonly silent: number };
  /** Called after every change of what `state` says. */
  readonly changed: () => void;
}

/** A service that vanished from an original's list is asked for again so soon: after a dead delegate a Go leader's next list skips a live one. */
const AGAIN_MS = 300;
const FIRST_RETRY_MS = 100;

export class Follower {
  readonly to: AddrPort;
  readonly #options: FollowerOptions;
  readonly #stop = new AbortController();
  #state: Followed;
  #running: Promise<void> | undefined;
  readonly #nap: Nap;
  #asked: Promise<Reply<Listed>> | undefined;
  #held: Promise<void> | undefined;
  #failures = 0;

  constructor(options: FollowerOptions) {
    this.#options = options;
    this.#nap = new Nap(options.clock, this.#stop.signal);
    this.to = options.to;
    this.#state = { kind: "asking", services: undefined, dropped: [], atMs: options.clock.monotonic(), delegates: [] };
  }

  get state(): Followed {
    return this.#state;
  }

  /** Milliseconds since the list was known to be true. */
  get ageMs(): number {
    const { kind, atMs, failing } = this.#state;
    return kind === "trilith" && failing === undefined ? 0 : this.#options.clock.monotonic() - atMs;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort(new TrilithError("stopped", "no longer followed"));
    await this.#running;
    await this.#held;
  }

  /** Asks now rather than later. */
  hurry(): void {
    this.#nap.wake();
  }

  /**
   * The list as it is now: of a Trilith the last line of its stream, of others what they answer within `timeoutMs`; undefined where they do not.
   * One question serves all that ask at the same time.
   */
  async fresh(timeoutMs: number): Promise<readonly StreamedService[] | undefined> {
    if (this.#isHeard) return this.#state.services;
    this.#asked ??= this.#options.asker.services(this.to, timeoutMs, this.#stop.signal).finally(() => {
      this.#asked = undefined;
    });
    const reply = await this.#asked.catch(() => undefined);
    if (reply === undefined || this.#stop.signal.aborted) return undefined;
    // Its stream may have begun meanwhile: a question from before that got no answer says nothing against it.
    if (this.#isHeard) return this.#state.services;
    if (reply.kind === "ok") {
      const services = streamed(reply.services, reply.mark !== undefined);
      if (this.#state.kind !== "trilith") this.#take(services, reply.dropped, "plain");
      // Its stream tells more.
      if (reply.mark !== undefined) this.hurry();
      return services;
    }
    this.#fail(reply);
    return undefined;
  }

  /** True while its stream stands. */
  get #isHeard(): boolean {
    return this.#state.kind === "trilith" && this.#state.failing === undefined;
  }

  async #run(): Promise<void> {
    const { asker, random, pollMs, timeoutMs } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      let pauseMs = pollMs;
      try {
        const reply = await asker.services(this.to, timeoutMs, signal);
        if (reply.kind !== "ok") this.#fail(reply);
        else if (reply.mark === undefined || !(await this.#stream(signal))) {
          const services = streamed(reply.services, reply.mark !== undefined);
          if (this.#lacks(services)) {
            await this.#nap.pause(AGAIN_MS);
            const again = await asker.services(this.to, timeoutMs, signal);
            if (again.kind === "ok")
              this.#take(streamed(again.services, again.mark !== undefined), again.dropped, "plain");
            else this.#fail(again);
          } else this.#take(services, reply.dropped, "plain");
          if (reply.mark === undefined && !reply.python) this.#hold();
        } else pauseMs = FIRST_RETRY_MS;
      } catch (error) {
        if (!signal.aborted) throw error;
      }
      if (this.#state.failing !== undefined && pauseMs === pollMs)
        pauseMs = Math.min(pollMs, FIRST_RETRY_MS * 2 ** Math.min(this.#failures, 16));
      await this.#nap.pause(jitter(pauseMs, 0.2, random));
    }
  }

  /** The end of Go's server is seen at once: whoever comes after it may be another. */
  #hold(): void {
    this.#held ??= this.#options.asker.hold(this.to, this.#stop.signal).then(() => {
      this.#held = undefined;
      this.hurry();
    });
  }

  /** Reads a Trilith's stream to its end; false where it brought nothing. */
  async #stream(signal: AbortSignal): Promise<boolean> {
    const { asker, beatMs } = this.#options;
    let lines = 0;
    const end = await asker.follow(this.to, beatMs, signal, (line) => {
      lines++;
      this.#take(line.services, line.dropped, "trilith", line.delegates);
    });
    if (lines === 0 || signal.aborted) return false;
    this.#fail({ kind: end === "ended" ? "refused" : end, text: `${addrPortText(this.to)} went silent` }, true);
    return true;
  }

  #lacks(services: readonly StreamedService[]): boolean {
    const now = new Set(services.map(nameOf));
    return this.#state.services?.some((each) => !now.has(nameOf(each))) === true;
  }

  #take(
    services: readonly StreamedService[],
    dropped: readonly Dropped[],
    kind: "plain" | "trilith",
    delegates: readonly AddrPort[] = [],
  ): void {
    const before = this.#state;
    this.#failures = 0;
    this.#state = { kind, services, dropped, delegates, atMs: this.#options.clock.monotonic() };
    const told = (state: Followed): string =>
      JSON.stringify([state.kind, state.services, state.dropped, state.delegates]);
    if (before.failing !== undefined || told(before) !== told(this.#state)) this.#options.changed();
  }

  /** `broken`: a stream that ended says nothing yet about whether anybody is there. */
  #fail(how: { readonly kind: "refused" | "silent" | "other"; readonly text: string }, broken = false): void {
    if (!broken) this.#failures++;
    const { failing } = this.#state;
    const { clock, forgetMs } = this.#options;
    const forMs = failing === undefined ? 0 : clock.monotonic() - failing.sinceMs;
    const lost = forgetMs !== undefined && forMs > (how.kind === "refused" ? forgetMs.refused : forgetMs.silent);
    const forgets = lost && this.#state.services !== undefined;
    const news = failing === undefined || failing.kind !== how.kind || forgets;
    this.#state = {
      ...this.#state,
      services: forgets ? undefined : this.#state.services,
      failing: {
        ...how,
        kind: broken ? "silent" : how.kind,
        sinceMs: failing?.sinceMs ?? this.#options.clock.monotonic(),
      },
    };
    if (news) this.#options.changed();
  }
}

const nameOf = ({ name, at }: WireService): string => `${addrPortText(at)} ${name}`;

/** A list as everybody is told it, read back: what a Trilith told has its tags again. */
export function streamed(services: readonly WireService[], trilith: boolean): readonly StreamedService[] {
  return services.map((each) => ({
    ...each,
    ...(trilith ? fromLabels(each.labels) : { tags: [] }),
    also: [],
    health: "passing",
  }));
}
