// connect("web") and trilith/undici in programs of their own, beside a real agent that is killed and comes back, and instances that come, move and die under load.
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { connect } from "../../src/connect.ts";
import { createAgent } from "../../src/undici.ts";
import { eventually, freePort, ownFolder, startProgram } from "../support/peers.ts";
import { program } from "../support/program.ts";
import { silentPorts } from "../support/silent-ports.ts";

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of cleanUp.splice(0).reverse()) await step();
});
/** Of a service that no test before knew, not even this one's last try. */
let names = 0;
const newName = (name: string): string => `${name}-${++names}`;

/** An HTTP server that says its name, and speaks no more than that. */
async function instance(
  name: string,
): Promise<{ readonly port: number; isAlone(): Promise<boolean>; stop(): Promise<void> }> {
  const server: Server = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    response.end(`${name} ${request.headers.host}${text}`);
  });
  // It ends while it is asked for: nobody else is to answer there.
  const port = await freePort();
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const stop = async (): Promise<void> => {
    if (!server.listening) return;
    server.close();
    server.closeAllConnections();
    await once(server, "close");
  };
  cleanUp.push(stop);
  return {
    port,
    isAlone: () => new Promise((resolve) => server.getConnections((_, count) => resolve(count === 0))),
    stop,
  };
}

