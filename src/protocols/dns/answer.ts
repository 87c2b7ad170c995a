// Questions to answers: one packet in, one packet (or silence) out, from the directory as it stands and from whoever else has to be asked; no sockets here.
import type { Clock } from "../../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Metrics } from "../../base/metrics.ts";
import { type Random, shuffle } from "../../base/random.ts";
import type { Directory, View } from "../../contracts/directory.ts";
import type { Self } from "../../contracts/ground.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import type { Prepared, PreparedAnswer } from "../../contracts/prepared.ts";
import type { Resident } from "../../model/instance.ts";
import type { Labels, Node } from "../../model/node.ts";
import type { Answer, Endpoint, Query } from "../../model/query.ts";
import { keyOf } from "../../model/record.ts";
import { txtOf } from "../../model/txt.ts";
import {
  bytesOfHex,
  CLASS,
  type DnsRecord,
  decodeHeader,
  decodeMessage,
  decodeQuestion,
  EDNS_OPTION,
  type Edns,
  encodeMessage,
  endsWith,
  HEADER_BYTES,
  type Header,
  ipBytes,
  ipText,
  labelFromText,
  lowerLabel,
  MAX_MESSAGE_BYTES,
  MAX_NAME_BYTES,
  type Message,
  type Name,
  nameBytes,
  OPCODE,
  PLAIN_UDP_BYTES,
  type Question,
  RCODE,
  TYPE,
} from "../../wire/dns/index.ts";
import { parseGoDuration } from "../../wire/duration.ts";
import {
  type Browsed,
  comparedLabel,
  createSdIndex,
  instanceLabel,
  readBrowsed,
  type SdIndex,
  type SdType,
  sameType,
  typesOf,
} from "./browse.ts";
import { type Policy, serviceTtlMs } from "./config.ts";
import { Errands } from "./errands.ts";
import { createExistence, type Existence } from "./existence.ts";
import { type Draft, packAsConsul, packWhatFits } from "./fit.ts";
import { Limits } from "./limits.ts";
import {
  type Asked,
  type AskedService,
  consulLocality,
  datacenterOf,
  type InZone,
  readName,
  reversed,
  serviceOf,
  type Zones,
} from "./names.ts";
import { type Access, isOnOneLink } from "./networks.ts";
import { Quick } from "./quick.ts";
import {
  addressRecord,
  hostName,
  labelRecords,
  nodeName,
  record,
  type Spot,
  serviceName,
  spotOf,
  srvKey,
  wantsAddress,
} from "./records.ts";
import type { Recursors } from "./recursors.ts";

/** What answers are made from. */
export interface AnswerParts {
  readonly policy: Policy;
  readonly directory: Pick<Directory, "view">;
  readonly lookup: Pick<Lookup, "resolveNow" | "resolve" | "nodeElsewhere">;
  readonly prepared: Pick<Prepared, "list" | "elsewhere" | "execute" | "executeNow">;
  /** For names that are not ours, and who may ask for them; absent = nobody resolves them. */
  readonly recursion?: { readonly recursors: Recursors; readonly access: Access };
  readonly clock: Pick<Clock, "now" | "monotonic" | "after">;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly self: Pick<Self, "node" | "datacenter" | "datacenters" | "advertiseAddress">;
}

/** Where a packet came from. */
export interface From {
  /** The asker's IP address. */
  readonly address: string;
  readonly tcp: boolean;
}

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
/** How many names of ours one answer follows behind a CNAME: Consul's number, and ours. */
const CONSUL_MOST_HOPS = 3;
const MOST_HOPS = 8;
/** Consul adds at most so many records of a followed CNAME without EDNS. */
const CONSUL_MOST_FOLLOWED = 5;
const MOST_NAME_SERVERS = 3;
/** A name server is a host, and its node's name is one label of its name [RFC 952]. */
const HOST_NAME = /^[A-Za-z0-9-]+$/;
/** More answers than this at a time do not wait for others: each is held in memory. */
const MOST_WAITING = 4_000;
/** An answer that still needs something after so many rounds of asking is in a circle. */
const MOST_ROUNDS = 16;
/** What nobody knew is not asked of others again for so long: as long as askers keep our "no". */
const UNKNOWN_MS = 1_000;
const MOST_UNKNOWN = 4_096;
const LOCALHOST_TTL_S = 86_400;
/** The service that stands for the servers themselves (Consul's name). */
const SERVERS = "consul";

/** One question on its way to an answer. */
interface Asking {
  readonly question: Question;
  /** The name that answers belong to: the question's, or that of a CNAME being followed. */
  readonly owner: Name;
  readonly type: number;
  readonly edns: Edns | undefined;
  readonly from: From;
  readonly view: View;
  /** Names that may still be followed. */
  readonly hops: number;
  /** Who fetches what only others know; absent where nobody waits for it. */
  readonly errands: Errands | undefined;
}

/** The sections of an answer. */
interface Reply {
  readonly rcode: number;
  readonly answers: DnsRecord[];
  readonly authorities: DnsRecord[];
  readonly additionals: DnsRecord[];
  /** Set where the zone has nothing to say about the name. */
  readonly foreign?: true;
  /** Set where a recursor gave the answer. */
  readonly recursed?: true;
  /** Set where the answer was chosen for the asker's network. */
  readonly chosen?: true;
}

const reply = (answers: DnsRecord[] = [], additionals: DnsRecord[] = [], authorities: DnsRecord[] = []): Reply => ({
  rcode: RCODE.NOERROR,
  answers,
  authorities,
  additionals,
});

const refused = (): Reply => ({ ...reply(), rcode: RCODE.REFUSED, foreign: true });

/** See `Responder`. */
export function createResponder(parts: AnswerParts): Responder {
  return new Answering(parts);
}

class Answering implements Responder {
  readonly #parts: AnswerParts;
  readonly #policy: Policy;
  readonly #zones: Zones;
  readonly #existence: (view: View) => Existence;
  readonly #sdIndex: (view: View) => SdIndex;
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
  readonly #limits: Limits;
  /** Until when others need not be asked again for what none of them knew. */
  readonly #unknown = new Map<string, number>();
  /** How often it was stopped: what was begun before says nothing any more. */
  #stops = 0;
  #waiting = 0;
  #quietUntilMs = Number.NEGATIVE_INFINITY;

