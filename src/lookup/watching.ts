// Looks through the directory for what was lost, whether somebody asks or not: the guard and what is remembered see every service that moved.
import type { Clock } from "../base/clock.ts";
import { codeOf, messageOf } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Directory, View } from "../contracts/directory.ts";
import type { Resident } from "../model/instance.ts";
import { type Index, scope } from "../model/record.ts";
import type { Picture } from "./filter.ts";
import { moved } from "./following.ts";
import type { Guard } from "./guard.ts";
import type { Remember } from "./remember.ts";

/** What watching needs of the lookup it belongs to. */
export interface WatchingParts {
  readonly directory: Pick<Directory, "view" | "changed" | "ready">;
  readonly clock: Pick<Clock, "monotonic" | "now" | "sleep" | "yield">;
  readonly log: Log;
  readonly guard: Pick<Guard, "look" | "services" | "watches">;
  readonly remember: Remember | undefined;
  /** True where instances of other hosts hang on their being heard of. */
  readonly others: boolean;
  readonly pictureOf: (residents: readonly Resident[]) => Picture;
  /** True once the directory's content is there. */
  readonly isReady: () => boolean;
  /** Told once, when it is. */
  readonly nowReady: () => void;
}

/** The directory is looked through for drops at most this often; asking looks at once. */
const LOOK_THROUGH_MS = 1_000;
/** …and never takes more than one part in so many of the time. */
const LOOK_THROUGH_SHARE = 20;
const WATCH_AGAIN_MS = 5_000;
/** Between two turns for others. */
const INSTANCES_PER_TURN = 2_000;

/** Until aborted or the directory has stopped; what goes wrong on the way is told and tried again. */
export async function keepWatching(parts: WatchingParts, signal: AbortSignal): Promise<void> {
  const { clock, log } = parts;
  while (!signal.aborted) {
    try {
      await watch(parts, signal);
    } catch (error) {
      if (signal.aborted || codeOf(error) === "stopped") return;
      log.error(`watching the directory: ${messageOf(error)}`);
      await clock.sleep(WATCH_AGAIN_MS, signal).catch(() => undefined);
    }
  }
}

async function watch(parts: WatchingParts, signal: AbortSignal): Promise<void> {
  const { directory, clock, guard, others } = parts;
  if (!parts.isReady()) {
    await directory.ready(signal);
    parts.nowReady();
  }
  let after: Index = 0;
  while (!signal.aborted) {
    const beganMs = clock.monotonic();
    after = await lookThrough(parts, after, signal);
    const tookMs = clock.monotonic() - beganMs;
    await clock.sleep(Math.max(LOOK_THROUGH_MS, tookMs * LOOK_THROUGH_SHARE), signal);
    // Health and addresses matter only to what is watched already.
    const watched = others || guard.watches();
    await moved(directory, watched ? ["services", "checks", "nodes"] : ["services"], after, signal);
  }
}

/** The services that may have to be noticed because they changed since. */
function movedNames({ others, guard }: WatchingParts, view: View, after: Index): Set<string> {
  const hasMoved = (name: string): boolean => after === 0 || view.at(scope.service(name)) > after;
  const names = new Set<string>();
  if (others) {
    for (const name of view.serviceNames()) if (hasMoved(name)) names.add(name);
  } else {
    // Only what came second-hand can go by hearsay; one walk over the records finds it without putting any service together.
    for (const { name, origin, modifyIndex } of view.list("service"))
      if (origin.authority === "second-hand" && modifyIndex > after) names.add(name);
  }
  for (const name of guard.services()) if (hasMoved(name)) names.add(name);
  return names;
}

async function lookThrough(parts: WatchingParts, after: Index, signal: AbortSignal): Promise<Index> {
  const { directory, clock, guard, remember, pictureOf } = parts;
  let view = directory.view();
  const upTo = view.index;
  const names = movedNames(parts, view, after);
  let work = 0;
  for (const name of names) {
    if (work >= INSTANCES_PER_TURN) {
      work = 0;
      await clock.yield();
      if (signal.aborted) return upTo;
      // Answers given meanwhile have shown the guard newer pictures; it must never see an older one after them.
      view = directory.view();
    }
    const residents = view.residents(name);
    work += residents.length + 1;
    guard.look(name, pictureOf(residents), view);
    if (view.fresh) remember?.note(name, residents);
  }
  if (view.fresh) remember?.stillTrue(clock.now());
  return upTo;
}
