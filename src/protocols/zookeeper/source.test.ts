// The source with a ZooKeeper in memory: what stands while something cannot be read, what is said of what went, and that nothing is read twice.
import { afterEach, describe, expect, it } from "vitest";
import { type FakeClock, fakeClock } from "../../../test/simulated/clock.ts";
import { type FakeZooKeeper, fakeZooKeeper } from "../../../test/simulated/zookeeper.ts";
import { nodeChange, serviceChange, type TestDirectory, testDirectory } from "../../../test/support/directory.ts";
import { TrilithError } from "../../base/error.ts";
import { silentLog } from "../../base/log.ts";
import type { SourceList } from "../../contracts/source.ts";
import { configureZooKeeper } from "./config.ts";
import { ServerSetSource } from "./source.ts";

const SET = "/discovery/web";
const json = (host: string, port = 80, more: object = {}): string =>
  JSON.stringify({ serviceEndpoint: { host, port }, additionalEndpoints: {}, status: "ALIVE", ...more });
const member = (n: number): string => `${SET}/member_${String(n).padStart(10, "0")}`;

interface Run {
  readonly source: ServerSetSource;
  readonly lists: SourceList[];
  last(): SourceList | undefined;
  /** "name address:port" of the last list. */
  told(): readonly string[];
  stop(): Promise<void>;
}

