// `trilith registrator` with real etcd and ZooKeeper: outages, restarts, TTLs, sessions; and an agent that writes there besides.
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { openZooKeeper, type ZooKeeper } from "../../src/base/zookeeper.ts";
import { cuttable, type EtcdNode, startEtcd } from "../support/etcd.ts";
import { startAgent as startLibraryAgent } from "../support/ground.ts";
import { eventually, havePrograms } from "../support/peers.ts";
import { hostIp, openScene, type Scene } from "../support/registrator.ts";
import { haveZooKeeper, startZooKeeper, type ZooKeeperServer } from "../support/zookeeper.ts";

const run = promisify(execFile);
const host = hostname();
let scene: Scene;
let ip: string;
const start: Scene["start"] = (...given) => scene.start(...given);
const add: Scene["add"] = (...given) => scene.add(...given);
const die: Scene["die"] = (id) => scene.die(id);

beforeAll(async () => {
  ip = await hostIp();
});
beforeEach(async () => {
  scene = await openScene();
});
afterEach(() => scene.over());

describe.runIf(await havePrograms("etcd"))("etcd://", { timeout: 150_000 }, () => {
  let etcd: EtcdNode;
  afterEach(() => etcd?.remove());
  const v2 = async (): Promise<Record<string, { value: string; index: number }>> => {
    const answer = (await (await fetch(`${etcd.endpoint}/v2/keys/services/web`)).json()) as {
      node?: { nodes?: { key: string; value: string; modifiedIndex: number }[] };
    };
    return Object.fromEntries(
      (answer.node?.nodes ?? []).map(({ key, value, modifiedIndex }) => [key, { value, index: modifiedIndex }]),
    );
  };

  it("away for a while, then back, then back empty: what changed meanwhile is there, nothing is lost, nothing written twice", async () => {
    etcd = await startEtcd(["--enable-v2=true"]);
    const gone = add("gone", 1);
    add("stays", 2);
    const one = await start([`${etcd.endpoint.replace("http", "etcd")}/services`]);
    await eventually("both", async () => Object.keys(await v2()).length === 2);
    const { index } = (await v2())[`/services/web/${host}:stays:80`] ?? { index: -1 };
    await etcd.stop("SIGKILL");
    die(gone);
    add("new", 3);
    await eventually("it is noticed", () => one.log().some((line) => line.startsWith("etcd: trying again: ")));
    await etcd.start();
    await eventually("back", async () => {
      const keys = Object.keys(await v2());
      return keys.length === 2 && keys.includes(`/services/web/${host}:new:80`);
    });
    expect((await v2())[`/services/web/${host}:stays:80`]).toEqual({ value: `${ip}:2`, index });
    const troubles = (): number => one.log().filter((line) => line.startsWith("etcd: trying again: ")).length;
    const before = troubles();
    await etcd.wipe();
    const short = add("short", 4);
    await eventually("it is noticed", () => troubles() > before);
    die(short);
    await etcd.start();
    add("last", 5);
    await eventually("filled anew", async () => Object.keys(await v2()).length === 3);
  });

  it("without the v2 API: the same keys by v3, kept alive by leases, anew after they ran out", async () => {
    etcd = await startEtcd();
    const id = add("web", 21080, ["SERVICE_NAME=web"]);
    const one = await start(["-ttl", "3", "-ttl-refresh", "1", `${etcd.endpoint.replace("http", "etcd")}/services`]);
    const get = (): Promise<string> => etcd.ctl("get", "--prefix", "/services/");
    const there = `/services/web/${host}:web:80\n${ip}:21080\n`;
    await eventually("written", async () => (await get()) === there);
    const refreshed = (): number => one.log().filter((line) => line.startsWith("refreshed: ")).length;
    await eventually("refreshed for longer than the TTL", () => refreshed() >= 5);
    expect(await get()).toBe(there);
    one.signal("SIGSTOP");
    await eventually("run out", async () => (await get()) === "");
    one.signal("SIGCONT");
    await eventually("anew", async () => (await get()) === there);
    die(id);
    await eventually("removed", async () => (await get()) === "");
    expect(await etcd.ctl("lease", "list")).toContain("found 0 leases");
  });

  it("under -deregister on-success a failure stays, and runs out with its TTL", async () => {
    etcd = await startEtcd(["--enable-v2=true"]);
    const id = add("web", 21080);
    await start([
      "-deregister",
      "on-success",
      "-ttl",
      "3",
      "-ttl-refresh",
      "1",
      `${etcd.endpoint.replace("http", "etcd")}/services`,
    ]);
    await eventually("written", async () => Object.keys(await v2()).length === 1);
    const raw = scene.engine.containers.get(id) as { State: object };
    raw.State = { ...raw.State, Running: false, Status: "exited", ExitCode: 1 };
    scene.engine.happens("die", id, { exitCode: "1" });
    await eventually("run out", async () => Object.keys(await v2()).length === 0);
    raw.State = { ...raw.State, Running: true, Status: "running" };
    scene.engine.happens("start", id);
    await eventually("runs again", async () => Object.keys(await v2()).length === 1);
  });

  it("an agent writes its containers there besides, as `docker.backends` says", async () => {
    etcd = await startEtcd(["--enable-v2=true"]);
    const uri = `${etcd.endpoint.replace("http", "etcd")}/services`;
    const both = await startLibraryAgent({
      protocols: {
        docker: { host: `unix://${scene.engine.path}`, ip: "192.0.2.7", backends: [{ uri, ttl: "4s" }] },
        process: undefined,
      },
    });
    try {
      const id = add("web", 21080);
      const found = async (): Promise<unknown[]> =>
        (await (await fetch(`${both.url}/v1/health/service/web?passing`)).json()) as unknown[];
      await eventually(
        "in etcd",
        async () => (await v2())[`/services/web/${host}:web:80`]?.value === "192.0.2.7:21080",
      );
      await eventually("in the directory", async () => (await found()).length === 1);
      const { index } = (await v2())[`/services/web/${host}:web:80`] ?? { index: -1 };
      await eventually("refreshed", async () => ((await v2())[`/services/web/${host}:web:80`]?.index ?? 0) > index);
      die(id);
      await eventually(
        "gone from both",
        async () => (await found()).length === 0 && Object.keys(await v2()).length === 0,
      );
    } finally {
      await both.stop();
    }
    await expect(startLibraryAgent({ protocols: { docker: { backends: ["foo://x"] } } })).rejects.toThrow(
      'docker.backends[0].uri: "foo://x": expected consul://',
    );
  });

  it("the README's example", async () => {
    etcd = await startEtcd(["--enable-v2=true"]);
    const readme = await readFile(join(import.meta.dirname, "../../src/protocols/docker/README.md"), "utf8");
    const [, block = ""] = /<!-- registrator -->\n+```sh\n([\s\S]*?)```/.exec(readme) ?? [];
    const here = block.replaceAll("127.0.0.1:2379", etcd.endpoint.replace("http://", ""));
    const [first = "", second = ""] = here.split("\n");
    add("web", 21080);
    await start(first.replace("trilith registrator ", "").split(" "));
    const shown = await eventually("shown", async () => {
      const { stdout } = await run("sh", ["-c", second]);
      return stdout.includes(`"key":"/services/web/${host}:web:80"`) && stdout;
    });
    expect(shown).toContain(`"value":"${ip}:21080"`);
    expect(shown).toMatch(/"ttl":(59|60)/);
  });

  it("skydns2:// on v3", async () => {
    etcd = await startEtcd();
    add("web", 21080);
    await start([`${etcd.endpoint.replace("http", "skydns2")}/skydns.local`]);
    await eventually(
      "written",
      async () =>
        (await etcd.ctl("get", "--prefix", "/skydns/")) ===
        `/skydns/local/skydns/web/${host}:web:80\n{"host":"${ip}","port":21080}\n`,
    );
  });
});

