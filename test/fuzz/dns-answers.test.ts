// Random directories, questions and packets: the short way of answering says what the long way says, and no packet brings an error.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import { systemRandom } from "../../src/base/random.ts";
import { type Change, keyOf } from "../../src/model/record.ts";
import { createResponder, type Responder } from "../../src/protocols/dns/answer.ts";
import type { From } from "../../src/protocols/dns/asking.ts";
import { policyOf, readConfig } from "../../src/protocols/dns/config.ts";
import { decodeMessage, type Message } from "../../src/wire/dns/index.ts";
import { checkChange, serviceChange } from "../support/directory.ts";
import { queryPacket, recordText } from "../support/dns.ts";
import { type World, world } from "../support/lookup.ts";

// "@" stands for the node's number: what two nodes share is shown once, with whichever comes first.
const address = fc.constantFrom("", "", "10.0.@.1", "10.0.@.2", "10.0.@.3", "2001:db8:@::1", "2001:db8:@::2");
const rareAddress = fc.oneof(
  { weight: 12, arbitrary: address },
  fc.constantFrom("www.example.org", "web.service.consul"),
);
const node = fc.record({
  name: fc.constantFrom("n1", "N2", "n.three", "a-node-with-quite-a-long-name", "x".repeat(60)),
  address: fc.constantFrom("192.0.2.1", "192.0.2.2", "2001:db8::9"),
  labels: fc.dictionary(fc.constantFrom("rack", "rfc1035-x", "k=v"), fc.constantFrom("", "r1", "y".repeat(300)), {
    maxKeys: 2,
  }),
});
const instance = fc.record({
  node: fc.nat(),
  address: rareAddress,
  port: fc.oneof(fc.constantFrom(0, 80, 65535), fc.integer({ min: 1000, max: 1100 })),
  tags: fc.subarray(["v1", "V2", "a.b"]),
  status: fc.constantFrom("passing" as const, "passing" as const, "warning" as const, "critical" as const),
});
const directory = fc.record({
  nodes: fc.uniqueArray(node, { minLength: 1, maxLength: 5, selector: ({ name }) => name.toLowerCase() }),
  instances: fc.array(instance, { minLength: 1, maxLength: 40 }),
  uneven: fc.boolean(),
});
const question = fc.record({
  name: fc.constantFrom(
    "web.service.consul",
    "v1.web.service.consul",
    "v2.web.service.dc1.consul",
    "_web._tcp.service.consul",
    "_web._v1.consul",
    "a.b.web.service.consul",
    "web.service.dc1.dc.other.example",
  ),
  shout: fc.boolean(),
  type: fc.constantFrom("A" as const, "AAAA" as const, "SRV" as const, "SRV" as const, "ANY" as const),
  tcp: fc.boolean(),
  from: fc.constantFrom("127.0.0.1", "192.0.2.77"),
  edns: fc.option(fc.record({ udpBytes: fc.constantFrom(0, 512, 600, 1232, 4096, 65535), dnssecOk: fc.boolean() }), {
    nil: undefined,
  }),
});
const config = fc.record(
  {
    udpAnswerLimit: fc.integer({ min: 1, max: 9 }),
    aRecordLimit: fc.integer({ min: 0, max: 4 }),
    enableTruncate: fc.boolean(),
    disableCompression: fc.constantFrom(false, false, true),
    onlyPassing: fc.boolean(),
    serviceTtlMs: fc.constant({ "w*": 7000 }),
    enableAdditionalNodeMetaTxt: fc.boolean(),
  },
  { requiredKeys: [] },
);

async function worldOf({
  nodes,
  instances,
  uneven,
}: typeof directory extends fc.Arbitrary<infer T> ? T : never): Promise<World> {
  const here = await world();
  const changes: Change[] = nodes.map(({ name, address, labels }) => ({
    op: "put",
    table: "node",
    key: keyOf.node(name),
    value: { id: "", name, address, datacenter: "dc1", taggedAddresses: {}, labels, external: true },
  }));
  for (const [i, { node, address, port, tags, status }] of instances.entries()) {
    const number = node % nodes.length;
    const { name } = nodes[number]!;
    changes.push(
      serviceChange(name, `i${i}`, "web", {
        address: address.replace("@", String(number)),
        port,
        tags,
        // By port, since of instances that share node, address and port one is shown, whichever comes first.
        ...(uneven ? { weights: { passing: port % 7, warning: port % 7 } } : {}),
      }),
      checkChange(name, `c${i}`, status, { serviceId: `i${i}` }),
    );
  }
  await here.directory.write(changes);
  return here;
}

function responderOf(here: World, raw: object, compat: boolean, metrics = createMetrics()): Responder {
  return createResponder({
    policy: policyOf(readConfig({ ...raw, altDomain: "other.example" }), compat, "consul"),
    directory: here.directory,
    lookup: here.lookup,
    prepared: here.prepared,
    clock: here.clock,
    random: systemRandom,
    log: silentLog,
    metrics,
    self: { node: "home", datacenter: "dc1", advertiseAddress: "10.1.0.1" },
  });
}

