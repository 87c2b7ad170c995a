// The lookup's answers: health, tags, labels, order, freshness, following and explaining.
import { afterEach, describe, expect, it } from "vitest";
import { fakeClock } from "../../test/simulated/clock.ts";
import { aliveChange, checkChange, nodeChange, serviceChange, testDirectory } from "../../test/support/directory.ts";
import { ids, type World, world } from "../../test/support/lookup.ts";
import { memoryDurable } from "../base/durable.ts";
import { TrilithError } from "../base/error.ts";
import type { HeldCheck } from "../contracts/agent.ts";
import type { SourceState } from "../contracts/ground.ts";
import type { SourceEntry } from "../contracts/source.ts";
import type { Answer, Query } from "../model/query.ts";
import { keyOf } from "../model/record.ts";

const running: World[] = [];
async function started(given: Parameters<typeof world>[0] = {}): Promise<World> {
  const w = await world(given);
  running.push(w);
  await w.lookup.start();
  return w;
}
afterEach(async () => {
  for (const w of running.splice(0)) {
    await w.lookup.stop();
    expect(w.clock.timers).toBe(0);
    expect(w.directory.waiting).toBe(0);
  }
});

async function mixed(): Promise<World> {
  const w = await started();
  await w.directory.write([
    nodeChange("far", "10.2.0.1"),
    serviceChange("home", "pass", "web", {
      port: 1,
      tags: ["V1", "eu"],
      labels: { zone: "a" },
      weights: { passing: 4, warning: 2 },
    }),
    serviceChange("home", "warn", "web", { port: 2, tags: ["v1"], weights: { passing: 4, warning: 2 } }),
    serviceChange("home", "crit", "web", { port: 3 }),
    serviceChange("home", "drain", "web", { port: 4, draining: true }),
    serviceChange("home", "maint", "web", { port: 5 }),
    serviceChange("far", "remote", "web", { port: 6, address: "10.2.0.9" }),
    checkChange("home", "c1", "passing", { serviceId: "pass" }),
    checkChange("home", "c2", "warning", { serviceId: "warn", output: "slow: 3 s" }),
    checkChange("home", "c3", "critical", { serviceId: "crit", output: "connection refused\n" }),
    checkChange("home", "_service_maintenance:maint", "critical", { serviceId: "maint", notes: "moving house" }),
    aliveChange("far", true),
  ]);
  return w;
}
const find = (w: World, query: Partial<Query> = {}) => ids(w.lookup.resolveNow({ service: "web", ...query }).endpoints);
const why = (w: World, id: string, query: Partial<Query> = {}) =>
  w.lookup.explain({ service: "web", ...query }).find(({ resident }) => resident.instance.id === id);

