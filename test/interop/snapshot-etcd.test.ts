// Snapshots on a real etcd, where a restore is too large for one transaction: everything comes back, and nothing is missing on the way.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type EtcdNode, ownPrefix, startEtcd } from "../support/etcd.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { ownName } from "../support/own-name.ts";
import { eventually, havePrograms } from "../support/peers.ts";

const here = await havePrograms("etcd", "etcdctl");
const KEYS = 400;

describe.skipIf(!here)("a snapshot of two agents on etcd", () => {
  let etcd: EtcdNode;
  const agents: RunningAgent[] = [];
  beforeAll(async () => {
    etcd = await startEtcd();
    const prefix = ownPrefix();
    for (const node of ["alpha", "beta"])
      agents.push(
        await startAgent({
          node,
          dev: true,
          storage: "etcd",
          etcd: { endpoints: [etcd.endpoint], prefix, livenessMs: 3000 },
        }),
      );
  });
  afterAll(async () => {
    await Promise.all(agents.map((agent) => agent.stop()));
    await etcd.remove();
  });

  test("is restored in pieces; agents that live keep what is theirs", async () => {
    const [alpha, beta] = agents as [RunningAgent, RunningAgent];
    const [old, fresh, later] = [ownName("old"), ownName("new"), ownName("later")];
    const put = async (path: string, body: unknown, url = alpha.url): Promise<void> => {
      const answer = await fetch(url + path, { method: "PUT", body: JSON.stringify(body) });
      expect([path, answer.status]).toEqual([path, 200]);
    };
    const json = async (path: string, url = alpha.url): Promise<unknown> => (await fetch(url + path)).json();
    for (let at = 0; at < KEYS; at += 20)
      await Promise.all(Array.from({ length: 20 }, (_, i) => put(`/v1/kv/${old}/${at + i}`, at + i)));
    await put("/v1/catalog/register", { Node: "db1", Address: "10.0.0.1", Service: { Service: "db", Port: 1 } });
    const snapshot = new Uint8Array(await (await fetch(`${alpha.url}/v1/snapshot?consistent`)).arrayBuffer());

    await fetch(`${alpha.url}/v1/kv/${old}/?recurse`, { method: "DELETE" });
    for (let at = 0; at < KEYS; at += 20)
      await Promise.all(Array.from({ length: 20 }, (_, i) => put(`/v1/kv/${fresh}/${at + i}`, at + i)));
    await put("/v1/catalog/deregister", { Node: "db1" });
    await put("/v1/agent/service/register", { Name: later }, beta.url);
    await eventually("the service of the other agent", async () => {
      const found = (await json(`/v1/health/service/${later}?passing`)) as unknown[];
      return found.length === 1;
    });

    const restored = await fetch(`${alpha.url}/v1/snapshot`, { method: "PUT", body: snapshot });
    expect([restored.status, await restored.text()]).toEqual([200, ""]);
    expect(await json(`/v1/kv/${old}/?keys&consistent`, beta.url)).toHaveLength(KEYS);
    expect((await fetch(`${beta.url}/v1/kv/${fresh}/?keys`)).status).toBe(404);
    expect(await json("/v1/catalog/service/db", beta.url)).toHaveLength(1);
    // Registered after the snapshot, by an agent that lives.
    expect(await json(`/v1/health/service/${later}?passing`, beta.url)).toHaveLength(1);
  });
});
