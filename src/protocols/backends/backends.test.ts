// Backend lists over HTTP against a whole agent: who registers, who is listed, who may, and what is refused.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { eventually, ownFolder } from "../../../test/support/peers.ts";
import type { Settings } from "../../contracts/settings.ts";
import { configureBackends } from "./config.ts";
import { type Backend, listText } from "./lists.ts";

let agent: RunningAgent | undefined;
const open: (() => Promise<void>)[] = [];
afterEach(async () => {
  await agent?.stop();
  agent = undefined;
  for (const close of open.splice(0)) await close();
});

async function start(more: Record<string, unknown> = {}, settings: Partial<Settings> = {}): Promise<string> {
  agent = await startAgent({ ...settings, protocols: { backends: { port: 0, ...more } } });
  return `http://${agent.trilith.self.listening.get("backends")}/proxy`;
}

async function target(): Promise<{ readonly port: number; close(): Promise<void> }> {
  const server = createServer((_request, response) => response.end("here"));
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closed ??= new Promise((done) => {
      server.close(() => done());
      server.closeAllConnections();
    });
    return closed;
  };
  open.push(close);
  return { port: (server.address() as AddressInfo).port, close };
}

const send = async (url: string, method: string, body?: string): Promise<number> => {
  const answer = await fetch(url, { method, ...(body === undefined ? {} : { body }) });
  await answer.text();
  return answer.status;
};
const text = async (url: string, accept?: string): Promise<string> =>
  await (await fetch(url, accept === undefined ? {} : { headers: { accept } })).text();

describe("the list", () => {
  it("takes its caller with an empty body, knows it the second time, and gives it up", async () => {
    const base = await start({ backend_port: 0 });
    expect(await text(`${base}/backends`)).toBe("[]\n");
    expect(await send(`${base}/backend/aa:bb:cc:00:11:22`, "POST")).toBe(201);
    expect(await send(`${base}/backend/aa:bb:cc:00:11:22`, "POST")).toBe(200);
    expect(JSON.parse(await text(`${base}/backends`))).toEqual([
      { id: "aa:bb:cc:00:11:22", address: "127.0.0.1", port: 0, weight: 1 },
    ]);
    expect(await text(`${base}/backends.txt`)).toBe("127.0.0.1\n");
    expect(await send(`${base}/backend/aa:bb:cc:00:11:22`, "DELETE")).toBe(204);
    const again = await fetch(`${base}/backend/aa:bb:cc:00:11:22`, { method: "DELETE" });
    expect([again.status, await again.text()]).toEqual([404, '"aa:bb:cc:00:11:22" is not in the list of backend\n']);
    expect(await text(`${base}/backends`)).toBe("[]\n");
  });

  it("takes the port from query, body or configuration, and shows every form; other dialects find the same", async () => {
    const [a, b, c] = [await target(), await target(), await target()];
    const base = await start({ backend_port: c.port, service: "shop" });
    expect(await send(`${base}/backend/a?port=${a.port}`, "POST")).toBe(201);
    expect(await send(`${base}/backend/b`, "POST", `${b.port}\n`)).toBe(201);
    expect(await send(`${base}/backend/c.x`, "POST")).toBe(201);
    expect(await text(`${base}/backends.apache`)).toBe(
      `BalancerMember http://127.0.0.1:${a.port} route=a\nBalancerMember http://127.0.0.1:${b.port} route=b\nBalancerMember http://127.0.0.1:${c.port} route=c-x\n`,
    );
    expect(await text(`${base}/backends.nginx`)).toBe(
      `server 127.0.0.1:${a.port};\nserver 127.0.0.1:${b.port};\nserver 127.0.0.1:${c.port};\n`,
    );
    expect(await text(`${base}/backends`, "text/plain, application/json;q=0.5")).toContain(`127.0.0.1:${b.port}\n`);
    const found = (await (await fetch(`${agent?.url}/v1/health/service/shop?passing`)).json()) as unknown[];
    expect(found).toHaveLength(3);
    expect(await text(`${agent?.url}/v1/trilith/why/shop`)).toContain("GET /proxy/backends.txt: 127.0.0.1:");
    // Another port under the same id is the same backend, moved.
    expect(await send(`${base}/backend/a?port=${b.port}`, "POST")).toBe(200);
    expect(await text(`${base}/backends.txt`)).not.toContain(`:${a.port}\n`);
  });

  it("leaves out a backend that accepts no connections, and has it again when it does", async () => {
    const one = await target();
    const base = await start();
    expect(await send(`${base}/backend/a?port=${one.port}`, "POST")).toBe(201);
    expect(await text(`${base}/backends.txt`)).toBe(`127.0.0.1:${one.port}\n`);
    await one.close();
    await eventually("gone from the list", async () => (await text(`${base}/backends.txt`)) === "", 30_000);
    expect((await (await fetch(`${agent?.url}/v1/catalog/service/backend`)).json()) as unknown[]).toHaveLength(1);
  }, 40_000);

  it("drops a backend that is not heard of any more, where that is asked for", async () => {
    const base = await start({ expire: "1s", check: false });
    expect(await send(`${base}/backend/a?port=80`, "POST")).toBe(201);
    await eventually("gone from the list", async () => (await text(`${base}/backends`)) === "[]\n");
    expect(await send(`${base}/backend/a?port=80`, "POST")).toBe(200);
    expect(await text(`${base}/backends.txt`)).toBe("127.0.0.1:80\n");
  });
});

