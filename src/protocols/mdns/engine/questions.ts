// What is asked at one place: on a schedule while somebody wants to know, ahead of a record's end, and not where another host just asked the same.
import type { Clock } from "../../../base/clock.ts";
import { Deadlines } from "../../../base/deadlines.ts";
import type { Random } from "../../../base/random.ts";
import {
  CLASS,
  type DnsRecord,
  type Message,
  type Name,
  type Question,
  TOP_BIT_OF_CLASS,
  TYPE,
} from "../../../wire/dns/index.ts";
import type { Cache, Entry } from "./cache.ts";
import { nameKey } from "./names.ts";
import { packQuestions } from "./packets.ts";
import { onWire } from "./records.ts";

const FIRST_DELAY_MS = [20, 120] as const;
const FIRST_INTERVAL_MS = 1000;
const LONGEST_INTERVAL_MS = 3_600_000;
/** The same question is not asked again within this, and counts as asked by whoever asked it. */
const AGAIN_AFTER_MS = 999;
/** Questions due within this go along with one that is asked. */
const GATHER_MS = 100;

interface Asked {
  readonly question: Question;
  readonly nameKey: string;
  /** How many want to know. */
  wanted: number;
  intervalMs: number;
  askedAtMs: number;
}

export class Questions {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #cache: Cache;
  readonly #send: (packet: Uint8Array) => void;
  readonly #direct: () => boolean;
  readonly #asked = new Map<string, Asked>();
  readonly #due: Deadlines;

  /** @param direct true while first questions ask for answers to this host alone */
  constructor(clock: Clock, random: Random, cache: Cache, send: (packet: Uint8Array) => void, direct: () => boolean) {
    this.#direct = direct;
    this.#clock = clock;
    this.#random = random;
    this.#cache = cache;
    this.#send = send;
    this.#due = new Deadlines(clock, (key) => this.#reached(key));
  }

  /** Somebody wants to know. */
  add(name: Name, type: number): void {
    const named = nameKey(name);
    const key = `${named}/${type}`;
    const asked = this.#asked.get(key);
    if (asked !== undefined) {
      asked.wanted++;
      return;
    }
    this.#asked.set(key, {
      question: { name, type, class: CLASS.IN },
      nameKey: named,
      wanted: 1,
      intervalMs: FIRST_INTERVAL_MS,
      askedAtMs: Number.NEGATIVE_INFINITY,
    });
    // Others may start in the same moment, as after a power cut.
    const [least, most] = FIRST_DELAY_MS;
    this.#due.set(key, least + this.#random.fraction() * (most - least));
  }

  /** Somebody no longer wants to know. */
  remove(name: Name, type: number): void {
    const key = `${nameKey(name)}/${type}`;
    const asked = this.#asked.get(key);
    if (asked === undefined || --asked.wanted > 0) return;
    this.#asked.delete(key);
    this.#due.delete(key);
  }

  /** True where somebody wants to know what an entry says. */
  wants(entry: Entry): boolean {
    return this.#asked.has(entry.rec.key) || this.#asked.has(`${entry.rec.nameKey}/${TYPE.ANY}`);
  }

  /** An entry nears its end: asks for it, and for all that near theirs. */
  refresh(entry: Entry): void {
    if (!this.wants(entry)) return;
    const asked = new Map<string, Question>();
    const add = ({ rec }: Entry): void => {
      asked.set(rec.key, { name: rec.name, type: rec.type, class: CLASS.IN });
    };
    add(entry);
    for (const other of this.#cache.nearRefresh())
      if (this.wants(other)) {
        add(other);
        this.#cache.refreshed(other);
      }
    this.#ask([...asked.values()]);
  }

  /** What was wanted is gone: it is asked for as in the beginning. */
  lost(entry: Entry): void {
    const asked = this.#asked.get(entry.rec.key);
    if (asked === undefined) return;
    asked.intervalMs = FIRST_INTERVAL_MS;
    this.#due.set(entry.rec.key, FIRST_INTERVAL_MS);
  }

  /** Another host asked at large; where it knows no answer that we do not, its question is ours [RFC 6762 §7.3]. */
  heard(query: Message, known: ReadonlyMap<string, number>): void {
    if (query.truncated) return;
    for (const id of known.keys()) if (this.#cache.get(id) === undefined) return;
    for (const { name, type, class: kind } of query.questions) {
      if (kind !== CLASS.IN) continue;
      const key = `${nameKey(name)}/${type}`;
      const asked = this.#asked.get(key);
      if (asked === undefined) continue;
      asked.askedAtMs = this.#clock.monotonic();
      this.#next(key, asked);
    }
  }

  close(): void {
    this.#due.clear();
    this.#asked.clear();
  }

  #next(key: string, asked: Asked): void {
    this.#due.set(key, asked.intervalMs);
    asked.intervalMs = Math.min(asked.intervalMs * 2, LONGEST_INTERVAL_MS);
  }

  #reached(key: string): void {
    const questions: Question[] = [];
    const now = this.#clock.monotonic();
    for (const [other, asked] of this.#asked) {
      const left = other === key ? 0 : this.#due.left(other);
      if (left === undefined || left > GATHER_MS) continue;
      this.#next(other, asked);
      if (now - asked.askedAtMs < AGAIN_AFTER_MS || this.#isAnswered(asked)) continue;
      // The first one of somebody who knows nothing yet is answered also where the answer was just heard by all [RFC 6762 §5.4].
      const first = asked.askedAtMs === Number.NEGATIVE_INFINITY && this.#direct();
      questions.push(first ? { ...asked.question, class: CLASS.IN | TOP_BIT_OF_CLASS } : asked.question);
    }
    this.#ask(questions);
  }

  /** True where the owner of the name has said all there is, which is asked for again only near its end. */
  #isAnswered({ nameKey: named, question }: Asked): boolean {
    if (question.type === TYPE.PTR || question.type === TYPE.ANY) return false;
    for (const entry of this.#cache.at(named, question.type))
      if ((entry.unique || entry.own) && entry.leaving === undefined) return true;
    for (const { rec, leaving } of this.#cache.at(named, TYPE.NSEC))
      if (leaving === undefined && rec.data.kind === "NSEC" && !rec.data.types.includes(question.type)) return true;
    return false;
  }

  #ask(questions: readonly Question[]): void {
    if (questions.length === 0) return;
    const now = this.#clock.monotonic();
    const asked = questions.map((question) => {
      const named = nameKey(question.name);
      const known: DnsRecord[] = [];
      const own = this.#asked.get(`${named}/${question.type}`);
      if (own !== undefined) own.askedAtMs = now;
      if (question.type !== TYPE.ANY)
        for (const entry of this.#cache.at(named, question.type)) {
          // An answer that lives less than half its time shall be said again [RFC 6762 §7.1].
          const left = entry.own ? entry.ttlS || OWN_KNOWN_S : Math.floor(this.#cache.leftMs(entry) / 1000);
          if (entry.unique || entry.leaving !== undefined || left * 2 <= entry.ttlS) continue;
          known.push(onWire(entry.rec, left, false));
        }
      return { question, known };
    });
    for (const packet of packQuestions(asked)) this.#send(packet);
  }
}

/** The life told of shared records that only this engine says: that of PTR records. */
const OWN_KNOWN_S = 4500;
