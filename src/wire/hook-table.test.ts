// The hook's table: what goes in comes out; names are found as the library finds them; whatever the bytes are, they are a table or told to be none.
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InputError } from "../base/error.ts";
import { ipBytes, ipText } from "./dns/address.ts";
import {
  backendFrom,
  decodeHookTable,
  type HookTable,
  hookTableHead,
  POLICIES,
  SUPERSEDED_AT,
  type TableBackend,
  type TableHost,
  type TableService,
} from "./hook-table.ts";
import { createHookTableEncoder, encodeHookTable } from "./hook-table-encode.ts";

const u16 = fc.nat(0xffff);
const u32 = fc.nat(0xffff_ffff);
const address = fc
  .oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 }))
  .map((bytes) => ipText(ipBytes(ipText(bytes))!));
const backend: fc.Arbitrary<TableBackend> = fc.record(
  {
    address,
    port: u16,
    weight: u16,
    tier: fc.constantFrom(0 as const, 1 as const, 2 as const),
    suspect: fc.boolean(),
    only: fc.constantFrom("udp" as const, "tcp" as const),
  },
  { requiredKeys: ["address", "port", "weight", "tier", "suspect"] },
);
const name = fc.stringMatching(/^[a-z0-9_-]{1,20}(\.[a-z0-9_-]{1,20}){0,3}$/);
const u64 = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn });
/** Zeros stand for what is not known. */
const known = (length: number): fc.Arbitrary<string> =>
  fc
    .uint8Array({ minLength: length, maxLength: length })
    .filter((bytes) => bytes.some((byte) => byte !== 0))
    .map((bytes) => ipText(bytes));
const host: fc.Arbitrary<TableHost> = fc.record(
  {
    network: fc.record({ device: u64, inode: u64.filter((inode) => inode !== 0n) }),
    v4: known(4),
    v6: known(16).filter((text) => ipBytes(text)?.length === 16),
  },
  { requiredKeys: ["network"] },
);
const table: fc.Arbitrary<HookTable> = fc
  .record({
    host: fc.option(host, { nil: undefined }),
    generation: fc.maxSafeNat(),
    writtenAtMs: fc.maxSafeNat(),
    superseded: fc.boolean(),
    v4: fc.record({ base: u32, bits: fc.nat(32) }),
    v6: fc.record({ prefix: fc.uint8Array({ minLength: 16, maxLength: 16 }), bits: fc.nat(128) }),
    domain: fc.string({ maxLength: 20 }),
    slots: fc.uniqueArray(fc.integer({ min: 1, max: 0xffff_ffff }), { maxLength: 12 }),
    names: fc.uniqueArray(name, { maxLength: 60 }),
    services: fc.array(
      fc.record(
        {
          subject: fc.string({ unit: "binary", maxLength: 30 }),
          policy: fc.constantFrom(...POLICIES),
          prefetch: fc.record({ most: u16, idleMs: u32 }),
          panic: fc.boolean(),
          held: fc.boolean(),
          tryMs: u32,
          backends: fc.array(backend, { maxLength: 6 }),
        },
        { requiredKeys: ["subject", "policy", "panic", "held", "tryMs", "backends"] },
      ),
      { minLength: 12, maxLength: 12 },
    ),
  })
  .map(({ slots, names, services, host: own, ...rest }) => ({
    ...rest,
    ...(own === undefined ? {} : { host: own }),
    services: slots
      .toSorted((a, b) => a - b)
      .map((slot, i) => ({
        slot,
        names: names.filter((_, k) => k % slots.length === i),
        ...(services[i] as Omit<TableService, "slot" | "names">),
      })),
  }));

/** Finds a name as native/table.h does. */
function find(bytes: Uint8Array, wanted: string): number | undefined {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = view.readUInt32LE(100);
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(wanted)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  for (let bucket = hash & (count - 1); ; bucket = (bucket + 1) & (count - 1)) {
    const index = view.readUInt32LE(view.readUInt32LE(96) + bucket * 4);
    if (index === 0) return undefined;
    const entry = view.readUInt32LE(104) + (index - 1) * 16;
    const at = view.readUInt32LE(128) + view.readUInt32LE(entry);
    if (
      view.readUInt32LE(entry + 12) === hash &&
      view.toString("latin1", at, at + view.readUInt16LE(entry + 4)) === wanted
    )
      return view.readUInt32LE(entry + 8);
  }
}