describe("programs that use the library", { timeout: 120_000 }, () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let agent: string;
  let running: Awaited<ReturnType<typeof startProgram>> | undefined;
  const kill = async (): Promise<void> => {
    const killed = running;
    running = undefined;
    await killed?.stop("SIGKILL");
  };

  const begin = async (): Promise<void> => {
    const dns = await freePort();
    const flags = [
      `-http-port=${agent.split(":")[1]}`,
      `-dns-port=${dns}`,
      "-docker-host=off",
      "-environ=off",
      "-node-meta=zone:a",
    ];
    const command = [process.execPath, program, "agent", `-data-dir=${join(folder.path, "data")}`, ...flags];
    running = await startProgram(command, join(folder.path, "log"));
    await eventually("the agent answers", async () => (await fetch(`http://${agent}/v1/trilith/list`)).ok, 30_000);
  };
  const put = async (path: string, body?: unknown): Promise<void> => {
    const response = await fetch(`http://${agent}/v1/agent/service/${path}`, {
      method: "PUT",
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    expect([path, response.status]).toEqual([path, 200]);
  };
  const register = (name: string, port: number, labels: Record<string, string> = {}, tags: string[] = []) =>
    put("register", { ID: `${name}-${port}`, Name: name, Address: "127.0.0.1", Port: port, Meta: labels, Tags: tags });
  const deregister = (name: string, port: number): Promise<void> => put(`deregister/${name}-${port}`);
  /** The agent's answer has so many instances. */
  const finds = (name: string, count: number): Promise<unknown> =>
    eventually(`the agent finds ${count} of ${name}`, async () => {
      const answer = await fetch(`http://${agent}/v1/trilith/find/${name}`);
      return ((await answer.json()) as { endpoints: unknown[] }).endpoints.length === count;
    });

  beforeAll(async () => {
    folder = await ownFolder("connect-node");
    agent = `127.0.0.1:${await freePort()}`;
  });
  beforeEach(async () => {
    // Killed by a test that did not come to start it again.
    if (running === undefined) await begin();
  }, 120_000);
  afterAll(async () => {
    await running?.stop();
    await folder.remove();
  });

  /** What an instance says over a socket of ours. */
  const hear = async (service: string, options: Parameters<typeof connect>[1] = {}): Promise<string> => {
    const socket = await connect(service, { agent, ...options });
    socket.end("GET / HTTP/1.0\r\nHost: x\r\n\r\n");
    const text = (await socket.setEncoding("utf8").toArray()).join("");
    return text.split("\r\n\r\n")[1] ?? "";
  };

  it("connects to an instance with the labels and tags, past those that refuse, by the policy asked for", async () => {
    const service = newName("by-label");
    const [one, two] = [await instance("one"), await instance("two")];
    await register(service, one.port, { env: "prod", zone: "a" }, ["blue"]);
    await register(service, two.port, { env: "dev" }, ["green"]);
    for (let i = 0; i < 3; i++) await register(service, await freePort(), { env: "prod" }, ["blue"]);
    for (let i = 0; i < 10; i++) expect(await hear(service, { labels: { env: "prod" } })).toBe("one x");
    expect(await hear(service, { labels: { env: "dev" } })).toBe("two x");
    expect(await hear(service, { tags: ["green"] })).toBe("two x");
    const said = await Promise.all(
      Array.from({ length: 6 }, () => hear(service, { tags: ["green"], policy: "sticky", caller: "me" })),
    );
    expect(new Set(said)).toEqual(new Set(["two x"]));
    await expect(connect(service, { agent, labels: { env: "none" } })).rejects.toMatchObject({ code: "not-found" });
    await expect(connect("nothing-of-that-name", { agent })).rejects.toThrow(
      'there is no service "nothing-of-that-name"',
    );
    await expect(connect(service, { agent, policy: "frist" as "first" })).rejects.toThrow(
      'policy: "frist": expected one of p2c, round-robin',
    );
    await expect(connect("", { agent })).rejects.toThrow("the service's name is missing");
    const over = AbortSignal.abort(new Error("enough"));
    await expect(connect(service, { agent, signal: over })).rejects.toThrow("enough");
  });

  it("keeps to its own host, then to its zone, unless told otherwise: connect and undici", async () => {
    const [near, anywhere] = [newName("near"), newName("anywhere")];
    const [here, zone, far, other] = [
      await instance("here"),
      await instance("zone"),
      await instance("far"),
      await instance("far2"),
    ];
    const entered = async (node: string, meta: Record<string, string>, port: number): Promise<void> => {
      for (const name of [near, anywhere]) {
        const wishes = name === near ? {} : { "trilith.locality": "off" };
        const Service = {
          ID: `${name}-${port}`,
          Service: name,
          Address: "127.0.0.1",
          Port: port,
          Meta: wishes,
        };
        const body = JSON.stringify({ Node: node, Address: "127.0.0.1", NodeMeta: meta, Service });
        expect((await fetch(`http://${agent}/v1/catalog/register`, { method: "PUT", body })).ok).toBe(true);
      }
    };
    await entered("node-zone", { zone: "a" }, zone.port);
    await entered("node-far", { zone: "b" }, far.port);
    await entered("node-far2", {}, other.port);
    for (const name of [near, anywhere]) await register(name, here.port);
    const dispatcher = createAgent({ agent });
    cleanUp.push(() => dispatcher.destroy());
    const requested = async (): Promise<string> => {
      const answer = await dispatcher.request({
        origin: `http://${near}.service.consul`,
        path: "/",
        method: "GET",
        reset: true,
      });
      return await answer.body.text();
    };
    const told = async (name: string): Promise<Set<string>> => {
      const said = new Set<string>();
      for (let i = 0; i < 30; i++) said.add((await hear(name)).split(" ")[0] ?? "");
      if (name === near) for (let i = 0; i < 30; i++) said.add((await requested()).split(" ")[0] ?? "");
      return said;
    };
    await finds(near, 4);
    await eventually("all are known", async () => (await told(anywhere)).size > 2);
    expect(await told(near)).toEqual(new Set(["here"]));
    await here.stop();
    expect(await told(near)).toEqual(new Set(["zone"]));
    await zone.stop();
    expect(await told(near)).toEqual(new Set(["far", "far2"]));
    const { endpoints } = (await (await fetch(`http://${agent}/v1/trilith/find/${near}`)).json()) as {
      endpoints: { port: number; tier: number }[];
    };
    const tiers = Object.fromEntries(endpoints.map(({ port, tier }) => [port, tier]));
    expect([here, zone, far, other].map(({ port }) => tiers[port])).toEqual([0, 1, 2, 2]);
  }, 120_000);

  it("reaches the one of twelve that lives at the first try, whether the others refuse or are silent", async () => {
    const one = await instance("one");
    const silent = await silentPorts(11);
    cleanUp.push(silent.stop);
    const refused = await Promise.all(Array.from({ length: 11 }, () => freePort()));
    for (const [what, dead] of [
      ["refused", refused],
      ["silent", silent.ports],
    ] as const) {
      const name = newName(what);
      for (const port of [...dead, one.port]) await register(name, port);
      await finds(name, new Set([...dead, one.port]).size);
      // Not "first": its order is by port, so that the live one might come first.
      expect(await hear(name, { policy: "round-robin" })).toBe("one x");
      const dispatcher = createAgent({ agent, policy: "round-robin" });
      cleanUp.push(() => dispatcher.destroy());
      const answer = await dispatcher.request({ origin: `http://${name}.service.consul`, path: "/", method: "GET" });
      expect(await answer.body.text()).toBe(`one ${name}.service.consul`);
    }
  }, 120_000);

  it("knows changes at once, and says of instances that all refuse what they said", async () => {
    const service = newName("changes");
    const dead = await freePort();
    await register(service, dead);
    await expect(connect(service, { agent, limitMs: 2_000 })).rejects.toThrow(`127.0.0.1:${dead}`);
    const one = await instance("one");
    await register(service, one.port);
    await deregister(service, dead);
    await eventually("it is heard of", async () => (await hear(service)) === "one x");
  });

  it("undici: no request fails while instances come and go, the agent is killed and comes back", async () => {
    const service = newName("loaded");
    const dispatcher = createAgent({ agent });
    cleanUp.push(() => dispatcher.destroy());
    const alive = [await instance("a"), await instance("b"), await instance("c")];
    for (const { port } of alive) await register(service, port);
    await register(service, await freePort());
    const failures: string[] = [];
    const seen = new Map<string, number>();
    let over = false;
    const one = async (n: number): Promise<void> => {
      for (let i = 0; !over; i++) {
        try {
          const body = (i + n) % 2 === 0 ? "!" : Readable.from([Buffer.from("!")]);
          const origin = `http://${service}.service.consul`;
          const answer = await dispatcher.request({ origin, path: "/", method: "POST", body });
          const text = await answer.body.text();
          seen.set(text, (seen.get(text) ?? 0) + 1);
        } catch (error) {
          failures.push(String(error));
        }
      }
    };
    cleanUp.push(() => {
      over = true;
    });
    const load = Array.from({ length: 8 }, (_, n) => one(n));
    const replace = async (name: string): Promise<void> => {
      const next = await instance(name);
      await register(service, next.port);
      const old = alive.shift() as (typeof alive)[number];
      alive.push(next);
      await deregister(service, old.port);
      const asked = `${name} ${service}.service.consul!`;
      await eventually(`${name} answers`, () => seen.has(asked));
      // What was under way ends, nothing new comes, and its connections are closed from our side.
      await eventually("the old one is let go", old.isAlone);
      await old.stop();
    };
    await eventually("all three answer", () => seen.size === 3);
    await replace("d");
    await replace("e");
    await kill();
    const before = [...seen.values()].reduce((a, b) => a + b, 0);
    await eventually("requests go on", () => [...seen.values()].reduce((a, b) => a + b, 0) > before + 100);
    await begin();
    await eventually("the agent has them again", async () => {
      const answer = await fetch(`http://${agent}/v1/trilith/find/${service}`);
      return ((await answer.json()) as { endpoints: unknown[] }).endpoints.length >= 3;
    });
    await replace("f");
    over = true;
    await Promise.all(load);
    expect(failures).toEqual([]);
    expect([...seen.keys()].sort()).toEqual(
      ["a", "b", "c", "d", "e", "f"].map((name) => `${name} ${service}.service.consul!`),
    );
  }, 120_000);

  it("connects by what it knew last while the agent is away", async () => {
    const service = newName("remembered");
    const one = await instance("one");
    await register(service, one.port);
    expect(await hear(service)).toBe("one x");
    await kill();
    for (let i = 0; i < 5; i++) expect(await hear(service)).toBe("one x");
    await expect(connect(newName("never-asked-for"), { agent })).rejects.toMatchObject({ code: "unavailable" });
    await begin();
    const two = await instance("two");
    await register(service, two.port);
    await deregister(service, one.port);
    await eventually("the agent is back", async () => (await hear(service)) === "two x");
  }, 120_000);
});
