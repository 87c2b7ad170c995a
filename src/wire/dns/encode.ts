// DNS messages to bytes: names compressed, record by record, with a limit that no message outgrows.
import { TrilithError } from "../../base/error.ts";
import { ipv4Bytes, ipv6Bytes } from "./address.ts";
import { FLAG, HEADER_BYTES, MAX_MESSAGE_BYTES, TYPE } from "./constants.ts";
import type { DnsRecord, Edns, Header, Message, Question, RecordData } from "./message.ts";
import { checkName, type Name, nameBytes } from "./name.ts";

export interface EncodeOptions {
  /** Nothing larger is made; 65 535 unless told. */
  readonly maxBytes?: number;
  /** False writes every name in full; default true. */
  readonly compress?: boolean;
  /** True compresses SRV targets too, as mDNS may [RFC 6762 §18.14]; plain DNS must not [RFC 2782]. */
  readonly compressSrv?: boolean;
}

export type Section = "answers" | "authorities" | "additionals";

const COUNT_AT: Record<Section, number> = { answers: 6, authorities: 8, additionals: 10 };
/** Pointers reach the first 16 KiB. */
const POINTER_LIMIT = 0x4000;

/**
 * A message under construction. Questions come first, then the records section by section; what does not fit is left out whole
 * and nothing of it stays. The OPT record's room is set aside from the start, so that it is always in the finished message.
 */
export class MessageBuilder {
  readonly #maxBytes: number;
  readonly #compress: boolean;
  readonly #compressSrv: boolean;
  #bytes: Uint8Array;
  #at = HEADER_BYTES;
  #ednsBytes = 0;
  #edns: Edns | undefined;
  readonly #counts: Record<Section, number> = { answers: 0, authorities: 0, additionals: 0 };
  #questions = 0;
  /** Names written so far, each suffix in wire form, to where they stand. */
  #offsets = new Map<string, number>();
  /** Suffixes that the record being written has added, to be forgotten if it does not fit. */
  #added: string[] = [];

  constructor(options: EncodeOptions = {}) {
    this.#maxBytes = Math.max(HEADER_BYTES, Math.min(options.maxBytes ?? MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES));
    this.#compress = options.compress ?? true;
    this.#compressSrv = options.compressSrv ?? false;
    this.#bytes = new Uint8Array(Math.min(512, this.#maxBytes));
  }

  /** Bytes so far, the OPT record's included. */
  get size(): number {
    return this.#at + this.#ednsBytes;
  }

  /** How many records a section holds. */
  count(section: Section): number {
    return this.#counts[section];
  }

