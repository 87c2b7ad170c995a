// Prepared queries and watches where others keep what they are about: on a client host, and in another datacenter; whole agents in this process.
import { createSocket } from "node:dgram";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it, vi } from "vitest";
import type { Settings } from "../../src/contracts/settings.ts";
import { decodeMessage } from "../../src/wire/dns/index.ts";
import { type AskOptions, messageText, queryPacket } from "../support/dns.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";

const SLOW = { timeout: 10_000, interval: 20 };
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function start(settings: Partial<Settings>): Promise<RunningAgent> {
  const agent = await startAgent({ ...settings, protocols: { dns: { port: 0 }, ...settings.protocols } });
  ends.push(() => agent.stop());
  return agent;
}

async function dig(agent: RunningAgent, name: string, options: AskOptions = {}): Promise<string> {
  const where = agent.trilith.self.listening.get("dns") as string;
  const socket = createSocket("udp4");
  try {
    return await new Promise((resolve, reject) => {
      socket.once("error", reject);
      socket.once("message", (packet) => resolve(messageText(decodeMessage(packet))));
      socket.send(queryPacket(name, options), Number(where.slice(where.lastIndexOf(":") + 1)), "127.0.0.1");
    });
  } finally {
    socket.close();
  }
}

const post = async (agent: RunningAgent, query: object): Promise<void> => {
  const answer = await fetch(`${agent.url}/v1/query`, { method: "POST", body: JSON.stringify(query) });
  expect(answer.status, await answer.text()).toBe(200);
};
const web = (address: string) =>
  ({ id: "w", name: "web", tags: ["v1"], labels: {}, address, port: 81, checks: [] }) as const;

it("a client host carries out what its server keeps, over HTTP and DNS", async () => {
  const server = await start({ node: "server" });
  await server.trilith.agent.register("api", web("192.0.2.1"));
  await post(server, { Name: "q", Service: { Service: "web", Tags: ["v1"] }, DNS: { TTL: "7s" } });
  await post(server, { Name: "none", Service: { Service: "nobody" } });
  const client = await start({ node: "client", join: { servers: [server.url], livenessMs: 15_000 } });
  const executed = await (await fetch(`${client.url}/v1/query/q/execute`)).json();
  expect(executed).toMatchObject({ Service: "web", Nodes: [{ Node: { Node: "server" } }] });
  expect(await dig(client, "q.query.consul")).toBe("NOERROR aa | q.query.consul. 7 A 192.0.2.1");
  expect(await dig(client, "_q._tcp.query.consul", { type: "SRV" })).toContain(
    "7 SRV 1 1 81 c0000201.addr.dc1.consul.",
  );
  expect(await dig(client, "none.query.consul")).toMatch(/^NOERROR aa \| {2}\| consul/);
  expect(await dig(client, "unknown.query.consul")).toMatch(/^NXDOMAIN/);
});

it("another datacenter's queries, and its instances where nobody here is there", async () => {
  const far = await start({ node: "far", datacenter: "dc2" });
  await far.trilith.agent.register("api", web("192.0.2.2"));
  await post(far, { Name: "theirs", Service: { Service: "web" } });
  const here = await start({ node: "here", datacenters: { dc2: [far.url], dead: ["http://127.0.0.1:1"] } });
  await post(here, { Name: "ours", Service: { Service: "web", Failover: { Datacenters: ["dead", "dc2"] } } });
  const executed = await (await fetch(`${here.url}/v1/query/ours/execute`)).json();
  expect(executed).toMatchObject({ Failovers: 2, Datacenter: "dc2", Nodes: [{ Node: { Node: "far" } }] });
  expect(await dig(here, "ours.query.consul")).toBe("NOERROR aa | ours.query.consul. 0 A 192.0.2.2");
  expect(await dig(here, "theirs.query.dc2.consul")).toBe("NOERROR aa | theirs.query.dc2.consul. 0 A 192.0.2.2");
  expect(await dig(here, "theirs.query.dc2.consul", { type: "SRV" })).toContain(".dc2.consul.");
  expect(await dig(here, "theirs.query.dead.consul")).toMatch(/^SERVFAIL/);
  expect(await dig(here, "theirs.query.dc9.consul")).toMatch(/^NXDOMAIN/);
  expect(await dig(here, "theirs.query.consul")).toMatch(/^NXDOMAIN/);
});

it("a client host's own watches see what its server keeps", async () => {
  const folder = await mkdtemp(join(tmpdir(), "elsewhere-"));
  ends.push(() => rm(folder, { recursive: true }));
  const server = await start({ node: "server" });
  const handler = { kind: "script", command: `cat >>${folder}/out` };
  await start({
    node: "client",
    join: { servers: [server.url], livenessMs: 15_000 },
    scripts: { fromApi: false, fromFiles: true },
    protocols: { consul: { watches: [{ params: { type: "key", key: "a" }, handler }] } },
  });
  const lines = async (): Promise<string[]> =>
    (await readFile(join(folder, "out"), "utf8").catch(() => "")).split("\n").filter((line) => line !== "");
  await vi.waitFor(async () => expect(await lines()).toEqual(["null"]), SLOW);
  await server.trilith.kv.set("a", Buffer.from("1"));
  await vi.waitFor(async () => expect((await lines())[1]).toContain('"Value":"MQ=="'), SLOW);
});
