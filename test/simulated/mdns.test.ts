// Multicast DNS on a simulated LAN: what RFC 6762 and 6763 ask of several hosts together.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { BrowseEvent, Found, Mdns, Resolved } from "../../src/protocols/mdns/engine.ts";
import { type DnsRecord, encodeMessage, type Message, nameFromText, TYPE } from "../../src/wire/dns/index.ts";
import type { Packet } from "./lan.ts";
import { seen, txt, type World, world } from "./mdns-world.ts";

const web = (port = 80, ...texts: string[]) => [{ type: "_http._tcp", port, txt: txt(...texts) }];
const queries = (packets: readonly Packet[]): Packet[] =>
  packets.filter(({ message }) => !message.response && message.authorities.length === 0);
const responses = (packets: readonly Packet[]): Packet[] => packets.filter(({ message }) => message.response);

/** A message of another host, as bytes. */
function packet(part: Partial<Message>): Uint8Array {
  return encodeMessage({
    id: 0,
    response: true,
    opcode: 0,
    authoritative: true,
    truncated: false,
    recursionDesired: false,
    recursionAvailable: false,
    authenticData: false,
    checkingDisabled: false,
    rcode: 0,
    questions: [],
    answers: [],
    authorities: [],
    additionals: [],
    ...part,
  });
}

const ptr = (name: string, ttlS: number): DnsRecord => ({
  name: nameFromText("_http._tcp.local"),
  class: 1,
  ttlS,
  data: { kind: "PTR", target: [name, "_http", "_tcp", "local"] },
});
const address = (host: string, ip: string, ttlS = 120): DnsRecord => ({
  name: [host, "local"],
  class: 0x8001,
  ttlS,
  data: { kind: "A", address: ip },
});
const asks = (type: number, ...labels: string[]) => ({ name: labels, type, class: 1 });
const HTTP = ["_http", "_tcp", "local"];

describe("a publication", () => {
  it("is seen, resolved and gone elsewhere, and nothing is left after stop", async () => {
    const { clock, lan, host, stopAll } = world();
    const a = await host("host-a");
    const b = await host("host-b");
    const log: BrowseEvent<Found>[] = [];
    const list = seen(b, "_http._tcp", log);
    const resolved: Resolved[] = [];
    b.resolve({ name: "web one", type: "_http._tcp" }, (event) => {
      if (event.kind === "resolved") resolved.push(event.found);
    });
    const published = a.publish({ name: "web one", services: web(80, "path=/x", "v=1") });
    expect(published.state).toBe("probing");
    await clock.advance(1100);
    expect(published.state).toBe("established");
    expect([...list.keys()]).toEqual(["web one"]);
    expect(resolved.at(-1)).toMatchObject({
      host: "host-a.local",
      port: 80,
      addresses: [{ address: "10.0.0.1", family: 4 }],
      local: false,
    });
    expect(resolved.at(-1)?.txt.map((bytes) => Buffer.from(bytes).toString())).toEqual(["path=/x", "v=1"]);
    published.update(web(81, "v=2"));
    await clock.advance(1100);
    expect(resolved.at(-1)?.port).toBe(81);
    expect(resolved.at(-1)?.txt.map((bytes) => Buffer.from(bytes).toString())).toEqual(["v=2"]);
    expect(log.filter(({ kind }) => kind === "remove")).toEqual([]);
    await published.withdraw();
    await clock.advance(1100);
    expect([...list.keys()]).toEqual([]);
    expect(log.at(-1)).toMatchObject({ kind: "remove", why: "goodbye" });
    await stopAll();
    expect(clock.timers).toBe(0);
    expect(lan.packets.filter(({ atMs }) => atMs > clock.monotonic() - 50)).toEqual([]);
  });

  it("probes three times a quarter of a second apart and announces three times", async () => {
    const { clock, lan, host, stopAll } = world();
    const a = await host("host-a");
    a.publish({ name: "web", services: web() });
    await clock.advance(10_000);
    const [first, ...more] = lan.packets;
    expect((first?.atMs ?? 0) - 1000).toBeLessThanOrEqual(250);
    const from = first?.atMs ?? 0;
    expect(more.map(({ atMs }) => Math.round(atMs - from))).toEqual([250, 500, 750, 1750, 3750]);
    const flushed = lan.packets[3]?.message.answers.map(({ data, class: kind }) => [data.kind, kind >= 0x8000]);
    expect(flushed).toEqual([
      ["A", true],
      ["PTR", true],
      ["PTR", false],
      ["TXT", true],
      ["SRV", true],
      ["PTR", false],
    ]);
    await stopAll();
  });

  it("is split over packets that fit the link", async () => {
    const { clock, lan, host, stopAll } = world();
    const [a, b] = [await host("host-a"), await host("host-b")];
    const list = seen(b);
    for (let i = 0; i < 30; i++) a.publish({ name: `service number ${i}`, services: web(i, "x".repeat(200)) });
    await clock.advance(5000);
    expect(list.size).toBe(30);
    expect(Math.max(...lan.packets.map(({ bytes }) => bytes.length))).toBeLessThanOrEqual(1440);
    await stopAll();
  });

  it("says goodbye for everything in as few packets as it takes, on stop", async () => {
    const { clock, lan, host } = world();
    const [a, b] = [await host("host-a"), await host("host-b")];
    const list = seen(b);
    for (let i = 0; i < 5; i++) a.publish({ name: `s${i}`, services: web(i) });
    await clock.advance(5000);
    const before = lan.packets.length;
    await a.stop();
    await clock.advance(1100);
    expect(list.size).toBe(0);
    const said = lan.packets.slice(before).filter(({ from }) => from === "10.0.0.1");
    expect(said).toHaveLength(1);
    expect(said[0]?.message.answers.every(({ ttlS }) => ttlS === 0)).toBe(true);
    await b.stop();
  });
});

