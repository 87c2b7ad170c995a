// A thread's block in its user's counter file: what it saw of each backend, written for other programs.
import type { CounterFile } from "../../base/counter-file.ts";
import {
  BLOCK_HEADER_BYTES,
  type BlockOwner,
  blockAt,
  ENTRY_BYTES,
  entryState,
  OBSERVED_ENTRIES,
  OBSERVED_PROBES,
  observedAddress,
  placeOf,
  readEntry,
  readOwner,
  type Seen,
  TROUBLE_AT,
  writeEntry,
  writeOwner,
} from "../../wire/hook-observed.ts";
import type { Memory } from "./memory.ts";

/** A backend's entry: where it is, and what it counts. */
interface Held {
  readonly memory: Memory;
  readonly place: number;
  connects: number;
  failures: number;
  failing: boolean;
  errno: number;
}

const countsOf = ({
  connects,
  failures,
  consecutiveFailures,
}: Seen): Pick<Held, "connects" | "failures" | "failing"> => ({
  connects,
  failures,
  failing: consecutiveFailures > 0,
});

/** The block of this thread, with a copy of its entries: only this thread writes them. */
export class Block {
  readonly place: number;
  readonly #file: CounterFile;
  readonly #owner: BlockOwner;
  readonly #entries = Buffer.alloc(OBSERVED_ENTRIES * ENTRY_BYTES);
  readonly #held = new WeakMap<Memory, Held>();
  /** By their places; what is only inherited is not among them. */
  readonly #holders: (Held | undefined)[] = [];
  /** Whose entries are to be written, and the places that are to be written as they stand. */
  readonly #changed = new Set<Held>();
  readonly #dirty = new Set<number>();
  readonly #head = Buffer.alloc(BLOCK_HEADER_BYTES);
  timer: { cancel(): void } | undefined;
  /** What whoever had the block before left behind. */
  inherited: readonly Seen[] = [];

  constructor(file: CounterFile, place: number, owner: BlockOwner) {
    this.#file = file;
    this.place = place;
    this.#owner = owner;
  }

  /** True where it is this thread's now, with what stands in it. */
  take(): boolean {
    this.#touch(this.#owner.usedMs);
    if (!this.isOurs() || !this.#file.read(blockAt(this.place) + BLOCK_HEADER_BYTES, this.#entries)) return false;
    const found: Seen[] = [];
    for (let i = 0; i < OBSERVED_ENTRIES; i++) {
      const state = entryState(this.#entries, i * ENTRY_BYTES);
      if (state === 1) found.push(readEntry(this.#entries, i * ENTRY_BYTES));
      else if (state !== 0) {
        // Its owner died while it wrote this one.
        this.#entries.fill(0, i * ENTRY_BYTES, (i + 1) * ENTRY_BYTES);
        this.#dirty.add(i);
      }
    }
    this.inherited = found.filter(({ consecutiveFailures }) => consecutiveFailures > 0);
    return true;
  }

  isOurs(): boolean {
    if (!this.#file.read(blockAt(this.place), this.#head)) return false;
    const { pid, startTicks, namespace, writer } = readOwner(this.#head);
    const own = this.#owner;
    return pid === own.pid && startTicks === own.startTicks && namespace === own.namespace && writer === own.writer;
  }

  #touch(usedMs: number): void {
    this.#head.fill(0);
    writeOwner(this.#head, { ...this.#owner, usedMs });
    this.#file.write(blockAt(this.place), this.#head);
  }

  /** Takes an outcome in: true where this backend was failing before. */
  put(memory: Memory, errno: number, ok: boolean, nowMs: number): boolean {
    let held = this.#held.get(memory);
    if (held === undefined || this.#holders[held.place] !== held) {
      held = this.#place(memory, nowMs);
      if (held === undefined) return false;
      this.#held.set(memory, held);
      this.#holders[held.place] = held;
    }
    const wasFailing = held.failing;
    if (ok) held.connects++;
    else held.failures++;
    held.failing = memory.consecutiveFailures > 0;
    held.errno = errno;
    this.#changed.add(held);
    return wasFailing;
  }

  /** Where a backend's entry is, else a free place, else that of the one that was not seen for the longest time. */
  #place(memory: Memory, nowMs: number): Held | undefined {
    const { address, port } = memory;
    const bytes = observedAddress(address);
    if (bytes === undefined) return undefined;
    const first = placeOf(bytes, port);
    const held = { memory, connects: 0, failures: 0, failing: false, errno: 0 };
    let oldest: number | undefined;
    let oldestMs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < OBSERVED_PROBES; i++) {
      const place = (first + i) % OBSERVED_ENTRIES;
      const holder = this.#holders[place];
      if (holder === undefined && entryState(this.#entries, place * ENTRY_BYTES) !== 1) return { ...held, place };
      const there = holder?.memory ?? readEntry(this.#entries, place * ENTRY_BYTES);
      if (there.address === address && there.port === port) {
        // It was there before this thread was, or this program forgot it meanwhile.
        this.inherited = this.inherited.filter((seen) => seen.address !== address || seen.port !== port);
        const { connects, failures, failing } = holder ?? countsOf(readEntry(this.#entries, place * ENTRY_BYTES));
        return { ...held, place, connects, failures, failing };
      }
      const changedMs = holder?.memory.changedAtMs ?? readEntry(this.#entries, place * ENTRY_BYTES).changedMs;
      if (changedMs < oldestMs && changedMs <= nowMs) {
        oldest = place;
        oldestMs = changedMs;
      }
    }
    return oldest === undefined ? undefined : { ...held, place: oldest };
  }

  /** Writes what is new. Only for who has just seen that the block is its own. */
  flush(nowMs: number): void {
    this.stop();
    let trouble = false;
    for (const { memory, place, connects, failures, errno } of this.#changed) {
      const at = place * ENTRY_BYTES;
      writeEntry(this.#entries, at, {
        address: memory.address,
        port: memory.port,
        consecutiveFailures: memory.consecutiveFailures,
        connects,
        failures,
        connectMicros: Math.min(0xffff_ffff, Math.round(memory.connectMs * 1_000)),
        lastErrno: errno,
        ejectedUntilMs: memory.ejectedUntilMs,
        changedMs: memory.changedAtMs,
      });
      this.#dirty.add(place);
      trouble ||= memory.consecutiveFailures > 0;
    }
    this.#changed.clear();
    for (const place of this.#dirty) {
      const at = place * ENTRY_BYTES;
      this.#file.write(blockAt(this.place) + BLOCK_HEADER_BYTES + at, this.#entries.subarray(at, at + ENTRY_BYTES));
    }
    this.#dirty.clear();
    this.#touch(nowMs);
    if (!trouble) return;
    const word = Buffer.alloc(8);
    word.writeBigUInt64LE(BigInt(nowMs));
    this.#file.write(TROUBLE_AT, word);
  }

  /** Gives the block back, with its content. */
  release(): void {
    this.#file.write(blockAt(this.place), Buffer.alloc(4));
  }

  stop(): void {
    this.timer?.cancel();
    this.timer = undefined;
  }
}
