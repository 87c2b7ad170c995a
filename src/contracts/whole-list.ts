// The loop of a source that composes its list anew whenever something may have changed, and tells it where it is another one.
import { Bell } from "../base/bells.ts";
import type { Clock } from "../base/clock.ts";
import { codeOf, TrilithError } from "../base/error.ts";
import { goneKeyOf, type Registration } from "../model/instance.ts";
import type { Reason } from "../model/reason.ts";
import type { Scope } from "../model/record.ts";
import type { Directory, View } from "./directory.ts";
import { lastKnown } from "./second-hand.ts";
import type { SourceList } from "./source.ts";

/** What a source of whole lists is made of. */
export interface WholeListParts {
  readonly clock: Clock;
  readonly directory: Pick<Directory, "view" | "ready" | "changed">;
  /** Says that the list may be another one; one of its own where absent. */
  readonly bell?: Bell;
  /** Changes of the directory that the list depends on. */
  readonly scopes: readonly Scope[];
  /**
   * Begins to look at what is listed, when the directory has its first picture. `ring` says that the list may be another one. Ends with the signal, and
   * is waited for; what it rejects with before that ends the lists.
   */
  begin?(view: View, ring: () => void, signal: AbortSignal): Promise<unknown>;
  /** Whose list it is, and of what an earlier life stated what the configuration still speaks of: what it does not goes at once, past the guard. */
  readonly earlier?: {
    readonly source: string;
    /** This host's node. */
    readonly node: string;
    isConfigured(registration: Registration): boolean;
  };
  /** The list as it is now; undefined while nothing can be said. Called when the directory has its first picture. */
  compose(view: View): SourceList | undefined;
}

/** Changes so close to each other are one. */
const TOGETHER_MS = 20;
/** Changes of the directory, of which most concern nobody here, are looked at so much later. */
const LOOK_MS = 250;

/** Lists, each different from the one before, until the signal. */
export async function* wholeLists(parts: WholeListParts, signal: AbortSignal): AsyncGenerator<SourceList> {
  if (signal.aborted) return;
  const { clock, directory, scopes, bell = new Bell() } = parts;
  const ended = new AbortController();
  const onAbort = (): void => {
    ended.abort(signal.reason);
    bell.ring();
  };
  signal.addEventListener("abort", onAbort, { once: true });
  const running: Promise<unknown>[] = [];
  let broken: { readonly error: unknown } | undefined;
  let last: string | undefined;
  try {
    await directory.ready(ended.signal);
    let dropped = droppedBy(parts, directory.view());
    const begun = parts.begin?.(directory.view(), bell.ring, ended.signal).catch((error: unknown) => {
      broken = { error };
      bell.ring();
    });
    if (begun !== undefined) running.push(begun);
    for (const scope of scopes) running.push(follow(parts, scope, bell.ring, ended.signal));
    while (!signal.aborted) {
      if (broken !== undefined) throw (broken as { readonly error: unknown }).error;
      const list = parts.compose(directory.view());
      const text = list === undefined ? last : JSON.stringify([list.list, list.complaints]);
      if (list !== undefined && text !== last) {
        last = text;
        yield dropped.size === 0 ? list : { ...list, gone: new Map([...dropped, ...(list.gone ?? [])]) };
        dropped = new Map();
      }
      await bell.heard();
      if (!signal.aborted) await clock.sleep(TOGETHER_MS, ended.signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
    ended.abort(new TrilithError("stopped", "nobody listens any more"));
    await Promise.all(running);
  }
}

/** What an earlier life stated and nobody asks for any more. */
function droppedBy({ clock, earlier }: WholeListParts, view: View): ReadonlyMap<string, Reason> {
  if (earlier === undefined) return new Map();
  const { source, node, isConfigured } = earlier;
  const why = {
    code: "deregistered",
    text: `the configuration of ${source} no longer asks for it`,
    confirmed: true,
  } as const;
  const gone = lastKnown(view, source, node).filter((each) => !isConfigured(each));
  return new Map(gone.map((each) => [goneKeyOf(each), { ...why, atMs: clock.now() }]));
}

/** Rings after changes of the directory. */
async function follow(
  { clock, directory }: WholeListParts,
  scope: Scope,
  ring: () => void,
  signal: AbortSignal,
): Promise<void> {
  try {
    let at = directory.view().at(scope);
    while (!signal.aborted) {
      at = await directory.changed(scope, at, signal);
      await clock.sleep(LOOK_MS, signal);
      at = Math.max(at, directory.view().at(scope));
      ring();
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
