// Last known good over a restart: a shared store that is away, a source that is away, rare writes, damage.
import { afterEach, describe, expect, it } from "vitest";
import { type FakeClock, fakeClock } from "../../test/simulated/clock.ts";
import { checkChange, goneChange, nodeChange, serviceChange, testDirectory } from "../../test/support/directory.ts";
import { ids, type World, world } from "../../test/support/lookup.ts";
import type { Durable } from "../base/durable.ts";
import { silentLog } from "../base/log.ts";
import type { SourceEntry } from "../contracts/source.ts";
import { createRemember, REMEMBERED_TABLE } from "./remember.ts";

/** A durable map in memory that outlives the lookup, counts its writes and can be full. */
function disk(): Durable & { readonly rows: Map<string, Uint8Array>; writes: number; full: boolean } {
  const rows = new Map<string, Uint8Array>();
  const name = (table: string, key: string): string => `${table}\u0001${key}`;
  return {
    rows,
    writes: 0,
    full: false,
    async write(writes) {
      if (this.full) throw new Error("disk full");
      this.writes++;
      for (const { table, key, value } of writes)
        if (value === undefined) rows.delete(name(table, key));
        else rows.set(name(table, key), value);
    },
    async *entries(table) {
      for (const [key, value] of [...rows])
        if (key.startsWith(`${table}\u0001`)) yield [key.slice(table.length + 1), value];
    },
    get: (table, key) => rows.get(name(table, key)),
    trouble: async () => undefined,
    close: async () => {},
  };
}

const running: World[] = [];
async function life(durable: Durable, clock: FakeClock, given: Parameters<typeof world>[0] = {}): Promise<World> {
  const w = await world({ durable, clock, shared: true, directory: testDirectory(clock, false), ...given });
  running.push(w);
  await w.lookup.start();
  return w;
}
async function end(w: World): Promise<void> {
  await w.lookup.stop();
  expect(w.clock.timers).toBe(0);
  running.splice(running.indexOf(w), 1);
}
afterEach(async () => {
  for (const w of [...running]) await end(w);
});

const WEB = [
  nodeChange("a", "10.2.0.1"),
  nodeChange("b", "10.2.0.2"),
  serviceChange("a", "web-a", "Web", { port: 80, tags: ["v1"], labels: { __proto__: null, zone: "x" } as never }),
  serviceChange("b", "web-b", "Web", { port: 80 }),
  checkChange("b", "c", "critical", { serviceId: "web-b", output: "refused" }),
];

describe("a shared store that is away at start", () => {
  it("answers from what the last life knew, with its age, until the store is there", async () => {
    const durable = disk();
    const clock = fakeClock();
    const first = await life(durable, clock);
    await first.directory.write(WEB);
    first.directory.becomeReady();
    await clock.advance(10_000);
    await end(first);
    await clock.advance(3_600_000);

    const second = await life(durable, clock);
    const answer = second.lookup.resolveNow({ service: "wEB" });
    expect(answer).toMatchObject({ fresh: false, ageMs: 3_600_000, known: true });
    expect(answer.endpoints).toMatchObject([{ address: "10.2.0.1", port: 80 }]);
    expect(second.lookup.resolveNow({ service: "web", labels: { zone: "x" }, tags: ["V1"] }).endpoints).toHaveLength(1);
    expect(second.lookup.resolveNow({ service: "web", labels: { toString: "x" } }).endpoints).toEqual([]);
    expect(second.lookup.explain({ service: "web" }).find(({ included }) => !included)?.text).toContain("refused");
    expect(second.lookup.resolveNow({ service: "other" })).toMatchObject({ known: false, fresh: false });

    const seen: (readonly string[])[] = [];
    const stop = new AbortController();
    const following = (async () => {
      for await (const { endpoints } of second.lookup.follow({ service: "web" }, stop.signal))
        seen.push(ids(endpoints));
    })();
    await clock.settle();
    await second.directory.write([nodeChange("c", "10.2.0.3"), serviceChange("c", "web-c", "web", { port: 81 })]);
    expect(ids(second.lookup.resolveNow({ service: "web" }).endpoints)).toEqual(["web-a"]);
    second.directory.becomeReady();
    await clock.settle();
    expect(second.lookup.resolveNow({ service: "web" })).toMatchObject({ fresh: true, ageMs: 0 });
    expect(seen).toEqual([["web-a"], ["web-c"]]);
    stop.abort();
    await following;
  });

  it("forgets on disk what is gone from the store", async () => {
    const durable = disk();
    const clock = fakeClock();
    const first = await life(durable, clock);
    await first.directory.write([...WEB, serviceChange("a", "db-a", "db")]);
    first.directory.becomeReady();
    await clock.advance(10_000);
    await first.directory.write([goneChange("a", "db-a")]);
    await clock.advance(10_000);
    expect([...durable.rows.keys()].filter((key) => key.includes("service"))).toHaveLength(1);
    await end(first);
    const second = await life(durable, clock);
    second.directory.becomeReady();
    await clock.advance(10_000);
    expect([...durable.rows.keys()].filter((key) => key.includes("service"))).toEqual([]);
  });
});

