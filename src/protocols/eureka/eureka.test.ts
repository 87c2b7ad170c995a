// Eureka over HTTP against a whole agent: register, heartbeat, status, metadata, fetch and delta in JSON and XML, expiry, and the other dialects' view.
import * as fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { ownFolder } from "../../../test/support/peers.ts";
import { InputError } from "../../base/error.ts";
import { parseXml } from "../../wire/xml.ts";
import { instanceFromJson, instanceFromXml } from "./instance.ts";

interface Told {
  [key: string]: unknown;
}

const told = (more: Told = {}): Told => ({
  instanceId: "far:shop:8080",
  hostName: "far.example",
  app: "SHOP",
  ipAddr: "192.0.2.7",
  vipAddress: "shop.vip",
  status: "UP",
  port: { $: 8080, "@enabled": "true" },
  securePort: { $: 443, "@enabled": "false" },
  dataCenterInfo: { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", name: "MyOwn" },
  leaseInfo: { renewalIntervalInSecs: 30, durationInSecs: 90 },
  metadata: { env: "prod" },
  lastDirtyTimestamp: "1000",
  ...more,
});

let agent: RunningAgent | undefined;
afterEach(async () => {
  await agent?.stop();
  agent = undefined;
});

async function start(): Promise<string> {
  agent = await startAgent();
  return `${agent.url}/eureka`;
}

const register = (base: string, instance: Told, app = "SHOP"): Promise<Response> =>
  fetch(`${base}/apps/${app}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ instance }),
  });

const json = async (url: string): Promise<Told> =>
  (await (await fetch(url, { headers: { accept: "application/json" } })).json()) as Told;

interface Apps {
  applications: {
    versions__delta: string;
    apps__hashcode: string;
    application: { name: string; instance: (Told & { status: string; actionType: string; instanceId: string })[] }[];
  };
}
const apps = async (base: string, what = "apps"): Promise<Apps["applications"]> =>
  ((await json(`${base}/${what}`)) as unknown as Apps).applications;

/** Asks again until it holds: a registration is acknowledged before the directory has it. */
async function until<T>(ask: () => Promise<T>, holds: (value: T) => boolean): Promise<T> {
  for (const end = Date.now() + 10_000; ; ) {
    const value = await ask();
    if (holds(value)) return value;
    if (Date.now() > end) throw new Error(`not within 10 s, at last ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const named = (all: Apps["applications"], name: string) => all.application.find((app) => app.name === name);

describe("registering", () => {
  it("is found in Eureka's and in every other dialect, on a node of its own", async () => {
    const base = await start();
    expect((await register(base, told())).status).toBe(204);
    const all = await until(
      () => apps(base),
      (found) => named(found, "SHOP") !== undefined,
    );
    expect(all.apps__hashcode).toMatch(/^UP_\d+_$/);
    const [shop] = named(all, "SHOP")?.instance ?? [];
    expect(shop).toMatchObject({
      instanceId: "far:shop:8080",
      hostName: "far.example",
      ipAddr: "192.0.2.7",
      status: "UP",
      overriddenstatus: "UNKNOWN",
      port: { $: 8080, "@enabled": "true" },
      vipAddress: "shop.vip",
      metadata: { env: "prod" },
      dataCenterInfo: { name: "MyOwn" },
      lastDirtyTimestamp: "1000",
    });
    const [found] = (await (await fetch(`${agent?.url}/v1/health/service/shop?passing`)).json()) as {
      Node: Told;
      Service: Told;
    }[];
    expect(found?.Node).toMatchObject({ Node: "far.example", Address: "192.0.2.7" });
    expect(found?.Service).toMatchObject({ Port: 8080, Meta: { env: "prod" } });
    const why = await (await fetch(`${agent?.url}/v1/trilith/why/shop`)).text();
    expect(why).toContain("GET /eureka/apps/SHOP: far:shop:8080 UP");
  });

  it("shows instances of other dialects with their health", async () => {
    const base = await start();
    await fetch(`${agent?.url}/v1/agent/service/register`, {
      method: "PUT",
      body: JSON.stringify({ Name: "web", Port: 80, Meta: { a: "b" }, Tags: ["t"], Check: { TTL: "10s" } }),
    });
    const web = async (): Promise<Told | undefined> => named(await apps(base), "WEB")?.instance[0];
    expect(await web()).toMatchObject({
      app: "WEB",
      status: "DOWN",
      vipAddress: "web",
      metadata: { a: "b", tags: "t" },
    });
    await fetch(`${agent?.url}/v1/agent/check/pass/service:web`, { method: "PUT" });
    expect(await until(web, (one) => one?.["status"] === "UP")).toMatchObject({ port: { $: 80, "@enabled": "true" } });
    await fetch(`${agent?.url}/v1/agent/service/maintenance/web?enable=true`, { method: "PUT" });
    expect(await until(web, (one) => one?.["status"] === "OUT_OF_SERVICE")).toBeDefined();
  });

  it("counts what runs on this host as this host's own", async () => {
    const base = await start();
    await register(base, told({ ipAddr: "127.0.0.1", hostName: "localhost", instanceId: "near" }));
    const [found] = await until(
      async () => (await (await fetch(`${agent?.url}/v1/health/service/shop?passing`)).json()) as { Node: Told }[],
      (list) => list.length === 1,
    );
    expect(found?.Node["Node"]).toBe("alpha");
    const [resident] = agent?.trilith.directory.view().residents("shop") ?? [];
    expect(resident?.instance.origin).toMatchObject({ source: "eureka", authority: "first-hand" });
    await fetch(`${base}/apps/SHOP/near?status=DOWN`, { method: "PUT" });
    await until(
      async () => (await (await fetch(`${agent?.url}/v1/health/service/shop?passing`)).json()) as unknown[],
      (list) => list.length === 0,
    );
  });

  it.each([
    [{ hostName: "", instanceId: "" }, "Missing instanceId"],
    [{ hostName: "" }, "Missing hostname"],
    [{ ipAddr: "" }, "Missing ip address"],
    [{ app: "" }, "Missing appName"],
    [{ app: "OTHER" }, "Mismatched appName, expecting SHOP but was OTHER"],
    [{ dataCenterInfo: undefined }, "Missing dataCenterInfo"],
    [{ dataCenterInfo: {} }, "Missing dataCenterInfo Name"],
    [{ status: "FINE" }, 'instance.status: expected UP, DOWN, STARTING, OUT_OF_SERVICE, UNKNOWN, but got "FINE"'],
    [{ port: { $: 99999 } }, "instance.port: expected a port from 0 to 65535, but got 99999"],
    [{ ipAddr: "a\u0000b" }, "instance.ipAddr: expected"],
  ])("refuses %j", async (more, text) => {
    const base = await start();
    const answer = await register(base, told(more));
    expect(answer.status).toBe(400);
    expect(await answer.text()).toContain(text);
  });

  it("takes XML and answers in XML", async () => {
    const base = await start();
    const xml = `<?xml version="1.0"?><instance><hostName>x1</hostName><app>shop</app><ipAddr>192.0.2.8</ipAddr><vipAddress>v&amp;w</vipAddress>
      <status>STARTING</status><port enabled="true">8081</port><securePort enabled="false">7002</securePort>
      <dataCenterInfo class="com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo"><name>MyOwn</name></dataCenterInfo>
      <metadata><zone>b</zone></metadata></instance>`;
    const put = { method: "POST", headers: { "content-type": "application/xml" }, body: xml };
    expect((await fetch(`${base}/v2/apps/SHOP`, put)).status).toBe(204);
    const answer = await until(
      async () => await fetch(`${base}/v2/apps/SHOP/x1`),
      ({ status }) => status === 200,
    );
    expect(answer.headers.get("content-type")).toBe("application/xml");
    const root = parseXml(await answer.text());
    const field = (name: string) => root.children.find((each) => each.name === name);
    expect(root.name).toBe("instance");
    expect(field("status")?.text).toBe("STARTING");
    expect(field("vipAddress")?.text).toBe("v&w");
    expect(field("port")?.attributes.get("enabled")).toBe("true");
    expect(field("port")?.text).toBe("8081");
    expect(field("metadata")?.children.map(({ name, text }) => [name, text])).toEqual([["zone", "b"]]);
  });
});

describe("a lease", () => {
  it("ends without heartbeats, and a heartbeat without a lease is told to register", async () => {
    const base = await start();
    await register(base, told({ leaseInfo: { durationInSecs: 1 } }));
    await until(
      () => apps(base),
      (all) => named(all, "SHOP") !== undefined,
    );
    await until(
      () => apps(base),
      (all) => named(all, "SHOP") === undefined,
    );
    const beat = (query = "") => fetch(`${base}/apps/SHOP/far:shop:8080${query}`, { method: "PUT" });
    expect((await beat()).status).toBe(404);
    await register(base, told());
    expect((await beat()).status).toBe(200);
    expect((await beat("?status=UP&lastDirtyTimestamp=1000")).status).toBe(200);
    // What the client changed meanwhile was not told here.
    expect((await beat("?status=UP&lastDirtyTimestamp=2000")).status).toBe(404);
  });

  it("ends by DELETE at once, and says so in the delta", async () => {
    const base = await start();
    await apps(base);
    await register(base, told());
    await until(
      () => apps(base, "apps/delta"),
      (all) => named(all, "SHOP")?.instance[0]?.actionType === "ADDED",
    );
    await fetch(`${base}/apps/SHOP/far:shop:8080/metadata?colour=blue`, { method: "PUT" });
    const changed = await until(
      () => apps(base, "apps/delta"),
      (all) => named(all, "SHOP")?.instance[0]?.actionType === "MODIFIED",
    );
    expect(named(changed, "SHOP")?.instance[0]).toMatchObject({ metadata: { env: "prod", colour: "blue" } });
    expect((await fetch(`${base}/apps/SHOP/far:shop:8080`, { method: "DELETE" })).status).toBe(200);
    const gone = await until(
      () => apps(base, "apps/delta"),
      (all) => named(all, "SHOP")?.instance[0]?.actionType === "DELETED",
    );
    // The hash is that of everything, so that clients know whether they have it all.
    expect(gone.apps__hashcode).toBe((await apps(base)).apps__hashcode);
    expect((await fetch(`${base}/apps/SHOP/far:shop:8080`, { method: "DELETE" })).status).toBe(404);
    expect((await fetch(`${base}/apps/SHOP`)).status).toBe(404);
  });

  it("carries a status set over the client's own, until that is taken back", async () => {
    const base = await start();
    await register(base, told());
    const status = async (): Promise<unknown> => {
      const answer = await fetch(`${base}/apps/SHOP/far:shop:8080`, { headers: { accept: "application/json" } });
      return answer.ok ? ((await answer.json()) as { instance: Told }).instance["status"] : undefined;
    };
    const routable = async (): Promise<number> =>
      ((await (await fetch(`${agent?.url}/v1/trilith/find/shop`)).json()) as { endpoints: unknown[] }).endpoints.length;
    await until(status, (now) => now === "UP");
    await fetch(`${base}/apps/SHOP/far:shop:8080/status?value=OUT_OF_SERVICE`, { method: "PUT" });
    await until(status, (now) => now === "OUT_OF_SERVICE");
    expect(await routable()).toBe(0);
    await fetch(`${base}/apps/SHOP/far:shop:8080?status=UP&lastDirtyTimestamp=1000`, { method: "PUT" });
    expect(await status()).toBe("OUT_OF_SERVICE");
    await fetch(`${base}/apps/SHOP/far:shop:8080/status?value=UP`, { method: "DELETE" });
    await until(status, (now) => now === "UP");
    expect(await routable()).toBe(1);
  });

  it("stands by VIP and by instance", async () => {
    const base = await start();
    await register(base, told());
    await until(
      () => apps(base),
      (all) => named(all, "SHOP") !== undefined,
    );
    expect(named(await apps(base, "vips/shop.vip"), "SHOP")?.instance).toHaveLength(1);
    expect((await fetch(`${base}/svips/shop.vip`)).status).toBe(404);
    expect((await json(`${base}/instances/far:shop:8080`)) as unknown).toMatchObject({ instance: { app: "SHOP" } });
  });
});

it("keeps leases, status overrides and metadata over a restart of the agent", async () => {
  const folder = await ownFolder("eureka");
  const settings = { dev: false, storage: "lmdb", dataDir: folder.path } as const;
  try {
    agent = await startAgent(settings);
    for (const more of [{}, { instanceId: "near", hostName: "localhost", ipAddr: "127.0.0.1" }])
      await register(`${agent.url}/eureka`, told(more));
    await fetch(`${agent.url}/eureka/apps/SHOP/near/status?value=OUT_OF_SERVICE`, { method: "PUT" });
    await until(
      () => apps(`${agent?.url}/eureka`),
      (all) => named(all, "SHOP")?.instance.some(({ status }) => status === "OUT_OF_SERVICE") === true,
    );
    await agent.stop();
    agent = await startAgent(settings);
    const base = `${agent.url}/eureka`;
    const shop = named(await apps(base), "SHOP")?.instance ?? [];
    expect(shop.map(({ instanceId, status, metadata }) => [instanceId, status, metadata]).sort()).toEqual([
      ["far:shop:8080", "UP", { env: "prod" }],
      ["near", "OUT_OF_SERVICE", { env: "prod" }],
    ]);
    const beat = await until(
      () => fetch(`${base}/apps/SHOP/far:shop:8080`, { method: "PUT" }),
      ({ status }) => status === 200,
    );
    expect(beat.status).toBe(200);
  } finally {
    await agent?.stop();
    agent = undefined;
    await folder.remove();
  }
});

describe("bad input", () => {
  it("raises InputError only, whatever the body", () => {
    const check = (read: () => unknown): void => {
      try {
        read();
      } catch (error) {
        expect(error).toBeInstanceOf(InputError);
      }
    };
    fc.assert(
      fc.property(fc.anything(), fc.string(), (value, text) => {
        const body = JSON.stringify({ instance: value }) ?? "";
        check(() => instanceFromJson(body, "A"));
        check(() => instanceFromJson(text, "A"));
        check(() => instanceFromXml(parseXml(`<instance>${text}</instance>`), "A"));
      }),
    );
  });
  it("answers paths and methods that there are not", async () => {
    const base = await start();
    expect((await fetch(`${base}/nope`)).status).toBe(404);
    const wrong = await fetch(`${base}/apps/SHOP`, { method: "PATCH" });
    expect([wrong.status, wrong.headers.get("allow")]).toEqual([405, "GET, POST"]);
    expect((await register(base, told(), "%ff")).status).toBe(400);
    expect((await fetch(`${base}/apps/A`, { method: "POST", body: "x".repeat((1 << 20) + 1) })).status).toBe(413);
    const page = await fetch(`${base}/apps/SHOP`, {
      method: "POST",
      headers: { origin: "http://evil.example" },
      body: "{}",
    });
    expect(page.status).toBe(403);
  });
});

describe("who is not on this host", () => {
  const far = { "x-forwarded-for": "192.0.2.99", "content-type": "application/json" };
  const body = JSON.stringify({ instance: told() });
  it("may look at the agent's own listener, and register with the token only", async () => {
    const base = await start();
    const refused = await fetch(`${base}/apps/SHOP`, { method: "POST", headers: far, body });
    expect([refused.status, await refused.text()]).toEqual([403, expect.stringContaining("protocols.eureka.token")]);
    expect((await register(base, told())).status).toBe(204);
    for (const [method, path] of [
      ["PUT", "apps/SHOP/far:shop:8080"],
      ["PUT", "apps/SHOP/far:shop:8080/status?value=DOWN"],
      ["DELETE", "apps/SHOP/far:shop:8080"],
    ] as const)
      expect((await fetch(`${base}/${path}`, { method, headers: far })).status, path).toBe(403);
    expect((await fetch(`${base}/apps`, { headers: far })).status).toBe(200);
    await agent?.stop();
    agent = await startAgent({ protocols: { eureka: { token: "s3cret" } } });
    const headers = { ...far, authorization: "Bearer s3cret" };
    const url = `${agent.url}/eureka/apps/SHOP`;
    expect((await fetch(url, { method: "POST", headers, body })).status).toBe(204);
  });
  it("may register at a listener that is there for it", async () => {
    agent = await startAgent({ protocols: { eureka: { port: 0 } } });
    const url = `http://${agent.trilith.self.listening.get("eureka")}/eureka/apps/SHOP`;
    expect((await fetch(url, { method: "POST", headers: far, body })).status).toBe(204);
  });
});

describe("a listener of its own", () => {
  it("answers with its token only", async () => {
    agent = await startAgent({ protocols: { eureka: { port: 0, token: "s3cret" } } });
    const base = `http://${agent.trilith.self.listening.get("eureka")}/eureka/apps`;
    expect((await fetch(base)).status).toBe(403);
    const basic = Buffer.from("any:s3cret").toString("base64");
    expect((await fetch(base, { headers: { authorization: `Basic ${basic}` } })).status).toBe(200);
    expect((await fetch(`${agent.url}/eureka/apps`)).status).toBe(404);
  });
  it.each([
    [{ prot: 1 }, "eureka.prot"],
    [{ port: "x" }, "eureka.port"],
    [{ address: "::1" }, "eureka.address"],
    [{ token: "" }, "eureka.token"],
    ["yes", "eureka"],
  ])("refuses the configuration %j", async (raw, where) => {
    const { eureka } = await import("./setup.ts");
    expect(() => eureka.configure(raw)).toThrow(where);
  });
});
