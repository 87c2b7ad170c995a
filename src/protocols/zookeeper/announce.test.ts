// Writing with a ZooKeeper in memory: members come and go with their instances, one each whatever fails, and others' are left alone.
import { afterEach, describe, expect, it } from "vitest";
import { type FakeZooKeeper, fakeZooKeeper } from "../../../test/simulated/zookeeper.ts";
import { nodeChange, serviceChange } from "../../../test/support/directory.ts";
import { type World, world } from "../../../test/support/lookup.ts";
import { TrilithError } from "../../base/error.ts";
import { silentLog } from "../../base/log.ts";
import type { Agent, HeldService } from "../../contracts/agent.ts";
import type { Instance } from "../../model/instance.ts";
import { Announcer } from "./announce.ts";
import { areLoopback, planMembers } from "./announce-plan.ts";
import { configureZooKeeper } from "./config.ts";

const NODE_ID = "11111111-2222-3333-4444-555555555555";
const SET = "/discovery/web";
const instance = (id: string, more: Partial<Instance> = {}): Instance => ({
  ...{ id, name: "web", node: "home", tags: [], labels: {}, address: `192.0.2.${id.length}`, port: 80 },
  origin: { source: "api", authority: "first-hand" },
  ...more,
});

/** An agent that holds what a test puts there. */
function heldBy(): {
  readonly agent: ConstructorParameters<typeof Announcer>[1]["agent"];
  set(...instances: readonly Instance[]): void;
  critical(...ids: readonly string[]): void;
} {
  let services: ReadonlyMap<string, HeldService> = new Map();
  let checks: ReadonlyMap<string, unknown> = new Map();
  let version = 1;
  const wake: (() => void)[] = [];
  const changed = (): void => {
    version++;
    for (const each of wake.splice(0)) each();
  };
  return {
    agent: {
      node: { address: "192.0.2.100" },
      services: () => services,
      checks: () => checks,
      version: () => version,
      changed: (after: number, signal: AbortSignal) =>
        new Promise<number>((resolve, reject) => {
          if (version > after) return resolve(version);
          wake.push(() => resolve(version));
          signal.addEventListener("abort", () => reject(signal.reason), { once: true });
        }),
    } as unknown as Agent,
    set(...instances) {
      services = new Map(instances.map((one) => [one.id, { instance: one, checks: [] }]));
      changed();
    },
    critical(...ids) {
      checks = new Map(ids.map((id) => [id, { check: { serviceId: id, status: "critical" } }]));
      changed();
    },
  };
}

