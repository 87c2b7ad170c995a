// The index that catalog and health tell: Consul's with its tables where somebody asked for that, else that of what was asked for alone.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RunningAgent, somebodyWaits, startAgent } from "../../../test/support/ground.ts";
import { ownName } from "../../../test/support/own-name.ts";

/** The change of each path's index while something is done: "up" or "same"; never down. */
async function moved(
  { url }: RunningAgent,
  paths: readonly string[],
  work: () => Promise<unknown>,
): Promise<Record<string, string>> {
  const look = async (): Promise<number[]> =>
    await Promise.all(
      paths.map(async (path) => {
        const answer = await fetch(url + path);
        await answer.arrayBuffer();
        return Number(answer.headers.get("x-consul-index"));
      }),
    );
  const before = await look();
  await work();
  const after = await look();
  return Object.fromEntries(
    paths.map((path, i) => {
      const [from = 0, to = 0] = [before[i], after[i]];
      return [path, to > from ? "up" : to === from ? "same" : "down"];
    }),
  );
}

const names = (): { node: string; other: string; web: string; never: string } => ({
  node: ownName("n"),
  other: ownName("o"),
  web: ownName("w"),
  never: ownName("never"),
});

async function put({ url }: RunningAgent, path: string, body: unknown): Promise<void> {
  const answer = await fetch(url + path, { method: "PUT", body: JSON.stringify(body) });
  expect([answer.status, await answer.text()]).toEqual([200, expect.stringMatching(/^true/)]);
}
const enter = (agent: RunningAgent, body: object): Promise<void> => put(agent, "/v1/catalog/register", body);

describe.each([
  ["consul", "up"],
  ["none", "same"],
] as const)("with compat: %s", (compat, elsewhere) => {
  let agent: RunningAgent;
  beforeAll(async () => {
    agent = await startAgent({ compat });
  });
  afterAll(async () => {
    expect(agent.errors).toEqual([]);
    await agent.stop();
  });

  it("a service's check moves its instances' index and that of all checks", async () => {
    const { node, other, web, never } = names();
    const service = { ID: web, Service: web, Port: 1 };
    await enter(agent, { Node: node, Address: "192.0.2.1", Service: service });
    await enter(agent, { Node: other, Address: "192.0.2.2", Check: { CheckID: "c", Status: "passing" } });
    const [instances, health] = [`/v1/catalog/service/${web}`, `/v1/health/service/${web}`];
    const [nodeChecks, otherChecks] = [`/v1/health/node/${node}`, `/v1/health/node/${other}`];
    const [checks, neverChecks] = [`/v1/health/checks/${web}`, `/v1/health/checks/${never}`];
    const all = [instances, health, nodeChecks, otherChecks, checks, neverChecks, "/v1/catalog/nodes"];
    const check = { CheckID: `${web}-c`, Status: "passing", ServiceID: web };
    expect(
      await moved(agent, all, () => enter(agent, { Node: node, SkipNodeUpdate: true, Service: service, Check: check })),
    ).toEqual({
      [instances]: elsewhere,
      [health]: "up",
      [nodeChecks]: "up",
      [otherChecks]: elsewhere,
      [checks]: "up",
      [neverChecks]: elsewhere,
      "/v1/catalog/nodes": "same",
    });
  });

  it("a service that comes moves the index of the nodes, and of services that never were there", async () => {
    const { node, web, never } = names();
    await enter(agent, { Node: node, Address: "192.0.2.3" });
    const [instances, health] = [`/v1/catalog/service/${never}`, `/v1/health/service/${never}`];
    const all = ["/v1/catalog/nodes", "/v1/catalog/services", instances, health];
    const service = { ID: web, Service: web };
    expect(await moved(agent, all, () => enter(agent, { Node: node, SkipNodeUpdate: true, Service: service }))).toEqual(
      {
        "/v1/catalog/nodes": elsewhere,
        "/v1/catalog/services": "up",
        [instances]: elsewhere,
        [health]: elsewhere,
      },
    );
    // One that was there and went keeps the index of its end.
    await put(agent, "/v1/catalog/deregister", { Node: node, ServiceID: web });
    const gone = [`/v1/catalog/service/${web}`, `/v1/health/service/${web}`];
    expect(
      await moved(agent, gone, () =>
        enter(agent, { Node: node, SkipNodeUpdate: true, Service: { Service: `${web}-2` } }),
      ),
    ).toEqual({ [gone[0] as string]: "same", [gone[1] as string]: "same" });
  });

  it("who waits is woken by what was asked for alone", async () => {
    const { node, other, web } = names();
    await enter(agent, { Node: node, Address: "192.0.2.4", Service: { Service: web } });
    const [checked, entered] = [ownName("checked"), ownName("entered")];
    const check = (id: string): object => ({ CheckID: id, Status: "passing", ServiceID: checked });
    for (const [path, scope, news] of [
      [`/v1/health/checks/${checked}`, `checks:${checked}`, { Service: { Service: checked }, Check: check(checked) }],
      [`/v1/catalog/service/${entered}`, `instances:${entered}`, { Service: { Service: entered } }],
      ["/v1/catalog/nodes", "nodes", { Node: other, Address: "192.0.2.5" }],
    ] as const) {
      const first = await fetch(agent.url + path);
      const before = await first.text();
      const index = first.headers.get("x-consul-index");
      const waits = somebodyWaits(agent, scope);
      let ended = false;
      const waiting = fetch(`${agent.url}${path}?index=${index}&wait=60s`).then(async (answer) => {
        ended = true;
        return await answer.text();
      });
      await waits;
      // Others come to the agent while that one waits; what they say is no news for it.
      const elsewhere = { CheckID: ownName("c"), Status: "passing" };
      await enter(agent, { Node: node, SkipNodeUpdate: true, Service: { Service: ownName("s") }, Check: elsewhere });
      await (await fetch(`${agent.url}/v1/status/leader`)).arrayBuffer();
      expect([path, ended]).toEqual([path, false]);
      await enter(agent, { Node: node, SkipNodeUpdate: true, ...news });
      expect(await waiting).not.toBe(before);
    }
  });
});
