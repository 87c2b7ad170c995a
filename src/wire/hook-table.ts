// The hook's table: services with their names, magic slots and backends as one file that programs map into memory (read in C by native/table.h).
import { crc32 } from "../base/checksum.ts";
import { InputError } from "../base/error.ts";
import type { NetworkNamespace } from "../base/network-namespace.ts";
import { ipText } from "./dns/address.ts";

/** How backends are chosen, in the order of their numbers in the table. */
export const POLICIES = ["p2c", "round-robin", "random", "least", "first", "sticky"] as const;
export type Policy = (typeof POLICIES)[number];

/** Where a backend is: 0 this host, 1 this zone, 2 elsewhere. */
export type Tier = 0 | 1 | 2;

/** One place to connect to. */
export interface TableBackend {
  /** IPv4 or IPv6, in canonical text. */
  readonly address: string;
  /** 0 = the caller's own. */
  readonly port: number;
  /** 0 … 65535; 0 = only where no other is left. */
  readonly weight: number;
  readonly tier: Tier;
  /** The agent itself found that it refuses. */
  readonly suspect: boolean;
  /** Absent = both. */
  readonly only?: "udp" | "tcp";
}

/** One subject (contracts/magic.ts). */
export interface TableService {
  /** Its magic addresses less their ranges' starts; 1 … 2^32-1. */
  readonly slot: number;
  /** The subject's text: "web", "web/primary". */
  readonly subject: string;
  /** Lower case, without final dot, 1 … 255 bytes of ASCII; no name stands for two subjects. */
  readonly names: readonly string[];
  readonly policy: Policy;
  /** Connections may be opened ahead: so many in a process, each kept for so long. Absent = none. */
  readonly prefetch?: { readonly most: number; readonly idleMs: number };
  /** Too few are healthy, so that all are given. */
  readonly panic: boolean;
  /** The guard keeps what its source no longer lists. */
  readonly held: boolean;
  /** One try of a blocking connect takes at most so long while other backends remain. */
  readonly tryMs: number;
  readonly backends: readonly TableBackend[];
}

/** The agent's host as programs in other network namespaces need to know it: to them 127.0.0.1 is something else. */
export interface TableHost {
  /** The agent's own. */
  readonly network: NetworkNamespace;
  /** Where others reach this host; absent = unknown. */
  readonly v4?: string;
  readonly v6?: string;
}

/** A table. */
export interface HookTable {
  /** Grows with every table of an agent. */
  readonly generation: number;
  /** Unix time. */
  readonly writtenAtMs: number;
  /** True once another table has taken its place. */
  readonly superseded: boolean;
  /** The first IPv4 magic address as a number, and its range's prefix length. */
  readonly v4: { readonly base: number; readonly bits: number };
  /** The first IPv6 magic address (16 bytes), and its range's prefix length. */
  readonly v6: { readonly prefix: Uint8Array; readonly bits: number };
  /** The DNS domain without dots at its ends. */
  readonly domain: string;
  /** Absent = unknown. */
  readonly host?: TableHost;
  /** In the order of their slots. */
  readonly services: readonly TableService[];
}

export const HOOK_TABLE_VERSION = 1;
/** Where the one field stands that changes in a table's life: u32, 1 = superseded. */
export const SUPERSEDED_AT = 48;

export const MAGIC: Buffer = Buffer.from("TRILHOOK", "latin1");
export const HEADER_BYTES = 192;
export const CHECKED_FROM = 64;
export const NAME_BYTES = 16;
export const SERVICE_BYTES = 48;
export const BACKEND_BYTES = 24;
export const LONGEST_NAME_BYTES = 255;
export const FLAG = { prefetch: 1, panic: 2, held: 4 } as const;
export const BACKEND_FLAG = { suspect: 1, udp: 2, tcp: 4 } as const;

/** FNV-1a, 32 bits, of ASCII text. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  return hash >>> 0;
}

/** Where the agent's host stands in the header; who reads tables of older agents finds zeros. */
export const HOST_AT = { inode: 144, device: 152, v4: 160, v6: 168 } as const;

function readHost(bytes: Buffer): TableHost | undefined {
  const inode = bytes.readBigUInt64LE(HOST_AT.inode);
  if (inode === 0n) return undefined;
  const textAt = (at: number, length: number): string | undefined => {
    const address = bytes.subarray(at, at + length);
    return address.every((byte) => byte === 0) ? undefined : ipText(address);
  };
  const v4 = textAt(HOST_AT.v4, 4);
  const v6 = textAt(HOST_AT.v6, 16);
  return {
    network: { device: bytes.readBigUInt64LE(HOST_AT.device), inode },
    ...(v4 === undefined ? {} : { v4 }),
    ...(v6 === undefined ? {} : { v6 }),
  };
}