  constructor(parts: AnswerParts) {
    const { policy, metrics } = parts;
    this.#parts = parts;
    this.#policy = policy;
    this.#zones = { primary: policy.domain, alternative: policy.altDomain };
    this.#existence = createExistence();
    this.#limits = new Limits(parts.clock);
    this.#sdIndex = createSdIndex();
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
      recursion: (from) => this.#recursesFor(from),
    });
  }

  stop(): void {
    this.#stops++;
    this.#limits.end(new TrilithError("stopped", "the DNS listener has stopped"));
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
        if (this.#read(question.name, question.type).where === "zone")
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
    const made = this.#ask(message, question, from, errands);
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
      recursionAvailable: (kept && header.recursionAvailable) || (from !== undefined && this.#recursesFor(from)),
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
      recursionAvailable: this.#recursesFor(from),
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

  // What the zone says ------------------------------------------------------------------------------------------------

  #ask(message: Message, question: Question, from: From, errands: Errands | undefined): Reply {
    const { compat } = this.#policy;
    const { edns } = message;
    const asking: Asking = {
      question,
      owner: question.name,
      type: question.type,
      edns,
      from,
      view: this.#parts.directory.view(),
      hops: compat ? CONSUL_MOST_HOPS : MOST_HOPS,
      errands,
    };
    const asked = this.#read(question.name, question.type);
    if (!compat && question.class !== CLASS.IN && question.class !== CLASS.ANY) return refused();
    // Consul's multiplexer takes a DS record for the parent's business.
    const parents = compat && question.type === TYPE.DS && this.#recursesFor(from);
    if (asked.where === "outside" || parents) return this.#recurse(asking, message);
    if (asked.where === "reverse") return this.#reverse(asking, asked.labels, message);
    if (compat) {
      // Consul answers these for every name of the zone, existing or not.
      if (asking.type === TYPE.SOA) {
        const { servers, glue } = this.#nameServers(asking, asked);
        return reply([this.#soa(asking, this.#soaZone(question.name))], glue, servers);
      }
      if (asking.type === TYPE.NS) {
        const { servers, glue } = this.#nameServers(asking, asked);
        return reply(servers, glue);
      }
      if (asking.type === TYPE.AXFR) return { ...reply(), rcode: RCODE.NOTIMP };
    } else if (asking.type === TYPE.AXFR || asking.type === TYPE.IXFR) return { ...reply(), rcode: RCODE.NOTIMP };
    return this.#inZone(asking, asked);
  }

  /** What a name asks for; Consul lets the word "service" be left out for SRV only. */
  #read(name: Name, type: number): Asked {
    return readName(name, this.#zones, !this.#policy.compat || type === TYPE.SRV);
  }

  // Names that are not ours ----------------------------------------------------------------------------------------------

  #recursesFor({ address }: From): boolean {
    return this.#parts.recursion?.access.allows(address) === true;
  }

  /** True where a name means something to others: not what is ours, and not what is some host's or network's own matter. */
  #mayForward(name: Name): boolean {
    const { neverForward, forwardSingleLabels } = this.#policy;
    if (name.length === 1 && !forwardSingleLabels) return false;
    if (readName(name, this.#zones).where === "zone") return false;
    return !neverForward.some((domain) => endsWith(name, domain));
  }

  /** What recursors say, for those who may ask for it. */
  #recurse(asking: Asking, message: Message): Reply {
    const { compat } = this.#policy;
    const { recursion } = this.#parts;
    const { question, type, from, errands } = asking;
    const wanted = compat || message.recursionDesired;
    if (recursion === undefined || errands === undefined || !wanted || !recursion.access.allows(from.address))
      return refused();
    if (type === TYPE.AXFR || type === TYPE.IXFR) return { ...refused(), rcode: RCODE.NOTIMP };
    const { name } = question;
    if (!compat && name.length > 0 && lowerLabel(name[name.length - 1] as string) === "localhost") {
      const found = ["127.0.0.1", "::1"].flatMap((text) => ipBytes(text) ?? []).filter((ip) => wantsAddress(type, ip));
      return { ...reply(found.map((ip) => addressRecord(question.name, LOCALHOST_TTL_S, ip))), recursed: true };
    }
    if (!this.#mayForward(name)) return { ...reply(), rcode: RCODE.NXDOMAIN, recursed: true };
    const { checkingDisabled, edns } = message;
    const flags = { checkingDisabled, dnssecOk: edns?.dnssecOk === true };
    const fetched = errands.get("recurse", () => recursion.recursors.ask(question, flags))?.value;
    if (fetched === undefined) return refused();
    const { rcode, answers, authorities, additionals } = fetched;
    return {
      rcode,
      answers: [...answers],
      authorities: [...authorities],
      additionals: [...additionals],
      recursed: true,
    };
  }

  /** What recursors say about a name that an address of ours consists of. */
  #outside(asking: Asking, target: Name): readonly DnsRecord[] {
    const { compat } = this.#policy;
    const { recursion } = this.#parts;
    const { errands, type } = asking;
    if (recursion === undefined || errands === undefined || !this.#mayForward(target)) return [];
    const types = compat ? [TYPE.A] : type === TYPE.A || type === TYPE.AAAA ? [type] : [TYPE.A, TYPE.AAAA];
    return types.flatMap((one) => {
      const question = { name: target, type: one, class: CLASS.IN };
      const flags = { checkingDisabled: false, dnssecOk: false };
      // Without an answer the alias is told all the same: the asker may know whom to ask.
      const fetched = errands.get(`follow ${target.map(lowerLabel).join(".")} ${one}`, () =>
        recursion.recursors.ask(question, flags).then(
          ({ answers }) => answers,
          () => [],
        ),
      );
      return fetched?.value ?? [];
    });
  }

  #inZone(asking: Asking, asked: InZone): Reply {
    switch (asked.kind) {
      case "apex":
        return this.#apex(asking, asked);
      case "service":
        return this.#service(asking, asked);
      case "node":
        return this.#node(asking, asked);
      case "addr":
        return this.#address(asking, asked);
      case "virtual":
        // Virtual addresses belong to the mesh, of which there is none: Consul then says nothing rather than no.
        if (this.#policy.compat && asked.parts.length > 0 && consulLocality(asked.suffix) !== undefined) return reply();
        return this.#no(asking, RCODE.NXDOMAIN);
      case "query":
        return { ...this.#prepared(asking, asked), chosen: true };
      case "connect":
      case "ingress":
        return this.#no(asking, RCODE.NXDOMAIN);
      case "none":
        return this.#loose(asking, asked);
    }
  }

  /** Nothing to give: NXDOMAIN where the name does not exist, NOERROR where only the type does not; both with the SOA [RFC 2308]. */
  #no(asking: Asking, rcode: number, zone?: Name): Reply {
    const soa = this.#soa(asking, zone ?? this.#soaZone(asking.question.name));
    return { rcode, answers: [], additionals: [], authorities: [soa] };
  }

  /** Ours: NODATA where the name exists, else NXDOMAIN. Consul's: NXDOMAIN. */
  #empty(asking: Asking, exists: () => boolean): Reply {
    return this.#no(asking, !this.#policy.compat && exists() ? RCODE.NOERROR : RCODE.NXDOMAIN);
  }

  /** The domain whose SOA belongs to a name: Consul takes the alternative one only for names below it that spell it as configured. */
  #soaZone(name: Name): Name {
    const { primary, alternative } = this.#zones;
    if (alternative === undefined || !endsWith(name, alternative)) return primary;
    if (this.#policy.compat) {
      const spelled = alternative.every((label, i) => label === name[name.length - alternative.length + i]);
      return spelled && name.length > alternative.length ? alternative : primary;
    }
    return endsWith(name, primary) && primary.length > alternative.length ? primary : alternative;
  }

  #soa(asking: Asking, zone: Name): DnsRecord {
    const { compat, minTtlS, soa, domain } = this.#policy;
    const host = zone[zone.length - 1] === "arpa" ? domain : zone;
    return record(zone, minTtlS, {
      kind: "SOA",
      primary: ["ns", ...host],
      mailbox: ["hostmaster", ...host],
      // Ours changes when something changed; Consul's is the time.
      serial: compat ? Math.floor(this.#parts.clock.now() / 1000) >>> 0 : asking.view.index >>> 0,
      refreshS: soa.refreshS,
      retryS: soa.retryS,
      expireS: soa.expireS,
      minTtlS,
    });
  }

  /** Up to three servers of the zone with their addresses: the nodes of the service "consul", else this node. */
  #nameServers(asking: Asking, asked: InZone): { servers: DnsRecord[]; glue: DnsRecord[] } {
    const { compat, nodeTtlS } = this.#policy;
    const { self } = this.#parts;
    const servers: DnsRecord[] = [];
    const glue: DnsRecord[] = [];
    const nodes = new Map<string, string>();
    for (const { resident } of this.#shuffled(
      this.#resolve({ service: SERVERS }, { ...asking, errands: undefined }).endpoints,
    ))
      nodes.set(resident.node.name, resident.node.address);
    if (nodes.size === 0 && !compat)
      nodes.set(self.node, asking.view.get("node", keyOf.node(self.node))?.address ?? self.advertiseAddress);
    for (const [node, address] of nodes) {
      if (servers.length === MOST_NAME_SERVERS) break;
      const name = nodeName(node.toLowerCase(), self.datacenter, asked.spelled.map(lowerLabel));
      if (name === undefined || !HOST_NAME.test(node)) continue;
      servers.push(record(asked.spelled, nodeTtlS, { kind: "NS", target: name }));
      const ip = ipBytes(address);
      if (ip !== undefined) glue.push(addressRecord(name, nodeTtlS, ip));
      // A name server must not be an alias [RFC 2181 §10.3]; Consul's may.
      const target = ip === undefined && compat ? hostName(address) : undefined;
      if (target !== undefined)
        glue.push(record(name, nodeTtlS, { kind: "CNAME", target }), ...this.#follow(asking, target));
    }
    return { servers, glue };
  }

  #apex(asking: Asking, asked: InZone): Reply {
    if (this.#policy.compat) return this.#no(asking, RCODE.NXDOMAIN);
    const answers: DnsRecord[] = [];
    const additionals: DnsRecord[] = [];
    if (asking.type === TYPE.SOA || asking.type === TYPE.ANY) answers.push(this.#soa(asking, asked.zone));
    if (asking.type === TYPE.NS || asking.type === TYPE.ANY) {
      const { servers, glue } = this.#nameServers(asking, asked);
      answers.push(...servers);
      additionals.push(...glue);
    }
    return answers.length > 0 ? reply(answers, additionals) : this.#no(asking, RCODE.NOERROR);
  }

  /** Names of the zone that no word explains: a datacenter's, and the server's own. */
  #loose(asking: Asking, asked: InZone): Reply {
    if (this.#policy.compat) return this.#no(asking, RCODE.NXDOMAIN);
    if (asked.parts.length === 1 && asked.parts[0] === "ns") {
      const ip = ipBytes(this.#parts.self.advertiseAddress);
      return ip !== undefined && wantsAddress(asking.type, ip)
        ? reply([addressRecord(asking.owner, this.#policy.nodeTtlS, ip)])
        : this.#no(asking, RCODE.NOERROR);
    }
    return this.#empty(asking, () => this.#isDatacenterName(asked.parts));
  }

  /** `dc1`, `dc` and `dc1.dc`: nothing is there, but names lie below. */
  #isDatacenterName(labels: readonly string[]): boolean {
    const [first = "", second] = labels;
    if (labels.length === 1) return first === "dc" || this.#isDatacenter(first);
    return labels.length === 2 && second === "dc" && this.#isDatacenter(first);
  }

  /** True for our own datacenter and those that can be asked. */
  #isDatacenter(datacenter: string | undefined): boolean {
    return this.#isOwnDatacenter(datacenter) || this.#parts.self.datacenters?.includes(datacenter as string) === true;
  }

  /** The datacenter that a name says: undefined = none; false = what stands there means nothing, or a peer, of which there are none. */
  #datacenterOf({ suffix }: InZone): string | undefined | false {
    if (!this.#policy.compat) return datacenterOf(suffix);
    const locality = consulLocality(suffix);
    return locality === undefined || locality.peer !== undefined ? false : locality.datacenter;
  }

  #isOwnDatacenter(datacenter: string | undefined): boolean {
    return datacenter === undefined || datacenter === this.#parts.self.datacenter.toLowerCase();
  }

  // Services ----------------------------------------------------------------------------------------------------------

  #service(asking: Asking, asked: InZone): Reply {
    const { compat } = this.#policy;
    const datacenter = this.#datacenterOf(asked);
    if (datacenter === false || (asked.short && compat && asking.type !== TYPE.SRV))
      return this.#no(asking, RCODE.NXDOMAIN);
    if (asked.short && !compat && asking.type !== TYPE.SRV) {
      const browsed = this.#isOwnDatacenter(datacenter) ? readBrowsed(asked.parts) : undefined;
      if (browsed !== undefined) return this.#browse(asking, asked, browsed);
    }
    const wanted = serviceOf(asked.parts);
    if (wanted === undefined) return this.#empty(asking, () => this.#isDatacenter(datacenter));
    // Three labels are no name of RFC 2782: an instance of DNS-SD is asked for its port.
    if (asked.short && !compat && asked.parts.length > 2 && this.#isOwnDatacenter(datacenter)) {
      const browsed = readBrowsed(asked.parts);
      if (browsed !== undefined) return this.#browse(asking, asked, browsed);
    }
    const { endpoints, known } = this.#endpoints(asking, wanted, datacenter);
    if (endpoints.length === 0)
      return this.#empty(
        asking,
        () =>
          known ||
          (this.#isOwnDatacenter(datacenter) &&
            (this.#serviceExists(asking.view, wanted, asked.parts) || this.#isBrowsable(asking.view, asked))),
      );
    const ttlS = Math.floor(serviceTtlMs(this.#policy.serviceTtlMs, wanted.service) / 1000);
    const where = datacenter ?? this.#parts.self.datacenter;
    if (!asked.short || asking.type === TYPE.SRV) this.#learn(asking, wanted, datacenter, ttlS, asked.zone);
    // `_name._tag.D` exists for SRV alone.
    if (asked.short && asking.type !== TYPE.SRV) return this.#no(asking, RCODE.NOERROR);
    return this.#told(asking, asked, endpoints, ttlS, where);
  }

  /** Endpoints as records of the type asked for, in their order. */
  #told(asking: Asking, asked: InZone, endpoints: readonly Endpoint[], ttlS: number, datacenter: string): Reply {
    const spots: Spot[] = [];
    for (const endpoint of endpoints) {
      const spot = spotOf(endpoint, asking.question.name, datacenter, asked.spelled);
      if (spot !== undefined) spots.push(spot);
    }
    const made = reply();
    if (asking.type === TYPE.SRV) this.#addSrv(asking, spots, ttlS, datacenter, asked.spelled, made);
    else {
      this.#addAddresses(asking, spots, ttlS, made);
      if (!this.#policy.compat && asking.type === TYPE.ANY && made.answers[0]?.data.kind !== "CNAME")
        this.#addSrv(asking, spots, ttlS, datacenter, asked.spelled, made);
    }
    return made.answers.length > 0 ? made : this.#no(asking, RCODE.NOERROR);
  }

  /** Names whose meaning does not hang on what is registered are answered the short way from now on. */
  #learn(
    asking: Asking,
    { service, tag, rfc2782 }: AskedService,
    datacenter: string | undefined,
    ttlS: number,
    zone: Name,
  ): void {
    const { compat, onlyPassing } = this.#policy;
    if (!this.#isOwnDatacenter(datacenter) || (!compat && !rfc2782 && isSeveralWords(tag))) return;
    const { name, type } = asking.question;
    const query: Query = {
      service,
      ...(tag === "" ? {} : { tags: [tag] }),
      ...(datacenter === undefined ? {} : { datacenter }),
      ...(onlyPassing ? { health: "passing" as const } : {}),
    };
    this.#quick.learn({ name, type, query, ttlS, datacenter: datacenter ?? this.#parts.self.datacenter, zone });
  }

  /** The endpoints behind a name, in the order of the answer; `known` = the service is, though perhaps not here. */
  #endpoints(
    asking: Asking,
    { service, tag, rfc2782 }: AskedService,
    datacenter: string | undefined,
  ): { readonly endpoints: Endpoint[]; readonly known: boolean } {
    const query: Query = { service, ...(datacenter === undefined ? {} : { datacenter }) };
    const elsewhere = !this.#isOwnDatacenter(datacenter);
    const told = ({ endpoints, known }: Found): { endpoints: Endpoint[]; known: boolean } => ({
      endpoints: this.#shuffled(endpoints),
      known: known && (elsewhere || tag === ""),
    });
    if (tag === "") return told(this.#resolve(query, asking));
    const literal = this.#resolve({ ...query, tags: [tag] }, asking);
    if (literal.endpoints.length > 0 || rfc2782 || this.#policy.compat) return told(literal);
    const words = wordsOf(tag, asking.view.residents(service));
    if (words === undefined) return told(literal);
    const all = this.#resolve({ ...query, tags: words.tags }, asking);
    return told({ ...all, endpoints: all.endpoints.filter(({ resident }) => hasLabels(resident, words.labels)) });
  }

  /** From what is known here; for what is not, others are asked where somebody waits for it. */
  #resolve(query: Query, { from, errands }: Asking): Found {
    const { compat, onlyPassing } = this.#policy;
    const { lookup } = this.#parts;
    const full: Query = {
      ...query,
      ...(onlyPassing ? { health: "passing" as const } : {}),
      asker: from.address,
      order: compat ? "stable" : "random",
    };
    const now = lookup.resolveNow(full);
    if (now.known || errands === undefined) return now;
    const key = `lookup ${JSON.stringify(full)}`;
    if ((this.#unknown.get(key) ?? Number.NEGATIVE_INFINITY) > this.#parts.clock.monotonic()) return now;
    return errands.get(key, () => this.#resolveElsewhere(full, key))?.value ?? now;
  }

  /** @throws TrilithError `timeout`, `unavailable` where nobody said that there is no such service */
  #resolveElsewhere(query: Query, key: string): Promise<Found> {
    return this.#within(query.service, async (limit) => {
      const found = await this.#parts.lookup.resolve(query, limit);
      if (found.known) return found;
      limit.throwIfAborted();
      if (!found.fresh && query.datacenter !== undefined)
        throw new TrilithError("unavailable", `nobody could be asked about "${query.service}"`);
      if (this.#unknown.size >= MOST_UNKNOWN) this.#unknown.clear();
      this.#unknown.set(key, this.#parts.clock.monotonic() + UNKNOWN_MS);
      return found;
    });
  }

  /** Asks others about something for as long as is allowed, or until everything stops. */
  #within<T>(what: string, work: (limit: AbortSignal) => Promise<T>): Promise<T> {
    const { upstreamTimeoutMs } = this.#policy;
    const late = (): Error => new TrilithError("timeout", `"${what}" was not found out within ${upstreamTimeoutMs} ms`);
    return this.#limits.within(upstreamTimeoutMs, late, work);
  }

  /** Consul shuffles evenly, whatever the weights; ours comes shuffled from the lookup, by weight. */
  #shuffled(endpoints: readonly Endpoint[]): Endpoint[] {
    const list = endpoints.slice();
    return this.#policy.compat ? shuffle(list, this.#parts.random) : list;
  }

  /** True where a name of a service exists although it has no endpoint to give: known, with that tag; or above such a name. */
  #serviceExists(view: View, { service, tag, rfc2782 }: AskedService, parts: readonly string[]): boolean {
    const residents = view.residents(service);
    if (residents.length > 0) {
      if (tag === "") return true;
      const words = rfc2782 ? undefined : wordsOf(tag, residents);
      for (const resident of residents) {
        const { instance } = resident;
        if (hasTag(instance.tags, tag)) return true;
        if (rfc2782) continue;
        if (words?.tags.every((one) => hasTag(instance.tags, one)) && hasLabels(resident, words.labels)) return true;
        // `b.web` exists where an instance has the tag "a.b".
        if (instance.tags.some((one) => one.toLowerCase().endsWith(`.${tag}`))) return true;
      }
    }
    const first = parts[0] as string;
    if (parts.length !== 1 || !first.startsWith("_")) return false;
    return this.#existence(view).tag(first.slice(1));
  }

  /** A and AAAA records, each once; where there is none at all, the CNAME of an instance whose address is a name. */
  #addAddresses(asking: Asking, spots: readonly Spot[], ttlS: number, made: Reply): void {
    const { compat, aRecordLimit } = this.#policy;
    const most = Math.min(aRecordLimit === 0 ? Number.POSITIVE_INFINITY : aRecordLimit, this.#configured(asking));
    // Consul answers a question for TXT as one for addresses.
    const type = compat && asking.type === TYPE.TXT ? TYPE.ANY : asking.type;
    const seen = new Set<string>();
    let alias: Spot | undefined;
    let addressed = false;
    for (const spot of spots) {
      if (spot.ip === undefined) {
        alias ??= spot;
        continue;
      }
      addressed = true;
      if (!wantsAddress(type, spot.ip)) continue;
      const key = ipText(spot.ip);
      if (seen.has(key)) continue;
      seen.add(key);
      made.answers.push(addressRecord(asking.owner, ttlS, spot.ip));
      if (seen.size >= most) break;
    }
    if (made.answers.length > 0 || alias?.alias === undefined) return;
    // Where others have addresses, ours does not call the name an alias: it is one for no type or for all.
    if (addressed && !compat) return;
    const target = alias.alias;
    made.answers.push(record(asking.owner, ttlS, { kind: "CNAME", target }));
    for (const followed of this.#followed(asking, target, ttlS)) made.answers.push(followed);
  }

  /** How many answers the configuration lets into a plain UDP message; Consul's limit is applied to the whole answer later. */
  #configured({ edns, from }: Asking): number {
    const { compat, plainAnswers } = this.#policy;
    return compat || from.tcp || edns !== undefined ? Number.POSITIVE_INFINITY : plainAnswers;
  }

  #addSrv(asking: Asking, spots: readonly Spot[], ttlS: number, datacenter: string, domain: Name, made: Reply): void {
    const most = made.answers.length + this.#configured(asking);
    const seen = new Set<string>();
    const added = new Set<string>();
    const add = (extra: DnsRecord): void => {
      const key = `${extra.name.join(".")} ${JSON.stringify(extra.data)}`;
      if (added.has(key) && !this.#policy.compat) return;
      added.add(key);
      made.additionals.push(extra);
    };
    for (const spot of spots) {
      const { endpoint, ip, target } = spot;
      if (made.answers.length >= most) break;
      const { node } = endpoint.resident;
      const key = srvKey(spot, this.#policy.compat);
      if (seen.has(key)) continue;
      seen.add(key);
      made.answers.push(
        record(asking.owner, ttlS, { kind: "SRV", priority: 1, weight: endpoint.weight, port: endpoint.port, target }),
      );
      if (ip !== undefined) add(addressRecord(target, ttlS, ip));
      else for (const followed of this.#followed(asking, target, ttlS)) add(followed);
      if (this.#policy.enableAdditionalNodeMetaTxt && this.#policy.nodeMetaTxt) {
        const name = nodeName(node.name, datacenter, domain);
        if (name !== undefined) for (const text of labelRecords(name, node, ttlS, this.#policy.compat)) add(text);
      }
    }
  }

  /** What a name that an address consists of leads to, as far as it is ours; with the TTL of the answer that leads there. */
  #followed(asking: Asking, target: Name, ttlS: number): DnsRecord[] {
    const { compat } = this.#policy;
    const records: DnsRecord[] = [];
    for (const found of this.#follow(asking, target)) {
      const { kind } = found.data;
      if (kind !== "CNAME" && kind !== "A" && kind !== "AAAA") continue;
      const asksAll = compat || asking.type === TYPE.SRV || asking.type === TYPE.ANY;
      if (!asksAll && kind !== "CNAME" && TYPE[kind] !== asking.type) continue;
      records.push({ ...found, ttlS });
      if (compat && asking.edns === undefined && records.length === CONSUL_MOST_FOLLOWED) break;
    }
    return records;
  }

  /** All records at a name of ours, through further names. */
  #follow(asking: Asking, target: Name): readonly DnsRecord[] {
    const { primary, alternative } = this.#zones;
    const ours = (zone: Name): boolean => target.length > zone.length && endsWith(target, zone);
    if (asking.hops < 1) return [];
    if (!ours(primary) && (alternative === undefined || !ours(alternative))) return this.#outside(asking, target);
    const asked = this.#read(target, TYPE.ANY);
    if (asked.where !== "zone") return [];
    const question = { ...asking.question, name: target, type: TYPE.ANY };
    return this.#inZone({ ...asking, question, owner: target, type: TYPE.ANY, hops: asking.hops - 1 }, asked).answers;
  }

  // Prepared queries ----------------------------------------------------------------------------------------------------

  /** `name.query.D`, `_name._tcp.query.D`: what the query of that name or ID gives. */
  #prepared(asking: Asking, asked: InZone): Reply {
    const { prepared, self } = this.#parts;
    const datacenter = datacenterOf(asked.suffix);
    // Consul knows no ".dc" here.
    if (datacenter === false || (this.#policy.compat && asked.suffix.length > 1))
      return this.#no(asking, RCODE.NXDOMAIN);
    const here = this.#isOwnDatacenter(datacenter);
    const [first = ""] = asked.parts;
    if (first === "") return this.#empty(asking, () => here);
    if (!here && !prepared.elsewhere(datacenter)) return this.#no(asking, RCODE.NXDOMAIN);
    // `_name._tcp`, the name with dots or without: the last label says nothing.
    const rfc2782 = asked.parts.length >= 2 && first.startsWith("_") && asked.parts.at(-1)?.startsWith("_");
    const name = rfc2782 ? asked.parts.slice(0, -1).join(".").slice(1) : asked.parts.join(".");
    let answer: PreparedAnswer | undefined;
    try {
      answer = this.#executed(asking, name, datacenter);
    } catch (error) {
      // A template that comes to nothing, or one that was asked for by its ID.
      if (codeOf(error) !== "invalid") throw error;
      return { ...reply(), rcode: RCODE.SERVFAIL };
    }
    if (answer === undefined)
      return this.#empty(asking, () =>
        prepared.list(asking.view).some((query) => query.name.toLowerCase().endsWith(`.${name}`)),
      );
    const { endpoints, service, ttl } = answer;
    if (endpoints.length === 0) return this.#empty(asking, () => true);
    const ttlMs = ttl === "" ? serviceTtlMs(this.#policy.serviceTtlMs, service.toLowerCase()) : parseGoDuration(ttl);
    const where = answer.datacenter === "" ? self.datacenter : answer.datacenter;
    return this.#told(asking, asked, endpoints, Math.floor(ttlMs / 1000), where.toLowerCase());
  }

  /** From what is known here; who else has to be asked is asked where somebody waits for it. */
  #executed(asking: Asking, name: string, datacenter: string | undefined): PreparedAnswer | undefined {
    const { prepared } = this.#parts;
    const { edns, errands, from } = asking;
    const subnet = edns === undefined ? undefined : clientSubnet(edns);
    const options = {
      asker: (subnet === undefined ? undefined : subnetAddress(subnet)) ?? from.address,
      ...(datacenter === undefined ? {} : { datacenter }),
    };
    const bring = (): Promise<PreparedAnswer | undefined> =>
      this.#within(name, (limit) => prepared.execute(name, options, limit));
    const key = `query ${name} ${datacenter ?? ""}`;
    if (prepared.elsewhere(datacenter)) return errands?.get(key, bring)?.value;
    const now = prepared.executeNow(name, options);
    return now?.more && errands !== undefined ? (errands.get(key, bring)?.value ?? now) : now;
  }

  // Browsing [RFC 6763] ------------------------------------------------------------------------------------------------

  #browse(asking: Asking, asked: InZone, browsed: Browsed): Reply {
    const { view, owner } = asking;
    const pointers = asking.type === TYPE.PTR || asking.type === TYPE.ANY;
    const made = reply();
    switch (browsed.what) {
      case "nothing":
        break;
      case "domains":
        if (pointers) made.answers.push(record(owner, 0, { kind: "PTR", target: asked.spelled }));
        break;
      case "types":
        if (!pointers) break;
        for (const { type } of this.#sdIndex(view).types.values())
          made.answers.push(record(owner, 0, { kind: "PTR", target: this.#typeName(type, asked) }));
        break;
      case "instances":
      case "instance": {
        const { of } = browsed;
        const services = this.#sdIndex(view).types.get(`${of.type} ${of.transport}`)?.services;
        if (services === undefined) return this.#unbrowsed(asking, asked);
        const tag = browsed.what === "instances" ? (browsed.tag ?? "") : "";
        const meant = (resident: Resident): boolean =>
          typesOf(resident.instance).some((type) => sameType(type, of)) &&
          (tag === "" || hasTag(resident.instance.tags, tag)) &&
          (browsed.what === "instances" || comparedLabel(instanceLabel(resident)) === browsed.label);
        const all = [...services];
        if (!all.some((service) => view.residents(service).some(meant))) return this.#unbrowsed(asking, asked);
        // `_sub` alone lies above names and is none itself.
        if (browsed.what === "instances" && browsed.tag === "") break;
        for (const service of all) {
          const ttlS = Math.floor(serviceTtlMs(this.#policy.serviceTtlMs, service) / 1000);
          for (const endpoint of this.#resolve({ service }, asking).endpoints) {
            if (!meant(endpoint.resident)) continue;
            const name = [instanceLabel(endpoint.resident), ...this.#typeName(of, asked)];
            if (browsed.what === "instance") this.#describe(asking, asked, endpoint, ttlS, made);
            else if (pointers && nameBytes(name) <= MAX_NAME_BYTES) {
              made.answers.push(record(owner, ttlS, { kind: "PTR", target: name }));
              const told = reply();
              this.#describe({ ...asking, owner: name, type: TYPE.ANY }, asked, endpoint, ttlS, told);
              made.additionals.push(...told.answers, ...told.additionals);
            }
          }
        }
      }
    }
    return made.answers.length > 0 ? made : this.#no(asking, RCODE.NOERROR);
  }

  /** Nothing to browse; the name may exist all the same, for SRV [RFC 2782]. */
  #unbrowsed(asking: Asking, asked: InZone): Reply {
    const wanted = asked.parts.length === 2 ? serviceOf(asked.parts) : undefined;
    return this.#empty(asking, () => wanted !== undefined && this.#serviceExists(asking.view, wanted, asked.parts));
  }

  /** True where a name of two labels exists because it can be browsed, or names to browse lie below. */
  #isBrowsable(view: View, { parts, short }: InZone): boolean {
    const browsed = short ? readBrowsed(parts) : undefined;
    if (browsed?.what !== "instances") return browsed !== undefined;
    return this.#sdIndex(view).types.has(`${browsed.of.type} ${browsed.of.transport}`);
  }

  /** Port and labels of one instance at the name asked for; its address goes along. */
  #describe(asking: Asking, asked: InZone, endpoint: Endpoint, ttlS: number, made: Reply): void {
    const { type, owner } = asking;
    const { datacenter } = this.#parts.self;
    const spot = spotOf(endpoint, owner, datacenter, asked.spelled);
    if (spot !== undefined && (type === TYPE.SRV || type === TYPE.ANY))
      this.#addSrv(asking, [spot], ttlS, datacenter, asked.spelled, made);
    if (type === TYPE.TXT || type === TYPE.ANY) {
      const { labels, tags } = endpoint.resident.instance;
      const strings = txtOf(labels, tags).map((text) => Uint8Array.from(Buffer.from(text, "utf8")));
      made.answers.push(record(owner, ttlS, { kind: "TXT", strings }));
    }
  }

  #typeName({ type, transport }: SdType, { spelled }: InZone): Name {
    return [labelFromText(`_${type}`), `_${transport}`, ...spelled];
  }

  // Nodes and addresses -------------------------------------------------------------------------------------------------

  #node(asking: Asking, asked: InZone): Reply {
    const { compat, nodeTtlS, nodeMetaTxt, enableAdditionalNodeMetaTxt } = this.#policy;
    const { type, owner } = asking;
    const datacenter = this.#datacenterOf(asked);
    const isAddress = type === TYPE.A || type === TYPE.AAAA || type === TYPE.ANY;
    // Consul says nothing to other types, whether or not the node is there, and of whatever datacenter or peer.
    const untold = compat && !isAddress && type !== TYPE.TXT;
    if (untold && asked.parts.length > 0 && consulLocality(asked.suffix) !== undefined) return reply();
    if (datacenter === false) return this.#no(asking, RCODE.NXDOMAIN);
    if (asked.parts.length === 0) return this.#empty(asking, () => this.#isDatacenter(datacenter));
    const text = asked.parts.join(".");
    const node = this.#nodeCalled(asking, text, datacenter);
    if (node === undefined)
      return this.#empty(
        asking,
        () => this.#isOwnDatacenter(datacenter) && this.#existence(asking.view).belowNode(text),
      );
    const made = reply();
    if (isAddress || (type === TYPE.CNAME && !compat)) {
      const ip = ipBytes(node.address);
      const target = ip === undefined ? hostName(node.address) : undefined;
      if (ip !== undefined && wantsAddress(type, ip)) made.answers.push(addressRecord(owner, nodeTtlS, ip));
      if (target !== undefined) {
        made.answers.push(record(owner, nodeTtlS, { kind: "CNAME", target }));
        made.answers.push(...(compat ? this.#follow(asking, target) : this.#followed(asking, target, nodeTtlS)));
      }
    }
    const asksText = type === TYPE.TXT || type === TYPE.ANY;
    const alias = made.answers[0]?.data.kind === "CNAME";
    if (nodeMetaTxt && (asksText || enableAdditionalNodeMetaTxt) && (compat || !alias))
      (asksText ? made.answers : made.additionals).push(...labelRecords(owner, node, nodeTtlS, compat));
    if (compat || made.answers.length > 0) return made;
    return this.#no(asking, RCODE.NOERROR);
  }

  #nodeCalled({ view, errands }: Asking, name: string, datacenter: string | undefined): Node | undefined {
    if (datacenter === undefined || this.#isOwnDatacenter(datacenter)) return view.get("node", keyOf.node(name));
    const { lookup } = this.#parts;
    if (lookup.nodeElsewhere === undefined) return undefined;
    return errands?.get(`node ${name} ${datacenter}`, () =>
      this.#within(name, async (limit) => lookup.nodeElsewhere?.(datacenter, name, limit)),
    )?.value;
  }

  #address(asking: Asking, asked: InZone): Reply {
    const { compat, nodeTtlS } = this.#policy;
    const [text] = asked.parts;
    const datacenter = datacenterOf(asked.suffix);
    const here = datacenter !== false && this.#isDatacenter(datacenter);
    if (text === undefined) return this.#empty(asking, () => here);
    const bytes = asked.parts.length > 1 ? undefined : bytesOfHex(text);
    if (bytes === undefined || (bytes.length !== 4 && bytes.length !== 16)) return this.#no(asking, RCODE.NXDOMAIN);
    // Consul does not look at the datacenter here.
    if (!compat && !here) return this.#no(asking, RCODE.NXDOMAIN);
    const found = addressRecord(asking.owner, nodeTtlS, bytes);
    if (wantsAddress(asking.type, bytes)) return reply([found]);
    return compat ? reply([], [found]) : this.#no(asking, RCODE.NOERROR);
  }

  /** The name of the node at an address, else of the first service there. */
  #reverse(asking: Asking, labels: readonly string[], message: Message): Reply {
    const { compat, domain, nodeTtlS } = this.#policy;
    const { self } = this.#parts;
    const tree = labels[labels.length - 1];
    if (!compat && tree !== "in-addr" && tree !== "ip6") return this.#recurse(asking, message);
    const zone = compat ? undefined : [tree as string, "arpa"];
    const bytes = reversed(labels);
    const at = bytes === undefined ? undefined : asking.view.atAddress(ipText(bytes));
    const node = at?.nodes[0];
    const service = at?.residents[0]?.instance.name;
    let target: Name | undefined;
    let ttlS = 0;
    if (node !== undefined) {
      target = nodeName(node.name, node.datacenter === "" ? self.datacenter : node.datacenter, domain);
      if (!compat) ttlS = nodeTtlS;
    } else if (service !== undefined) {
      target = serviceName(service, self.datacenter, domain);
      if (!compat) ttlS = Math.floor(serviceTtlMs(this.#policy.serviceTtlMs, service.toLowerCase()) / 1000);
    }
    if (target === undefined) {
      const exists = !compat && this.#existence(asking.view).belowReverse(labels);
      if (!exists && this.#recursesFor(asking.from) && (compat || bytes === undefined || !isOnOneLink(bytes)))
        return this.#recurse(asking, message);
      const no = this.#no(asking, exists ? RCODE.NOERROR : RCODE.NXDOMAIN, zone);
      // Consul adds one because it was asked for and another because there is nothing.
      return compat && asking.type === TYPE.SOA ? { ...no, authorities: [...no.authorities, ...no.authorities] } : no;
    }
    const found = record(asking.owner, ttlS, { kind: "PTR", target });
    // Consul answers whatever type is asked for.
    if (compat) return reply([found], [], asking.type === TYPE.SOA ? [this.#soa(asking, domain)] : []);
    return asking.type === TYPE.PTR || asking.type === TYPE.ANY
      ? reply([found])
      : this.#no(asking, RCODE.NOERROR, zone);
  }
}

/** What an answer of the lookup is to a name. */
type Found = Pick<Answer, "endpoints" | "known">;

/** Several tags and labels that a name asks for at once; a label is written `key--value`, which every stub resolver lets through. */
interface Words {
  readonly tags: readonly string[];
  readonly labels: readonly (readonly [key: string, value: string])[];
}

const isSeveralWords = (tag: string): boolean => tag.includes(".") || tag.includes("--");

/**
 * The words of what stands before a service's name; undefined where it is one tag: it has no dots and no `--`, or some instance carries it as it is, be it
 * well or not. A word that some instance carries as a tag is a tag, even with `--` in it.
 */
function wordsOf(tag: string, residents: readonly Resident[]): Words | undefined {
  if (!isSeveralWords(tag) || residents.some(({ instance }) => hasTag(instance.tags, tag))) return undefined;
  const tags: string[] = [];
  const labels: (readonly [string, string])[] = [];
  for (const word of tag.split(".")) {
    const at = word.indexOf("--");
    if (at <= 0 || residents.some(({ instance }) => hasTag(instance.tags, word))) tags.push(word);
    else labels.push([word.slice(0, at), word.slice(at + 2)]);
  }
  return { tags, labels };
}

/** True where the instance, else its node, has all the labels; keys and values are compared ignoring case, as names are. */
function hasLabels({ instance, node }: Resident, wanted: Words["labels"]): boolean {
  return wanted.every(([key, value]) => {
    const own = labelOf(instance.labels, key) ?? labelOf(node.labels, key);
    return own?.toLowerCase() === value;
  });
}

function labelOf(labels: Labels, key: string): string | undefined {
  for (const [own, value] of Object.entries(labels)) if (own.toLowerCase() === key) return value;
  return undefined;
}

function hasTag(tags: readonly string[], tag: string): boolean {
  return tags.some((one) => one.toLowerCase() === tag);
}

function clientSubnet(edns: Edns): Uint8Array | undefined {
  return edns.options.find(({ code }) => code === EDNS_OPTION.CLIENT_SUBNET)?.bytes;
}

/** True for a well-formed client-subnet option [RFC 7871 §6]. */
function isSubnet(bytes: Uint8Array): boolean {
  if (bytes.length < 4) return false;
  const family = ((bytes[0] as number) << 8) | (bytes[1] as number);
  const bits = bytes[2] as number;
  if (family === 0) return bits === 0 && bytes.length === 4;
  const most = family === 1 ? 32 : family === 2 ? 128 : 0;
  return bits <= most && bytes.length === 4 + Math.ceil(bits / 8);
}

/** The option as it is sent back: how many bits of the network the answer was made for, 0 = for all, as every "no" is [RFC 7871 §7.2.1, §7.4]. */
function scoped(subnet: Uint8Array, { chosen, rcode }: Reply): Uint8Array {
  const bits = chosen === true && rcode === RCODE.NOERROR ? (subnet[2] as number) : 0;
  return Uint8Array.from(subnet, (byte, i) => (i === 3 ? bits : byte));
}

/** The address that a well-formed client-subnet option begins with; undefined where it names none. */
function subnetAddress(subnet: Uint8Array): string | undefined {
  if (subnet[2] === 0) return undefined;
  const bytes = new Uint8Array(subnet[1] === 1 ? 4 : 16);
  bytes.set(subnet.subarray(4));
  return ipText(bytes);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** 127.0.0.0/8 and ::1, also written as IPv4 within IPv6. */
function isLoopback(address: string): boolean {
  return address.startsWith("127.") || address === "::1" || address.startsWith("::ffff:127.");
}