describe("what may be answered", () => {
  it("by health: routable by default, passing only, or everything recorded", async () => {
    const w = await mixed();
    expect(find(w)).toEqual(["pass", "remote", "warn"]);
    expect(find(w, { health: "passing" })).toEqual(["pass", "remote"]);
    expect(find(w, { health: "any" })).toEqual(["crit", "drain", "maint", "pass", "remote", "warn"]);
  });

  it("a node's check counts for all its services: critical, warning, maintenance", async () => {
    const w = await mixed();
    await w.directory.write([checkChange("home", "disk", "warning")]);
    expect(find(w)).toEqual(["pass", "remote", "warn"]);
    expect(find(w, { health: "passing" })).toEqual(["remote"]);
    await w.directory.write([checkChange("home", "disk", "critical")]);
    expect(find(w)).toEqual(["remote"]);
    await w.directory.write([
      checkChange("home", "disk", "passing"),
      checkChange("home", "_node_maintenance", "critical"),
    ]);
    expect(find(w)).toEqual(["remote"]);
  });

  it("by tags ignoring case, all of them, and by labels exactly", async () => {
    const w = await mixed();
    expect(find(w, { tags: ["v1"] })).toEqual(["pass", "warn"]);
    expect(find(w, { tags: ["v1", "EU"] })).toEqual(["pass"]);
    expect(find(w, { labels: { zone: "a" } })).toEqual(["pass"]);
    expect(find(w, { labels: { zone: "A" } })).toEqual([]);
    expect(find(w, { labels: { constructor: "x" } })).toEqual([]);
    expect(find(w, { service: "WEB", tags: ["V1"], labels: { zone: "a" }, health: "passing" })).toEqual(["pass"]);
  });

  it("with address, port and the weight for its health", async () => {
    const w = await mixed();
    const byId = new Map(
      w.lookup.resolveNow({ service: "web" }).endpoints.map((each) => [each.resident.instance.id, each]),
    );
    expect(byId.get("pass")).toMatchObject({ address: "10.1.0.1", port: 1, weight: 4 });
    expect(byId.get("warn")).toMatchObject({ address: "10.1.0.1", port: 2, weight: 2 });
    expect(byId.get("remote")).toMatchObject({ address: "10.2.0.9", port: 6, weight: 1 });
  });

  it("known or not: nothing healthy is known, nothing registered is not, another datacenter is not", async () => {
    const w = await mixed();
    expect(w.lookup.resolveNow({ service: "web", tags: ["none"] })).toMatchObject({ endpoints: [], known: true });
    expect(w.lookup.resolveNow({ service: "nothing" })).toMatchObject({ endpoints: [], known: false });
    expect(w.lookup.resolveNow({ service: "__proto__" })).toMatchObject({ endpoints: [], known: false });
    expect(w.lookup.resolveNow({ service: "web", datacenter: "DC1" }).known).toBe(true);
    expect(w.lookup.resolveNow({ service: "web", datacenter: "dc2" })).toMatchObject({ endpoints: [], known: false });
  });

  it("in an order and up to a limit", async () => {
    const w = await mixed();
    const order = (query: Partial<Query>) =>
      w.lookup.resolveNow({ service: "web", ...query }).endpoints.map(({ resident }) => resident.instance.id);
    expect(order({ order: "stable" })).toEqual(["remote", "pass", "warn"]);
    expect(order({ order: "stable", limit: 1 })).toEqual(["remote"]);
    expect(order({ order: "near", asker: "10.2.0.1" })[0]).toBe("remote");
    expect(order({ order: "near", asker: "127.0.0.1" }).at(-1)).toBe("remote");
    expect(new Set(Array.from({ length: 60 }, () => order({})[0]))).toEqual(new Set(["pass", "warn", "remote"]));
  });

  it("from lists made once: asking again makes nothing anew, a change does", async () => {
    const w = await mixed();
    const one = () => w.lookup.resolveNow({ service: "web", order: "stable", tags: ["v1"] });
    const first = one();
    expect(one().endpoints).toBe(first.endpoints);
    await w.directory.write([nodeChange("unrelated", "10.3.0.1")]);
    expect(one().endpoints).toBe(first.endpoints);
    await w.directory.write([checkChange("home", "c2", "passing", { serviceId: "warn" })]);
    expect(one().endpoints).not.toBe(first.endpoints);
    expect(one().index).toBeGreaterThan(first.index);
  });

  it("by the asker's network, where it matters", async () => {
    const w = await started();
    await w.directory.write([
      serviceChange("home", "c", "box", {
        address: "10.1.0.1",
        port: 8080,
        addresses: [
          { host: "172.17.0.5", port: 80, reach: "bridge", network: "172.17.0.0/16" },
          { host: "10.1.0.1", port: 8080, reach: "lan" },
        ],
      }),
      serviceChange("home", "l", "box", { port: 9, addresses: [{ host: "127.0.0.1", port: 9, reach: "loopback" }] }),
    ]);
    const at = (asker: string) =>
      w.lookup
        .resolveNow({ service: "box", asker, order: "stable" })
        .endpoints.map(({ address, port }) => `${address}:${port}`);
    expect(at("172.17.0.8")).toEqual(["172.17.0.5:80"]);
    expect(at("10.9.9.9")).toEqual(["10.1.0.1:8080"]);
    expect(at("127.0.0.1")).toEqual(["10.1.0.1:8080", "127.0.0.1:9"]);
    expect(w.lookup.explain({ service: "box", asker: "10.9.9.9" }).find(({ included }) => !included)?.text).toContain(
      "the asker 10.9.9.9 cannot reach it",
    );
  });
});

