// The smaller endpoints where recordings do not reach: cached answers of an absent store, writers by network, operator, entries, the log.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { testDirectory } from "../../../test/support/directory.ts";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { TrilithError } from "../../base/error.ts";
import { createHttp } from "../../base/http.ts";
import { silentLog } from "../../base/log.ts";
import { keyOf } from "../../model/record.ts";
import { AskedBefore, readCacheControl } from "./cache.ts";
import type { ConsulGround } from "./call.ts";
import { configure } from "./config.ts";
import { Query } from "./query.ts";
import { rows } from "./routes/index.ts";
import { createHandler } from "./server.ts";

let agent: RunningAgent;
beforeAll(async () => {
  agent = await startAgent();
});
afterAll(async () => {
  expect(agent.errors).toEqual([]);
  await agent.stop();
});
const ask = async (method: string, path: string, body?: unknown): Promise<{ status: number; body: unknown }> => {
  const answer = await fetch(agent.url + path, {
    method,
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await answer.text();
  return {
    status: answer.status,
    body: /json/.test(answer.headers.get("content-type") ?? "") ? JSON.parse(text) : text,
  };
};

describe("cached", () => {
  it("reads Cache-Control as Consul does", () => {
    expect(readCacheControl(undefined)).toEqual({ mustRevalidate: false });
    expect(readCacheControl("Max-Age=30, stale-if-error=60,no-transform")).toEqual({
      mustRevalidate: false,
      maxAgeMs: 30_000,
      staleIfErrorMs: 60_000,
    });
    expect(readCacheControl("max-age=0").mustRevalidate).toBe(true);
    expect(() => readCacheControl("max-age=soon")).toThrow("Invalid Cache-Control header.");
  });

  it("remembers what was asked: not how it was waited for, and not for ever", () => {
    const clock = fakeClock();
    const asked = new AskedBefore(clock);
    const is = (query: string): boolean => asked.ask({ path: "/v1/x", query: new Query(query) });
    expect([is("cached"), is("cached&index=7&wait=1s&pretty"), is("cached&near=a"), is("cached&near=a")]).toEqual([
      false,
      true,
      false,
      true,
    ]);
    clock.advanceNow(3 * 24 * 3_600_000 + 1);
    expect(is("cached")).toBe(false);
  });

  it("of an absent store: as old as the caller allows, with its age", async () => {
    const clock = fakeClock();
    const directory = testDirectory(clock);
    await directory.write([
      {
        op: "put",
        table: "node",
        key: keyOf.node("n"),
        value: { id: "", name: "n", address: "10.0.0.1", datacenter: "dc1", taggedAddresses: {}, labels: {} },
      },
    ]);
    const away = {
      ...directory,
      view: () => directory.view(),
      barrier: () => Promise.reject(new TrilithError("unavailable", "away")),
    };
    const ground = {
      clock,
      log: silentLog,
      random: { fraction: () => 0 },
      directory: away,
      self: { datacenter: "dc1", dev: false, node: "n" },
    } as unknown as ConsulGround;
    const http = createHttp();
    const server = await http.serve({ host: "127.0.0.1", port: 0 }, createHandler(rows, configure({}), ground));
    const get = (query: string, control = ""): Promise<Response> =>
      fetch(`http://127.0.0.1:${server.port}/v1/catalog/services?${query}`, { headers: { "cache-control": control } });
    try {
      expect((await get("cached")).headers.get("x-cache")).toBe("MISS");
      directory.reachable(false);
      clock.advanceNow(10_000);
      const old = await get("cached");
      expect([old.status, old.headers.get("x-cache"), old.headers.get("age")]).toEqual([200, "HIT", "10"]);
      expect(old.headers.get("x-consul-knownleader")).toBe("false");
      expect((await get("cached", "max-age=11")).status).toBe(200);
      expect((await get("cached", "max-age=9")).status).toBe(503);
      expect((await get("cached", "max-age=9, stale-if-error=60")).headers.get("age")).toBe("10");
      expect((await get("cached", "must-revalidate, stale-if-error=9")).status).toBe(503);
      expect((await get("max_stale=11s")).status).toBe(200);
      expect((await get("max_stale=9s")).status).toBe(503);
      expect((await get("stale")).status).toBe(200);
      expect((await get("consistent")).status).toBe(503);
    } finally {
      await server.close();
      await http.close();
    }
  });
});

it("folds keys at ?separator, also in its old spelling", async () => {
  for (const key of ["s/a", "s/b/c", "s/b/d"]) await ask("PUT", `/v1/kv/${key}`, "1");
  for (const word of ["separator", "seperator"])
    expect((await ask("GET", `/v1/kv/s/?keys&${word}=/`)).body).toEqual(["s/a", "s/b/"]);
  expect((await ask("GET", "/v1/kv/s/?keys&separator=&seperator=/")).body).toEqual(["s/a", "s/b/c", "s/b/d"]);
  await ask("DELETE", "/v1/kv/s/?recurse");
});

it("does not drop the several ports of a service in silence: to Consul 1.19 they are unknown", async () => {
  const Ports = [{ Name: "http", Port: 80, Default: true }];
  const refused = { status: 400, body: 'Request decode failed: json: unknown field "Ports"' };
  expect(await ask("PUT", "/v1/agent/service/register", { Name: "several", Ports })).toEqual(refused);
  expect(
    await ask("PUT", "/v1/catalog/register", {
      Node: "n",
      Address: "192.0.2.1",
      Service: { Service: "several", Ports },
    }),
  ).toEqual(refused);
  expect(await ask("GET", "/v1/catalog/service/several")).toEqual({ status: 200, body: [] });
});

it("takes changes from the given networks only", async () => {
  const guarded = await startAgent({ protocols: { consul: { allowWriteFrom: ["192.0.2.0/24"] } } });
  try {
    for (const [method, path] of [
      ["PUT", "/v1/kv/a"],
      ["DELETE", "/v1/kv/a"],
      ["PUT", "/v1/agent/service/register"],
      ["PUT", "/v1/snapshot"],
    ] as const) {
      const answer = await fetch(guarded.url + path, { method, ...(method === "PUT" ? { body: "{}" } : {}) });
      expect([path, answer.status, await answer.text()]).toEqual([path, 403, "Access is restricted"]);
    }
    expect((await fetch(`${guarded.url}/v1/catalog/nodes`)).status).toBe(200);
  } finally {
    await guarded.stop();
  }
  const open = await startAgent({ protocols: { consul: { allowWriteFrom: ["127.0.0.0/8", "::1/128"] } } });
  try {
    expect((await fetch(`${open.url}/v1/kv/a`, { method: "PUT", body: "x" })).status).toBe(200);
  } finally {
    await open.stop();
  }
});

describe("configuration entries", () => {
  it("are kept, listed, compared and removed", async () => {
    expect(await ask("PUT", "/v1/config", { kind: "service-defaults", name: "web", Protocol: "http" })).toEqual({
      status: 200,
      body: true,
    });
    const { body } = await ask("GET", "/v1/config/service-defaults/web");
    expect(body).toMatchObject({ Kind: "service-defaults", Name: "web", Protocol: "http" });
    const at = (body as { ModifyIndex: number }).ModifyIndex;
    expect((await ask("PUT", `/v1/config?cas=${at - 1}`, { Kind: "service-defaults", Name: "web" })).body).toBe(false);
    expect((await ask("PUT", `/v1/config?cas=${at}`, { Kind: "service-defaults", Name: "web" })).body).toBe(true);
    expect((await ask("GET", "/v1/config/service-defaults")).body).toHaveLength(1);
    expect((await ask("DELETE", "/v1/config/service-defaults/web")).body).toEqual({});
    expect((await ask("GET", "/v1/config/service-defaults/web")).status).toBe(404);
  });
  it("are shown complete, and told again as they were shown they move nothing", async () => {
    await ask("PUT", "/v1/config", { Kind: "proxy-defaults", config: { protocol: "http" } });
    const { body } = await ask("GET", "/v1/config/proxy-defaults/global");
    expect(body).toEqual({
      ...{ Kind: "proxy-defaults", Name: "global", Config: { protocol: "http" } },
      ...{ TransparentProxy: {}, MeshGateway: {}, Expose: {}, AccessLogs: {} },
      ...{ Hash: expect.any(Number), CreateIndex: expect.any(Number), ModifyIndex: expect.any(Number) },
    });
    expect((await ask("PUT", "/v1/config", body)).body).toBe(true);
    expect((await ask("GET", "/v1/config/proxy-defaults/global")).body).toEqual(body);
    expect((await ask("DELETE", "/v1/config/proxy-defaults/global?cas=1")).body).toBe(false);
    expect((await ask("DELETE", "/v1/config/proxy-defaults/global?cas=x")).status).toBe(500);
    const { ModifyIndex: at } = body as { ModifyIndex: number };
    expect((await ask("DELETE", `/v1/config/proxy-defaults/global?cas=${at}`)).body).toBe(true);
  });
  it.each([
    ["GET", "/v1/config/nope", 500, "invalid config entry kind: nope"],
    ["GET", "/v1/config/nope/x", 500, "invalid config entry kind: nope"],
    ["GET", "/v1/config/mesh/mesh", 404, 'Config entry not found for "mesh" / "mesh"'],
    ["DELETE", "/v1/config/nope/x", 400, "invalid config entry kind: nope"],
    ["DELETE", "/v1/config/mesh", 404, "Must provide both a kind and name to delete"],
  ])("%s %s", async (method, path, status, text) => {
    expect(await ask(method, path)).toEqual({ status, body: text });
  });
  it.each([
    [{ Name: "x" }, 400, /kind\/Kind/],
    [{ Kind: "nonsense", Name: "x" }, 400, /^Request decoding failed: invalid config entry kind: nonsense$/],
    [{ Kind: "service-defaults" }, 500, /Name is required/],
    [{ Kind: "proxy-defaults", Name: "x" }, 500, /only "global"/],
    ["[]", 400, /decoding failed/],
  ])("%j is refused", async (entry, status, text) => {
    const answer = await ask("PUT", "/v1/config", entry);
    expect([answer.status, answer.body]).toEqual([status, expect.stringMatching(text)]);
  });
});

describe("operator", () => {
  it("keeps autopilot's settings, by compare-and-set where asked", async () => {
    const path = "/v1/operator/autopilot/configuration";
    const { ModifyIndex } = (await ask("GET", path)).body as { ModifyIndex: number };
    expect((await ask("PUT", `${path}?cas=99`, { MinQuorum: 3 })).body).toBe(false);
    expect((await ask("PUT", `${path}?cas=${ModifyIndex}`, { MinQuorum: 3 })).body).toBe(true);
    expect((await ask("GET", path)).body).toMatchObject({ MinQuorum: 3, CleanupDeadServers: false });
    expect((await ask("PUT", path, { Nonsense: 1 })).status).toBe(400);
  });
  it.each<[unknown, unknown]>([
    [{ LastContactThreshold: "abc" }, 'Error parsing autopilot config: time: invalid duration "abc"'],
    [{ MaxTrailingLogs: -1 }, expect.stringMatching(/^Error parsing autopilot config: json: cannot unmarshal number/)],
    ["", "Error parsing autopilot config: EOF"],
  ])("refuses %j of autopilot", async (told, text) => {
    expect(await ask("PUT", "/v1/operator/autopilot/configuration", told)).toEqual({ status: 400, body: text });
  });
  it("shows autopilot's durations as Go writes them, given as text or in nanoseconds", async () => {
    const path = "/v1/operator/autopilot/configuration";
    await ask("PUT", path, { LastContactThreshold: 1_500_000_000, ServerStabilizationTime: "90s" });
    expect((await ask("GET", `${path}?ns=x`)).body).toMatchObject({
      LastContactThreshold: "1.5s",
      ServerStabilizationTime: "1m30s",
    });
  });
  it.each([
    ["GET", "?relay-factor=9", undefined, "Invalid relay-factor: Value must be in range: [0, 5]"],
    ["GET", "?relay-factor=x", undefined, 'Error parsing relay factor: strconv.Atoi: parsing "x": invalid syntax'],
    ["GET", "?local-only=x", undefined, 'Error parsing local-only: strconv.ParseBool: parsing "x": invalid syntax'],
    ["PUT", "?local-only=1", "{}", "Invalid use of local-only: local-only can only be set for GET requests"],
    ["PUT", "", '{"Nope":1}', 'Request decode failed: json: unknown field "Nope"'],
  ])("keyring: %s %s %s", async (method, query, body, text) => {
    expect(await ask(method, `/v1/operator/keyring${query}`, body)).toEqual({ status: 400, body: text });
  });
  it("says what cannot be done", async () => {
    const peer = "/v1/operator/raft/peer";
    expect(await ask("DELETE", peer)).toMatchObject({ status: 400 });
    expect(await ask("DELETE", `${peer}?id=a&address=b`)).toMatchObject({ status: 400 });
    expect((await ask("DELETE", `${peer}?id=a`)).body).toBe('id "a" was not found in the Raft configuration');
    expect((await ask("DELETE", `${peer}?id=${agent.trilith.self.nodeId}`)).body).toMatch(/force-leave/);
    expect((await ask("POST", "/v1/operator/raft/transfer-leader")).status).toBe(500);
    expect((await ask("GET", "/v1/operator/keyring")).status).toBe(500);
  });
  it("health: 200 while all live, 429 when one does not", async () => {
    expect((await ask("GET", "/v1/operator/autopilot/health")).status).toBe(200);
    expect((await ask("GET", "/v1/operator/autopilot/state")).body).toMatchObject({
      Healthy: true,
      Leader: agent.trilith.self.nodeId,
    });
  });
});

it("counts for user interfaces what is well", async () => {
  await ask("PUT", "/v1/agent/service/register", {
    Name: "ui",
    Checks: [{ TTL: "1h" }, { TTL: "1h", Status: "passing" }],
  });
  const { body } = await ask("GET", "/v1/internal/ui/catalog-overview");
  expect((body as { Services: { Name: string }[] }).Services.find(({ Name }) => Name === "ui")).toEqual({
    Name: "ui",
    Total: 1,
    Passing: 0,
    Warning: 0,
    Critical: 1,
  });
  expect((await ask("GET", "/v1/internal/ui/node/nobody")).status).toBe(404);
  const services = (await ask("GET", "/v1/internal/ui/services")).body as { Name: string }[];
  expect(services.find(({ Name }) => Name === "ui")).toMatchObject({
    InstanceCount: 1,
    ChecksCritical: 1,
    ChecksPassing: 2,
  });
  const filter = encodeURIComponent('Service.Service == "ui"');
  expect((await ask("GET", `/v1/internal/ui/services?filter=${filter}`)).body).toMatchObject([{ Name: "ui" }]);
});

it("the log is let go of when its reader leaves", async () => {
  const leave = new AbortController();
  const answer = await fetch(`${agent.url}/v1/agent/monitor?loglevel=debug`, { signal: leave.signal });
  const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
  await ask("PUT", "/v1/agent/reload");
  expect(Buffer.from((await reader.read()).value as Uint8Array).toString()).toMatch(
    /\[INFO\] {2}agent: reading files again/,
  );
  leave.abort();
  await reader.closed.catch(() => {});
  expect((await ask("PUT", "/v1/agent/reload")).status).toBe(200);
});

it("streams metrics every ten seconds, and stops with its reader", async () => {
  const clock = fakeClock();
  const ground = {
    ...{ clock, log: silentLog, directory: testDirectory(clock), metrics: { read: () => [] } },
    self: { datacenter: "dc1", startedAtMs: clock.now() },
  } as unknown as ConsulGround;
  const http = createHttp();
  const server = await http.serve({ host: "127.0.0.1", port: 0 }, createHandler(rows, configure({}), ground));
  try {
    const gone = new AbortController();
    const answer = await fetch(`http://127.0.0.1:${server.port}/v1/agent/metrics/stream`, { signal: gone.signal });
    expect(answer.status).toBe(200);
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
    let text = "";
    for (let told = 1; told <= 2; told++) {
      await clock.advance(9_999);
      await clock.advance(1);
      while (text.split("\n}\n").length <= told) text += new TextDecoder().decode((await reader.read()).value);
    }
    const [first] = text.split("\n}\n");
    expect(JSON.parse(`${first}}`)).toMatchObject({ Points: [], Counters: [], Samples: [] });
    gone.abort();
    await reader.read().catch(() => {});
    while (clock.timers > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  } finally {
    await server.close();
    await http.close();
  }
});
