// Bytes to DNS messages: every packet either yields a message or an error `invalid`, whatever its bytes.
import { TrilithError } from "../../base/error.ts";
import { ipText } from "./address.ts";
import { FLAG, HEADER_BYTES, MAX_NAME_BYTES, TYPE } from "./constants.ts";
import type { DnsRecord, Edns, EdnsOption, Header, Message, Question, RecordData } from "./message.ts";
import { type Name, nameToWire } from "./name.ts";

/** More pointers in one name than any writer makes: without a limit, short packets could cost long walks. */
const MAX_POINTERS = 64;

function invalid(text: string, at: number): TrilithError {
  return new TrilithError("invalid", `DNS message, byte ${at}: ${text}`);
}

/** A cursor over one message. */
class Reader {
  readonly bytes: Uint8Array;
  at: number;

  constructor(bytes: Uint8Array, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  u8(): number {
    const value = this.bytes[this.at];
    if (value === undefined) throw invalid("the message ends within a field", this.at);
    this.at++;
    return value;
  }

  u16(): number {
    return (this.u8() << 8) | this.u8();
  }

  u32(): number {
    return this.u16() * 0x10000 + this.u16();
  }

  take(count: number): Uint8Array {
    const end = this.at + count;
    if (end > this.bytes.length) throw invalid(`${count} bytes are announced, fewer are there`, this.at);
    const part = this.bytes.slice(this.at, end);
    this.at = end;
    return part;
  }

  /** A name, compressed or not [RFC 1035 §4.1.4]. Pointers must lead backwards, so that loops cannot be. */
  name(): Name {
    const labels: string[] = [];
    const { bytes } = this;
    let at = this.at;
    let after = -1;
    let lowest = at;
    let total = 1;
    let pointers = 0;
    for (;;) {
      const length = bytes[at];
      if (length === undefined) throw invalid("the message ends within a name", at);
      if (length === 0) break;
      if (length >= 0xc0) {
        const low = bytes[at + 1];
        if (low === undefined) throw invalid("the message ends within a compression pointer", at);
        const target = ((length & 0x3f) << 8) | low;
        if (after < 0) after = at + 2;
        if (target >= lowest) throw invalid("a compression pointer does not lead backwards", at);
        if (++pointers > MAX_POINTERS) throw invalid("too many compression pointers in one name", at);
        lowest = target;
        at = target;
        continue;
      }
      if (length > 63) throw invalid("a label's length has a reserved form", at);
      total += 1 + length;
      if (total > MAX_NAME_BYTES) throw invalid("a name is longer than 255 bytes", at);
      const end = at + 1 + length;
      if (end > bytes.length) throw invalid("the message ends within a label", at);
      let label = "";
      for (let i = at + 1; i < end; i++) label += String.fromCharCode(bytes[i] as number);
      labels.push(label);
      at = end;
    }
    this.at = after < 0 ? at + 1 : after;
    return labels;
  }
}

/** Reads the header of at least 12 bytes. @throws TrilithError `invalid` */
export function decodeHeader(bytes: Uint8Array): Header {
  if (bytes.length < HEADER_BYTES) throw invalid("a message has a header of 12 bytes", bytes.length);
  const flags = ((bytes[2] as number) << 8) | (bytes[3] as number);
  return {
    id: ((bytes[0] as number) << 8) | (bytes[1] as number),
    response: (flags & FLAG.QR) !== 0,
    opcode: (flags >> 11) & 15,
    authoritative: (flags & FLAG.AA) !== 0,
    truncated: (flags & FLAG.TC) !== 0,
    recursionDesired: (flags & FLAG.RD) !== 0,
    recursionAvailable: (flags & FLAG.RA) !== 0,
    authenticData: (flags & FLAG.AD) !== 0,
    checkingDisabled: (flags & FLAG.CD) !== 0,
    rcode: flags & 15,
  };
}

/**
 * Reads a whole message. Bytes behind the last record are ignored; a second OPT record, or one not at the root, is an error [RFC 6891 §6.1.1].
 * @throws TrilithError `invalid` that names the byte
 */
export function decodeMessage(bytes: Uint8Array): Message {
  const header = decodeHeader(bytes);
  const reader = new Reader(bytes, 4);
  const counts = [reader.u16(), reader.u16(), reader.u16(), reader.u16()] as const;
  const questions: Question[] = [];
  for (let i = 0; i < counts[0]; i++) questions.push({ name: reader.name(), type: reader.u16(), class: reader.u16() });
  const answers: DnsRecord[] = [];
  const authorities: DnsRecord[] = [];
  const additionals: DnsRecord[] = [];
  for (let i = 0; i < counts[1]; i++) answers.push(readRecord(reader));
  for (let i = 0; i < counts[2]; i++) authorities.push(readRecord(reader));
  let opt: { edns: Edns; extendedRcode: number } | undefined;
  for (let i = 0; i < counts[3]; i++) {
    const at = reader.at;
    const record = readRecord(reader);
    if (record.data.kind !== "other" || record.data.type !== TYPE.OPT) {
      additionals.push(record);
      continue;
    }
    if (opt !== undefined) throw invalid("a second OPT record", at);
    if (record.name.length > 0) throw invalid("an OPT record that is not at the root", at);
    opt = readOpt(record, record.data.bytes, at);
  }
  const rest = { questions, answers, authorities, additionals };
  return opt === undefined
    ? { ...header, ...rest }
    : { ...header, rcode: (opt.extendedRcode << 4) | header.rcode, ...rest, edns: opt.edns };
}

function readRecord(reader: Reader): DnsRecord {
  const name = reader.name();
  const type = reader.u16();
  const klass = reader.u16();
  const ttlS = reader.u32();
  const length = reader.u16();
  const end = reader.at + length;
  if (end > reader.bytes.length) throw invalid("a record's data runs past the message", reader.at);
  const data = readData(reader, type, length, end);
  if (reader.at !== end) throw invalid(`the data of a record of type ${type} does not have the length it says`, end);
  return { name, class: klass, ttlS, data };
}

function readData(reader: Reader, type: number, length: number, end: number): RecordData {
  switch (type) {
    case TYPE.A:
      if (length !== 4) throw invalid(`an A record of ${length} bytes`, reader.at);
      return { kind: "A", address: ipText(reader.take(4)) };
    case TYPE.AAAA:
      if (length !== 16) throw invalid(`an AAAA record of ${length} bytes`, reader.at);
      return { kind: "AAAA", address: ipText(reader.take(16)) };
    case TYPE.NS:
      return { kind: "NS", target: reader.name() };
    case TYPE.CNAME:
      return { kind: "CNAME", target: reader.name() };
    case TYPE.PTR:
      return { kind: "PTR", target: reader.name() };
    case TYPE.MX:
      return { kind: "MX", preference: reader.u16(), exchange: reader.name() };
    case TYPE.SOA:
      return {
        kind: "SOA",
        primary: reader.name(),
        mailbox: reader.name(),
        serial: reader.u32(),
        refreshS: reader.u32(),
        retryS: reader.u32(),
        expireS: reader.u32(),
        minTtlS: reader.u32(),
      };
    case TYPE.TXT: {
      const strings: Uint8Array[] = [];
      while (reader.at < end) strings.push(reader.take(reader.u8()));
      return { kind: "TXT", strings };
    }
    case TYPE.SRV:
      return {
        kind: "SRV",
        priority: reader.u16(),
        weight: reader.u16(),
        port: reader.u16(),
        target: reader.name(),
      };
    case TYPE.NSEC: {
      const next = reader.name();
      const types: number[] = [];
      let lastWindow = -1;
      while (reader.at < end) {
        const window = reader.u8();
        const bits = reader.take(reader.u8());
        if (window <= lastWindow || bits.length === 0 || bits.length > 32 || bits[bits.length - 1] === 0)
          throw invalid("an NSEC record's type bitmap is not well-formed", reader.at);
        lastWindow = window;
        for (let i = 0; i < bits.length * 8; i++)
          if (((bits[i >> 3] as number) & (0x80 >> (i & 7))) !== 0) types.push(window * 256 + i);
      }
      return { kind: "NSEC", next, types };
    }
    default:
      return { kind: "other", type, bytes: spelledOut(reader, type, length, end) };
  }
}

/**
 * Types whose data may hold compressed names although they have no form of their own here [RFC 3597 §4]: bytes before the first name, character strings after
 * those, names; the rest is opaque. Their names are spelled out, since what they point to is in another place in another message.
 */
const NAMES_WITHIN: ReadonlyMap<number, readonly [bytes: number, strings: number, names: number]> = new Map([
  [3, [0, 0, 1]], // MD
  [4, [0, 0, 1]], // MF
  [7, [0, 0, 1]], // MB
  [8, [0, 0, 1]], // MG
  [9, [0, 0, 1]], // MR
  [14, [0, 0, 2]], // MINFO
  [17, [0, 0, 2]], // RP
  [18, [2, 0, 1]], // AFSDB
  [21, [2, 0, 1]], // RT
  [24, [18, 0, 1]], // SIG
  [26, [2, 0, 2]], // PX
  [30, [0, 0, 1]], // NXT
  [35, [4, 3, 1]], // NAPTR
  [36, [2, 0, 1]], // KX
  [39, [0, 0, 1]], // DNAME
]);

function spelledOut(reader: Reader, type: number, length: number, end: number): Uint8Array {
  const layout = NAMES_WITHIN.get(type);
  if (layout === undefined) return reader.take(length);
  const [bytes, strings, names] = layout;
  const parts: Uint8Array[] = [reader.take(bytes)];
  for (let i = 0; i < strings; i++) {
    const count = reader.u8();
    parts.push(Uint8Array.of(count), reader.take(count));
  }
  for (let i = 0; i < names; i++) parts.push(nameToWire(reader.name()));
  if (reader.at > end) throw invalid(`the data of a record of type ${type} does not have the length it says`, end);
  parts.push(reader.take(end - reader.at));
  return Uint8Array.from(Buffer.concat(parts));
}

function readOpt(record: DnsRecord, bytes: Uint8Array, at: number): { edns: Edns; extendedRcode: number } {
  const reader = new Reader(bytes);
  const options: EdnsOption[] = [];
  while (reader.at < bytes.length) {
    if (bytes.length - reader.at < 4) throw invalid("an EDNS option is cut off", at);
    const code = reader.u16();
    options.push({ code, bytes: reader.take(reader.u16()) });
  }
  return {
    extendedRcode: Math.floor(record.ttlS / 0x1000000),
    edns: {
      udpBytes: record.class,
      version: Math.floor(record.ttlS / 0x10000) & 255,
      dnssecOk: (record.ttlS & 0x8000) !== 0,
      options,
    },
  };
}

/** The first question of a message whose rest may be unreadable; undefined where the question itself is. */
export function decodeQuestion(bytes: Uint8Array): Question | undefined {
  if (bytes.length <= HEADER_BYTES) return undefined;
  try {
    const reader = new Reader(bytes, HEADER_BYTES);
    return { name: reader.name(), type: reader.u16(), class: reader.u16() };
  } catch {
    return undefined;
  }
}
