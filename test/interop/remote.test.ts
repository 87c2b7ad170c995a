// Client hosts that joined a Trilith agent: one directory seen from both sides, servers that go and come back, hosts that die.

import { Resolver } from "node:dns/promises";
import { type AddressInfo, createServer } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import type { Settings } from "../../src/contracts/settings.ts";
import { NODE_ALIVE_CHECK } from "../../src/model/check.ts";
import type { Registration } from "../../src/model/instance.ts";
import { keyOf } from "../../src/model/record.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";
import { QUIET, startAgentProcess } from "../support/agent-process.ts";
import { ownPrefix, startEtcd } from "../support/etcd.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../support/peers.ts";

const LIVENESS_MS = 3_000;
const hereEtcd = await havePrograms("etcd", "etcdctl");

let ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.reverse()) await end();
  ends = [];
});

const service = (id: string, name: string, port: number): Registration => ({
  id,
  name,
  tags: ["v1"],
  labels: { zone: "a" },
  address: "127.0.0.1",
  port,
  checks: [],
});

async function inside(
  node: string,
  given: Partial<Settings>,
): Promise<{ readonly agent: Trilith; readonly url: string }> {
  const httpPort = given.httpPort ?? (await freePort());
  const agent = createTrilith({
    node,
    dev: given.dataDir === undefined,
    httpPort,
    advertiseAddress: "127.0.0.1",
    antiEntropyMs: 2_000,
    protocols: QUIET,
    ...given,
  });
  ends.push(() => agent.stop());
  await agent.start();
  return { agent, url: `http://127.0.0.1:${httpPort}` };
}

async function outside(node: string, given: Partial<Settings>) {
  const agent = await startAgentProcess({ node, antiEntropyMs: 2_000, protocols: QUIET, ...given });
  ends.push(() => agent.remove());
  return agent;
}

const join = (...servers: string[]): Partial<Settings> => ({ join: { servers, livenessMs: LIVENESS_MS } });
const routable = (agent: Trilith, name: string): number => agent.lookup.resolveNow({ service: name }).endpoints.length;
async function get(url: string): Promise<{ status: number; json: unknown; headers: Headers }> {
  const answer = await fetch(url);
  const text = await answer.text();
  let json: unknown = text;
  try {
    json = JSON.parse(text);
  } catch {}
  return { status: answer.status, json, headers: answer.headers };
}
async function put(url: string, body: unknown): Promise<{ status: number; text: string }> {
  const answer = await fetch(url, { method: "PUT", body: typeof body === "string" ? body : JSON.stringify(body) });
  return { status: answer.status, text: await answer.text() };
}
const idsAt = async (url: string, name: string): Promise<string[]> => {
  const { json } = await get(`${url}/v1/health/service/${name}?passing`);
  return (json as { Service: { ID: string } }[]).map(({ Service }) => Service.ID).sort();
};