/** What must be equal whatever chance has left out of an answer that was cut. */
function outline(message: Message): object {
  const { answers, additionals, authorities, truncated, edns, ...rest } = message;
  return { ...rest, authorities: authorities.map(recordText), some: answers.length > 0 };
}

/** The records of a message, in order, without their TTLs. */
const texts = (records: Message["answers"]): string[] => records.map((one) => recordText({ ...one, ttlS: 0 })).sort();

describe("answers", () => {
  it("are the same the short way and the long way", async () => {
    await fc.assert(
      fc.asyncProperty(directory, question, config, fc.boolean(), async (given, asked, raw, compat) => {
        const here = await worldOf(given);
        const onlyPassing = raw.onlyPassing === true;
        const name = asked.shout ? asked.name.toUpperCase() : asked.name;
        const packet = queryPacket(name, {
          type: asked.type,
          ...(asked.edns === undefined ? {} : { edns: asked.edns }),
        });
        const from: From = { address: asked.from, tcp: asked.tcp };
        const responder = responderOf(here, raw, compat);
        // The first answer comes the long way and teaches the short one; asking in lower case teaches it for all spellings.
        const learning = queryPacket(asked.name, { type: asked.type });
        const long = decodeMessage(responderOf(here, raw, compat).respond(packet, from)!);
        responder.respond(learning, from);
        const bytes = responder.respond(packet, from)!;
        const quick = decodeMessage(bytes);
        expect(outline(quick)).toEqual(outline(long));
        const everything = decodeMessage(
          responderOf(here, onlyPassing ? { onlyPassing } : {}, compat).respond(
            queryPacket(name, { type: asked.type }),
            { ...from, tcp: true },
          )!,
        );
        // Of several aliases one is shown, whichever comes first, and what it leads to is not shown elsewhere.
        const alias = given.instances.some(({ address }) => /[a-z]{3}\./.test(address));
        const whole = new Set([...texts(everything.answers), ...texts(everything.additionals)]);
        for (const message of [quick, long]) {
          expect(alias || new Set(texts(message.answers)).size === message.answers.length || compat).toBe(true);
          if (!alias)
            for (const one of [...texts(message.answers), ...texts(message.additionals)]) expect(whole).toContain(one);
        }
        const complete = (message: Message): boolean => message.answers.length === everything.answers.length;
        // Ours: TC where something is missing, if no limit was set, and only there.
        const unlimited =
          raw.udpAnswerLimit === undefined && (raw.aRecordLimit ?? 0) === 0 && raw.enableTruncate !== false;
        if (!compat && !alias && unlimited)
          for (const message of [quick, long]) expect(message.truncated).toBe(!complete(message));
        if (!alias && complete(quick) && complete(long)) {
          expect(quick.truncated).toBe(long.truncated);
          expect(quick.edns).toEqual(long.edns);
          expect(quick.answers.map(recordText).sort()).toEqual(long.answers.map(recordText).sort());
          // The short way writes some owners in full, so that near the limit one additional record less may fit.
          const roomy = asked.tcp || (asked.edns?.udpBytes === 65535 && (compat || asked.from === "127.0.0.1"));
          if (roomy) expect(quick.additionals.map(recordText).sort()).toEqual(long.additionals.map(recordText).sort());
        }
        if (!asked.tcp) {
          const offered = Math.max(512, asked.edns?.udpBytes ?? 0);
          const most = compat || asked.from === "127.0.0.1" ? offered : Math.min(offered, 1232);
          // Consul sends a single record however large it is.
          if (!compat || quick.answers.length > 1) expect(bytes.length).toBeLessThanOrEqual(most);
        }
      }),
      { numRuns: 600 },
    );
  }, 60_000);

  it("never fail, whatever the packet", async () => {
    const here = await worldOf({
      nodes: [{ name: "n1", address: "192.0.2.1", labels: { rack: "r1" } }],
      uneven: false,
      instances: [{ node: 0, address: "", port: 80, tags: ["v1"], status: "passing" }],
    });
    for (const compat of [false, true]) {
      const metrics = createMetrics();
      const responder = responderOf(here, {}, compat, metrics);
      const check = (packet: Uint8Array): void => {
        const answer = responder.respond(packet, { address: "127.0.0.1", tcp: false });
        if (packet.length < 12 || (packet[2]! & 0x80) !== 0) expect(answer).toBeUndefined();
        if (answer === undefined) return;
        const read = decodeMessage(answer);
        expect(read.response).toBe(true);
        expect(read.id).toBe((packet[0]! << 8) | packet[1]!);
      };
      const mutation = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 6 });
      fc.assert(
        fc.property(question, mutation, fc.nat(), (asked, changes, cut) => {
          const sound = queryPacket(asked.name, { type: asked.type, edns: {} });
          check(sound);
          const packet = Uint8Array.from(sound);
          for (const [at, value] of changes) packet[at % packet.length] = value;
          check(packet);
          check(sound.subarray(0, cut % sound.length));
        }),
        { numRuns: 1000 },
      );
      fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), check), { numRuns: 1000 });
      const failures = metrics.read().find((sample) => sample.name === "dns_failures_total");
      expect(failures?.value).toBe(0);
    }
  });
});