describe("writing", () => {
  const stops: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const stop of stops.splice(0)) await stop();
  });
  const start = async (
    zk: FakeZooKeeper,
    announce: unknown = { service: "web", path: SET },
    given: { last?: boolean; held?: ReturnType<typeof heldBy> } = {},
  ): Promise<{ held: ReturnType<typeof heldBy>; at: World; announcer: Announcer; stop: () => Promise<void> }> => {
    const config = configureZooKeeper({ servers: "zk", announce });
    if (config === undefined) throw new Error("off");
    const at = await world();
    const held = given.held ?? heldBy();
    const announcer = new Announcer(config, {
      ...{ clock: at.clock, log: silentLog, agent: held.agent, directory: at.directory, lookup: at.lookup },
      ...{ nodeId: NODE_ID, open: zk.open, last: () => given.last === true },
    });
    announcer.start();
    const stop = async (): Promise<void> => {
      const stopping = announcer.stop();
      await at.clock.advance(100);
      await stopping;
    };
    stops.push(stop);
    await at.clock.advance(100);
    return { held, at, announcer, stop };
  };
  const there = (zk: FakeZooKeeper, set = SET): readonly string[] =>
    zk.names(set).map((name) => {
      const { serviceEndpoint } = JSON.parse(zk.data(`${set}/${name}`) ?? "{}");
      return `${name.slice(-2)} ${serviceEndpoint?.host}:${serviceEndpoint?.port}`;
    });

  it("follows the instances: comes, changes in place, goes by health, drain and end", async () => {
    const zk = fakeZooKeeper();
    const { held, at, announcer } = await start(zk);
    held.set(instance("a"), instance("bb", { port: 81 }), instance("other", { name: "db" }));
    await at.clock.advance(100);
    expect(there(zk)).toEqual(["00 192.0.2.1:80", "01 192.0.2.2:81"]);
    held.set(instance("a", { labels: { shard: "3" } }), instance("bb", { port: 81 }));
    await at.clock.advance(100);
    expect(JSON.parse(zk.data(`${SET}/member_0000000000`) ?? "")).toMatchObject({ shard: 3, status: "ALIVE" });
    expect(announcer.about("Web")).toEqual([
      { to: `readers of ${SET}`, text: zk.data(`${SET}/member_0000000000`) },
      { to: `readers of ${SET}`, text: zk.data(`${SET}/member_0000000001`) },
    ]);
    held.critical("a");
    await at.clock.advance(100);
    expect(there(zk)).toEqual(["01 192.0.2.2:81"]);
    held.critical();
    held.set(instance("a"), instance("bb", { draining: true }));
    await at.clock.advance(100);
    expect(there(zk)).toEqual(["02 192.0.2.1:80"]);
    held.set();
    await at.clock.advance(100);
    expect(there(zk)).toEqual([]);
    const asked = zk.asked.length;
    held.set();
    await at.clock.advance(10_000);
    expect(zk.asked.length).toBe(asked);
  });

  it.each([
    ["answered with a time-out although it was done", (error: TrilithError) => ({ after: error })],
    ["not done", (error: TrilithError) => error],
  ])("a member whose making is %s is there once", async (_, how) => {
    const zk = fakeZooKeeper();
    let faults = 2;
    zk.fault = (what) =>
      what === "create" && faults-- > 0 ? how(new TrilithError("timeout", "no answer within 1 ms")) : undefined;
    zk.put(SET, "");
    const { held, at, announcer } = await start(zk);
    held.set(instance("a"));
    await at.clock.advance(100);
    await at.clock.advance(3000);
    expect(there(zk).map((line) => line.slice(3))).toEqual(["192.0.2.1:80"]);
    expect(announcer.state()).toMatchObject({ ok: true, text: expect.stringContaining("1 member written") });
  });

  it("writes everything anew after a lost session, and nothing while there is none", async () => {
    const zk = fakeZooKeeper();
    const { held, at, announcer } = await start(zk);
    held.set(instance("a"), instance("bb"));
    await at.clock.advance(100);
    zk.cut();
    held.set(instance("a"), instance("bb"), instance("ccc"));
    await at.clock.advance(5000);
    expect(announcer.state().ok).toBe(false);
    zk.expire();
    expect(zk.names(SET)).toEqual([]);
    await at.clock.advance(100);
    expect(there(zk)).toEqual(["02 192.0.2.1:80", "03 192.0.2.2:80", "04 192.0.2.3:80"]);
  });

  it("the next life takes over what the last one left, in one step each; the rest of it goes with its session", async () => {
    const zk = fakeZooKeeper();
    const first = await start(zk);
    first.held.set(instance("a"), instance("bb"));
    await first.at.clock.advance(100);
    await first.stop();
    expect(zk.closed()).toBe("abandoned");
    const names = zk.names(SET);
    const owner = zk.owner(`${SET}/${names[0]}`);
    expect(names).toHaveLength(2);
    const next = heldBy();
    next.set(instance("a"));
    zk.asked.length = 0;
    await start(zk, undefined, { held: next });
    expect(zk.names(SET)).toEqual(names);
    expect(zk.owner(`${SET}/${names[0]}`)).not.toBe(owner);
    expect(zk.owner(`${SET}/${names[1]}`)).toBe(owner);
    expect(zk.asked.filter((line) => /^(create|remove|takeOver)/.test(line))).toEqual([`takeOver ${SET}/${names[0]}`]);
  });

  it("of several members that it left of one instance, one stays", async () => {
    const zk = fakeZooKeeper();
    const first = await start(zk);
    first.held.set(instance("a"));
    await first.at.clock.advance(100);
    const text = zk.data(`${SET}/member_0000000000`) ?? "";
    zk.put(`${SET}/member_0000000005`, text, "an older session");
    zk.put(`${SET}/member_0000000006`, text.replace("192.0.2.1", "192.0.2.6"), zk.owner(`${SET}/member_0000000000`));
    await first.at.clock.advance(100);
    expect(zk.names(SET)).toEqual(["member_0000000000"]);
    await first.at.clock.advance(1000);
    expect(zk.data(`${SET}/member_0000000000`)).toBe(text);
  });

  it("the last life takes its members along", async () => {
    const zk = fakeZooKeeper();
    const { held, at, stop } = await start(zk, undefined, { last: true });
    held.set(instance("a"));
    await at.clock.advance(100);
    await stop();
    expect(zk.closed()).toBe("closed");
    expect(zk.names(SET)).toEqual([]);
  });

  it("leaves others alone, and does not repeat what they say themselves", async () => {
    const zk = fakeZooKeeper();
    const other = '{"serviceEndpoint":{"host":"192.0.2.1","port":80},"status":"ALIVE"}';
    zk.put(`${SET}/member_0000000077`, other, "another");
    zk.put(`${SET}/member_0000000078`, "not json");
    zk.put(`${SET}/notamember`, "");
    const { held, at, announcer } = await start(zk);
    held.set(instance("a"));
    await at.clock.advance(100);
    expect(announcer.state().text).toContain(`a is in ${SET} already, as member_0000000077`);
    expect(zk.asked.filter((line) => /^(create|remove|takeOver|set)/.test(line))).toEqual([]);
    zk.remove(`${SET}/member_0000000077`);
    await at.clock.advance(100);
    expect(zk.data(`${SET}/member_0000000003`)).toContain('{"host":"192.0.2.1","port":80}');
    held.set();
    await at.clock.advance(100);
    expect(zk.names(SET)).toEqual(["member_0000000078", "notamember"]);
  });

  it("waits for another Trilith's member of the same endpoint (its own last life, where nothing was kept) to go", async () => {
    const zk = fakeZooKeeper();
    const old = {
      ...{ serviceEndpoint: { host: "192.0.2.1", port: 80 }, additionalEndpoints: {}, status: "ALIVE" },
      metadata: { trilith: "another", "trilith-id": "a" },
    };
    zk.put(`${SET}/member_0000000007`, JSON.stringify(old), "another");
    const { held, at } = await start(zk);
    held.set(instance("a"));
    await at.clock.advance(100);
    expect(zk.names(SET)).toEqual(["member_0000000007"]);
    zk.remove(`${SET}/member_0000000007`);
    await at.clock.advance(100);
    expect(there(zk)).toEqual(["01 192.0.2.1:80"]);
  });

  it("of the directory: everybody's routable instances, but not what came from ZooKeeper", async () => {
    const zk = fakeZooKeeper();
    const { at } = await start(zk, { service: "*", path: "/discovery/{service}", from: "directory" });
    await at.directory.write([
      nodeChange("box", "192.0.2.7"),
      serviceChange("box", "w", "web", { port: 80, address: "" }),
      serviceChange("box", "d", "db", { port: 5432, address: "192.0.2.8" }),
      serviceChange("box", "z", "web", {
        ...{ port: 82, address: "192.0.2.9" },
        origin: { source: "zookeeper", authority: "second-hand" },
      }),
    ]);
    await at.clock.advance(200);
    expect(there(zk)).toEqual(["00 192.0.2.7:80"]);
    expect(there(zk, "/discovery/db")).toEqual(["00 192.0.2.8:5432"]);
    await at.directory.write([serviceChange("box", "w", "web", { port: 80, address: "", draining: true })]);
    await at.clock.advance(200);
    expect(there(zk)).toEqual([]);
  });

  it.each([
    [{ origin: { source: "zookeeper", authority: "second-hand" as const } }, /it came from ZooKeeper/],
    [{ origin: { source: "mdns", authority: "second-hand" as const } }, /only its owner writes it/],
    [{ port: 0 }, /it has no port/],
    [{ address: "127.0.0.1" }, /reached on this host only/],
    [{ address: "localhost" }, /reached on this host only/],
    [{ name: "a b", address: "192.0.2.1" }, /not a path of a znode/],
  ])("does not write %j, and says why", (more, text) => {
    const [rule] = configureZooKeeper({ announce: { service: "*", path: "/d/{service}" } })?.announce ?? [];
    if (rule === undefined) throw new Error("no rule");
    const plan = planMembers([{ instance: instance("a", more), address: "192.0.2.100" }], rule, {
      ...{ nodeId: NODE_ID, loopback: false },
    });
    expect(plan.wanted).toEqual([]);
    expect(plan.not).toMatchObject([{ id: "a", why: expect.stringMatching(text) }]);
  });

  it("knows servers that are on this host only", () => {
    expect(areLoopback("127.0.0.1:2181,localhost/below")).toBe(true);
    expect(areLoopback("127.0.0.1:2181,zk2")).toBe(false);
  });
});
