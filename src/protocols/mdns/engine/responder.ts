// The records this engine says at one place, and how they answer questions.
import type { Clock, Timer } from "../../../base/clock.ts";
import type { Random } from "../../../base/random.ts";
import { CLASS, type DnsRecord, type Message, type Question, TOP_BIT_OF_CLASS, TYPE } from "../../../wire/dns/index.ts";
import { HOST_TTL_S, nameKey, PORT } from "./names.ts";
import { Outbox } from "./outbox.ts";
import { packAnswers, packLegacy } from "./packets.ts";
import { type Owned, onWire, owned } from "./records.ts";

/** Where a query came from. */
export interface Asker {
  readonly address: string;
  readonly port: number;
  /** True where it was sent to this host alone: the answer goes back alone. */
  readonly direct: boolean;
}

/** No mDNS caches at the asker: it holds answers no longer than this [RFC 6762 §6.7]. */
const LEGACY_TTL_S = 10;
/** Shared records wait, so that answers of several hosts do not collide [RFC 6762 §6]. */
const SHARED_DELAY_MS = [20, 120] as const;
/** After a query whose known answers go on in the next packet [RFC 6762 §7.2]. */
const TRUNCATED_DELAY_MS = [400, 500] as const;

/** A query that goes on in further packets of the same asker. */
interface Unfinished {
  readonly answers: Map<string, Owned>;
  timer: Timer;
}

export class Responder {
  readonly outbox: Outbox;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #send: (packet: Uint8Array, to?: { address: string; port: number }) => void;
  readonly #records = new Map<string, { readonly owned: Owned; readonly holders: Set<unknown> }>();
  readonly #byName = new Map<string, Set<Owned>>();
  readonly #denials = new Map<string, Owned>();
  readonly #unfinished = new Map<string, Unfinished>();

  constructor(
    clock: Clock,
    random: Random,
    send: (packet: Uint8Array, to?: { address: string; port: number }) => void,
  ) {
    this.#clock = clock;
    this.#random = random;
    this.#send = send;
    this.outbox = new Outbox(clock, send, (answers) => this.#explain(answers));
  }

  get(id: string): Owned | undefined {
    return this.#records.get(id)?.owned;
  }

  /** Records under a name. */
  at(key: string): Iterable<Owned> {
    return this.#byName.get(key) ?? [];
  }

  /** Every record. */
  *all(): Iterable<Owned> {
    for (const { owned } of this.#records.values()) yield owned;
  }

  /** A holder says a record from now on; several may say the same one. Returns the one that counts. */
  hold(record: Owned, holder: unknown): Owned {
    const known = this.#records.get(record.id);
    if (known !== undefined) {
      known.holders.add(holder);
      return known.owned;
    }
    this.#records.set(record.id, { owned: record, holders: new Set([holder]) });
    const named = this.#byName.get(record.nameKey);
    if (named === undefined) this.#byName.set(record.nameKey, new Set([record]));
    else named.add(record);
    this.#denials.delete(record.nameKey);
    return record;
  }

  /** A holder no longer says a record; true where nobody else does. */
  drop(id: string, holder: unknown): boolean {
    const known = this.#records.get(id);
    if (known === undefined || !known.holders.delete(holder) || known.holders.size > 0) return false;
    this.#records.delete(id);
    const named = this.#byName.get(known.owned.nameKey);
    named?.delete(known.owned);
    if (named?.size === 0) this.#byName.delete(known.owned.nameKey);
    this.#denials.delete(known.owned.nameKey);
    return true;
  }

  /** Answers a query. `known`: identities of the answers it lists, with their times to live. */
  answer(query: Message, known: ReadonlyMap<string, number>, from: Asker): void {
    if (from.port !== PORT) {
      this.#answerLegacy(query, known, from);
      return;
    }
    const earlier = this.#unfinished.get(from.address);
    if (earlier !== undefined) {
      for (const [id, record] of earlier.answers) if (suppresses(known, record)) earlier.answers.delete(id);
    }
    const probing = query.authorities.length > 0;
    const multicast = new Map<string, Owned>();
    const alone = new Map<string, Owned>();
    for (const question of query.questions) {
      const unicast = from.direct || (question.class & TOP_BIT_OF_CLASS) !== 0;
      for (const record of this.#answersTo(question)) {
        if (suppresses(known, record)) continue;
        // Said at large long ago, it is said at large again: caches everywhere live from it [RFC 6762 §5.4].
        const fresh = this.#clock.monotonic() - record.saidAtMs < (record.ttlS * 1000) / 4;
        (unicast && (fresh || from.direct) && !probing ? alone : multicast).set(record.id, record);
      }
    }
    if (alone.size > 0) {
      const answers = [...alone.values()];
      const wire = (record: Owned): DnsRecord => onWire(record, record.ttlS, record.unique);
      for (const packet of packAnswers(answers.map(wire), this.#explain(answers).map(wire))) this.#send(packet, from);
    }
    if (query.truncated) {
      this.#wait(from.address, multicast);
      return;
    }
    if (earlier !== undefined) {
      for (const [id, record] of multicast) earlier.answers.set(id, record);
      return;
    }
    let shared = false;
    for (const record of multicast.values()) shared = shared || !record.unique;
    const delayMs = shared && !probing ? this.#between(SHARED_DELAY_MS) : 0;
    this.outbox.answer(multicast.values(), delayMs, probing);
  }

  close(): void {
    this.outbox.close();
    for (const { timer } of this.#unfinished.values()) timer.cancel();
    this.#unfinished.clear();
  }

  #between([least, most]: readonly [number, number]): number {
    return least + this.#random.fraction() * (most - least);
  }

  /** Keeps answers until the rest of the known answers is here. */
  #wait(address: string, answers: Map<string, Owned>): void {
    const timer = this.#clock.after(this.#between(TRUNCATED_DELAY_MS), () => {
      this.#unfinished.delete(address);
      this.outbox.answer(all.values(), 0);
    });
    const earlier = this.#unfinished.get(address);
    earlier?.timer.cancel();
    const all = earlier?.answers ?? new Map<string, Owned>();
    for (const [id, record] of answers) all.set(id, record);
    this.#unfinished.set(address, { answers: all, timer });
  }

  #answerLegacy(query: Message, known: ReadonlyMap<string, number>, from: Asker): void {
    const answers = new Map<string, Owned>();
    for (const question of query.questions)
      for (const record of this.#answersTo(question)) if (!suppresses(known, record)) answers.set(record.id, record);
    if (answers.size === 0) return;
    const list = [...answers.values()];
    const wire = (record: Owned): DnsRecord => onWire(record, Math.min(record.ttlS, LEGACY_TTL_S), false);
    const questions = query.questions.map((question) => ({
      ...question,
      class: question.class & ~TOP_BIT_OF_CLASS,
    }));
    this.#send(packLegacy(query.id, questions, list.map(wire), this.#explain(list).map(wire)), from);
  }

  *#answersTo(question: Question): Iterable<Owned> {
    const kind = question.class & ~TOP_BIT_OF_CLASS;
    if (kind !== CLASS.IN && kind !== CLASS.ANY) return;
    const key = nameKey(question.name);
    const named = this.#byName.get(key);
    if (named === undefined) return;
    let any = false;
    let unique = true;
    for (const record of named) {
      unique = unique && record.unique;
      if (question.type !== TYPE.ANY && record.type !== question.type) continue;
      any = true;
      yield record;
    }
    // The name is ours alone, so we know that there is no such record [RFC 6762 §6.1].
    if (!any && unique && question.type !== TYPE.NSEC) yield this.#denial(key, named);
  }

