// The source "etcd" beside a real etcd: what Registrator and SkyDNS keep there, watched over its death, compaction, loss and lapsed leases.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { createHttp } from "../../src/base/http.ts";
import type { Entry } from "../../src/protocols/docker/backends/backend.ts";
import { openBackend } from "../../src/protocols/docker/backends/open.ts";
import { parseRegistryUri } from "../../src/protocols/docker/backends/uri.ts";
import { type Cuttable, cuttable, type EtcdNode, ownPrefix, startEtcd } from "../support/etcd.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { havePrograms, ownFolder } from "../support/peers.ts";

const run = promisify(execFile);
const able = await havePrograms("etcd");
const SLOW = { timeout: 30_000 };

describe.runIf(able)("the source etcd", { timeout: 120_000 }, () => {
  let etcd: EtcdNode;
  const ending: (() => Promise<unknown>)[] = [];
  beforeAll(async () => {
    etcd = await startEtcd();
  });
  afterEach(async () => {
    for (const end of ending.splice(0).toReversed()) await end();
    await etcd.start();
    await etcd.ctl("del", "--prefix", "/");
  });
  afterAll(() => etcd.remove());

  async function agentOn(endpoint: string = etcd.endpoint, more: object = {}, dataDir?: string): Promise<RunningAgent> {
    const agent = await startAgent({
      ...(dataDir === undefined ? {} : { dev: false, dataDir }),
      protocols: { etcd: { endpoints: [endpoint], registrator: "/services", skydns: "skydns.local", ...more } },
    });
    ending.push(() => agent.stop());
    return agent;
  }
  const found = ({ trilith }: RunningAgent, service = "web"): string[] =>
    trilith.lookup
      .resolveNow({ service, order: "stable" })
      .endpoints.map(({ address, port }) => `${address}:${port}`)
      .sort();
  const recorded = ({ trilith }: RunningAgent): string[] =>
    trilith.directory
      .view()
      .residents("web")
      .map(({ instance }) => instance.id);
  const stateOf = ({ trilith }: RunningAgent): { ok: boolean; text: string } =>
    trilith.sources().find(({ name }) => name === "etcd") as { ok: boolean; text: string };
  const whyOf = ({ trilith }: RunningAgent, id: string): string | undefined =>
    [...trilith.directory.view().list("grave")].find(({ gone }) => gone?.some(({ key }) => key.endsWith(`\u0000${id}`)))
      ?.why?.text;

  it("finds what etcdctl puts there as the README does, and follows every change", async () => {
    const readme = readFileSync(join(import.meta.dirname, "../../src/protocols/etcd/README.md"), "utf8");
    const commands = /<!-- commands -->\n\n```sh\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
    const agent = await agentOn();
    const puts = commands.split("\n").filter((line) => line.startsWith("etcdctl"));
    expect(puts).toHaveLength(2);
    for (const line of puts)
      await run("sh", ["-c", line], { env: { ...process.env, ETCDCTL_API: "3", ETCDCTL_ENDPOINTS: etcd.endpoint } });
    await expect
      .poll(() => [...found(agent), ...found(agent, "db")], SLOW)
      .toEqual(["10.0.0.1:32768", "10.0.0.2:5432"]);
    const view = agent.trilith.directory.view();
    expect(view.residents("web")[0]?.node).toMatchObject({ name: "host-1", address: "10.0.0.1", external: true });
    expect(view.residents("db")[0]?.node).toMatchObject({ name: "1.db.skydns.local", address: "10.0.0.2" });
    await etcd.ctl("put", "/services/web/host-1:web:80", "10.0.0.9:1");
    await expect.poll(() => found(agent), SLOW).toEqual(["10.0.0.9:1"]);
    await etcd.ctl("put", "/services/web/broken", "no place");
    await expect
      .poll(() => agent.trilith.agent.complaints().map(({ about }) => about), SLOW)
      .toEqual(["/services/web/broken"]);
    await etcd.ctl("del", "/services/web/host-1:web:80");
    await expect.poll(() => found(agent), SLOW).toEqual([]);
    expect(whyOf(agent, "host-1:web:80")).toBe("etcd's key /services/web/host-1:web:80 was removed");
  });

  it("reads what this program's own registrator writes, in both layouts", async () => {
    const http = createHttp();
    ending.push(() => http.close());
    const agent = await agentOn();
    const entry: Entry = {
      ...{ id: "host-1:web:80", name: "web", ip: "10.0.0.1", port: 8080, tags: [], labels: {}, attributes: {} },
      ...{ checks: [], containerId: "c1", containerHostname: "c1", exposedPort: 80 },
    };
    const signal = AbortSignal.timeout(20_000);
    const ground = {
      ...{ http, clock: systemClock, disk: systemDisk, ttlSeconds: 0 },
      ...{ env: () => undefined, say: () => {}, lost: () => {} },
    };
    for (const uri of [
      `etcd://${etcd.endpoint.slice(7)}/services`,
      `skydns2://${etcd.endpoint.slice(7)}/skydns.local`,
    ]) {
      const parsed = parseRegistryUri(uri);
      if (parsed === undefined) throw new Error(uri);
      const backend = openBackend(parsed, ground);
      await backend?.write({ ...entry, name: parsed.scheme }, signal);
      await expect.poll(() => found(agent, parsed.scheme), SLOW).toEqual(["10.0.0.1:8080"]);
      expect(agent.trilith.directory.view().residents(parsed.scheme)[0]?.node.name).toBe("host-1");
      await backend?.remove(backend.place({ ...entry, name: parsed.scheme }), signal);
      await expect.poll(() => found(agent, parsed.scheme), SLOW).toEqual([]);
    }
  });

  it("loses what a lease kept when it runs out, and says so", async () => {
    const agent = await agentOn();
    const lease = /lease (\w+) granted/.exec(await etcd.ctl("lease", "grant", "5"))?.[1] ?? "";
    await etcd.ctl("put", "--lease", lease, "/services/web/one", "10.0.0.1:80");
    await expect.poll(() => found(agent), SLOW).toEqual(["10.0.0.1:80"]);
    await expect.poll(() => found(agent), SLOW).toEqual([]);
    expect(whyOf(agent, "one")).toBe("etcd's key /services/web/one was removed, or its lease ran out");
  });

  it("keeps what it knows while etcd is killed, also over its own restart, and goes on after both", async () => {
    const folder = await ownFolder("etcd-source");
    ending.push(() => folder.remove());
    await etcd.ctl("put", "/services/web/one", "10.0.0.1:80");
    await etcd.ctl("put", "/skydns/local/skydns/web/a", '{"host": "10.0.0.2", "port": 80, "priority": 5}');
    await etcd.ctl("put", "/skydns/local/skydns/web/b", '{"host": "10.0.0.3", "port": 80, "priority": 9}');
    const first = await agentOn(etcd.endpoint, {}, folder.path);
    await expect.poll(() => found(first), SLOW).toEqual(["10.0.0.1:80", "10.0.0.2:80"]);
    await etcd.stop("SIGKILL");
    await expect
      .poll(() => stateOf(first), SLOW)
      .toMatchObject({ ok: false, text: expect.stringContaining("what is known stays") });
    expect(found(first)).toEqual(["10.0.0.1:80", "10.0.0.2:80"]);
    await first.stop();
    const second = await agentOn(etcd.endpoint, {}, folder.path);
    await expect.poll(() => stateOf(second).text, SLOW).toContain("ECONNREFUSED");
    expect(found(second)).toEqual(["10.0.0.1:80", "10.0.0.2:80"]);
    // Not by the guard's grace: they are recorded.
    expect(recorded(second)).toHaveLength(3);
    await etcd.start();
    await expect.poll(() => stateOf(second).ok, SLOW).toBe(true);
    await etcd.ctl("put", "/services/web/two", "10.0.0.4:80");
    await expect.poll(() => found(second), SLOW).toEqual(["10.0.0.1:80", "10.0.0.2:80", "10.0.0.4:80"]);
  });

  it("misses nothing that happened while it was cut off, compacted or not", async () => {
    const way: Cuttable = await cuttable(etcd.endpoint);
    ending.push(() => way.close());
    await etcd.ctl("put", "/services/web/one", "10.0.0.1:80");
    const agent = await agentOn(way.endpoint);
    await expect.poll(() => found(agent), SLOW).toEqual(["10.0.0.1:80"]);
    for (const compact of [false, true]) {
      way.cut();
      await expect.poll(() => stateOf(agent).ok, SLOW).toBe(false);
      const n = compact ? 3 : 2;
      await etcd.ctl("put", `/services/web/n${n}`, `10.0.0.${n}:80`);
      await etcd.ctl("del", compact ? "/services/web/n2" : "/services/web/one");
      if (compact) {
        const [, revision] = /"revision":(\d+)/.exec(await etcd.ctl("endpoint", "status", "-w", "json")) ?? [];
        await etcd.ctl("compact", String(revision));
      }
      way.mend();
      // What is recorded: the guard holds answers where most of three go at once.
      await expect.poll(() => recorded(agent), SLOW).toEqual([compact ? "n3" : "n2"]);
      await expect.poll(() => stateOf(agent).ok, SLOW).toBe(true);
    }
  });

  it("holds what an emptied etcd does not have, until its writers had their time", async () => {
    await etcd.ctl("put", "/services/web/one", "10.0.0.1:80");
    await etcd.ctl("put", "/services/web/two", "10.0.0.2:80");
    const agent = await agentOn(etcd.endpoint, { hold: "10s" });
    await expect.poll(() => found(agent), SLOW).toHaveLength(2);
    await etcd.wipe();
    await etcd.start();
    await expect.poll(() => stateOf(agent).text, SLOW).toContain("2 held although etcd does not have them");
    expect(found(agent)).toEqual(["10.0.0.1:80", "10.0.0.2:80"]);
    await etcd.ctl("put", "/services/web/two", "10.0.0.2:81");
    await expect.poll(() => found(agent), SLOW).toEqual(["10.0.0.1:80", "10.0.0.2:81"]);
    await expect.poll(() => found(agent), SLOW).toEqual(["10.0.0.2:81"]);
  });

  it("holds as well what was known before a restart, where etcd was emptied meanwhile", async () => {
    const folder = await ownFolder("etcd-source");
    ending.push(() => folder.remove());
    for (const n of [1, 2, 3]) await etcd.ctl("put", `/services/web/w${n}`, `10.0.0.${n}:80`);
    const first = await agentOn(etcd.endpoint, {}, folder.path);
    await expect.poll(() => recorded(first), SLOW).toHaveLength(3);
    await first.stop();
    await etcd.ctl("del", "/services/web/w1");
    const second = await agentOn(etcd.endpoint, {}, folder.path);
    // One of three has gone.
    await expect.poll(() => recorded(second), SLOW).toEqual(["w2", "w3"]);
    await second.stop();
    await etcd.wipe();
    await etcd.start();
    const third = await agentOn(etcd.endpoint, { hold: "4s" }, folder.path);
    await expect.poll(() => stateOf(third).text, SLOW).toContain("2 held although etcd does not have them");
    expect(recorded(third)).toEqual(["w2", "w3"]);
    await etcd.ctl("put", "/services/web/w2", "10.0.0.2:99");
    await expect.poll(() => found(third), SLOW).toContain("10.0.0.2:99");
    await expect.poll(() => recorded(third), SLOW).toEqual(["w2"]);
  });

  it("seen by two agents of one directory is one instance, which neither writes over the other's", async () => {
    const prefix = ownPrefix();
    const store = { endpoints: [etcd.endpoint], prefix, livenessMs: 15_000 };
    ending.push(() => etcd.ctl("del", "--prefix", prefix));
    const agents: RunningAgent[] = [];
    for (const node of ["alpha", "beta"]) {
      const agent = await startAgent({
        ...{ node, storage: "etcd", etcd: store },
        protocols: {
          etcd: { endpoints: [etcd.endpoint], registrator: "/services", skydns: "skydns.local", check_interval: "1s" },
        },
      });
      agents.push(agent);
      ending.push(() => agent.stop());
    }
    const [alpha, beta] = agents as [RunningAgent, RunningAgent];
    await etcd.ctl("put", "/services/web/one", "10.0.0.1:80");
    // Refused by both: the second one is used, once an agent has asked.
    await etcd.ctl("put", "/skydns/local/skydns/web/a", '{"host": "127.0.0.1", "port": 1, "priority": 5}');
    await etcd.ctl(
      "put",
      "/skydns/local/skydns/web/b",
      `{"host": "127.0.0.1", "port": ${etcd.endpoint.split(":").at(-1)}, "priority": 9}`,
    );
    const routable = ["10.0.0.1:80", etcd.endpoint.slice("http://".length)];
    for (const agent of agents) await expect.poll(() => found(agent), SLOW).toEqual(routable);
    const witnesses = ({ trilith }: RunningAgent): readonly (readonly string[])[] =>
      [...trilith.directory.view().list("node")].flatMap(({ witnessed = [] }) => witnessed.map(({ by }) => by));
    for (const agent of agents)
      await expect.poll(() => witnesses(agent), SLOW).toEqual([1, 2, 3].map(() => ["alpha", "beta"]));
    const indexes = (): number[] =>
      alpha.trilith.directory
        .view()
        .residents("web")
        .map(({ instance }) => instance.modifyIndex);
    await alpha.trilith.agent.synced();
    await beta.trilith.agent.synced();
    const standing = indexes();
    for (let i = 0; i < 30; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(indexes()).toEqual(standing);
    }
    await etcd.ctl("del", "/services/web/one");
    for (const agent of agents) await expect.poll(() => recorded(agent), SLOW).toEqual(["a.web", "b.web"]);
    for (const agent of agents) expect(agent.errors).toEqual([]);
  });

  it("does not take back what this directory has at first hand, nor its key once it is gone", async () => {
    const agent = await agentOn();
    const mine = { id: "alpha:web:80", name: "web", tags: [], labels: {}, address: "10.0.0.1", port: 80, checks: [] };
    await agent.trilith.agent.register("api", mine);
    await etcd.ctl("put", "/services/web/alpha:web:80", "10.0.0.1:80");
    await etcd.ctl("put", "/services/web/other", "10.0.0.2:80");
    await expect.poll(() => found(agent), SLOW).toEqual(["10.0.0.1:80", "10.0.0.2:80"]);
    await expect.poll(() => stateOf(agent).text, SLOW).toContain("1 of this directory's own left out");
    await agent.trilith.agent.deregister("api", mine.id);
    await etcd.ctl("put", "/services/web/other", "10.0.0.3:80");
    await expect.poll(() => found(agent), SLOW).toEqual(["10.0.0.3:80"]);
    // Removed and written anew it is somebody's again.
    await etcd.ctl("del", "/services/web/alpha:web:80");
    await expect.poll(() => stateOf(agent).text, SLOW).not.toContain("own left out");
    await etcd.ctl("put", "/services/web/alpha:web:80", "10.0.0.1:80");
    await expect.poll(() => found(agent), SLOW).toEqual(["10.0.0.1:80", "10.0.0.3:80"]);
  });

  it("shows who it is where etcd wants to know, and says what is refused", async () => {
    // Its users, and that it asks for them, go with it.
    ending.push(() => etcd.wipe());
    await etcd.ctl("put", "/services/web/one", "10.0.0.1:80");
    for (const words of [
      "user add root:secret",
      "user add reader:word",
      "role add reads",
      "role grant-permission reads read --prefix /services/",
    ])
      await etcd.ctl(...words.split(" "));
    await etcd.ctl("user", "grant-role", "reader", "reads");
    await etcd.ctl("user", "grant-role", "root", "root");
    await etcd.ctl("auth", "enable");
    const right = await agentOn(etcd.endpoint, { username: "reader", password: "word", skydns: [] });
    await expect.poll(() => found(right), SLOW).toEqual(["10.0.0.1:80"]);
    const wrong = await agentOn(etcd.endpoint, { username: "reader", password: "guess", skydns: [] });
    await expect
      .poll(() => stateOf(wrong), SLOW)
      .toMatchObject({ ok: false, text: expect.stringContaining("authentication failed") });
    const curious = await agentOn(etcd.endpoint, { username: "reader", password: "word", registrator: "/else" });
    await expect
      .poll(() => stateOf(curious), SLOW)
      .toMatchObject({ ok: false, text: expect.stringContaining("permission denied") });
  });
});
