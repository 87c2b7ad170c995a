// Three agents that see the same things on external nodes, over a store that delays, repeats, refuses and loses outcomes: what stands is what is seen.
import { describe, expect, test } from "vitest";
import { createAgent, type RunningAgent } from "../../src/agent/agent.ts";
import { TrilithError } from "../../src/base/error.ts";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import { defaultSettings } from "../../src/contracts/settings.ts";
import { createDirectory } from "../../src/directory/local.ts";
import type { Registration } from "../../src/model/instance.ts";
import { keyOf, type Tables } from "../../src/model/record.ts";
import { fakeClock } from "./clock.ts";
import { fakeDurable } from "./durable.ts";
import { type Faults, SimulatedStore, seededRandom } from "./store.ts";

const SEEDS = Number(process.env["SEEDS"] ?? 25);
const NODES = ["printer", "camera"];
const IDS = ["ipp", "web"];

const TROUBLES: readonly (readonly [string, Partial<Faults>])[] = [
  ["none", {}],
  ["delays and repetitions", { turns: 10, repeat: 0.3, away: 0.1 }],
  ["unknown outcomes", { turns: 6, unknown: 0.25, unavailable: 0.05 }],
  ["everything", { turns: 10, unknown: 0.2, unavailable: 0.05, repeat: 0.2, away: 0.1, compact: 0.1, snapshot: 0.1 }],
];

const thing = (node: string, id: string, port = 80): Registration => ({
  ...{ id, name: id, tags: [], labels: {}, address: "", port, checks: [], foreignId: `${node}.${id}` },
  external: { node: { name: node, address: "192.0.2.7" } },
});

async function run(seed: number, faults: Partial<Faults>): Promise<void> {
  const store = new SimulatedStore(seed, faults);
  const clock = fakeClock();
  const random = seededRandom(seed ^ 0x717e55);
  let over = false;
  const time = (async () => {
    while (!over) await clock.advance(100);
  })();
  const living = new AbortController();
  const agents: { readonly name: string; readonly agent: RunningAgent; seen: Set<string>; stop(): Promise<void> }[] =
    [];
  for (const [n, name] of ["alpha", "beta", "gamma"].entries()) {
    const storage = store.client();
    const base = { clock, random: seededRandom(seed * 31 + n), log: silentLog, metrics: createMetrics() };
    const directory = createDirectory(storage, base);
    await directory.start();
    await directory.ready();
    storage.alive?.(name, name, 10_000, living.signal).catch(() => {});
    const agent = createAgent({
      ...base,
      directory,
      durable: fakeDurable(),
      shared: true,
      probes: new Map(),
      settings: { ...defaultSettings, antiEntropyMs: 5000 },
      self: { node: name, nodeId: name, datacenter: "dc1", advertiseAddress: "192.0.2.1" },
      life: name,
    });
    await agent.start();
    agents.push({
      name,
      agent,
      seen: new Set(),
      async stop() {
        await agent.stop();
        await directory.stop();
      },
    });
  }
  try {
    for (let step = 0; step < 30; step++) {
      const one = agents[random.below(agents.length)] as (typeof agents)[number];
      const name = `${NODES[random.below(NODES.length)]} ${IDS[random.below(IDS.length)]}`;
      if (!one.seen.delete(name)) one.seen.add(name);
      await one.agent.adopt("mdns", {
        list: [...one.seen].map((each) => thing(...(each.split(" ") as [string, string]))),
        authority: "second-hand",
      });
      await clock.sleep(random.below(200));
    }
    store.heal();
    await Promise.all(agents.map(({ agent }) => agent.synced()));
    await clock.sleep(20_000);
    await Promise.all(agents.map(({ agent }) => agent.synced()));
    const rows = store.rows.filter(({ value }) => value !== undefined);
    const held = rows
      .filter(({ table }) => table === "node")
      .flatMap(({ value }) => {
        const { name, witnessed } = value as Tables["node"];
        return (witnessed ?? []).map(({ service, by }) => `${name} ${service}: ${by.join(",")}`);
      });
    const wanted = NODES.flatMap((node) =>
      IDS.flatMap((id) => {
        const by = agents.filter(({ seen }) => seen.has(`${node} ${id}`)).map(({ name }) => name);
        return by.length === 0 ? [] : [`${node} ${id}: ${by.join(",")}`];
      }),
    );
    const services = rows
      .filter(({ table, value }) => table === "service" && NODES.includes((value as Tables["service"]).node))
      .map(({ value }) => `${(value as Tables["service"]).node} ${(value as Tables["service"]).id}`);
    expect(held.sort()).toEqual(wanted.sort());
    expect(services.sort()).toEqual(wanted.map((text) => text.slice(0, text.indexOf(":"))).sort());
    for (const node of NODES)
      expect(rows.some(({ table, key }) => table === "node" && key === keyOf.node(node))).toBe(
        wanted.some((text) => text.startsWith(`${node} `)),
      );
    const at = store.index;
    await clock.sleep(20_000);
    expect(store.index).toBe(at);
  } catch (error) {
    throw new TrilithError("internal", `seed ${seed}: ${(error as Error).message}`, error);
  } finally {
    living.abort();
    for (const { stop } of agents) await stop();
    over = true;
    await time;
  }
}

describe("witnesses over a store that misbehaves", () => {
  for (const [name, faults] of TROUBLES)
    test(name, async () => {
      for (let seed = 1; seed <= SEEDS; seed++) await run(seed, faults);
    }, 120_000);
});
