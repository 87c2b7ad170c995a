// What the source lists of a zone, when it asks again and how long absence is held: on a clock that the test moves.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { testDirectory } from "../../../test/support/directory.ts";
import { seededRandom } from "../../../test/support/lookup.ts";
import { answersFrom } from "../../../test/support/zone.ts";
import { TrilithError } from "../../base/error.ts";
import { silentLog } from "../../base/log.ts";
import type { Probe } from "../../contracts/probe.ts";
import type { SourceList } from "../../contracts/source.ts";
import { goneKeyOf } from "../../model/instance.ts";
import { keyOf } from "../../model/record.ts";
import { type Message, type Nameservers, OPCODE } from "../../wire/dns/index.ts";
import { configureDnsUpstream, type DnsUpstreamConfig } from "./config.ts";
import { DnsUpstreamSource } from "./source.ts";

const SOA = "example.com. 900 SOA ns.example.com. host.example.com. 1 2 3 4 30";
const ending: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0)) await end();
});

const tcp = { kind: "tcp", parse: () => "parsed" } as unknown as Probe;

/** A source over a zone; `asked` are the moments (seconds) at which the SRV records were asked for. */
async function begin(config: object, ...lines: string[]) {
  const clock = fakeClock();
  const beganMs = clock.monotonic();
  const directory = testDirectory(clock);
  const state = { lines, fails: false };
  const asked: number[] = [];
  const lists: SourceList[] = [];
  const servers = {
    async ask(question: Message["questions"][number], _flags: object, over: "udp" | "tcp") {
      if (question.type === 33 && over === "udp") asked.push((clock.monotonic() - beganMs) / 1000);
      if (state.fails) throw new TrilithError("unavailable", "all is dark");
      const query = { id: 1, response: false, opcode: OPCODE.QUERY, questions: [question] } as unknown as Message;
      const blank = { answers: [], authorities: [], additionals: [], rcode: 0, authoritative: true };
      const message = { ...query, ...blank, ...answersFrom(() => [SOA, ...state.lines])(query) };
      return { packet: new Uint8Array(), message };
    },
    stop() {},
  } as unknown as Nameservers;
  const checked = configureDnsUpstream({ services: { service: "web", name: "_http._tcp.example.com" }, ...config });
  const source = new DnsUpstreamSource(checked as DnsUpstreamConfig, {
    ...{ clock, random: seededRandom(1), log: silentLog, directory, node: "alpha", tcp, nameservers: () => servers },
  });
  const stop = new AbortController();
  const reading = (async () => {
    for await (const list of source.watch(stop.signal)) lists.push(list);
  })();
  ending.push(async () => {
    stop.abort(new Error("enough"));
    await reading;
    expect(clock.timers).toBe(0);
  });
  await clock.advance(100);
  const ids = (): readonly string[] => lists.at(-1)?.list.map(({ id }) => id) ?? [];
  return Object.assign(state, { clock, directory, source, asked, lists, ids });
}
const A = "a.example.com. 3600 A 192.0.2.1";
const srv = (ttl: number, priority = 0): string => `_http._tcp.example.com. ${ttl} SRV ${priority} 0 80 a.example.com.`;