describe.runIf(await haveZooKeeper())("zookeeper://", { timeout: 150_000 }, () => {
  let server: ZooKeeperServer;
  let eye: ZooKeeper;
  /** Of the running test: what a try before it made is elsewhere. */
  let top = "";
  let tries = 0;
  beforeEach(async () => {
    await server.start();
    top = `/try-${++tries}`;
  });
  beforeAll(async () => {
    server = await startZooKeeper();
    eye = await openZooKeeper({ servers: server.address, sessionTimeoutMs: 20_000, clock: systemClock });
  });
  afterAll(async () => {
    await eye?.close();
    await server?.remove();
  });

  it("killed and started again: the znodes of the restarted program are its own, a ghost is gone at once, empty names too", async () => {
    const ghost = add("ghost", 2, ["SERVICE_NAME=ghost"]);
    add("web", 1);
    const first = await start([`zookeeper://${server.address}${top}`]);
    const znode = `${top}/web/${ip}:1`;
    await eventually(
      "both",
      async () => (await eye.get(znode)) !== undefined && (await eye.children(`${top}/ghost`))?.length === 1,
    );
    const owner = (await eye.get(znode))?.stat.owner;
    await eventually("told", () => first.log().some((line) => line.startsWith("added: ") && line.includes(":web:")));
    await first.stop("SIGKILL");
    scene.engine.containers.delete(ghost);
    await start([`zookeeper://${server.address}${top}`]);
    await eventually("taken over", async () => ![undefined, owner].includes((await eye.get(znode))?.stat.owner));
    await eventually("the ghost is gone", async () => (await eye.children(`${top}/ghost`)) === undefined);
  });

  it("a server that is killed and started again loses nothing; a silent one neither", async () => {
    const id = add("web", 1);
    const one = await start([`zookeeper://${server.address}${top}`]);
    const znode = `${top}/web/${ip}:1`;
    await eventually("there", async () => (await eye.get(znode)) !== undefined);
    await server.stop("SIGKILL");
    add("late", 2);
    await server.start();
    await eventually("both", async () => (await eye.children(`${top}/web`))?.length === 2, 40_000);
    await eventually("connected again", () => one.log().filter((line) => line.startsWith("Connected to ")).length >= 2);
    die(id);
    await eventually("removed", async () => (await eye.get(znode)) === undefined, 30_000);
  });

  it("sessions, watches and errors of the client itself", async () => {
    const news: string[] = [];
    const way = await cuttable(`http://${server.address}`);
    const zk = await openZooKeeper({
      servers: way.endpoint.replace("http://", ""),
      sessionTimeoutMs: 1_500,
      clock: systemClock,
      onNews: ({ what }) => void news.push(what),
    });
    try {
      await zk.makePath(`${top}/a/b`);
      const rings: string[] = [];
      expect(await zk.get(`${top}/x`, () => void rings.push("came"))).toBeUndefined();
      await zk.create(`${top}/x`, "1", "ephemeral");
      await eventually("the watch rings", () => rings.includes("came"));
      await expect(zk.create(`${top}/x`, "2", "ephemeral")).rejects.toMatchObject({ code: "conflict" });
      await expect(zk.create(`${top}/no/where`, "2", "ephemeral")).rejects.toMatchObject({ code: "not-found" });
      await expect(zk.remove(`${top}/a`)).rejects.toMatchObject({ code: "conflict" });
      await expect(zk.get("relative")).rejects.toMatchObject({ code: "invalid" });
      expect(await zk.remove(`${top}/nothing`)).toBe(false);
      const session = zk.session();
      expect(await zk.children(`${top}`, () => void rings.push("over"))).toEqual(expect.arrayContaining(["a", "x"]));
      way.freeze();
      await eventually("the silence is noticed", () => news.includes("away"));
      await eventually("the server gives the session up", async () => (await eye.get(`${top}/x`)) === undefined);
      way.mend();
      await eventually("a new session", () => zk.session() !== "" && zk.session() !== session);
      await eventually("watches of the last one ring", () => rings.includes("over"));
    } finally {
      await zk.close();
      await way.close();
    }
    await expect(zk.get("/")).rejects.toMatchObject({ code: "stopped" });
  });
});
