// The short way: questions for a service that was answered before are answered from records packed once, with what the long way would say.
import type { Random } from "../../base/random.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import type { Endpoint } from "../../model/query.ts";
import {
  CLASS,
  FLAG,
  HEADER_BYTES,
  MAX_MESSAGE_BYTES,
  type Name,
  nameBytes,
  PLAIN_UDP_BYTES,
  TYPE,
} from "../../wire/dns/index.ts";
import type { From } from "./asking.ts";
import type { Policy } from "./config.ts";
import { CONSUL_MOST_TCP_BYTES, CONSUL_MOST_TCP_SRV_ANSWERS, CONSUL_UDP_SLACK_BYTES } from "./fit.ts";
import { type Learned, type Packed, type PackedAnswer, type PackedExtra, pack } from "./packed.ts";

/** A name that was learned, with the records of its last list. */
interface Entry extends Learned {
  readonly zoneBytes: number;
  /** Undefined = the long way has to be taken. */
  packed: Packed | undefined;
  /** The endpoints that `packed` was made from: another list makes other records. */
  packedFrom: readonly Endpoint[] | undefined;
}

/** More names than that are forgotten all at once: they are learned again as they are asked for. */
const MOST_NAMES = 4096;
const POINTER_TO_QUESTION = 0xc000 | HEADER_BYTES;
const POINTER_LIMIT = 0x4000;
const OPT_BYTES = 11;

/** What the long way tells the short one about sizes. */
export interface Sizes {
  /** The largest message for an asker who offered `offeredBytes` (0 = no EDNS). */
  limit(from: From, offeredBytes: number): number;
  /** The size that the answer's OPT record offers, for an asker who offered `offeredBytes`. */
  offer(from: From, offeredBytes: number): number;
  /** True where recursion is available to the asker. */
  recursion(from: From): boolean;
}

