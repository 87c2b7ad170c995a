// What hooked programs have seen of backends: one file per user, blocks of entries that the programs write without a lock (written in C by native/observed.h).
import { InputError } from "../base/error.ts";
import { ipBytes, ipText } from "./dns/address.ts";

const OBSERVED_VERSION = 1;
export const OBSERVED_BLOCKS = 64;
export const OBSERVED_ENTRIES = 256;
const HEADER_BYTES = 64;
/** What stands before a block's entries. */
export const BLOCK_HEADER_BYTES = 64;
export const ENTRY_BYTES = 64;
const BLOCK_BYTES: number = BLOCK_HEADER_BYTES + OBSERVED_ENTRIES * ENTRY_BYTES;
/** In the file's header: until when (Unix ms) all blocks had living owners, and when one of the user's processes last saw a failure. */
export const FULL_UNTIL_AT = 24;
export const TROUBLE_AT = 32;
/** An entry is at most so many places behind the one that its hash says. */
export const OBSERVED_PROBES = 16;
/** The owner of a block that is just being taken. */
export const CLAIMING = 0x8000_0000;
/** Every file has this size. */
export const OBSERVED_BYTES: number = HEADER_BYTES + OBSERVED_BLOCKS * BLOCK_BYTES;

const MAGIC = Buffer.from("TRILSEEN", "latin1");

/** What a process has seen of one backend. The file is written while it is read, and by anybody: no number means more than a hint. */
export interface Seen {
  /** IPv4 or IPv6, in canonical text. */
  readonly address: string;
  readonly port: number;
  readonly consecutiveFailures: number;
  readonly connects: number;
  readonly failures: number;
  /** Smoothed; 0 = not known. */
  readonly connectMicros: number;
  readonly lastErrno: number;
  /** Unix time; 0 = not ejected. */
  readonly ejectedUntilMs: number;
  readonly changedMs: number;
}

/** The block of one process. */
export interface SeenBlock {
  /** The block's place in the file. */
  readonly place: number;
  /** 0 = nobody's. */
  readonly pid: number;
  readonly uid: number;
  /** Clock ticks since boot. */
  readonly startTicks: number;
  /** The inode of its pid namespace. */
  readonly namespace: number;
  readonly lastUsedMs: number;
  /** By their places in the block; unused places are left out. */
  readonly entries: ReadonlyMap<number, Seen>;
}

/** Who has a block, as its first bytes say it. */
export interface BlockOwner {
  /** 0 = nobody; with the bit `CLAIMING` somebody who is just taking it. */
  readonly pid: number;
  readonly uid: number;
  readonly startTicks: bigint;
  readonly namespace: bigint;
  readonly usedMs: number;
  /** Which of a process's threads; 0 where they share one block, as in C. */
  readonly writer: bigint;
}

/** Where a block begins. */
export const blockAt = (place: number): number => HEADER_BYTES + place * BLOCK_BYTES;

/** Who has a block, by its first bytes. */
export function readOwner(bytes: Buffer): BlockOwner {
  return {
    pid: bytes.readUInt32LE(0),
    uid: bytes.readUInt32LE(4),
    startTicks: bytes.readBigUInt64LE(8),
    namespace: bytes.readBigUInt64LE(16),
    usedMs: number(bytes, 24),
    writer: bytes.readBigUInt64LE(32),
  };
}

/** Writes who has a block to its first bytes. */
export function writeOwner(bytes: Buffer, owner: BlockOwner): void {
  bytes.writeUInt32LE(owner.pid, 0);
  bytes.writeUInt32LE(owner.uid, 4);
  bytes.writeBigUInt64LE(owner.startTicks, 8);
  bytes.writeBigUInt64LE(owner.namespace, 16);
  bytes.writeBigUInt64LE(BigInt(owner.usedMs), 24);
  bytes.writeBigUInt64LE(owner.writer, 32);
}

/** True for the first bytes of such a file. */
export function isObserved(bytes: Uint8Array): boolean {
  const header = observedHeader();
  for (let i = 0; i < 24; i++) if (bytes[i] !== header[i]) return false;
  return true;
}

const M64 = 0xffff_ffff_ffff_ffffn;

/** splitmix64. */
function mix(given: bigint): bigint {
  let x = (given + 0x9e3779b97f4a7c15n) & M64;
  x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & M64;
  x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & M64;
  return x ^ (x >> 31n);
}

/** The 16 bytes that stand for an address; undefined where it is none. */
export function observedAddress(address: string): Buffer | undefined {
  const ip = ipBytes(address);
  if (ip === undefined) return undefined;
  const bytes = Buffer.alloc(16);
  if (ip.length === 4) bytes.writeUInt16LE(0xffff, 10);
  bytes.set(ip, 16 - ip.length);
  return bytes;
}

/** The place in a block from which on a backend's entry is looked for. */
export function placeOf(address: Buffer, port: number): number {
  const hash = mix(mix(address.readBigUInt64LE(0) ^ BigInt(port)) ^ address.readBigUInt64LE(8));
  return Number(hash % BigInt(OBSERVED_ENTRIES));
}

/** The header of every file. */
export function observedHeader(): Uint8Array {
  const bytes = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(bytes);
  for (const [i, value] of [OBSERVED_VERSION, OBSERVED_BLOCKS, OBSERVED_ENTRIES, BLOCK_BYTES].entries())
    bytes.writeUInt32LE(value, 8 + 4 * i);
  return bytes;
}

