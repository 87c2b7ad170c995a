// What DNS says, from servers that answer well, badly, and with lies.
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { type Told, type ToldRecursor, toldRecursor } from "../../../test/support/dns-peers.ts";
import { seededRandom } from "../../../test/support/lookup.ts";
import { answersFrom, recordOf } from "../../../test/support/zone.ts";
import { systemClock } from "../../base/clock.ts";
import { systemDisk } from "../../base/disk.ts";
import { TrilithError } from "../../base/error.ts";
import { silentLog } from "../../base/log.ts";
import { type Net, systemNet } from "../../base/net.ts";
import { systemRandom } from "../../base/random.ts";
import { decodeMessage, encodeMessage, type Nameserver, Nameservers } from "../../wire/dns/index.ts";
import { configureDnsUpstream, type Entry, refuseOwnDomain } from "./config.ts";
import { type Found, type Place, resolve } from "./resolve.ts";

const running: ToldRecursor[] = [];
afterEach(async () => {
  for (const each of running.splice(0)) await each.stop();
});
async function server(tell: Told | readonly string[]): Promise<ToldRecursor> {
  const started = await toldRecursor(typeof tell === "function" ? tell : answersFrom(() => tell as readonly string[]));
  running.push(started);
  return started;
}
function serversOver(servers: readonly Nameserver[], net: Pick<Net, "exchange" | "connect"> = systemNet): Nameservers {
  return new Nameservers({
    ...{ servers, net, strategy: "sequential", timeoutMs: 300, resolvConf: "/etc/resolv.conf", disk: systemDisk },
    ...{ clock: systemClock, random: systemRandom, log: silentLog, isOwn: () => false },
  });
}
const at = (...ports: { readonly port: number }[]): Nameserver[] =>
  ports.map(({ port }) => ({ host: "127.0.0.1", port }));
function entry(name: string, port?: number): Entry {
  const config = configureDnsUpstream({
    services: [{ service: "web", name, ...(port === undefined ? {} : { port }) }],
  });
  return config?.entries[0] as Entry;
}
const place = (host: string, ...addresses: string[]): Place => ({ host, port: 80, addresses, priority: 0, weight: 0 });
const SRV = entry("_http._tcp.example.com");
async function ask(tell: Told | readonly string[], of = SRV): Promise<Found> {
  return await resolve(of, serversOver(at(await server(tell))), undefined);
}
const SOA = "example.com. 900 SOA ns.example.com. host.example.com. 1 2 3 4 60";

