// User events: who sees what in which order, on one host and on several that share a store which misbehaves.
import { afterEach, describe, expect, test } from "vitest";
import { SimulatedStore, seededRandom } from "../../test/simulated/store.ts";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { createMetrics } from "../base/metrics.ts";
import { systemRandom } from "../base/random.ts";
import type { Agent, HeldService } from "../contracts/agent.ts";
import type { Storage } from "../contracts/storage.ts";
import type { EventCall, UserEvent } from "../model/event.ts";
import type { Instance } from "../model/instance.ts";
import { createEvents, type RunningEvents } from "./event.ts";
import { createDirectory, type LocalDirectory } from "./local.ts";
import { memoryStorage } from "./storage/memory.ts";

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

interface Host {
  readonly directory: LocalDirectory;
  readonly events: RunningEvents;
  readonly services: Map<string, HeldService>;
}

async function host(
  node = "alpha",
  storage: Storage = memoryStorage(),
  random: typeof systemRandom = systemRandom,
): Promise<Host> {
  const base = { clock: systemClock, random, log: silentLog };
  const directory = createDirectory(storage, { ...base, metrics: createMetrics() });
  await directory.start();
  await directory.ready();
  const services = new Map<string, HeldService>();
  const agent = { node: { name: node }, services: () => services } as unknown as Pick<Agent, "node" | "services">;
  const events = createEvents({ directory, agent, ...base });
  events.start();
  ends.push(async () => {
    await events.stop();
    await directory.stop();
  });
  // The first look is taken.
  await systemClock.yield();
  return { directory, events, services };
}

const call = (name: string, more: Partial<EventCall> = {}): EventCall => ({
  name,
  payload: new Uint8Array(),
  nodeFilter: "",
  serviceFilter: "",
  tagFilter: "",
  ...more,
});
const names = (events: readonly UserEvent[]): string[] => events.map(({ name }) => name);
const kept = ({ directory }: Host): number => [...directory.view().list("kept")].length;

