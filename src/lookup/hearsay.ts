// How fresh hearsay is: which sources, and which of the things that they read, are away at present, and since when.
import type { Clock } from "../base/clock.ts";
import type { SourceState } from "../contracts/ground.ts";
import type { SourceEntry } from "../contracts/source.ts";
import type { Instance } from "../model/instance.ts";
import type { Picture } from "./filter.ts";
import type { Remember } from "./remember.ts";

/** What somebody who does not answer told: the last known good. */
export interface Stale {
  /** Milliseconds since it was known to be true, at least 1. */
  readonly ageMs: number;
  /** Who does not answer, and why. */
  readonly text: string;
}

/** Who is away, and since when he is known to have been well (milliseconds since the epoch). */
interface Away {
  readonly wellMs: number;
  readonly text: string;
}

/** A source that is away as a whole, or what is away of it, by node and id. */
type AwaySource = Away | ReadonlyMap<string, Away>;

const awayIn = (source: AwaySource | undefined, one: string): Away | undefined =>
  source instanceof Map ? source.get(one) : (source as Away | undefined);

export interface Hearsay {
  /** What was told by one of these sources counts from now on. */
  know(sources: readonly string[]): void;
  /** Looks how the sources are. */
  read(): void;
  /** The oldest of what is known of a service; undefined = all of it is fresh. */
  oldest(picture: Picture): Stale | undefined;
  /** Of one instance. */
  of(instance: Pick<Instance, "node" | "id" | "origin">): Stale | undefined;
}

/** The sources are looked at no more often than this. */
const READ_MS = 1_000;

/** An entry's name beside its source's, for the memory over restarts; "" stands for all that are well beside one that is not. */
const entryKey = (source: string, entry: string): string => `${source}\u0000${entry}`;
const NONE: ReadonlySet<string> = new Set();

/** See `SourceHealth.entries`. */
export function createHearsay(parts: {
  readonly sources: () => readonly SourceState[];
  readonly clock: Clock;
  readonly remember: Pick<Remember, "noteSource" | "sourceSeen" | "forgetSources"> | undefined;
  readonly startedAtMs: number;
}): Hearsay {
  const { clock, remember } = parts;
  const known = new Set<string>();
  const away = new Map<string, AwaySource>();
  const lastWell = new Map<string, number>();
  let readMs = Number.NEGATIVE_INFINITY;
  /** What was found for a picture since the last reading. */
  let oldest = new WeakMap<Picture, { readonly away: Away | undefined }>();

  const noteWell = (key: string, atMs: number): void => {
    lastWell.set(key, atMs);
    remember?.noteSource(key, atMs);
  };
  const wellMs = (...keys: readonly string[]): number => {
    for (const key of keys) {
      const seen = lastWell.get(key) ?? remember?.sourceSeen(key);
      if (seen !== undefined) return seen;
    }
    return parts.startedAtMs;
  };
  /** Of entries only those that are not well are remembered one by one: sources have any number of them, which come and go. */
  const keepOnly = (source: string, keep: ReadonlySet<string>): void => {
    const beginning = entryKey(source, "");
    for (const key of lastWell.keys()) if (key.startsWith(beginning) && !keep.has(key)) lastWell.delete(key);
    remember?.forgetSources(beginning, keep);
  };

  const tellAway = (name: string, unwell: readonly SourceEntry[], before: AwaySource | undefined): AwaySource => {
    const told = new Map<string, Away>();
    const others = entryKey(name, "");
    const keep = new Set([others]);
    for (const entry of unwell) {
      const key = entryKey(name, entry.name);
      const text = `${name}: ${entry.name}: ${entry.text}`;
      const atMs = wellMs(key, others, name);
      noteWell(key, atMs);
      keep.add(key);
      for (const one of entry.tells()) {
        // What was away already is no younger because another entry tells of it now.
        told.set(one, { wellMs: awayIn(before, one)?.wellMs ?? atMs, text });
      }
    }
    keepOnly(name, keep);
    noteWell(others, clock.now());
    return told;
  };

  const read = (): void => {
    readMs = clock.monotonic();
    const before = new Map(away);
    away.clear();
    oldest = new WeakMap();
    for (const { name, ok, begun, text, entries = [] } of parts.sources()) {
      if (!known.has(name) || begun === false) continue;
      const unwell = entries.filter((entry) => !entry.ok);
      if (ok) {
        noteWell(name, clock.now());
        keepOnly(name, NONE);
      } else if (unwell.length > 0) away.set(name, tellAway(name, unwell, before.get(name)));
      else away.set(name, { wellMs: wellMs(name), text: `${name}: ${text}` });
    }
  };
  const readInTime = (): void => {
    if (clock.monotonic() - readMs >= READ_MS) read();
  };

  const awayOf = ({ node, id, origin }: Pick<Instance, "node" | "id" | "origin">): Away | undefined => {
    if (origin.authority !== "second-hand") return undefined;
    return awayIn(away.get(origin.source), `${node.toLowerCase()}/${id}`);
  };
  const stale = (found: Away | undefined): Stale | undefined =>
    found === undefined ? undefined : { ageMs: Math.max(1, clock.now() - found.wellMs), text: found.text };

  return {
    know(sources) {
      for (const source of sources) {
        if (known.has(source)) continue;
        known.add(source);
        readMs = Number.NEGATIVE_INFINITY;
      }
    },
    read,
    oldest(picture) {
      readInTime();
      if (!picture.hearsay.some((source) => away.has(source))) return undefined;
      let found = oldest.get(picture);
      if (found === undefined) {
        let worst: Away | undefined;
        for (const { resident } of picture.facts) {
          const one = awayOf(resident.instance);
          if (one !== undefined && (worst === undefined || one.wellMs < worst.wellMs)) worst = one;
        }
        found = { away: worst };
        oldest.set(picture, found);
      }
      return stale(found.away);
    },
    of(instance) {
      readInTime();
      return stale(awayOf(instance));
    },
  };
}
