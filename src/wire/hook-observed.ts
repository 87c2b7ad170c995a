// What hooked programs have seen of backends: one file per user, blocks of entries that the programs write without a lock (written in C by native/observed.h).
import { InputError } from "../base/error.ts";
import { ipBytes, ipText } from "./dns/address.ts";

const OBSERVED_VERSION = 1;
export const OBSERVED_BLOCKS = 64;
export const OBSERVED_ENTRIES = 256;
const HEADER_BYTES = 64;
const BLOCK_HEADER_BYTES = 64;
const ENTRY_BYTES = 64;
const BLOCK_BYTES = BLOCK_HEADER_BYTES + OBSERVED_ENTRIES * ENTRY_BYTES;
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

/** The header of every file. */
function observedHeader(): Uint8Array {
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
    const at = HEADER_BYTES + block.place * BLOCK_BYTES;
    bytes.writeUInt32LE(block.pid, at);
    bytes.writeUInt32LE(block.uid, at + 4);
    bytes.writeBigUInt64LE(BigInt(block.startTicks), at + 8);
    bytes.writeBigUInt64LE(BigInt(block.namespace), at + 16);
    bytes.writeBigUInt64LE(BigInt(block.lastUsedMs), at + 24);
    for (const [place, seen] of block.entries) {
      if (!(place >= 0 && place < OBSERVED_ENTRIES))
        throw new InputError("", `entry ${place}: expected 0 to ${OBSERVED_ENTRIES - 1}`);
      const address = ipBytes(seen.address);
      if (address === undefined) throw new InputError("", `"${seen.address}": expected an IP address`);
      const entry = at + BLOCK_HEADER_BYTES + place * ENTRY_BYTES;
      if (address.length === 4) bytes.writeUInt16LE(0xffff, entry + 10);
      bytes.set(address, entry + 16 - address.length);
      bytes.writeUInt16LE(seen.port, entry + 16);
      bytes.writeUInt16LE(1, entry + 18);
      bytes.writeUInt32LE(seen.consecutiveFailures, entry + 20);
      bytes.writeBigUInt64LE(BigInt(seen.connects), entry + 24);
      bytes.writeBigUInt64LE(BigInt(seen.failures), entry + 32);
      bytes.writeUInt32LE(seen.connectMicros, entry + 40);
      bytes.writeUInt32LE(seen.lastErrno, entry + 44);
      bytes.writeBigUInt64LE(BigInt(seen.ejectedUntilMs), entry + 48);
      bytes.writeBigUInt64LE(BigInt(seen.changedMs), entry + 56);
    }
  }
  return bytes;
}

/** The blocks of a file that were ever used. @throws InputError where it is no such file; whatever stands in its blocks is read */
export function decodeObserved(given: Uint8Array): readonly SeenBlock[] {
  const bytes = Buffer.from(given.buffer, given.byteOffset, given.byteLength);
  const wrong = (what: string): InputError => new InputError("", `these are no observations of the hook: ${what}`);
  if (bytes.length !== OBSERVED_BYTES) throw wrong(`${bytes.length} bytes, expected ${OBSERVED_BYTES}`);
  const header = observedHeader();
  for (let i = 0; i < 24; i++) if (bytes[i] !== header[i]) throw wrong("their header is another");
  const blocks: SeenBlock[] = [];
  for (let place = 0; place < OBSERVED_BLOCKS; place++) {
    const at = HEADER_BYTES + place * BLOCK_BYTES;
    const pid = bytes.readUInt32LE(at);
    const lastUsedMs = number(bytes, at + 24);
    if (pid === 0 && lastUsedMs === 0) continue;
    const entries = new Map<number, Seen>();
    for (let i = 0; i < OBSERVED_ENTRIES; i++) {
      const entry = at + BLOCK_HEADER_BYTES + i * ENTRY_BYTES;
      if (bytes.readUInt16LE(entry + 18) === 1) entries.set(i, readEntry(bytes, entry));
    }
    blocks.push({
      place,
      pid,
      uid: bytes.readUInt32LE(at + 4),
      startTicks: number(bytes, at + 8),
      namespace: number(bytes, at + 16),
      lastUsedMs,
      entries,
    });
  }
  return blocks;
}

function readEntry(bytes: Buffer, at: number): Seen {
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

/** A u64, at most what a number holds exactly. */
function number(bytes: Buffer, at: number): number {
  const low = bytes.readUInt32LE(at);
  const high = bytes.readUInt32LE(at + 4);
  return high > 0x1f_ffff ? Number.MAX_SAFE_INTEGER : high * 0x1_0000_0000 + low;
}
