// What was heard at one place, with its time to live, and what this engine says there itself.
import type { Clock } from "../../../base/clock.ts";
import { Deadlines } from "../../../base/deadlines.ts";
import type { Random } from "../../../base/random.ts";
import type { Gone } from "../engine.ts";
import type { Rec } from "./records.ts";

/** A record that is there. */
export interface Entry {
  readonly rec: Rec;
  /** True while this engine says it itself. */
  own: boolean;
  /** True where it came from this host: from this engine or another program. */
  local: boolean;
  /** When it was heard last; meaningful where `ttlS` is above 0. */
  heardAtMs: number;
  /** 0: it was not heard, only said. */
  ttlS: number;
  /** True where it came with the cache-flush bit: its owner says all there is under its name and type. */
  unique: boolean;
  /** Why it will go soon: a goodbye, or newer data. */
  leaving: Gone | undefined;
  /** Questions of others that it should have answered and did not [RFC 6762 §10.5], and when the first one was. */
  unanswered: number;
}

/** A record as it was heard. */
export interface HeardRecord {
  readonly rec: Rec;
  readonly ttlS: number;
  readonly flush: boolean;
}

export interface CacheEvents {
  added(entry: Entry): void;
  removed(entry: Entry, why: Gone): void;
  /** An entry nears its end: whoever is interested asks for it. */
  refresh(entry: Entry): void;
}

/** Shares of the time to live at which a record is asked for again [RFC 6762 §5.2]. */
const REFRESH_AT = [0.8, 0.85, 0.9, 0.95];
const REFRESH_SPREAD = 0.02;
/** How long what said goodbye or was replaced is kept [RFC 6762 §10.1, §10.2]. */
const LEAVING_MS = 1000;
/** As avahi-daemon's cache-entries-max: a flood must not fill the memory. */
const MOST_ENTRIES = 4096;
const UNANSWERED_MS = 10_000;
const UNANSWERED_MOST = 2;

export class Cache {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #events: CacheEvents;
  readonly #entries = new Map<string, Entry>();
  readonly #byName = new Map<string, Set<Entry>>();
  readonly #ends: Deadlines;
  readonly #refreshes: Deadlines;
  readonly #failures: Deadlines;

  constructor(clock: Clock, random: Random, events: CacheEvents) {
    this.#clock = clock;
    this.#random = random;
    this.#events = events;
    this.#ends = new Deadlines(clock, (id) => this.#ended(id));
    this.#refreshes = new Deadlines(clock, (id) => this.#refresh(id));
    this.#failures = new Deadlines(clock, (id) => this.#failed(id));
  }

  get size(): number {
    return this.#entries.size;
  }

  get(id: string): Entry | undefined {
    return this.#entries.get(id);
  }

