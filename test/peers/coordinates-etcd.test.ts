// Two agents on one etcd measure how far they are from one another, and say so where clients of Consul look for it.
import { afterAll, beforeAll, expect, test } from "vitest";
import { type EtcdNode, ownPrefix, startEtcd } from "../support/etcd.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";

const here = await havePrograms("etcd", "etcdctl");

interface Told {
  readonly Node: string;
  readonly Coord: { readonly Vec: readonly number[]; readonly Error: number; readonly Height: number };
}
const get = async <T>(agent: RunningAgent, path: string): Promise<T> =>
  (await (await fetch(agent.url + path)).json()) as T;

let etcd: EtcdNode;
let agents: readonly RunningAgent[] = [];
const folders: { remove(): Promise<void> }[] = [];
beforeAll(async () => {
  if (!here) return;
  etcd = await startEtcd();
  const prefix = ownPrefix();
  agents = await Promise.all(
    ["one", "two"].map(async (node) => {
      const folder = await ownFolder(`coordinates-${node}`);
      folders.push(folder);
      return startAgent({
        ...{ node, dev: false, dataDir: folder.path, storage: "etcd", advertiseAddress: "127.0.0.1" },
        etcd: { endpoints: [etcd.endpoint], prefix, livenessMs: 10_000 },
      });
    }),
  );
});
afterAll(async () => {
  for (const agent of agents) {
    expect(agent.errors).toEqual([]);
    await agent.stop();
  }
  for (const folder of folders) await folder.remove();
  await etcd?.remove();
});

test.skipIf(!here)(
  "both stand somewhere, a round trip over loopback apart, without anybody telling",
  async () => {
    const [one, two] = agents as readonly [RunningAgent, RunningAgent];
    // Measured, not only told at the start: the confidence grew.
    const told = (by: RunningAgent): Promise<readonly Told[]> =>
      eventually(
        "both have measured, as each of them knows",
        async () => {
          const nodes = await get<readonly Told[]>(by, "/v1/coordinate/nodes");
          expect(nodes.map(({ Node }) => Node)).toEqual(["one", "two"]);
          for (const { Coord } of nodes) expect(Coord.Error).toBeLessThan(1.5);
          return nodes;
        },
        90_000,
      );
    const [measured] = await Promise.all([told(two), told(one)]);
    const [a, b] = measured.map(({ Coord }) => Coord);
    const apart = Math.hypot(...(a?.Vec ?? []).map((x, i) => x - (b?.Vec[i] ?? 0)));
    expect(apart).toBeGreaterThan(0);
    expect(apart).toBeLessThan(0.25);
    // Every agent knows it of itself, and near puts it in front.
    const self = await get<{ Coord: Told["Coord"] }>(one, "/v1/agent/self");
    expect(self.Coord.Error).toBeLessThan(1.5);
    const names = async (agent: RunningAgent, near: string): Promise<readonly string[]> =>
      (await get<readonly { Node: string }[]>(agent, `/v1/catalog/nodes?near=${near}`)).map(({ Node }) => Node);
    expect(await names(one, "two")).toEqual(["two", "one"]);
    expect(await names(two, "_agent")).toEqual(["two", "one"]);
    expect(await names(two, "one")).toEqual(["one", "two"]);
  },
  120_000,
);
