// The loop of a source that composes its list anew whenever something may have changed, and tells it where it is another one.
import type { Clock } from "../base/clock.ts";
import { codeOf } from "../base/error.ts";
import { goneKeyOf, type Registration } from "../model/instance.ts";
import type { Reason } from "../model/reason.ts";
import type { Scope } from "../model/record.ts";
import type { Directory } from "./directory.ts";
import type { SourceList } from "./source.ts";

/** Rung from anywhere, heard in one place: many rings before it is listened to are one. */
export class Bell {
  #rung = false;
  #wake: (() => void) | undefined;

  readonly ring = (): void => {
    this.#rung = true;
    this.#wake?.();
  };

  /** Resolves once it has rung since the last time. */
  async heard(): Promise<void> {
    if (!this.#rung)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    this.#wake = undefined;
    this.#rung = false;
  }
}

export interface WholeListParts {
  readonly clock: Clock;
  readonly directory: Pick<Directory, "view" | "ready" | "changed">;
  readonly bell: Bell;
  /** Changes of the directory that the list depends on. */
  readonly scopes: readonly Scope[];
  /** The list as it is now; undefined while nothing can be said. Called when the directory has its first picture. */
  compose(): SourceList | undefined;
}

/** Changes so close to each other are one. */
const TOGETHER_MS = 20;
/** Changes of the directory, of which most concern nobody here, are looked at so much later. */
const LOOK_MS = 250;

/** Lists, each different from the one before, until the signal. */
export async function* wholeLists(parts: WholeListParts, signal: AbortSignal): AsyncGenerator<SourceList> {
  if (signal.aborted) return;
  const { clock, directory, bell, scopes, compose } = parts;
  const ended = new AbortController();
  const onAbort = (): void => {
    ended.abort(signal.reason);
    bell.ring();
  };
  signal.addEventListener("abort", onAbort, { once: true });
  const following: Promise<void>[] = [];
  let last: string | undefined;
  try {
    await directory.ready(ended.signal);
    for (const scope of scopes) following.push(follow(parts, scope, ended.signal));
    while (!signal.aborted) {
      const list = compose();
      const text = list === undefined ? last : JSON.stringify([list.list, list.complaints]);
      if (list !== undefined && text !== last) {
        last = text;
        yield list;
      }
      await bell.heard();
      if (!signal.aborted) await clock.sleep(TOGETHER_MS, ended.signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
    ended.abort();
    await Promise.all(following);
  }
}

async function follow({ clock, directory, bell }: WholeListParts, scope: Scope, signal: AbortSignal): Promise<void> {
  try {
    let at = directory.view().at(scope);
    while (!signal.aborted) {
      at = await directory.changed(scope, at, signal);
      await clock.sleep(LOOK_MS, signal);
      at = Math.max(at, directory.view().at(scope));
      bell.ring();
    }
  } catch (error) {
    if (!signal.aborted && codeOf(error) !== "stopped") throw error;
  }
}

/** By `goneKeyOf`; of two for one place the first counts. */
export function byPlace(list: Iterable<Registration>): Map<string, Registration> {
  const places = new Map<string, Registration>();
  for (const each of list) if (!places.has(goneKeyOf(each))) places.set(goneKeyOf(each), each);
  return places;
}

/** Why what was listed before is not now. */
export function reasonsFor(
  before: ReadonlyMap<string, Registration>,
  now: ReadonlyMap<string, Registration>,
  reason: (gone: Registration) => Reason,
): Map<string, Reason> {
  const gone = new Map<string, Reason>();
  for (const [place, registration] of before) if (!now.has(place)) gone.set(place, reason(registration));
  return gone;
}