describe("the source", () => {
  const stops: (() => Promise<void>)[] = [];
  afterEach(async () => {
    for (const stop of stops.splice(0)) await stop();
  });
  const world = (): { clock: FakeClock; zk: FakeZooKeeper; directory: TestDirectory } => {
    const clock = fakeClock();
    return { clock, zk: fakeZooKeeper(), directory: testDirectory(clock) };
  };
  const run = async (
    { clock, zk, directory }: ReturnType<typeof world>,
    sets: unknown = "/discovery/*",
  ): Promise<Run> => {
    const config = configureZooKeeper({ sets });
    if (config === undefined) throw new Error("off");
    const source = new ServerSetSource(config, { clock, directory, log: silentLog, node: "home", open: zk.open });
    const over = new AbortController();
    const lists: SourceList[] = [];
    const reading = (async () => {
      for await (const list of source.watch(over.signal)) lists.push(list);
    })();
    const stop = async (): Promise<void> => {
      over.abort(new Error("enough"));
      await clock.advance(100);
      await reading;
    };
    stops.push(stop);
    await clock.advance(300);
    return {
      source,
      lists,
      last: () => lists.at(-1),
      told: () => (lists.at(-1)?.list ?? []).map((r) => `${r.name} ${r.external?.node.address}:${r.port}`),
      stop,
    };
  };

  it("reads what changed, and that once", async () => {
    const at = world();
    for (let n = 0; n < 300; n++) at.zk.put(member(n), json(`10.0.${n >> 8}.${n & 255}`));
    const { told, source } = await run(at);
    expect(told()).toHaveLength(300);
    expect(at.zk.asked).toHaveLength(302);
    at.zk.asked.length = 0;
    at.zk.put(member(300), json("10.9.0.1"));
    at.zk.put(member(7), json("10.9.0.2"));
    at.zk.remove(member(8));
    await at.clock.advance(300);
    expect(told()).toContain("web 10.9.0.1:80");
    expect(told()).toContain("web 10.9.0.2:80");
    expect(told()).not.toContain("web 10.0.0.8:80");
    expect([...at.zk.asked].sort()).toEqual([`children ${SET}`, `get ${member(300)}`, `get ${member(7)}`].sort());
    expect(source.state()).toMatchObject({ ok: true, text: expect.stringContaining("300 endpoints of 1 server set") });
  });

  it("keeps a set that cannot be read, and reads it later; the others go on", async () => {
    const at = world();
    at.zk.put(member(1), json("10.0.0.1"));
    at.zk.put("/discovery/db/member_0000000001", json("10.0.0.9", 5432));
    const { told, source } = await run(at);
    expect(told()).toEqual(["db 10.0.0.9:5432", "web 10.0.0.1:80"]);
    at.zk.fault = (_, path) =>
      path.startsWith(SET) ? new TrilithError("not-allowed", "its access list forbids it") : undefined;
    at.zk.put(member(2), json("10.0.0.2"));
    at.zk.put("/discovery/db/member_0000000002", json("10.0.0.8", 5432));
    await at.clock.advance(300);
    expect(told()).toEqual(["db 10.0.0.9:5432", "db 10.0.0.8:5432", "web 10.0.0.1:80"]);
    expect(source.state()).toMatchObject({ ok: false, text: expect.stringContaining("its access list forbids it") });
    at.zk.fault = () => undefined;
    await at.clock.advance(1500);
    expect(told()).toContain("web 10.0.0.2:80");
    expect(source.state().ok).toBe(true);
  });

  it("says why something went: hearsay where the session may be lost, its own word where it says so", async () => {
    const at = world();
    for (const n of [1, 2, 3]) at.zk.put(member(n), json(`10.0.0.${n}`));
    const { last } = await run(at);
    at.zk.remove(member(1));
    at.zk.put(member(2), json("10.0.0.2", 80, { status: "STOPPING" }));
    await at.clock.advance(300);
    expect(Object.fromEntries(last()?.gone ?? [])).toMatchObject({
      [`10-0-0-1/${SET}:80`]: { code: "missing", confirmed: false },
      [`10-0-0-2/${SET}:80`]: { code: "goodbye", confirmed: true, text: expect.stringContaining("says STOPPING") },
    });
    expect(last()?.authority).toBe("second-hand");
  });

  it("a member that joins anew while the old one stands, or later, is the same instance", async () => {
    const at = world();
    at.zk.put(member(1), json("10.0.0.1"));
    const { last } = await run(at);
    const before = last()?.list[0];
    at.zk.put(member(2), json("10.0.0.1"));
    await at.clock.advance(300);
    at.zk.remove(member(1));
    await at.clock.advance(300);
    expect(last()?.list).toEqual([
      { ...before, foreignId: member(2), text: before?.text?.replace("0000000001", "0000000002") },
    ]);
    expect([...(last()?.gone ?? [])]).toEqual([]);
  });

  it("stands while the connection is gone, and is read anew after a lost session", async () => {
    const at = world();
    for (const n of [1, 2]) at.zk.put(member(n), json(`10.0.0.${n}`));
    const { told, source } = await run(at);
    at.zk.cut();
    at.zk.remove(member(1));
    await at.clock.advance(20_000);
    expect(told()).toHaveLength(2);
    expect(source.state()).toMatchObject({ ok: false, text: expect.stringMatching(/is away.*2 endpoints last known/) });
    at.zk.expire();
    await at.clock.advance(300);
    expect(told()).toEqual(["web 10.0.0.2:80"]);
    expect(source.state().ok).toBe(true);
  });

  it("does not bring in what is known at first hand, or what an agent of this directory wrote", async () => {
    const at = world();
    await at.directory.write([
      nodeChange("box", "10.0.0.1"),
      nodeChange("other", "10.0.0.2", { id: "22222222-2222-3333-4444-555555555555" }),
      serviceChange("box", "w", "web", {
        port: 80,
        origin: { source: "docker", authority: "first-hand" },
      }),
    ]);
    at.zk.put(member(1), json("10.0.0.1"));
    at.zk.put(member(2), json("10.0.0.2", 81, { metadata: { trilith: "22222222-2222-3333-4444-555555555555" } }));
    at.zk.put(member(3), json("10.0.0.3", 82, { metadata: { trilith: "another's", v1: "true", team: "shop" } }));
    const { told, last } = await run(at);
    expect(told()).toEqual(["web 10.0.0.3:82"]);
    expect(last()?.list[0]).toMatchObject({ tags: ["v1"], labels: { team: "shop", "zookeeper-set": SET } });
    await at.directory.write([{ table: "service", op: "delete", key: "box\0w" } as never]);
    await at.clock.advance(1000);
    expect(told()).toEqual(["web 10.0.0.1:80", "web 10.0.0.3:82"]);
  });

  it("names services by path, by rule and by endpoint; who names a set counts before who names many", async () => {
    const at = world();
    const additional = { additionalEndpoints: { http: { host: "10.0.0.1", port: 81 } } };
    at.zk.put("/a/prod/web/member_0000000001", json("10.0.0.1", 80, additional));
    const of = async (sets: unknown): Promise<readonly string[]> => {
      const { told, stop } = await run({ ...at, zk: at.zk }, sets);
      const now = [...told()];
      await stop();
      return now;
    };
    expect(await of("/a/*/*")).toEqual(["web 10.0.0.1:80", "web-http 10.0.0.1:81"]);
    expect(await of({ path: "/a/*/*", service: "{2}-{1}", endpoints: false })).toEqual(["web-prod 10.0.0.1:80"]);
    expect(await of({ path: "/a/prod/web", endpoint: "http" })).toEqual(["web 10.0.0.1:81"]);
    expect(await of({ path: "/a/prod/web", endpoints: { http: "admin" } })).toEqual([
      "web 10.0.0.1:80",
      "admin 10.0.0.1:81",
    ]);
    expect(await of(["/a/*/*", { path: "/a/prod/web", service: "shop", endpoints: false }])).toEqual([
      "shop 10.0.0.1:80",
      "web-http 10.0.0.1:81",
    ]);
  });

  it("marks only the set that cannot be read, or what was known of a path that cannot be listed", async () => {
    const at = world();
    at.zk.put("/discovery/db", "");
    at.zk.put(member(1), json("10.0.0.1"));
    at.zk.put("/discovery/db/member_0000000001", json("10.0.0.2", 5432));
    at.zk.put("/other/mail/member_0000000001", json("10.0.0.3", 25));
    const { source, told, last } = await run(at, ["/discovery/*", "/other/mail"]);
    const unwell = (): readonly unknown[] =>
      source.state().entries?.flatMap(({ ok, name, text, tells }) => (ok ? [] : [[name, text, ...tells()]])) ?? [];
    expect(unwell()).toEqual([]);
    at.zk.fault = (what, path) =>
      path.startsWith(SET) ? new TrilithError("not-allowed", `${what} ${path}: no authority`) : undefined;
    at.zk.put(member(2), json("10.0.0.9"));
    await at.clock.advance(300);
    const why = `cannot be read, what is known stays: children ${SET}: no authority`;
    expect(unwell()).toEqual([[SET, why, `10-0-0-1/${SET}:80`]]);
    expect(source.state()).toMatchObject({ ok: false, text: expect.stringContaining(`${SET}: ${why}`) });
    expect(last()?.complaints).toEqual([{ about: SET, text: why }]);
    expect(told()).toHaveLength(3);
    at.zk.fault = (_, path) => (path === "/discovery" ? new TrilithError("not-allowed", "no authority") : undefined);
    at.zk.put("/discovery/more", "");
    await at.clock.advance(1500);
    expect(unwell()).toEqual([
      [
        "/discovery/*",
        "cannot be read, what is known stays: no authority",
        ...["10-0-0-2//discovery/db:5432", `10-0-0-1/${SET}:80`],
      ],
    ]);
    at.zk.fault = () => undefined;
    await at.clock.advance(1500);
    expect(unwell()).toEqual([]);
    expect(told()).toHaveLength(4);
    // Away as a whole: nothing of it is fresh, and no part is named.
    at.zk.cut();
    await at.clock.advance(300);
    expect(source.state()).toMatchObject({ ok: false });
    expect(source.state().entries).toBeUndefined();
  });

  it("an additional endpoint that is none costs its member nothing else, and is told", async () => {
    const at = world();
    at.zk.put(member(1), json("10.0.0.1", 80, { additionalEndpoints: { http: { host: "10.0.0.1", port: 0 } } }));
    const { last } = await run(at);
    expect(last()?.list.map(({ port }) => port)).toEqual([80]);
    expect(last()?.complaints).toEqual([
      { about: `${member(1)}#http`, text: expect.stringMatching(/^is left out: .*port 0: expected a number/) },
    ]);
  });

  it("weighs members by the vectors beside them: shares of a service, and 0 takes out", async () => {
    const at = world();
    for (const n of [1, 2, 3]) at.zk.put(member(n), json(`10.0.0.${n}`, 80, { shard: n }));
    const { last, source } = await run(at);
    const weights = (): readonly unknown[] =>
      last()?.list.map(({ weights: w, draining }) => (draining ? "out" : (w?.passing ?? 1))) ?? [];
    expect(weights()).toEqual([1, 1, 1]);
    const vector = (...lines: object[]): string => JSON.stringify({ vector: lines });
    at.zk.put(`${SET}/vector_0000000007`, vector({ select: "inet=10.0.0.2:80", weight: 3.0, priority: 1 }));
    await at.clock.advance(300);
    expect(weights()).toEqual([1, 3, 1]);
    at.zk.put(`${SET}/vector_0000000008`, vector({ select: "shard=2", weight: 0.5 }, { select: "shard=3", weight: 0 }));
    await at.clock.advance(300);
    expect(weights()).toEqual([100, 150, "out"]);
    at.zk.put(`${SET}/vector_0000000008`, "{");
    await at.clock.advance(300);
    expect(weights()).toEqual([1, 3, 1]);
    expect(source.state()).toMatchObject({ ok: true });
    expect(source.state().text).toMatch(/vector_0000000008 is left out: it is not JSON$/);
    at.zk.remove(`${SET}/vector_0000000007`);
    await at.clock.advance(300);
    expect(weights()).toEqual([1, 1, 1]);
  });

  it("notices within half a minute that a set may not be read any more, although no watch rings", async () => {
    const at = world();
    at.zk.put(member(1), json("10.0.0.1"));
    const { source, told } = await run(at);
    await at.clock.advance(31_000);
    expect(source.state().ok).toBe(true);
    at.zk.fault = (what, path) =>
      what === "children" && path === SET ? new TrilithError("not-allowed", "its access list forbids it") : undefined;
    await at.clock.advance(31_000);
    expect(source.state()).toMatchObject({ ok: false, text: expect.stringContaining("its access list forbids it") });
    expect(told()).toEqual(["web 10.0.0.1:80"]);
    at.zk.fault = () => undefined;
    await at.clock.advance(2_000);
    expect(source.state().ok).toBe(true);
    // While nothing is wrong, each set once.
    at.zk.asked.length = 0;
    await at.clock.advance(60_000);
    expect(at.zk.asked.filter((each) => each.endsWith(` ${SET}`))).toHaveLength(2);
  });
});
