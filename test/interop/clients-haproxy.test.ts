// HAProxy 2.6 with server-template and resolvers over our DNS (SRV): backends come, serve real requests, turn critical, and go.
import { readFile, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { createConnection } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";

const there = await havePrograms("haproxy");
const SLOTS = 25;

describe.runIf(there)("HAProxy", () => {
  const undo: (() => unknown)[] = [];
  afterEach(async () => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
  });

  /** A web server that says its name. */
  async function web(name: string): Promise<{ readonly port: number; readonly server: Server }> {
    const server = createServer((_, response) => response.end(name));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    undo.push(() => new Promise((resolve) => server.close(resolve).closeAllConnections()));
    return { port: (server.address() as { port: number }).port, server };
  }

  const put = async (agent: RunningAgent, path: string, body?: object): Promise<void> => {
    const answer = await fetch(`${agent.url}${path}`, { method: "PUT", body: JSON.stringify(body) ?? null });
    expect(answer.status, await answer.text()).toBe(200);
  };

  /**
   * HAProxy with a backend of the service's instances; `ask` = who answers a request, or the status; `slots` = the servers it has;
   * `answered` = how many DNS answers it took; `log` = what it said.
   */
  async function haproxy(
    agent: RunningAgent,
    resolver: { readonly nameserver: "udp" | "tcp"; readonly payloadBytes: number },
  ): Promise<{
    ask(): Promise<string>;
    slots(): Promise<readonly string[]>;
    answered(): Promise<number>;
    log(): Promise<string>;
  }> {
    const folder = await ownFolder("haproxy");
    undo.push(() => folder.remove());
    const port = await freePort();
    const socket = join(folder.path, "socket");
    const config = join(folder.path, "haproxy.cfg");
    const dns = agent.trilith.self.listening.get("dns") ?? "";
    await writeFile(
      config,
      `global
  stats socket ${socket} level admin
defaults
  mode http
  timeout connect 2s
  timeout client 5s
  timeout server 5s
resolvers trilith
  nameserver here ${resolver.nameserver === "tcp" ? "tcp@" : ""}${dns}
  accepted_payload_size ${resolver.payloadBytes}
  resolve_retries 3
  timeout resolve 200ms
  timeout retry 200ms
  hold valid 200ms
  hold obsolete 0s
  hold nx 0s
  hold other 30s
frontend in
  bind 127.0.0.1:${port}
  default_backend web
backend web
  balance roundrobin
  option redispatch
  server-template web ${SLOTS} _web._tcp.service.consul resolvers trilith resolve-prefer ipv4 init-addr none
`,
    );
    const running = await startProgram(["/usr/sbin/haproxy", "-db", "-f", config], join(folder.path, "log"));
    undo.push(() => running.stop());
    const told = (command: string): Promise<string> =>
      new Promise((resolve, reject) => {
        const connection = createConnection(socket, () => connection.end(`${command}\n`));
        let text = "";
        connection.setEncoding("utf8");
        connection.on("data", (chunk: string) => {
          text += chunk;
        });
        connection.once("end", () => resolve(text)).once("error", reject);
      });
    return {
      async ask() {
        const answer = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: "close" } });
        return answer.ok ? await answer.text() : String(answer.status);
      },
      /** `address:port` of every server that has one, in order. */
      async slots() {
        const lines = (await told("show servers state web")).split("\n").map((line) => line.split(" "));
        return lines
          .filter((words) => words.length > 18 && /^\d/.test(words[4] ?? ""))
          .map((words) => `${words[4]}:${words[18]}`)
          .sort();
      },
      async answered() {
        return Number(/valid:\s*(\d+)/.exec(await told("show resolvers trilith"))?.[1]);
      },
      log: () => readFile(join(folder.path, "log"), "utf8"),
    };
  }

  const agentWithDns = async (settings: object = {}): Promise<RunningAgent> => {
    const agent = await startAgent({ ...settings, protocols: { dns: { port: 0 } } });
    undo.push(() => agent.stop());
    return agent;
  };

  it.each([
    { nameserver: "udp", payloadBytes: 8192 },
    { nameserver: "tcp", payloadBytes: 8192 },
  ] as const)("takes backends as they come, and drops them ($nameserver)", async (resolver) => {
    const agent = await agentWithDns();
    const [a, b] = [await web("a"), await web("b")];
    const proxy = await haproxy(agent, resolver);
    await eventually("HAProxy answers", async () => (await proxy.ask()) === "503");
    for (const [name, { port }] of Object.entries({ a, b }))
      await put(agent, "/v1/agent/service/register", {
        ...{ ID: name, Name: "web", Address: "127.0.0.1", Port: port },
        Check: { CheckID: name, TTL: "1h", Status: "passing" },
      });
    const both = new Set<string>();
    await eventually("both serve", async () => both.add(await proxy.ask()).has("a") && both.has("b"));
    await put(agent, "/v1/agent/check/fail/a");
    await eventually("only b is left", async () => (await proxy.slots()).join() === `127.0.0.1:${b.port}`);
    expect(await Promise.all([1, 2, 3, 4].map(() => proxy.ask()))).toEqual(["b", "b", "b", "b"]);
    await put(agent, "/v1/agent/check/warn/a");
    await eventually("a is back", async () => (await proxy.ask()) === "a");
    await put(agent, "/v1/agent/service/deregister/a");
    await put(agent, "/v1/agent/service/deregister/b");
    await eventually("nobody is left", async () => (await proxy.ask()) === "503" && (await proxy.slots()).length === 0);
    expect(agent.errors).toEqual([]);
  });

  it.each(["none", "consul"] as const)("keeps several instances of one address (compat %s)", async (compat) => {
    const agent = await agentWithDns({ compat });
    const wanted: string[] = [];
    for (const [n, address] of ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"].entries()) {
      await put(agent, "/v1/agent/service/register", { ID: `w${n}`, Name: "web", Address: address, Port: 8000 + n });
      wanted.push(`${address}:${8000 + n}`);
    }
    const proxy = await haproxy(agent, { nameserver: "udp", payloadBytes: 8192 });
    await eventually("all are there", async () => (await proxy.slots()).join() === wanted.join());
    // Each answer has another order: a server whose target's address did not come along would lose its own now and then.
    const before = await proxy.answered();
    await eventually("twenty answers later", async () => (await proxy.answered()) >= before + 20);
    expect(await proxy.slots()).toEqual(wanted);
    expect(await proxy.log()).not.toContain("No IP for server");
  });

  it.each([
    { nameserver: "udp", payloadBytes: 8192, compat: "none", whole: true },
    { nameserver: "tcp", payloadBytes: 8192, compat: "none", whole: true },
    { nameserver: "udp", payloadBytes: 512, compat: "none", whole: false },
    { nameserver: "udp", payloadBytes: 1232, compat: "none", whole: true },
    { nameserver: "udp", payloadBytes: 8192, compat: "consul", whole: true },
    { nameserver: "udp", payloadBytes: 512, compat: "consul", whole: false },
  ] as const)("takes 20 instances ($nameserver, $payloadBytes bytes, compat $compat)", async (how) => {
    const agent = await agentWithDns({ compat: how.compat });
    const wanted: string[] = [];
    for (let n = 1; n <= 20; n++) {
      await put(agent, "/v1/agent/service/register", {
        ID: `w${n}`,
        Name: "web",
        Address: `192.0.2.${n}`,
        Port: 8000 + n,
      });
      wanted.push(`192.0.2.${n}:${8000 + n}`);
    }
    const proxy = await haproxy(agent, how);
    if (how.whole)
      await eventually("all are there", async () => (await proxy.slots()).join() === wanted.sort().join()).catch(
        async () => expect(await proxy.slots()).toEqual(wanted),
      );
    else {
      // What fits is used; which ones changes from answer to answer.
      const some = await eventually("some are there", async () => {
        const slots = await proxy.slots();
        return slots.length > 0 && slots;
      });
      expect(wanted).toEqual(expect.arrayContaining([...some]));
    }
  });
});