describe("names", () => {
  it("of all who want the same end distinct, and everybody sees everybody", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          seed: fc.integer({ min: 1, max: 1_000_000 }),
          starts: fc.array(fc.integer({ min: 0, max: 2500 }), { minLength: 2, maxLength: 5 }),
          loss: fc.constantFrom(0, 0, 0.1, 0.3),
          duplication: fc.constantFrom(0, 0.2),
          delayMs: fc.constantFrom(1, 20, 80),
        }),
        async ({ seed, starts, ...conditions }) => {
          const w: World = world(seed, conditions);
          const engines: Mdns[] = [];
          const lists: Map<string, Found>[] = [];
          for (const _ of starts) {
            const engine = await w.host("host");
            engines.push(engine);
            lists.push(seen(engine));
          }
          const published = [];
          const order = starts.map((at, i) => ({ at, engine: engines[i] as Mdns })).sort((a, b) => a.at - b.at);
          let now = 0;
          for (const { at, engine } of order) {
            await w.clock.advance(at - now);
            now = at;
            published.push(engine.publish({ name: "X", services: web(at % 1000) }));
          }
          await w.clock.advance(30_000);
          // What loss hid comes out when the LAN is well again and somebody asks.
          w.lan.conditions = {};
          const c = await w.host("reader");
          const names = new Map<string, string>();
          const read = seen(c);
          for (let i = 1; i <= starts.length; i++)
            c.resolve({ name: i === 1 ? "X" : `X #${i}`, type: "_http._tcp" }, (event) => {
              if (event.kind === "resolved") names.set(event.found.name, `${event.found.host}:${event.found.port}`);
            });
          await w.clock.advance(90_000);
          const distinct = new Set(published.map(({ name }) => name));
          expect(distinct.size).toBe(starts.length);
          expect(published.every(({ state }) => state === "established")).toBe(true);
          expect(new Set(engines.map(({ hostName }) => hostName)).size).toBe(starts.length);
          for (const list of [...lists, read]) expect(new Set(list.keys())).toEqual(distinct);
          await w.stopAll();
          expect(w.clock.timers).toBe(0);
        },
      ),
      { numRuns: 25 },
    );
  });

  it("stay within 63 bytes of whole letters, and count on", async () => {
    const { clock, host, stopAll } = world();
    const long = "日".repeat(21);
    const [a, b] = [await host("host-a"), await host("host-b")];
    for (const name of [long, "X #9"]) a.publish({ name, services: web() });
    await clock.advance(3000);
    const given = [long, "X #9"].map((name) => b.publish({ name, services: web(81) }));
    await clock.advance(5000);
    expect(given.map(({ name }) => name)).toEqual([`${"日".repeat(20)} #2`, "X #10"]);
    await stopAll();
  });

  it("are not given up to the same data, and are told to whoever publishes", async () => {
    const { clock, host, stopAll } = world();
    const [a, b] = [await host("host-a"), await host("host-b")];
    const shared = [{ type: "_http._tcp", port: 80, host: "elsewhere.example.com" }];
    const one = a.publish({ name: "Twin", services: shared });
    const two = b.publish({ name: "Twin", services: shared });
    await clock.advance(3000);
    expect([one.name, two.name]).toEqual(["Twin", "Twin"]);
    const events: string[] = [];
    const third = b.publish({ name: "Taken", services: web(1) });
    await clock.advance(3000);
    const fourth = a.publish(
      { name: "Taken", services: web(2) },
      { changed: (event) => events.push(event.kind === "renamed" ? `${event.from} -> ${event.to}` : event.name) },
    );
    expect(await Promise.race([fourth.established(), clock.advance(3000).then(() => "late")])).toBe("Taken #2");
    expect(events).toEqual(["Taken -> Taken #2", "Taken #2"]);
    let collided = "";
    const fifth = a.publish(
      { name: "Taken", services: web(3) },
      {
        rename: false,
        collision: (name) => {
          collided = name;
        },
      },
    );
    await Promise.all([expect(fifth.established()).rejects.toThrow('has the name "Taken"'), clock.advance(3000)]);
    expect(collided).toBe("Taken");
    expect(third.name).toBe("Taken");
    await stopAll();
  });

  it("of a healed partition are sorted out as soon as somebody asks", async () => {
    const { clock, lan, host, stopAll } = world();
    lan.split(["1"], ["2"]);
    const [a, b] = [await host("same"), await host("same")];
    const one = a.publish({ name: "Split", services: web(1) });
    const two = b.publish({ name: "Split", services: web(2) });
    await clock.advance(10_000);
    expect([one.name, two.name, a.hostName, b.hostName]).toEqual(["Split", "Split", "same.local", "same.local"]);
    lan.split();
    const c = await host("reader");
    seen(c);
    await clock.advance(20_000);
    expect(new Set([one.name, two.name])).toEqual(new Set(["Split", "Split #2"]));
    expect(new Set([a.hostName, b.hostName])).toEqual(new Set(["same.local", "same-2.local"]));
    await stopAll();
  });

  it("are tried more slowly after fifteen conflicts", async () => {
    const { clock, lan, host, stopAll } = world();
    const a = await host("host-a");
    // A stranger that has every name that is probed for.
    let answered = 0;
    for (let i = 0; i < 40; i++) {
      if (i === 0) a.publish({ name: "Stubborn", services: web() });
      await clock.advance(260);
      const probe = lan.from("10.0.0.1").at(-1);
      const asked = probe?.message.questions.find(({ name }) => name[0]?.startsWith("Stubborn"));
      if (asked === undefined || probe?.message.response === true) continue;
      answered++;
      lan.inject(
        "evil",
        "10.0.0.99",
        packet({
          answers: [
            { name: asked.name, class: 0x8001, ttlS: 120, data: { kind: "TXT", strings: [] } },
            {
              name: asked.name,
              class: 0x8001,
              ttlS: 120,
              data: { kind: "SRV", priority: 0, weight: 0, port: 9, target: ["evil", "local"] },
            },
          ],
        }),
      );
    }
    const probes = lan
      .from("10.0.0.1")
      .filter(({ message }) => message.authorities.some(({ name }) => name[0]?.startsWith("Stubborn")));
    const times = probes.map(({ atMs }) => atMs);
    const gaps = times.slice(1).map((at, i) => at - (times[i] as number));
    expect(answered).toBeGreaterThanOrEqual(15);
    expect(Math.max(...gaps)).toBeGreaterThanOrEqual(5000);
    await stopAll();
  });
});