describe("writes are rare", () => {
  it("none while nothing changes but the clock, one for a burst, none for what ends where it began", async () => {
    const durable = disk();
    const clock = fakeClock();
    const w = await life(durable, clock);
    await w.directory.write(WEB);
    w.directory.becomeReady();
    await clock.advance(10_000);
    expect(durable.writes).toBe(1);
    await clock.advance(240_000);
    expect(durable.writes).toBe(1);
    for (let i = 0; i < 20; i++) {
      await w.directory.write([serviceChange("a", "web-a", "Web", { port: 100 + i })]);
      await clock.advance(100);
    }
    await clock.advance(10_000);
    expect(durable.writes).toBe(2);
    // "Still true", every five minutes.
    await clock.advance(3_600_000);
    expect(durable.writes).toBeGreaterThan(2 + 9);
    expect(durable.writes).toBeLessThan(2 + 14);
  });

  it("a full disk costs no answer and is told; later it is tried again", async () => {
    const durable = disk();
    const clock = fakeClock();
    const w = await life(durable, clock);
    durable.full = true;
    await w.directory.write(WEB);
    w.directory.becomeReady();
    await clock.advance(10_000);
    expect(w.lookup.resolveNow({ service: "web" }).endpoints).toHaveLength(1);
    expect(w.lines.filter((line) => line.includes("disk full"))).toHaveLength(1);
    durable.full = false;
    await clock.advance(310_000);
    expect([...durable.rows.keys()].some((key) => key.includes("service"))).toBe(true);
  });

  it("an embedded store is durable by itself: no endpoints are written, and left-overs of a shared one go", async () => {
    const durable = disk();
    const clock = fakeClock();
    const shared = await life(durable, clock);
    await shared.directory.write(WEB);
    shared.directory.becomeReady();
    await clock.advance(10_000);
    await end(shared);
    expect([...durable.rows.keys()].some((key) => key.includes("service"))).toBe(true);
    const embedded = await life(durable, clock, { shared: false, directory: testDirectory(clock) });
    await embedded.directory.write(WEB);
    await clock.advance(600_000);
    expect([...durable.rows.keys()].some((key) => key.includes("service"))).toBe(false);
  });

  it("has bounds", async () => {
    const durable = disk();
    const clock = fakeClock();
    const directory = testDirectory(clock);
    await directory.write([...WEB, serviceChange("a", "x", "one"), serviceChange("a", "y", "two")]);
    const remember = createRemember({
      durable,
      clock,
      log: silentLog,
      directory: true,
      limits: { services: 1, instancesPerService: 1 },
    });
    for (const name of ["one", "two", "web"]) remember.note(name, directory.view().residents(name));
    await remember.flush();
    expect([...durable.rows.keys()]).toEqual([`${REMEMBERED_TABLE}\u0001service\u0000one`]);
    await remember.stop();
  });
});