  /** Sets the OPT record aside; false where it does not fit. */
  edns(edns: Edns): boolean {
    let bytes = 11;
    for (const option of edns.options) bytes += 4 + option.bytes.length;
    if (this.#at + bytes > this.#maxBytes) return false;
    this.#edns = edns;
    this.#ednsBytes = bytes;
    return true;
  }

  /** Adds a question; false where it does not fit. @throws TrilithError `invalid` for names and numbers that no message can carry */
  question(question: Question): boolean {
    const written = this.#try(() => {
      this.#name(question.name, true);
      this.#u16(question.type, "type");
      this.#u16(question.class, "class");
    });
    if (written) this.#questions++;
    return written;
  }

  /** Adds a record to a section; false where it does not fit. @throws TrilithError `invalid` for what no message can carry */
  record(section: Section, record: DnsRecord): boolean {
    const written = this.#try(() => {
      this.#name(record.name, true);
      this.#u16(typeOfData(record.data), "type");
      this.#u16(record.class, "class");
      this.#u32(record.ttlS, "ttlS");
      const lengthAt = this.#at;
      this.#u16(0, "length");
      this.#data(record.data);
      const length = this.#at - lengthAt - 2;
      if (length > 0xffff)
        throw new TrilithError("invalid", `a record's data takes ${length} bytes; 65535 are allowed`);
      this.#bytes[lengthAt] = length >> 8;
      this.#bytes[lengthAt + 1] = length & 255;
    });
    if (written) this.#counts[section]++;
    return written;
  }

  /** The finished message. @throws TrilithError `invalid` for an rcode above 15 without EDNS */
  finish(header: Header): Uint8Array {
    if (header.rcode > 15 && this.#edns === undefined)
      throw new TrilithError("invalid", `the response code ${header.rcode} needs EDNS`);
    const edns = this.#edns;
    if (edns !== undefined) {
      this.#room(this.#ednsBytes, true);
      this.#bytes[this.#at++] = 0;
      this.#u16(TYPE.OPT, "type", true);
      this.#u16(edns.udpBytes, "udpBytes", true);
      this.#bytes[this.#at++] = header.rcode >> 4;
      this.#bytes[this.#at++] = edns.version;
      this.#u16(edns.dnssecOk ? 0x8000 : 0, "flags", true);
      this.#u16(this.#ednsBytes - 11, "length", true);
      for (const option of edns.options) {
        this.#u16(option.code, "option code", true);
        this.#u16(option.bytes.length, "option length", true);
        this.#bytes.set(option.bytes, this.#at);
        this.#at += option.bytes.length;
      }
      this.#ednsBytes = 0;
      this.#edns = undefined;
      this.#counts.additionals++;
    }
    const put = (at: number, value: number): void => {
      this.#bytes[at] = value >> 8;
      this.#bytes[at + 1] = value & 255;
    };
    put(0, header.id);
    put(2, flagsOf(header));
    put(4, this.#questions);
    for (const section of ["answers", "authorities", "additionals"] as const)
      put(COUNT_AT[section], this.#counts[section]);
    return this.#bytes.subarray(0, this.#at);
  }

  /** Writes something whole or not at all. */
  #try(write: () => void): boolean {
    const before = this.#at;
    this.#added = [];
    try {
      write();
      return true;
    } catch (error) {
      this.#at = before;
      for (const suffix of this.#added) this.#offsets.delete(suffix);
      if (error === FULL) return false;
      throw error;
    }
  }

  #room(count: number, reserved = false): void {
    const end = this.#at + count;
    if (end + (reserved ? 0 : this.#ednsBytes) > this.#maxBytes) throw FULL;
    if (end <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.min(this.#maxBytes, Math.max(end, this.#bytes.length * 2)));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = larger;
  }

  #u16(value: number, what: string, reserved = false): void {
    if (!(value >= 0 && value <= 0xffff && Number.isInteger(value)))
      throw new TrilithError("invalid", `${what} ${value} is not a 16-bit number`);
    this.#room(2, reserved);
    this.#bytes[this.#at++] = value >> 8;
    this.#bytes[this.#at++] = value & 255;
  }

  #u32(value: number, what: string): void {
    if (!(value >= 0 && value <= 0xffff_ffff && Number.isInteger(value)))
      throw new TrilithError("invalid", `${what} ${value} is not a 32-bit number`);
    this.#room(4);
    this.#bytes[this.#at++] = (value >>> 24) & 255;
    this.#bytes[this.#at++] = (value >>> 16) & 255;
    this.#bytes[this.#at++] = (value >>> 8) & 255;
    this.#bytes[this.#at++] = value & 255;
  }

  #raw(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** Writes a name; its tail may point to where it stands already, and later names may point to it [RFC 1035 §4.1.4]. */
  #name(name: Name, mayCompress: boolean): void {
    checkName(name);
    if (!this.#compress) {
      this.#room(nameBytes(name));
      for (const label of name) this.#label(label);
      this.#bytes[this.#at++] = 0;
      return;
    }
    let suffix = "";
    const suffixes: string[] = new Array(name.length);
    for (let i = name.length - 1; i >= 0; i--) {
      const label = name[i] as string;
      suffix = String.fromCharCode(label.length) + label + suffix;
      suffixes[i] = suffix;
    }
    for (let i = 0; i < name.length; i++) {
      const key = suffixes[i] as string;
      const known = this.#offsets.get(key);
      if (known !== undefined && mayCompress) {
        this.#u16(0xc000 | known, "pointer");
        return;
      }
      if (known === undefined && this.#at < POINTER_LIMIT) {
        this.#offsets.set(key, this.#at);
        this.#added.push(key);
      }
      this.#room((name[i] as string).length + 1);
      this.#label(name[i] as string);
    }
    this.#room(1);
    this.#bytes[this.#at++] = 0;
  }

  #label(label: string): void {
    this.#bytes[this.#at++] = label.length;
    for (let i = 0; i < label.length; i++) this.#bytes[this.#at++] = label.charCodeAt(i);
  }

  #data(data: RecordData): void {
    switch (data.kind) {
      case "A": {
        const bytes = ipv4Bytes(data.address);
        if (bytes === undefined) throw new TrilithError("invalid", `"${data.address}" is not an IPv4 address`);
        this.#raw(bytes);
        return;
      }
      case "AAAA": {
        const bytes = ipv6Bytes(data.address);
        if (bytes === undefined) throw new TrilithError("invalid", `"${data.address}" is not an IPv6 address`);
        this.#raw(bytes);
        return;
      }
      case "NS":
      case "CNAME":
      case "PTR":
        this.#name(data.target, true);
        return;
      case "MX":
        this.#u16(data.preference, "preference");
        this.#name(data.exchange, true);
        return;
      case "SOA":
        this.#name(data.primary, true);
        this.#name(data.mailbox, true);
        this.#u32(data.serial, "serial");
        this.#u32(data.refreshS, "refreshS");
        this.#u32(data.retryS, "retryS");
        this.#u32(data.expireS, "expireS");
        this.#u32(data.minTtlS, "minTtlS");
        return;
      case "TXT":
        if (data.strings.length === 0) this.#raw(new Uint8Array(1));
        for (const text of data.strings) {
          if (text.length > 255)
            throw new TrilithError("invalid", `a TXT string has ${text.length} bytes; 255 are allowed`);
          this.#room(1);
          this.#bytes[this.#at++] = text.length;
          this.#raw(text);
        }
        return;
      case "SRV":
        this.#u16(data.priority, "priority");
        this.#u16(data.weight, "weight");
        this.#u16(data.port, "port");
        this.#name(data.target, this.#compressSrv);
        return;
      case "NSEC":
        this.#name(data.next, true);
        this.#raw(typeBitmap(data.types));
        return;
      case "other":
        this.#raw(data.bytes);
        return;
    }
  }
}

