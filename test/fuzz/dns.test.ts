// Any message survives encoding and decoding, and no bytes make the DNS codec do anything but answer or say "invalid".
import * as oracle from "dns-packet";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TrilithError } from "../../src/base/error.ts";
import {
  type DnsRecord,
  decodeMessage,
  encodeMessage,
  ipText,
  type Message,
  type Name,
  nameBytes,
  nameFromText,
  type RecordData,
  recordBytes,
  TYPE,
  textOfName,
} from "../../src/wire/dns/index.ts";

const label = fc
  .uint8Array({ minLength: 1, maxLength: 63 })
  .map((bytes) => Buffer.from(bytes).toString("latin1")) as fc.Arbitrary<string>;
const shortLabel = fc.constantFrom(
  "a",
  "b",
  "WEB",
  "web",
  "service",
  "consul",
  "\u0000",
  ".",
  "\u00ff",
  "x".repeat(63),
);
const name: fc.Arbitrary<Name> = fc
  .array(fc.oneof(shortLabel, label), { maxLength: 6 })
  .filter((labels) => nameBytes(labels) <= 255);
const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength });
const fixed = (length: number): fc.Arbitrary<string> =>
  fc.uint8Array({ minLength: length, maxLength: length }).map(ipText);
/** Types with a form of their own, and those whose data hold names, which are spelled out when they come compressed. */
const KNOWN: ReadonlySet<number> = new Set([
  ...Object.values(TYPE),
  ...[3, 4, 7, 8, 9, 14, 17, 18, 21, 24, 26, 30, 35, 36, 39],
]);

const data: fc.Arbitrary<RecordData> = fc.oneof(
  fc.record({ kind: fc.constant("A" as const), address: fixed(4) }),
  fc.record({ kind: fc.constant("AAAA" as const), address: fixed(16) }),
  fc.record({ kind: fc.constantFrom("NS" as const, "CNAME" as const, "PTR" as const), target: name }),
  fc.record({ kind: fc.constant("MX" as const), preference: u16, exchange: name }),
  fc.record({
    kind: fc.constant("SOA" as const),
    primary: name,
    mailbox: name,
    serial: u32,
    refreshS: u32,
    retryS: u32,
    expireS: u32,
    minTtlS: u32,
  }),
  fc.record({ kind: fc.constant("TXT" as const), strings: fc.array(bytes(255), { minLength: 1, maxLength: 3 }) }),
  fc.record({ kind: fc.constant("SRV" as const), priority: u16, weight: u16, port: u16, target: name }),
  fc.record({
    kind: fc.constant("NSEC" as const),
    next: name,
    types: fc.uniqueArray(u16, { maxLength: 5 }).map((types) => types.sort((x, y) => x - y)),
  }),
  fc.record({
    kind: fc.constant("other" as const),
    type: u16.filter((type) => !KNOWN.has(type) || type > 250),
    bytes: bytes(40),
  }),
);
const record: fc.Arbitrary<DnsRecord> = fc.record({ name, class: u16, ttlS: u32, data });
const bool = fc.boolean();
const message: fc.Arbitrary<Message> = fc
  .record(
    {
      id: u16,
      response: bool,
      opcode: fc.integer({ min: 0, max: 15 }),
      authoritative: bool,
      truncated: bool,
      recursionDesired: bool,
      recursionAvailable: bool,
      authenticData: bool,
      checkingDisabled: bool,
      rcode: fc.integer({ min: 0, max: 4095 }),
      questions: fc.array(fc.record({ name, type: u16, class: u16 }), { maxLength: 2 }),
      answers: fc.array(record, { maxLength: 4 }),
      authorities: fc.array(record, { maxLength: 2 }),
      additionals: fc.array(record, { maxLength: 3 }),
      edns: fc.record({
        udpBytes: u16,
        version: fc.integer({ min: 0, max: 255 }),
        dnssecOk: bool,
        options: fc.array(fc.record({ code: u16, bytes: bytes(20) }), { maxLength: 2 }),
      }),
    },
    {
      requiredKeys: [
        "id",
        "response",
        "opcode",
        "authoritative",
        "truncated",
        "recursionDesired",
        "recursionAvailable",
        "authenticData",
        "checkingDisabled",
        "rcode",
        "questions",
        "answers",
        "authorities",
        "additionals",
      ],
    },
  )
  .map((made) => (made.edns === undefined ? { ...made, rcode: made.rcode & 15 } : made) as Message);

/** Bytes as plain arrays, so that Buffer and Uint8Array compare equal. */
const plain = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_, v) => (v instanceof Uint8Array ? [...v] : v)));