describe("a browse", () => {
  it("asks after 20 to 120 ms, then 1, 2, 4 … seconds later up to an hour, with what it knows", async () => {
    const { clock, lan, host, stopAll } = world();
    const [a, b] = [await host("host-a"), await host("host-b")];
    a.publish({ name: "web", services: web() });
    await clock.advance(5000);
    const before = lan.packets.length;
    const began = clock.monotonic();
    b.browse({ type: "_http._tcp" }, () => {});
    await clock.advance(4 * 3_600_000);
    const asked = queries(lan.packets.slice(before)).filter(
      ({ from, message }) => from === "10.0.0.2" && message.questions.some(({ name }) => name[0] === "_http"),
    );
    const [first] = asked;
    expect((first?.atMs ?? 0) - began).toBeGreaterThanOrEqual(20);
    expect((first?.atMs ?? 0) - began).toBeLessThanOrEqual(120);
    const gaps = asked.slice(1).map(({ atMs }, i) => Math.round((atMs - (asked[i]?.atMs ?? 0)) / 1000));
    expect(gaps.slice(0, 7)).toEqual([1, 2, 4, 8, 16, 32, 64]);
    expect(asked[0]?.message.answers).toHaveLength(1);
    // The record is asked for anew at four fifths of its life; no hour passes without.
    expect(Math.max(...gaps)).toBeLessThanOrEqual(3600);
    await stopAll();
  });

  it("starts with what is known, then says so, and a second later that all who are there have answered", async () => {
    const { clock, host, stopAll } = world();
    const [a, b] = [await host("host-a"), await host("host-b")];
    a.publish({ name: "web", services: web() });
    await clock.advance(5000);
    const events: string[] = [];
    b.browse({ type: "_http._tcp" }, ({ kind }) => events.push(kind));
    expect(events).toEqual(["add", "cacheExhausted"]);
    await clock.advance(999);
    expect(events).toHaveLength(2);
    await clock.advance(2);
    expect(events).toEqual(["add", "cacheExhausted", "allForNow"]);
    await stopAll();
  });

  it("of types, subtypes and domains finds them, our own included", async () => {
    const { clock, lan, host, stopAll } = world();
    const [a, b] = [await host("host-a"), await host("host-b")];
    a.publish({ name: "p", services: [{ type: "_ipp._tcp", subtypes: ["_color", "_duplex"], port: 631 }] });
    const types: string[] = [];
    b.browseTypes({}, (event) => {
      if (event.kind === "add") types.push(event.found.type);
    });
    const own: Found[] = [];
    a.browse({ type: "_ipp._tcp", subtype: "_color" }, (event) => {
      if (event.kind === "add") own.push(event.found);
    });
    const domains: string[] = [];
    b.browseDomains({}, (event) => {
      if (event.kind === "add") domains.push(event.found.domain);
    });
    await clock.advance(2000);
    lan.inject(
      "x",
      "10.0.0.9",
      packet({
        answers: [
          {
            name: nameFromText("b._dns-sd._udp.local"),
            class: 1,
            ttlS: 100,
            data: { kind: "PTR", target: ["example", "org"] },
          },
        ],
      }),
    );
    await clock.advance(10);
    expect(types).toEqual(["_ipp._tcp"]);
    expect(own).toMatchObject([{ name: "p", type: "_ipp._tcp", local: true }]);
    expect(domains).toEqual(["example.org"]);
    await stopAll();
  });

  it("is left out where another host just asked the same and knew no more", async () => {
    const { clock, lan, host, stopAll } = world();
    const b = await host("host-b");
    b.browse({ type: "_http._tcp" }, () => {});
    await clock.advance(10);
    lan.inject(
      "x",
      "10.0.0.9",
      packet({ response: false, authoritative: false, questions: [asks(TYPE.PTR, ...HTTP)] }),
    );
    await clock.advance(900);
    expect(lan.from("10.0.0.1")).toEqual([]);
    await clock.advance(200);
    expect(lan.from("10.0.0.1")).toHaveLength(1);
    await stopAll();
  });
});

