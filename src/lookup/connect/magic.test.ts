// Magic addresses: kept for good and never given twice, whatever is asked in which order; wrong ranges are refused with what would be right.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Durable, memoryDurable } from "../../base/durable.ts";
import { TrilithError } from "../../base/error.ts";
import type { Interface } from "../../base/net.ts";
import { systemRandom } from "../../base/random.ts";
import { type Magic, type Subject, subjectOf, subjectText } from "../../contracts/magic.ts";
import type { Settings } from "../../contracts/settings.ts";
import { createMagic } from "./magic.ts";

const make = (
  settings: NonNullable<Settings["magic"]> = {},
  durable: Durable = memoryDurable(),
  interfaces: readonly Interface[] = [],
): Promise<Magic> => createMagic({ durable, random: systemRandom, settings, interfaces: () => interfaces });

const name = fc.oneof(fc.constantFrom("web", "a/b", "a%2Fb", "db\u0001"), fc.string({ minLength: 1, maxLength: 12 }));
const subject: fc.Arbitrary<Subject> = fc.record({ service: name, tag: name }, { requiredKeys: ["service"] });
const small = ({ service, tag }: Subject): Subject =>
  tag === undefined ? { service: service.toLowerCase() } : { service: service.toLowerCase(), tag: tag.toLowerCase() };

describe("subjects", () => {
  test("a subject's text is one to one", () => {
    fc.assert(
      fc.property(subject, (each) => {
        expect(subjectOf(subjectText(each))).toEqual(small(each));
      }),
    );
    expect(subjectText({ service: "Web", tag: "Primary" })).toBe("web/primary");
  });
});

