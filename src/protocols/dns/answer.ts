// Questions to answers: one packet in, one packet (or silence) out, from the directory as it stands and from whoever else has to be asked; no sockets here.
import { messageOf, TrilithError } from "../../base/error.ts";
import {
  decodeHeader,
  decodeMessage,
  decodeQuestion,
  EDNS_OPTION,
  type Edns,
  encodeMessage,
  HEADER_BYTES,
  type Header,
  MAX_MESSAGE_BYTES,
  type Message,
  OPCODE,
  PLAIN_UDP_BYTES,
  type Question,
  RCODE,
} from "../../wire/dns/index.ts";
import { type AnswerParts, type From, isLoopback, type Reply, reply } from "./asking.ts";
import type { Policy } from "./config.ts";
import { Errands } from "./errands.ts";
import { type Draft, packAsConsul, packWhatFits } from "./fit.ts";
import { Quick } from "./quick.ts";
import { Subjects } from "./subjects.ts";
import { clientSubnet, isSubnet, scoped } from "./subnet.ts";

/** Answers packets. */
export interface Responder {
  /** The packet to send back, from what is known here; undefined = silence (not a question, or too short to be one). Never throws. */
  respond(packet: Uint8Array, from: From): Uint8Array | undefined;
  /** The same, or "later" where others have to be asked: `later` is called with the packet then, once, unless everything stops before. */
  respond(packet: Uint8Array, from: From, later: (answer: Uint8Array) => void): Uint8Array | "later" | undefined;
  /** Ends everything under way. */
  stop(): void;
}

/** Above this many bytes UDP off the host breaks into fragments [DNS flag day 2020]. */
const SAFE_UDP_BYTES = 1232;
/** As much as fits into a datagram with room for headers (Consul's number); on loopback nothing is fragmented on the way. */
const MOST_UDP_BYTES = 65_467;
/** What is offered to askers on loopback for their next question. */
const OFFERED_ON_LOOPBACK_BYTES = 4096;
/** More answers than this at a time do not wait for others: each is held in memory. */
const MOST_WAITING = 4_000;
/** An answer that still needs something after so many rounds of asking is in a circle. */
const MOST_ROUNDS = 16;

/** See `Responder`. */
export function createResponder(parts: AnswerParts): Responder {
  return new Answering(parts);
}

