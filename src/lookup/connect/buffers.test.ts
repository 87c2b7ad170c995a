// Buffers that connections share: nobody's bytes are another's, and who is silent has none.
import { EventEmitter } from "node:events";
import fc from "fast-check";
import { expect, it } from "vitest";
import { systemClock } from "../../base/clock.ts";
import { BufferPool, ReadBuffer } from "./buffers.ts";
import { Relay } from "./relay.ts";

/** A direction as a socket and its relay use it: the socket learns only right after a read where the next one goes. */
class Direction {
  readonly read: ReadBuffer;
  into: Uint8Array;
  held: { readonly bytes: Uint8Array; readonly mark: number } | undefined;

  constructor(pool: BufferPool) {
    this.read = new ReadBuffer(pool);
    this.into = this.read.next;
  }

  /** The kernel fills so much of the buffer with its mark; at once written, or held. */
  takes(share: number, mark: number, atOnce: boolean): void {
    const bytes = Math.max(1, Math.floor(this.into.length * share));
    this.into.fill(mark, 0, bytes);
    const kept = this.read.hold(bytes, this.into);
    expect(kept).toHaveLength(bytes);
    expect(kept.every((byte) => byte === mark)).toBe(true);
    if (atOnce) this.read.done(bytes);
    else this.held = { bytes: kept, mark };
    this.into = this.read.next;
  }

  settles(): void {
    this.held = undefined;
    this.read.settle();
  }
}

it("what one direction holds nobody writes into, however others read", () => {
  const step = fc.record({
    who: fc.nat({ max: 4 }),
    share: fc.constantFrom(0.001, 0.03, 0.06, 0.5, 1),
    mark: fc.integer({ min: 1, max: 255 }),
    atOnce: fc.boolean(),
    times: fc.constantFrom(1, 1, 1, 33),
    ends: fc.constantFrom(false, false, false, false, true),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const pool = new BufferPool();
      const all = Array.from({ length: 5 }, () => new Direction(pool));
      /** What is still on its way out when a connection ends. */
      const late: Direction[] = [];
      for (const { who, share, mark, atOnce, times, ends } of steps) {
        const one = all[who] as Direction;
        if (ends) {
          one.read.release();
          late.push(one);
          all[who] = new Direction(pool);
        } else if (one.held !== undefined) one.settles();
        else for (let i = 0; i < times && one.held === undefined; i++) one.takes(share, mark, atOnce);
        for (const { held } of [...all, ...late])
          if (held !== undefined) {
            expect(held.bytes[0]).toBe(held.mark);
            expect(held.bytes.at(-1)).toBe(held.mark);
            expect(held.bytes[held.bytes.length >> 1]).toBe(held.mark);
          }
      }
    }),
    { numRuns: 60 },
  );
});

it("who is silent shares one buffer; who says much has a large one until it is quiet again", () => {
  const pool = new BufferPool();
  const [one, other] = [new Direction(pool), new Direction(pool)];
  expect([one.into, other.into]).toEqual([pool.shared, pool.shared]);
  one.takes(0.5, 1, true);
  expect(one.into).toBe(pool.shared);
  one.takes(1, 1, true);
  expect(one.into).toHaveLength(262_144);
  expect(other.into).toBe(pool.shared);
  for (let i = 0; i < 32; i++) one.takes(0.001, 1, true);
  expect(one.into).toBe(pool.shared);
  // What is still being sent when its connection ends goes to nobody.
  one.takes(1, 1, true);
  const large = one.into;
  one.takes(0.5, 1, false);
  one.read.release();
  expect(pool.take(large.length)).not.toBe(large);
});

it("keeps a large one for 32 small reads in a row, counted anew after each that would not fit in the shared one", () => {
  const pool = new BufferPool();
  const one = new Direction(pool);
  const small = (times: number): void => {
    for (let i = 0; i < times; i++) one.takes(0.06, 1, true); // 15,728 bytes
  };
  one.takes(1, 1, true);
  expect(one.into).toHaveLength(262_144);
  small(31);
  expect(one.into).toHaveLength(262_144);
  one.takes(0.063, 1, true); // 16,515 bytes
  small(31);
  expect(one.into).toHaveLength(262_144);
  small(1);
  expect(one.into).toBe(pool.shared);
  // The next time it begins from nothing, too.
  one.takes(1, 1, true);
  small(31);
  expect(one.into).toHaveLength(262_144);
});

it("lies in wait with 16 MiB at most, of both sizes together", () => {
  const pool = new BufferPool();
  const large = Array.from({ length: 100 }, () => pool.take(262_144));
  const small = Array.from({ length: 100 }, () => pool.take(16_384));
  for (const buffer of large.slice(0, 63)) pool.give(buffer);
  for (const buffer of [...small, ...large.slice(63)]) pool.give(buffer);
  const kept = new Set([...large, ...small]);
  const again = (bytes: number): Buffer[] => {
    const taken: Buffer[] = [];
    for (let one = pool.take(bytes); kept.has(one); one = pool.take(bytes)) taken.push(one);
    return taken;
  };
  expect([again(262_144).length, again(16_384).length]).toEqual([63, 16]);
  // What was taken again makes room.
  for (const buffer of large) pool.give(buffer);
  expect(again(262_144).length).toBe(64);
});

/** As much of a socket as a relay uses; what is written stays unwritten while `stuck`. */
class FakeSocket extends EventEmitter {
  stuck = false;
  destroyed = false;
  readonly written: Uint8Array[] = [];
  get writableLength(): number {
    return this.stuck ? 1 : 0;
  }
  write(bytes: Uint8Array): void {
    this.written.push(bytes);
  }
  resume(): void {}
}

it("a socket that goes on after a wait reads where it was told before, and nobody else does", () => {
  const pool = new BufferPool();
  const owner = { clock: systemClock, pool, passed() {}, lost: () => false, over() {} };
  const relay = new Relay(owner);
  const [client, backend] = [new FakeSocket(), new FakeSocket()];
  relay.begin(client as never);
  relay.meet(backend as never);
  let into = relay.up.buffer();
  const reads = (bytes: number): void => {
    relay.up.read(bytes, into);
    into = relay.up.buffer();
  };
  reads(into.length);
  expect(into).toHaveLength(262_144);
  for (let i = 0; i < 31; i++) reads(10);
  backend.stuck = true;
  reads(10);
  backend.stuck = false;
  backend.emit("drain");
  const another = pool.take(262_144);
  expect(another).not.toBe(into);
  into.fill(7, 0, 10);
  another.fill(8);
  reads(10);
  expect([...(backend.written.at(-1) ?? [])]).toEqual(Array(10).fill(7));
});
