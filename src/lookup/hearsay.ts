// How fresh hearsay is: which sources, and which of the things that they read, are away at present, and since when.
import type { Clock } from "../base/clock.ts";
import type { SourceState } from "../contracts/ground.ts";
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

/** An entry's name beside its source's, for the memory over restarts. */
const entryKey = (source: string, entry: string): string => `${source}\u0000${entry}`;

/** See `SourceHealth.entries`. */
export function createHearsay(parts: {
  readonly sources: () => readonly SourceState[];
  readonly clock: Clock;
  readonly remember: Pick<Remember, "noteSource" | "sourceSeen"> | undefined;
  readonly startedAtMs: number;
}): Hearsay {
  const { clock, remember } = parts;
  const known = new Set<string>();
  const away = new Map<string, AwaySource>();
  const lastWell = new Map<string, number>();
  let readMs = Number.NEGATIVE_INFINITY;
  /** What was found for a picture since the last reading. */
  let oldest = new WeakMap<Picture, { readonly away: Away | undefined }>();

  const well = (key: string): void => {
    lastWell.set(key, clock.now());
    remember?.noteSource(key, clock.now());
  };
  const wellMs = (...keys: readonly string[]): number => {
    for (const key of keys) {
      const seen = lastWell.get(key) ?? remember?.sourceSeen(key);
      if (seen !== undefined) return seen;
    }
    return parts.startedAtMs;
  };

  const read = (): void => {
    readMs = clock.monotonic();
    away.clear();
    oldest = new WeakMap();
    for (const { name, ok, text, entries = [] } of parts.sources()) {
      if (!known.has(name)) continue;
      const told = new Map<string, Away>();
      for (const entry of entries)
        if (entry.ok) well(entryKey(name, entry.name));
        else
          for (const key of entry.tells())
            told.set(key, {
              wellMs: wellMs(entryKey(name, entry.name), name),
              text: `${name}: ${entry.name}: ${entry.text}`,
            });
      if (ok) well(name);
      else if (entries.some((entry) => !entry.ok)) away.set(name, told);
      else away.set(name, { wellMs: wellMs(name), text: `${name}: ${text}` });
    }
  };
  const readInTime = (): void => {
    if (clock.monotonic() - readMs >= READ_MS) read();
  };

  const awayOf = ({ node, id, origin }: Pick<Instance, "node" | "id" | "origin">): Away | undefined => {
    if (origin.authority !== "second-hand") return undefined;
    const source = away.get(origin.source);
    return source instanceof Map ? source.get(`${node.toLowerCase()}/${id}`) : (source as Away | undefined);
  };
  const stale = (found: Away | undefined): Stale | undefined =>
    found === undefined ? undefined : { ageMs: Math.max(1, clock.now() - found.wellMs), text: found.text };

  return {
    know(sources) {
      for (const source of sources) known.add(source);
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
