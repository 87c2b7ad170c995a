// Which of several backends answers, found out by connections for nothing else, several at once: where one was silent, others may be as well.
import type { Clock, Timer } from "../../base/clock.ts";
import type { Tcp } from "../../base/tcp.ts";
import { unlessAborted } from "../../base/unless-aborted.ts";
import type { Backend } from "../../contracts/connect.ts";
import type { Balancer, Target } from "../balance/balancer.ts";

export interface LookParts {
  readonly tcp: Pick<Tcp, "connect">;
  readonly balancer: Pick<Balancer, "report">;
  readonly clock: Pick<Clock, "monotonic" | "after">;
  /** The system's code of what was thrown. */
  readonly errnoOf: (error: unknown) => string;
}

export interface LookOptions {
  /** How long is looked at most. */
  readonly ms: number;
  readonly signal?: AbortSignal;
  /** Told of every one that failed. */
  readonly failed?: (backend: Backend, error: unknown) => void;
}

/** So many at first, and twice as many every PACE_MS. */
const FIRST = 2;
const PACE_MS = 100;
/** Who was silent so many times as long before another one began as that took to answer has failed. */
const MUCH_LONGER = 4;

interface Look<B extends Backend> {
  readonly target: Target<B>;
  readonly beganMs: number;
  readonly over: AbortController;
}

/**
 * The targets that may be tried: first the one that answered, then those of which nothing is known; without those that refused or were silent, which
 * the balancer was told. Empty where nobody answered. @throws the signal's reason
 */
export async function lookAround<B extends Backend>(
  { tcp, balancer, clock, errnoOf }: LookParts,
  targets: readonly Target<B>[],
  { ms, signal, failed }: LookOptions,
): Promise<readonly Target<B>[]> {
  const waiting = [...targets];
  const running = new Set<Look<B>>();
  const timers = new Set<Timer>();
  const fail = (look: Look<B>, error: unknown): void => {
    balancer.report(look.target, { ok: false, code: errnoOf(error) });
    failed?.(look.target.backend, error);
  };
  const silence = (): Error => Object.assign(new Error("no answer"), { code: "ETIMEDOUT" });
  signal?.throwIfAborted();
  try {
    const answered = new Promise<readonly Target<B>[]>((resolve) => {
      const again = (afterMs: number, call: () => void): void => {
        const timer = clock.after(
          afterMs,
          () => {
            timers.delete(timer);
            call();
          },
          true,
        );
        timers.add(timer);
      };
      const begin = (): void => {
        const target = waiting.shift();
        if (target === undefined) return;
        const look: Look<B> = { target, beganMs: clock.monotonic(), over: new AbortController() };
        running.add(look);
        tcp.connect({ host: target.backend.address, port: target.backend.port }, { signal: look.over.signal }).then(
          (socket) => {
            socket.on("error", () => {}).destroy();
            if (!running.delete(look)) return;
            const tookMs = clock.monotonic() - look.beganMs;
            for (const other of running)
              if (look.beganMs - other.beganMs >= Math.max(PACE_MS / 2, MUCH_LONGER * tookMs)) {
                fail(other, silence());
                running.delete(other);
                other.over.abort();
              }
            resolve([target, ...[...running].map((each) => each.target), ...waiting]);
          },
          (error: unknown) => {
            if (!running.delete(look)) return;
            fail(look, error);
            begin();
            if (running.size === 0) resolve([]);
          },
        );
      };
      const wave = (count: number): void => {
        for (let i = 0; i < count; i++) begin();
        if (waiting.length > 0) again(PACE_MS, () => wave(count * 2));
      };
      again(ms, () => {
        for (const look of running) fail(look, silence());
        resolve([]);
      });
      wave(FIRST);
    });
    return await unlessAborted(answered, signal);
  } finally {
    for (const timer of timers) timer.cancel();
    for (const look of [...running]) {
      running.delete(look);
      look.over.abort();
    }
  }
}