function onlyInvalid(input: Uint8Array): void {
  try {
    decodeMessage(input);
  } catch (error) {
    expect(error).toBeInstanceOf(TrilithError);
    expect((error as TrilithError).code).toBe("invalid");
  }
}

describe("the DNS codec", () => {
  it("reads back what it wrote, compressed or not", () => {
    fc.assert(
      fc.property(message, bool, bool, (made, compress, compressSrv) => {
        const written = encodeMessage(made, { compress, compressSrv });
        expect(plain(decodeMessage(written))).toEqual(plain(made));
        const upper =
          12 +
          made.questions.reduce((sum, { name }) => sum + nameBytes(name) + 4, 0) +
          [...made.answers, ...made.authorities, ...made.additionals].reduce((sum, one) => sum + recordBytes(one), 0) +
          (made.edns === undefined ? 0 : 11 + made.edns.options.reduce((sum, { bytes }) => sum + 4 + bytes.length, 0));
        if (compress) expect(written.length).toBeLessThanOrEqual(upper);
        else expect(written.length).toBe(upper);
      }),
      { numRuns: 300 },
    );
  });

  it("reads names as text back to the same labels", () => {
    fc.assert(
      fc.property(name, (labels) => {
        expect(nameFromText(textOfName(labels))).toEqual(labels);
      }),
    );
  });

  it("meets random bytes with a message or `invalid`", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), onlyInvalid), { numRuns: 2000 });
  });

  it("meets mutated packets with a message or `invalid`", () => {
    const mutation = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(message, mutation, fc.nat(), (made, changes, cut) => {
        const input = Uint8Array.from(encodeMessage(made));
        for (const [at, value] of changes) input[at % input.length] = value;
        onlyInvalid(input);
        onlyInvalid(input.subarray(0, cut % (input.length + 1)));
      }),
      { numRuns: 500 },
    );
  });

  it("meets noise behind a sound header with a message or `invalid`", () => {
    const pointerRich = fc.array(fc.constantFrom(0, 0xc0, 12, 13, 14, 1, 63, 64, 255), { maxLength: 300 });
    fc.assert(
      fc.property(pointerRich, fc.integer({ min: 0, max: 3 }), (body, count) =>
        onlyInvalid(Uint8Array.from([0, 1, 1, 0, 0, count, 0, count, 0, count, 0, count, ...body])),
      ),
      { numRuns: 1000 },
    );
  });

  it("agrees with dns-packet on what the records of a service say", () => {
    const host = fc.stringMatching(/^[a-z]{1,8}(\.[a-z]{1,8}){0,3}$/);
    fc.assert(
      fc.property(host, host, fixed(4), fixed(16), u16, (owner, target, v4, v6, number) => {
        const ownerName = nameFromText(owner);
        const base = { name: ownerName, class: 1, ttlS: number };
        const written = encodeMessage({
          id: number,
          response: true,
          opcode: 0,
          authoritative: true,
          truncated: false,
          recursionDesired: false,
          recursionAvailable: false,
          authenticData: false,
          checkingDisabled: false,
          rcode: 0,
          questions: [{ name: ownerName, type: TYPE.ANY, class: 1 }],
          answers: [
            { ...base, data: { kind: "A", address: v4 } },
            { ...base, data: { kind: "AAAA", address: v6 } },
            { ...base, data: { kind: "CNAME", target: nameFromText(target) } },
            { ...base, data: { kind: "SRV", priority: 1, weight: 2, port: number, target: nameFromText(target) } },
            { ...base, data: { kind: "TXT", strings: [Buffer.from(target)] } },
          ],
          authorities: [],
          additionals: [],
        });
        const read = oracle.decode(Buffer.from(written));
        const [first, second, ...rest] = (read.answers ?? []).map((answer) => (answer as { data: unknown }).data);
        expect(first).toBe(v4);
        expect(canonicalIpv6(second as string)).toBe(v6);
        expect(rest).toEqual([target, { priority: 1, weight: 2, port: number, target }, [Buffer.from(target)]]);
        // And the other way: what dns-packet writes, with its own compression, reads the same here.
        const again = decodeMessage(Uint8Array.from(oracle.encode(read)));
        expect(plain(again.answers)).toEqual(plain(decodeMessage(written).answers));
      }),
      { numRuns: 100 },
    );
  });
});

/** dns-packet's IPv6 spelling brought to the canonical one. */
function canonicalIpv6(text: string): string {
  return new URL(`http://[${text}]/`).hostname.slice(1, -1);
}
