// What other programs of the same user see of backends, and where this one tells what it sees: its user's counter file, which the C library writes, too.
import type { Clock } from "../../base/clock.ts";
import type { CounterFile, OwnProcess } from "../../base/counter-file.ts";
import type { Random } from "../../base/random.ts";
import {
  BLOCK_HEADER_BYTES,
  type BlockOwner,
  blockAt,
  CLAIMING,
  ENTRY_BYTES,
  entryState,
  FULL_UNTIL_AT,
  isObserved,
  OBSERVED_BLOCKS,
  OBSERVED_BYTES,
  OBSERVED_ENTRIES,
  observedHeader,
  readEntry,
  readOwner,
  type Seen,
} from "../../wire/hook-observed.ts";
import { Block } from "./block.ts";
import { FAILURES, type Memory, RETURN_MS } from "./memory.ts";

/** A failure that another program saw last. */
export interface SeenElsewhere {
  readonly failures: number;
  readonly ejectedUntilMs: number;
  readonly changedAtMs: number;
}

/** The user's other programs. Everything is synchronous and quick, and fails in silence: what they say is advice. */
export interface Neighbours {
  /** By "address port": the backends that somebody else saw failing last. Looked up anew at most once a second. */
  failing(nowMs: number): ReadonlyMap<string, SeenElsewhere>;
  /** Tells how a try went, after `memory` knows it. `code`: the system's error code; undefined = connected. */
  told(memory: Memory, code: string | undefined, nowMs: number): void;
}

export interface NeighboursParts {
  /** The folder of the counter files at this moment; undefined = not known. */
  readonly folder: () => string | undefined;
  /** Who this process is at this moment: it may change. */
  readonly uid: () => number | undefined;
  readonly open: (folder: string, size: number, head: Uint8Array) => CounterFile | undefined;
  readonly own: () => OwnProcess | undefined;
  readonly isAlive: (pid: number) => boolean;
  readonly startTicks: (name: string, pid: number) => bigint | undefined;
  readonly errnoOf: (code: string) => number;
  readonly atEnd: (callback: (thread: "main" | "worker") => void) => void;
  readonly clock: Pick<Clock, "now" | "after">;
  readonly random: Pick<Random, "fraction">;
}

/** How often others are read, and what went well is written. */
const LOOK_MS = 1_000;
/** Where there is no file or no block, it is looked for at most so often. */
const AGAIN_MS = 1_000;
/** So often it is looked whether the file is still the one that others have. */
const COMPARE_MS = 10_000;
/** Who was at work so lately, is asked; at most so many. */
const AT_WORK_MS = 10_000;
const MOST_ASKED = 8;
/** An owner whose number means nothing here, or another thread of this process: gone after so long without use. */
const FOREIGN_DEAD_MS = 60_000;
/** The C library takes blocks from the first one on; this one begins among so many at the end. */
const LAST_ONES = 16;
const NOBODY: ReadonlyMap<string, SeenElsewhere> = new Map();

/**
 * See `Neighbours`. Node cannot compare and swap in a file, so a block is taken by writing its owner and looking whether that stands: two that take one
 * at the same moment find out at their next look, and the loser takes another. Nobody writes a block without having looked whose it is.
 */