describe("a client host of a Trilith agent", () => {
  test("registers here, is found there, and the other way round, with everything that belongs to it", async () => {
    const server = await inside("server", {});
    const client = await inside("client", join(server.url));
    await client.agent.agent.register("api", service("web-c", "web", 8001));
    await server.agent.agent.register("api", service("web-s", "web", 8002));
    await eventually("both at the server", () => routable(server.agent, "web") === 2);
    await eventually("both at the client", () => routable(client.agent, "web") === 2);
    expect(await idsAt(client.url, "web")).toEqual(["web-c", "web-s"]);
    expect(await idsAt(server.url, "web")).toEqual(["web-c", "web-s"]);
    const [held] = server.agent.directory
      .view()
      .residents("web")
      .filter(({ instance }) => instance.id === "web-c");
    expect(held?.instance).toMatchObject({
      node: "client",
      tags: ["v1"],
      labels: { zone: "a" },
      origin: { source: "api" },
    });
    expect(held?.node.external).toBeUndefined();
    // The client is no server of a Consul.
    expect((await get(`${server.url}/v1/health/service/consul`)).json).toHaveLength(1);
    for (const { url } of [server, client]) {
      const { json } = await get(`${url}/v1/agent/members`);
      expect(
        (json as { Name: string; Status: number; Tags: { role: string } }[]).map((one) => [
          one.Name,
          one.Status,
          one.Tags.role,
        ]),
      ).toEqual([
        ["client", 1, "node"],
        ["server", 1, "consul"],
      ]);
      const own = (await get(`${url}/v1/agent/self`)).json as {
        Config: { Server: boolean };
        Stats: { consul: object };
      };
      expect(own).toMatchObject({
        Config: { Server: url === server.url },
        Stats: { consul: { server: String(url === server.url) } },
      });
    }
    // What is gone here is gone there.
    await client.agent.agent.deregister("api", "web-c");
    await eventually("gone at the server", () => routable(server.agent, "web") === 1);
    expect(client.agent.directory.view().fresh).toBe(true);
    expect(client.agent.sources().find(({ name }) => name === "join")).toEqual({
      name: "join",
      ok: true,
      text: `client host of ${server.url} (Trilith)`,
    });
    // An unchanged state writes nothing.
    await client.agent.agent.synced();
    const before = server.agent.directory.view().at("services");
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    expect(server.agent.directory.view().at("services")).toBe(before);
  });

  test("answers over DNS on both sides, also for names of another datacenter", async () => {
    const ask = (port: number): Resolver => {
      const resolver = new Resolver({ timeout: 5_000, tries: 1 });
      resolver.setServers([`127.0.0.1:${port}`]);
      return resolver;
    };
    const [serverDns, clientDns, farDns] = [await freePort(), await freePort(), await freePort()];
    const withDns = (port: number) => ({ protocols: { ...QUIET, dns: { port } } });
    const far = await inside("far", { datacenter: "dc2", ...withDns(farDns) });
    await far.agent.agent.register("api", { ...service("far-1", "far", 9000), address: "127.0.0.9" });
    const server = await inside("server", { ...withDns(serverDns), datacenters: { dc2: [far.url] } });
    // The client itself knows nothing of the other datacenter.
    const client = await inside("client", { ...join(server.url), ...withDns(clientDns) });
    await client.agent.agent.register("api", { ...service("web-c", "web", 8001), address: "127.0.0.2" });
    await server.agent.agent.register("api", { ...service("web-s", "web", 8002), address: "127.0.0.3" });
    await eventually(
      "both sides know",
      () => routable(server.agent, "web") === 2 && routable(client.agent, "web") === 2,
    );
    for (const port of [serverDns, clientDns]) {
      expect((await ask(port).resolve4("web.service.consul")).sort()).toEqual(["127.0.0.2", "127.0.0.3"]);
      expect((await ask(port).resolveSrv("web.service.dc1.consul")).map((srv) => srv.port).sort()).toEqual([
        8001, 8002,
      ]);
      expect(await ask(port).resolve4("far.service.dc2.consul")).toEqual(["127.0.0.9"]);
    }
    expect(await ask(serverDns).resolve4("client.node.consul")).toEqual(["127.0.0.1"]);
  });

  test("leaves nothing behind: no timer, no socket, no waiter at the server", async () => {
    const server = await inside("server", {});
    await server.agent.settled(1);
    const held = (): string[] =>
      process
        .getActiveResourcesInfo()
        .filter((name) => /TCPServer|UDPWrap|Timeout|TCPSocket/.test(name))
        .sort();
    const once = async (): Promise<void> => {
      const { agent } = await inside("client", join(server.url));
      await agent.agent.register("api", service("web-c", "web", 8001));
      await agent.agent.synced(AbortSignal.timeout(20_000));
      await agent.stop();
    };
    await once();
    const sockets = (): number => held().filter((name) => name.startsWith("TCP")).length;
    await eventually("closed", () => sockets() <= 1);
    const before = held().length;
    for (let i = 0; i < 10; i++) await once();
    await eventually("closed again", () => held().length <= before, 10_000);
  });

  test("a client host of another datacenter is told so", async () => {
    const server = await inside("server", {});
    const { agent } = await inside("client", { ...join(server.url), datacenter: "dc2" });
    expect(agent.directory.view().fresh).toBe(false);
    expect(server.agent.directory.view().get("node", "client")).toBeUndefined();
  });

  test("hands keys, sessions, locks and blocking queries on to the server", async () => {
    const server = await inside("server", {});
    const client = await inside("client", join(server.url));
    await eventually("registered", () => server.agent.directory.view().get("node", "client") !== undefined);
    expect(await put(`${client.url}/v1/kv/a/b`, "one")).toEqual({ status: 200, text: "true" });
    expect(await (await fetch(`${server.url}/v1/kv/a/b?raw`)).text()).toBe("one");
    const first = await get(`${client.url}/v1/kv/a/b`);
    const index = first.headers.get("X-Consul-Index") ?? "";
    expect(Number(index)).toBeGreaterThan(0);
    const waiting = get(`${client.url}/v1/kv/a/b?index=${index}&wait=20s`);
    await put(`${server.url}/v1/kv/a/b`, "two");
    const woken = await waiting;
    expect(Number(woken.headers.get("X-Consul-Index"))).toBeGreaterThan(Number(index));
    const created = await put(`${client.url}/v1/session/create`, { Name: "lock", LockDelay: "0s" });
    expect(created.status).toBe(200);
    const { ID } = JSON.parse(created.text) as { ID: string };
    // The session is this host's.
    expect((await get(`${server.url}/v1/session/info/${ID}`)).json).toMatchObject([{ Node: "client" }]);
    expect((await put(`${client.url}/v1/kv/lock?acquire=${ID}`, "mine")).text).toBe("true");
    expect((await get(`${server.url}/v1/kv/lock`)).json).toMatchObject([{ Session: ID }]);
    expect((await fetch(`${client.url}/v1/kv/none`)).status).toBe(404);
    const odd = await put(`${client.url}/v1/kv/x%2Fy%20z`, "odd");
    expect(odd.text).toBe("true");
    expect(await (await fetch(`${server.url}/v1/kv/x%2Fy%20z?raw`)).text()).toBe("odd");
    // The catalog, too, is written at the server; and read here.
    await put(`${client.url}/v1/catalog/register`, {
      Node: "ext",
      Address: "192.0.2.1",
      Service: { Service: "db", Port: 5 },
    });
    // Who asks here after the answer sees it.
    expect((await get(`${client.url}/v1/catalog/service/db`)).json).toMatchObject([{ Node: "ext", ServicePort: 5 }]);
    await put(`${client.url}/v1/catalog/deregister`, { Node: "ext" });
    expect((await get(`${client.url}/v1/catalog/service/db`)).json).toEqual([]);
    // Paths that are not clean are redirected as Consul does it, not tidied up on the way.
    const odder = await fetch(`${client.url}/v1/kv//a`, { redirect: "manual" });
    expect(odder.status).toBe(307);
  });

  test("the server goes: lookups go on, registering still answers; it returns: all is made up for", {
    timeout: 60_000,
  }, async () => {
    const folder = await ownFolder("remote-server");
    ends.push(() => folder.remove());
    const httpPort = await freePort();
    const given = { dataDir: `${folder.path}/data`, httpPort };
    let server = await inside("server", given);
    const clientFolder = await ownFolder("remote-client");
    ends.push(() => clientFolder.remove());
    const clientPort = await freePort();
    const clientGiven = { ...join(server.url), dataDir: `${clientFolder.path}/data`, httpPort: clientPort };
    let client = await inside("client", clientGiven);
    await server.agent.agent.register("api", service("db-1", "db", 5432));
    await client.agent.agent.register("api", service("web-1", "web", 80));
    await eventually("carried", () => routable(server.agent, "web") === 1 && routable(client.agent, "db") === 1);
    await server.agent.stop();
    await eventually("noticed", () => !client.agent.directory.view().fresh);
    expect(client.agent.lookup.resolveNow({ service: "db" })).toMatchObject({ fresh: false, endpoints: { length: 1 } });
    expect(await put(`${client.url}/v1/agent/service/register`, { Name: "late", Port: 81 })).toEqual({
      status: 200,
      text: "",
    });
    const refused = await get(`${client.url}/v1/kv/a`);
    expect([refused.status, refused.json]).toEqual([500, "No cluster leader"]);
    // Also a start without the server knows what was known.
    await client.agent.stop();
    client = await inside("client", clientGiven);
    expect(await idsAt(client.url, "db")).toEqual(["db-1"]);
    const read = await get(`${client.url}/v1/health/service/db?stale`);
    expect(Number(read.headers.get("X-Consul-LastContact"))).toBeGreaterThan(0);
    expect(client.agent.directory.view().fresh).toBe(false);
    server = await inside("server", given);
    await eventually(
      "caught up",
      () => routable(server.agent, "late") === 1 && client.agent.directory.view().fresh,
      30_000,
    );
    expect(await idsAt(client.url, "late")).toEqual(["late"]);
    expect((await put(`${client.url}/v1/kv/a`, "x")).text).toBe("true");
  });

  test("a client that is killed turns critical within its time, is passing again when it returns", {
    timeout: 90_000,
  }, async () => {
    const server = await inside("server", {});
    const client = await outside("client", join(server.url));
    await put(`${client.url}/v1/agent/service/register`, { Name: "web", Port: 80 });
    await eventually("found", () => routable(server.agent, "web") === 1);
    await eventually(
      "registered",
      () => server.agent.directory.view().get("check", keyOf.check("client", NODE_ALIVE_CHECK)) !== undefined,
    );
    const { ID } = JSON.parse((await put(`${client.url}/v1/session/create`, { LockDelay: "0s" })).text) as {
      ID: string;
    };
    expect((await put(`${client.url}/v1/kv/leader?acquire=${ID}`, "client")).text).toBe("true");
    const status = (): string | undefined =>
      server.agent.directory.view().get("check", keyOf.check("client", NODE_ALIVE_CHECK))?.status;
    await new Promise((resolve) => setTimeout(resolve, LIVENESS_MS * 1.5));
    expect(status()).toBe("passing");
    await client.stop("SIGKILL");
    await eventually("critical", () => status() === "critical");
    await eventually("out of answers", () => routable(server.agent, "web") === 0);
    await eventually("its locks are free", () => server.agent.kv.get("leader")?.session === undefined);
    await client.start();
    await eventually("passing", () => status() === "passing" && routable(server.agent, "web") === 1, 30_000);
  });

  test("another server takes over when one goes (both on one etcd)", { timeout: 120_000 }, async () => {
    if (!hereEtcd) return;
    const etcd = await startEtcd();
    ends.push(() => etcd.remove());
    const prefix = ownPrefix();
    const shared = async (node: string) => {
      const folder = await ownFolder(`remote-${node}`);
      ends.push(() => folder.remove());
      return await inside(node, {
        dataDir: `${folder.path}/data`,
        storage: "etcd",
        etcd: { endpoints: [etcd.endpoint], prefix, livenessMs: LIVENESS_MS },
      });
    };
    const a = await shared("a");
    const b = await shared("b");
    const client = await inside("client", join(a.url, b.url));
    await client.agent.agent.register("api", service("web-c", "web", 80));
    await eventually("found at both", () => routable(a.agent, "web") === 1 && routable(b.agent, "web") === 1);
    const index = client.agent.directory.view().index;
    await a.agent.stop();
    await b.agent.agent.register("api", service("web-b", "web", 81));
    await eventually("followed through the other", () => routable(client.agent, "web") === 2);
    expect(client.agent.directory.view().index).toBeGreaterThan(index);
    expect(client.agent.directory.view().fresh).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, LIVENESS_MS * 2));
    expect(b.agent.directory.view().get("check", keyOf.check("client", NODE_ALIVE_CHECK))?.status).toBe("passing");
    expect((await put(`${client.url}/v1/kv/a`, "x")).text).toBe("true");
    await client.agent.agent.register("api", service("late-c", "late", 82));
    await eventually("registered through the other", () => routable(b.agent, "late") === 1);
  });
});

