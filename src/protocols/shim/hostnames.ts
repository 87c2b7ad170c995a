// Instances whose address is a host name: programs need IP addresses, so the names are asked for now and then; what was known stays while nobody answers.
import type { Clock, Timer } from "../../base/clock.ts";
import type { Net } from "../../base/net.ts";
import { jitter, type Random } from "../../base/random.ts";

const AGAIN_MS = 30_000;

export interface Hostnames {
  /** What is known; asks where nothing is. */
  addressesOf(hostname: string): readonly string[];
  stop(): void;
}

/** `used`: the names that still matter; `changed`: one of them has other addresses now. */
export function createHostnames(parts: {
  readonly clock: Pick<Clock, "after">;
  readonly random: Pick<Random, "fraction">;
  readonly net: Pick<Net, "resolve">;
  readonly used: () => ReadonlySet<string>;
  readonly changed: (hostname: string) => void;
}): Hostnames {
  const { clock, random, net, used, changed } = parts;
  const known = new Map<string, readonly string[]>();
  const asked = new Set<string>();
  let timer: Timer | undefined;
  let stopped = false;

  const ask = (hostname: string): void => {
    if (asked.has(hostname) || stopped) return;
    asked.add(hostname);
    net.resolve(hostname).then(
      (found) => {
        asked.delete(hostname);
        const addresses = [...found].sort();
        const same = known.get(hostname)?.join() === addresses.join();
        known.set(hostname, addresses);
        if (!same && !stopped) changed(hostname);
      },
      // Nobody answers: the last known good stays, and the next time it is asked again.
      () => asked.delete(hostname),
    );
    schedule();
  };
  const schedule = (): void => {
    if (timer !== undefined || stopped) return;
    timer = clock.after(jitter(AGAIN_MS, 0.2, random), () => {
      timer = undefined;
      const now = used();
      for (const hostname of known.keys()) if (!now.has(hostname)) known.delete(hostname);
      for (const hostname of now) ask(hostname);
    });
  };
  return {
    addressesOf(hostname) {
      const found = known.get(hostname);
      if (found === undefined) ask(hostname);
      return found ?? [];
    },
    stop() {
      stopped = true;
      timer?.cancel();
    },
  };
}