describe("the cache", () => {
  it("asks again at 80, 85, 90 and 95 % of a life, and drops at its end", async () => {
    const { clock, lan, host, stopAll } = world();
    const b = await host("host-b");
    const log: BrowseEvent<Found>[] = [];
    seen(b, "_http._tcp", log);
    // So late that the browse's own schedule stays out of the way.
    await clock.advance(140_000);
    const at = clock.monotonic();
    lan.inject("x", "10.0.0.9", packet({ answers: [ptr("web", 100)] }));
    await clock.advance(99_000);
    const shares = queries(lan.from("10.0.0.1", at))
      .filter(({ message }) => message.answers.length === 0)
      .map(({ atMs }) => (atMs - at) / 1000);
    expect(shares).toHaveLength(4);
    for (const [i, least] of [80, 85, 90, 95].entries()) {
      expect(shares[i]).toBeGreaterThanOrEqual(least);
      expect(shares[i]).toBeLessThanOrEqual(least + 2.1);
    }
    expect(log.some(({ kind }) => kind === "remove")).toBe(false);
    await clock.advance(1100);
    expect(log.at(-1)).toMatchObject({ kind: "remove", why: "expired" });
    await stopAll();
  });

  it("lets newer data of an owner take the place of the old within a second, but not of the same breath", async () => {
    const { clock, lan, host, stopAll } = world();
    const b = await host("host-b");
    const there = new Set<string>();
    b.query({ name: ["other", "local"], type: TYPE.A }, (event) => {
      if (event.kind !== "add" && event.kind !== "remove") return;
      const { data } = event.found;
      if (data.kind !== "A") return;
      if (event.kind === "add") there.add(data.address);
      else there.delete(data.address);
    });
    lan.inject("x", "10.0.0.9", packet({ answers: [address("other", "10.0.0.9")] }));
    await clock.advance(500);
    lan.inject("x", "10.0.0.9", packet({ answers: [address("other", "10.0.0.8")] }));
    await clock.advance(1500);
    expect(there).toEqual(new Set(["10.0.0.9", "10.0.0.8"]));
    lan.inject("x", "10.0.0.9", packet({ answers: [address("other", "10.0.0.7")] }));
    await clock.advance(900);
    expect(there.size).toBe(3);
    await clock.advance(200);
    expect(there).toEqual(new Set(["10.0.0.7"]));
    await stopAll();
  });

  it("drops what twice does not answer others", async () => {
    const { clock, lan, host, stopAll } = world();
    const b = await host("host-b");
    const list = seen(b);
    lan.inject("x", "10.0.0.9", packet({ answers: [ptr("dead", 4500)] }));
    await clock.advance(20_000);
    const question = packet({ response: false, authoritative: false, questions: [asks(TYPE.PTR, ...HTTP)] });
    lan.inject("y", "10.0.0.8", question);
    await clock.advance(1000);
    lan.inject("y", "10.0.0.8", question);
    await clock.advance(8500);
    expect([...list.keys()]).toEqual(["dead"]);
    await clock.advance(1000);
    expect([...list.keys()]).toEqual([]);
    await stopAll();
  });

  it("takes nothing from hosts of other networks, and none that does not come from port 5353", async () => {
    const { clock, lan, host, stopAll } = world();
    const b = await host("host-b");
    const list = seen(b);
    lan.inject("x", "192.0.2.9", packet({ answers: [ptr("far", 4500)] }));
    lan.inject("x", "10.0.0.9", packet({ answers: [ptr("wrong port", 4500)] }), 4000);
    await clock.advance(100);
    expect([...list.keys()]).toEqual([]);
    await stopAll();
  });
});