describe("how true an answer is", () => {
  it("turns stale with its age while the store is away, and fresh again", async () => {
    const w = await mixed();
    expect(w.lookup.resolveNow({ service: "web" })).toMatchObject({ fresh: true, ageMs: 0 });
    w.directory.reachable(false);
    await w.clock.advance(7_000);
    expect(w.lookup.resolveNow({ service: "web" })).toMatchObject({ fresh: false, ageMs: 7_000, known: true });
    expect(find(w)).toEqual(["pass", "remote", "warn"]);
    expect(why(w, "pass")?.text).toContain("(last known 7 s ago: the store behind the directory is away)");
    w.directory.reachable(true);
    expect(w.lookup.resolveNow({ service: "web" })).toMatchObject({ fresh: true, ageMs: 0 });
  });

  it("turns stale while a second-hand source is away; what others brought in stays fresh", async () => {
    let zookeeper: SourceState = { name: "zookeeper", ok: true, text: "3 members" };
    const w = await started({ sources: () => [zookeeper, { name: "docker", ok: false, text: "no socket" }] });
    await w.list("db", ["m1", "m2"]);
    await w.list("web", ["m3"], { authority: "first-hand" });
    expect(w.lookup.resolveNow({ service: "db" })).toMatchObject({ fresh: true, ageMs: 0 });
    await w.clock.advance(20_000);
    zookeeper = { ...zookeeper, ok: false, text: "connection refused" };
    await w.clock.advance(30_000);
    const answer = w.lookup.resolveNow({ service: "db" });
    expect(answer.fresh).toBe(false);
    expect(answer.ageMs).toBeGreaterThanOrEqual(30_000);
    expect(answer.ageMs).toBeLessThanOrEqual(46_000);
    expect(ids(answer.endpoints)).toEqual(["m1", "m2"]);
    expect(w.lookup.resolveNow({ service: "web" })).toMatchObject({ fresh: true });
    zookeeper = { ...zookeeper, ok: true };
    await w.clock.advance(1_000);
    expect(w.lookup.resolveNow({ service: "db" })).toMatchObject({ fresh: true, ageMs: 0 });
  });

  it("is stale at once where a source that is away is heard of just after the others were looked at", async () => {
    const w = await started({ sources: () => [{ name: "zookeeper", ok: false, text: "connection refused" }] });
    await w.clock.advance(45_000);
    await w.list("db", ["m1"]);
    expect(w.lookup.resolveNow({ service: "db" })).toMatchObject({ fresh: false });
  });

  it("turns stale by entry: a failing one does not age its siblings, and why names it", async () => {
    const entry = (name: string, ids: readonly string[]): SourceEntry => ({
      ...{ name, ok: !failing.has(name), text: failing.get(name) ?? "" },
      tells: () => ids.map((id) => `home/${id}`),
    });
    const failing = new Map<string, string>();
    const sources = (): readonly SourceState[] => [
      {
        name: "zookeeper",
        ok: failing.size === 0,
        text: "2 sets",
        entries: [entry("/db", ["m1"]), entry("/web", ["m2"])],
      },
    ];
    const durable = memoryDurable();
    const w = await started({ sources, durable });
    await w.list("db", ["m1"]);
    await w.list("web", ["m2"]);
    await w.list("both", ["m3"]);
    expect(w.lookup.resolveNow({ service: "db" })).toMatchObject({ fresh: true, ageMs: 0 });
    await w.clock.advance(20_000);
    failing.set("/db", "no authority");
    await w.clock.advance(30_000);
    const db = w.lookup.resolveNow({ service: "db" });
    expect(db.fresh).toBe(false);
    expect(db.ageMs).toBeGreaterThanOrEqual(30_000);
    expect(db.ageMs).toBeLessThanOrEqual(46_000);
    for (const service of ["web", "both"])
      expect(w.lookup.resolveNow({ service })).toMatchObject({ fresh: true, ageMs: 0 });
    expect(why(w, "m1", { service: "db" })?.text).toMatch(/\(last known \d+ s ago: zookeeper: \/db: no authority\)/);
    expect(why(w, "m1", { service: "db" })?.stale).toEqual({ ageMs: db.ageMs, text: "zookeeper: /db: no authority" });
    expect(why(w, "m2", { service: "web" })?.text).not.toContain("last known");
    expect(why(w, "m2", { service: "web" })).not.toHaveProperty("stale");
    // After a restart each is as old as it was itself.
    await w.lookup.stop();
    running.length = 0;
    const next = await started({ sources, durable, clock: w.clock, directory: w.directory });
    failing.set("/web", "no authority either");
    await next.clock.advance(1_000);
    const [old, young] = ["db", "web"].map((service) => next.lookup.resolveNow({ service }));
    expect(old).toMatchObject({ fresh: false });
    expect(young).toMatchObject({ fresh: false });
    expect(old?.ageMs).toBeGreaterThanOrEqual(31_000);
    expect(young?.ageMs).toBeLessThanOrEqual(1_000);
    failing.clear();
    await next.clock.advance(1_000);
    expect(next.lookup.resolveNow({ service: "db" })).toMatchObject({ fresh: true, ageMs: 0 });
  });
});