/** A file's bytes with these blocks; for tests and for programs that write in another language than C. @throws InputError */
export function encodeObserved(blocks: readonly SeenBlock[]): Uint8Array {
  const bytes = Buffer.alloc(OBSERVED_BYTES);
  bytes.set(observedHeader());
  for (const block of blocks) {
    if (!(block.place >= 0 && block.place < OBSERVED_BLOCKS))
      throw new InputError("", `block ${block.place}: expected 0 to ${OBSERVED_BLOCKS - 1}`);
    const at = blockAt(block.place);
    writeOwner(bytes.subarray(at), {
      ...{ pid: block.pid, uid: block.uid, usedMs: block.lastUsedMs, writer: 0n },
      ...{ startTicks: BigInt(block.startTicks), namespace: BigInt(block.namespace) },
    });
    for (const [place, seen] of block.entries) {
      if (!(place >= 0 && place < OBSERVED_ENTRIES))
        throw new InputError("", `entry ${place}: expected 0 to ${OBSERVED_ENTRIES - 1}`);
      writeEntry(bytes, at + BLOCK_HEADER_BYTES + place * ENTRY_BYTES, seen);
    }
  }
  return bytes;
}

/** @throws InputError where the address is none */
export function writeEntry(bytes: Buffer, at: number, seen: Seen): void {
  const address = observedAddress(seen.address);
  if (address === undefined) throw new InputError("", `"${seen.address}": expected an IP address`);
  bytes.set(address, at);
  bytes.writeUInt16LE(seen.port, at + 16);
  bytes.writeUInt16LE(1, at + 18);
  bytes.writeUInt32LE(seen.consecutiveFailures, at + 20);
  bytes.writeBigUInt64LE(BigInt(seen.connects), at + 24);
  bytes.writeBigUInt64LE(BigInt(seen.failures), at + 32);
  bytes.writeUInt32LE(seen.connectMicros, at + 40);
  bytes.writeUInt32LE(seen.lastErrno, at + 44);
  bytes.writeBigUInt64LE(BigInt(seen.ejectedUntilMs), at + 48);
  bytes.writeBigUInt64LE(BigInt(seen.changedMs), at + 56);
}

/** 0 = free, 1 = a backend's, anything else = just being written. */
export const entryState = (bytes: Buffer, at: number): number => bytes.readUInt16LE(at + 18);

/** The blocks of a file that were ever used. @throws InputError where it is no such file; whatever stands in its blocks is read */
export function decodeObserved(given: Uint8Array): readonly SeenBlock[] {
  const bytes = Buffer.from(given.buffer, given.byteOffset, given.byteLength);
  const wrong = (what: string): InputError => new InputError("", `these are no observations of the hook: ${what}`);
  if (bytes.length !== OBSERVED_BYTES) throw wrong(`${bytes.length} bytes, expected ${OBSERVED_BYTES}`);
  const header = observedHeader();
  for (let i = 0; i < 24; i++) if (bytes[i] !== header[i]) throw wrong("their header is another");
  const blocks: SeenBlock[] = [];
  for (let place = 0; place < OBSERVED_BLOCKS; place++) {
    const at = blockAt(place);
    const { pid, uid, startTicks, namespace, usedMs: lastUsedMs } = readOwner(bytes.subarray(at));
    if (pid === 0 && lastUsedMs === 0) continue;
    const entries = new Map<number, Seen>();
    for (let i = 0; i < OBSERVED_ENTRIES; i++) {
      const entry = at + BLOCK_HEADER_BYTES + i * ENTRY_BYTES;
      if (entryState(bytes, entry) === 1) entries.set(i, readEntry(bytes, entry));
    }
    blocks.push({
      place,
      ...{ pid, uid, lastUsedMs, startTicks: exactly(startTicks), namespace: exactly(namespace) },
      entries,
    });
  }
  return blocks;
}

/** What a block's entry at this place says of a backend. */
export function readEntry(bytes: Buffer, at: number): Seen {
  const address = bytes.subarray(at, at + 16);
  const mapped = bytes.readUInt16LE(at + 10) === 0xffff && address.subarray(0, 10).every((byte) => byte === 0);
  return {
    address: ipText(mapped ? address.subarray(12) : address),
    port: bytes.readUInt16LE(at + 16),
    consecutiveFailures: bytes.readUInt32LE(at + 20),
    connects: number(bytes, at + 24),
    failures: number(bytes, at + 32),
    connectMicros: bytes.readUInt32LE(at + 40),
    lastErrno: bytes.readUInt32LE(at + 44),
    ejectedUntilMs: number(bytes, at + 48),
    changedMs: number(bytes, at + 56),
  };
}

/** At most what a number holds exactly. */
function exactly(value: bigint): number {
  return value > Number.MAX_SAFE_INTEGER ? Number.MAX_SAFE_INTEGER : Number(value);
}

/** A u64, at most what a number holds exactly. */
function number(bytes: Buffer, at: number): number {
  const low = bytes.readUInt32LE(at);
  const high = bytes.readUInt32LE(at + 4);
  return high > 0x1f_ffff ? Number.MAX_SAFE_INTEGER : high * 0x1_0000_0000 + low;
}
