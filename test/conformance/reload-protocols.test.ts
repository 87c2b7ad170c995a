// Protocols that take another configuration while the agent runs, are switched on and off, and leave what stands where it cannot be had.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { callbackLog } from "../../src/base/log.ts";
import type { Settings } from "../../src/contracts/settings.ts";
import { createTrilith } from "../../src/trilith.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { eventually, freePort, ownFolder } from "../support/peers.ts";

const ends: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** A port that somebody else has. */
async function takenPort(): Promise<{ readonly port: number }> {
  const taken = createServer().listen(0, "127.0.0.1");
  ends.push(() => taken.close());
  await once(taken, "listening");
  return taken.address() as { readonly port: number };
}

const whyGone = ({ trilith }: RunningAgent, service: string): string | undefined =>
  [...trilith.directory.view().list("grave")].findLast(({ scopes }) => scopes.includes(`service:${service}`))?.why
    ?.text;

/** An agent whose protocols' configuration is changed by `become`, which resolves to what was said. */
async function changing(protocols: Readonly<Record<string, unknown>>, more: Partial<Settings> = {}) {
  let now = protocols;
  const said: string[] = [];
  const agent: RunningAgent = await startAgent(
    { ...more, protocols },
    {
      log: callbackLog((level, part, text) => void said.push(`${level} ${part}: ${text}`)),
      reread: async () => ({ ...more, protocols: now }),
    },
  );
  ends.push(() => agent.stop());
  const become = async (next: Readonly<Record<string, unknown>>): Promise<readonly string[]> => {
    now = next;
    said.splice(0);
    await agent.trilith.reload();
    return said.filter((line) => !line.startsWith("debug"));
  };
  const register = (id: string, name = "web"): Promise<void> =>
    agent.trilith.agent.register("api", {
      ...{ id, name, tags: [], labels: {}, address: `192.0.2.${id.length}`, port: 80, checks: [] },
    });
  return { agent, become, register, said };
}

describe("hosts", () => {
  it("writes other files and names, never an empty one in between, and takes out what nobody keeps true any more", async () => {
    const folder = await ownFolder("reload-hosts");
    ends.push(() => folder.remove());
    const [one, two] = ["one", "two"].map((name) => `${folder.path}/${name}`) as [string, string];
    for (const path of [one, two]) writeFileSync(path, "127.0.0.1\tlocalhost\n");
    const { agent, become, register } = await changing({ hosts: [one, two] });
    await register("a");
    const text = (path: string): string => readFileSync(path, "utf8");
    await eventually("both are written", () => [one, two].every((path) => /192\.0\.2\.1\tweb /.test(text(path))));
    let empty = 0;
    const looking = setInterval(() => {
      if (!/192\.0\.2\.1\t/.test(text(one))) empty++;
    }, 1);
    ends.push(() => clearInterval(looking));
    // Another name for the same: the address never goes.
    await become({ hosts: [{ path: one, names: ["{name}.lan"] }] });
    expect(text(two)).toBe("127.0.0.1\tlocalhost\n");
    await eventually("the other names are written", () => /192\.0\.2\.1\tweb\.lan$/m.test(text(one)));
    expect(text(one)).not.toContain("web.service");
    await expect(become({ hosts: [{ path: one, name: "x" }] })).rejects.toThrow("hosts[0].name");
    await register("bb");
    await eventually("it goes on", () => /192\.0\.2\.2\tweb\.lan$/m.test(text(one)));
    expect(empty).toBe(0);
    clearInterval(looking);
    expect(await become({})).toContain("info : hosts is switched off");
    expect(text(one)).toBe("127.0.0.1\tlocalhost\n");
    expect(agent.trilith.sources().map(({ name }) => name)).not.toContain("hosts");
    expect(await become({ hosts: two })).toContain("info : hosts is switched on");
    await eventually("it is on again", () => /192\.0\.2\.2\tweb /.test(text(two)));
  });
});

