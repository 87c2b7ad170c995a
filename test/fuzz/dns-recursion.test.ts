// Whatever recursors send: what is well-formed reaches the asker as it is, what is not never brings an error, and nothing is kept for longer than it may.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TrilithError } from "../../src/base/error.ts";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import type { Net } from "../../src/base/net.ts";
import { AnswerCache, keepForS } from "../../src/protocols/dns/answer-cache.ts";
import { createRecursors, type Recursors } from "../../src/protocols/dns/recursors.ts";
import {
  CLASS,
  type DnsRecord,
  decodeMessage,
  encodeMessage,
  ipText,
  lowerLabel,
  type Message,
  type Name,
  type RecordData,
} from "../../src/wire/dns/index.ts";
import { fakeClock } from "../simulated/clock.ts";
import { seededRandom } from "../support/lookup.ts";

const name: fc.Arbitrary<Name> = fc
  .array(fc.constantFrom("www", "WWW", "example", "Example", "org", "a-1", "\u0000", "ü".slice(0, 1)), { maxLength: 5 })
  .map((labels) => labels.map((label) => Buffer.from(label, "utf8").toString("latin1")));
const address = (length: number): fc.Arbitrary<string> =>
  fc.uint8Array({ minLength: length, maxLength: length }).map(ipText);
const u16 = fc.integer({ min: 0, max: 0xffff });
const data: fc.Arbitrary<RecordData> = fc.oneof(
  fc.record({ kind: fc.constant("A" as const), address: address(4) }),
  fc.record({ kind: fc.constant("AAAA" as const), address: address(16) }),
  fc.record({ kind: fc.constantFrom("NS" as const, "CNAME" as const, "PTR" as const), target: name }),
  fc.record({ kind: fc.constant("MX" as const), preference: u16, exchange: name }),
  fc.record({ kind: fc.constant("SRV" as const), priority: u16, weight: u16, port: u16, target: name }),
  fc.record({
    kind: fc.constant("TXT" as const),
    strings: fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 3 }),
  }),
  fc.record({
    kind: fc.constant("other" as const),
    type: fc.constantFrom(65, 257, 46, 0xff00),
    bytes: fc.uint8Array({ maxLength: 40 }),
  }),
);
const ttlS = fc.oneof(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 0, max: 0xffff_ffff }));
const records: fc.Arbitrary<DnsRecord[]> = fc.array(fc.record({ name, class: fc.constant(CLASS.IN), ttlS, data }), {
  maxLength: 4,
});
const question = fc.record({ name, type: fc.constantFrom(1, 28, 33, 255, 65), class: fc.constant(CLASS.IN) });

/** Recursors over a network that gives these packets one after the other to each question. */
function over(replies: (query: Message, packet: Uint8Array) => readonly Uint8Array[]): Recursors {
  const net: Pick<Net, "exchange" | "connect"> = {
    async exchange(_to, bytes, _signal, accept) {
      for (const reply of replies(decodeMessage(bytes), bytes)) if (accept?.(reply) !== false) return reply;
      throw new TrilithError("unavailable", "nothing more comes");
    },
    connect: () => Promise.reject(new TrilithError("unavailable", "no TCP here")),
  };
  return createRecursors({
    servers: [{ host: "192.0.2.1", port: 53 }],
    strategy: "sequential",
    timeoutMs: 1000,
    cacheBytes: 1 << 16,
    resolvConf: "",
    net,
    disk: { readText: async () => "" },
    clock: fakeClock(),
    random: seededRandom(3),
    log: silentLog,
    metrics: createMetrics(),
    isOwn: () => false,
  });
}

const FLAGS = { checkingDisabled: false, dnssecOk: false };
/** Records without the case of their names. */
const plain = (list: readonly DnsRecord[]): string => {
  const lower = (value: Name): Name => value.map(lowerLabel);
  return JSON.stringify(
    list.map((record) => ({
      ...record,
      name: lower(record.name),
      data: Object.fromEntries(
        Object.entries(record.data).map(([key, value]) => [
          key,
          key === "target" || key === "exchange"
            ? lower(value as Name)
            : value instanceof Uint8Array
              ? [...value]
              : value,
        ]),
      ),
    })),
    (_, value: unknown) => (value instanceof Uint8Array ? [...value] : value),
  );
};

