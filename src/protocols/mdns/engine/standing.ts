// One claim at one place: probing for its names, announcing, defending them, saying goodbye [RFC 6762 §8 to §10].
import type { Timer } from "../../../base/clock.ts";
import { type Name, TYPE } from "../../../wire/dns/index.ts";
import type { Link } from "./link.ts";
import { nameKey } from "./names.ts";
import { type Owned, type Rec, tieBreak } from "./records.ts";

/** What is claimed: a host's name with its addresses, or a group of services. */
export interface Spec {
  /** What it says at a place at present; records that it said before may come as new objects. */
  records(link: Link): readonly Owned[];
  /** Somebody else has a name: the spec takes another one and calls `sync` on its claim. */
  conflict(name: string): void;
  /** True where other programs of this host may say other records under the same names, as every stack does for the host's own name. */
  readonly sharedOnHost: boolean;
  /** A place came to rest, or began to move. */
  changed(): void;
  /** Milliseconds to wait before probing at all: more than 0 after many conflicts. */
  patienceMs(): number;
}

const PROBES = 3;
const PROBE_EVERY_MS = 250;
/** Having lost against a simultaneous probe [RFC 6762 §8.2]. */
const LOST_MS = 1000;
/** Announcements after the first one, as Avahi's. */
const ANNOUNCE_AGAIN_MS = [1000, 2000];

interface Proposal {
  readonly name: Name;
  readonly records: readonly Owned[];
}

export class Standing {
  readonly link: Link;
  readonly #spec: Spec;
  /** Said here: in the responder and announced. */
  readonly #held = new Map<string, Owned>();
  /** Asked for before they are said, by name. */
  #proposed = new Map<string, Proposal>();
  /** Names that somebody else was heard to have. */
  readonly #contested = new Set<string>();
  #wanted: readonly Owned[] = [];
  #settled = false;
  #timer: Timer | undefined;
  #announcing: Timer | undefined;
  #announced: readonly Owned[] = [];

  constructor(link: Link, spec: Spec) {
    this.link = link;
    this.#spec = spec;
  }

  get settled(): boolean {
    return this.#settled;
  }