/** The backend as a program in that network namespace reaches it: the agent's loopback is not its own. */
export function backendFrom(
  backend: TableBackend,
  host: TableHost | undefined,
  here: NetworkNamespace | undefined,
): TableBackend {
  if (host === undefined || here === undefined) return backend;
  if (host.network.inode === here.inode && host.network.device === here.device) return backend;
  const instead = backend.address.startsWith("127.") ? host.v4 : backend.address === "::1" ? host.v6 : undefined;
  return instead === undefined ? backend : { ...backend, address: instead };
}

/** What stands in a table's first bytes; the rest may be missing or wrong. */
export interface HookTableHead {
  readonly generation: number;
  readonly writtenAtMs: number;
  readonly superseded: boolean;
}

const wrong = (what: string): InputError => new InputError("", `this is no table of the hook: ${what}`);

/** Reads the first bytes of a table. @throws InputError */
export function hookTableHead(given: Uint8Array): HookTableHead {
  const bytes = Buffer.from(given.buffer, given.byteOffset, given.byteLength);
  if (bytes.length < HEADER_BYTES)
    throw wrong(`it has ${bytes.length} bytes, and its header alone has ${HEADER_BYTES}`);
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw wrong("it does not begin with TRILHOOK");
  const version = bytes.readUInt32LE(8);
  if (version !== HOOK_TABLE_VERSION)
    throw wrong(`it has version ${version}, this program knows ${HOOK_TABLE_VERSION}`);
  if (bytes.readUInt32LE(12) !== HEADER_BYTES)
    throw wrong(`its header has ${bytes.readUInt32LE(12)} bytes, expected ${HEADER_BYTES}`);
  return {
    generation: safe(bytes.readBigUInt64LE(32), "generation"),
    writtenAtMs: safe(bytes.readBigUInt64LE(40), "time"),
    superseded: bytes.readUInt32LE(SUPERSEDED_AT) !== 0,
  };
}

function safe(value: bigint, what: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw wrong(`its ${what} is ${value}`);
  return Number(value);
}

/** Where a section begins, and how many entries (or bytes) it has. */
interface Section {
  readonly at: number;
  readonly count: number;
}

/** A section of the file: checked to lie inside of it. */
function section(bytes: Buffer, at: number, each: number, what: string): Section {
  const offset = bytes.readUInt32LE(at);
  const count = bytes.readUInt32LE(at + 4);
  if (offset % 8 !== 0 || offset < HEADER_BYTES || offset + count * each > bytes.length)
    throw wrong(`${count} ${what} at ${offset} do not lie inside of its ${bytes.length} bytes`);
  return { at: offset, count };
}

/** A table's sections, found and checked to lie inside of it. */
export interface OpenHookTable extends HookTableHead {
  readonly bytes: Buffer;
  readonly v4: HookTable["v4"];
  readonly v6: HookTable["v6"];
  readonly domain: string;
  readonly host: TableHost | undefined;
  readonly buckets: Section;
  readonly names: Section;
  readonly services: Section;
  readonly backends: Section;
  readonly strings: Section;
}

/** Looks at a table without reading what is in it. @throws InputError where it is none, is cut off or changed */
export function openHookTable(given: Uint8Array): OpenHookTable {
  const head = hookTableHead(given);
  const bytes = Buffer.from(given.buffer, given.byteOffset, given.byteLength);
  if (bytes.readBigUInt64LE(16) !== BigInt(bytes.length))
    throw wrong(`it says that it has ${bytes.readBigUInt64LE(16)} bytes, but has ${bytes.length}`);
  if (crc32(bytes.subarray(CHECKED_FROM)) !== bytes.readUInt32LE(24)) throw wrong("its checksum is another");
  const buckets = section(bytes, 96, 4, "buckets");
  const names = section(bytes, 104, NAME_BYTES, "names");
  if (buckets.count === 0 || (buckets.count & (buckets.count - 1)) !== 0 || names.count * 2 > buckets.count)
    throw wrong(`${buckets.count} buckets for ${names.count} names`);
  const strings = section(bytes, 128, 1, "bytes of strings");
  return {
    ...head,
    bytes,
    v4: { base: bytes.readUInt32LE(64), bits: bytes.readUInt32LE(68) },
    v6: { prefix: Uint8Array.from(bytes.subarray(72, 88)), bits: bytes.readUInt32LE(88) },
    domain: textIn(bytes, strings, bytes.readUInt32LE(136), bytes.readUInt32LE(140), "utf8"),
    host: readHost(bytes),
    buckets,
    names,
    services: section(bytes, 112, SERVICE_BYTES, "services"),
    backends: section(bytes, 120, BACKEND_BYTES, "backends"),
    strings,
  };
}

function textIn(bytes: Buffer, strings: Section, offset: number, length: number, encoding: "utf8" | "latin1"): string {
  if (offset + length > strings.count) throw wrong(`a text at ${offset} ends behind the strings`);
  return bytes.toString(encoding, strings.at + offset, strings.at + offset + length);
}

/** The text of a name, and the index of its service. @throws InputError */
function readName({ bytes, names, services, strings }: OpenHookTable, i: number): { text: string; service: number } {
  const at = names.at + i * NAME_BYTES;
  const service = bytes.readUInt32LE(at + 8);
  if (service >= services.count) throw wrong(`name ${i} belongs to no service`);
  return { text: textIn(bytes, strings, bytes.readUInt32LE(at), bytes.readUInt16LE(at + 4), "latin1"), service };
}

