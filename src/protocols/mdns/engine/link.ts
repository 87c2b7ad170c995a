// One interface with one address family: its socket, what is heard there, said there and asked there.
import type { Clock, Timer } from "../../../base/clock.ts";
import { messageOf } from "../../../base/error.ts";
import type { Log } from "../../../base/log.ts";
import type { Interface, Multicast, MulticastFrom, Net } from "../../../base/net.ts";
import { withinNetworks } from "../../../base/networks.ts";
import type { Random } from "../../../base/random.ts";
import {
  CLASS,
  type DnsRecord,
  decodeMessage,
  type Message,
  type Name,
  TOP_BIT_OF_CLASS,
  TYPE,
} from "../../../wire/dns/index.ts";
import type { Family, Gone, Place } from "../engine.ts";
import { Cache, type Entry, type HeardRecord } from "./cache.ts";
import type { Claim } from "./claim.ts";
import { GROUPS, HOPS, nameKey, PORT } from "./names.ts";
import { packProbes } from "./packets.ts";
import { Questions } from "./questions.ts";
import { makeRec, type Owned, type Rec } from "./records.ts";
import { Responder } from "./responder.ts";

/** What a place needs of the whole. */
export interface Hub {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly net: Pick<Net, "multicast">;
  /** True where nobody stays to hear what comes later. */
  readonly brief: boolean;
  /** Every claim there is. */
  claims(): Iterable<Claim>;
  /** True for an address of this host. */
  isOwn(address: string): boolean;
  /** Remembers a packet that is sent, and tells it again when it comes back. */
  sent(link: Link, bytes: Uint8Array): void;
  isEcho(link: Link, bytes: Uint8Array): boolean;
  heard(good: boolean): void;
  /** Another mDNS stack lives on this host. */
  neighbour(): void;
  added(link: Link, entry: Entry): void;
  removed(link: Link, entry: Entry, why: Gone): void;
}

const PROBE_WITHIN_MS = 250;
const RESCUE_DELAY_MS = [20, 120] as const;

export class Link implements Place {
  readonly interface: string;
  readonly family: Family;
  readonly clock: Clock;
  readonly cache: Cache;
  readonly responder: Responder;
  readonly questions: Questions;
  /** True once goodbye was said for everything. */
  isLeaving = false;
  /** Every address of the interface, of both families. */
  addresses: readonly Interface[] = [];
  readonly #hub: Hub;
  #socket: Multicast | undefined;
  #direct = false;
  #onLink: (address: string) => boolean = () => false;
  #probes = new Map<string, { name: Name; records: readonly Owned[] }>();
  #announcements = new Map<string, Owned>();
  #soon: Timer | undefined;
  #probeAtMs = Number.NEGATIVE_INFINITY;
  /** Records of ours that another program of this host says as well. */
  readonly #saidHere = new Set<string>();

  constructor(hub: Hub, name: string, family: Family) {
    this.#hub = hub;
    this.interface = name;
    this.family = family;
    this.clock = hub.clock;
    this.cache = new Cache(hub.clock, hub.random, {
      added: (entry) => hub.added(this, entry),
      removed: (entry, why) => {
        this.questions.lost(entry);
        hub.removed(this, entry, why);
      },
      refresh: (entry) => this.questions.refresh(entry),
    });
    this.responder = new Responder(hub.clock, hub.random, (packet, to) => this.#send(packet, to));
    this.questions = new Questions(
      hub.clock,
      hub.random,
      this.cache,
      (packet) => this.#send(packet),
      () => this.#direct && hub.brief,
    );
  }

  get isOpen(): boolean {
    return this.#socket !== undefined;
  }

  get direct(): boolean {
    return this.#direct;
  }

  /** Which addresses the interface has now. */
  setAddresses(addresses: readonly Interface[]): void {
    this.addresses = addresses;
    const networks = addresses
      .filter(({ family, cidr }) => family === this.family && cidr.includes("/"))
      .map(({ cidr }) => cidr.replace(/%[^/]*/, ""));
    this.#onLink = withinNetworks(this.family === 6 ? [...networks, "fe80::/10"] : networks);
  }

  /** Opens the socket, or opens it again. @throws as `Net.multicast` */
  async open(direct: boolean): Promise<void> {
    const own = this.addresses.filter(({ family }) => family === this.family);
    // IPv6 is spoken from the link-local address; what is sent to the others arrives, too, but need not be heard.
    const address = (own.find((a) => this.family === 4 || /^fe[89ab]/i.test(a.address)) ?? own[0])?.address ?? "";
    const on = { interface: this.interface, address, group: GROUPS[this.family], port: PORT, hops: HOPS, direct };
    // The old socket is in use until the new one is there; both hear the same, so only the one in use is listened to.
    let socket: Multicast | undefined;
    socket = await this.#hub.net.multicast(on, (bytes, from) => {
      if (socket !== undefined && socket === this.#socket) this.#receive(bytes, from);
    });
    const before = this.#socket;
    this.#socket = socket;
    await before?.close();
    this.#direct = direct;
  }