describe("an answer", () => {
  const setUp = async (): Promise<World> => {
    const w = world();
    const a = await w.host("host-a");
    a.publish({ name: "web", services: web() });
    await w.clock.advance(10_000);
    return w;
  };
  const delayMs = async (w: World, part: Partial<Message>, waitMs = 1500): Promise<number | undefined> => {
    const at = w.clock.monotonic();
    w.lan.inject("x", "10.0.0.9", packet({ response: false, authoritative: false, ...part }));
    await w.clock.advance(waitMs);
    const [first] = responses(w.lan.from("10.0.0.1", at));
    return first === undefined ? undefined : first.atMs - at;
  };

  it("comes at once for what is ours alone, after 20 to 120 ms for what is shared, after 400 to 500 ms where more known answers follow", async () => {
    const w = await setUp();
    expect(await delayMs(w, { questions: [asks(TYPE.SRV, "web", ...HTTP)] })).toBeLessThan(10);
    const shared = await delayMs(w, { questions: [asks(TYPE.PTR, ...HTTP)] });
    expect(shared).toBeGreaterThanOrEqual(20);
    expect(shared).toBeLessThanOrEqual(122);
    const more = await delayMs(w, { questions: [asks(TYPE.PTR, ...HTTP)], truncated: true });
    expect(more).toBeGreaterThanOrEqual(400);
    expect(more).toBeLessThanOrEqual(502);
    await w.stopAll();
  });

  it("is silenced by a known answer in a later packet of the same asker, not of another", async () => {
    const w = await setUp();
    const ask = { response: false, authoritative: false };
    const question = packet({ ...ask, questions: [asks(TYPE.PTR, ...HTTP)], truncated: true });
    const known = packet({ ...ask, answers: [ptr("web", 4000)] });
    w.lan.inject("x", "10.0.0.9", question);
    await w.clock.advance(50);
    const at = w.clock.monotonic();
    w.lan.inject("x", "10.0.0.9", known);
    await w.clock.advance(1500);
    expect(responses(w.lan.from("10.0.0.1", at))).toEqual([]);
    w.lan.inject("x", "10.0.0.9", question);
    await w.clock.advance(50);
    w.lan.inject("y", "10.0.0.8", known);
    await w.clock.advance(1500);
    expect(responses(w.lan.from("10.0.0.1", at))).toHaveLength(1);
    await w.stopAll();
  });

  it("is given once a second, and not where another host gave it meanwhile", async () => {
    const w = await setUp();
    const at = w.clock.monotonic();
    const question = packet({ response: false, authoritative: false, questions: [asks(TYPE.PTR, ...HTTP)] });
    for (let i = 0; i < 10; i++) {
      w.lan.inject("x", "10.0.0.9", question);
      await w.clock.advance(100);
    }
    await w.clock.advance(3000);
    const times = responses(w.lan.from("10.0.0.1", at)).map(({ atMs }) => atMs);
    expect(times.length).toBeLessThanOrEqual(2);
    for (const [i, time] of times.slice(1).entries()) expect(time - (times[i] as number)).toBeGreaterThanOrEqual(999);
    const before = w.clock.monotonic();
    w.lan.inject("x", "10.0.0.9", question);
    await w.clock.advance(10);
    w.lan.inject("y", "10.0.0.8", packet({ answers: [ptr("web", 4500)] }));
    await w.clock.advance(2000);
    expect(responses(w.lan.from("10.0.0.1", before))).toEqual([]);
    await w.stopAll();
  });

  it("goes back alone where that is wanted and all heard it lately, else to all", async () => {
    const w = await setUp();
    const unicast = { ...asks(TYPE.SRV, "web", ...HTTP), class: 0x8001 };
    const at = w.clock.monotonic();
    await delayMs(w, { questions: [unicast] });
    expect(w.lan.from("10.0.0.1", at).map(({ to }) => to)).toEqual(["10.0.0.9"]);
    await w.clock.advance(60_000);
    const later = w.clock.monotonic();
    await delayMs(w, { questions: [unicast] });
    expect(w.lan.from("10.0.0.1", later).map(({ to }) => to)).toEqual(["224.0.0.251"]);
    await w.stopAll();
  });
});

