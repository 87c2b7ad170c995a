// Multicast DNS on a simulated LAN: publications and names of several hosts together, as RFC 6762 §8 and §9 ask.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { BrowseEvent, Found, Mdns, Published, Resolved } from "../../src/protocols/mdns/engine.ts";
import { type DnsRecord, nameFromText, TYPE } from "../../src/wire/dns/index.ts";
import { address, asks, HTTP, packet, responses, seen, type World, web, world } from "./mdns-world.ts";

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

  it("and services of hosts that do as they like are seen everywhere as they are in the end", async () => {
    const step = fc.record({
      host: fc.nat(3),
      do: fc.constantFrom("publish", "publish", "withdraw", "update", "stop"),
      name: fc.constantFrom("X", "Y", "Z"),
      waitMs: fc.constantFrom(0, 10, 300, 1200, 5000),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 1_000_000 }),
        fc.array(step, { maxLength: 25 }),
        async (seed, steps) => {
          const w = world(seed, { delayMs: 15, duplication: 0.1 });
          const engines: Mdns[] = [];
          for (let i = 0; i < 4; i++)
            engines.push(await w.host(`host-${i}`, [`10.0.0.${i + 1}/24`, `fd00::${i + 1}/64`]));
          const lists = engines.map((engine) => seen(engine));
          const stopped = new Set<Mdns>();
          const alive: { engine: Mdns; published: Published; port: number }[] = [];
          let port = 1000;
          for (const { host, do: what, name, waitMs } of steps) {
            const engine = engines[host] as Mdns;
            const mine = alive.findIndex((one) => one.engine === engine);
            if (stopped.has(engine)) continue;
            if (what === "publish")
              alive.push({ engine, published: engine.publish({ name, services: web(++port) }), port });
            if (what === "update" && mine >= 0) {
              const one = alive[mine] as (typeof alive)[number];
              one.port = ++port;
              one.published.update(web(port));
            }
            if (what === "withdraw" && mine >= 0) await alive.splice(mine, 1)[0]?.published.withdraw();
            if (what === "stop" && stopped.size < 2) {
              stopped.add(engine);
              await engine.stop();
              for (let i = alive.length - 1; i >= 0; i--) if (alive[i]?.engine === engine) alive.splice(i, 1);
            }
            await w.clock.advance(waitMs);
          }
          await w.clock.advance(30_000);
          const names = new Set(alive.map(({ published }) => published.name));
          expect(names.size).toBe(alive.length);
          for (const [i, list] of lists.entries())
            if (!stopped.has(engines[i] as Mdns)) expect(new Set(list.keys())).toEqual(names);
          const reader = await w.host("reader", ["10.0.0.9/24", "fd00::9/64"]);
          for (const { engine, published, port: now } of alive) {
            const found = new Map<number, Resolved>();
            reader.resolve({ name: published.name, type: "_http._tcp" }, (event) => {
              if (event.kind === "resolved") found.set(event.found.family, event.found);
            });
            await w.clock.advance(3000);
            for (const family of [4, 6]) expect(found.get(family)).toMatchObject({ port: now, host: engine.hostName });
          }
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
    // The loser's old list record is the winner's, too.
    const goodbyes = lan.packets.flatMap(({ message }) => message.answers.filter(({ ttlS }) => ttlS === 0));
    expect(goodbyes.filter(({ data }) => data.kind === "PTR" && data.target[0] === "Split")).toEqual([]);
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

describe("a simultaneous probe", () => {
  const probed = async (port: number): Promise<{ gaps: number[]; name: string }> => {
    const w = world();
    const a = await w.host("host-a");
    const group = a.publish({ name: "web", services: web(100) });
    await w.clock.advance(260);
    const name = ["web", ...HTTP];
    const theirs = (kind: DnsRecord["data"]): DnsRecord => ({ name, class: 1, ttlS: 120, data: kind });
    const begun = w.lan.packets.at(-1)?.atMs ?? 0;
    w.lan.inject(
      "rival",
      "10.0.0.9",
      packet({
        response: false,
        authoritative: false,
        questions: [asks(TYPE.ANY, ...name)],
        authorities: [
          theirs({ kind: "TXT", strings: [] }),
          theirs({ kind: "SRV", priority: 0, weight: 0, port, target: ["host-a", "local"] }),
        ],
      }),
    );
    await w.clock.advance(4000);
    const times = w.lan
      .from("10.0.0.1")
      .filter(({ message }) => message.authorities.some(({ name: [first] }) => first === "web"))
      .map(({ atMs }) => atMs);
    const result = {
      gaps: times
        .filter((at) => at >= begun)
        .slice(1)
        .map((at, i) => Math.round(at - (times.filter((t) => t >= begun)[i] as number))),
      name: group.name,
    };
    await w.stopAll();
    return result;
  };

  it("is won by the later data, and the loser waits a second", async () => {
    expect(await probed(99)).toEqual({ gaps: [250, 250], name: "web" });
    const lost = await probed(101);
    expect(lost.name).toBe("web");
    expect(lost.gaps).toHaveLength(3);
    expect(lost.gaps[0]).toBeGreaterThanOrEqual(1000);
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
    const before = lan.packets.length;
    await second.stop();
    await clock.advance(4000);
    const goodbyes = lan.packets
      .slice(before)
      .flatMap(({ message }) => message.answers.filter(({ ttlS }) => ttlS === 0));
    expect(goodbyes.filter(({ data }) => data.kind === "A")).toEqual([]);
    expect(goodbyes.filter(({ data }) => data.kind === "SRV")).toHaveLength(1);
    expect([...list.keys()]).toEqual(["one"]);
    expect(hosts).toEqual(["resolved"]);
    await stopAll();
  });

  it("take back what is theirs alone, not the type that the other one has as well", async () => {
    const { clock, lan, host, stopAll } = world();
    const a = await host("host-a");
    const second = await host("host-a", ["10.0.0.1/24"], { net: lan.host("1", "10.0.0.1/24") });
    a.publish({ name: "one", services: web(1) });
    const two = second.publish({ name: "two", services: web(2) });
    await clock.advance(4000);
    const before = lan.packets.length;
    const withdrawn = two.withdraw();
    await clock.advance(2000);
    await withdrawn;
    const goodbyes = lan.packets
      .slice(before)
      .flatMap(({ message }) => message.answers.filter(({ ttlS }) => ttlS === 0));
    expect(goodbyes.map(({ name, data }) => `${name[0]} ${data.kind}`).sort()).toEqual([
      "_http PTR",
      "two SRV",
      "two TXT",
    ]);
    await stopAll();
  });
});

describe("a neighbour on the same host", () => {
  it("may say more addresses under the host's name, and has its way with the reverse name", async () => {
    const { clock, lan, host, stopAll } = world();
    const a = await host("host-a");
    const group = a.publish({ name: "web", services: web() });
    await clock.advance(300);
    const more: DnsRecord = {
      name: ["host-a", "local"],
      class: 1,
      ttlS: 120,
      data: { kind: "AAAA", address: "fd00::99" },
    };
    const reverse: DnsRecord = {
      name: nameFromText("1.0.0.10.in-addr.arpa"),
      class: 0x8001,
      ttlS: 120,
      data: { kind: "PTR", target: ["other", "local"] },
    };
    const probe = { response: false, authoritative: false, questions: [asks(TYPE.ANY, "host-a", "local")] };
    lan.inject("1", "10.0.0.1", packet({ ...probe, authorities: [address("host-a", "10.0.0.1"), more] }));
    await clock.advance(700);
    expect([group.state, a.hostName]).toEqual(["established", "host-a.local"]);
    lan.inject("1", "10.0.0.1", packet({ answers: [{ ...more, class: 0x8001 }] }));
    await clock.advance(5000);
    const at = clock.monotonic();
    lan.inject(
      "1",
      "10.0.0.1",
      packet({ ...probe, questions: [asks(TYPE.ANY, ...reverse.name)], authorities: [reverse] }),
    );
    lan.inject("1", "10.0.0.1", packet({ answers: [reverse] }));
    await clock.advance(5000);
    expect([group.state, group.name, a.hostName]).toEqual(["established", "web", "host-a.local"]);
    const said = responses(lan.packets.filter(({ atMs, bytes }) => atMs > at && bytes.length > 0)).flatMap(
      ({ message }) => [...message.answers],
    );
    expect(said.some(({ data, ttlS }) => data.kind === "PTR" && data.target[0] === "host-a" && ttlS > 0)).toBe(false);
    await stopAll();
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

  it("that get other addresses are told with those, and miss nothing while sockets are opened anew", async () => {
    const { clock, lan, host, stopAll } = world();
    const [a, b] = [await host("host-a"), await host("host-b")];
    const mine = a.publish({ name: "web", services: web() });
    const addresses: string[][] = [];
    b.resolve({ name: "web", type: "_http._tcp" }, (event) => {
      if (event.kind === "resolved") addresses.push(event.found.addresses.map(({ address: ip }) => ip));
    });
    await clock.advance(5000);
    lan.readdress("1", "10.0.0.77/24");
    let open: (() => void) | undefined;
    lan.gate = new Promise((resolve) => {
      open = resolve;
    });
    await clock.advance(3000);
    const list = seen(a, "_ipp._tcp");
    b.publish({ name: "printer", services: [{ type: "_ipp._tcp", port: 631 }] });
    await clock.advance(50);
    open?.();
    lan.gate = undefined;
    await clock.advance(6000);
    expect(addresses).toEqual([["10.0.0.1"], expect.arrayContaining(["10.0.0.77"])]);
    expect([...list.keys()]).toEqual(["printer"]);
    expect(mine.name).toBe("web");
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

describe("stopping", () => {
  it("in the middle of everything leaves nothing, and tells nobody anything more", async () => {
    const { clock, host, stopAll } = world();
    const [a, b] = [await host("host-a"), await host("host-b")];
    a.publish({ name: "web", services: web() });
    await clock.advance(900);
    const events: string[] = [];
    b.browse({ type: "_http._tcp" }, ({ kind }) => events.push(kind));
    const half = b.publish({ name: "half", services: web() });
    const never = expect(half.established()).rejects.toThrow("withdrawn");
    await clock.advance(100);
    const told = events.length;
    await stopAll();
    await never;
    expect(clock.timers).toBe(0);
    await clock.advance(5000);
    expect(events).toHaveLength(told);
    expect(() => b.browse({ type: "_http._tcp" }, () => {})).toThrow("stopped");
    expect(() => b.publish({ name: "x", services: web() })).toThrow("stopped");
  });
});

describe("what is no name", () => {
  it("a name of two lines, as service files have it, is one", async () => {
    const { clock, host, stopAll } = world();
    const [a, b] = [await host("host-a"), await host("host-b")];
    await a.publish({ name: "two\n\tlines\u007f", services: [{ type: "_http._tcp", port: 80 }] });
    await clock.advance(3000);
    const seen: string[] = [];
    b.browse({ type: "_http._tcp" }, (event) => {
      if (event.kind === "add") seen.push(event.found.name);
    });
    await clock.advance(2000);
    expect(seen).toEqual(["two\n\tlines\u007f"]);
    await stopAll();
  });

  it("is refused with what would be right", async () => {
    const { host, stopAll } = world();
    const a = await host("host-a");
    const one = (part: object) => () => a.publish({ name: "x", services: [{ type: "_http._tcp", port: 80, ...part }] });
    expect(one({ type: "http" })).toThrow('"http" is no type of service: expected a form such as "_http._tcp"');
    expect(one({ port: 65_536 })).toThrow("the port 65536 is no number from 0 to 65535");
    expect(one({ txt: [new Uint8Array(256)] })).toThrow("a TXT string has 256 bytes; 255 are allowed");
    expect(() => a.publish({ name: "ü".repeat(32), services: [] })).toThrow(
      "has 64 bytes in UTF-8; an instance's name has 1 to 63",
    );
    expect(() => a.publish({ name: "a\u0001b", services: [] })).toThrow("control character");
    expect(() => a.browse({ type: "_http._sctp" }, () => {})).toThrow("is no type of service");
    expect(one({ domain: `${"a".repeat(60)}.${"b".repeat(60)}.${"c".repeat(60)}` })).toThrow("255 are allowed");
    expect(() => a.resolve({ name: "x".repeat(64), type: "_http._tcp" }, () => {})).toThrow("63 are allowed");
    const long = await host(`${"ü".repeat(40)}.example.com`);
    expect(long.hostName).toBe(`${"ü".repeat(31)}.local`);
    await stopAll();
  });
});