/** Thrown to leave a half-written record; never leaves this file. */
const FULL = Symbol("the message is full");

function typeBitmap(types: readonly number[]): Uint8Array {
  const windows = new Map<number, Uint8Array>();
  for (const type of [...types].sort((a, b) => a - b)) {
    if (!(type >= 0 && type <= 0xffff && Number.isInteger(type)))
      throw new TrilithError("invalid", `NSEC type ${type} is not a 16-bit number`);
    const window = type >> 8;
    const at = (type & 255) >> 3;
    let bits = windows.get(window);
    if (bits === undefined || bits.length <= at) {
      const larger = new Uint8Array(at + 1);
      if (bits !== undefined) larger.set(bits);
      bits = larger;
      windows.set(window, bits);
    }
    bits[at] = (bits[at] as number) | (0x80 >> (type & 7));
  }
  return Uint8Array.from([...windows].flatMap(([window, bits]) => [window, bits.length, ...bits]));
}

/** The type number of a record's data. */
export function typeOfData(data: RecordData): number {
  return data.kind === "other" ? data.type : TYPE[data.kind];
}

/** The header's second word. */
function flagsOf(header: Header): number {
  return (
    (header.response ? FLAG.QR : 0) |
    ((header.opcode & 15) << 11) |
    (header.authoritative ? FLAG.AA : 0) |
    (header.truncated ? FLAG.TC : 0) |
    (header.recursionDesired ? FLAG.RD : 0) |
    (header.recursionAvailable ? FLAG.RA : 0) |
    (header.authenticData ? FLAG.AD : 0) |
    (header.checkingDisabled ? FLAG.CD : 0) |
    (header.rcode & 15)
  );
}

/** A record in wire form, every name in full. @throws TrilithError `invalid` for what no message can carry */
export function recordToWire(record: DnsRecord): Uint8Array {
  const builder = new MessageBuilder({ compress: false });
  if (!builder.record("answers", record))
    throw new TrilithError("invalid", `a record's data takes more than ${MAX_MESSAGE_BYTES} bytes`);
  return builder.finish(NO_HEADER).slice(HEADER_BYTES);
}

const NO_HEADER: Header = {
  id: 0,
  response: true,
  opcode: 0,
  authoritative: false,
  truncated: false,
  recursionDesired: false,
  recursionAvailable: false,
  authenticData: false,
  checkingDisabled: false,
  rcode: 0,
};

/** Bytes a record takes with every name in full: what Consul measures by, and an upper bound for any message. */
export function recordBytes(record: DnsRecord): number {
  return nameBytes(record.name) + 10 + dataBytes(record.data);
}

function dataBytes(data: RecordData): number {
  switch (data.kind) {
    case "A":
      return 4;
    case "AAAA":
      return 16;
    case "NS":
    case "CNAME":
    case "PTR":
      return nameBytes(data.target);
    case "MX":
      return 2 + nameBytes(data.exchange);
    case "SOA":
      return nameBytes(data.primary) + nameBytes(data.mailbox) + 20;
    case "TXT":
      return data.strings.length === 0 ? 1 : data.strings.reduce((sum, text) => sum + 1 + text.length, 0);
    case "SRV":
      return 6 + nameBytes(data.target);
    case "NSEC":
      return nameBytes(data.next) + typeBitmap(data.types).length;
    case "other":
      return data.bytes.length;
  }
}

/** Packs a whole message. @throws TrilithError `too-large` where it outgrows `maxBytes`, `invalid` for what no message can carry */
export function encodeMessage(message: Message, options: EncodeOptions = {}): Uint8Array {
  const builder = new MessageBuilder(options);
  let fits = message.edns === undefined || builder.edns(message.edns);
  for (const question of message.questions) fits = fits && builder.question(question);
  for (const section of ["answers", "authorities", "additionals"] as const)
    for (const record of message[section]) fits = fits && builder.record(section, record);
  if (!fits)
    throw new TrilithError(
      "too-large",
      `the DNS message does not fit into ${options.maxBytes ?? MAX_MESSAGE_BYTES} bytes`,
    );
  return builder.finish(message);
}
