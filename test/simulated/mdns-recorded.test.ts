// What a real avahi-daemon was recorded to say is understood, and the same questions bring the same answers from us.
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  bytesOfHex,
  type DnsRecord,
  decodeMessage,
  encodeMessage,
  hexOf,
  recordToWire,
  textOfName,
} from "../../src/wire/dns/index.ts";
import { world } from "./mdns-world.ts";

type Row = readonly [number, string, number, string, number, string];
const recorded = JSON.parse(readFileSync(new URL("../golden/avahi/packets.json", import.meta.url), "utf8")) as {
  golden: Record<string, string>;
  raw: Record<string, Row[]>;
};
const bytes = (hex: string): Uint8Array => bytesOfHex(hex) as Uint8Array;

/** A record as text, the cache-flush bit and the time to live included. */
const text = (record: DnsRecord): string =>
  `${textOfName(record.name).toLowerCase()} ${record.class.toString(16)} ${record.ttlS} ${record.data.kind} ${hexOf(recordToWire({ ...record, name: [] }).slice(11))}`;

const OWNER = "10.77.0.10";
const ASKER = "10.77.0.12";

/** Everything that a host said in answer. */
const answers = (packets: readonly Uint8Array[]): string[] => {
  const all = new Set<string>();
  for (const packet of packets) {
    const message = decodeMessage(packet);
    if (!message.response) continue;
    for (const record of [...message.answers, ...message.additionals])
      if (record.data.kind !== "NSEC") all.add(text(record));
  }
  return [...all].sort();
};

/** Plays what the asker sent to a host like the recorded one; what that says within two seconds. */
async function replay(
  rows: readonly Row[],
): Promise<{ readonly packets: Uint8Array[]; readonly denials: number; readonly to: string[] }> {
  const { clock, lan, host, stopAll } = world(7);
  const a = await host("host-a", [`${OWNER}/24`, "fd77::a/64"], { families: [4] });
  a.publish({ name: "web", services: [{ type: "_http._tcp", port: 80, txt: [Buffer.from("path=/x")] }] });
  await clock.advance(20_000);
  const before = lan.packets.length;
  let at = 0;
  for (const [t, from, port, to, , hex] of rows) {
    if (from !== ASKER) continue;
    await clock.advance((t - at) * 1000);
    at = t;
    lan.inject("asker", ASKER, bytes(hex), port, to === OWNER ? OWNER : undefined);
  }
  await clock.advance(2000);
  const mine = lan.packets.slice(before).filter(({ from }) => from === OWNER);
  await stopAll();
  return {
    packets: mine.map((packet) => packet.bytes),
    denials: mine.flatMap(({ message }) => [...message.answers]).filter(({ data }) => data.kind === "NSEC").length,
    to: mine.map(({ to }) => to),
  };
}

describe("recorded packets", () => {
  it.each(Object.entries(recorded.golden))("%s is read, and written again says the same", (_name, hex) => {
    const message = decodeMessage(bytes(hex));
    expect(decodeMessage(encodeMessage(message, { compressSrv: true }))).toEqual(message);
    expect(encodeMessage(message, { compressSrv: true }).length).toBeLessThanOrEqual(hex.length / 2);
  });
});

/** Where RFC 6762 decides otherwise, or the answer is more than one exchange. */
const APART = /known-answer|half-ttl|conflicting|goodbye|foreign|probe-like|probe-QU|rcode|garbage|qdcount/;