function following(w: World, query: Query): { seen: Answer[]; stop(): Promise<void> } {
  const controller = new AbortController();
  const seen: Answer[] = [];
  const done = (async () => {
    for await (const answer of w.lookup.follow(query, controller.signal)) seen.push(answer);
  })();
  return {
    seen,
    async stop() {
      controller.abort();
      await done;
    },
  };
}

describe("following", () => {
  it("tells now and on every change of the endpoints, and of nothing else", async () => {
    const w = await mixed();
    const f = following(w, { service: "Web", tags: ["v1"] });
    await w.clock.settle();
    expect(f.seen.map(({ endpoints }) => ids(endpoints))).toEqual([["pass", "warn"]]);
    await w.directory.write([
      checkChange("home", "c2", "warning", { serviceId: "warn", output: "slow: 4 s" }),
      checkChange("home", "c3", "passing", { serviceId: "crit" }),
      serviceChange("home", "other", "web", {}),
      nodeChange("third", "10.3.0.1"),
    ]);
    await w.clock.advance(10_000);
    expect(f.seen).toHaveLength(1);
    await w.directory.write([checkChange("home", "c1", "critical", { serviceId: "pass" })]);
    await w.clock.settle();
    await w.directory.write([serviceChange("home", "new", "web", { tags: ["v1"] })]);
    await w.clock.settle();
    expect(f.seen.slice(1).map(({ endpoints }) => ids(endpoints))).toEqual([["warn"], ["new", "warn"]]);
    await f.stop();
  });

  it("begins with a name that nobody knows yet, and ends when aborted, also before it began", async () => {
    const w = await started();
    const f = following(w, { service: "later" });
    await w.clock.settle();
    expect(f.seen).toMatchObject([{ endpoints: [], known: false }]);
    await w.directory.write([serviceChange("home", "x", "later")]);
    await w.clock.settle();
    expect(f.seen[1]).toMatchObject({ known: true });
    await f.stop();
    const aborted = w.lookup.follow({ service: "later" }, AbortSignal.abort());
    expect(await aborted[Symbol.asyncIterator]().next()).toEqual({ done: true, value: undefined });
  });
});