describe("addresses", () => {
  test("each has its own, found again by either address and after a restart, in whatever order it is asked", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(subject, { maxLength: 40 }),
        fc.array(subject, { maxLength: 40 }),
        async (first, second) => {
          const durable = memoryDurable();
          // Small, so that many meet.
          const settings = { v4: "127.200.0.0/24", v6: "fd00:1:2::/48" };
          const before = await make(settings, durable);
          const given = new Map<string, string>();
          for (const each of first) given.set(subjectText(each), before.of(each).v4);
          await before.kept();
          const after = await make(settings, durable);
          for (const each of [...second, ...first])
            given.set(subjectText(each), given.get(subjectText(each)) ?? after.of(each).v4);
          expect(new Set(given.values()).size).toBe(given.size);
          for (const each of [...first, ...second]) {
            const { v4, v6, slot } = after.of(each);
            expect(v4).toBe(given.get(subjectText(each)));
            expect(v4).toMatch(/^127\.200\.0\./);
            expect(slot).toBeGreaterThan(0);
            expect(slot).toBeLessThanOrEqual(254);
            for (const address of [v4, v6, `::ffff:${v4}`]) expect(after.subjectAt(address)).toEqual(small(each));
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  test("what nobody has and what lies outside is nobody's", async () => {
    const magic = await make();
    const { v4, v6, slot } = magic.of({ service: "web" });
    expect(v4).toMatch(/^127\.(1[3-9]\d|12[89]|2\d\d)\./);
    expect(v6).toMatch(/^fd/);
    for (const address of ["127.0.0.1", "127.128.0.0", "127.255.255.255", "10.0.0.1", "::1", "fd00::1", "web", ""])
      expect(magic.subjectAt(address), address).toBeUndefined();
    expect(magic.subjectAt(v6.replace(/^fd../, "fc00"))).toBeUndefined();
    expect(magic.range).toMatchObject({
      v4: { base: 0x7f800000, bits: 9, text: "127.128.0.0/9" },
      capacity: 2 ** 23 - 2,
    });
    expect(slot).toBeLessThanOrEqual(magic.range.capacity);
  });

  test("the IPv6 range is made once and kept", async () => {
    const durable = memoryDurable();
    const first = await make({}, durable);
    expect((await make({}, durable)).range).toEqual(first.range);
    expect((await make()).range.v6.text).not.toBe(first.range.v6.text);
    expect([...first.range.v6.prefix.subarray(6)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  });

  test("a full range says so, and what has an address keeps it", async () => {
    const magic = await make({ v4: "127.200.0.0/28" });
    const all = Array.from({ length: 14 }, (_, i) => magic.of({ service: `s${i}` }).slot);
    expect(all.toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    expect(() => magic.of({ service: "one-more" })).toThrow(
      /no magic address is left for "one-more": all 14 of 127.200.0.0\/28/,
    );
    expect(magic.of({ service: "s3" }).slot).toBe(all[3]);
  });

  test("a range made smaller and larger again gives no slot a second time", async () => {
    const durable = memoryDurable();
    const text = (i: number): Subject => ({ service: `s${i}` });
    const large = await make({}, durable);
    const first = Array.from({ length: 10 }, (_, i) => large.of(text(i)).slot);
    await large.kept();
    const tiny = await make({ v4: "127.200.0.0/27" }, durable);
    const second = Array.from({ length: 10 }, (_, i) => tiny.of(text(i)).slot);
    expect(new Set(second).size).toBe(10);
    await tiny.kept();
    const again = await make({}, durable);
    const taken = new Set([...first, ...second]);
    for (let i = 0; i < 500; i++) expect(taken.has(again.of({ service: `new${i}` }).slot)).toBe(false);
    for (const [i, slot] of first.entries())
      expect(again.subjectAt(`127.${128 + (slot >> 16)}.${(slot >> 8) & 255}.${slot & 255}`)).toEqual(text(i));
  });

  test("what could not be kept is told, and kept with the next try", async () => {
    const durable = memoryDurable();
    let full = true;
    const failing: Durable = {
      ...durable,
      write: (writes) => (full ? Promise.reject(new TrilithError("disk-full", "no room")) : durable.write(writes)),
    };
    const magic = await make({ v6: "fd00:1:2::/48" }, failing);
    const { v4 } = magic.of({ service: "web" });
    expect(magic.settled).toBe(false);
    await expect(magic.kept()).rejects.toThrow("no room");
    expect(magic.settled).toBe(false);
    full = false;
    const kept = magic.kept();
    expect(magic.settled).toBe(false);
    await kept;
    expect(magic.settled).toBe(true);
    expect((await make({ v6: "fd00:1:2::/48" }, durable)).subjectAt(v4)).toEqual({ service: "web" });
  });
});

describe("ranges", () => {
  test.each([
    [{ v4: "127.128.0.0" }, /magic.v4: expected a range such as "127.128.0.0\/9", but got "127.128.0.0"/],
    [{ v4: "x/9" }, /magic.v4: expected a range/],
    [{ v4: "127.129.0.0/9" }, /do you mean 127.128.0.0\/9\?/],
    [{ v4: "127.0.0.0/8" }, /holds 127.0.0.1/],
    [{ v4: "126.0.0.0/7" }, /expected a range from \/8 to \/28/],
    [{ v4: "127.200.0.0/30" }, /expected a range from \/8 to \/28/],
    [{ v4: "224.0.0.0/8" }, /no program can connect to/],
    [{ v4: "0.0.0.0/8" }, /no program can connect to/],
    [{ v4: "8.8.8.0/24" }, /holds addresses of the internet/],
    [{ v4: "172.0.0.0/8" }, /holds addresses of the internet/],
    [{ v6: "fd00::" }, /magic.v6: expected a range such as/],
    [{ v6: "2001:db8::/48" }, /expected a unique local range/],
    [{ v6: "fd00::1/48" }, /the bits after \/48 must be 0/],
    [{ v6: "fd00::/97" }, /from \/8 to \/96/],
  ])("%j is refused", async (settings, told) => {
    await expect(make(settings)).rejects.toThrow(told);
  });

  test.each([
    "127.200.0.0/16",
    "10.0.0.0/8",
    "172.31.0.0/16",
    "192.168.7.0/24",
    "100.64.0.0/10",
    "198.19.0.0/16",
    "240.0.0.0/8",
  ])("%s is taken", async (v4) => {
    expect((await make({ v4 })).range.v4.text).toBe(v4);
  });

  test("a range that holds this host's own address is refused", async () => {
    const own = (address: string): readonly Interface[] => [
      {
        name: "eth0",
        address,
        family: address.includes(":") ? 6 : 4,
        internal: false,
        bits: 24,
      } as unknown as Interface,
    ];
    await expect(make({ v4: "10.1.0.0/16" }, memoryDurable(), own("10.1.2.3"))).rejects.toThrow(/own address 10.1.2.3/);
    await expect(make({ v6: "fd00:1::/96" }, memoryDurable(), own("fd00:1::7"))).rejects.toThrow(
      /own address fd00:1::7/,
    );
    await make({ v4: "10.2.0.0/16", v6: "fd00:2::/96" }, memoryDurable(), own("10.1.2.3"));
  });
});
