// A second opinion on what the guard holds: a refused connection confirms that an instance is gone, and ends its hold.
import type { Clock, Timer } from "../base/clock.ts";
import { TrilithError } from "../base/error.ts";
import type { Net } from "../base/net.ts";
import { jitter, type Random } from "../base/random.ts";

/** Somebody in the guard's hold. */
export interface Suspect {
  readonly service: string;
  readonly address: string;
  readonly port: number;
  readonly tags: readonly string[];
}

/** The first look comes this long after a hold began, so that whoever restarts is not taken for gone. */
const FIRST_MS = 2_000;
const AGAIN_MS = 10_000;
const CONNECT_MS = 2_000;
const AT_ONCE = 16;
const LOOPBACK = /^(127\.|::1$|localhost$)/;

export interface SecondOpinion {
  /** Something is held: begins to look, until nothing is held any more. */
  wanted(): void;
  /** Ends every connection attempt and timer. */
  stop(): Promise<void>;
}

/**
 * Tries TCP connections to held endpoints. Only a refusal by the host itself counts: silence and missing routes may be this host's own
 * trouble, an accepted connection says nothing about health. Names, UDP services and loopback addresses (they are the asker's own) are left alone.
 */
export function createSecondOpinion(parts: {
  readonly clock: Clock;
  readonly random: Random;
  readonly net: Pick<Net, "connect">;
  readonly suspects: () => readonly Suspect[];
  readonly confirmLost: (service: string, address: string, port: number) => void;
}): SecondOpinion {
  const { clock, random, net, suspects, confirmLost } = parts;
  const over = new AbortController();
  let timer: Timer | undefined;
  let looking: Promise<void> | undefined;

  const refused = async (address: string, port: number): Promise<boolean> => {
    const limit = new AbortController();
    const alarm = clock.after(CONNECT_MS, () => limit.abort(new TrilithError("timeout", "no answer")));
    try {
      const socket = await net.connect({ host: address, port }, AbortSignal.any([limit.signal, over.signal]));
      socket.destroy();
      return false;
    } catch (error) {
      const cause = (error as { cause?: unknown }).cause ?? error;
      return (cause as { code?: unknown }).code === "ECONNREFUSED";
    } finally {
      alarm.cancel();
    }
  };

  const look = async (): Promise<void> => {
    const open = new Map<string, Suspect>();
    for (const suspect of suspects()) {
      const { address, port, tags } = suspect;
      if (port === 0 || tags.includes("udp") || LOOPBACK.test(address) || !/^[0-9.]+$|:/.test(address)) continue;
      open.set(`${suspect.service}\u0000${address}\u0000${port}`, suspect);
    }
    const waiting = [...open.values()];
    const worker = async (): Promise<void> => {
      for (let next = waiting.pop(); next !== undefined && !over.signal.aborted; next = waiting.pop())
        if (await refused(next.address, next.port)) confirmLost(next.service, next.address, next.port);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  };

  const schedule = (ms: number): void => {
    timer = clock.after(jitter(ms, 0.2, random), () => {
      timer = undefined;
      looking = look().then(() => {
        looking = undefined;
        if (!over.signal.aborted && suspects().length > 0) schedule(AGAIN_MS);
      });
    });
  };

  return {
    wanted() {
      if (timer === undefined && looking === undefined && !over.signal.aborted) schedule(FIRST_MS);
    },
    async stop() {
      over.abort(new TrilithError("stopped", "the lookup is stopping"));
      timer?.cancel();
      await looking;
    },
  };
}
