// Those who want to know: each has its question asked where it wants, and hears what comes and goes.
import type { Clock, Timer } from "../../../base/clock.ts";
import { checkName, type Name } from "../../../wire/dns/index.ts";
import type { Gone, Within } from "../engine.ts";
import type { Entry } from "./cache.ts";
import type { Link } from "./link.ts";
import { nameKey } from "./names.ts";

/** Everybody who can be asked at large has answered by then, as Avahi takes it. */
const ALL_FOR_NOW_MS = 1000;

/** One who wants to know what is under a name. */
export interface Follower {
  readonly within: Within;
  readonly name: Name;
  /** Numbers of types, 255 for any. */
  readonly type: number;
  added(link: Link, entry: Entry): void;
  removed(link: Link, entry: Entry, why: Gone): void;
}

const ANY = 255;

export class Followers {
  readonly #clock: Clock;
  readonly #links: () => Iterable<Link>;
  readonly #byKey = new Map<string, Set<Follower>>();
  readonly #timers = new Set<Timer>();

  constructor(clock: Clock, links: () => Iterable<Link>) {
    this.#clock = clock;
    this.#links = links;
  }

  /** What is known already is told before this returns. @throws TrilithError `invalid` for a name that no question can hold */
  add(follower: Follower): void {
    checkName(follower.name);
    const key = `${nameKey(follower.name)}/${follower.type}`;
    const all = this.#byKey.get(key);
    if (all === undefined) this.#byKey.set(key, new Set([follower]));
    else all.add(follower);
    for (const link of this.#links()) if (takesPart(follower, link)) this.#ask(follower, link);
  }

  remove(follower: Follower): void {
    const key = `${nameKey(follower.name)}/${follower.type}`;
    const all = this.#byKey.get(key);
    if (all?.delete(follower) !== true) return;
    if (all.size === 0) this.#byKey.delete(key);
    for (const link of this.#links())
      if (takesPart(follower, link)) link.questions.remove(follower.name, follower.type);
  }

  /** Calls back when those who answer at once have done so. */
  allForNow(callback: () => void): Timer {
    const timer = this.#clock.after(ALL_FOR_NOW_MS, () => {
      this.#timers.delete(timer);
      callback();
    });
    this.#timers.add(timer);
    return timer;
  }

  /** Nobody hears anything any more. */
  clear(): void {
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    this.#byKey.clear();
  }

  /** A place came. */
  came(link: Link): void {
    for (const followers of [...this.#byKey.values()])
      for (const follower of [...followers]) if (takesPart(follower, link)) this.#ask(follower, link);
  }

  added(link: Link, entry: Entry): void {
    for (const follower of this.#of(entry)) if (takesPart(follower, link)) follower.added(link, entry);
  }

  removed(link: Link, entry: Entry, why: Gone): void {
    for (const follower of this.#of(entry)) if (takesPart(follower, link)) follower.removed(link, entry, why);
  }

  #of({ rec }: Entry): Follower[] {
    return [...(this.#byKey.get(rec.key) ?? []), ...(this.#byKey.get(`${rec.nameKey}/${ANY}`) ?? [])];
  }

  #ask(follower: Follower, link: Link): void {
    link.questions.add(follower.name, follower.type);
    for (const entry of [...link.cache.at(nameKey(follower.name), follower.type)])
      if (entry.leaving === undefined) follower.added(link, entry);
  }
}

function takesPart({ within }: Follower, link: Link): boolean {
  return (
    (within.interface === undefined || within.interface === link.interface) &&
    (within.family === undefined || within.family === link.family)
  );
}