/** The index of the service of a name (lower case, without final dot); undefined for a name that it does not have. @throws InputError */
export function hookServiceNamed(table: OpenHookTable, name: string): number | undefined {
  const { bytes, buckets, names } = table;
  const hash = hashOf(name);
  for (let bucket = hash & (buckets.count - 1), seen = 0; seen < buckets.count; seen++) {
    const entry = bytes.readUInt32LE(buckets.at + bucket * 4);
    if (entry === 0) return undefined;
    if (entry > names.count) throw wrong(`bucket ${bucket} leads to no name`);
    if (bytes.readUInt32LE(names.at + (entry - 1) * NAME_BYTES + 12) === hash) {
      const { text, service } = readName(table, entry - 1);
      if (text === name) return service;
    }
    bucket = (bucket + 1) & (buckets.count - 1);
  }
  return undefined;
}

/** The index of the service with this slot, by halves. */
export function hookServiceAt({ bytes, services }: OpenHookTable, slot: number): number | undefined {
  let low = 0;
  for (let high = services.count - 1; low <= high; ) {
    const middle = (low + high) >>> 1;
    const found = bytes.readUInt32LE(services.at + middle * SERVICE_BYTES);
    if (found === slot) return middle;
    if (found < slot) low = middle + 1;
    else high = middle - 1;
  }
  return undefined;
}

/** Reads one service, but for its names. @throws InputError */
export function readHookService(
  { bytes, services, backends, strings }: OpenHookTable,
  i: number,
): Omit<TableService, "names"> {
  const at = services.at + i * SERVICE_BYTES;
  const slot = bytes.readUInt32LE(at);
  const policy = POLICIES[bytes[at + 12] as number];
  if (policy === undefined) throw wrong(`slot ${slot} has policy ${bytes[at + 12]}`);
  const first = bytes.readUInt32LE(at + 4);
  const count = bytes.readUInt32LE(at + 8);
  if (first + count > backends.count) throw wrong(`slot ${slot} has backends that are not there`);
  const flags = bytes[at + 13] as number;
  return {
    slot,
    subject: textIn(bytes, strings, bytes.readUInt32LE(at + 24), bytes.readUInt32LE(at + 28), "utf8"),
    policy,
    ...((flags & FLAG.prefetch) === 0
      ? {}
      : { prefetch: { most: bytes.readUInt16LE(at + 14), idleMs: bytes.readUInt32LE(at + 16) } }),
    panic: (flags & FLAG.panic) !== 0,
    held: (flags & FLAG.held) !== 0,
    tryMs: bytes.readUInt32LE(at + 20),
    backends: Array.from({ length: count }, (_, k) => readBackend(bytes, backends.at + (first + k) * BACKEND_BYTES)),
  };
}

/** Reads a table, whole. @throws InputError where it is none, is cut off or changed */
export function decodeHookTable(given: Uint8Array): HookTable {
  const table = openHookTable(given);
  const { bytes, buckets, names, services, generation, writtenAtMs, superseded, v4, v6, domain, host } = table;
  for (let i = 0; i < buckets.count; i++)
    if (bytes.readUInt32LE(buckets.at + i * 4) > names.count) throw wrong(`bucket ${i} leads to no name`);
  const namesOf: string[][] = Array.from({ length: services.count }, () => []);
  for (let i = 0; i < names.count; i++) {
    const { text, service } = readName(table, i);
    namesOf[service]?.push(text);
  }
  let lastSlot = 0;
  return {
    generation,
    writtenAtMs,
    superseded,
    v4,
    v6,
    domain,
    ...(host === undefined ? {} : { host }),
    services: namesOf.map((list, i) => {
      const service = readHookService(table, i);
      if (service.slot <= lastSlot) throw wrong(`slot ${service.slot} comes after slot ${lastSlot}`);
      lastSlot = service.slot;
      return { ...service, names: list };
    }),
  };
}

function readBackend(bytes: Buffer, at: number): TableBackend {
  const tier = bytes[at + 20] as number;
  if (tier > 2) throw wrong(`a backend has tier ${tier}`);
  const flags = bytes[at + 21] as number;
  const address = bytes.subarray(at, at + 16);
  const mapped = bytes.readUInt16LE(at + 10) === 0xffff && address.subarray(0, 10).every((byte) => byte === 0);
  return {
    address: ipText(mapped ? address.subarray(12) : address),
    port: bytes.readUInt16LE(at + 16),
    weight: bytes.readUInt16LE(at + 18),
    tier: tier as Tier,
    suspect: (flags & BACKEND_FLAG.suspect) !== 0,
    ...((flags & BACKEND_FLAG.udp) !== 0 ? { only: "udp" } : (flags & BACKEND_FLAG.tcp) !== 0 ? { only: "tcp" } : {}),
  };
}
