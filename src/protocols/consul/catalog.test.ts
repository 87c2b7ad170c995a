// Writing into the catalog: rules that the recorded scenarios do not reach, and many writers at once.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { ownName } from "../../../test/support/own-name.ts";

let agent: RunningAgent;
beforeAll(async () => {
  agent = await startAgent();
});
afterAll(async () => {
  expect(agent.errors).toEqual([]);
  await agent.stop();
});

const register = async (body: unknown): Promise<[number, string]> => {
  const answer = await fetch(`${agent.url}/v1/catalog/register`, { method: "PUT", body: JSON.stringify(body) });
  return [answer.status, await answer.text()];
};
const get = async <T>(path: string): Promise<T> => (await (await fetch(agent.url + path)).json()) as T;
const ID = "40e4a748-2192-161a-0510-9bf59fe950b5";

it("takes 200 writers of one node at once, whatever they say of the node", async () => {
  const answers = await Promise.all(
    Array.from({ length: 200 }, (_, i) =>
      register({
        Node: "busy",
        Address: `192.0.2.${i % 3}`,
        SkipNodeUpdate: i % 2 === 1,
        Service: { ID: `s${i}`, Service: "many", Port: i + 1 },
        Check: { CheckID: `c${i}`, Name: "c", ServiceID: `s${i}`, Status: "passing" },
      }),
    ),
  );
  expect(new Set(answers.map(([status]) => status))).toEqual(new Set([200]));
  expect(await get<unknown[]>("/v1/catalog/service/many")).toHaveLength(200);
  expect(await get<unknown[]>("/v1/health/node/busy")).toHaveLength(200);
});

describe("a node's ID", () => {
  it("renames the node, which keeps its first index and loses what was on it", async () => {
    await register({ ID, Node: "first", Address: "192.0.2.1", Service: { Service: "gone" } });
    const { Node: before } = await get<{ Node: { CreateIndex: number } }>("/v1/catalog/node/first");
    await register({ ID, Node: "second", Address: "192.0.2.1" });
    await register({ ID, Node: "third", Address: "192.0.2.1" });
    await register({ ID, Node: "third", Address: "192.0.2.3" });
    const { Node: after } = await get<{ Node: { CreateIndex: number; ModifyIndex: number } }>("/v1/catalog/node/third");
    expect(after.CreateIndex).toBe(before.CreateIndex);
    expect(after.ModifyIndex).toBeGreaterThan(after.CreateIndex);
    expect(await get("/v1/catalog/node/first")).toBeNull();
    expect(await get("/v1/catalog/service/gone")).toEqual([]);
  });

  it("does not take the name of a node that lives", async () => {
    const [status, text] = await register({ ID, Node: "alpha", Address: "192.0.2.1" });
    expect(status).toBe(500);
    expect(text).toMatch(
      /^failed inserting node: Error while renaming Node ID: .*: Node name alpha is reserved by node /,
    );
    expect((await get<{ Node: { Address: string } }>("/v1/catalog/node/alpha")).Node.Address).not.toBe("192.0.2.1");
  });

  it.each([
    ["nope", "Bad node ID: uuid string is wrong length"],
    [ID.replaceAll("-", "_"), "Bad node ID: uuid is improperly formatted"],
    [`x${ID.slice(1)}`, "Bad node ID: encoding/hex: invalid byte: U+0078 'x'"],
  ])("%s is refused", async (id, text) =>
    expect(await register({ ID: id, Node: "x", Address: "a" })).toEqual([500, text]),
  );
});

it("keeps a check's definition as it was given, durations in words", async () => {
  await register({
    Node: "defined",
    Address: "192.0.2.9",
    Checks: [
      {
        CheckID: "http",
        Name: "h",
        Definition: {
          HTTP: "https://x/",
          IntervalDuration: 10_000_000_000,
          Timeout: "1500ms",
          Header: { A: ["b"] },
          TLSSkipVerify: false,
          DeregisterCriticalServiceAfter: "1h",
        },
      },
      { CheckID: "tcp", Name: "t", Type: "own", Interval: "7s", Definition: { TCP: "x:1", Interval: "5s" } },
    ],
  });
  expect(await get("/v1/health/node/defined")).toMatchObject([
    {
      CheckID: "http",
      Type: "http",
      Status: "critical",
      Definition: {
        HTTP: "https://x/",
        Interval: "10s",
        Timeout: "1.5s",
        Header: { A: ["b"] },
        DeregisterCriticalServiceAfter: "1h0m0s",
      },
    },
    { CheckID: "tcp", Type: "own", Interval: "7s", Definition: { TCP: "x:1", Interval: "5s" } },
  ]);
  const [first] = await get<{ Definition: object }[]>("/v1/health/node/defined");
  expect(Object.keys(first?.Definition ?? {})).not.toContain("TLSSkipVerify");
});

