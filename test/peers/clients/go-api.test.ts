// Consul's own Go client (github.com/hashicorp/consul/api 1.29.4, with its lock, semaphore and watch recipes) against agents of every storage.
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildGo, haveGo, runClient } from "../../support/clients.ts";
import { startEtcd } from "../../support/etcd.ts";
import { startAgent } from "../../support/ground.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../../support/peers.ts";

const there = await haveGo();
const haveEtcd = await havePrograms("etcd", "etcdctl");
const main = resolve(import.meta.dirname, "../../../src/cli/main.ts");

const SCENARIOS = {
  service: "registers, follows by blocking queries, turns critical, is in maintenance and goes",
  catalog: "enters an outside node, changes its check, and takes it out",
  watches: "runs watch plans of eight types",
  kv: "keeps bytes and flags, compares and sets, lists, follows and deletes",
  lock: "locks, waits, hands over, and is told when its session ends",
  semaphore: "lets no more than two hold at once",
  election: "elects ten leaders, one after the other",
  session: "renews, ends, is bound to checks, and runs out",
  query: "makes, executes, changes and deletes prepared queries and templates",
  event: "fires and follows events",
  txn: "changes keys, nodes, services and checks together or not at all",
  snapshot: "saves and restores",
  cluster: "asks what programs ask before they begin",
} as const;
/** What one member alone says of itself. */
const ALONE = ["cluster"];

interface Agents {
  readonly urls: readonly string[];
  errors(): readonly string[];
  stop(): Promise<void>;
}

async function inMemory(): Promise<Agents> {
  const agent = await startAgent();
  return { urls: [agent.url], errors: () => agent.errors, stop: () => agent.stop() };
}

/** The program itself with a data folder, called with Consul's words. */
async function program(): Promise<Agents> {
  const folder = await ownFolder("go-api-agent");
  const [http, dns] = [await freePort(), await freePort()];
  const words = ["-server", "-bootstrap-expect=1", "-node=alpha", `-data-dir=${folder.path}/data`, "-docker-host=off"];
  const ports = [`-http-port=${http}`, `-dns-port=${dns}`];
  const running = await startProgram(
    [process.execPath, "--import", "tsx", main, "agent", ...words, ...ports],
    join(folder.path, "log"),
  );
  const url = `http://127.0.0.1:${http}`;
  await eventually("the agent answers", async () => (await fetch(`${url}/v1/status/leader`)).ok);
  return {
    urls: [url],
    errors: () => [],
    async stop() {
      await running.stop();
      await folder.remove();
    },
  };
}

/** Two agents that share an etcd: what one is told, the other knows. */
async function twoOnEtcd(): Promise<Agents> {
  const etcd = await startEtcd();
  const common = { storage: "etcd", etcd: { endpoints: [etcd.endpoint], prefix: "/t/", livenessMs: 15_000 } } as const;
  const agents = [await startAgent(common), await startAgent({ ...common, node: "beta" })];
  // They start before the store has heard of them; sessions belong to nodes that it knows.
  for (const { trilith } of agents) await trilith.agent.synced(AbortSignal.timeout(20_000));
  return {
    urls: agents.map(({ url }) => url),
    errors: () => agents.flatMap(({ errors }) => errors),
    async stop() {
      for (const agent of agents) await agent.stop();
      await etcd.remove();
    },
  };
}

/** A host that is only a client: its directory is kept in step with a server's, keys and sessions are forwarded. */
async function clientHost(): Promise<Agents> {
  const server = await startAgent();
  const agent = await startAgent({ node: "host", join: { servers: [server.url], livenessMs: 15_000 } });
  await agent.trilith.agent.synced(AbortSignal.timeout(20_000));
  return {
    urls: [agent.url],
    errors: () => [...server.errors, ...agent.errors],
    async stop() {
      await agent.stop();
      await server.stop();
    },
  };
}

describe.runIf(there)("Consul's Go client", { timeout: 120_000 }, () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let client: string;
  beforeAll(async () => {
    folder = await ownFolder("go-api");
    client = await buildGo(folder.path, "go-api", { folder: join(import.meta.dirname, "go-api") });
  }, 600_000);
  afterAll(() => folder?.remove());

  describe.each([
    { name: "an agent in memory", start: inMemory, runs: true },
    { name: "the program with a data folder", start: program, runs: true },
    { name: "two agents on etcd", start: twoOnEtcd, runs: haveEtcd },
    { name: "a client host", start: clientHost, runs: true },
  ])("$name", ({ start, runs }) => {
    const several = start === twoOnEtcd || start === clientHost;
    const scenarios = Object.entries(SCENARIOS).filter(([name]) => !several || !ALONE.includes(name));
    it.runIf(runs).each(scenarios)("%s: %s", async (scenario) => {
      const agents = await start();
      try {
        const env = { CONSUL_HTTP_ADDR: agents.urls.join(",") };
        const ended = await runClient([client, scenario], { env, timeoutMs: 50_000 });
        expect(ended).toEqual({ exitCode: 0, output: `ok ${scenario}\n` });
        expect(agents.errors()).toEqual([]);
      } finally {
        await agents.stop();
      }
    });
  });
});
