// Writing the hook's table: whole, or again and again with what changed since the last time.
import { crc32 } from "node:zlib";
import { InputError } from "../base/error.ts";
import { ipBytes } from "./dns/address.ts";
import {
  BACKEND_BYTES,
  BACKEND_FLAG,
  CHECKED_FROM,
  FLAG,
  HEADER_BYTES,
  HOOK_TABLE_VERSION,
  HOST_AT,
  type HookTable,
  hashOf,
  LONGEST_NAME_BYTES,
  MAGIC,
  NAME_BYTES,
  POLICIES,
  SERVICE_BYTES,
  SUPERSEDED_AT,
  type TableBackend,
  type TableHost,
  type TableService,
} from "./hook-table.ts";

const aligned = (bytes: number): number => (bytes + 7) & ~7;

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

/** So many services are packed or written in one step: about a millisecond. */
const SERVICES_A_STEP = 1_000;

/** A table that was written, and what it was made of. */
interface Encoded {
  readonly bytes: Buffer;
  readonly services: readonly TableService[];
  readonly domain: string;
  readonly nameCount: number;
  readonly stringBytes: number;
  readonly backendCount: number;
  readonly backendsAt: number;
  readonly stringsAt: number;
}

/**
 * The table's bytes. Quick where most services are the same objects as in the table before; they must not be changed.
 * @throws InputError where something does not fit, or a name stands for two subjects
 */
export function encodeHookTable(table: HookTable): Uint8Array {
  const steps = encoding(table, undefined);
  for (let step = steps.next(); ; step = steps.next()) if (step.done === true) return step.value.bytes;
}

/** Writes one table after the other, each with what it can keep of the one before. One at a time. */
export interface HookTableEncoder {
  /**
   * The same as `encodeHookTable`, with pauses, so that many thousands of services keep nobody waiting. The bytes are good until the next call, which may write into them.
   * @throws as `encodeHookTable`, and what `pause` throws
   */
  encode(table: HookTable, pause: () => Promise<void>): Promise<Uint8Array>;
}

/** See `HookTableEncoder`. */
export function createHookTableEncoder(): HookTableEncoder {
  let last: Encoded | undefined;
  return {
    async encode(table, pause) {
      const steps = encoding(table, last);
      // What is left half-way is no table.
      last = undefined;
      for (let step = steps.next(); ; step = steps.next()) {
        if (step.done === true) {
          last = step.value;
          return last.bytes;
        }
        await pause();
      }
    },
  };
}

/** The services that are others than in the last table, by their places; undefined where names or places changed, so that all is to be written. */
function changedSince(last: Encoded, { services, domain }: HookTable): readonly number[] | undefined {
  if (last.domain !== domain || last.services.length !== services.length) return undefined;
  const changed: number[] = [];
  for (let i = 0; i < services.length; i++) {
    const before = last.services[i] as TableService;
    const service = services[i] as TableService;
    // Nothing else of those that stay is looked at: tens of thousands lie all over the memory.
    if (service === before) continue;
    if (service.slot !== before.slot || service.names !== before.names || service.subject !== before.subject)
      return undefined;
    changed.push(i);
  }
  return changed;
}

const lengthOf = (service: TableService | undefined): number => service?.backends.length ?? 0;