describe("datacenters", () => {
  test("?dc= and lookups reach the other datacenter; a dead one costs one clear error", {
    timeout: 60_000,
  }, async () => {
    const far = await inside("far", { datacenter: "dc2" });
    await far.agent.agent.register("api", service("web-2", "web", 80));
    const dead = `http://127.0.0.1:${await freePort()}`;
    // One that takes connections and says nothing.
    const mute = createServer((socket) => void socket.resume());
    await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
    ends.push(() => new Promise((resolve) => mute.close(resolve)));
    const silent = `http://127.0.0.1:${(mute.address() as AddressInfo).port}`;
    const near = await inside("near", { datacenters: { dc2: [dead, far.url], dc3: [dead], dc4: [silent] } });
    expect((await get(`${near.url}/v1/catalog/datacenters`)).json).toEqual(["dc1", "dc2", "dc3", "dc4"]);
    const found = await get(`${near.url}/v1/health/service/web?dc=dc2`);
    expect(found.json).toMatchObject([{ Service: { ID: "web-2" }, Node: { Datacenter: "dc2" } }]);
    const index = found.headers.get("X-Consul-Index") ?? "";
    const waiting = get(`${near.url}/v1/health/service/web?dc=dc2&index=${index}&wait=20s`);
    await far.agent.agent.register("api", service("web-3", "web", 81));
    expect((await waiting).json).toHaveLength(2);
    expect((await put(`${near.url}/v1/kv/k?dc=dc2`, "v")).text).toBe("true");
    expect(far.agent.kv.get("k")).toBeDefined();
    expect(near.agent.kv.get("k")).toBeUndefined();
    const answer = await near.agent.lookup.resolve({ service: "web", datacenter: "dc2" });
    expect(answer).toMatchObject({ known: true, fresh: true });
    expect(answer.endpoints.map(({ port }) => port).sort()).toEqual([80, 81]);
    expect(await near.agent.lookup.resolve({ service: "nope", datacenter: "dc2" })).toMatchObject({ known: false });
    const gone = await get(`${near.url}/v1/catalog/nodes?dc=dc3`);
    expect([gone.status, gone.json]).toEqual([500, expect.stringMatching(/^No path to datacenter/)]);
    const hung = await get(`${near.url}/v1/catalog/nodes?dc=dc4`);
    expect([hung.status, hung.json]).toEqual([
      500,
      expect.stringMatching(/^No path to datacenter.*did not answer within/),
    ]);
    await expect(near.agent.lookup.resolve({ service: "web", datacenter: "dc4" })).resolves.toMatchObject({
      known: false,
    });
    const unknown = await get(`${near.url}/v1/catalog/nodes?dc=dc9`);
    expect([unknown.status, unknown.json]).toEqual([500, "No path to datacenter"]);
    // The last known good outlives the datacenter.
    await far.agent.stop();
    const last = await eventually("not fresh", async () => {
      const later = await near.agent.lookup.resolve({ service: "web", datacenter: "dc2" });
      return !later.fresh && later;
    });
    expect(last.endpoints).toHaveLength(2);
  });
});
