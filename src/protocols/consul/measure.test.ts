// Agents that measure one another over a made-up network and clock: what they tell, how often, and that standing still writes nothing.
import { expect, it } from "vitest";
import { type FakeClock, fakeClock } from "../../../test/simulated/clock.ts";
import { type TestDirectory, testDirectory } from "../../../test/support/directory.ts";
import { seededRandom } from "../../../test/support/lookup.ts";
import { TrilithError } from "../../base/error.ts";
import { silentLog } from "../../base/log.ts";
import type { Net, Socket } from "../../base/net.ts";
import { NODE_ALIVE_CHECK } from "../../model/check.ts";
import { type Change, keyOf } from "../../model/record.ts";
import { coordinatesOf, distanceS, nearestFirst, ORIGIN, tellCoordinate } from "./coordinates.ts";
import { createMeasure, type Measure } from "./measure.ts";

/** Places on a line, in milliseconds of round trip; a host's address ends in its place. */
const node = (name: string, place: number, external = false): Change => ({
  op: "put",
  table: "node",
  key: keyOf.node(name),
  value: {
    ...{ id: "", name, address: `10.0.0.${place}`, datacenter: "dc1", taggedAddresses: {}, labels: {} },
    ...(external ? { external: true } : {}),
  },
});

interface World {
  readonly clock: FakeClock;
  readonly directory: TestDirectory;
  readonly asked: string[];
  readonly writes: () => number;
  measure(name: string, place: number, listening?: string): Measure;
}

function world(answers: (address: string) => "accepts" | "refuses" | "silent" = () => "accepts"): World {
  const clock = fakeClock();
  const inner = testDirectory(clock);
  let writes = 0;
  const directory: TestDirectory = Object.assign(Object.create(inner) as TestDirectory, {
    view: () => inner.view(),
    write: (...args: Parameters<TestDirectory["write"]>) => {
      writes++;
      return inner.write(...args);
    },
  });
  const asked: string[] = [];
  const random = seededRandom(11);
  const net = (place: number): Pick<Net, "connect"> => ({
    async connect(to, signal) {
      const { host, port } = to as { readonly host: string; readonly port: number };
      asked.push(`${host}:${port}`);
      const how = answers(host);
      await clock.sleep(how === "silent" ? 60_000 : Math.abs(place - Number(host.split(".")[3])), signal);
      if (how === "accepts") return { destroy: () => {} } as unknown as Socket;
      throw new TrilithError("unavailable", "refused", Object.assign(new Error("refused"), { code: "ECONNREFUSED" }));
    },
  });
  return {
    ...{ clock, directory, asked },
    writes: () => writes,
    measure: (name, place, listening = `0.0.0.0:${8000 + place}`) =>
      createMeasure({
        ...{ directory, clock, random, log: silentLog, net: net(place), port: 8301 },
        self: { node: name, listening: new Map([["http", listening]]) },
      }),
  };
}

it("three agents come to know who is near, over connections taken or refused", async () => {
  const { clock, directory, asked, measure } = world((host) => (host === "10.0.0.60" ? "refuses" : "accepts"));
  await directory.write([node("a", 10), node("b", 14), node("c", 60), node("outside", 200, true)]);
  const all = [measure("a", 10), measure("b", 14), measure("c", 60, "unix:///run/c.sock")];
  for (const one of all) one.start();
  for (let i = 0; i < 360; i++) await clock.advance(5000);
  const view = directory.view();
  const at = (name: string) => coordinatesOf(view, name)[0]?.coordinate;
  expect(distanceS(at("a"), at("b"))).toBeCloseTo(0.004, 2);
  expect(distanceS(at("a"), at("c"))).toBeGreaterThan(0.035);
  expect(distanceS(at("a"), at("c"))).toBeLessThan(0.065);
  expect(nearestFirst(view, "c", ["a", "b", "c"], (name) => name)).toEqual(["c", "b", "a"]);
  expect(nearestFirst(view, "a", ["c", "b", "a"], (name) => name)).toEqual(["a", "b", "c"]);
  // Where each says that it listens, and otherwise where a server would.
  expect(new Set(asked)).toEqual(new Set(["10.0.0.10:8010", "10.0.0.14:8014", "10.0.0.60:8301"]));
  for (const one of all) await one.stop();
  expect(clock.timers).toBe(0);
});

