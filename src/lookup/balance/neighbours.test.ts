// Programs of one user that tell each other by one file: who fails is avoided by all, whoever takes a block, loses it or dies.
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../../test/support/lookup.ts";
import {
  decodeObserved,
  FULL_UNTIL_AT,
  OBSERVED_BLOCKS,
  OBSERVED_BYTES,
  type Seen,
  TROUBLE_AT,
} from "../../wire/hook-observed.ts";
import type { Balancer, Target } from "./balancer.ts";
import { createBalancer } from "./create.ts";
import { createNeighbours, type NeighboursParts } from "./neighbours.ts";

const START = 1_800_000_000_000;
const LIST = [1, 2, 3].map((i) => ({ address: i === 3 ? "fd00::3" : `10.0.0.${i}`, port: 80 + i, weight: 1 }));

/** A host with one user's file. */
function host() {
  const clock = { nowMs: START };
  const alive = new Set<number>();
  /** When the process that has a number now began; undefined = nobody can tell. */
  const began = new Map<number, bigint | undefined>();
  const closed: number[] = [];
  let bytes: Buffer | undefined;
  const timers: (() => void)[] = [];
  let beforeWrite: ((offset: number) => void) | undefined;
  const parts = (pid: number, thread = "main"): NeighboursParts & { end(): void } => {
    alive.add(pid);
    let ended: ((thread: "main" | "worker") => void) | undefined;
    return {
      folder: () => "/run/trilith/observed",
      uid: () => 1000,
      open(_, size, head) {
        if (bytes === undefined) {
          bytes = Buffer.alloc(size);
          bytes.set(head);
        }
        const all = bytes;
        return {
          read(offset, into) {
            into.set(all.subarray(offset, offset + into.length));
            return true;
          },
          write(offset, given) {
            const hook = beforeWrite;
            beforeWrite = undefined;
            hook?.(offset);
            all.set(given, offset);
            return true;
          },
          isReplaced: () => bytes !== all,
          close: () => void closed.push(pid),
        };
      },
      own: () => ({ pid, uid: 1000, startTicks: BigInt(pid * 10), namespace: 1n }),
      isAlive: (each) => alive.has(each),
      startTicks: (_, each) => (began.has(each) ? began.get(each) : BigInt(each * 10)),
      errnoOf: (code) => (code === "ECONNREFUSED" ? 111 : 110),
      atEnd(callback) {
        ended = callback;
      },
      end: () => ended?.(thread as "main"),
      clock: {
        now: () => clock.nowMs,
        after(_, callback) {
          timers.push(callback);
          return { cancel: () => void timers.splice(timers.indexOf(callback), 1) };
        },
      },
      random: seededRandom(pid + thread.length),
    };
  };
  const program = (pid: number, own = parts(pid)): Balancer =>
    createBalancer({ clock: { now: () => clock.nowMs }, random: own.random, neighbours: createNeighbours(own) });
  return {
    clock,
    alive,
    began,
    closed,
    parts,
    program,
    timers,
    wait(ms: number) {
      clock.nowMs += ms;
    },
    blocks: () => decodeObserved(bytes as Buffer),
    troubleMs: (): number => Number((bytes as Buffer).readBigUInt64LE(TROUBLE_AT)),
    entries: (): Seen[] => decodeObserved(bytes as Buffer).flatMap(({ entries }) => [...entries.values()]),
    /** Somebody found every block taken, and says until when that is believed. */
    allTaken(untilMs: number) {
      (bytes as Buffer).writeBigUInt64LE(BigInt(untilMs), FULL_UNTIL_AT);
    },
    clearAway() {
      bytes = undefined;
    },
    set beforeWrite(hook: (offset: number) => void) {
      beforeWrite = hook;
    },
  };
}

const first = (one: Balancer): Target => one.order("web", LIST, { policy: "first" })[0] as Target;
const report = (one: Balancer, port: number, ok = false): void => {
  const target = one.order("web", LIST, { limit: 3 }).find((each) => each.port === port) as Target;
  one.report(target, ok ? { ok, tookMs: 2 } : { ok, code: "ECONNREFUSED" });
};