describe("SRV records", () => {
  it("have their targets asked for, and hold as long as the shortest of all", async () => {
    const found = await ask([
      "_http._tcp.example.com. 300 SRV 10 5 8080 A.example.com.",
      "_http._tcp.example.com. 300 SRV 20 0 8081 b.example.com.",
      "a.example.com. 30 A 192.0.2.2",
      "a.example.com. 40 A 192.0.2.1",
      "a.example.com. 40 AAAA 2001:db8::1",
      "b.example.com. 90 A 192.0.2.9",
      SOA,
    ]);
    expect(found).toEqual({
      kind: "places",
      places: [
        {
          host: "a.example.com",
          port: 8080,
          addresses: ["192.0.2.1", "192.0.2.2", "2001:db8::1"],
          priority: 10,
          weight: 5,
        },
        { host: "b.example.com", port: 8081, addresses: ["192.0.2.9"], priority: 20, weight: 0 },
      ],
      faults: [],
      ttlMs: 30_000,
    });
  });
  it("with addresses along are not asked for again; what does not belong to them is not looked at", async () => {
    const told = await server(() => ({
      answers: ["_http._tcp.example.com. 60 SRV 0 0 80 a.example.com.", "else.example.com. 1 A 203.0.113.9"].map(
        recordOf,
      ),
      additionals: ["a.example.com. 20 A 192.0.2.1", "b.example.com. 1 A 203.0.113.9"].map(recordOf),
    }));
    const found = await resolve(SRV, serversOver(at(told)), undefined);
    expect(found).toMatchObject({ places: [{ addresses: ["192.0.2.1"] }], ttlMs: 20_000 });
    expect(told.asked).toEqual(["udp _http._tcp.example.com 33", "tcp _http._tcp.example.com 33"]);
  });
  it("are found behind aliases, also where a server tells only the first of them", async () => {
    const lines = [
      "_http._tcp.example.com. 60 CNAME web.example.net.",
      "web.example.net. 15 CNAME real.example.net.",
      "real.example.net. 60 SRV 0 0 80 a.example.net.",
      "a.example.net. 60 A 192.0.2.1",
    ];
    expect(await ask(lines)).toMatchObject({ places: [{ host: "a.example.net" }], ttlMs: 15_000 });
    const first: Told = (query) => {
      const whole = answersFrom(() => lines)(query);
      return { ...whole, answers: whole.answers?.slice(0, 1) ?? [] };
    };
    expect(await ask(first)).toMatchObject({ places: [{ host: "a.example.net" }], ttlMs: 15_000 });
  });
  it("whose aliases go round are a failure, not an absence", async () => {
    const round = [
      "_http._tcp.example.com. 60 CNAME b.example.com.",
      "b.example.com. 60 CNAME _http._tcp.example.com.",
    ];
    await expect(ask(round)).rejects.toThrow('the aliases of "_http._tcp.example.com" lead to no end');
  });
  it('with the one target "." say that there is decidedly nothing', async () => {
    expect(await ask(["_http._tcp.example.com. 50 SRV 0 0 0 ."])).toMatchObject({ kind: "unavailable", ttlMs: 50_000 });
  });
  it("leave out targets that lead nowhere, and say so", async () => {
    const found = await ask([
      "_http._tcp.example.com. 60 SRV 0 0 80 a.example.com.",
      "_http._tcp.example.com. 60 SRV 0 0 80 nowhere.example.com.",
      "a.example.com. 60 A 192.0.2.1",
      SOA,
    ]);
    expect(found).toMatchObject({
      places: [{ host: "a.example.com" }],
      faults: ['its target "nowhere.example.com" does not exist'],
    });
  });
  it("keep the addresses of a target that cannot be asked for now", async () => {
    const told = await server((query) =>
      query.questions[0]?.type === 33
        ? { answers: ["_http._tcp.example.com. 60 SRV 0 0 80 a.example.com."].map(recordOf) }
        : { rcode: 2 },
    );
    const found = await resolve(SRV, serversOver(at(told)), [place("a.example.com", "192.0.2.7")]);
    expect(found).toMatchObject({ kind: "places", places: [{ addresses: ["192.0.2.7"] }], ttlMs: 0 });
    expect(found.kind === "places" ? found.faults[0] : "").toContain(
      'the addresses of its target "a.example.com" are not to be had',
    );
  });
});

