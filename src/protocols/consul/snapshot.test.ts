// Snapshots: what goes in comes out; a damaged one is refused with its fault and changes nothing.
import { gunzipSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { readSnapshot } from "./snapshot.ts";

let agent: RunningAgent;
beforeEach(async () => {
  agent = await startAgent();
});
afterEach(async () => {
  expect(agent.errors).toEqual([]);
  await agent.stop();
});

const send = (path: string, body: unknown, url = agent.url): Promise<Response> =>
  fetch(url + path, { method: "PUT", body: body instanceof Uint8Array ? new Uint8Array(body) : JSON.stringify(body) });
const json = async (path: string, url = agent.url): Promise<unknown> => (await fetch(url + path)).json();
async function save(): Promise<Buffer> {
  const answer = await fetch(`${agent.url}/v1/snapshot`);
  expect(answer.headers.get("content-type")).toBe("application/x-gzip");
  return Buffer.from(await answer.arrayBuffer());
}
async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function fill(): Promise<void> {
  await send("/v1/kv/__proto__/a?flags=18446744073709551615", "x".repeat(100));
  await send("/v1/kv/b", new Uint8Array());
  await send("/v1/catalog/register", {
    Node: "db1",
    Address: "10.0.0.1",
    Service: { Service: "db", Port: 5432, Tags: ["main"] },
    Check: { CheckID: "c", Name: "c", Status: "warning", ServiceID: "db" },
  });
  await send("/v1/coordinate/update", {
    Node: "db1",
    Coord: { Vec: [1, 0, 0, 0, 0, 0, 0, 0], Error: 1, Adjustment: 0, Height: 1 },
  });
  await send("/v1/config", { kind: "service-defaults", name: "web", Protocol: "http" });
}

const content = async (url = agent.url): Promise<unknown> => ({
  kv: ((await json("/v1/kv/?recurse", url)) as Record<string, unknown>[]).map(({ Key, Value, Flags }) => [
    Key,
    Value,
    Flags,
  ]),
  db: ((await json("/v1/health/service/db", url)) as { Node: { Node: string }; Checks: { Status: string }[] }[]).map(
    ({ Node, Checks }) => [Node.Node, Checks.map(({ Status }) => Status)],
  ),
  coordinates: await json("/v1/coordinate/nodes", url),
  config: ((await json("/v1/config/service-defaults", url)) as Record<string, unknown>[]).map(({ Name, Protocol }) => [
    Name,
    Protocol,
  ]),
});

describe("a snapshot", () => {
  it("brings back what was changed, taken away and added since, at once for those who wait", async () => {
    await fill();
    const before = await content();
    const snapshot = await save();
    await send("/v1/kv/b", "other");
    await send("/v1/kv/c", "new");
    await fetch(`${agent.url}/v1/kv/__proto__/a`, { method: "DELETE" });
    await send("/v1/catalog/deregister", { Node: "db1" });
    await fetch(`${agent.url}/v1/config/service-defaults/web`, { method: "DELETE" });
    const index = (await fetch(`${agent.url}/v1/kv/b`)).headers.get("x-consul-index");
    const waiting = fetch(`${agent.url}/v1/kv/b?index=${index}&wait=20s`);
    const restored = await send("/v1/snapshot", snapshot);
    expect([restored.status, await restored.text()]).toEqual([200, ""]);
    expect(await (await waiting).json()).toMatchObject([{ Value: null }]);
    expect(await content()).toEqual(before);
    expect((await fetch(`${agent.url}/v1/kv/c`)).status).toBe(404);
  });

  it("holds sessions with their locks, and prepared queries", async () => {
    const { ID } = (await (await send("/v1/session/create", { Name: "lock", TTL: "1h" })).json()) as { ID: string };
    expect(await (await send(`/v1/kv/locked?acquire=${ID}`, "x")).json()).toBe(true);
    const query = await fetch(`${agent.url}/v1/query`, {
      method: "POST",
      body: JSON.stringify({ Name: "q", Service: { Service: "consul" } }),
    });
    expect(query.status).toBe(200);
    const snapshot = await save();
    await send(`/v1/session/destroy/${ID}`, {});
    const id = ((await query.json()) as { ID: string }).ID;
    await fetch(`${agent.url}/v1/query/${id}`, { method: "DELETE" });
    expect((await fetch(`${agent.url}/v1/query/q/execute`)).status).toBe(404);
    expect((await send("/v1/snapshot", snapshot)).status).toBe(200);
    expect(await json("/v1/kv/locked")).toMatchObject([{ Session: ID, LockIndex: 1 }]);
    expect(await json(`/v1/session/info/${ID}`)).toMatchObject([{ ID, Name: "lock" }]);
    expect(await json("/v1/query/q/execute")).toMatchObject({ Service: "consul", Nodes: [{}] });
    expect((await send(`/v1/session/renew/${ID}`, {})).status).toBe(200);
  });

  it("goes into another agent and leaves what is that agent's own", async () => {
    await fill();
    await send("/v1/agent/service/register", { Name: "mine" });
    const snapshot = await save();
    const other = await startAgent({ node: "beta" });
    try {
      await send("/v1/agent/service/register", { Name: "its" }, other.url);
      expect((await send("/v1/snapshot", snapshot, other.url)).status).toBe(200);
      expect(await content(other.url)).toEqual(await content());
      expect(Object.keys((await json("/v1/catalog/services", other.url)) as object).sort()).toEqual([
        "consul",
        "db",
        "its",
        "mine",
      ]);
      // Nobody here knows whether the first agent still lives.
      expect(await json("/v1/health/service/mine?passing", other.url)).toEqual([]);
      expect(await json("/v1/health/service/its?passing", other.url)).toHaveLength(1);
    } finally {
      await other.stop();
    }
  });

  it("brings queries back, but no events: nobody is to hear them again", async () => {
    const names = async (path: string, url = agent.url): Promise<unknown> =>
      ((await json(path, url)) as { Name: string }[]).map(({ Name }) => Name);
    await fetch(`${agent.url}/v1/query`, {
      method: "POST",
      body: JSON.stringify({ Name: "Q", Service: { Service: "web" } }),
    });
    await send("/v1/event/fire/before", {});
    const snapshot = await save();
    await send("/v1/event/fire/after", {});
    const other = await startAgent({ node: "beta" });
    try {
      await send("/v1/event/fire/own", {}, other.url);
      for (const url of [agent.url, other.url]) expect((await send("/v1/snapshot", snapshot, url)).status).toBe(200);
      expect(await names("/v1/query", other.url)).toEqual(["Q"]);
      expect(await names("/v1/event/list", other.url)).toEqual(["own"]);
      expect(await names("/v1/event/list")).toEqual(["before", "after"]);
    } finally {
      await other.stop();
    }
  });

  it("tells by itself what it holds", async () => {
    await fill();
    const { head, sizes, checksum, records } = await readSnapshot(once(await save()));
    expect(head).toMatchObject({ format: "trilith-snapshot", version: 1, node: "alpha", datacenter: "dc1" });
    expect(sizes.get("kv")?.count).toBe(2);
    expect(checksum).toMatch(/^[0-9a-f]{64}$/);
    expect(records.length).toBe([...sizes.values()].reduce((sum, { count }) => sum + count, 0));
  });
});

describe("damaged", () => {
  it("wherever it is cut or changed, it is refused and nothing changes", async () => {
    await fill();
    const before = await content();
    const snapshot = await save();
    const plain = gunzipSync(snapshot);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(plain.length - 1),
        fc.boolean(),
        fc.integer({ min: 1, max: 255 }),
        async (at, cut, by) => {
          const bad = Buffer.from(cut ? plain.subarray(0, at) : plain);
          if (!cut) bad[at] = (bad[at] as number) ^ by;
          const answer = await send("/v1/snapshot", gzipSync(bad));
          expect(answer.status).toBe(500);
          expect(await answer.text()).toMatch(/Nothing was changed$/);
        },
      ),
      { numRuns: 60 },
    );
    for (const at of [0, 1, 20, snapshot.length - 9, snapshot.length - 1])
      expect((await send("/v1/snapshot", snapshot.subarray(0, at))).status).toBe(500);
    expect(await content()).toEqual(before);
  });

  it.each([
    ["not a snapshot", Buffer.from("hello"), /not compressed by gzip/],
    [
      "of Consul",
      gzipSync(Buffer.concat([Buffer.alloc(257), Buffer.from("ustar"), Buffer.alloc(300)])),
      /Consul's own/,
    ],
    ["of a newer version", gzipSync('{"format":"trilith-snapshot","version":2}\n'), /newer Trilith/],
    ["of something else", gzipSync('{"format":"x"}\n'), /first line/],
    ["empty", gzipSync(""), /empty/],
  ])("%s", async (_, bytes, text) => {
    const answer = await send("/v1/snapshot", new Uint8Array(bytes));
    expect(answer.status).toBe(500);
    expect(await answer.text()).toMatch(text);
  });
});