describe("interfaces", () => {
  it("that come and go bring and take what is there, and are announced on", async () => {
    const { clock, lan, host, stopAll } = world();
    const [a, b] = [await host("host-a"), await host("host-b", [])];
    a.publish({ name: "web", services: web() });
    const mine = b.publish({ name: "late", services: web(81) });
    const log: BrowseEvent<Found>[] = [];
    const list = seen(b, "_http._tcp", log);
    const far = seen(a);
    await clock.advance(5000);
    expect(list.size).toBe(0);
    expect(mine.state).toBe("probing");
    lan.readdress("2", "10.0.0.2/24", "fd00::2/64");
    await clock.advance(5000);
    expect(mine.state).toBe("established");
    expect(new Set(list.keys())).toEqual(new Set(["web", "late"]));
    expect([...far.keys()]).toContain("late");
    lan.readdress("2");
    await clock.advance(3000);
    expect(list.size).toBe(0);
    expect(log.at(-1)).toMatchObject({ kind: "remove", why: "interface" });
    await stopAll();
  });

  it("keep IPv4 and IPv6 apart, with the addresses of both", async () => {
    const { clock, host, stopAll } = world();
    const a = await host("host-a", ["10.0.0.1/24", "fd00::1/64", "fe80::1/64"]);
    const b = await host("host-b", ["10.0.0.2/24", "fd00::2/64"]);
    a.publish({ name: "web", services: web() });
    const resolved = new Map<number, Resolved>();
    b.resolve({ name: "web", type: "_http._tcp" }, (event) => {
      if (event.kind === "resolved") resolved.set(event.found.family, event.found);
    });
    await clock.advance(3000);
    for (const family of [4, 6])
      expect(new Set(resolved.get(family)?.addresses.map(({ address: ip }) => ip))).toEqual(
        new Set(["10.0.0.1", "fd00::1"]),
      );
    await stopAll();
  });
});