describe("eureka", () => {
  it("keeps its leases under another token and at another port, and where the port is taken stays where it is", async () => {
    const { agent, become } = await changing({ eureka: { port: 0 } });
    const at = (): string => `http://${agent.trilith.self.listening.get("eureka")}/eureka/apps`;
    const instance = { instanceId: "i1", hostName: "h1", app: "WEB", ipAddr: "192.0.2.9", status: "UP" };
    const port = { $: 80, "@enabled": "true" };
    const dataCenterInfo = { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", name: "MyOwn" };
    const sent = await fetch(`${at()}/WEB`, {
      ...{ method: "POST", headers: { "content-type": "application/json" } },
      body: JSON.stringify({ instance: { ...instance, port, dataCenterInfo } }),
    });
    expect(sent.status).toBe(204);
    const count = (): number => agent.trilith.lookup.resolveNow({ service: "web" }).endpoints.length;
    await eventually("it is found", () => count() === 1);
    const before = at();
    const index = agent.trilith.directory.view().index;
    await become({ eureka: { port: 0 } });
    expect(at()).toBe(before);
    await become({ eureka: { port: 0, token: "t" } });
    expect(await fetch(`${at()}/WEB`).then(({ status }) => status)).toBe(403);
    const told = await fetch(`${at()}/WEB`, {
      headers: { authorization: "Bearer t", accept: "application/json" },
    });
    expect(await told.text()).toContain('"i1"');
    expect(at()).not.toBe(before);
    await expect(fetch(before)).rejects.toThrow();
    const { port: other } = await takenPort();
    await expect(become({ eureka: { port: other, token: "x" } })).rejects.toMatchObject({ code: "address-in-use" });
    expect(await fetch(`${at()}/WEB`, { headers: { authorization: "Bearer t" } }).then(({ status }) => status)).toBe(
      200,
    );
    // Onto the agent's own listener.
    await become({ eureka: true });
    expect(agent.trilith.self.listening.has("eureka")).toBe(false);
    expect(await fetch(`${agent.url}/eureka/apps/WEB`).then(({ status }) => status)).toBe(200);
    expect([count(), agent.trilith.directory.view().index]).toEqual([1, index]);
    // Off: nobody renews its lease here any more, and no guard holds it.
    await become({ eureka: false });
    await eventually("it goes", () => count() === 0);
    expect(agent.trilith.lookup.held()).toEqual([]);
    expect(await fetch(`${agent.url}/eureka/apps/WEB`).then(({ status }) => status)).toBe(404);
    expect(whyGone(agent, "web")).toBe("the configuration of eureka no longer asks for it");
  });
});

describe("backends, the API and HTTP", () => {
  const QUIET = { eureka: false, shim: false, proxy: false };
  it("are opened, moved and closed", async () => {
    const { agent, become, register } = await changing({ ...QUIET, api: false, consul: false });
    expect(agent.trilith.self.listening.has("http")).toBe(false);
    await register("a");
    const port = await freePort();
    expect(await become({ ...QUIET, backends: { port }, consul: false })).toEqual(
      expect.arrayContaining(["info : backends is switched on", "info : api is switched on"]),
    );
    const http = `http://${agent.trilith.self.listening.get("http")}`;
    const status = (url: string): Promise<number> =>
      fetch(url, { headers: { connection: "close" } }).then((answer) => answer.status);
    expect(await status(`http://127.0.0.1:${port}/proxy/backends.txt`)).toBe(200);
    expect(await status(`${http}/v1/trilith/find/web`)).toBe(200);
    expect(await status(`${http}/v1/agent/self`)).toBe(404);
    const next = await freePort();
    await become({ ...QUIET, backends: { port: next }, api: false });
    await expect(status(`http://127.0.0.1:${port}/`)).rejects.toThrow();
    expect(await status(`http://127.0.0.1:${next}/proxy/backends.txt`)).toBe(200);
    expect(await status(`${http}/v1/trilith/find/web`)).not.toBe(200);
    // Where it cannot listen, it goes on where it did.
    const { port: taken } = await takenPort();
    await expect(become({ ...QUIET, backends: { port: taken }, api: false })).rejects.toMatchObject({
      code: "address-in-use",
    });
    expect(await status(`http://127.0.0.1:${next}/proxy/backends.txt`)).toBe(200);
    expect(agent.trilith.self.listening.get("backends")).toBe(`127.0.0.1:${next}`);
    expect(await status(`${http}/v1/agent/self`)).toBe(200);
  });

  it("take another token at once", async () => {
    const { agent, become } = await changing({ api: { token: "one" } });
    const joined = (token: string): Promise<number> =>
      fetch(`${agent.url}/v1/trilith/join/index`, {
        headers: { authorization: `Bearer ${token}`, "x-forwarded-for": "192.0.2.1" },
      }).then(({ status }) => status);
    const [before, wrong] = [await joined("one"), await joined("two")];
    expect([before, wrong]).toEqual([200, 403]);
    await become({ api: { token: "two" } });
    expect([await joined("one"), await joined("two")]).toEqual([wrong, before]);
  });
});

describe("processes", () => {
  it("are looked at or not, while what is announced stays", async () => {
    const name = `reloaded-${process.pid}-${Date.now()}`;
    const program =
      'require("net").createServer().listen(0, "127.0.0.1", function () { console.log(this.address().port) })';
    const child = spawn(process.execPath, ["-e", program], {
      ...{ env: { ...process.env, SERVICE_NAME: name }, stdio: ["ignore", "pipe", "ignore"] },
    });
    ends.push(() => child.kill());
    await once(child.stdout, "data");
    const { agent, become } = await changing({ process: { environ: false } });
    const count = (service: string): number => agent.trilith.lookup.resolveNow({ service }).endpoints.length;
    const announced = await fetch(`${agent.url}/v1/trilith/announce`, {
      ...{ method: "POST", headers: { "content-type": "application/json" } },
      body: JSON.stringify({ name: "told", port: 9, protocol: "tcp" }),
    });
    expect(announced.status).toBe(200);
    let lost = 0;
    const looking = setInterval(() => {
      if (count("told") !== 1) lost++;
    }, 1);
    ends.push(() => clearInterval(looking));
    for (let i = 0; i < 2; i++) {
      await become({ process: { environ: true } });
      await eventually("it is found by its environment", () => count(name) === 1);
      await become({ process: { environ: false } });
      await eventually("it is not looked for any more", () => count(name) === 0);
      expect(whyGone(agent, name)).toBe("the configuration of process no longer asks for what environments say");
    }
    expect(lost).toBe(0);
    expect(agent.trilith.lookup.held()).toEqual([]);
  });
});

it("says what waits for a restart in the settings' own names, and this host's address where it would be another one", async () => {
  let now: Partial<Settings> = {};
  const said: string[] = [];
  const agent = await startAgent(
    {},
    { log: callbackLog((_level, _part, text) => void said.push(text)), reread: async () => now },
  );
  ends.push(() => agent.stop());
  await agent.trilith.reload();
  expect(said.filter((text) => text.includes("restart"))).toEqual([]);
  now = { datacenter: "dc9", domain: "other.example", nodeLabels: { rack: "r1" } };
  await agent.trilith.reload();
  expect(said.filter((text) => text.includes("restart"))).toEqual([
    "datacenter is another one now: it counts after a restart",
    "domain is another one now: it counts after a restart",
  ]);
  expect(agent.trilith.agent.node.labels["rack"]).toBe("r1");
  expect(agent.trilith.directory.view().get("node", "alpha")?.labels["rack"]).toBe("r1");
  now = { node: "a b" };
  await expect(agent.trilith.reload()).rejects.toThrow('node "a b"');
  now = { noed: "a" } as Partial<Settings>;
  await expect(agent.trilith.reload()).rejects.toThrow('did you mean "node"?');
  expect(agent.trilith.agent.node.labels["rack"]).toBe("r1");
});

it("takes the log's level with the rest, not from what is refused", async () => {
  let now: Partial<Settings> = {};
  const levels: string[] = [];
  const said: string[] = [];
  const log = callbackLog((_level, _part, text) => void said.push(text));
  const agent = await startAgent(
    {},
    { log: { ...log, setLevel: (level) => void levels.push(level) }, reread: async () => now },
  );
  ends.push(() => agent.stop());
  now = { node: "a b", log: { level: "debug", format: "text" } };
  await expect(agent.trilith.reload()).rejects.toThrow('node "a b"');
  expect(levels).toEqual([]);
  now = { log: { level: "debug", format: "text" } };
  await agent.trilith.reload();
  expect(levels).toEqual(["debug"]);
  expect(said.filter((text) => text.includes("restart"))).toEqual([]);
  now = { log: { level: "info", format: "json" } };
  await agent.trilith.reload();
  expect(levels).toEqual(["debug", "info"]);
  expect(said.filter((text) => text.includes("restart"))).toEqual([
    "log is another one now: it counts after a restart",
  ]);
});

it("reloads one after the other, and a stop waits for the one under way", async () => {
  const order: string[] = [];
  let go = (): void => {};
  const gate = new Promise<void>((resolve) => (go = resolve));
  let turn = 0;
  const agent = await startAgent(
    {},
    {
      reread: async () => {
        const mine = ++turn;
        order.push(`begin ${mine}`);
        if (mine === 1) await gate;
        order.push(`end ${mine}`);
        return {};
      },
    },
  );
  const [first, second] = [agent.trilith.reload(), agent.trilith.reload()];
  await eventually("the first has begun", () => order.length === 1);
  const stopping = agent.stop().then(() => order.push("stopped"));
  // A stop that does not wait would be over by then.
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(order).toEqual(["begin 1"]);
  go();
  await first;
  await expect(second).rejects.toMatchObject({ code: "stopped" });
  await stopping;
  expect(order).toEqual(["begin 1", "end 1", "stopped"]);
});

describe("service files", () => {
  it("that are wrong are what a reload answers, and everything else is taken", async () => {
    const folder = await ownFolder("reload-services");
    ends.push(() => folder.remove());
    const write = (name: string, text: string): void => writeFileSync(`${folder.path}/${name}`, text);
    const file = { file: { consulPaths: [folder.path] } };
    write("web.hcl", 'service { name = "web" port = 80 }');
    const { agent, become, said } = await changing(file);
    const ask = async () => {
      const answer = await fetch(`${agent.url}/v1/agent/reload`, { method: "PUT" });
      return [answer.status, await answer.text()] as const;
    };
    const held = (): readonly string[] =>
      [...agent.trilith.agent.services().values()].map(({ instance }) => `${instance.id}:${instance.port}`).sort();
    await agent.trilith.settled(10_000);
    write("web.hcl", 'service { name = "web" port = "abc" }');
    write("api.hcl", 'service { name = "api" port = 81 }');
    const reason = /^.*web\.hcl:1.*port.*"abc".*\(its last good version stays in force\)$/;
    expect(await ask()).toEqual([500, expect.stringMatching(reason)]);
    expect(held()).toEqual(["api:81", "web:80"]);
    expect(said.filter((line) => line.startsWith("error"))).toEqual(["error : file: could not read everything again"]);
    // Made anew by another configuration of its own, it answers no less.
    const more = { file: { ...file.file, definitions: [{ service: { name: "more", port: 82 } }] } };
    await expect(become(more)).rejects.toMatchObject({
      code: "invalid",
      message: expect.stringContaining("web.hcl:1"),
    });
    expect(held()).toContain("more:82");
    write("web.hcl", 'service { name = "web" port = 83 }');
    expect(await ask()).toEqual([200, ""]);
    expect(held()).toEqual(["api:81", "more:82", "web:83"]);
  });
});

describe("a reload that is asked for while the agent starts", () => {
  it("is done once it has started: nothing is begun twice, or with what was told before", async () => {
    const [first, second] = [await freePort(), await freePort()];
    const order: string[] = [];
    const settings = (port: number): Partial<Settings> => ({
      ...{ dev: true, node: "alpha", httpPort: 0 },
      protocols: { docker: false, process: false, file: false, dns: { port: -1 }, backends: { port } },
    });
    const trilith = createTrilith(settings(first), {
      reread: async () => {
        order.push("read");
        return settings(second);
      },
    });
    ends.push(() => trilith.stop());
    const starting = trilith.start().then(() => order.push("started"));
    const reloading = trilith.reload();
    await starting;
    await reloading;
    expect(order).toEqual(["started", "read"]);
    expect(trilith.self.listening.get("backends")).toBe(`127.0.0.1:${second}`);
    await expect(fetch(`http://127.0.0.1:${first}/`)).rejects.toThrow();
  });

  it("keeps nobody waiting who stops the agent, and is refused of one that was never started", async () => {
    const never = createTrilith({ dev: true });
    await expect(never.reload()).rejects.toMatchObject({ code: "stopped" });
    const trilith = createTrilith({ dev: true, node: "alpha", httpPort: 0, protocols: { dns: { port: -1 } } });
    const starting = trilith.start();
    const reloading = trilith.reload();
    const stopping = trilith.stop();
    await expect(reloading).rejects.toMatchObject({ code: "stopped" });
    await stopping;
    await expect(starting).rejects.toMatchObject({ code: "stopped" });
    await never.stop();
  });
});