it("a place that no longer moves is not written again, and nobody waits in vain", async () => {
  const { clock, directory, writes, measure } = world();
  await directory.write([node("a", 10), node("b", 30)]);
  const before = writes();
  const all = [measure("a", 10), measure("b", 30)];
  for (const one of all) one.start();
  for (let i = 0; i < 600; i++) await clock.advance(5000);
  const settled = writes();
  // At most one write in five seconds each, and far fewer as they come to rest.
  expect(settled - before).toBeLessThan((2 * 3000) / 10);
  const { index } = directory.view();
  for (let i = 0; i < 60; i++) await clock.advance(5000);
  expect(writes()).toBe(settled);
  expect(directory.view().index).toBe(index);
  for (const one of all) await one.stop();
});

it("an agent alone tells the origin once, after 15 to 30 seconds, as Consul's does", async () => {
  const { clock, directory, writes, asked, measure } = world();
  await directory.write([node("a", 10)]);
  const one = measure("a", 10);
  one.start();
  await clock.advance(14_900);
  expect(coordinatesOf(directory.view(), "a")).toEqual([]);
  await clock.advance(15_200);
  expect(coordinatesOf(directory.view(), "a")).toEqual([{ node: "a", segment: "", coordinate: ORIGIN, port: 8010 }]);
  const told = writes();
  await clock.advance(600_000);
  expect([writes(), asked]).toEqual([told, []]);
  await one.stop();
});

it("asks nobody who is dead or silent for long, and goes on from what was told of it", async () => {
  const { clock, directory, asked, measure } = world((host) => (host === "10.0.0.99" ? "silent" : "accepts"));
  const told = { ...ORIGIN, Vec: [0.5, 0, 0, 0, 0, 0, 0, 0], Error: 0.1 };
  await directory.write([node("a", 10), node("dead", 50), node("silent", 99)]);
  await directory.write([
    {
      op: "put",
      table: "check",
      key: keyOf.check("dead", NODE_ALIVE_CHECK),
      value: {
        ...{ id: NODE_ALIVE_CHECK, node: "dead", name: "", status: "critical", notes: "", output: "", serviceId: "" },
        ...{ type: "", origin: { source: "liveness", authority: "first-hand" } },
      },
    },
  ]);
  const never = new AbortController().signal;
  for (const name of ["dead", "silent", "a"])
    await tellCoordinate(directory, { node: name, segment: "", coordinate: told }, never);
  const one = measure("a", 10);
  one.start();
  await clock.advance(120_000);
  expect(new Set(asked)).toEqual(new Set(["10.0.0.99:8301"]));
  expect(asked.length).toBeGreaterThan(5);
  // Nothing was measured: what was told stands, with where this agent can be asked.
  expect(coordinatesOf(directory.view(), "a")).toEqual([{ node: "a", segment: "", coordinate: told, port: 8010 }]);
  await one.stop();
});

it("measures nothing on a client host, and nothing once stopped", async () => {
  const { clock, directory } = world();
  const unused = { connect: () => Promise.reject(new Error("asked")) };
  const base = { directory, clock, log: silentLog, net: unused, port: 8301 };
  const random = { fraction: () => 0.5, below: () => 0, uuid: () => "", bytes: () => new Uint8Array() };
  const client = createMeasure({ ...base, random, self: { node: "a", client: true, listening: new Map() } });
  client.start();
  const stopped = createMeasure({ ...base, random, self: { node: "a", listening: new Map() } });
  await stopped.stop();
  stopped.start();
  expect(clock.timers).toBe(0);
  await client.stop();
});