describe("two programs of one host", () => {
  it("share its name, see each other as local, and leave it when one goes", async () => {
    const { clock, lan, host, stopAll } = world();
    const a = await host("host-a");
    const net = lan.host("1", "10.0.0.1/24");
    const c = await host("host-c");
    const second = await host("host-a", ["10.0.0.1/24"], { net });
    a.publish({ name: "one", services: web(1) });
    second.publish({ name: "two", services: web(2) });
    const list = seen(a);
    await clock.advance(4000);
    expect([a.hostName, second.hostName]).toEqual(["host-a.local", "host-a.local"]);
    expect(list.get("two")).toMatchObject({ local: true });
    const hosts: string[] = [];
    c.resolve({ name: "one", type: "_http._tcp" }, (event) => hosts.push(event.kind));
    await second.stop();
    await clock.advance(4000);
    expect([...list.keys()]).toEqual(["one"]);
    expect(hosts).toEqual(["resolved"]);
    await stopAll();
  });
});

describe("an idle LAN", () => {
  it("with ten services is quiet", async () => {
    const { clock, lan, host, stopAll } = world();
    const engines: Mdns[] = [];
    for (let i = 0; i < 10; i++) {
      const engine = await host(`host-${i}`);
      engines.push(engine);
      engine.publish({ name: `service ${i}`, services: web(i) });
    }
    await clock.advance(60_000);
    let before = lan.packets.length;
    await clock.advance(3_600_000);
    const alone = lan.packets.length - before;
    seen(engines[0] as Mdns);
    await clock.advance(3_600_000);
    before = lan.packets.length;
    await clock.advance(3_600_000);
    const browsed = lan.packets.length - before;
    const lists = engines.map((engine) => seen(engine));
    await clock.advance(3_600_000);
    before = lan.packets.length;
    await clock.advance(3_600_000);
    const allBrowse = lan.packets.length - before;
    for (let i = 0; i < 10; i++) engines[0]?.resolve({ name: `service ${i}`, type: "_http._tcp" }, () => {});
    await clock.advance(3_600_000);
    before = lan.packets.length;
    await clock.advance(3_600_000);
    const resolved = lan.packets.length - before;
    console.log(
      `packets per hour with ten services on ten hosts: ${alone} with nobody looking, ${browsed} with one browser, ${allBrowse} with ten, ${resolved} with one that keeps all resolved besides`,
    );
    expect(alone).toBe(0);
    for (const list of lists) expect(list.size).toBe(10);
    await stopAll();
  }, 60_000);
});