/** See the first line. `undefined` from `respond` means: take the long way. */
export class Quick {
  readonly #policy: Policy;
  readonly #lookup: Pick<Lookup, "resolveNow">;
  readonly #random: Random;
  readonly #sizes: Sizes;
  readonly #entries: ReadonlyMap<number, Map<string, Entry>> = new Map([
    [TYPE.A, new Map()],
    [TYPE.AAAA, new Map()],
    [TYPE.SRV, new Map()],
  ]);
  // What the message being written holds; one for all, since writing never waits.
  /** The answers, as indexes of `Packed.answers`; the first `#count` count. */
  #order: number[] = [];
  #count = 0;
  /** True where answers were left out that ought to be there. */
  #left = false;
  /** By index of `Packed.extras`: the number of the message that an additional record was chosen for last, negative when it is done with. */
  #chosen: number[] = [];
  /** By place in `#order`: 1 where the address of the answer's target goes along. */
  #addressed: number[] = [];
  #message = 0;

  constructor(policy: Policy, lookup: Pick<Lookup, "resolveNow">, random: Random, sizes: Sizes) {
    this.#policy = policy;
    this.#lookup = lookup;
    this.#random = random;
    this.#sizes = sizes;
  }

  /** Takes in what a question was understood as, after it had an answer. */
  learn(learned: Learned): void {
    const entries = this.#entries.get(learned.type);
    if (entries === undefined || this.#policy.disableCompression) return;
    const key = keyOf(learned.name);
    if (key === undefined) return;
    if (entries.size >= MOST_NAMES) entries.clear();
    entries.set(key, { ...learned, zoneBytes: nameBytes(learned.zone), packed: undefined, packedFrom: undefined });
  }

  respond(packet: Buffer, from: From): Buffer | undefined {
    // A plain query with one question, nothing else but perhaps an OPT record.
    if (
      ((packet[2] as number) & 0xf8) !== 0 ||
      packet[4] !== 0 ||
      packet[5] !== 1 ||
      packet[6] !== 0 ||
      packet[7] !== 0 ||
      packet[8] !== 0 ||
      packet[9] !== 0 ||
      packet[10] !== 0 ||
      (packet[11] as number) > 1
    )
      return undefined;
    let at = HEADER_BYTES;
    let mixedCase = false;
    for (;;) {
      const length = packet[at] as number;
      if (length === 0) break;
      // Pointers and reserved forms, cut-off packets (undefined), and bytes above ASCII take the long way.
      if (!(length < 64)) return undefined;
      const end = at + 1 + length;
      for (let i = at + 1; i < end; i++) {
        const byte = packet[i] as number;
        if (!(byte < 0x80)) return undefined;
        if (byte >= 0x41 && byte <= 0x5a) mixedCase = true;
      }
      at = end;
    }
    const nameEnd = at + 1;
    const questionEnd = nameEnd + 4;
    if (packet.length < questionEnd || packet[nameEnd + 2] !== 0 || packet[nameEnd + 3] !== CLASS.IN) return undefined;
    const entries = this.#entries.get(((packet[nameEnd] as number) << 8) | (packet[nameEnd + 1] as number));
    if (entries === undefined) return undefined;
    let offeredBytes = 0;
    let edns = false;
    let dnssecOk = false;
    if (packet[11] === 1) {
      // An OPT record at the root, without options; its version only matters to us, not to Consul.
      if (
        packet.length !== questionEnd + OPT_BYTES ||
        packet[questionEnd] !== 0 ||
        packet[questionEnd + 1] !== 0 ||
        packet[questionEnd + 2] !== TYPE.OPT ||
        packet[questionEnd + 9] !== 0 ||
        packet[questionEnd + 10] !== 0 ||
        (packet[questionEnd + 6] !== 0 && !this.#policy.compat)
      )
        return undefined;
      edns = true;
      offeredBytes = ((packet[questionEnd + 3] as number) << 8) | (packet[questionEnd + 4] as number);
      dnssecOk = ((packet[questionEnd + 7] as number) & 0x80) !== 0;
    } else if (packet.length !== questionEnd) return undefined;
    const text = packet.toString("latin1", HEADER_BYTES, nameEnd);
    const entry = entries.get(mixedCase ? text.toLowerCase() : text);
    if (entry === undefined) return undefined;
    const packed = this.#packedOf(entry, from);
    if (packed === undefined) return undefined;
    return this.#write(packet, from, entry, packed, { nameEnd, questionEnd, edns, offeredBytes, dnssecOk, mixedCase });
  }

  /** The packed records as of now; undefined where the long way has to be taken. */
  #packedOf(entry: Entry, from: From): Packed | undefined {
    const { endpoints } = this.#lookup.resolveNow({ ...entry.query, asker: from.address, order: "stable" });
    if (entry.packedFrom !== endpoints) {
      entry.packedFrom = endpoints;
      entry.packed = pack(entry, endpoints, this.#policy);
    }
    return entry.packed;
  }

  #write(
    packet: Buffer,
    from: From,
    entry: Entry,
    packed: Packed,
    asked: {
      readonly nameEnd: number;
      readonly questionEnd: number;
      readonly edns: boolean;
      readonly offeredBytes: number;
      readonly dnssecOk: boolean;
      readonly mixedCase: boolean;
    },
  ): Buffer | undefined {
    const { compat, plainAnswers, aRecordLimit, truncate } = this.#policy;
    const { nameEnd, questionEnd, edns, offeredBytes, mixedCase } = asked;
    const srv = entry.type === TYPE.SRV;
    const all = srv || aRecordLimit === 0 ? packed.answers.length : Math.min(aRecordLimit, packed.answers.length);
    const udpBytes = this.#sizes.limit(from, edns ? offeredBytes : 0);
    const plain = !from.tcp && (compat ? udpBytes === PLAIN_UDP_BYTES : !edns);
    const most = plain ? Math.min(all, plainAnswers) : all;
    const start = questionEnd + (edns ? OPT_BYTES : 0);
    let size: number;
    if (compat) {
      // A cut answer loses its OPT record; one over TCP has a limit of records.
      if ((edns && most < all) || (from.tcp && all > CONSUL_MOST_TCP_SRV_ANSWERS)) return undefined;
      const limit = from.tcp ? CONSUL_MOST_TCP_BYTES : udpBytes - CONSUL_UDP_SLACK_BYTES;
      size = this.#chooseAsConsul(packed, most, all, start, limit);
    } else size = this.#choose(packed, most, start, from.tcp ? MAX_MESSAGE_BYTES : udpBytes);
    if (size === 0 || size > POINTER_LIMIT) return undefined;
    const count = this.#count;
    const order = this.#order;
    const message = this.#message;

    const out = Buffer.allocUnsafe(size);
    packet.copy(out, 0, 0, questionEnd);
    // RD and CD come back [RFC 1035 §4.1.1, RFC 4035 §3.2.2].
    out[2] = ((FLAG.QR | FLAG.AA | (this.#left && truncate ? FLAG.TC : 0)) >> 8) | ((packet[2] as number) & 1);
    out[3] = ((packet[3] as number) & FLAG.CD) | (this.#sizes.recursion(from) ? FLAG.RA : 0);
    out[6] = count >> 8;
    out[7] = count & 255;
    let at = questionEnd;
    const zoneAt = nameEnd - entry.zoneBytes;
    for (let i = 0; i < count; i++) {
      const answer = packed.answers[order[i] as number] as PackedAnswer;
      out[at] = POINTER_TO_QUESTION >> 8;
      out[at + 1] = POINTER_TO_QUESTION & 255;
      out.set(answer.bytes, at + 2);
      // Reused below: where this message has the target.
      order[i] = ((order[i] as number) << 14) | at;
      at += 2 + answer.bytes.length;
      // Names that answers make up spell the domain as the question does.
      if (mixedCase && srv) out.copyWithin(at - entry.zoneBytes, zoneAt, nameEnd);
    }
    let additionals = 0;
    for (let i = 0; i < count && srv; i++) {
      const both = order[i] as number;
      const answer = packed.answers[both >> 14] as PackedAnswer;
      const target = (both & 0x3fff) + answer.targetAt;
      for (let k = 0; k < answer.extras.length; k++) {
        const index = answer.extras[k] as number;
        if (k === 0) {
          if (this.#addressed[i] !== 1) continue;
        } else {
          if (this.#chosen[index] !== message) continue;
          this.#chosen[index] = -message;
        }
        const extra = packed.extras[index] as PackedExtra;
        if (extra.pointsToTarget) {
          out[at++] = 0xc0 | (target >> 8);
          out[at++] = target & 255;
        }
        out.set(extra.bytes, at);
        if (mixedCase && extra.ownerBytes > 0) out.copyWithin(at + extra.ownerBytes - entry.zoneBytes, zoneAt, nameEnd);
        at += extra.bytes.length;
        additionals++;
      }
    }
    if (edns) {
      const offer = this.#sizes.offer(from, offeredBytes);
      out[at] = 0;
      out[at + 1] = 0;
      out[at + 2] = TYPE.OPT;
      out[at + 3] = offer >> 8;
      out[at + 4] = offer & 255;
      out[at + 5] = 0;
      out[at + 6] = 0;
      out[at + 7] = asked.dnssecOk && !compat ? 0x80 : 0;
      out[at + 8] = 0;
      out[at + 9] = 0;
      out[at + 10] = 0;
      additionals++;
    }
    out[10] = additionals >> 8;
    out[11] = additionals & 255;
    return out;
  }

  /**
   * Draws the answers of a message of at most `limit` bytes, `start` of which are taken, and the additional records that fit behind them.
   * Leaves them in `#order`, `#count`, `#left`, `#addressed` and `#chosen`; the same choice as `packWhatFits`. Returns the size.
   */
  #choose(packed: Packed, most: number, start: number, limit: number): number {
    const { answers, extras } = packed;
    this.#draw(answers.length, most);
    const message = ++this.#message;
    let size = start;
    let count = 0;
    while (count < most) {
      const { bytes } = answers[this.#order[count] as number] as PackedAnswer;
      if (size + 2 + bytes.length > limit) break;
      size += 2 + bytes.length;
      count++;
    }
    this.#count = count;
    this.#left = count < most;
    for (let i = 0; i < count; i++) {
      this.#addressed[i] = 0;
      if (this.#left) continue;
      const mine = (answers[this.#order[i] as number] as PackedAnswer).extras;
      for (let k = 0; k < mine.length; k++) {
        const index = mine[k] as number;
        if (k > 0 && (this.#chosen[index] === message || this.#chosen[index] === -message)) continue;
        const { bytes, pointsToTarget } = extras[index] as PackedExtra;
        const more = bytes.length + (pointsToTarget ? 2 : 0);
        const fits = size + more <= limit;
        if (fits) size += more;
        if (k === 0) this.#addressed[i] = fits ? 1 : 0;
        else this.#chosen[index] = fits ? message : -message;
      }
    }
    return size;
  }

  /** As `#choose`, for answers that Consul would leave whole or cut to `most`; 0 where it would go on cutting. */
  #chooseAsConsul(packed: Packed, most: number, all: number, start: number, limit: number): number {
    const { answers, extras } = packed;
    const cut = most < all;
    this.#draw(answers.length, most);
    const message = ++this.#message;
    this.#count = most;
    this.#left = cut;
    let size = start;
    let fullSize = start;
    // Texts that several answers need are sent once, but Consul sends them for each and counts them so.
    let repeated = 0;
    for (let i = 0; i < most; i++) {
      const answer = answers[this.#order[i] as number] as PackedAnswer;
      size += 2 + answer.bytes.length;
      fullSize += answer.fullBytes;
      // What was cut keeps the addresses of its targets alone.
      const many = cut ? Math.min(1, answer.extras.length) : answer.extras.length;
      for (let k = 0; k < many; k++) {
        const index = answer.extras[k] as number;
        const { bytes, pointsToTarget, ownerBytes } = extras[index] as PackedExtra;
        const again = this.#chosen[index] === message;
        if (k === 0) this.#addressed[i] = again && cut ? 0 : 1;
        if (again && (cut || k > 0)) {
          if (!cut) repeated += pointsToTarget ? bytes.length + 2 : bytes.length - ownerBytes + 2;
          continue;
        }
        this.#chosen[index] = message;
        size += bytes.length + (pointsToTarget ? 2 : 0);
        if (k === 0) fullSize += answer.fullExtraBytes;
      }
    }
    // What was cut is measured with all names in full.
    return size + repeated > limit || (cut && fullSize > limit) ? 0 : size;
  }

  /** Leaves `count` of the numbers below `all`, drawn in random order, at the front of `#order`. */
  #draw(all: number, count: number): void {
    const order = this.#order;
    order.length = all;
    for (let i = 0; i < all; i++) order[i] = i;
    for (let i = 0; i < count && i < all - 1; i++) {
      const j = i + this.#random.below(all - i);
      const drawn = order[j] as number;
      order[j] = order[i] as number;
      order[i] = drawn;
    }
  }
}

/** A name's bytes in lower case, as a packet holds them; undefined for names beyond ASCII. */
function keyOf(name: Name): string | undefined {
  let key = "";
  for (const label of name) {
    for (let i = 0; i < label.length; i++) if (label.charCodeAt(i) > 0x7f) return undefined;
    key += String.fromCharCode(label.length) + label.toLowerCase();
  }
  return `${key}\u0000`;
}
