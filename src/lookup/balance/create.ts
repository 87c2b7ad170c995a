// A balancer: the lists it was shown, what it remembers of their backends, and the choice among them.
import type { Backend, Balancer, BalancerGround, OrderOptions, Seen, Target } from "./balancer.ts";
import { type Candidate, chooseOrder } from "./choose.ts";
import { hashOf } from "./hash.ts";
import { connected, failed, type Memory, newMemory, RETURN_MS, shareOf, tried } from "./memory.ts";
import type { SeenElsewhere } from "./neighbours.ts";

const DEFAULT_LIMIT = 16;
/** So many services are remembered; of more, the one that was not asked for the longest time is forgotten. */
const MOST_SERVICES = 4096;

/** A service's list as it was shown last. */
interface Shown {
  readonly backends: readonly Backend[];
  /** The caller's port, for backends that have none. */
  readonly port: number;
  readonly candidates: readonly Candidate[];
  turn: number;
}

/** A target with its memory, so that reports need no search. */
interface Remembering<B extends Backend> extends Target<B> {
  readonly memory: Memory;
}

/** What this program has not tried for so long, others may know better. */
const STALE_MS = 1_000;

/** A backend as it is chosen: where somebody else saw it fail after this program last tried it, that counts as this program's own. */
function seenByOthers(candidate: Candidate, elsewhere: ReadonlyMap<string, SeenElsewhere>, nowMs: number): Candidate {
  const { memory } = candidate;
  const seen = elsewhere.get(`${memory.address} ${memory.port}`);
  if (seen === undefined || seen.changedAtMs <= memory.changedAtMs) return candidate;
  if (memory.changedAtMs <= nowMs && nowMs - memory.changedAtMs < STALE_MS) return candidate;
  // To find out whether it is back is for those who saw it go: after their ejection, too, it is out.
  const ejectedUntilMs = Math.max(seen.ejectedUntilMs, nowMs + 1);
  if (seen.ejectedUntilMs + RETURN_MS <= nowMs || ejectedUntilMs <= memory.ejectedUntilMs) return candidate;
  return { ...candidate, memory: { ...memory, ejectedUntilMs, consecutiveFailures: seen.failures } };
}

/** See `Balancer`. */
export function createBalancer({ clock, random, neighbours }: BalancerGround): Balancer {
  const memories = new Map<string, Memory>();
  const services = new Map<string, Shown>();

  const remember = (address: string, port: number): Memory => {
    const key = `${address} ${port}`;
    let memory = memories.get(key);
    if (memory === undefined) {
      memory = newMemory(address, port);
      memories.set(key, memory);
    }
    memory.listed++;
    return memory;
  };

  const forgetUnlisted = (memory: Memory): void => {
    const key = `${memory.address} ${memory.port}`;
    if (memory.listed === 0 && memory.open === 0 && memories.get(key) === memory) memories.delete(key);
  };

  const unlist = (shown: Shown): void => {
    for (const { memory } of shown.candidates) {
      memory.listed--;
      forgetUnlisted(memory);
    }
  };

  const show = (service: string, backends: readonly Backend[], port: number): Shown => {
    const before = services.get(service);
    services.delete(service);
    if (before?.backends === backends && before.port === port) {
      services.set(service, before);
      return before;
    }
    const candidates = backends.map((backend): Candidate => {
      const memory = remember(backend.address, backend.port || port);
      return {
        weight: Math.max(0, Math.round(backend.weight)) || 0,
        tier: backend.tier ?? 2,
        suspect: backend.suspect === true,
        hash: hashOf(`${memory.address} ${memory.port}`),
        memory,
      };
    });
    // After the new list was taken in, so that what stands in both is not forgotten.
    if (before !== undefined) unlist(before);
    const shown: Shown = {
      backends,
      port,
      candidates,
      turn: before?.turn ?? Math.floor(random.fraction() * 0x1000_0000),
    };
    services.set(service, shown);
    if (services.size > MOST_SERVICES) {
      const [oldest, its] = services.entries().next().value as [string, Shown];
      services.delete(oldest);
      unlist(its);
    }
    return shown;
  };

  const memoryOf = (target: Target): Memory => (target as Remembering<Backend>).memory;

  return {
    order<B extends Backend>(
      service: string,
      backends: readonly B[],
      options: OrderOptions = {},
    ): readonly Target<B>[] {
      const shown = show(service, backends, options.port ?? 0);
      const nowMs = clock.now();
      const elsewhere = neighbours?.failing(nowMs);
      const order = chooseOrder(
        elsewhere === undefined || elsewhere.size === 0
          ? shown.candidates
          : shown.candidates.map((candidate) => seenByOthers(candidate, elsewhere, nowMs)),
        {
          policy: options.policy ?? "p2c",
          caller: options.policy === "sticky" ? hashOf(options.caller ?? "") : 0,
          turn: shown.turn++,
          nowMs,
          random,
        },
        options.limit ?? DEFAULT_LIMIT,
      );
      const targets = order.map((i): Remembering<B> => {
        const { memory } = shown.candidates[i] as Candidate;
        return { service, backend: backends[i] as B, port: memory.port, memory };
      });
      if (targets[0] !== undefined) tried(targets[0].memory, nowMs);
      return targets;
    },
    report(target, outcome) {
      const memory = memoryOf(target);
      const nowMs = clock.now();
      if (outcome.ok) connected(memory, outcome.tookMs, nowMs);
      else failed(memory, outcome.code, nowMs, random);
      neighbours?.told(memory, outcome.ok ? undefined : outcome.code, nowMs);
    },
    opened(target) {
      memoryOf(target).open++;
    },
    closed(target) {
      const memory = memoryOf(target);
      if (memory.open > 0) memory.open--;
      forgetUnlisted(memory);
    },
    seen: () => {
      const nowMs = clock.now();
      return [...memories.values()].map(
        (memory): Seen => ({
          address: memory.address,
          port: memory.port,
          connects: memory.connects,
          failures: memory.failures,
          consecutiveFailures: memory.consecutiveFailures,
          connectMs: memory.connectMs === 0 ? undefined : memory.connectMs,
          ejectedUntilMs: memory.ejectedUntilMs,
          open: memory.open,
          share: shareOf(memory, nowMs),
        }),
      );
    },
  };
}
