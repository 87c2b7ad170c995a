// What both ways of writing need: rounds into a store of this process's own, and writes into a shared one.
import type { Clock } from "../base/clock.ts";
import { TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import type { Storage } from "../contracts/storage.ts";
import type { Change } from "../model/record.ts";
import type { Shown } from "./shown.ts";

/** What a writer is built upon. */
export interface WritingGround {
  readonly storage: Storage;
  readonly shown: Shown;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Counts writes that changed the directory. */
  readonly commits: { add(): void };
  /** Counts writes that would have changed nothing and were not made. */
  readonly spared: { add(): void };
}

/** @throws TrilithError `too-large` where a store does not take so many changes at once */
export function mustFit(storage: Storage, changes: readonly Change[]): void {
  const { name, maxChanges, maxWhole = maxChanges } = storage;
  if (changes.length > maxWhole)
    throw new TrilithError(
      "too-large",
      `a write of ${changes.length} changes is too large: ${name} takes at most ${maxWhole} at once`,
    );
}
