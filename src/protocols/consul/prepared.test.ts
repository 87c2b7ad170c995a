// Prepared queries and events over HTTP, where the recorded scenarios do not look: odd IDs and parameters, waiting, many waiters and events.
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";

let agent: RunningAgent;
beforeEach(async () => {
  agent = await startAgent();
});
afterEach(async () => {
  expect(agent.errors).toEqual([]);
  await agent.stop();
});

const ask = async (
  path: string,
  method = "GET",
  body?: string,
): Promise<{ readonly status: number; readonly text: string; readonly headers: Headers }> => {
  const answer = await fetch(agent.url + path, { method, ...(body === undefined ? {} : { body }) });
  return { status: answer.status, text: await answer.text(), headers: answer.headers };
};
const create = async (query: object): Promise<string> => {
  const { status, text } = await ask("/v1/query", "POST", JSON.stringify({ Service: { Service: "web" }, ...query }));
  expect(status, text).toBe(200);
  return (JSON.parse(text) as { ID: string }).ID;
};
const indexOf = (headers: Headers): string => headers.get("x-consul-index") ?? "";

describe("queries", () => {
  it.each([
    ["GET", "/v1/query/x", "failed prepared query lookup: index error: UUID must be 36 characters"],
    ["GET", `/v1/query/${"z".repeat(36)}`, "index error: Invalid UUID: encoding/hex: invalid byte: U+007A 'z'"],
    ["GET", `/v1/query/${"-".repeat(36)}`, 'index error: UUID should have maximum of 4 "-"; got 36'],
    ["GET", `/v1/query/${"a".repeat(35)}-`, "index error: UUID (without hyphens) must be even length"],
    ["PUT", "/v1/query/x", "Prepared Query lookup failed: failed prepared query lookup: index error: UUID must be"],
    ["DELETE", "/v1/query/x", "Prepared Query lookup failed: failed prepared query lookup: index error: UUID must be"],
    ["GET", "/v1/query/q/execute?limit=x", 'Bad limit: strconv.Atoi: parsing "x": invalid syntax'],
    ["GET", "/v1/query/q/explain?limit=99999999999999999999", "value out of range"],
    ["GET", "/v1/query/q/execute?connect=maybe", "Error parsing 'connect' value: strconv.ParseBool"],
    ["GET", "/v1/query/q/execute?dc=nowhere", "No path to datacenter"],
    ["GET", "/v1/query?dc=nowhere", "No path to datacenter"],
    ["DELETE", "/v1/query/b1d5f6ab-9fd0-43e5-8d0c-b07d9d2bd2a1?dc=nowhere", "No path to datacenter"],
  ])("refuse %s %s", async (method, path, text) => {
    const answer = await ask(path, method);
    expect(answer.status).toBe(500);
    expect(answer.text).toContain(text);
  });

  it("may be called execute, and an ID counts in any case", async () => {
    const id = await create({ Name: "execute" });
    expect((await ask("/v1/query/execute")).status).toBe(200);
    expect((await ask("/v1/query/execute/execute")).status).toBe(200);
    expect((await ask("/v1/query/explain")).status).toBe(404);
    expect(JSON.parse((await ask(`/v1/query/${id.toUpperCase()}`)).text)).toMatchObject([{ ID: id }]);
    expect((await ask("/v1/query/execute", "PUT")).headers.get("allow")).toBe("GET");
  });

  it("keep what was given and what was not apart", async () => {
    const id = await create({
      Name: "x",
      Service: { Service: "web", Tags: [], NodeMeta: {}, Failover: { Datacenters: [] } },
    });
    expect(JSON.parse((await ask(`/v1/query/${id}`)).text)[0].Service).toMatchObject({
      ...{ Tags: [], NodeMeta: {}, ServiceMeta: null, IgnoreCheckIDs: null },
      Failover: { NearestN: 0, Datacenters: [], Targets: null },
    });
    const targets = [{ Peer: "p" }, { Datacenter: "dc2" }];
    await ask(
      `/v1/query/${id}`,
      "PUT",
      JSON.stringify({ Name: "x", Service: { Service: "w", Failover: { Targets: targets } } }),
    );
    expect(JSON.parse((await ask(`/v1/query/${id}`)).text)[0].Service.Failover).toEqual({
      ...{ NearestN: 0, Datacenters: null },
      Targets: [
        { Peer: "p", Datacenter: "" },
        { Peer: "", Datacenter: "dc2" },
      ],
    });
  });

  it("wake who waits for them, not who waits for others", async () => {
    const one = await create({ Name: "one" });
    const two = await create({ Name: "two" });
    const index = indexOf((await ask(`/v1/query/${one}`)).headers);
    const all = ask(`/v1/query?index=${index}&wait=10s`);
    let woken = false;
    const waiting = ask(`/v1/query/${one}?index=${index}&wait=10s`).then((answer) => {
      woken = true;
      return answer;
    });
    await ask(`/v1/query/${two}`, "PUT", '{"Name": "too", "Service": {"Service": "db"}}');
    expect(Number(indexOf((await all).headers))).toBeGreaterThan(Number(index));
    await ask("/v1/status/leader");
    expect(woken).toBe(false);
    await ask(`/v1/query/${one}`, "PUT", '{"Name": "won", "Service": {"Service": "db"}}');
    expect((await waiting).text).toContain('"won"');
    // Carrying out never waits.
    expect((await ask(`/v1/query/won/execute?index=9999&wait=10s`)).status).toBe(200);
  });

  it("are told MISS and HIT where caches are asked for", async () => {
    await create({ Name: "q" });
    const cached = async (): Promise<unknown> => (await ask("/v1/query/q/execute?cached")).headers.get("x-cache");
    expect([await cached(), await cached()]).toEqual(["MISS", "HIT"]);
  });
});

describe("events", () => {
  it("are waited for by the last one's ID", async () => {
    const fire = async (name: string): Promise<string> =>
      JSON.parse((await ask(`/v1/event/fire/${name}`, "PUT")).text).ID;
    const list = async (query = ""): Promise<{ names: string[]; index: string }> => {
      const { text, headers } = await ask(`/v1/event/list${query}`);
      return { names: (JSON.parse(text) as { Name: string }[]).map(({ Name }) => Name), index: indexOf(headers) };
    };
    expect(await list()).toEqual({ names: [], index: "1" });
    const first = list("?index=1&wait=10s");
    const id = (await fire("a%2Fb")).replaceAll("-", "");
    const index = String(BigInt(`0x${id.slice(0, 16)}`) ^ BigInt(`0x${id.slice(16)}`));
    expect(await first).toEqual({ names: ["a/b"], index });
    const waiting = Array.from({ length: 50 }, () => list(`?name=a/b&index=${index}&wait=10s`));
    // Of no interest to them.
    await fire("other");
    expect(await list(`?name=a/b&index=${index}&wait=1ms`)).toEqual({ names: ["a/b"], index });
    await fire("a/b");
    for (const each of await Promise.all(waiting)) expect(each.names).toEqual(["a/b", "a/b"]);
    expect((await list("?index=7")).names).toHaveLength(3);
  });

  it.each([
    ["/v1/event/list?index=x", 400, "Invalid index"],
    ["/v1/event/list?wait=x&index=1", 400, "Invalid wait time"],
  ])("are not listed for %s", async (path, status, text) => {
    expect(await ask(path)).toMatchObject({ status, text });
  });
});