const small: HookTable = {
  generation: 7,
  writtenAtMs: 1_700_000_000_000,
  superseded: false,
  v4: { base: 0x7f800000, bits: 9 },
  v6: { prefix: Uint8Array.from([0xfd, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), bits: 96 },
  domain: "consul",
  host: { network: { device: 4n, inode: 0xf000_0018n }, v4: "192.0.2.7", v6: "2001:db8::7" },
  services: [
    {
      slot: 300,
      subject: "web",
      names: ["web.service.consul"],
      policy: "least",
      prefetch: { most: 4, idleMs: 10_000 },
      panic: false,
      held: true,
      tryMs: 1000,
      backends: [{ address: "10.0.0.7", port: 8080, weight: 3, tier: 1, suspect: true, only: "tcp" }],
    },
  ],
};

describe("the table", () => {
  test("what goes in comes out, and every name is found", () => {
    fc.assert(
      fc.property(table, (each) => {
        const bytes = encodeHookTable(each);
        expect(decodeHookTable(bytes)).toEqual(each);
        for (const [i, { names }] of each.services.entries()) for (const one of names) expect(find(bytes, one)).toBe(i);
        expect(find(bytes, "no.such.name.anywhere")).toBeUndefined();
      }),
    );
  });

  test("with pauses the same comes out", async () => {
    const services = Array.from({ length: 3_500 }, (_, i) => ({
      ...(small.services[0] as TableService),
      slot: i + 1,
      subject: `s${i}`,
      names: [`s${i}.service.consul`],
    }));
    let pauses = 0;
    const paused = await createHookTableEncoder().encode({ ...small, services }, async () => void pauses++);
    expect(pauses).toBeGreaterThan(3);
    expect(Buffer.compare(paused, encodeHookTable({ ...small, services }))).toBe(0);
    expect(decodeHookTable(paused).services).toHaveLength(3_500);
  });

  test("one after the other is each what it would be alone", async () => {
    const change = fc.record({
      at: fc.nat(),
      what: fc.constantFrom("backends", "policy", "names", "gone", "domain", "host", "nothing"),
      backends: fc.array(backend, { maxLength: 6 }),
      policy: fc.constantFrom(...POLICIES),
    });
    await fc.assert(
      fc.asyncProperty(table, fc.array(change, { maxLength: 12 }), async (first, changes) => {
        const encoder = createHookTableEncoder();
        let now = first;
        for (const { at, what, backends, policy } of [
          { at: 0, what: "nothing", backends: [], policy: "p2c" } as const,
          ...changes,
        ]) {
          const i = now.services.length === 0 ? -1 : at % now.services.length;
          const service = now.services[i];
          const replaced = (by: readonly TableService[]): HookTable => ({
            ...now,
            services: now.services.toSpliced(i, 1, ...by),
          });
          if (service !== undefined && what === "backends") now = replaced([{ ...service, backends }]);
          if (service !== undefined && what === "policy") now = replaced([{ ...service, policy, held: !service.held }]);
          if (service !== undefined && what === "names")
            now = replaced([{ ...service, names: service.names.slice(1) }]);
          if (service !== undefined && what === "gone") now = replaced([]);
          if (what === "domain") now = { ...now, domain: `${now.domain}x`.slice(-20) };
          const { host: _, ...without } = now;
          if (what === "host") now = without;
          now = { ...now, generation: (now.generation + 1) % Number.MAX_SAFE_INTEGER };
          const bytes = await encoder.encode(now, async () => {});
          expect(
            Buffer.compare(bytes, encodeHookTable({ ...now, services: now.services.map((each) => ({ ...each })) })),
          ).toBe(0);
        }
      }),
    );
  });

  test("after one that could not be written the next one is whole", async () => {
    const encoder = createHookTableEncoder();
    const services = Array.from({ length: 3_500 }, (_, i) => ({
      ...(small.services[0] as TableService),
      slot: i + 1,
      names: [`s${i}.service.consul`],
    }));
    await encoder.encode({ ...small, services }, async () => {});
    const others = services.map((each) => ({ ...each, tryMs: 2_000 }));
    let pauses = 0;
    const ended = encoder.encode({ ...small, services: others }, async () => {
      if (++pauses === 2) throw new Error("ended");
    });
    await expect(ended).rejects.toThrow("ended");
    const next = await encoder.encode({ ...small, services }, async () => {});
    expect(Buffer.compare(next, encodeHookTable({ ...small, services }))).toBe(0);
  });

  test("each field stands where the library reads it", () => {
    const bytes = Buffer.from(encodeHookTable(small));
    expect(bytes.toString("latin1", 0, 8)).toBe("TRILHOOK");
    expect([8, 12, 28, 48, 64, 68, 88, 92].map((at) => bytes.readUInt32LE(at))).toEqual([
      1, 192, 0, 0, 0x7f800000, 9, 96, 0,
    ]);
    expect([16, 32, 40].map((at) => Number(bytes.readBigUInt64LE(at)))).toEqual([bytes.length, 7, 1_700_000_000_000]);
    expect(bytes.readUInt32LE(24)).toBe(crc32(bytes.subarray(64)));
    expect([...bytes.subarray(72, 88)]).toEqual([...small.v6.prefix]);
    const at = (field: number): number => bytes.readUInt32LE(field);
    expect([144, 152].map((field) => Number(bytes.readBigUInt64LE(field)))).toEqual([0xf000_0018, 4]);
    expect([...bytes.subarray(160, 168)]).toEqual([192, 0, 2, 7, 0, 0, 0, 0]);
    expect(bytes.toString("hex", 168, 192)).toBe("20010db800000000000000000000000700000000".padEnd(48, "0"));
    for (const field of [96, 104, 112, 120, 128]) expect(at(field) % 8).toBe(0);
    expect([100, 108, 116, 124].map(at)).toEqual([8, 1, 1, 1]);
    const text = (offset: number, length: number): string =>
      bytes.toString("utf8", at(128) + offset, at(128) + offset + length);
    expect(text(at(136), at(140))).toBe("consul");
    const [entry, service, where] = [at(104), at(112), at(120)];
    expect(text(at(entry), bytes.readUInt16LE(entry + 4))).toBe("web.service.consul");
    expect([at(entry + 8), bytes.readUInt16LE(entry + 6)]).toEqual([0, 0]);
    // FNV-1a of "web.service.consul" by another implementation.
    expect(at(entry + 12)).toBe(0x67616782);
    expect([at(service), at(service + 4), at(service + 8)]).toEqual([300, 0, 1]);
    expect([bytes[service + 12], bytes[service + 13], bytes.readUInt16LE(service + 14)]).toEqual([3, 1 | 4, 4]);
    expect([at(service + 16), at(service + 20)]).toEqual([10_000, 1_000]);
    expect(text(at(service + 24), at(service + 28))).toBe("web");
    expect([...bytes.subarray(where, where + 16)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 7]);
    expect([bytes.readUInt16LE(where + 16), bytes.readUInt16LE(where + 18)]).toEqual([8080, 3]);
    expect([bytes[where + 20], bytes[where + 21]]).toEqual([1, 1 | 4]);
  });

  test("the mark of another table's coming is no part of the checksum", () => {
    const bytes = encodeHookTable(small);
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(SUPERSEDED_AT, 1, true);
    expect(decodeHookTable(bytes)).toEqual({ ...small, superseded: true });
    expect(hookTableHead(bytes.subarray(0, 192))).toEqual({
      generation: 7,
      writtenAtMs: small.writtenAtMs,
      superseded: true,
    });
  });

  test("what does not fit is refused", () => {
    const [web] = small.services as [TableService];
    const as = (change: Partial<TableService>): HookTable => ({ ...small, services: [{ ...web, ...change }] });
    const cases: readonly (readonly [HookTable, RegExp])[] = [
      [as({ slot: 0 }), /slot 0/],
      [as({ names: ["Web.service.consul"] }), /"Web.service.consul": expected 1 to 255/],
      [as({ names: ["web."] }), /without blanks and final dot/],
      [as({ names: [""] }), /expected 1 to 255/],
      [as({ names: ["a".repeat(256)] }), /expected 1 to 255/],
      [as({ names: ["wéb"] }), /ASCII/],
      [as({ backends: [{ ...web.backends[0]!, address: "web" }] }), /"web": expected an IP address/],
      [as({ backends: [{ ...web.backends[0]!, port: 65_536 }] }), /port 65536/],
      [as({ tryMs: -1 }), /-1/],
      [{ ...small, host: { network: small.host!.network, v4: "::7" } }, /the host's address "::7"/],
      [{ ...small, services: [web, { ...web, names: [] }] }, /slot 300 of "web" comes after slot 300/],
      [
        { ...small, services: [web, { ...web, slot: 301, subject: "api" }] },
        /"web.service.consul" stands for "web" and for "api"/,
      ],
    ];
    for (const [wrong, told] of cases) expect(() => encodeHookTable(wrong)).toThrow(told);
  });
});

describe("a backend on the agent's loopback", () => {
  const here = { device: 4n, inode: 1n };
  const from = (text: string, own: TableHost | undefined, network = here as typeof here | undefined): string =>
    backendFrom({ address: text, port: 1, weight: 1, tier: 0, suspect: false }, own, network).address;
  const other = { ...here, inode: 2n };
  const all = { network: here, v4: "192.0.2.7", v6: "2001:db8::7" };

  test("is reached by the host's address from another network, and only from there", () => {
    for (const loopback of ["127.0.0.1", "127.0.1.1", "127.255.0.9"]) {
      expect(from(loopback, all, other)).toBe("192.0.2.7");
      for (const [own, network] of [
        [all, here],
        [all, undefined],
        [undefined, other],
        [{ network: here, v6: "2001:db8::7" }, other],
      ] as const)
        expect(from(loopback, own, network)).toBe(loopback);
    }
    expect([from("::1", all, other), from("::1", all), from("::1", { network: here, v4: "192.0.2.7" }, other)]).toEqual(
      ["2001:db8::7", "::1", "::1"],
    );
    expect(from("127.0.0.1", all, { ...here, device: 5n })).toBe("192.0.2.7");
    for (const elsewhere of ["10.0.0.1", "128.0.0.1", "::2", "::7f00:1"])
      expect(from(elsewhere, all, other)).toBe(elsewhere);
  });
});

describe("bytes that are no table", () => {
  const readable = (bytes: Uint8Array): void => {
    try {
      decodeHookTable(bytes);
    } catch (error) {
      expect(error).toBeInstanceOf(InputError);
    }
  };

  test("random ones are told to be none", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), readable));
    expect(() => decodeHookTable(new Uint8Array(192))).toThrow(/does not begin with TRILHOOK/);
  });

  test("every change and every cut is noticed", () => {
    const bytes = encodeHookTable(small);
    for (let i = 0; i < bytes.length; i++) {
      expect(() => decodeHookTable(bytes.subarray(0, i))).toThrow(InputError);
      // What stands before the checksum's part is checked by itself, where it matters.
      if (i < 64) continue;
      const changed = bytes.slice();
      changed[i]! ^= 0x40;
      expect(() => decodeHookTable(changed), String(i)).toThrow(/checksum/);
    }
    const newer = bytes.slice();
    newer[8] = 2;
    expect(() => decodeHookTable(newer)).toThrow(/version 2, this program knows 1/);
  });

  test("wrong content under a right checksum does no harm", () => {
    fc.assert(
      fc.property(table, fc.array(fc.tuple(fc.nat(), u32), { minLength: 1, maxLength: 4 }), (each, changes) => {
        const bytes = Buffer.from(encodeHookTable(each));
        for (const [at, value] of changes) bytes.writeUInt32LE(value, 64 + (at % ((bytes.length - 64) >> 2)) * 4);
        bytes.writeUInt32LE(crc32(bytes.subarray(64)), 24);
        readable(bytes);
      }),
    );
  });
});
