// The hook's table: services with their names, magic slots and backends as one file that programs map into memory (read in C by native/table.h).
import { crc32 } from "../base/checksum.ts";
import { InputError } from "../base/error.ts";
import type { NetworkNamespace } from "../base/network-namespace.ts";
import { ipBytes, ipText } from "./dns/address.ts";

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

const HOOK_TABLE_VERSION = 1;
/** Where the one field stands that changes in a table's life: u32, 1 = superseded. */
export const SUPERSEDED_AT = 48;

const MAGIC = Buffer.from("TRILHOOK", "latin1");
const HEADER_BYTES = 192;
const CHECKED_FROM = 64;
const NAME_BYTES = 16;
const SERVICE_BYTES = 48;
const BACKEND_BYTES = 24;
const LONGEST_NAME_BYTES = 255;
const FLAG = { prefetch: 1, panic: 2, held: 4 } as const;
const BACKEND_FLAG = { suspect: 1, udp: 2, tcp: 4 } as const;

const aligned = (bytes: number): number => (bytes + 7) & ~7;

/** FNV-1a, 32 bits, of ASCII text. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  return hash >>> 0;
}

/** A service ready to be copied into a table. Of many services: small buffers out of shared memory, and plain arrays, which cost the least. */
interface Packed {
  /** Its names one after the other, then its subject. */
  readonly text: Buffer;
  /** By name. */
  readonly lengths: readonly number[];
  readonly hashes: readonly number[];
  /** Its record, without its places in the other sections. */
  readonly record: Buffer;
  readonly backends: Buffer;
}

/** Services are packed once: most tables have most services of the one before. */
const packed = new WeakMap<TableService, Packed>();

/** A number that fits its field. @throws InputError */
function within(what: string, value: number, most: number, least = 0): number {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new InputError("", `${what} ${value}: expected a whole number from ${least} to ${most}`);
  return value;
}

function pack(service: TableService): Packed {
  const known = packed.get(service);
  if (known !== undefined) return known;
  const { names, subject, prefetch, backends } = service;
  for (const name of names)
    if (name.length === 0 || name.length > LONGEST_NAME_BYTES || !/^[!-@[-~]+$/.test(name) || name.endsWith("."))
      throw new InputError(
        "",
        `the name "${name}": expected 1 to ${LONGEST_NAME_BYTES} characters of ASCII in lower case, without blanks and final dot`,
      );
  const record = Buffer.allocUnsafe(SERVICE_BYTES).fill(0);
  record.writeUInt32LE(within("the slot", service.slot, 0xffff_ffff, 1), 0);
  record.writeUInt32LE(backends.length, 8);
  record[12] = POLICIES.indexOf(service.policy);
  record[13] =
    (prefetch === undefined ? 0 : FLAG.prefetch) | (service.panic ? FLAG.panic : 0) | (service.held ? FLAG.held : 0);
  record.writeUInt16LE(within("connections opened ahead", prefetch?.most ?? 0, 0xffff), 14);
  record.writeUInt32LE(within("idle milliseconds", prefetch?.idleMs ?? 0, 0xffff_ffff), 16);
  record.writeUInt32LE(within("milliseconds of a try", service.tryMs, 0xffff_ffff), 20);
  record.writeUInt32LE(Buffer.byteLength(subject), 28);
  const backendBytes = Buffer.allocUnsafe(backends.length * BACKEND_BYTES).fill(0);
  for (const [i, backend] of backends.entries()) writeBackend(backendBytes, i * BACKEND_BYTES, backend);
  const made = {
    text: Buffer.from(names.join("") + subject, "utf8"),
    lengths: names.map((name) => name.length),
    hashes: names.map(hashOf),
    record,
    backends: backendBytes,
  };
  packed.set(service, made);
  return made;
}

/** So many services are packed in one step: about a millisecond. */
const SERVICES_A_STEP = 1_000;

/**
 * The table's bytes. Quick where most services are the same objects as in the table before; they must not be changed.
 * @throws InputError where something does not fit, or a name stands for two subjects
 */
export function encodeHookTable(table: HookTable): Uint8Array {
  const steps = encoding(table);
  for (let step = steps.next(); ; step = steps.next()) if (step.done === true) return step.value;
}

/** The same with pauses, so that many thousands of services keep nobody waiting. @throws as `encodeHookTable`, and what `pause` throws */
export async function encodeHookTableInTurns(table: HookTable, pause: () => Promise<void>): Promise<Uint8Array> {
  const steps = encoding(table);
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done === true) return step.value;
    await pause();
  }
}