describe("the programs of a user", () => {
  it("find the next file where theirs was cleared away", () => {
    const here = host();
    const [one, two] = [here.program(1), here.program(2)];
    report(one, 81);
    report(two, 82);
    here.clearAway();
    here.wait(11_000);
    report(one, 83);
    here.wait(1_000);
    expect(first(two).port).toBe(81);
    expect(here.entries().map(({ port }) => port)).toEqual([83]);
    report(two, 82);
    expect(
      here
        .entries()
        .map(({ port }) => port)
        .sort(),
    ).toEqual([82, 83]);
  });

  it("learn from one another who fails and who is back, and the file says what was seen", () => {
    const here = host();
    const [one, two] = [here.program(1), here.program(2)];
    expect([first(one).port, first(two).port]).toEqual([81, 81]);
    report(one, 81);
    expect(here.troubleMs()).toBe(START);
    here.wait(1_000);
    expect(first(two).port).toBe(82);
    expect(here.entries()).toMatchObject([
      {
        address: "10.0.0.1",
        port: 81,
        consecutiveFailures: 1,
        failures: 1,
        connects: 0,
        lastErrno: 111,
        changedMs: START,
      },
    ]);
    // Its ejection is over, but whether it is back is for the one who saw it go.
    here.wait(5_000);
    expect(first(two).port).toBe(82);
    report(one, 81, true);
    here.wait(1_000);
    expect([first(two).port, here.troubleMs()]).toEqual([81, START]);
    expect(here.entries()).toMatchObject([{ consecutiveFailures: 0, failures: 1, connects: 1, connectMicros: 2_000 }]);
    report(two, 83);
    expect(here.entries().map(({ address }) => address)).toContain("fd00::3");
    expect(new Set(here.blocks().map(({ pid }) => pid))).toEqual(new Set([1, 2]));
  });

  it("believe themselves about what they have just tried, and others no longer than they know", () => {
    const here = host();
    const [one, two] = [here.program(1), here.program(2)];
    report(two, 81, true);
    here.wait(1);
    report(one, 81);
    here.wait(500);
    expect(first(two).port).toBe(81);
    here.wait(600);
    expect(first(two).port).toBe(82);
    here.wait(12_000);
    expect(first(two).port).toBe(81);
  });

  it("write at once who failed or is back, and the rest within a second or at their end", () => {
    const here = host();
    const parts = here.parts(1);
    const one = here.program(1, parts);
    report(one, 81, true);
    expect([here.entries(), here.timers.length]).toEqual([[], 1]);
    here.timers[0]?.();
    expect(here.entries()).toMatchObject([{ connects: 1 }]);
    report(one, 81, true);
    report(one, 82, true);
    parts.end();
    expect(
      here
        .entries()
        .map(({ connects }) => connects)
        .sort(),
    ).toEqual([1, 2]);
    expect(here.blocks()[0]?.pid).toBe(1);
  });

  it("take the block of a dead one with what it saw, and give a thread's back", () => {
    const here = host();
    for (let pid = 1; pid <= OBSERVED_BLOCKS; pid++) report(here.program(pid), 82);
    expect(new Set(here.blocks().map(({ place }) => place)).size).toBe(OBSERVED_BLOCKS);
    // Nothing is left: it keeps to itself.
    const late = here.program(100);
    report(late, 81);
    expect(here.entries().every(({ port }) => port === 82)).toBe(true);
    here.alive.delete(7);
    here.wait(2_000);
    report(late, 81);
    expect(here.blocks().find(({ pid }) => pid === 100)?.entries.size).toBe(2);
    for (const pid of [...here.alive]) if (pid !== 100) here.alive.delete(pid);
    expect(first(late).port).toBe(83);
    const thread = here.parts(200, "worker");
    report(here.program(200, thread), 81);
    expect(here.blocks().some(({ pid }) => pid === 200)).toBe(true);
    thread.end();
    expect(here.blocks().some(({ pid }) => pid === 200)).toBe(false);
  });

  it("take the block of a process whose number another one has now, and nobody's of whom that cannot be told", () => {
    const here = host();
    for (let pid = 1; pid <= OBSERVED_BLOCKS; pid++) report(here.program(pid), 82);
    here.began.set(7, 71n);
    here.began.set(8, undefined);
    const late = here.program(100);
    here.wait(59_000);
    // Used less than a minute ago: a process that is there is believed without asking since when.
    report(late, 81);
    expect(here.blocks().map(({ pid }) => pid)).not.toContain(100);
    here.wait(2_000);
    report(late, 81);
    expect(
      here
        .blocks()
        .map(({ pid }) => pid)
        .sort((a, b) => a - b),
    ).toEqual([...Array.from({ length: OBSERVED_BLOCKS }, (_, i) => i + 1).filter((pid) => pid !== 7), 100]);
    report(here.program(101), 81);
    expect(here.blocks().map(({ pid }) => pid)).not.toContain(101);
  });

  it("take a block among the last ones first: the C library takes the first ones", () => {
    const places = Array.from({ length: 40 }, (_, i) => {
      const here = host();
      report(here.program(1 + i * 7), 81);
      return here.blocks()[0]?.place ?? -1;
    });
    expect(Math.min(...places)).toBeGreaterThanOrEqual(OBSERVED_BLOCKS - 16);
    expect(new Set(places).size).toBeGreaterThan(8);
  });

  it("look for no block where somebody has just found none, for as long as that can be meant", () => {
    const here = host();
    report(here.program(1), 81);
    here.allTaken(here.clock.nowMs + 900);
    const late = here.program(2);
    report(late, 82);
    here.wait(800);
    report(late, 82);
    expect(here.blocks().map(({ pid }) => pid)).toEqual([1]);
    here.wait(201);
    report(late, 82);
    expect(here.blocks().map(({ pid }) => pid)).toContain(2);
    // Nobody says so for longer than a second: a clock was put back, or the file is spoilt.
    here.allTaken(here.clock.nowMs + 60_000);
    report(here.program(3), 83);
    expect(here.blocks().map(({ pid }) => pid)).toContain(3);
  });

  it("tell nothing of what says nothing about a backend", () => {
    const here = host();
    const one = here.program(1);
    report(one, 81);
    here.wait(31_000);
    const target = one.order("web", LIST, { limit: 3 }).find(({ port }) => port === 81) as Target;
    for (const code of ["EMFILE", "EADDRNOTAVAIL", "EACCES", "EINTR"]) one.report(target, { ok: false, code });
    for (const write of [...here.timers]) write();
    expect(here.entries()).toMatchObject([{ port: 81, failures: 1, lastErrno: 111, changedMs: START }]);
    one.report(target, { ok: false, code: "ETIMEDOUT" });
    expect(here.entries()).toMatchObject([{ port: 81, failures: 2, lastErrno: 110 }]);
  });

  it("become another user's where the program does, and leave the file of the one before", () => {
    const here = host();
    let uid = 1000;
    const opened: number[] = [];
    const own = here.parts(1);
    const one = here.program(1, {
      ...own,
      uid: () => uid,
      open(...given) {
        opened.push(uid);
        return own.open(...given);
      },
    });
    report(one, 81);
    here.wait(2_000);
    report(one, 82);
    expect([opened, here.closed]).toEqual([[1000], []]);
    uid = 0;
    here.wait(2_000);
    report(one, 83);
    expect([opened, here.closed]).toEqual([[1000, 0], [1]]);
  });

  it("find out when two took one block at the same moment, and lose nothing that comes later", () => {
    const here = host();
    const mine = { ...here.parts(1), random: { fraction: () => 0.5 } };
    const other = { ...here.parts(2), random: { fraction: () => 0.5 } };
    const [one, two] = [here.program(1, mine), here.program(2, other)];
    // Between another one's look and its write.
    here.beforeWrite = () => report(two, 82);
    report(one, 81);
    expect(here.blocks().map(({ pid }) => pid)).toEqual([1]);
    here.wait(2_000);
    report(two, 83);
    expect(
      here
        .blocks()
        .map(({ pid }) => pid)
        .sort(),
    ).toEqual([1, 2]);
    report(one, 81);
    const of = (pid: number): number[] =>
      [
        ...(here
          .blocks()
          .find((each) => each.pid === pid)
          ?.entries.values() ?? []),
      ].map(({ port }) => port);
    expect([of(1).includes(81), of(2)]).toEqual([true, [83]]);
  });

  it("make room in a full block for whom they see now", () => {
    const here = host();
    const one = here.program(1);
    for (let i = 0; i < 400; i++) {
      const [target] = one.order("many", [{ address: "10.1.1.1", port: 1 + i, weight: 1 }]) as [Target];
      here.wait(1);
      one.report(target, { ok: false, code: "ETIMEDOUT" });
    }
    const ports = here.entries().map(({ port }) => port);
    expect(ports.length).toBeLessThanOrEqual(256);
    expect([new Set(ports).size, ports.includes(400)]).toEqual([ports.length, true]);
    expect(OBSERVED_BYTES).toBeGreaterThan(1 << 20);
  });
});
