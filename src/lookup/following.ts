// Answers that keep coming: each time a service stands differently, or an answer from another datacenter does.
import type { Clock } from "../base/clock.ts";
import type { Directory } from "../contracts/directory.ts";
import type { Lookup } from "../contracts/lookup.ts";
import type { Answer, Query } from "../model/query.ts";
import { type Index, type Scope, scope } from "../model/record.ts";

/** What following needs of the lookup it belongs to. */
export interface FollowingParts {
  readonly directory: Pick<Directory, "view" | "changed">;
  readonly clock: Pick<Clock, "sleep">;
  readonly answer: Lookup["resolveNow"];
  readonly resolve: Lookup["resolve"];
  /** True for questions about another datacenter. */
  readonly elsewhere: (query: Query) => boolean;
}

/** The followers of a lookup. */
export interface Following {
  /** A service may stand differently although its scope did not move. */
  ring(service: string): void;
  /** Any service may. */
  ringAll(): void;
  readonly follow: Lookup["follow"];
}

/** Who follows a service of another datacenter has it asked for so often. */
const ELSEWHERE_MS = 1_000;

/** Resolves when one of the scopes has moved past `after`, or earlier with `bell`. */
export async function moved(
  directory: Pick<Directory, "changed">,
  scopes: readonly Scope[],
  after: Index,
  signal: AbortSignal,
  bell?: Promise<void>,
): Promise<void> {
  signal.throwIfAborted();
  // Not AbortSignal.any: it would grow with every round for as long as the caller's signal lives.
  const round = new AbortController();
  const onAbort = (): void => round.abort(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    const waits: Promise<unknown>[] = scopes.map((each) => directory.changed(each, after, round.signal));
    if (bell !== undefined) waits.push(bell);
    await Promise.race(waits);
  } finally {
    signal.removeEventListener("abort", onAbort);
    round.abort(new Error("no longer waited for"));
  }
}

/** See `Following`. */
export function createFollowing(parts: FollowingParts): Following {
  const { directory, clock, answer, resolve, elsewhere } = parts;
  const bells = new Map<string, Set<() => void>>();
  const ring = (service: string): void => {
    for (const bell of bells.get(service) ?? []) bell();
  };
  /** Resolves when the service may stand differently: its scope moved, the guard changed its mind, or the directory became ready. */
  const stir = async (service: string, after: Index, signal: AbortSignal): Promise<void> => {
    const name = service.toLowerCase();
    let bell: () => void = () => {};
    const rung = new Promise<void>((resolve) => {
      bell = resolve;
    });
    const set = bells.get(name) ?? new Set();
    bells.set(name, set);
    set.add(bell);
    try {
      await moved(directory, [scope.service(service)], after, signal, rung);
    } finally {
      set.delete(bell);
      if (set.size === 0) bells.delete(name);
    }
  };

  /** Nobody tells when something changes in another datacenter: it is asked again and again. */
  async function* followElsewhere(query: Query, signal: AbortSignal): AsyncGenerator<Answer, void, undefined> {
    let last: string | undefined;
    while (!signal.aborted) {
      const now = await resolve(query, signal);
      const signature = `${now.known} ${now.fresh} ${signatureOf(now)}`;
      if (signature !== last && !signal.aborted) yield now;
      last = signature;
      await clock.sleep(ELSEWHERE_MS, signal).catch(() => undefined);
    }
  }

  async function* follow(query: Query, signal: AbortSignal): AsyncGenerator<Answer, void, undefined> {
    if (elsewhere(query)) return yield* followElsewhere(query, signal);
    let last: string | undefined;
    while (!signal.aborted) {
      const after = directory.view().at(scope.service(query.service));
      const now = answer(query);
      const signature = signatureOf(now);
      if (signature !== last) {
        last = signature;
        yield now;
        // The reader may have taken its time: look again before waiting.
        continue;
      }
      try {
        await stir(query.service, after, signal);
      } catch (error) {
        if (signal.aborted) return;
        throw error;
      }
    }
  }

  return {
    ring,
    ringAll() {
      for (const service of [...bells.keys()]) ring(service);
    },
    follow,
  };
}

/** What makes two answers the same for a follower: the endpoints and their registrations, in no order; not the age, not a check's output. */
function signatureOf(answer: Answer): string {
  return answer.endpoints
    .map(({ address, port, weight, held, resident }) =>
      JSON.stringify([
        resident.instance.node,
        resident.instance.id,
        address,
        port,
        weight,
        held === true,
        resident.instance.modifyIndex,
        resident.checks.map(({ status }) => status).sort(),
      ]),
    )
    .sort()
    .join("\n");
}