describe("events of one host", () => {
  test("are listed in the order in which they were fired, with their payload", async () => {
    const { events, directory } = await host();
    const before = directory.view().at(events.scope);
    const woken = directory.changed(events.scope, before, new AbortController().signal);
    const fired = await Promise.all(["a", "b", "c"].map((name) => events.fire(call(name))));
    expect(await woken).toBeGreaterThan(before);
    const more = await events.fire(call("d", { payload: Uint8Array.of(0, 255) }));
    expect(events.list()).toEqual([...fired, more]);
    expect(events.list().map(({ time }) => time)).toEqual([1, 2, 3, 4]);
    expect(events.list()[3]?.payload).toEqual(Uint8Array.of(0, 255));
  });

  test("are remembered up to 256, and leave nothing else behind", async () => {
    const here = await host();
    for (let round = 0; round < 6; round++)
      await Promise.all(Array.from({ length: 100 }, (_, i) => here.events.fire(call(`e${round * 100 + i}`))));
    expect(names(here.events.list())).toEqual(Array.from({ length: 256 }, (_, i) => `e${344 + i}`));
    expect(kept(here)).toBe(256);
    expect(here.directory.view().count("grave")).toBe(0);
  });

  test("concern it where the filters fit when they come", async () => {
    const { events, services } = await host();
    const serve = (id: string, name: string, tags: readonly string[]): void =>
      void services.set(id, { instance: { id, name, tags } as unknown as Instance, checks: [] });
    serve("w1", "web", ["v1", "blue"]);
    for (const [name, more] of Object.entries({
      node: { nodeFilter: "^alp" },
      otherNode: { nodeFilter: "^beta$" },
      service: { serviceFilter: "^we" },
      serviceId: { serviceFilter: "^w1$" },
      otherService: { serviceFilter: "db" },
      tag: { serviceFilter: "web", tagFilter: "v[0-9]" },
      otherTag: { serviceFilter: "web", tagFilter: "v2" },
      all: { nodeFilter: "a", serviceFilter: ".", tagFilter: "blue" },
    }))
      await events.fire(call(name, more));
    serve("d1", "db", ["v2"]);
    expect(names(events.list())).toEqual(["node", "service", "serviceId", "tag", "all"]);
  });

  test("with patterns that would hang others are looked at like any", async () => {
    const { events } = await host("a".repeat(200));
    await events.fire(call("x", { nodeFilter: "^(a+)+(a|a)*(.*)(.*)(.*)b$" }));
    await events.fire(call("y", { nodeFilter: "^(a+)+$" }));
    expect(names(events.list())).toEqual(["y"]);
  });

  test.each([
    [call(""), "User event missing name"],
    [call("x", { tagFilter: "v1" }), "Cannot provide tag filter without service filter"],
    [call("x", { nodeFilter: "[" }), "Invalid node filter: error parsing regexp: missing closing ]: `[`"],
    [call("x", { serviceFilter: "(" }), "Invalid service filter: "],
    [call("x", { serviceFilter: "x", tagFilter: "*" }), "Invalid tag filter: "],
    [call("x", { payload: new Uint8Array(600) }), "user event exceeds configured limit of 512 bytes before encoding"],
    [call("x".repeat(600)), "exceeds configured limit"],
  ])("are refused: %#", async (event, text) => {
    const { events } = await host();
    await expect(events.fire(event)).rejects.toThrow(text);
    expect(events.list()).toEqual([]);
  });

  test("take what Consul's messages take", async () => {
    const { events } = await host();
    await events.fire(call("big", { payload: new Uint8Array(400) }));
    expect(events.list()).toHaveLength(1);
  });

  test("of an earlier life are past, and none come after the end", async () => {
    const storage = memoryStorage();
    const first = await host("alpha", storage);
    await first.events.fire(call("old"));
    await first.events.stop();
    await expect(first.events.fire(call("late"))).rejects.toMatchObject({ code: "stopped" });
    const agent = { node: { name: "alpha" }, services: () => new Map() } as unknown as Agent;
    const again = createEvents({ ...first, agent, clock: systemClock, random: systemRandom, log: silentLog });
    again.start();
    again.start();
    await systemClock.yield();
    expect(again.list()).toEqual([]);
    const { name } = await again.fire(call("new"));
    expect(names(again.list())).toEqual([name]);
    await again.stop();
    expect(first.directory.waiting).toBe(0);
  });
});

describe("events of several hosts", () => {
  const TROUBLE = { turns: 6, unknown: 0.15, unavailable: 0.05, repeat: 0.2, snapshot: 0.1, compact: 0.05 };
  test.each([1, 2, 3, 4])("have one order for all, and nobody's event comes twice (seed %i)", async (seed) => {
    const store = new SimulatedStore(seed, TROUBLE);
    const hosts = await Promise.all(
      ["alpha", "beta"].map((name, i) => host(name, store.client(), seededRandom(seed * 10 + i))),
    );
    const sure: string[] = [];
    const sent: string[] = [];
    await Promise.all(
      hosts.map(async ({ events }, i) => {
        for (let round = 0; round < 25; round++) {
          const wave = Array.from({ length: 1 + (round % 3) }, (_, n) => `${i}:${round}:${n}`);
          sent.push(...wave);
          const done = await Promise.allSettled(wave.map((name) => events.fire(call(name))));
          for (const [n, each] of done.entries()) if (each.status === "fulfilled") sure.push(wave[n] as string);
        }
      }),
    );
    store.heal();
    for (const { directory } of hosts) await directory.barrier();
    const [a, b] = hosts.map(({ events }) => names(events.list())) as [string[], string[]];
    expect(b).toEqual(a);
    expect(new Set(a).size).toBe(a.length);
    expect(sure.every((name) => a.includes(name))).toBe(true);
    expect(a.every((name) => sent.includes(name))).toBe(true);
    for (const i of [0, 1]) {
      const own = a.filter((name) => name.startsWith(`${i}:`));
      expect(own).toEqual(sent.filter((name) => own.includes(name)));
    }
    const times = hosts[0]?.events.list().map(({ time }) => time) as number[];
    expect(new Set(times).size).toBe(times.length);
    for (const each of hosts) expect(kept(each)).toBeLessThanOrEqual(256);
  });
});
