// Events and prepared queries of two agents on a real etcd: one order, names given once, queries that go with their session, and a store that does not grow.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type EtcdNode, ownPrefix, startEtcd } from "../support/etcd.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { eventually, havePrograms } from "../support/peers.ts";

const here = await havePrograms("etcd", "etcdctl");
const WAVES = 12;
const EACH = 15;

describe.skipIf(!here)("two agents on etcd", () => {
  let etcd: EtcdNode;
  const agents: RunningAgent[] = [];
  const start = async (node: string, prefix: string): Promise<void> => {
    const store = { endpoints: [etcd.endpoint], prefix, livenessMs: 3000 };
    agents.push(await startAgent({ node, dev: true, storage: "etcd", etcd: store }));
  };
  beforeAll(async () => {
    etcd = await startEtcd();
  });
  beforeEach(async () => {
    const prefix = ownPrefix();
    for (const node of ["alpha", "beta"]) await start(node, prefix);
    await eventually("both agents", async () => (await json(0, "/v1/catalog/nodes")).length === 2);
    await eventually("both agents", async () => (await json(1, "/v1/catalog/nodes")).length === 2);
  });
  afterEach(async () => {
    const ended = agents.splice(0);
    await Promise.all(ended.map((agent) => agent.stop()));
    expect(ended.flatMap(({ errors }) => errors)).toEqual([]);
  });
  afterAll(() => etcd?.remove());

  const call = (agent: number, path: string, method: string, body?: unknown): Promise<Response> =>
    fetch((agents[agent] as RunningAgent).url + path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  const json = async (agent: number, path: string): Promise<Record<string, unknown>[]> =>
    (await (await call(agent, path, "GET")).json()) as Record<string, unknown>[];
  const names = async (agent: number, path: string): Promise<unknown[]> =>
    (await json(agent, path)).map((each) => each["Name"]);

  test("hear each other's events in one order, and only those that are meant for them", async () => {
    await call(0, "/v1/event/fire/to-beta?node=beta", "PUT");
    await call(1, "/v1/event/fire/to-alpha?node=%5Ealp", "PUT");
    await eventually("the event at beta", async () => (await names(1, "/v1/event/list")).length === 1);
    await eventually("the event at alpha", async () => (await names(0, "/v1/event/list")).length === 1);
    expect([await names(0, "/v1/event/list"), await names(1, "/v1/event/list")]).toEqual([["to-alpha"], ["to-beta"]]);
    for (let wave = 0; wave < WAVES; wave++)
      await Promise.all(
        Array.from({ length: 2 * EACH }, async (_, i) => {
          const answer = await call(i % 2, `/v1/event/fire/e${wave}.${i}`, "PUT");
          expect(answer.status).toBe(200);
        }),
      );
    const last = async (agent: number): Promise<unknown[]> => (await names(agent, "/v1/event/list")).slice(-200);
    await eventually("the same events at both", async () => {
      const [a, b] = [await last(0), await last(1)];
      return a.length === 200 && JSON.stringify(a) === JSON.stringify(b);
    });
    const view = (agents[0] as RunningAgent).trilith.directory.view();
    expect([...view.list("kept")].filter(({ kind }) => kind === "event")).toHaveLength(256);
  });

  test("give no query's name away twice, and carry out each other's", async () => {
    const query = { Name: "q", Service: { Service: "consul" } };
    const made = await Promise.all([0, 1, 0, 1].map((agent) => call(agent, "/v1/query", "POST", query)));
    expect(made.map(({ status }) => status).sort()).toEqual([200, 500, 500, 500]);
    const session = (await (await call(0, "/v1/session/create", "PUT", {})).json()) as { ID: string };
    expect((await call(1, "/v1/query", "POST", { ...query, Name: "bound", Session: session.ID })).status).toBe(200);
    for (const agent of [0, 1])
      await eventually("both queries", async () => (await names(agent, "/v1/query?consistent")).length === 2);
    const executed = (await (await call(1, "/v1/query/bound/execute?consistent", "GET")).json()) as {
      Nodes: unknown[];
    };
    expect(executed.Nodes).toHaveLength(2);
    await call(1, `/v1/session/destroy/${session.ID}`, "PUT");
    for (const agent of [0, 1])
      await eventually(
        "the one that is bound went",
        async () => JSON.stringify(await names(agent, "/v1/query?consistent")) === '["q"]',
      );
    // The name is free again.
    expect((await call(0, "/v1/query", "POST", { ...query, Name: "bound" })).status).toBe(200);
  });
});
