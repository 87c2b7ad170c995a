// Which pings a new leader answers: delegates of the one before it, who would take any answer for their leader's, must notice and register again.
import type { Clock } from "../../base/clock.ts";

/** The original implementations ping so often, from their registration on. */
const PERIOD_MS = 5_000;
/** A ping may come so much too early or late; one that misses its time costs its sender a new registration, no more. */
const EARLY_MS = 50;
const LATE_MS = 300;
/** Every delegate has pinged three times by then. */
const GRACE_MS = 3 * PERIOD_MS + LATE_MS;

interface Registered {
  readonly client: string;
  /** When it registered, or pinged last. */
  anchorMs: number;
  /** Python pings at once after registering, Go a period later. */
  atOnce: boolean;
}

/**
 * A ping does not say who sends it. But its sender pings every five seconds from its registration on: a ping that no registered delegate is due for
 * comes from one whose leader is gone. It gets no answer, so that its sender closes, tries to lead, fails, and registers here.
 */
export class Pings {
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #registered = new Map<string, Registered>();
  #untilMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Pick<Clock, "monotonic">) {
    this.#clock = clock;
  }

  /** Somebody leads from now on who does not know the delegates of the leader before. */
  begin(): void {
    this.#registered.clear();
    this.#untilMs = this.#clock.monotonic() + GRACE_MS;
  }

  /** `client`: how the delegate's implementation calls itself (its User-Agent; Python's has none). */
  registered(delegate: string, client: string): void {
    this.#registered.set(delegate, { client, anchorMs: this.#clock.monotonic(), atOnce: client === "" });
  }

  /** Whether a ping that came now is answered. `known`: whether a delegate is still one. */
  answered(client: string, known: (delegate: string) => boolean): boolean {
    const now = this.#clock.monotonic();
    if (now >= this.#untilMs) return true;
    for (const [delegate, each] of this.#registered) {
      if (!known(delegate)) this.#registered.delete(delegate);
      else if (each.client === client && isDue(each, now)) {
        each.anchorMs = now;
        each.atOnce = false;
        return true;
      }
    }
    return false;
  }
}

function isDue({ anchorMs, atOnce }: Registered, now: number): boolean {
  const sinceMs = now - anchorMs;
  if (sinceMs < PERIOD_MS - EARLY_MS) return atOnce && sinceMs <= LATE_MS;
  return (sinceMs + EARLY_MS) % PERIOD_MS <= EARLY_MS + LATE_MS;
}