  /** Says which types there are at a name of ours. */
  #denial(key: string, named: ReadonlySet<Owned>): Owned {
    let denial = this.#denials.get(key);
    if (denial === undefined) {
      const [first] = named;
      const { name } = first as Owned;
      const types = [...new Set([...named].map(({ type }) => type))].sort((a, b) => a - b);
      denial = owned(name, { kind: "NSEC", next: name, types }, HOST_TTL_S, true);
      this.#denials.set(key, denial);
    }
    return denial;
  }

  /** What an asker will want next [RFC 6763 §12]: SRV, TXT and addresses for PTR, addresses for SRV, the other family's for an address. */
  #explain(answers: readonly Owned[]): Owned[] {
    const said = new Set(answers.map(({ id }) => id));
    const more: Owned[] = [];
    const add = (key: string, wanted: readonly number[], deny: boolean): void => {
      const named = this.#byName.get(key);
      if (named === undefined) return;
      const missing = new Set(wanted);
      for (const record of named) {
        if (!wanted.includes(record.type)) continue;
        missing.delete(record.type);
        if (said.has(record.id)) continue;
        said.add(record.id);
        more.push(record);
      }
      const [first] = named;
      if (deny && missing.size > 0 && missing.size < wanted.length && first?.unique === true) {
        const denial = this.#denial(key, named);
        if (!said.has(denial.id)) more.push(denial);
        said.add(denial.id);
      }
    };
    const addresses = [TYPE.A, TYPE.AAAA];
    for (const { data } of answers) if (data.kind === "PTR") add(nameKey(data.target), [TYPE.SRV, TYPE.TXT], false);
    for (const { data } of [...answers, ...more]) if (data.kind === "SRV") add(nameKey(data.target), addresses, true);
    for (const { data, nameKey: key } of answers)
      if (data.kind === "A" || data.kind === "AAAA") add(key, addresses, true);
    return more;
  }
}

/** True where the asker knows a record well enough [RFC 6762 §7.1]. */
function suppresses(known: ReadonlyMap<string, number>, record: Owned): boolean {
  const ttlS = known.get(record.id);
  return ttlS !== undefined && ttlS >= record.ttlS / 2;
}