describe("services from DNS elsewhere", () => {
  it("are instances on external nodes, with weights, tags and labels, and follow the zone", async () => {
    const here = await begin(
      { services: { service: "web", name: "_HTTP._tcp.example.com.", tags: ["far"], labels: { env: "prod" } } },
      "_http._tcp.example.com. 10 SRV 0 3 8080 a.example.com.",
      "_http._tcp.example.com. 10 SRV 0 0 8081 B.example.com.",
      "a.example.com. 10 A 192.0.2.1",
      "b.example.com. 10 A 192.0.2.2",
      "b.example.com. 10 AAAA 2001:db8::2",
    );
    const facts = { name: "web", tags: ["far"], checks: [] };
    const labels = { env: "prod", "dns-name": "_http._tcp.example.com", "dns-priority": "0" };
    expect(here.lists.at(-1)).toMatchObject({ authority: "second-hand", complaints: [] });
    expect(here.lists.at(-1)?.list).toMatchObject([
      {
        ...{ ...facts, labels, id: "web:192.0.2.1:8080", address: "192.0.2.1", port: 8080 },
        ...{ weights: { passing: 300 }, external: { node: { name: "a.example.com", address: "192.0.2.1" } } },
      },
      {
        ...{ ...facts, labels, id: "web:192.0.2.2:8081", address: "192.0.2.2", port: 8081 },
        ...{ weights: { passing: 1 }, external: { node: { name: "b.example.com", address: "192.0.2.2" } } },
        addresses: [{ host: "192.0.2.2" }, { host: "2001:db8::2" }],
        taggedAddresses: { lan_ipv6: { address: "2001:db8::2", port: 8081 } },
      },
    ]);
    here.lines = ["_http._tcp.example.com. 10 SRV 0 3 8080 a.example.com.", "a.example.com. 10 A 192.0.2.1"];
    await here.clock.advance(12_000);
    expect(here.lists.at(-1)?.list).toMatchObject([{ id: "web:192.0.2.1:8080", weights: { passing: 3 } }]);
    expect(here.source.state()).toMatchObject({ ok: true, text: "1 name, 1 instance" });
    const [entry] = here.source.state().entries ?? [];
    expect(entry?.name).toBe("web (_http._tcp.example.com)");
    expect([...(entry?.tells() ?? [])]).toEqual(here.lists.at(-1)?.list.map(goneKeyOf));
  });
  it("are the addresses of a name where a port is given", async () => {
    const service = { service: "db", name: "DB.example.com.", port: 5432 };
    const here = await begin({ services: service }, "db.example.com. 10 A 192.0.2.2", "db.example.com. 10 A 192.0.2.1");
    expect(here.ids()).toEqual(["db:192.0.2.1:5432", "db:192.0.2.2:5432"]);
    expect(here.lists.at(-1)?.list[0]?.external?.node.name).toBe("db.example.com");
  });
  it("are not taken where this directory has them at first hand", async () => {
    const here = await begin({}, srv(10), A);
    expect(here.ids()).toEqual(["web:192.0.2.1:80"]);
    const node = { id: "1", name: "mine", address: "192.0.2.1", datacenter: "dc1", taggedAddresses: {}, labels: {} };
    const instance = { id: "w", name: "web", tags: [], labels: {}, address: "", port: 80, node: "mine" };
    const origin = { source: "api", authority: "first-hand" } as const;
    await here.directory.write([
      { op: "put", table: "node", key: keyOf.node("mine"), value: node },
      { op: "put", table: "service", key: keyOf.service("mine", "w"), value: { ...instance, origin } },
    ]);
    await here.clock.advance(1_000);
    expect(here.ids()).toEqual([]);
  });
  it("are configured as the README says", async () => {
    const readme = readFileSync(join(import.meta.dirname, "README.md"), "utf8");
    const example = /<!-- example -->\n\n```json\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
    const here = await begin(
      JSON.parse(example).protocols["dns-upstream"],
      srv(10),
      A,
      "db.example.com. 9 A 192.0.2.5",
    );
    expect(here.ids()).toEqual(["web:192.0.2.1:80", "db:192.0.2.5:5432"]);
  });
});

describe("a name is asked for", () => {
  it("by its TTL, up to a tenth later", async () => {
    const here = await begin({}, srv(60), A);
    await here.clock.advance(59_800);
    expect(here.asked).toEqual([0]);
    await here.clock.advance(300_000);
    const gaps = here.asked.slice(1).map((at, i) => at - (here.asked[i] ?? 0));
    expect(gaps.length).toBeGreaterThanOrEqual(5);
    for (const gap of gaps) expect(gap).toBeGreaterThanOrEqual(60);
    for (const gap of gaps) expect(gap).toBeLessThanOrEqual(66.1);
    // Not all of a fleet at the same moment.
    expect(new Set(gaps.map((gap) => gap.toFixed(2))).size).toBeGreaterThan(1);
    expect(here.lists.filter(({ list }) => list.length > 0)).toHaveLength(1);
  });
  it("no more often than the floor and no less often than the cap", async () => {
    const often = await begin({ floor: "10s" }, srv(0), A);
    await often.clock.advance(60_000);
    expect(often.asked.length).toBeGreaterThanOrEqual(6);
    expect(often.asked.length).toBeLessThanOrEqual(7);
    const seldom = await begin({ cap: "20s" }, srv(86_400), A);
    await seldom.clock.advance(60_000);
    expect(seldom.asked.length).toBeGreaterThanOrEqual(3);
    expect(seldom.asked.length).toBeLessThanOrEqual(4);
  });
  it("less and less often while nobody answers, and what is known stays", async () => {
    const here = await begin({}, srv(60), A);
    here.fails = true;
    await here.clock.advance(600_000);
    const failed = here.asked.filter((at) => at >= 60);
    expect(failed.length).toBeGreaterThanOrEqual(10);
    expect(failed.length).toBeLessThanOrEqual(20);
    expect(here.ids()).toEqual(["web:192.0.2.1:80"]);
    expect(here.source.state()).toMatchObject({ ok: false, text: expect.stringContaining("all is dark") });
    here.fails = false;
    await here.clock.advance(72_100);
    expect(here.source.state()).toMatchObject({ ok: true, text: "1 name, 1 instance" });
    const [entry] = here.source.state().entries ?? [];
    expect(entry?.name).toBe("web (_http._tcp.example.com)");
    expect([...(entry?.tells() ?? [])]).toEqual(here.lists.at(-1)?.list.map(goneKeyOf));
  });
});

describe("absence", () => {
  it("is held until it was said again so much later, and is hearsay then", async () => {
    const here = await begin({ hold: "45s" }, srv(10), A);
    here.lines = [];
    await here.clock.advance(11_100);
    // The SOA says 30 s.
    await here.clock.advance(33_000);
    expect(here.ids()).toEqual(["web:192.0.2.1:80"]);
    expect(here.source.state().text).toContain("does not exist: what was known is held for 45 s");
    await here.clock.advance(20_000);
    expect(here.ids()).toEqual([]);
    expect([...(here.lists.at(-1)?.gone ?? [])]).toMatchObject([
      [
        "a.example.com/web:192.0.2.1:80",
        { code: "missing", confirmed: false, text: '"_http._tcp.example.com" does not exist' },
      ],
    ]);
  });
  it("that a server took back in time was none", async () => {
    const here = await begin({ hold: "45s" }, srv(10), A);
    here.lines = [];
    await here.clock.advance(20_000);
    here.lines = [srv(10), A];
    await here.clock.advance(40_000);
    here.lines = [];
    await here.clock.advance(30_000);
    expect(here.ids()).toEqual(["web:192.0.2.1:80"]);
    expect(here.lists.filter(({ list }) => list.length === 0)).toHaveLength(1);
  });
  it("that is decided needs no holding, and no guard", async () => {
    const here = await begin({}, srv(10), A);
    here.lines = ["_http._tcp.example.com. 10 SRV 0 0 0 ."];
    await here.clock.advance(12_000);
    expect([...(here.lists.at(-1)?.gone?.values() ?? [])]).toMatchObject([{ code: "deregistered", confirmed: true }]);
  });
});

describe("priorities", () => {
  const level = (name: string, priority: number): string[] => [
    `_dns._udp.example.com. 10 SRV ${priority} 0 53 ${name}.example.com.`,
    `_http._tcp.example.com. 10 SRV ${priority} 0 80 ${name}.example.com.`,
    `${name}.example.com. 10 A 192.0.2.${priority}`,
  ];
  const routable = ({ lists }: { lists: SourceList[] }): readonly string[] =>
    (lists.at(-1)?.list ?? [])
      .filter(({ checks }) => checks.every(({ initial }) => initial !== "critical"))
      .map(({ address }) => address);
  const lines = [...level("a", 1), ...level("b", 2), ...level("c", 3)];

  it("are those that answer, as the directory's checks say", async () => {
    const here = await begin({}, ...lines);
    expect(routable(here)).toEqual(["192.0.2.1"]);
    const says = async (host: string, n: number, status: "passing" | "critical"): Promise<void> => {
      const id = `dns-upstream:tcp:web:192.0.2.${n}:80`;
      const facts = { id, node: host, name: "reachable", status, notes: "", output: "", serviceId: "", type: "tcp" };
      const node = {
        id: "",
        name: host,
        address: "192.0.2.9",
        datacenter: "dc1",
        taggedAddresses: {},
        labels: {},
        external: true,
      };
      await here.directory.write([
        { op: "put", table: "node", key: keyOf.node(host), value: node },
        { op: "put", table: "check", key: keyOf.check(host, id), value: facts },
      ]);
      await here.clock.advance(1_000);
    };
    await says("a.example.com", 1, "critical");
    expect(routable(here)).toEqual(["192.0.2.2"]);
    await says("b.example.com", 2, "critical");
    expect(routable(here)).toEqual(["192.0.2.3"]);
    await says("c.example.com", 3, "critical");
    expect(routable(here)).toEqual(["192.0.2.1"]);
    await says("b.example.com", 2, "passing");
    expect(routable(here)).toEqual(["192.0.2.2"]);
  });
  it("of what cannot be asked by TCP are the lowest, and nothing asks", async () => {
    const here = await begin({ services: { service: "dns", name: "_dns._udp.example.com" } }, ...lines);
    expect(routable(here)).toEqual(["192.0.2.1"]);
    expect(here.lists.at(-1)?.list.flatMap(({ checks }) => checks.map(({ kind }) => kind))).toEqual(["none", "none"]);
  });
});