function* encoding(table: HookTable, last: Encoded | undefined): Generator<void, Encoded> {
  const { services } = table;
  const changed = last === undefined ? undefined : changedSince(last, table);
  const kept = changed === undefined ? undefined : last;
  const domain = Buffer.from(table.domain, "utf8");
  let { nameCount, stringBytes, backendCount } = kept ?? { nameCount: 0, stringBytes: domain.length, backendCount: 0 };
  let packedNow = 0;
  for (const i of changed ?? services.keys()) {
    const service = services[i] as TableService;
    if (!packed.has(service) && ++packedNow % SERVICES_A_STEP === 0) yield;
    const { text, lengths } = pack(service);
    backendCount += service.backends.length - (kept?.services[i]?.backends.length ?? 0);
    if (kept !== undefined) continue;
    nameCount += lengths.length;
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

  const isInPlace = kept !== undefined && changed?.every((i) => lengthOf(services[i]) === lengthOf(kept.services[i]));
  const bytes = isInPlace === true ? kept.bytes : Buffer.alloc(size);
  /** Writes one service's record and its backends, which begin with this one. */
  const put = (i: number, first: number): void => {
    const at = servicesAt + i * SERVICE_BYTES;
    const { record, backends } = pack(services[i] as TableService);
    const subjectAt = bytes.readUInt32LE(at + 24);
    bytes.set(record, at);
    bytes.writeUInt32LE(first, at + 4);
    bytes.writeUInt32LE(subjectAt, at + 24);
    bytes.set(backends, backendsAt + first * BACKEND_BYTES);
  };
  if (kept === undefined) {
    yield* writeNames(bytes, table, { bucketsAt, bucketCount, namesAt, nameCount, servicesAt, stringsAt });
    for (let i = 0, first = 0; i < services.length; i++) {
      if (i % SERVICES_A_STEP === SERVICES_A_STEP - 1) yield;
      put(i, first);
      first += lengthOf(services[i]);
    }
  } else if (isInPlace === true) {
    for (const i of changed ?? []) put(i, bytes.readUInt32LE(servicesAt + i * SERVICE_BYTES + 4));
  } else {
    kept.bytes.copy(bytes, 0, 0, kept.backendsAt);
    kept.bytes.copy(bytes, stringsAt, kept.stringsAt, kept.stringsAt + stringBytes);
    /** Backends up to this one of the last table are written. */
    let done = 0;
    let moved = 0;
    let next = 0;
    const copyUpTo = (end: number): void => {
      const from = kept.backendsAt + done * BACKEND_BYTES;
      const until = kept.backendsAt + end * BACKEND_BYTES;
      kept.bytes.copy(bytes, backendsAt + (done + moved) * BACKEND_BYTES, from, until);
    };
    for (let i = 0; i < services.length; i++) {
      const at = servicesAt + i * SERVICE_BYTES;
      const before = bytes.readUInt32LE(at + 4);
      if (changed?.[next] !== i) {
        if (moved !== 0) bytes.writeUInt32LE(before + moved, at + 4);
        continue;
      }
      next++;
      copyUpTo(before);
      put(i, before + moved);
      const { length } = (kept.services[i] as TableService).backends;
      done = before + length;
      moved += lengthOf(services[i]) - length;
    }
    copyUpTo(kept.backendCount);
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
  bytes.fill(0, HOST_AT.inode, HEADER_BYTES);
  if (table.host !== undefined) writeHost(bytes, table.host);
  bytes.writeUInt32LE(crc32(bytes.subarray(CHECKED_FROM)), 24);
  return { bytes, services, domain: table.domain, nameCount, stringBytes, backendCount, backendsAt, stringsAt };
}

/** Writes names, the buckets that lead to them and all strings; into the services' records where their subjects are. */
function* writeNames(
  bytes: Buffer,
  { services, domain }: HookTable,
  places: Readonly<Record<"bucketsAt" | "bucketCount" | "namesAt" | "nameCount" | "servicesAt" | "stringsAt", number>>,
): Generator<void, void> {
  const { bucketsAt, bucketCount, namesAt, nameCount, servicesAt, stringsAt } = places;
  // Views of their own for what is written most; every section begins at a multiple of eight, and every machine that has the library is little-endian.
  const buckets = new Uint32Array(bytes.buffer, bytes.byteOffset + bucketsAt, bucketCount);
  const nameWords = new Uint32Array(bytes.buffer, bytes.byteOffset + namesAt, nameCount * (NAME_BYTES / 4));
  let string = bytes.write(domain, stringsAt, "utf8");
  let name = 0;
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
    const { text, lengths, hashes } = pack(service);
    bytes.set(text, stringsAt + string);
    const end = string + text.length;
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
    bytes.writeUInt32LE(string, servicesAt + i * SERVICE_BYTES + 24);
    string = end;
  }
}

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