describe("a second-hand source that is away after a restart", () => {
  it("its services are answered with the age since the source was last well", async () => {
    const durable = disk();
    const clock = fakeClock();
    const directory = testDirectory(clock);
    let ok = true;
    const sources = () => [{ name: "zookeeper", ok, text: "" }];
    const first = await life(durable, clock, { shared: false, directory, sources });
    await directory.write([nodeChange("home", "10.1.0.1")]);
    await first.list("db", ["m1", "m2"]);
    expect(first.lookup.resolveNow({ service: "db" }).fresh).toBe(true);
    await clock.advance(60_000);
    await end(first);

    await clock.advance(1_000_000);
    ok = false;
    const second = await life(durable, clock, { shared: false, directory, sources });
    const answer = second.lookup.resolveNow({ service: "db" });
    expect(answer).toMatchObject({ fresh: false, ageMs: 1_000_000 });
    expect(ids(answer.endpoints)).toEqual(["m1", "m2"]);
  });
});

describe("a source that reads many things that come and go", () => {
  const entriesOf = (count: number, from: number, failing: string): readonly SourceEntry[] =>
    Array.from({ length: count }, (_, i) => `svc-${from + i}`)
      .concat(failing)
      .map((name) => ({
        ...{ name, ok: name !== failing, text: name === failing ? "refused" : "" },
        tells: () => (name === failing ? ["home/m1"] : []),
      }));

  it("does not fill the disk with their names, nor write all of them with each change", async () => {
    const durable = disk();
    const clock = fakeClock();
    const directory = testDirectory(clock);
    let round = 0;
    let ok = true;
    const sources = () => [
      {
        name: "zookeeper",
        ok,
        text: "",
        entries: entriesOf(50, round * 50, ok ? "none" : "bad").slice(0, ok ? 50 : 51),
      },
    ];
    const w = await life(durable, clock, { directory, sources });
    await directory.write([nodeChange("home", "10.1.0.1"), nodeChange("b", "10.2.0.2")]);
    await w.list("db", ["m1"]);
    const rows = (): number => [...durable.rows.keys()].filter((key) => key.includes("\u0001source\u0000")).length;
    for (ok of [true, false]) {
      for (let i = 0; i < 10; i++, round++) {
        expect(w.lookup.resolveNow({ service: "db" }).fresh).toBe(ok);
        await directory.write([serviceChange("b", "x", "x", { port: 1 + round })]);
        w.lookup.resolveNow({ service: "x" });
        await clock.advance(400_000);
      }
      // What is well with its source is as old as that.
      expect(rows()).toBeLessThanOrEqual(ok ? 1 : 52);
    }
    ok = true;
    await clock.advance(400_000);
    expect(rows()).toBe(1);
  });
});

it("drops what is damaged and says so, and keeps the rest", async () => {
  const durable = disk();
  const clock = fakeClock();
  const first = await life(durable, clock);
  await first.directory.write([...WEB, serviceChange("a", "db-a", "db")]);
  first.directory.becomeReady();
  await clock.advance(10_000);
  await end(first);
  const text = (value: string): Uint8Array => Buffer.from(value);
  for (const [key, value] of [
    ["service\u0000db", '[{"instance":'],
    ["service\u0000odd", '{"a":1}'],
    ["service\u0000half", '[{"instance":{"id":"x"}}]'],
    ["source\u0000zk", "soon"],
    ["what", "1"],
  ] as const)
    await durable.write([{ table: REMEMBERED_TABLE, key, value: text(value) }]);
  const second = await life(durable, clock);
  expect(second.lookup.resolveNow({ service: "web" }).known).toBe(true);
  expect(second.lookup.resolveNow({ service: "db" }).known).toBe(false);
  expect(second.lines.filter((line) => line.includes("cannot be read and is dropped"))).toHaveLength(5);
  expect(durable.rows.size).toBe(2);
});
