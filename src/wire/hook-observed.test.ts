// Observations of hooked programs: what goes in comes out; whatever stands in a file that anybody may write, it is read or told to be none.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InputError } from "../base/error.ts";
import { ipBytes, ipText } from "./dns/address.ts";
import {
  decodeObserved,
  encodeObserved,
  OBSERVED_BLOCKS,
  OBSERVED_BYTES,
  OBSERVED_ENTRIES,
  type Seen,
  type SeenBlock,
} from "./hook-observed.ts";

const u32 = fc.nat(0xffff_ffff);
const seen: fc.Arbitrary<Seen> = fc.record({
  address: fc
    .oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 }))
    .map((bytes) => ipText(ipBytes(ipText(bytes))!)),
  port: fc.nat(0xffff),
  consecutiveFailures: u32,
  connects: fc.maxSafeNat(),
  failures: fc.maxSafeNat(),
  connectMicros: u32,
  lastErrno: u32,
  ejectedUntilMs: fc.maxSafeNat(),
  changedMs: fc.maxSafeNat(),
});
const block: fc.Arbitrary<SeenBlock> = fc.record({
  place: fc.nat(OBSERVED_BLOCKS - 1),
  pid: fc.integer({ min: 1, max: 0xffff_ffff }),
  uid: u32,
  startTicks: fc.maxSafeNat(),
  namespace: fc.maxSafeNat(),
  lastUsedMs: fc.maxSafeNat(),
  entries: fc
    .uniqueArray(fc.tuple(fc.nat(OBSERVED_ENTRIES - 1), seen), { selector: ([place]) => place, maxLength: 5 })
    .map((list) => new Map(list.toSorted(([a], [b]) => a - b))),
});
const blocks = fc
  .uniqueArray(block, { selector: ({ place }) => place, maxLength: 4 })
  .map((list) => list.toSorted((a, b) => a.place - b.place));

describe("observations", () => {
  test("what goes in comes out", () => {
    fc.assert(
      fc.property(blocks, (list) => {
        expect(decodeObserved(encodeObserved(list))).toEqual(list);
      }),
      { numRuns: 20 },
    );
  });

  test("each field stands where the library writes it", () => {
    const one: Seen = {
      address: "10.0.0.7",
      port: 8080,
      consecutiveFailures: 2,
      connects: 3,
      failures: 4,
      connectMicros: 5,
      lastErrno: 111,
      ejectedUntilMs: 6,
      changedMs: 7,
    };
    const bytes = Buffer.from(
      encodeObserved([
        { place: 1, pid: 42, uid: 1000, startTicks: 9, namespace: 10, lastUsedMs: 11, entries: new Map([[2, one]]) },
      ]),
    );
    expect(bytes.length).toBe(64 + 64 * (64 + 256 * 64));
    expect(bytes.toString("latin1", 0, 8)).toBe("TRILSEEN");
    expect([8, 12, 16, 20].map((at) => bytes.readUInt32LE(at))).toEqual([1, 64, 256, 64 + 256 * 64]);
    const at = 64 + 64 + 256 * 64;
    expect([bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4)]).toEqual([42, 1000]);
    expect([8, 16, 24].map((field) => Number(bytes.readBigUInt64LE(at + field)))).toEqual([9, 10, 11]);
    const entry = at + 64 + 2 * 64;
    expect([...bytes.subarray(entry, entry + 16)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 7]);
    expect([bytes.readUInt16LE(entry + 16), bytes.readUInt16LE(entry + 18)]).toEqual([8080, 1]);
    expect([20, 40, 44].map((field) => bytes.readUInt32LE(entry + field))).toEqual([2, 5, 111]);
    expect([24, 32, 48, 56].map((field) => Number(bytes.readBigUInt64LE(entry + field)))).toEqual([3, 4, 6, 7]);
  });

  test("what is no such file is told to be none", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(() => decodeObserved(bytes)).toThrow(InputError);
      }),
    );
    expect(() => decodeObserved(new Uint8Array(OBSERVED_BYTES))).toThrow(/header is another/);
  });

  test("garbage in the blocks is read without harm", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(), u32), { minLength: 1, maxLength: 200 }), (changes) => {
        const bytes = Buffer.from(encodeObserved([]));
        bytes.fill(0xff, 64, 5_000);
        for (const [at, value] of changes) bytes.writeUInt32LE(value, 64 + (at % ((bytes.length - 64) >> 2)) * 4);
        for (const { entries } of decodeObserved(bytes))
          for (const each of entries.values()) {
            expect(Number.isSafeInteger(each.failures)).toBe(true);
            expect(ipBytes(each.address)).toBeDefined();
          }
      }),
      { numRuns: 30 },
    );
  });
});