describe("asking others", () => {
  const theirs: Answer = { endpoints: [], fresh: true, ageMs: 5, known: true, index: 1 };

  it("only for what is not known here, in order, past those that fail", async () => {
    const asked: string[] = [];
    const w = await started({
      upstreams: () => [
        {
          resolve: async ({ service }) => {
            asked.push(`first ${service}`);
            throw new TrilithError("unavailable", "away");
          },
        },
        {
          resolve: async ({ service }) => {
            asked.push(`second ${service}`);
            return { ...theirs, known: service === "outside" };
          },
        },
      ],
    });
    await w.directory.write([serviceChange("home", "x", "web")]);
    expect(await w.lookup.resolve({ service: "web" })).toMatchObject({ known: true, ageMs: 0 });
    expect(asked).toEqual([]);
    expect(await w.lookup.resolve({ service: "outside" })).toMatchObject({ known: true, ageMs: 5 });
    expect(asked).toEqual(["first outside", "second outside"]);
    expect(await w.lookup.resolve({ service: "nowhere" })).toMatchObject({ known: false });
    expect(await w.lookup.resolve({ service: "web", datacenter: "dc9" })).toMatchObject({ known: false });
  });

  it("follows a service of another datacenter by asking again and again", async () => {
    let known = true;
    let away = false;
    let asked = 0;
    const w = await started({
      upstreams: () => [
        {
          async resolve({ datacenter }) {
            asked++;
            if (away) throw new TrilithError("unavailable", "away");
            return { ...theirs, known: known && datacenter === "dc9" };
          },
        },
      ],
    });
    const f = following(w, { service: "web", datacenter: "dc9" });
    await w.clock.settle();
    expect(f.seen).toMatchObject([{ known: true }]);
    await w.clock.advance(5_000);
    expect(asked).toBeGreaterThan(4);
    expect(f.seen).toHaveLength(1);
    known = false;
    await w.clock.advance(1_000);
    expect(f.seen[1]).toMatchObject({ known: false, fresh: true });
    away = true;
    await w.clock.advance(1_000);
    expect(f.seen[2]).toMatchObject({ known: false, fresh: false });
    await f.stop();
    const before = asked;
    await w.clock.advance(5_000);
    expect(asked).toBe(before);
  });

  it("waits for the first picture of a shared store, no longer than the signal", async () => {
    const clock = fakeClock();
    const directory = testDirectory(clock, false);
    const w = await started({ directory, clock, shared: true });
    const gaveUp = await w.lookup.resolve({ service: "web" }, AbortSignal.abort());
    expect(gaveUp).toMatchObject({ known: false, fresh: false });
    const answer = w.lookup.resolve({ service: "web" }, new AbortController().signal);
    await directory.write([nodeChange("a", "10.2.0.1"), serviceChange("a", "x", "web")]);
    directory.becomeReady();
    expect(await answer).toMatchObject({ known: true, fresh: true });
  });
});