describe("what recursors send", () => {
  it("reaches the asker as it is, twice the same, with the asker's spelling", async () => {
    await fc.assert(
      fc.asyncProperty(
        question,
        records,
        records,
        records,
        fc.constantFrom(0, 3),
        async (asked, answers, authorities, additionals, rcode) => {
          const recursors = over((query) => [
            encodeMessage({ ...query, response: true, rcode, answers, authorities, additionals }),
          ]);
          for (let i = 0; i < 2; i++) {
            const got = await recursors.ask(asked, FLAGS);
            expect(got.rcode).toBe(rcode);
            expect(got.questions).toEqual([asked]);
            expect(plain(got.answers)).toBe(plain(answers));
            expect(plain(got.authorities)).toBe(plain(authorities));
            expect(plain(got.additionals)).toBe(plain(additionals));
            for (const record of got.answers)
              if (record.name.map(lowerLabel).join() === asked.name.map(lowerLabel).join())
                expect(record.name).toEqual(asked.name);
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it("never brings more than an error that says so", async () => {
    const mutation = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(
        question,
        records,
        fc.array(fc.oneof(mutation, fc.uint8Array({ maxLength: 60 }))),
        async (asked, answers, wrong) => {
          const recursors = over((query) => {
            const right = encodeMessage({ ...query, response: true, answers });
            return wrong.map((one) => {
              if (one instanceof Uint8Array) return one;
              const packet = Uint8Array.from(right);
              for (const [at, byte] of one) packet[at % packet.length] = byte;
              return packet;
            });
          });
          const outcome = await recursors.ask(asked, FLAGS).catch((error: unknown) => error);
          if (outcome instanceof Error) {
            expect(outcome).toBeInstanceOf(TrilithError);
            expect((outcome as TrilithError).code).toBe("unavailable");
          } else expect(() => encodeMessage({ ...(outcome as Message), id: 1 })).not.toThrow();
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("the cache", () => {
  it("tells what it was given, counted down, never too late, and never outgrows its limit", () => {
    const entry = fc.record({
      key: fc.nat(6),
      ttlS: fc.integer({ min: 0, max: 20 }),
      records: fc.integer({ min: 0, max: 6 }),
    });
    const step = fc.oneof(entry, fc.integer({ min: 0, max: 12_000 }));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        let nowMs = 0;
        const most = 1500;
        const cache = new AnswerCache({ monotonic: () => nowMs }, most);
        const put = new Map<string, { atMs: number; ttlS: number; count: number }>();
        for (const one of steps) {
          if (typeof one === "number") nowMs += one;
          else {
            const key = `k${one.key}`;
            const message: Message = {
              ...decodeMessage(encodeMessage(EMPTY)),
              answers: Array.from({ length: one.records }, (_, i) => ({
                name: ["a"],
                class: CLASS.IN,
                ttlS: one.ttlS + i,
                data: { kind: "A" as const, address: `192.0.2.${i}` },
              })),
            };
            cache.put(key, encodeMessage(message), message);
            put.set(key, { atMs: nowMs, ttlS: keepForS(message), count: one.records });
          }
          expect(cache.bytes).toBeLessThanOrEqual(most);
          for (const [key, { atMs, ttlS: keptS, count }] of put) {
            const got = cache.get(key);
            if (got === undefined) continue;
            const ageMs = nowMs - atMs;
            expect(ageMs).toBeLessThan(keptS * 1000);
            expect(got.answers).toHaveLength(count);
            for (const [i, record] of got.answers.entries())
              expect(record.ttlS).toBe(keptS + i - Math.floor(ageMs / 1000));
          }
        }
      }),
    );
  });
});

const EMPTY: Message = {
  id: 0,
  response: true,
  opcode: 0,
  authoritative: false,
  truncated: false,
  recursionDesired: true,
  recursionAvailable: true,
  authenticData: false,
  checkingDisabled: false,
  rcode: 0,
  questions: [],
  answers: [],
  authorities: [],
  additionals: [],
};