  /** Brings what is said into line with what the spec wants. */
  sync(): void {
    this.#wanted = this.#spec.records(this.link).map((record) => this.link.responder.get(record.id) ?? record);
    const wanted = new Set(this.#wanted.map(({ id }) => id));
    const keys = new Set(this.#wanted.map(({ key }) => key));
    const heldNames = new Set<string>();
    for (const record of this.#held.values())
      if (record.unique && !this.#proposed.has(record.nameKey)) heldNames.add(record.nameKey);
    this.#retire(
      [...this.#held.values()].filter(({ id }) => !wanted.has(id)),
      keys,
    );
    const proposed = new Map<string, { name: Name; records: Owned[] }>();
    for (const record of this.#wanted) {
      if (!record.unique || heldNames.has(record.nameKey)) continue;
      const proposal = proposed.get(record.nameKey);
      if (proposal === undefined) proposed.set(record.nameKey, { name: record.name, records: [record] });
      else proposal.records.push(record);
    }
    this.#proposed = proposed;
    this.#contested.clear();
    this.#timer?.cancel();
    if (proposed.size === 0) this.#activate();
    else {
      this.#settled = false;
      this.#startProbing(Math.max(this.#spec.patienceMs(), this.link.probeDelayMs()));
    }
  }

  /** Somebody else said a record in a response, or (`inProbe`) proposes it. True where it is at odds with what is claimed here. */
  contradicts(rec: Rec, ttlS: number, local: boolean, inProbe = false): boolean {
    const proposal = this.#proposed.get(rec.nameKey);
    const ours: Owned[] = [];
    for (const record of proposal?.records ?? this.#held.values())
      if (record.unique && record.nameKey === rec.nameKey) {
        if (record.id === rec.id) return false;
        ours.push(record);
      }
    if (ours.length === 0 || ttlS === 0) return false;
    // A stack of this host says what this host has, of which its own settings may leave something out.
    if (local && this.#spec.sharedOnHost && rec.type !== TYPE.PTR) return false;
    const sameType = ours.some(({ type }) => type === rec.type);
    return proposal === undefined || inProbe ? sameType : sameType || rec.type !== TYPE.NSEC;
  }

  /** A contradiction came in: whoever probes gives the name up, whoever has it probes again [RFC 6762 §9]. */
  conflict(key: string): void {
    if (this.#proposed.has(key)) {
      this.#contested.add(key);
      this.#spec.conflict(key);
      return;
    }
    const records = [...this.#held.values()].filter((record) => record.unique && record.nameKey === key);
    const [first] = records;
    if (first === undefined) return;
    this.#proposed.set(key, { name: first.name, records });
    for (const record of records) this.link.responder.drop(record.id, this);
    this.#settled = false;
    this.#spec.changed();
    this.#startProbing(this.link.probeDelayMs());
  }

  /** Another host probes for a name at the same time: the later data wins, the loser tries again when the winner has it [RFC 6762 §8.2]. */
  rival(key: string, theirs: readonly Rec[], local: boolean): void {
    const proposal = this.#proposed.get(key);
    if (proposal === undefined || (local && this.#spec.sharedOnHost)) return;
    if (tieBreak(proposal.records, theirs) < 0) this.#startProbing(LOST_MS);
  }

  /** Says goodbye for what is said here (with `goodbye` false, forgets it) and is over. */
  close(goodbye: boolean): void {
    this.#timer?.cancel();
    this.#announcing?.cancel();
    this.#settled = false;
    if (goodbye) this.#retire([...this.#held.values()], new Set());
    else
      for (const { id } of this.#held.values()) {
        this.link.responder.drop(id, this);
        this.link.cache.unsay(id, "interface");
      }
    this.#held.clear();
    this.#proposed.clear();
  }

  #startProbing(delayMs: number): void {
    this.#timer?.cancel();
    let sent = 0;
    const step = (): void => {
      if (sent === PROBES) {
        this.#proposed.clear();
        this.#activate();
        return;
      }
      sent++;
      this.link.probe([...this.#proposed.values()]);
      this.#timer = this.link.clock.after(PROBE_EVERY_MS, step);
    };
    this.#timer = this.link.clock.after(delayMs, step);
  }

  /** Says all that is wanted, and announces what was not said before. */
  #activate(): void {
    const added: Owned[] = [];
    for (const record of this.#wanted) {
      const before = this.#held.get(record.id);
      const held = this.link.responder.hold(record, this);
      if (before === undefined || before !== held || !this.#settled) added.push(held);
      this.#held.set(held.id, held);
      this.link.cache.say(held, held.unique);
    }
    this.#settled = true;
    if (added.length > 0) {
      this.link.announce(added);
      // What was announced too few times so far starts over with the new.
      this.#announced = [...new Set([...this.#announced, ...added])];
      this.#announceAgain(0);
    }
    this.#spec.changed();
  }

  #announceAgain(step: number): void {
    this.#announcing?.cancel();
    const delayMs = ANNOUNCE_AGAIN_MS[step];
    if (delayMs === undefined) {
      this.#announced = [];
      return;
    }
    this.#announcing = this.link.clock.after(delayMs, () => {
      this.link.announce(this.#announced.filter(({ id }) => this.#held.has(id)));
      this.#announceAgain(step + 1);
    });
  }

  /** No longer says some records. `keys`: names and types of which something else is said from now on, which flushes the old. */
  #retire(records: readonly Owned[], keys: ReadonlySet<string>): void {
    const goodbye: Owned[] = [];
    const contested: Owned[] = [];
    for (const record of records) {
      this.#held.delete(record.id);
      const last = this.link.responder.drop(record.id, this) || this.#proposed.has(record.nameKey);
      if (!last) continue;
      const replaced = record.unique && keys.has(record.key);
      this.link.cache.unsay(record.id, replaced ? "replaced" : "goodbye");
      if (replaced || this.link.isSaidByOthers(record)) continue;
      if (record.unique && this.#contested.has(record.nameKey)) contested.push(record);
      // The winner of the name lists it under the same record, which must not go.
      else if (record.data.kind === "PTR" && this.#contested.has(nameKey(record.data.target))) continue;
      else goodbye.push(record);
    }
    this.link.goodbye(goodbye);
    if (contested.length > 0) this.link.responder.outbox.goodbye(contested, false);
  }
}