export function createNeighbours(parts: NeighboursParts): Neighbours {
  const { clock, random } = parts;
  let folder: string | undefined;
  let uid: number | undefined;
  let uidMs = Number.NEGATIVE_INFINITY;
  let file: CounterFile | undefined;
  let openedMs = Number.NEGATIVE_INFINITY;
  let comparedMs = Number.NEGATIVE_INFINITY;
  let lookedMs = Number.NEGATIVE_INFINITY;
  let failing: ReadonlyMap<string, SeenElsewhere> = NOBODY;
  let own: Block | undefined;
  let claimedMs = Number.NEGATIVE_INFINITY;
  let ending = false;
  const head = Buffer.alloc(BLOCK_HEADER_BYTES);
  const within = (thenMs: number, ms: number, nowMs: number): boolean => thenMs <= nowMs && nowMs - thenMs < ms;

  const theFile = (nowMs: number): CounterFile | undefined => {
    const where = parts.folder();
    let isSame = where === folder;
    // A program may become another user, but not often; asking costs more than all the rest.
    if (!within(uidMs, LOOK_MS, nowMs)) {
      uidMs = nowMs;
      isSame &&= parts.uid() === uid;
    }
    if (file !== undefined && !within(comparedMs, COMPARE_MS, nowMs)) {
      comparedMs = nowMs;
      // It was cleared away, perhaps with its folder.
      isSame &&= !file.isReplaced();
    }
    if (isSame && (file !== undefined || within(openedMs, AGAIN_MS, nowMs))) return file;
    openedMs = nowMs;
    comparedMs = nowMs;
    own?.stop();
    own = undefined;
    file?.close();
    folder = where;
    uid = parts.uid();
    file = where === undefined ? undefined : parts.open(where, OBSERVED_BYTES, observedHeader());
    if (file !== undefined && !(file.read(0, head) && isObserved(head))) {
      file.close();
      file = undefined;
    }
    return file;
  };

  const ownerOf = (from: CounterFile, place: number): BlockOwner | undefined =>
    from.read(blockAt(place), head) ? readOwner(head) : undefined;

  const isFree = (owner: BlockOwner, self: OwnProcess, nowMs: number): boolean => {
    if (owner.pid === 0) return true;
    const lately = within(owner.usedMs, FOREIGN_DEAD_MS, nowMs);
    const claiming = (owner.pid & CLAIMING) !== 0;
    const pid = (owner.pid & ~CLAIMING) >>> 0;
    if (!claiming && (owner.namespace !== self.namespace || (pid === self.pid && owner.startTicks === self.startTicks)))
      return !lately;
    if (pid === 0 || !parts.isAlive(pid)) return true;
    if (claiming || lately) return false;
    const began = parts.startTicks(String(pid), pid);
    return began !== undefined && began !== owner.startTicks;
  };

  const claim = (from: CounterFile, nowMs: number): Block | undefined => {
    const self = parts.own();
    const full = Buffer.alloc(8);
    if (self === undefined || !from.read(FULL_UNTIL_AT, full)) return undefined;
    const fullUntilMs = Number(full.readBigUInt64LE());
    if (fullUntilMs > nowMs && fullUntilMs - nowMs <= AGAIN_MS) return undefined;
    const writer =
      (BigInt(Math.floor(random.fraction() * 2 ** 32)) << 32n) | BigInt(Math.floor(random.fraction() * 2 ** 32)) | 1n;
    const first = OBSERVED_BLOCKS - 1 - Math.floor(random.fraction() * LAST_ONES);
    for (let i = 0; i < OBSERVED_BLOCKS; i++) {
      const place = (first - i + OBSERVED_BLOCKS) % OBSERVED_BLOCKS;
      const owner = ownerOf(from, place);
      if (owner === undefined) return undefined;
      if (!isFree(owner, self, nowMs)) continue;
      const block = new Block(from, place, { ...self, usedMs: nowMs, writer });
      if (block.take()) return block;
    }
    return undefined;
  };

  /** This thread's block, where it can have one. Whether it still is, is asked before it is written. */
  const theBlock = (nowMs: number): Block | undefined => {
    const from = theFile(nowMs);
    if (from === undefined || own !== undefined) return own;
    if (within(claimedMs, AGAIN_MS, nowMs)) return undefined;
    claimedMs = nowMs;
    own = claim(from, nowMs);
    if (own !== undefined && !ending) {
      ending = true;
      parts.atEnd((thread) => {
        const last = own;
        // A process that ended is seen; a thread is not.
        if (last !== undefined && write(last, clock.now()) && thread === "worker") last.release();
      });
    }
    return own;
  };

  /** False where somebody else has the block: what it was told is lost, and the next outcome takes another one. */
  const write = (block: Block, nowMs: number): boolean => {
    const ours = block.isOurs();
    if (ours) block.flush(nowMs);
    else {
      block.stop();
      if (own === block) own = undefined;
    }
    return ours;
  };

  const look = (from: CounterFile, nowMs: number): ReadonlyMap<string, SeenElsewhere> => {
    const last = new Map<string, SeenElsewhere>();
    const take = ({
      address,
      port,
      consecutiveFailures: failures,
      ejectedUntilMs,
      changedMs: changedAtMs,
    }: Seen): void => {
      const key = `${address} ${port}`;
      if (changedAtMs <= nowMs && changedAtMs > (last.get(key)?.changedAtMs ?? 0))
        last.set(key, { failures, ejectedUntilMs, changedAtMs });
    };
    const bytes = Buffer.alloc(OBSERVED_ENTRIES * ENTRY_BYTES);
    let asked = 0;
    for (let place = 0; place < OBSERVED_BLOCKS && asked < MOST_ASKED; place++) {
      if (place === own?.place) continue;
      const owner = ownerOf(from, place);
      if (owner === undefined || owner.pid === 0 || !within(owner.usedMs, AT_WORK_MS, nowMs)) continue;
      if (!from.read(blockAt(place) + BLOCK_HEADER_BYTES, bytes)) continue;
      asked++;
      for (let at = 0; at < bytes.length; at += ENTRY_BYTES)
        if (entryState(bytes, at) === 1) take(readEntry(bytes, at));
    }
    for (const seen of own?.inherited ?? []) take(seen);
    for (const [key, { failures, ejectedUntilMs }] of last)
      if (failures === 0 || ejectedUntilMs + RETURN_MS <= nowMs) last.delete(key);
    return last.size === 0 ? NOBODY : last;
  };

  return {
    failing(nowMs) {
      if (within(lookedMs, LOOK_MS, nowMs)) return failing;
      lookedMs = nowMs;
      const from = theFile(nowMs);
      failing = from === undefined ? NOBODY : look(from, nowMs);
      return failing;
    },
    told(memory, code, nowMs) {
      if (code !== undefined && !FAILURES.has(code)) return;
      const errno = code === undefined ? 0 : parts.errnoOf(code);
      const block = theBlock(nowMs);
      if (block === undefined) return;
      // Others should know at once who is gone and who is back; how often all went well can wait.
      if (!block.put(memory, errno, code === undefined, nowMs) && code === undefined)
        block.timer ??= clock.after(LOOK_MS, () => write(block, clock.now()));
      else if (!write(block, nowMs)) {
        claimedMs = Number.NEGATIVE_INFINITY;
        const another = theBlock(nowMs);
        another?.put(memory, errno, code === undefined, nowMs);
        if (another !== undefined) write(another, nowMs);
      }
    },
  };
}