describe("explaining", () => {
  it("names what decides about every instance", async () => {
    const w = await mixed();
    await w.directory.write([
      checkChange("far", "serfHealth", "critical", { output: "Agent not live or unreachable" }),
    ]);
    expect(why(w, "pass")).toMatchObject({ included: true, text: "passing: 1 check passing" });
    expect(why(w, "warn")).toMatchObject({ included: true, text: `warning: check "c2" says: slow: 3 s` });
    expect(why(w, "warn", { health: "passing" })).toMatchObject({
      included: false,
      text: expect.stringMatching(/^only passing was asked for: warning/),
    });
    expect(why(w, "crit")).toMatchObject({ included: false, text: `critical: check "c3" says: connection refused` });
    expect(why(w, "crit", { health: "any" })?.included).toBe(true);
    expect(why(w, "drain")).toMatchObject({ included: false, text: "draining" });
    expect(why(w, "maint")).toMatchObject({ included: false, text: "in maintenance: moving house" });
    expect(why(w, "remote")).toMatchObject({
      included: false,
      text: `critical: the liveness check of node "far" says: Agent not live or unreachable`,
    });
    expect(why(w, "pass", { tags: ["v2"] })).toMatchObject({
      included: false,
      text: `lacks the tag "v2" (it has "V1", "eu")`,
    });
    expect(why(w, "pass", { labels: { zone: "b" } })?.text).toBe(`its label is "zone=a", asked for was "zone=b"`);
    expect(why(w, "crit", { labels: { zone: "b" } })?.text).toBe(`lacks the label "zone=b"`);
    expect(w.lookup.explain({ service: "nothing" })).toEqual([]);
  });

  it("says since when something drains, and by whom, from the agent's history", async () => {
    const w = await started({
      agent: {
        history: () => [
          { atMs: 5, id: "x", text: "is draining: container stops (SIGTERM)" },
          { atMs: 1, id: "x", text: "registered" },
        ],
        checks: () => new Map(),
      },
    });
    await w.directory.write([serviceChange("home", "x", "web", { draining: true })]);
    expect(why(w, "x")?.text).toBe("draining since 1970-01-01T00:00:00.005Z: container stops (SIGTERM)");
  });

  it("says what a check of this host said last, which the directory may be told later", async () => {
    const held = new Map<string, HeldCheck>();
    const w = await started({ agent: { history: () => [], checks: () => held } });
    await w.directory.write([
      nodeChange("far", "10.2.0.1"),
      aliveChange("far", true),
      serviceChange("home", "own", "web"),
      serviceChange("far", "theirs", "web"),
      checkChange("home", "c", "critical", { serviceId: "own", output: "" }),
      checkChange("far", "c", "critical", { serviceId: "theirs", output: "theirs" }),
    ]);
    const said = () => ["own", "theirs"].map((id) => why(w, id)?.text);
    expect(said()).toEqual(['critical: check "c" has no output', 'critical: check "c" says: theirs']);
    const told = w.directory.view().get("check", keyOf.check("home", "c"));
    if (told === undefined) throw new Error("the check is not there");
    const spec = { id: "c", name: "c", notes: "", kind: "ttl", detail: {}, intervalMs: 0, timeoutMs: 0 };
    const check = { ...told, node: "HOME", output: "disk full\n" };
    held.set("c", { check, spec, history: [] });
    expect(said()).toEqual(['critical: check "c" says: disk full', 'critical: check "c" says: theirs']);
    // What it says while it is passing is no reason to be out.
    held.set("c", { check: { ...check, status: "passing" }, spec, history: [] });
    expect(said()[0]).toBe('critical: check "c" has no output');
  });

  it("says of a TTL check that nobody speaks for how it is told", async () => {
    const w = await started();
    await w.directory.write([
      serviceChange("home", "own", "web"),
      checkChange("home", "service:own", "critical", { serviceId: "own", type: "ttl", output: "" }),
    ]);
    expect(why(w, "own")?.text).toBe(
      'critical: check "service:own" has no output: a TTL check is what its program says of it, by PUT /v1/agent/check/pass/service:own',
    );
  });

  it("says of a check that was not asked yet when it is", async () => {
    const w = await started();
    const asked = { serviceId: "own", output: "", intervalMs: 10_000 };
    await w.directory.write([
      serviceChange("home", "own", "web"),
      checkChange("home", "c", "critical", { ...asked, type: "http" }),
    ]);
    expect(why(w, "own")?.text).toBe(
      'critical: check "c" has no result yet: the first comes within its interval (10 s)',
    );
    // A script may say nothing each time.
    await w.directory.write([checkChange("home", "c", "critical", { ...asked, type: "script" })]);
    expect(why(w, "own")?.text).toBe('critical: check "c" has no output');
  });

  it("agrees with the answer, held instances included", async () => {
    const w = await started();
    await w.list("web", ["m1", "m2", "m3", "m4"]);
    find(w);
    await w.list("web", []);
    for (const query of [{}, { health: "passing" }, { health: "any" }, { tags: ["x"] }] as const) {
      const verdicts = w.lookup.explain({ service: "web", ...query });
      expect(
        verdicts
          .filter(({ included }) => included)
          .map(({ resident }) => resident.instance.id)
          .sort(),
      ).toEqual(find(w, query));
    }
    expect(why(w, "m1")?.text).toMatch(/^no longer in the directory; held by the sharp-drop guard since 2026-.*4 of 4/);
  });
});

describe("life", () => {
  it("starts twice = once, stops before start = nothing, stops twice, nothing runs afterwards", async () => {
    const w = await world();
    await w.lookup.stop();
    await w.lookup.start();
    await w.lookup.start();
    await w.clock.advance(20_000);
    expect(w.clock.timers).toBeGreaterThan(0);
    await w.lookup.stop();
    await w.lookup.stop();
    expect(w.clock.timers).toBe(0);
    expect(w.directory.waiting).toBe(0);
  });
});
