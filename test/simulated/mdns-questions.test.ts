// Multicast DNS on a simulated LAN: what is asked and kept, and how quiet it is then (RFC 6762 §5, §7.3, §10).
import { describe, expect, it } from "vitest";
import type { BrowseEvent, Found, Mdns } from "../../src/protocols/mdns/engine.ts";
import { nameFromText, TYPE } from "../../src/wire/dns/index.ts";
import { address, asks, HTTP, packet, ptr, queries, responses, seen, web, world } from "./mdns-world.ts";

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

  it("lists what it knows over several packets where one is too small, and is then not told that again", async () => {
    const { clock, lan, host, stopAll } = world();
    const [a, b, c] = [await host("host-a"), await host("host-b"), await host("host-c")];
    for (let i = 0; i < 150; i++)
      (i % 2 === 0 ? a : c).publish({ name: `a rather long name, number ${i}`, services: web(i) });
    await clock.advance(10_000);
    const at = clock.monotonic();
    const list = seen(b);
    await clock.advance(800);
    expect(list.size).toBe(150);
    const asked = queries(lan.from("10.0.0.2", at));
    expect(asked.length).toBeGreaterThan(3);
    expect(asked.map(({ message }) => message.truncated)).toEqual([...asked.slice(1).map(() => true), false]);
    expect(asked.map(({ message }) => message.questions.length)).toEqual([1, ...asked.slice(1).map(() => 0)]);
    expect(asked.flatMap(({ message }) => message.answers)).toHaveLength(150);
    expect(responses(lan.packets.filter(({ atMs }) => atMs >= at))).toEqual([]);
    await stopAll();
  });

  it("of a program that looks once asks for answers of its own first, where it can hear them", async () => {
    const { clock, lan, host, stopAll } = world();
    const a = await host("host-a");
    a.publish({ name: "web", services: web() });
    await clock.advance(4900);
    // Said to all just now: it is not said to all again at once.
    lan.inject(
      "x",
      "10.0.0.9",
      packet({ response: false, authoritative: false, questions: [asks(TYPE.PTR, ...HTTP)] }),
    );
    await clock.advance(125);
    const brief = await host("host-b", ["10.0.0.2/24"], { brief: true });
    const list = seen(brief);
    await clock.advance(125);
    expect([...list.keys()]).toEqual(["web"]);
    expect(lan.from("10.0.0.2").map(({ message }) => message.questions[0]?.class)).toEqual([0x8001]);
    expect(lan.from("10.0.0.1").at(-1)?.to).toBe("10.0.0.2");
    await clock.advance(1100);
    expect(lan.from("10.0.0.2").at(-1)?.message.questions[0]?.class).toBe(1);
    const beside = await host("host-b", ["10.0.0.2/24"], { brief: true, net: lan.host("2", "10.0.0.2/24") });
    const before = lan.packets.length;
    seen(beside, "_ipp._tcp");
    await clock.advance(125);
    expect(lan.packets.slice(before).map(({ message }) => message.questions[0]?.class)).toEqual([1]);
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
