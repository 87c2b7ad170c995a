// Server sets with a real ZooKeeper and kazoo's members and readers: both ways, killed, paused, restarted, expired, taken over.
import { writeFile } from "node:fs/promises";
import { join as inFolder } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { openZooKeeper, type ZooKeeper } from "../../src/base/zookeeper.ts";
import { startEtcd } from "../support/etcd.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import {
  type AgentProcess,
  agentProcess,
  haveKazoo,
  joinSet,
  type KazooPeer,
  watchSet,
} from "../support/serversets.ts";
import { haveZooKeeper, startZooKeeper, type ZooKeeperServer } from "../support/zookeeper.ts";

const SESSION = "2s";
const SET = "/discovery/web";
const [prometheus, etcd] = [await havePrograms("prometheus"), await havePrograms("etcd")];

describe.runIf((await haveZooKeeper()) && (await haveKazoo()))("server sets", { timeout: 240_000 }, () => {
  let server: ZooKeeperServer;
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let zk: ZooKeeper;
  const over: (() => Promise<unknown>)[] = [];
  const until = <T extends { stop(signal?: NodeJS.Signals): Promise<unknown> }>(one: T): T => {
    over.push(() => one.stop("SIGKILL"));
    return one;
  };

  beforeAll(async () => {
    server = await startZooKeeper();
  }, 120_000);
  afterAll(() => server?.remove());
  beforeEach(async () => {
    await server.start();
    folder = await ownFolder("serversets");
    zk = await openZooKeeper({ servers: server.address, sessionTimeoutMs: 10_000, clock: systemClock });
    // Undone from the last to the first: all programs have ended when what they wrote is removed.
    over.push(
      () => folder.remove(),
      () => zk.close(),
      () => removeAll(zk, "/discovery"),
    );
  });
  afterEach(async () => {
    server.resume();
    await server.start();
    for (const end of over.splice(0).reverse()) await end();
  });

  const join = async (...words: readonly string[]): Promise<KazooPeer & { readonly member: string }> =>
    until(await joinSet(folder.path, server.address, ...words));
  const watch = async (path: string): ReturnType<typeof watchSet> =>
    until(await watchSet(folder.path, server.address, path));
  const reader = async (zookeeper: Record<string, unknown> = {}): Promise<RunningAgent> => {
    const config = { servers: server.address, session_timeout: SESSION, sets: ["/discovery/*"], ...zookeeper };
    return until(await startAgent({ protocols: { zookeeper: config } }));
  };
  const answers = (agent: RunningAgent, service: string): readonly string[] =>
    agent.trilith.lookup
      .resolveNow({ service, order: "stable" })
      .endpoints.map(({ address, port }) => `${address}:${port}`)
      .sort();
  const knows = (agent: RunningAgent, service: string, ...places: readonly string[]): Promise<unknown> =>
    eventually(`${service} is ${places.join(", ")}`, () => {
      const now = answers(agent, service);
      if (JSON.stringify(now) !== JSON.stringify([...places].sort())) throw new Error(`it is ${now.join(", ")}`);
      return true;
    });
  const stateOf = (agent: RunningAgent, name = "zookeeper"): string =>
    agent.trilith.sources().find((one) => one.name === name)?.text ?? "";

  it("a set that comes later, its members, their endpoints and shards; a member that leaves is gone", async () => {
    const agent = await reader();
    await eventually("it is connected", () => stateOf(agent).startsWith("ZooKeeper at 127.0.0.1"));
    expect(answers(agent, "web")).toEqual([]);
    const one = await join(SET, "10.0.0.1", "8081", "0", "aurora=10.0.0.1:9081", "http=10.0.0.1:8080");
    await join(SET, "10.0.0.2", "8082", "-");
    await join(SET, "10.0.0.4", "8084", "3", "--status", "STARTING");
    await join(SET, "db.example.com", "5432", "-");
    await zk.create(`${SET}/member_9999999999`, "not json", "persistent");
    await zk.create(`${SET}/member_9999999998`, "{}", "persistent");
    await zk.create(`${SET}/notamember`, "hello", "persistent");
    await knows(agent, "web", "10.0.0.1:8081", "10.0.0.2:8082", "db.example.com:5432");
    await knows(agent, "web-http", "10.0.0.1:8080");
    await knows(agent, "web-aurora", "10.0.0.1:9081");
    const [first] = agent.trilith.lookup.resolveNow({ service: "web", labels: { shard: "0" } }).endpoints;
    expect(first?.resident).toMatchObject({
      instance: { origin: { source: "zookeeper", authority: "second-hand", foreignId: one.member }, node: "10-0-0-1" },
      node: { external: true, address: "10.0.0.1" },
    });
    await eventually("what is wrong is told", () => stateOf(agent).includes("_9999999998 is left out: it has no"));
    await eventually("both are complained about", () => {
      const about = agent.trilith.agent.complaints().map((one) => one.about);
      return about.sort().join() === `${SET}/member_9999999998,${SET}/member_9999999999`;
    });
    // Finagle's weights stand beside the members.
    const weights = (): string =>
      agent.trilith.lookup
        .resolveNow({ service: "web", order: "stable" })
        .endpoints.map(({ address, weight }) => `${address}*${weight}`)
        .join();
    const vector = (...lines: object[]): string => JSON.stringify({ vector: lines });
    const halved = { select: "inet=db.example.com:5432", weight: 0.5, priority: 1 };
    await zk.create(
      `${SET}/vector_0000000000`,
      vector({ select: "shard=0", weight: 2.0, priority: 1 }, halved),
      "persistent",
    );
    await eventually("they are weighed", () => weights() === "10.0.0.1*200,10.0.0.2*100,db.example.com*50");
    await zk.set(`${SET}/vector_0000000000`, vector({ select: "shard=0", weight: 0 }));
    await eventually("one is weighed out", () => weights() === "10.0.0.2*1,db.example.com*1");
    await zk.remove(`${SET}/vector_0000000000`);
    await eventually("none is weighed", () => weights() === "10.0.0.1*1,10.0.0.2*1,db.example.com*1");
    await one.stop("SIGKILL");
    await knows(agent, "web", "10.0.0.2:8082", "db.example.com:5432");
    await knows(agent, "web-http");
  });

  it("while ZooKeeper is killed, restarted or silent what was known stands; what changed meanwhile is there afterwards", async () => {
    const agent = await reader();
    for (const n of [1, 2, 3]) await join(SET, `10.0.0.${n}`, "80", "-", "--timeout", "10");
    const all = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
    await knows(agent, "web", ...all);
    await server.stop("SIGKILL");
    await eventually("it is noticed", () => stateOf(agent).includes("is away"));
    expect(answers(agent, "web")).toEqual(all);
    await server.start();
    await join(SET, "10.0.0.4", "80", "-");
    await knows(agent, "web", ...all, "10.0.0.4:80");
    server.pause();
    await eventually("the silence is noticed", () => stateOf(agent).includes("is away"));
    expect(answers(agent, "web")).toEqual([...all, "10.0.0.4:80"]);
    server.resume();
    await join(SET, "10.0.0.5", "80", "-");
    await eventually("it is heard again", () => answers(agent, "web").includes("10.0.0.5:80"), 30_000);
    expect(agent.errors).toEqual([]);
  });

  it("all members expire at once: the guard keeps them, and those that join anew are the same instances", async () => {
    const agent = await reader();
    const peers: KazooPeer[] = [];
    for (const n of [1, 2, 3, 4]) peers.push(await join(SET, `10.0.0.${n}`, "80", "-", "--timeout", "2"));
    const all = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
    await knows(agent, "web", ...all);
    for (const { pid } of peers) process.kill(pid, "SIGSTOP");
    await eventually("they are gone", async () => (await zk.children(SET))?.length === 0);
    await eventually("it is held", () => agent.trilith.lookup.held().some(({ service }) => service === "web"));
    expect(answers(agent, "web")).toEqual(all);
    for (const { pid } of peers) process.kill(pid, "SIGCONT");
    await eventually("they are back", async () => (await zk.children(SET))?.length === 4, 30_000);
    await eventually("nothing is held", () => agent.trilith.lookup.held().length === 0);
    await knows(agent, "web", ...all);
  });

  it("an agent that starts without ZooKeeper answers with what it last knew", async () => {
    const config = { servers: server.address, session_timeout: SESSION, sets: [SET] };
    const agent = until(await agentProcess(folder.path, "alpha", () => ({ zookeeper: config })));
    await agent.start();
    for (const n of [1, 2, 3]) await join(SET, `10.0.0.${n}`, "80", "-", "--timeout", "10");
    const all = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
    await eventually("all are known", async () => (await agent.find("web")).join() === all.join());
    await agent.stop("SIGKILL");
    await server.stop("SIGKILL");
    await agent.start();
    expect(await agent.find("web")).toEqual(all);
    await server.start();
    await join(SET, "10.0.0.4", "80", "-");
    await eventually("it goes on", async () => (await agent.find("web")).join() === [...all, "10.0.0.4:80"].join());
  });

  it("credentials, a chroot and several servers of which one is dead", async () => {
    await zk.makePath("/discovery/below/web");
    const agent = await reader({
      servers: `127.0.0.1:1,${server.address}/discovery/below`,
      auth: "digest:me:secret",
      sets: ["/web"],
      announce: [{ service: "mine", path: "/mine" }],
    });
    await join("/discovery/below/web", "10.0.0.1", "80", "-");
    await knows(agent, "web", "10.0.0.1:80");
    await agent.trilith.agent.register("api", registration("mine", "192.0.2.9", 90));
    const mine = await eventually("it is written", async () => (await zk.children("/discovery/below/mine"))?.[0]);
    await expect(zk.set(`/discovery/below/mine/${mine}`, "{}")).rejects.toMatchObject({ code: "not-allowed" });
    const seen = await watch("/discovery/below/mine");
    await eventually("everybody reads it", async () => (await seen.seen()).at(-1)?.length === 1);
    await agent.trilith.agent.deregister("api", "mine");
    await eventually("it is taken back", async () => (await seen.seen()).at(-1)?.length === 0);
  });

  it("credentials that are refused are told, and tried again less and less often", async () => {
    const news: string[] = [];
    const waits: number[] = [];
    const after: Clock["after"] = (ms, work, background) => {
      waits.push(ms);
      return systemClock.after(ms, work, background);
    };
    const refused = await openZooKeeper({
      ...{ servers: server.address, sessionTimeoutMs: 10_000, clock: { ...systemClock, after } },
      auth: { scheme: "nonesuch", credentials: "x" },
      onNews: (each) => void news.push(each.what === "away" ? each.text : each.what),
    });
    over.push(() => refused.close());
    await eventually("it was tried twice", () => waits.includes(3200));
    expect(waits.filter((ms) => [200, 800, 3200].includes(ms))).toEqual([800, 3200]);
    expect(news).toEqual([
      "session",
      "the server refused the credentials",
      "session",
      "the server refused the credentials",
    ]);
  });

  it("this host's services are members: by health, with shard and endpoints; others are left alone, nothing goes round", async () => {
    const other = await join(SET, "10.0.0.1", "80", "-");
    const agent = await reader({ announce: [{ service: "*", path: "/discovery/{service}" }] });
    const seen = await watch(SET);
    await knows(agent, "web", "10.0.0.1:80");
    const { agent: own } = agent.trilith;
    await own.register("api", {
      ...registration("web", "192.0.2.9", 90),
      tags: ["v1"],
      labels: { shard: "7", team: "shop", "zookeeper-endpoint-http": "91" },
      checks: [{ id: "w", name: "w", notes: "", kind: "ttl", detail: {}, intervalMs: 0, timeoutMs: 0, ttlMs: 600_000 }],
    });
    const there = async (): Promise<readonly string[]> =>
      ((await seen.seen()).at(-1) ?? []).map(({ serviceEndpoint: { host, port } }) => `${host}:${port}`);
    await own.report("w", { status: "passing", output: "" });
    await eventually("it is a member", async () => (await there()).includes("192.0.2.9:90"));
    const mine = (await seen.seen()).at(-1)?.find(({ serviceEndpoint }) => serviceEndpoint.port === 90);
    expect(mine).toMatchObject({
      additionalEndpoints: { http: { host: "192.0.2.9", port: 91 } },
      shard: 7,
      metadata: { v1: "true", team: "shop", trilith: agent.trilith.self.nodeId },
    });
    expect(mine?.name).toMatch(/^member_\d{10}$/);
    await own.report("w", { status: "critical", output: "" });
    await eventually("it is out", async () => (await there()).join() === "10.0.0.1:80");
    await own.report("w", { status: "passing", output: "" });
    await eventually("it is back", async () => (await there()).length === 2);
    // What came in is neither written out nor brought in twice.
    expect(answers(agent, "web")).toEqual(["10.0.0.1:80", "192.0.2.9:90"]);
    expect(stateOf(agent, "zookeeper out")).toContain("1 member written");
    await own.deregister("api", "web");
    await eventually("it is gone", async () => (await there()).join() === "10.0.0.1:80");
    expect((await zk.get(other.member))?.stat.version).toBe(0);
    expect(await seen.faults()).toEqual([]);
  });

  it("a service that registers itself as well is written once", async () => {
    const other = await join(SET, "192.0.2.9", "90", "-", "--timeout", "2");
    const agent = await reader({ sets: [], announce: [{ service: "web", path: SET }] });
    await agent.trilith.agent.register("api", registration("web", "192.0.2.9", 90));
    await eventually("it is seen", () => stateOf(agent, "zookeeper out").includes("is in /discovery/web already"));
    expect(await zk.children(SET)).toHaveLength(1);
    await other.stop("SIGKILL");
    await eventually("it is written in its place", async () => {
      const names = await zk.children(SET);
      return names?.length === 1 && `${SET}/${names[0]}` !== other.member;
    });
  });

  describe("an agent that writes", () => {
    /** So that a busy machine has time to start the next life. */
    const [LONG, LONG_MS] = ["8s", 8000] as const;
    let agent: AgentProcess;
    const start = async (session = SESSION): Promise<void> => {
      const config = {
        ...{ servers: server.address, session_timeout: session },
        announce: [{ service: "web", path: SET }],
      };
      agent = until(await agentProcess(folder.path, "alpha", () => ({ zookeeper: config })));
      await agent.start();
      for (const n of [1, 2, 3])
        await agent.put("/v1/agent/service/register", {
          ...{ ID: `web-${n}`, Name: "web", Address: `192.0.2.${n}`, Port: 80 },
        });
    };
    const states = async (seen: Awaited<ReturnType<typeof watch>>): Promise<readonly (readonly string[])[]> =>
      (await seen.seen()).map((members) => members.map(({ serviceEndpoint }) => serviceEndpoint.host).sort());
    const ALL = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];

    it("killed and started again takes its members over: nobody sees one twice, or not at all", async () => {
      await start(LONG);
      const seen = await watch(SET);
      await eventually("all are there", async () => (await states(seen)).at(-1)?.length === 3);
      const before = (await seen.seen()).at(-1) ?? [];
      const from = (await seen.seen()).length;
      await agent.stop("SIGKILL");
      await agent.start();
      await eventually("all are taken over", async () => {
        const now = await Promise.all(before.map(({ name }) => zk.get(`${SET}/${name}`)));
        return now.every((znode, i) => znode !== undefined && znode.stat.owner !== before[i]?.owner);
      });
      // Longer than the old session lives.
      await systemClock.sleep(LONG_MS + 1000);
      expect((await zk.children(SET))?.toSorted()).toEqual(before.map(({ name }) => name).sort());
      for (const hosts of (await states(seen)).slice(from)) expect(hosts).toEqual(ALL);
    });

    it("stopped in good order does the same; one that leaves takes its members along at once", async () => {
      await start(LONG);
      const seen = await watch(SET);
      await eventually("all are there", async () => (await states(seen)).at(-1)?.length === 3);
      const from = (await seen.seen()).length;
      await agent.stop("SIGTERM");
      await agent.start();
      await systemClock.sleep(LONG_MS + 1000);
      for (const hosts of (await states(seen)).slice(from)) expect(hosts).toEqual(ALL);
      expect((await states(seen)).at(-1)).toEqual(ALL);
      await agent.put("/v1/agent/leave");
      await eventually("they are gone", async () => (await states(seen)).at(-1)?.length === 0, LONG_MS - 1000);
    });

    it("frozen longer than its session writes them anew; nobody else's session touches them", async () => {
      await start();
      await eventually("all are there", async () => (await zk.children(SET))?.length === 3);
      process.kill(agent.pid(), "SIGSTOP");
      await eventually("they expired", async () => (await zk.children(SET))?.length === 0);
      process.kill(agent.pid(), "SIGCONT");
      await eventually("they are back", async () => (await zk.children(SET))?.length === 3);
      const hosts = await Promise.all(
        ((await zk.children(SET)) ?? []).map(
          async (name) => JSON.parse((await zk.get(`${SET}/${name}`))?.data.toString() ?? "").serviceEndpoint.host,
        ),
      );
      expect(hosts.sort()).toEqual(ALL);
    });

    it("goes on when the server is killed and restarted, also when the session is over by then", async () => {
      await start();
      const seen = await watch(SET);
      await eventually("all are there", async () => (await states(seen)).at(-1)?.length === 3);
      await server.stop("SIGKILL");
      await server.start();
      await agent.put("/v1/agent/service/deregister/web-3");
      await eventually(
        "it is heard",
        async () => (await states(seen)).at(-1)?.join() === "192.0.2.1,192.0.2.2",
        60_000,
      );
      await server.stop("SIGKILL");
      await systemClock.sleep(5000);
      await server.start();
      await agent.put("/v1/agent/service/register", { ID: "web-3", Name: "web", Address: "192.0.2.3", Port: 80 });
      await eventually("all are there", async () => (await states(seen)).at(-1)?.join() === ALL.join(), 60_000);
      expect(await seen.faults()).toEqual([]);
    });
  });

  it("two that write the same from the directory write it once; the other takes over when one dies", async () => {
    const config = {
      ...{
        servers: server.address,
        session_timeout: SESSION,
        announce: [{ service: "web", path: SET, from: "directory" }],
      },
    };
    const agents: AgentProcess[] = [];
    for (const node of ["alpha", "beta"]) {
      const agent = until(await agentProcess(folder.path, node, () => ({ zookeeper: config })));
      await agent.start();
      agents.push(agent);
    }
    for (const agent of agents)
      await agent.put("/v1/catalog/register", {
        ...{ Node: "box", Address: "192.0.2.5", Service: { ID: "web", Service: "web", Port: 80 } },
      });
    const owner = async (): Promise<string | undefined> => {
      const names = (await zk.children(SET)) ?? [];
      return names.length === 1 ? (await zk.get(`${SET}/${names[0]}`))?.stat.owner : undefined;
    };
    const first = await eventually("it is there once", owner);
    for (let i = 0; i < 10; i++) {
      await systemClock.sleep(50);
      expect(await owner()).toBe(first);
    }
    await agents[0]?.stop("SIGKILL");
    await agents[1]?.put("/v1/catalog/register", {
      ...{ Node: "box2", Address: "192.0.2.6", Service: { ID: "web", Service: "web", Port: 80 } },
    });
    await eventually("both are there, each once", async () => {
      const names = (await zk.children(SET)) ?? [];
      const owners = await Promise.all(names.map(async (name) => (await zk.get(`${SET}/${name}`))?.stat.owner));
      return names.length === 2 && owners[0] === owners[1];
    });
  });

  it.runIf(etcd)(
    "agents that share a directory are witnesses of one instance, and bring nothing in that one of them wrote",
    async () => {
      const store = await startEtcd();
      over.push(() => store.remove());
      const config = {
        ...{ servers: server.address, session_timeout: SESSION, sets: [SET] },
        announce: [{ service: "web", path: SET }],
      };
      const agents: AgentProcess[] = [];
      for (const node of ["alpha", "beta"]) {
        const flags = ["--etcd", store.endpoint];
        const agent = until(await agentProcess(folder.path, node, () => ({ zookeeper: config }), flags));
        await agent.start();
        agents.push(agent);
      }
      const [alpha, beta] = agents as [AgentProcess, AgentProcess];
      const other = await join(SET, "10.0.0.1", "80", "-", "--timeout", "2");
      await alpha.put("/v1/agent/service/register", { ID: "web", Name: "web", Address: "192.0.2.1", Port: 80 });
      const both = async (...places: readonly string[]): Promise<unknown> =>
        eventually(`both know ${places.join(", ")}`, async () => {
          const found = [await alpha.find("web"), await beta.find("web")];
          if (found.some((one) => one.join() !== places.join())) throw new Error(JSON.stringify(found));
          return true;
        });
      await both("10.0.0.1:80", "192.0.2.1:80");
      await eventually("it is written", async () => (await zk.children(SET))?.length === 2);
      // Time to do it wrong in.
      await systemClock.sleep(1500);
      await both("10.0.0.1:80", "192.0.2.1:80");
      expect(await zk.children(SET)).toHaveLength(2);
      const rows = (await (await fetch(`${beta.url}/v1/catalog/service/web`)).json()) as { Node: string }[];
      expect(rows.map(({ Node }) => Node).sort()).toEqual(["10-0-0-1", "alpha"]);
      await other.stop("SIGKILL");
      await both("192.0.2.1:80");
      await alpha.put("/v1/agent/service/deregister/web");
      await both();
      await eventually("it is taken back", async () => (await zk.children(SET))?.length === 0);
    },
  );

  it.runIf(prometheus)("Prometheus reads what is written", async () => {
    await join(SET, "10.0.0.1", "80", "2", "http=10.0.0.1:81");
    const agent = await reader({ sets: [], announce: [{ service: "web", path: SET }] });
    await agent.trilith.agent.register("api", {
      ...registration("web", "192.0.2.9", 90),
      ...{ labels: { shard: "7", "zookeeper-endpoint-http": "91" }, tags: ["v1"] },
    });
    await eventually("both are there", async () => (await zk.children(SET))?.length === 2);
    const port = await freePort();
    const config = inFolder(folder.path, "prometheus.yml");
    const scrape = {
      ...{ job_name: "ss", serverset_sd_configs: [{ servers: [server.address], paths: [SET] }] },
      relabel_configs: [{ action: "labelmap", regex: "__meta_serverset_(.*)" }],
    };
    await writeFile(config, JSON.stringify({ scrape_configs: [scrape] }));
    const listen = [`--web.listen-address=127.0.0.1:${port}`, `--storage.tsdb.path=${folder.path}/tsdb`];
    const command = ["prometheus", `--config.file=${config}`, ...listen];
    until(await startProgram(command, inFolder(folder.path, "prometheus.log")));
    const targets = await eventually("it has both", async () => {
      const answer = await fetch(`http://127.0.0.1:${port}/api/v1/targets?state=active`);
      const { data } = (await answer.json()) as { data: { activeTargets: { labels: Record<string, string> }[] } };
      return data.activeTargets.length === 2 ? data.activeTargets.map(({ labels }) => labels) : undefined;
    });
    expect(targets.toSorted((a, b) => ((a["shard"] ?? "") < (b["shard"] ?? "") ? -1 : 1))).toMatchObject([
      {
        instance: "10.0.0.1:80",
        shard: "2",
        status: "ALIVE",
        endpoint_host_http: "10.0.0.1",
        endpoint_port_http: "81",
      },
      {
        instance: "192.0.2.9:90",
        shard: "7",
        status: "ALIVE",
        endpoint_host_http: "192.0.2.9",
        endpoint_port_http: "91",
      },
    ]);
  });

  it("a thousand members", async () => {
    await zk.makePath(SET);
    const made = Array.from({ length: 1000 }, (_, i) =>
      zk.createNumbered(
        `${SET}/member_`,
        JSON.stringify({
          serviceEndpoint: { host: `10.1.${i >> 8}.${i & 255}`, port: 80 },
          additionalEndpoints: {},
          status: "ALIVE",
        }),
      ),
    );
    const paths = await Promise.all(made);
    const agent = await reader();
    await eventually("all are known", () => answers(agent, "web").length === 1000, 60_000);
    await agent.trilith.agent.synced(AbortSignal.timeout(20_000));
    const { index } = agent.trilith.directory.view();
    await zk.remove(paths[500] ?? "");
    await eventually("one is gone", () => answers(agent, "web").length === 999);
    // Only that one was written.
    expect(agent.trilith.directory.view().index - index).toBeLessThanOrEqual(2);
    await removeAll(zk, SET);
    await eventually("the set is gone, and told", () => stateOf(agent).includes("0 server sets"));
    // With the one that went a moment before: the guard holds the minute's losses.
    await eventually("all are held", () => agent.trilith.directory.view().residents("web").length === 0);
    expect(answers(agent, "web")).toHaveLength(1000);
  });
});

function registration(
  id: string,
  address: string,
  port: number,
): Parameters<RunningAgent["trilith"]["agent"]["register"]>[1] {
  return { id, name: id, tags: [], labels: {}, address, port, checks: [] };
}

async function removeAll(zk: ZooKeeper, path: string): Promise<void> {
  for (;;) {
    const names = await zk.children(path);
    if (names === undefined) return;
    await Promise.all(names.map((name) => removeAll(zk, `${path}/${name}`)));
    try {
      await zk.remove(path);
      return;
    } catch (error) {
      // Somebody who is being ended joined once more.
      if ((error as { code?: string }).code !== "conflict") throw error;
    }
  }
}