describe("who may", () => {
  it("answers only the networks that were named", async () => {
    const base = await start({ networks: ["192.0.2.0/24"] });
    expect(await send(`${base}/backend/a`, "POST")).toBe(403);
    expect(await send(`${base}/backends`, "GET")).toBe(403);
  });
  it("is off until it is configured", async () => {
    agent = await startAgent();
    expect(agent.trilith.self.listening.has("backends")).toBe(false);
  });
  it.each([
    ["POST", "/backend/a?port=70000", 400],
    ["POST", "/backend/a?port=x", 400],
    ["POST", "/backend/%20", 400],
    ["POST", "/backend/%ff", 400],
    ["POST", "/backend/", 404],
    ["PUT", "/backend/a", 405],
    ["POST", "/backends", 405],
    ["GET", "/backends.yaml", 404],
    ["GET", "/", 404],
  ])("answers %s %s with %i", async (method, path, status) => {
    expect(await send((await start()) + path, method)).toBe(status);
  });
  it("refuses bodies and pages that it does not know", async () => {
    const base = await start();
    expect(await send(`${base}/backend/a`, "POST", "not a port")).toBe(400);
    expect(await send(`${base}/backend/a`, "POST", "1".repeat(5000))).toBe(413);
    const page = await fetch(`${base}/backend/a`, { method: "POST", headers: { origin: "http://evil.example" } });
    expect(page.status).toBe(403);
  });
  it.each([
    [{ prot: 80 }, "backends.prot"],
    [{ port: -1 }, "backends.port"],
    [{ networks: ["10.0.0.0"] }, "backends.networks"],
    [{ networks: [] }, "backends.networks"],
    [{ service: "a b" }, "backends.service"],
    [{ expire: "soon" }, "backends.expire"],
    [{ expire: "1ms" }, "backends.expire"],
    [{ check: "yes" }, "backends.check"],
    [7, "backends"],
  ])("refuses the configuration %j", (raw, where) => {
    expect(() => configureBackends(raw)).toThrow(where);
  });
});

describe("what is in the list", () => {
  it("stays over restarts of the agent, and goes with a restart without the list", async () => {
    const folder = await ownFolder("backends-restart");
    open.push(() => folder.remove());
    const kept = { dev: false, dataDir: folder.path };
    expect(await send(`${await start({}, kept)}/backend/a?port=81`, "POST")).toBe(201);
    await agent?.stop();
    const base = await start({ check: false }, kept);
    expect(JSON.parse(await text(`${base}/backends.json`))).toMatchObject([{ id: "a", port: 81 }]);
    expect(await send(`${base}/backend/a?port=81`, "POST")).toBe(200);
    await agent?.stop();
    agent = await startAgent(kept);
    expect([...agent.trilith.agent.services().keys()]).toEqual([]);
  });

  it("is of another service where the configuration says so, by a reload and by a restart", async () => {
    const folder = await ownFolder("backends-renamed");
    open.push(() => folder.remove());
    let now: unknown = { port: 0 };
    const kept = { dev: false, dataDir: folder.path };
    agent = await startAgent(
      { ...kept, protocols: { backends: now } },
      { reread: async () => ({ ...kept, protocols: { backends: now } }) },
    );
    const { trilith } = agent;
    const base = (): string => `http://${trilith.self.listening.get("backends")}/proxy`;
    expect(await send(`${base()}/backend/a?port=81`, "POST")).toBe(201);
    now = { port: 0, service: "shop" };
    await trilith.reload();
    const ids = (): readonly string[] => [...(agent?.trilith.agent.services().keys() ?? [])];
    await eventually("it is shop's", () => ids().join() === "shop-a");
    expect(trilith.lookup.resolveNow({ service: "backend", health: "any" }).endpoints).toEqual([]);
    expect(JSON.parse(await text(`${base()}/backends.json`))).toMatchObject([{ id: "a", port: 81 }]);
    await agent.stop();
    const other = await start({ service: "store" }, kept);
    await eventually("it is the store's", () => ids().join() === "store-a");
    expect(await send(`${other}/backend/a`, "DELETE")).toBe(204);
    expect(ids()).toEqual([]);
  });

  it("stays with another configuration, and goes when the list is switched off", async () => {
    let now: unknown = { port: 0 };
    agent = await startAgent(
      { protocols: { backends: now } },
      { reread: async () => ({ protocols: { backends: now } }) },
    );
    const { trilith } = agent;
    const base = (): string => `http://${trilith.self.listening.get("backends")}/proxy`;
    expect(await send(`${base()}/backend/a?port=81`, "POST")).toBe(201);
    now = { port: 0, scheme: "https" };
    await trilith.reload();
    expect(JSON.parse(await text(`${base()}/backends.json`))).toMatchObject([{ id: "a", port: 81 }]);
    now = undefined;
    await trilith.reload();
    expect([...trilith.agent.services().keys()]).toEqual([]);
    expect([...trilith.directory.view().list("service")].map(({ id }) => id)).toEqual(["consul"]);
    expect(trilith.lookup.resolveNow({ service: "backend", health: "any" }).endpoints).toEqual([]);
  });
});

it("writes IPv6 addresses and weights as each reader wants them", () => {
  const list: Backend[] = [{ id: "v6", address: "2001:db8::1", port: 80, weight: 300 }];
  expect(listText(list, "apache", "https")).toBe("BalancerMember https://[2001:db8::1]:80 route=v6 loadfactor=100\n");
  expect(listText(list, "nginx", "http")).toBe("server [2001:db8::1]:80 weight=300;\n");
});