class Answering implements Responder {
  readonly #parts: AnswerParts;
  readonly #policy: Policy;
  readonly #all: Subjects;
  readonly #counts: {
    readonly udp: { add(): void };
    readonly tcp: { add(): void };
    readonly dropped: { add(): void };
    readonly truncated: { add(): void };
    readonly failed: { add(): void };
    readonly noError: { add(): void };
    readonly rcodes: ReadonlyMap<number, { add(): void }>;
  };
  readonly #quick: Quick;
  /** How often it was stopped: what was begun before says nothing any more. */
  #stops = 0;
  #waiting = 0;
  #quietUntilMs = Number.NEGATIVE_INFINITY;

  constructor(parts: AnswerParts) {
    const { policy, metrics } = parts;
    this.#parts = parts;
    this.#policy = policy;
    this.#all = new Subjects(parts, (learned) => this.#quick.learn(learned));
    const queries = (transport: string): { add(): void } =>
      metrics.counter("dns_queries_total", "DNS packets taken in", { transport });
    const rcodes = new Map(
      Object.entries(RCODE).map(([rcode, code]) => [
        code,
        metrics.counter("dns_answers_total", "DNS answers by response code", { rcode }),
      ]),
    );
    this.#counts = {
      udp: queries("udp"),
      tcp: queries("tcp"),
      dropped: metrics.counter("dns_dropped_total", "DNS packets left unanswered: no questions at all"),
      truncated: metrics.counter("dns_truncated_total", "DNS answers sent with TC"),
      failed: metrics.counter("dns_failures_total", "DNS questions answered with SERVFAIL for an error of our own"),
      noError: rcodes.get(RCODE.NOERROR) as { add(): void },
      rcodes,
    };
    this.#quick = new Quick(policy, parts.lookup, parts.random, {
      limit: (from, offeredBytes) => this.#limit(from, offeredBytes),
      offer: (from, offeredBytes) => this.#offer(from, offeredBytes),
      recursion: (from) => this.#all.outside.recursesFor(from),
    });
  }

  stop(): void {
    this.#stops++;
    this.#all.limits.end(new TrilithError("stopped", "the DNS listener has stopped"));
    this.#parts.recursion?.recursors.stop();
  }

  respond(packet: Uint8Array, from: From): Uint8Array | undefined;
  respond(packet: Uint8Array, from: From, later: (answer: Uint8Array) => void): Uint8Array | "later" | undefined;
  respond(packet: Uint8Array, from: From, later?: (answer: Uint8Array) => void): Uint8Array | "later" | undefined {
    this.#counts[from.tcp ? "tcp" : "udp"].add();
    // Too short for a header, or a response: an answer to either could only be used to keep two servers busy with each other.
    if (packet.length < HEADER_BYTES || ((packet[2] as number) & 0x80) !== 0) {
      this.#counts.dropped.add();
      return undefined;
    }
    try {
      const quick = this.#quick.respond(asBuffer(packet), from);
      if (quick === undefined) {
        const errands = later === undefined || this.#waiting >= MOST_WAITING ? undefined : new Errands();
        const answer = this.#answer(packet, from, errands);
        if (answer !== undefined || errands === undefined || later === undefined) return answer;
        // A copy, since the packet's memory is the socket's.
        void this.#wait(Uint8Array.from(packet), from, errands, later);
        return "later";
      }
      this.#counts.noError.add();
      if (((quick[2] as number) & 2) !== 0) this.#counts.truncated.add();
      return quick;
    } catch (error) {
      return this.#fail(packet, from, error);
    }
  }

  /** Fetches what the answer needs and makes it again, until nothing is missing. Never rejects. */
  async #wait(packet: Uint8Array, from: From, errands: Errands, later: (answer: Uint8Array) => void): Promise<void> {
    const life = this.#stops;
    this.#waiting++;
    try {
      for (let round = 1; ; round++) {
        await errands.run();
        if (this.#stops !== life) return;
        const answer = this.#answer(packet, from, errands);
        if (answer !== undefined) return later(answer);
        if (round === MOST_ROUNDS) throw new TrilithError("unavailable", "names lead to names without an end");
      }
    } catch (error) {
      if (this.#stops === life) later(this.#fail(packet, from, error));
    } finally {
      this.#waiting--;
    }
  }

  #fail(packet: Uint8Array, from: From, error: unknown): Uint8Array {
    // Others that do not answer are no failure of ours, and have been told of where they were asked.
    if (!(error instanceof TrilithError) || (error.code !== "unavailable" && error.code !== "timeout")) {
      this.#counts.failed.add();
      this.#logFailure(error);
    }
    // Consul's names stay its own when it cannot say anything about them.
    if (this.#policy.compat)
      try {
        const message = decodeMessage(packet);
        const question = message.questions[0] as Question;
        if (this.#all.zone.read(question.name, question.type).where === "zone")
          return this.#finish(message, question, from, { ...reply(), rcode: RCODE.SERVFAIL }, true);
      } catch {
        // What failed may have been the packing.
      }
    return this.#refuse(packet, RCODE.SERVFAIL, true, from);
  }

  /** At most once a second: whoever asks decides how often this happens. */
  #logFailure(error: unknown): void {
    const { clock, log } = this.#parts;
    if (clock.monotonic() < this.#quietUntilMs) return;
    this.#quietUntilMs = clock.monotonic() + 1000;
    log.error("could not answer a DNS question", { error: messageOf(error) });
  }

  /** Undefined = something has to be fetched first. */
  #answer(packet: Uint8Array, from: From, errands: Errands | undefined): Uint8Array | undefined {
    const { compat } = this.#policy;
    const header = decodeHeader(packet);
    const questions = ((packet[4] as number) << 8) | (packet[5] as number);
    const answers = ((packet[6] as number) << 8) | (packet[7] as number);
    const authorities = ((packet[8] as number) << 8) | (packet[9] as number);
    const additionals = ((packet[10] as number) << 8) | (packet[11] as number);
    if (header.opcode !== OPCODE.QUERY && !(compat && header.opcode === OPCODE.NOTIFY))
      return this.#refuse(packet, RCODE.NOTIMP, false);
    // One SOA may come along with NOTIFY or IXFR, an OPT and a signature with anything.
    if (questions !== 1 || answers > 1 || authorities > 1 || additionals > 2)
      return this.#refuse(packet, RCODE.FORMERR, false);
    // Consul's library takes a bare header for a message without sections, and its multiplexer refuses what asks nothing.
    if (compat && packet.length === HEADER_BYTES) return this.#refuse(packet, RCODE.REFUSED, false);
    let message: Message;
    try {
      message = decodeMessage(packet);
    } catch {
      return this.#refuse(packet, RCODE.FORMERR, true);
    }
    const question = message.questions[0] as Question;
    const edns = message.edns;
    if (edns !== undefined) {
      const subnet = clientSubnet(edns);
      if (subnet !== undefined && !isSubnet(subnet)) return this.#refuse(packet, RCODE.FORMERR, true);
    }
    if (!compat && edns !== undefined && edns.version > 0)
      return this.#finish(message, question, from, { ...reply(), rcode: RCODE.BADVERS }, false);
    const made = this.#all.zone.ask(message, question, from, errands);
    if (errands?.waiting) return undefined;
    return this.#finish(message, question, from, made, made.foreign !== true && made.recursed !== true);
  }

  /** A header-only answer, with the question where it can be read. */
  #refuse(packet: Uint8Array, rcode: number, withQuestion: boolean, from?: From): Uint8Array {
    const header = decodeHeader(packet);
    const question = withQuestion ? decodeQuestion(packet) : undefined;
    // The header of what was not taken comes back as it is [miekg/dns].
    const kept = this.#policy.compat && (rcode === RCODE.FORMERR || rcode === RCODE.NOTIMP);
    this.#counts.rcodes.get(rcode)?.add();
    return encodeMessage({
      ...header,
      response: true,
      // A packet that could not be read is answered as a query, whatever it was [miekg/dns, as Consul sends it].
      opcode: rcode === RCODE.FORMERR ? OPCODE.QUERY : header.opcode,
      authoritative: false,
      truncated: kept && header.truncated,
      recursionAvailable:
        (kept && header.recursionAvailable) || (from !== undefined && this.#all.outside.recursesFor(from)),
      authenticData: kept && header.authenticData,
      rcode,
      questions: question === undefined ? [] : [question],
      answers: [],
      authorities: [],
      additionals: [],
    });
  }

  #finish(asked: Message, question: Question, from: From, made: Reply, authoritative: boolean): Uint8Array {
    const policy = this.#policy;
    const query = asked.opcode === OPCODE.QUERY;
    const header: Header = {
      id: asked.id,
      response: true,
      opcode: asked.opcode,
      authoritative,
      truncated: false,
      recursionDesired: query && asked.recursionDesired,
      recursionAvailable: this.#all.outside.recursesFor(from),
      authenticData: false,
      checkingDisabled: query && asked.checkingDisabled,
      rcode: made.rcode,
    };
    const draft: Draft = { ...made, header, question, edns: this.#edns(asked.edns, made, from) };
    const compress = !policy.disableCompression;
    const udpBytes = this.#limit(from, asked.edns?.udpBytes ?? 0);
    const packed =
      policy.compat && made.recursed !== true
        ? packAsConsul(draft, {
            tcp: from.tcp,
            udpBytes,
            plainAnswers: policy.plainAnswers,
            compress,
            truncate: policy.truncate,
          })
        : packWhatFits(
            draft,
            from.tcp ? MAX_MESSAGE_BYTES : udpBytes,
            compress,
            policy.truncate || made.recursed === true,
          );
    this.#counts.rcodes.get(made.rcode)?.add();
    if (((packed[2] as number) & 2) !== 0) this.#counts.truncated.add();
    return packed;
  }

  /** The OPT record of an answer; none where none was sent, or where Consul leaves it out. */
  #edns(asked: Edns | undefined, made: Reply, from: From): Edns | undefined {
    const { compat } = this.#policy;
    if (asked === undefined || (compat && made.foreign === true)) return undefined;
    const subnet = clientSubnet(asked);
    return {
      udpBytes: this.#offer(from, asked.udpBytes),
      version: 0,
      dnssecOk: !compat && asked.dnssecOk,
      options: subnet === undefined ? [] : [{ code: EDNS_OPTION.CLIENT_SUBNET, bytes: scoped(subnet, made) }],
    };
  }

  /** The largest UDP message for an asker who offered so many bytes by EDNS (0 = none). */
  #limit(from: From, offeredBytes: number): number {
    const most = this.#policy.compat || isLoopback(from.address) ? MOST_UDP_BYTES : SAFE_UDP_BYTES;
    return Math.min(Math.max(PLAIN_UDP_BYTES, offeredBytes), most);
  }

  /** The size that the OPT record of an answer offers; Consul repeats the asker's. */
  #offer(from: From, offeredBytes: number): number {
    if (this.#policy.compat) return offeredBytes;
    return isLoopback(from.address) ? OFFERED_ON_LOOPBACK_BYTES : SAFE_UDP_BYTES;
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