describe("an answer", () => {
  it("of a name without such records holds as long as the SOA says [RFC2308-5]", async () => {
    expect(await ask([SOA, "other.example.com. 5 A 192.0.2.1"])).toEqual({
      kind: "nothing",
      text: '"_http._tcp.example.com" does not exist',
      ttlMs: 60_000,
    });
    const noData = await ask([SOA.replace(" 900 ", " 7 "), "_http._tcp.example.com. 5 A 192.0.2.1"]);
    expect(noData).toEqual({ kind: "nothing", text: '"_http._tcp.example.com" has no SRV record', ttlMs: 7_000 });
  });
  it("of addresses is of both families, and of one where the other has none", async () => {
    const of = entry("www.example.com", 80);
    const both = await ask(["www.example.com. 9 A 192.0.2.1", "www.example.com. 9 AAAA 2001:db8::1"], of);
    expect(both).toMatchObject({
      places: [{ host: "www.example.com", addresses: ["192.0.2.1", "2001:db8::1"], port: 80 }],
    });
    expect(await ask(["www.example.com. 9 A 192.0.2.1", SOA.replace(" 60", " 1")], of)).toMatchObject({ ttlMs: 9_000 });
    expect(await ask([SOA], of)).toMatchObject({ kind: "nothing" });
  });
  it("of one family alone leaves what was known of the other, where that cannot be asked for now", async () => {
    const of = entry("www.example.com", 80);
    for (const [dark, known, left] of [
      [28, ["192.0.2.7", "2001:db8::7"], ["192.0.2.1", "2001:db8::7"]],
      [1, ["192.0.2.7", "2001:db8::7"], ["192.0.2.7", "2001:db8::1"]],
      [28, [], ["192.0.2.1"]],
    ] as const) {
      const lines = ["www.example.com. 9 A 192.0.2.1", "www.example.com. 9 AAAA 2001:db8::1"];
      const told = await server((query) =>
        query.questions[0]?.type === dark ? { rcode: 2 } : answersFrom(() => lines)(query),
      );
      const found = await resolve(
        of,
        serversOver(at(told)),
        known.length === 0 ? [] : [place("www.example.com", ...known)],
      );
      expect(found).toMatchObject({ places: [{ addresses: left }], ttlMs: 9_000 });
    }
  });
  it("with a TTL beyond 31 bits holds for no time [RFC2181-8]", async () => {
    expect(await ask(["www.example.com. 4294967295 A 192.0.2.1", SOA], entry("www.example.com", 80))).toMatchObject({
      ttlMs: 0,
    });
  });
  it("comes over TCP where it is cut, and from the next resolver where one fails, is silent or refers elsewhere", async () => {
    const lines = ["_http._tcp.example.com. 60 SRV 0 0 80 a.example.com.", "a.example.com. 60 A 192.0.2.1"];
    const good = await server((query, transport) =>
      transport === "udp" ? { truncated: true } : answersFrom(() => lines)(query),
    );
    const failing = await server(() => ({ rcode: 2 }));
    const silent = await server(() => undefined);
    const servers = serversOver(at(failing, silent, good));
    expect(await resolve(SRV, servers, undefined)).toMatchObject({ kind: "places" });
    expect(good.asked.filter((each) => each.startsWith("tcp")).length).toBeGreaterThan(0);
    const referring = await server(() => ({ authorities: ["example.com. 60 NS ns.example.com."].map(recordOf) }));
    await expect(resolve(SRV, serversOver(at(referring)), undefined)).rejects.toThrow("it does not recurse");
  });
  it("that is the first, or lacks what was known, is asked for once more over TCP", async () => {
    const lines = ["a", "b", "c"].flatMap((name, i) => [
      `_http._tcp.example.com. 60 SRV 0 0 80 ${name}.example.com.`,
      `${name}.example.com. 60 A 192.0.2.${i + 1}`,
    ]);
    // As Consul does it: over UDP some of them, and no word of it.
    const told = await server((query, transport) => {
      const whole = answersFrom(() => lines)(query);
      return transport === "udp" ? { ...whole, answers: whole.answers?.slice(0, 1) ?? [] } : whole;
    });
    const hosts = (found: Found): string[] => (found.kind === "places" ? found.places.map(({ host }) => host) : []);
    const all = ["a.example.com", "b.example.com", "c.example.com"];
    const first = await resolve(SRV, serversOver(at(told)), undefined);
    expect(hosts(first)).toEqual(all);
    const places = first.kind === "places" ? first.places : [];
    expect(hosts(await resolve(SRV, serversOver(at(told)), places))).toEqual(all);
    told.asked.splice(0);
    expect(hosts(await resolve(SRV, serversOver(at(told)), places.slice(0, 1)))).toEqual(["a.example.com"]);
    expect(told.asked.filter((each) => each.startsWith("tcp"))).toEqual([]);
  });
  it("that is forged or garbage is not heard", async () => {
    const told = await server((query) => ({
      answers: ["_http._tcp.example.com. 60 SRV 0 0 80 ."].map(recordOf),
      raw: [
        Uint8Array.of(1, 2, 3),
        encodeMessage({
          ...query,
          id: query.id ^ 1,
          response: true,
          answers: [recordOf("_http._tcp.example.com. 60 SRV 0 0 1 evil.")],
        }),
        encodeMessage({ ...query, response: true, questions: [{ name: ["evil"], type: 33, class: 1 }] }),
      ],
    }));
    expect(await resolve(SRV, serversOver(at(told)), undefined)).toMatchObject({ kind: "unavailable" });
  });
  it("of any bytes at all is taken or refused, and never more than that", async () => {
    const net = (reply: (query: Uint8Array) => Uint8Array): Pick<Net, "exchange" | "connect"> => ({
      async exchange(_to, bytes, _signal, accept) {
        const packet = reply(bytes);
        if (accept?.(packet) !== false) return packet;
        throw new TrilithError("unavailable", "nothing more comes");
      },
      connect: () => Promise.reject(new TrilithError("unavailable", "no TCP here")),
    });
    const random = seededRandom(7);
    const line = fc.constantFrom(
      "_http._tcp.example.com. 60 SRV 0 0 80 a.example.com.",
      "_http._tcp.example.com. 60 SRV 65535 65535 0 .",
      "_http._tcp.example.com. 0 CNAME _http._tcp.example.com.",
      "a.example.com. 60 A 192.0.2.1",
      "a.example.com. 60 CNAME b.example.com.",
      SOA,
      "example.com. 60 NS ns.example.com.",
    );
    const section = fc.array(line, { maxLength: 4 }).map((lines) => lines.map(recordOf));
    await fc.assert(
      fc.asyncProperty(
        section,
        section,
        section,
        fc.constantFrom(0, 3, 5),
        fc.boolean(),
        async (answers, authorities, additionals, rcode, spoil) => {
          const over = net((bytes) => {
            const query = decodeMessage(bytes);
            const packet = encodeMessage({ ...query, response: true, rcode, answers, authorities, additionals });
            if (spoil) packet[12 + random.below(packet.length - 12)] = random.below(256);
            return packet;
          });
          const servers = serversOver([{ host: "192.0.2.1", port: 53 }], over);
          const found = await resolve(SRV, servers, undefined).catch((error: unknown) => error);
          if (found instanceof Error) expect(found).toMatchObject({ code: "unavailable" });
          else expect((found as Found).ttlMs).toBeGreaterThanOrEqual(0);
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe("the configuration", () => {
  it.each([
    [[], "dns-upstream: expected an object such as"],
    [{}, "dns-upstream.services: is missing"],
    [{ service: [] }, "dns-upstream.service: unknown key"],
    [{ services: [{ service: "web" }] }, "dns-upstream.services[0].name: is missing"],
    [{ services: [{ name: "a.b" }] }, "dns-upstream.services[0].service: is missing"],
    [{ services: [{ service: "web", name: "a..b" }] }, "dns-upstream.services[0].name: "],
    [{ services: [{ service: "web", name: "." }] }, "dns-upstream.services[0].name: expected a name below the root"],
    [{ services: [{ service: "web", name: "_http._tcp.a", port: 80 }] }, 'leave "port" out'],
    [{ services: [{ service: "web", name: "a", port: 0 }] }, "dns-upstream.services[0].port: expected a whole number"],
    [
      { services: [{ service: "web", name: "a", resolvers: ["ns.example"] }] },
      "dns-upstream.services[0].resolvers[0]: expected an address",
    ],
    [
      { services: [{ service: "web", name: "a" }], floor: "10s", cap: "1s" },
      "dns-upstream.cap: expected no less than the floor",
    ],
    [{ services: [{ service: "web", name: "a", labels: { a: 1 } }] }, "dns-upstream.services[0].labels.a: expected"],
  ])("%j is refused", (raw, text) => {
    expect(() => configureDnsUpstream(raw)).toThrow(text);
  });
  it("has the system's resolvers, and is off unless told", () => {
    expect(SRV.resolvers).toEqual(["system"]);
    expect(configureDnsUpstream(false)).toBeUndefined();
    expect(configureDnsUpstream(undefined)).toBeUndefined();
  });
  it("takes no name that the system's resolvers might ask this agent for", () => {
    const own = configureDnsUpstream({ services: [{ service: "web", name: "_web._tcp.service.Consul" }] });
    expect(() => refuseOwnDomain(own as NonNullable<typeof own>, "consul")).toThrow("lies in this agent's own domain");
    const named = configureDnsUpstream({
      services: [{ service: "web", name: "_web._tcp.service.consul", resolvers: ["192.0.2.1:8600"] }],
    });
    expect(() => refuseOwnDomain(named as NonNullable<typeof named>, "consul")).not.toThrow();
  });
});