it("routes nothing by a status that nobody knows, and shows it as it was given", async () => {
  const Check = { CheckID: "c", Name: "c", ServiceID: "odd", Status: "purple" };
  await register({ Node: "odd", Address: "192.0.2.4", Service: { Service: "odd" }, Check });
  expect(await get<unknown[]>("/v1/health/service/odd?passing")).toEqual([]);
  expect(await get("/v1/health/state/purple")).toMatchObject([{ Status: "purple" }]);
});

it("leaves what is drained out of ?passing", async () => {
  const name = ownName("drained");
  await agent.trilith.agent.register("api", {
    id: name,
    name,
    tags: [],
    labels: {},
    address: "",
    port: 1,
    checks: [],
  });
  const why = { code: "draining", text: "it is asked to stop", confirmed: true, atMs: 0 } as const;
  expect(await get<unknown[]>(`/v1/health/service/${name}?passing`)).toHaveLength(1);
  await agent.trilith.agent.drain(name, true, why);
  expect(await get<unknown[]>(`/v1/health/service/${name}?passing`)).toHaveLength(0);
  // Who looks at the checks himself sees it, too.
  const [{ Checks } = { Checks: [] }, ...more] = await get<{ Checks: object[] }[]>(`/v1/health/service/${name}`);
  expect(more).toEqual([]);
  expect(Checks).toContainEqual(
    expect.objectContaining({ CheckID: `trilith-draining:${name}`, Status: "critical", ServiceID: name }),
  );
  await agent.trilith.agent.drain(name, false, why);
  const [back] = await get<{ Checks: object[] }[]>(`/v1/health/service/${name}?passing`);
  expect(back?.Checks).not.toContainEqual(expect.objectContaining({ ServiceID: name }));
});

it("tells what is drained in every list of checks, and who waits for one when it begins and ends", async () => {
  const own = ownName("leaving");
  const other = { tags: [], labels: {}, address: "", port: 1, checks: [] };
  // One has a check, the other none: a drain must be seen of both.
  const checks = [
    { id: `${own}:1`, name: "c", notes: "", kind: "none", detail: undefined, intervalMs: 0, timeoutMs: 0 },
  ];
  const has = ownName("checked");
  await agent.trilith.agent.register("api", { ...other, id: own, name: own });
  await agent.trilith.agent.register("api", {
    ...other,
    id: has,
    name: has,
    checks: [{ ...checks[0], initial: "passing" }] as never,
  });
  const node = agent.trilith.self.node;
  const why = { code: "draining", text: "it is asked to stop", confirmed: true, atMs: 0 } as const;
  for (const name of [own, has]) {
    const lists = [
      `/v1/health/checks/${name}`,
      `/v1/health/node/${node}`,
      "/v1/health/state/any",
      "/v1/health/state/critical",
    ];
    const drains = (rows: readonly { CheckID: string }[]): number =>
      rows.filter(({ CheckID }) => CheckID === `trilith-draining:${name}`).length;
    const begin = await Promise.all(lists.map((path) => fetch(agent.url + path)));
    for (const answer of begin) expect(drains((await answer.json()) as never), answer.url).toBe(0);
    let before = begin.map((answer) => Number(answer.headers.get("x-consul-index")));
    for (const draining of [true, false]) {
      const waits = lists.map((path, i) => fetch(`${agent.url}${path}?index=${before[i]}&wait=60s`));
      await agent.trilith.agent.drain(name, draining, why);
      const answers = await Promise.all(waits);
      for (const [i, answer] of answers.entries()) {
        const rows = (await answer.json()) as { CheckID: string; Node: string }[];
        expect(drains(rows), answer.url).toBe(draining ? 1 : 0);
        expect(Number(answer.headers.get("x-consul-index")), answer.url).toBeGreaterThan(before[i] as number);
        const keys = rows.map(({ Node, CheckID }) => `${Node.toLowerCase()}\u0000${CheckID}`);
        expect(keys, answer.url).toEqual(keys.toSorted());
        if (!draining) continue;
        expect(rows, answer.url).toContainEqual(
          expect.objectContaining({ Status: "critical", ServiceID: name, ServiceName: name, Name: "Draining" }),
        );
      }
      before = answers.map((answer) => Number(answer.headers.get("x-consul-index")));
    }
    expect(await get<unknown[]>("/v1/health/state/passing")).not.toContainEqual(
      expect.objectContaining({ CheckID: `trilith-draining:${name}` }),
    );
  }
}, 30_000);