function* encoding(table: HookTable): Generator<void, Uint8Array> {
  const { services } = table;
  const domain = Buffer.from(table.domain, "utf8");
  let nameCount = 0;
  let backendCount = 0;
  let stringBytes = domain.length;
  let packedNow = 0;
  for (const service of services) {
    if (!packed.has(service) && ++packedNow % SERVICES_A_STEP === 0) yield;
    const { text, lengths, backends } = pack(service);
    nameCount += lengths.length;
    backendCount += backends.length / BACKEND_BYTES;
    stringBytes += text.length;
  }
  let bucketCount = 8;
  while (bucketCount < nameCount * 2) bucketCount *= 2;
  const bucketsAt = HEADER_BYTES;
  const namesAt = aligned(bucketsAt + bucketCount * 4);
  const servicesAt = aligned(namesAt + nameCount * NAME_BYTES);
  const backendsAt = aligned(servicesAt + services.length * SERVICE_BYTES);
  const stringsAt = aligned(backendsAt + backendCount * BACKEND_BYTES);
  const size = aligned(stringsAt + stringBytes);
  within("the table's size", size, 0xffff_ffff);
  const bytes = Buffer.alloc(size);

  // Views of their own for what is written most; every section begins at a multiple of eight, and every machine that has the library is little-endian.
  const buckets = new Uint32Array(bytes.buffer, bytes.byteOffset + bucketsAt, bucketCount);
  const nameWords = new Uint32Array(bytes.buffer, bytes.byteOffset + namesAt, nameCount * (NAME_BYTES / 4));
  let string = domain.copy(bytes, stringsAt);
  let name = 0;
  let backend = 0;
  let lastSlot = 0;
  for (let i = 0; i < services.length; i++) {
    if (i % SERVICES_A_STEP === SERVICES_A_STEP - 1) yield;
    const service = services[i] as TableService;
    if (service.slot <= lastSlot)
      throw new InputError(
        "",
        `slot ${service.slot} of "${service.subject}" comes after slot ${lastSlot}: expected order`,
      );
    lastSlot = service.slot;
    const { text, lengths, hashes, record, backends } = pack(service);
    bytes.set(text, stringsAt + string);
    for (let k = 0; k < lengths.length; k++) {
      const length = lengths[k] as number;
      const hash = hashes[k] as number;
      let bucket = hash & (bucketCount - 1);
      for (let other = buckets[bucket] as number; other !== 0; other = buckets[bucket] as number) {
        const there = (other - 1) * (NAME_BYTES / 4);
        if (nameWords[there + 3] === hash) mustDiffer(services, nameWords[there + 2] as number, service, k);
        bucket = (bucket + 1) & (bucketCount - 1);
      }
      const word = name * (NAME_BYTES / 4);
      nameWords[word] = string;
      nameWords[word + 1] = length;
      nameWords[word + 2] = i;
      nameWords[word + 3] = hash;
      buckets[bucket] = ++name;
      string += length;
    }
    const at = servicesAt + i * SERVICE_BYTES;
    bytes.set(record, at);
    bytes.writeUInt32LE(backend, at + 4);
    bytes.writeUInt32LE(string, at + 24);
    bytes.set(backends, backendsAt + backend * BACKEND_BYTES);
    string += record.readUInt32LE(28);
    backend += service.backends.length;
  }

  MAGIC.copy(bytes);
  bytes.writeUInt32LE(HOOK_TABLE_VERSION, 8);
  bytes.writeUInt32LE(HEADER_BYTES, 12);
  bytes.writeBigUInt64LE(BigInt(size), 16);
  bytes.writeBigUInt64LE(BigInt(within("the generation", table.generation, Number.MAX_SAFE_INTEGER)), 32);
  bytes.writeBigUInt64LE(BigInt(within("the time", table.writtenAtMs, Number.MAX_SAFE_INTEGER)), 40);
  bytes.writeUInt32LE(table.superseded ? 1 : 0, SUPERSEDED_AT);
  bytes.writeUInt32LE(within("the first IPv4 address", table.v4.base, 0xffff_ffff), 64);
  bytes.writeUInt32LE(within("IPv4 prefix bits", table.v4.bits, 32), 68);
  if (table.v6.prefix.length !== 16) throw new InputError("", "the first IPv6 address: expected 16 bytes");
  bytes.set(table.v6.prefix, 72);
  bytes.writeUInt32LE(within("IPv6 prefix bits", table.v6.bits, 128), 88);
  for (const [at, offset, count] of [
    [96, bucketsAt, bucketCount],
    [104, namesAt, nameCount],
    [112, servicesAt, services.length],
    [120, backendsAt, backendCount],
    [128, stringsAt, stringBytes],
    [136, 0, domain.length],
  ] as const) {
    bytes.writeUInt32LE(offset, at);
    bytes.writeUInt32LE(count, at + 4);
  }
  if (table.host !== undefined) writeHost(bytes, table.host);
  bytes.writeUInt32LE(crc32(bytes.subarray(CHECKED_FROM)), 24);
  return bytes;
}

/** Where the agent's host stands in the header; who reads tables of older agents finds zeros. */
const HOST_AT = { inode: 144, device: 152, v4: 160, v6: 168 } as const;

function writeHost(bytes: Buffer, { network, v4, v6 }: TableHost): void {
  bytes.writeBigUInt64LE(network.inode, HOST_AT.inode);
  bytes.writeBigUInt64LE(network.device, HOST_AT.device);
  for (const [text, at, length] of [
    [v4, HOST_AT.v4, 4],
    [v6, HOST_AT.v6, 16],
  ] as const) {
    if (text === undefined) continue;
    const address = ipBytes(text);
    if (address?.length !== length)
      throw new InputError("", `the host's address "${text}": expected one of ${length} bytes`);
    bytes.set(address, at);
  }
}

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

function writeBackend(bytes: Buffer, at: number, backend: TableBackend): void {
  const address = ipBytes(backend.address);
  if (address === undefined) throw new InputError("", `the backend "${backend.address}": expected an IP address`);
  if (address.length === 4) {
    bytes.writeUInt16LE(0xffff, at + 10);
    bytes.set(address, at + 12);
  } else bytes.set(address, at);
  bytes.writeUInt16LE(within("the port", backend.port, 0xffff), at + 16);
  bytes.writeUInt16LE(within("the weight", backend.weight, 0xffff), at + 18);
  bytes[at + 20] = backend.tier;
  bytes[at + 21] =
    (backend.suspect ? BACKEND_FLAG.suspect : 0) | (backend.only === undefined ? 0 : BACKEND_FLAG[backend.only]);
}

/** Two names with one hash may be two names. */
function mustDiffer(services: readonly TableService[], other: number, service: TableService, k: number): void {
  const name = service.names[k] as string;
  if (services[other]?.names.includes(name) === true)
    throw new InputError(
      "",
      `the name "${name}" stands for "${services[other]?.subject}" and for "${service.subject}"`,
    );
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