describe("recorded questions", () => {
  const cases = Object.entries(recorded.raw).filter(([name]) => !APART.test(name));
  it.each(cases)("%s brings the records that Avahi gave", async (_name, rows) => {
    const theirs = answers(rows.filter(([, from]) => from === OWNER).map(([, , , , , hex]) => bytes(hex)));
    const ours = answers((await replay(rows)).packets);
    // Who asks for an address of one family is told the other's besides [RFC 6762 §6.2].
    const besides = ours.filter((record) => !theirs.includes(record));
    if (besides.length > 0) expect(besides).toEqual([expect.stringMatching(/^host-a\.local\. \w+ \d+ (A|AAAA) /)]);
    expect(ours.filter((record) => theirs.includes(record))).toEqual(theirs);
  });

  const known = Object.entries(recorded.raw).filter(([name]) => /^known-answer (PTR|A) ttl/.test(name));
  it.each(known)("%s is silenced from half the time to live on [RFC 6762 §7.1]", async (name, rows) => {
    const [, type, ttl] = /^known-answer (PTR|A) ttl (\d+)/.exec(name) as RegExpExecArray;
    const ours = await replay(rows);
    expect(answers(ours.packets).length === 0).toBe(Number(ttl) >= (type === "PTR" ? 2250 : 60));
  });

  it("is denied what a host does not have [RFC 6762 §6.1], where Avahi is silent", async () => {
    const { denials } = await replay(recorded.raw["hinfo-query"] as Row[]);
    expect(denials).toBe(1);
  });

  it.each(["rcode-nonzero", "opcode-nonzero", "qdcount-0-packet", "truncated-garbage", "unknown-type"])(
    "%s brings nothing",
    async (name) => {
      const rows = recorded.raw[name] as Row[];
      const [first] = rows;
      if (name === "truncated-garbage") expect(() => decodeMessage(bytes(first?.[5] ?? ""))).toThrow(/DNS message/);
      else expect((await replay(rows)).packets).toEqual([]);
    },
  );

  it("answers an old resolver alone, with its id and question", async () => {
    const { packets, to } = await replay(recorded.raw["legacy-unicast-ptr-multicast-dst"] as Row[]);
    expect(to).toEqual([ASKER]);
    const message = decodeMessage(packets[0] as Uint8Array);
    expect(message).toMatchObject({ id: 0x1234, response: true, authoritative: true });
    expect(message.questions.map(({ name }) => textOfName(name))).toEqual(["_http._tcp.local."]);
  });

  it.each(["foreign goodbye for our PTR", "foreign goodbye for our SRV", "foreign goodbye for our A"])(
    "%s is answered with the record at once",
    async (name) => {
      const rows = recorded.raw[name] as Row[];
      const gone = decodeMessage(bytes(rows[0]?.[5] ?? "")).answers[0] as DnsRecord;
      const { packets } = await replay(rows);
      const said = packets.flatMap((packet) => [...decodeMessage(packet).answers]);
      expect(said.some(({ data, ttlS }) => data.kind === gone.data.kind && ttlS >= 120)).toBe(true);
    },
  );

  it.each(["probe-like-query-for-taken-name", "probe-QU-for-taken-name"])("%s is defended", async (name) => {
    const rows = recorded.raw[name] as Row[];
    const theirs = answers(rows.filter(([, from]) => from === OWNER).map(([, , , , , hex]) => bytes(hex)));
    const ours = await replay(rows);
    expect(theirs.every((record) => answers(ours.packets).includes(record))).toBe(true);
  });

  it("probes again for a name that somebody else announces, and keeps it where nobody answers", async () => {
    const ours = (await replay(recorded.raw["conflicting-SRV-response"] as Row[])).packets.map((packet) =>
      decodeMessage(packet),
    );
    expect(ours.filter(({ response, authorities }) => !response && authorities.length > 0)).toHaveLength(3);
    const said = ours.filter(({ response }) => response).flatMap(({ answers: list }) => [...list]);
    expect(said.some(({ data }) => data.kind === "SRV" && data.port === 80)).toBe(true);
  });
});

describe("damaged packets", () => {
  it("of any kind leave an engine in order", async () => {
    const golden = [
      ...Object.values(recorded.golden),
      ...Object.values(recorded.raw).flatMap((rows) => rows.map((row) => row[5])),
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            hex: fc.constantFrom(...golden),
            changes: fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
            cut: fc.nat(20),
          }),
          { minLength: 1, maxLength: 20 },
        ),
        async (packets) => {
          const { clock, lan, host, stopAll } = world(3);
          const a = await host("host-z", ["10.77.0.20/24"]);
          const web = a.publish({ name: "mine alone", services: [{ type: "_own._tcp", port: 80 }] });
          a.browse({ type: "_http._tcp" }, () => {});
          await clock.advance(3000);
          for (const { hex, changes, cut } of packets) {
            const damaged = bytes(hex);
            for (const [at, value] of changes) damaged[at % damaged.length] = value;
            lan.inject("evil", ASKER, damaged.subarray(0, damaged.length - (cut % damaged.length)));
            await clock.advance(100);
          }
          await clock.advance(10_000);
          expect(web.state).toBe("established");
          expect(a.traffic.packetsHeard).toBeGreaterThanOrEqual(packets.length);
          await stopAll();
          expect(clock.timers).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  });
});
