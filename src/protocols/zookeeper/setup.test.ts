// A reload of the configuration, with ZooKeepers in memory: what is read, what is written and who is told become others while what stays stands.
import { expect, it, vi } from "vitest";
import { type FakeZooKeeper, fakeZooKeeper } from "../../../test/simulated/zookeeper.ts";
import { world } from "../../../test/support/lookup.ts";
import { silentLog } from "../../base/log.ts";
import type { ZooKeeperOptions } from "../../base/zookeeper.ts";
import type { Ground } from "../../contracts/ground.ts";
import { zookeeper } from "./setup.ts";

const servers = new Map<string, FakeZooKeeper>();
vi.mock("../../base/zookeeper.ts", () => ({
  openZooKeeper: (options: ZooKeeperOptions) => (servers.get(options.servers) as FakeZooKeeper).open(options),
}));

const WEB = "/discovery/web";
const instance = {
  ...{ id: "w1", name: "web", node: "home", tags: [], labels: {}, address: "192.0.2.1", port: 80 },
  origin: { source: "api", authority: "first-hand" },
};

it("reads and writes something else after a reload, and what stays is not touched", async () => {
  for (const name of ["one", "two"]) servers.set(name, fakeZooKeeper());
  const [one, two] = ["one", "two"].map((name) => servers.get(name)) as [FakeZooKeeper, FakeZooKeeper];
  const at = await world();
  const agent = {
    node: { address: "192.0.2.100" },
    services: () => new Map([["w1", { instance, checks: [] }]]),
    checks: () => new Map(),
    version: () => 1,
    changed: (_after: number, signal: AbortSignal) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true })),
  };
  const announce = (...paths: readonly string[]) => paths.map((path) => ({ service: "web", path }));
  const raw = { servers: "one", announce: announce(WEB, "/also") };
  const part = await zookeeper.setup(zookeeper.configure(raw), {
    ...{ clock: at.clock, directory: at.directory, lookup: at.lookup, agent, leaving: () => false, log: silentLog },
    self: { node: "home", nodeId: "11111111-2222-3333-4444-555555555555", dev: false },
  } as unknown as Ground);
  if (part?.reload === undefined) throw new Error("off");
  const { reload } = part;
  const become = async (now: unknown): Promise<void> => {
    const done = reload({ raw: now });
    await at.clock.advance(200);
    await done;
    await at.clock.advance(200);
  };
  const members = (zk: FakeZooKeeper, path = WEB): readonly string[] => zk.names(path);
  const since = (zk: FakeZooKeeper): readonly string[] =>
    zk.asked.splice(0).filter((line) => !/^(get|names|children|exists)/.test(line));

  part.background?.start();
  await at.clock.advance(300);
  expect([part.source, members(one), members(one, "/also")]).toEqual([
    undefined,
    ["member_0000000000"],
    ["member_0000000000"],
  ]);
  since(one);

  await become(raw);
  expect(since(one)).toEqual([]);
  // Less is written: what is still asked for stays as it stands.
  await become({ servers: "one", announce: announce(WEB), sets: ["/discovery/db"] });
  expect(since(one)).toEqual([expect.stringMatching(/\/also\/member_0000000000/)]);
  expect([members(one), members(one, "/also")]).toEqual([["member_0000000000"], []]);
  expect(part.source?.name).toBe("zookeeper");
  // More: the same session goes on.
  await become({ servers: "one", announce: announce(WEB, "/more") });
  expect([members(one), members(one, "/more"), part.source]).toEqual([
    ["member_0000000000"],
    ["member_0000000000"],
    undefined,
  ]);
  expect(one.closed()).toBe("no");
  // What is wrong changes nothing.
  await expect(reload({ raw: { servers: "one", announce: [{ service: "web" }] } })).rejects.toThrow(
    "zookeeper.announce[0]",
  );
  await at.clock.advance(300);
  expect([members(one), part.states?.()[0]?.ok]).toEqual([["member_0000000000"], true]);
  // Another way to the same servers must not take anything away: the session is left to run out, somebody takes over.
  await become({ servers: "two", announce: announce(WEB) });
  expect([one.closed(), members(one), members(two)]).toEqual([
    "abandoned",
    ["member_0000000000"],
    ["member_0000000000"],
  ]);
  expect(part.states?.()[0]?.text).toMatch(/1 member written/);
  // Nothing is written any more: nobody comes who takes over.
  await become({ servers: "two", sets: ["/discovery/db"] });
  expect([two.closed(), part.states?.(), part.source?.name]).toEqual(["closed", [], "zookeeper"]);
  await become({ servers: "one", announce: announce(WEB) });
  expect(part.states?.()).toHaveLength(1);
  const stopping = part.background?.stop("off");
  await at.clock.advance(200);
  await stopping;
  expect(one.closed()).toBe("closed");
});