  /** Nothing is left; resolves when what was said is sent. */
  async close(): Promise<void> {
    this.#soon?.cancel();
    this.#soon = undefined;
    this.responder.close();
    this.questions.close();
    this.cache.clear("interface");
    const socket = this.#socket;
    this.#socket = undefined;
    await socket?.close();
  }

  /** How long to wait before a first probe: up to 250 ms by chance, and together with others that are about to begin. */
  probeDelayMs(): number {
    const now = this.clock.monotonic();
    if (this.#probeAtMs <= now) this.#probeAtMs = now + this.#hub.random.fraction() * PROBE_WITHIN_MS;
    return this.#probeAtMs - now;
  }

  /** Probes for names; those of one moment go in one packet. */
  probe(names: readonly { name: Name; records: readonly Owned[] }[]): void {
    for (const item of names) this.#probes.set(nameKey(item.name), item);
    this.#later();
  }

  /** Announces records; those of one moment go in one packet. */
  announce(records: readonly Owned[]): void {
    for (const record of records) this.#announcements.set(record.id, record);
    this.#later();
  }

  /** Says goodbye for records that are no longer said. */
  goodbye(records: readonly Owned[]): void {
    for (const record of records) this.#announcements.delete(record.id);
    if (records.length > 0 && !this.isLeaving) this.responder.outbox.goodbye(records);
  }

  /** True where a record goes on being said by others, so that a goodbye would be wrong: by another program of this host, or (the list of types) wherever the type is there still. */
  isSaidByOthers(record: Owned): boolean {
    if (this.#saidHere.has(record.id)) return true;
    if (record.data.kind !== "PTR" || record.unique || record.name[1] !== "_dns-sd") return false;
    for (const entry of this.cache.at(nameKey(record.data.target), TYPE.PTR))
      if (!entry.own && entry.leaving === undefined) return true;
    return false;
  }

  #later(): void {
    this.#soon ??= this.clock.after(0, () => {
      this.#soon = undefined;
      const probes = [...this.#probes.values()];
      const announcements = [...this.#announcements.values()];
      this.#probes = new Map();
      this.#announcements = new Map();
      for (const packet of packProbes(probes)) this.#send(packet);
      this.responder.outbox.announce(announcements.filter(({ id }) => this.responder.get(id) !== undefined));
    });
  }

  #send(packet: Uint8Array, to?: { address: string; port: number }): void {
    if (this.#socket === undefined) return;
    this.#hub.sent(this, packet);
    this.#socket.send(packet, to);
  }

  #receive(bytes: Uint8Array, from: MulticastFrom): void {
    const address = from.address.replace(/%.*$/, "");
    const local = this.#hub.isOwn(address);
    if (local && from.port === PORT && this.#hub.isEcho(this, bytes)) return;
    // What comes from elsewhere cannot be a host of this link [RFC 6762 §11].
    if (!this.#onLink(address)) return;
    let message: Message;
    try {
      message = decodeMessage(bytes);
    } catch {
      this.#hub.heard(false);
      return;
    }
    this.#hub.heard(true);
    if (message.opcode !== 0 || message.rcode !== 0) return;
    if (local && from.port === PORT) this.#hub.neighbour();
    try {
      if (!message.response) this.#query(message, from, local);
      else if (from.port === PORT) this.#response(message, local);
    } catch (error) {
      this.#hub.log.error(`a packet from ${from.address} could not be dealt with: ${messageOf(error)}`);
    }
  }

  #response(message: Message, local: boolean): void {
    const records: HeardRecord[] = [];
    for (const record of [...message.answers, ...message.additionals]) {
      const rec = recOf(record);
      if (rec !== undefined) records.push({ rec, ttlS: record.ttlS, flush: (record.class & TOP_BIT_OF_CLASS) !== 0 });
    }
    const rescued: { now: Owned[]; soon: Owned[] } = { now: [], soon: [] };
    for (const { rec, ttlS } of records) {
      const ours = this.responder.get(rec.id);
      if (ours === undefined) continue;
      if (local && ttlS > 0) this.#saidHere.add(rec.id);
      else if (local) this.#saidHere.delete(rec.id);
      this.responder.outbox.saidByAnother(rec.id, ttlS);
      // Said goodbye for, or with too short a life: caches must hear the truth before they believe it [RFC 6762 §6.6].
      if (ttlS < ours.ttlS / 2) (ours.unique || ttlS > 0 ? rescued.now : rescued.soon).push(ours);
    }
    this.responder.outbox.announce(rescued.now);
    const [least, most] = RESCUE_DELAY_MS;
    if (rescued.soon.length > 0)
      this.responder.outbox.announce(rescued.soon, least + this.#hub.random.fraction() * (most - least));
    this.#contradictions(records, local, false);
    this.cache.heard(records, local);
  }

  #query(message: Message, from: MulticastFrom, local: boolean): void {
    const known = new Map<string, number>();
    for (const record of message.answers) {
      const rec = recOf(record);
      if (rec !== undefined) known.set(rec.id, record.ttlS);
    }
    if (message.authorities.length > 0) this.#probed(message, local);
    if (from.port === PORT && !from.direct) {
      this.questions.heard(message, known);
      if (!message.truncated)
        for (const question of message.questions)
          if (question.class === CLASS.IN)
            for (const entry of this.cache.at(nameKey(question.name), question.type))
              if (!known.has(entry.rec.id)) this.cache.asked(entry);
    }
    this.responder.answer(message, known, { address: from.address, port: from.port, direct: from.direct });
  }

  /** Another host probes: a simultaneous one is decided; a neighbour on this host may have the address's reverse name. */
  #probed(message: Message, local: boolean): void {
    const byName = new Map<string, Rec[]>();
    for (const record of message.authorities) {
      const rec = recOf(record);
      if (rec === undefined) continue;
      const named = byName.get(rec.nameKey);
      if (named === undefined) byName.set(rec.nameKey, [rec]);
      else named.push(rec);
    }
    for (const claim of this.#hub.claims())
      for (const [key, theirs] of byName) claim.at(this)?.rival(key, theirs, local);
    if (local)
      this.#contradictions(
        [...byName.values()]
          .flat()
          .filter(({ name }) => name.at(-1) === "arpa")
          .map((rec) => ({ rec, ttlS: 1, flush: true })),
        local,
        true,
      );
  }

  #contradictions(records: readonly HeardRecord[], local: boolean, inProbe: boolean): void {
    for (const claim of this.#hub.claims()) {
      const standing = claim.at(this);
      if (standing === undefined) continue;
      const contested = new Set<string>();
      for (const { rec, ttlS } of records)
        if (standing.contradicts(rec, ttlS, local, inProbe)) contested.add(rec.nameKey);
      for (const name of contested) standing.conflict(name);
    }
  }
}

/** A record that mDNS is about: of the class IN. */
function recOf(record: DnsRecord): Rec | undefined {
  return (record.class & ~TOP_BIT_OF_CLASS) === CLASS.IN ? makeRec(record.name, record.data) : undefined;
}