  /** Entries under a name, of one type or (255) of any, in the order in which they came. */
  *at(nameKey: string, type: number): Iterable<Entry> {
    for (const entry of this.#byName.get(nameKey) ?? []) if (type === 255 || entry.rec.type === type) yield entry;
  }

  /** Milliseconds that an entry has left; all it says itself never ends. */
  leftMs(entry: Entry): number {
    if (entry.own) return Number.POSITIVE_INFINITY;
    return this.#ends.left(entry.rec.id) ?? 0;
  }

  /** Takes in one response's records. */
  heard(records: readonly HeardRecord[], local: boolean): void {
    const now = this.#clock.monotonic();
    const added: Entry[] = [];
    const flushed = new Set<string>();
    for (const { rec, ttlS, flush } of records) {
      if (flush) flushed.add(rec.key);
      let entry = this.#entries.get(rec.id);
      if (ttlS === 0) {
        if (entry !== undefined) this.#leave(entry, "goodbye");
        continue;
      }
      if (entry === undefined) {
        if (this.#entries.size >= MOST_ENTRIES) continue;
        entry = this.#insert(rec);
        added.push(entry);
      }
      entry.heardAtMs = now;
      entry.ttlS = ttlS;
      entry.unique = flush;
      entry.leaving = undefined;
      entry.unanswered = 0;
      entry.local = local || entry.own;
      this.#ends.set(rec.id, ttlS * 1000);
      this.#failures.delete(rec.id);
      this.#planRefresh(entry);
    }
    // What is older than a second and was not in the same breath goes a second later.
    for (const key of flushed) {
      const nameKey = key.slice(0, key.lastIndexOf("/"));
      for (const entry of this.#byName.get(nameKey) ?? [])
        if (entry.rec.key === key && !entry.own && now - entry.heardAtMs > LEAVING_MS) this.#leave(entry, "replaced");
    }
    for (const entry of added) this.#events.added(entry);
  }

  /** This engine says a record from now on. */
  say(rec: Rec, unique: boolean): void {
    let entry = this.#entries.get(rec.id);
    const isNew = entry === undefined;
    entry ??= this.#insert(rec);
    entry.own = true;
    entry.local = true;
    entry.unique = unique;
    entry.leaving = undefined;
    this.#refreshes.delete(rec.id);
    if (isNew) this.#events.added(entry);
  }

  /** This engine no longer says a record; it stays where somebody else does. */
  unsay(id: string, why: Gone): void {
    const entry = this.#entries.get(id);
    if (entry === undefined || !entry.own) return;
    entry.own = false;
    if (this.#ends.has(id)) this.#planRefresh(entry);
    else this.#remove(entry, why);
  }

  /** Somebody asked at large for what an entry would answer, and did not know it [RFC 6762 §10.5]. */
  asked(entry: Entry): void {
    if (entry.own || entry.leaving !== undefined) return;
    entry.unanswered++;
    // A burst of packets is one question: the first one starts the time that is given.
    if (!this.#failures.has(entry.rec.id)) this.#failures.set(entry.rec.id, UNANSWERED_MS);
  }

  /** Entries whose time to be asked for again is near: one packet asks for all of them. */
  *nearRefresh(): Iterable<Entry> {
    for (const entry of this.#entries.values()) {
      const left = this.#refreshes.left(entry.rec.id);
      if (left !== undefined && left <= entry.ttlS * 1000 * REFRESH_SPREAD) yield entry;
    }
  }

  /** An entry was asked for ahead of its time. */
  refreshed(entry: Entry): void {
    this.#planRefresh(entry, 2 * REFRESH_SPREAD);
  }

  /** Everything goes, with this reason. */
  clear(why: Gone): void {
    for (const entry of [...this.#entries.values()]) this.#remove(entry, why);
    this.#ends.clear();
    this.#refreshes.clear();
    this.#failures.clear();
  }

  #insert(rec: Rec): Entry {
    const entry: Entry = {
      rec,
      own: false,
      local: false,
      heardAtMs: 0,
      ttlS: 0,
      unique: false,
      leaving: undefined,
      unanswered: 0,
    };
    this.#entries.set(rec.id, entry);
    const named = this.#byName.get(rec.nameKey);
    if (named === undefined) this.#byName.set(rec.nameKey, new Set([entry]));
    else named.add(entry);
    return entry;
  }

  #leave(entry: Entry, why: Gone): void {
    if (entry.own) return;
    if (entry.leaving !== undefined && (this.#ends.left(entry.rec.id) ?? 0) <= LEAVING_MS) return;
    if ((this.#ends.left(entry.rec.id) ?? 0) > LEAVING_MS) this.#ends.set(entry.rec.id, LEAVING_MS);
    entry.leaving = why;
    this.#refreshes.delete(entry.rec.id);
  }

  #planRefresh(entry: Entry, ahead = 0): void {
    const { id } = entry.rec;
    if (entry.own || entry.leaving !== undefined) return;
    const ttlMs = entry.ttlS * 1000;
    const passed = this.#clock.monotonic() - entry.heardAtMs;
    const share = REFRESH_AT.find((at) => at * ttlMs > passed + ahead * ttlMs);
    if (share === undefined) this.#refreshes.delete(id);
    else this.#refreshes.set(id, (share + this.#random.fraction() * REFRESH_SPREAD) * ttlMs - passed);
  }

  #refresh(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#planRefresh(entry);
    this.#events.refresh(entry);
  }

  #failed(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.own) return;
    if (entry.unanswered >= UNANSWERED_MOST) this.#remove(entry, "expired");
    else entry.unanswered = 0;
  }

  #ended(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    if (entry.own) entry.ttlS = 0;
    else this.#remove(entry, entry.leaving ?? "expired");
  }

  #remove(entry: Entry, why: Gone): void {
    const { id, nameKey } = entry.rec;
    if (!this.#entries.delete(id)) return;
    const named = this.#byName.get(nameKey);
    named?.delete(entry);
    if (named?.size === 0) this.#byName.delete(nameKey);
    this.#ends.delete(id);
    this.#refreshes.delete(id);
    this.#failures.delete(id);
    this.#events.removed(entry, why);
  }
}
