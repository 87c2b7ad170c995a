// `trilith registrator` as a program: its recorded command lines, and what it does better: no ghosts, no lost entries, no needless writes.
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { createHttp } from "../../src/base/http.ts";
import { openZooKeeper, type ZooKeeper } from "../../src/base/zookeeper.ts";
import { commandExpectations } from "../golden/registrator-expectations.ts";
import { FakeEngine } from "../support/docker-engine.ts";
import { cuttable, type EtcdNode, startEtcd } from "../support/etcd.ts";
import { startAgent as startLibraryAgent } from "../support/ground.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../support/peers.ts";
import { type RunningAgent, startAgent } from "../support/program.ts";
import { casesOf, hostIp, type Running, startRegistrator } from "../support/registrator.ts";
import { haveZooKeeper, startZooKeeper, type ZooKeeperServer } from "../support/zookeeper.ts";

const run = promisify(execFile);
const host = hostname();
const openssl = await havePrograms("openssl");
const serving = createHttp();
let folder: Awaited<ReturnType<typeof ownFolder>>;
let engine: FakeEngine;
let agent: RunningAgent;
let ip: string;
const running: Running[] = [];

beforeAll(async () => {
  ip = await hostIp();
  agent = await startAgent(["-dev"]);
});
afterAll(async () => {
  await agent?.stop();
  await serving.close();
});
beforeEach(async () => {
  folder = await ownFolder("registrator-test");
  engine = new FakeEngine(join(folder.path, "docker.sock"));
  await engine.start(serving);
});
afterEach(async () => {
  for (const one of running.splice(0)) {
    await one.stop("SIGKILL");
    await one.remove();
  }
  await engine.stop();
  await folder.remove();
  await fetch(`${agent.url}/v1/kv/?recurse`, { method: "DELETE" });
});

/** Starts the program with a memory that outlives it, within the test. */
async function start(words: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Running> {
  const one = await startRegistrator(words, `unix://${engine.path}`, {
    TRILITH_REGISTRATOR_STATE: join(folder.path, "state.json"),
    ...env,
  });
  running.push(one);
  return one;
}

/** Adds a running container whose variables are these. */
function add(name: string, port: number, env: readonly string[] = ["SERVICE_NAME=web"]): string {
  const id = engine.add(name, port, (raw) => {
    raw["Config"] = { ...raw["Config"], Env: env, Hostname: name };
  });
  engine.happens("start", id);
  return id;
}
function die(id: string): void {
  engine.containers.delete(id);
  engine.happens("die", id, { exitCode: "0" });
}

const logged = (one: Running, line: string): Promise<true> =>
  eventually(`"${line}" in ${JSON.stringify(one.log())}`, () => one.log().includes(line), 20_000).then(() => true);

describe("recorded command lines", () => {
  const cases = casesOf("commandline");

  it("all have an expectation", () => {
    expect(Object.keys(commandExpectations).sort()).toEqual(cases.map(({ name }) => name).sort());
  });

  for (const recorded of cases)
    it(recorded.name, async () => {
      const later = recorded.exit_code === null;
      const port = later ? await freePort() : 1;
      const live = agent.url.replace("http://", "");
      const address = recorded.exit_code === "running" ? live : `127.0.0.1:${port}`;
      const here = (text: string): string => text.replace(/127\.0\.0\.1:\d+/g, address);
      // A leader that is just being chosen has no address yet, and ours is another one.
      const lines = (recorded.log ?? []).map(here).map((line) => line.replace(/(current leader {2}).*/, "$1"));
      const words = recorded.args ?? [...(recorded.flags ?? []), "consul://127.0.0.1:28500"];
      const one = await start(words.map(here));
      let late: Server | undefined;
      if (later) {
        await logged(one, "Connecting to backend (2/-1)");
        late = createServer((_, response) => response.end('""')).listen(port, "127.0.0.1");
      }
      const shown = (): string[] => one.log().map((line) => line.replace(/(current leader {2}).*/, "$1"));
      if (typeof recorded.exit_code === "number") {
        expect(await one.ended).toBe(recorded.exit_code);
        expect(shown().slice(0, lines.length)).toEqual(lines);
      } else {
        await logged(one, "Syncing services on 0 containers");
        // How often it tried depends on when the backend came.
        const sort = (all: readonly string[]): string[] => [
          ...new Set(all.map((line) => line.replace(/\(\d+\/-1\)/, "(n/-1)"))),
        ];
        expect(sort(shown())).toEqual(sort(lines));
      }
      late?.closeAllConnections();
      late?.close();
    });

  it("--version alone prints the version, -help the usage", async () => {
    const version = await start(["--version"]);
    expect(await version.ended).toBe(0);
    expect(version.log()).toEqual(["v7.4.0"]);
    const help = await start(["-help"]);
    expect(await help.ended).toBe(0);
    expect(help.log()).toContain("  -useIpFromLabel string");
  });

  it("a template or a DOCKER_HOST that cannot be read ends it at once, and says why", async () => {
    const template = await start(["-tags", "{{.Nope", agent.url.replace("http", "consul")]);
    expect(await template.ended).toBe(1);
    expect(template.log().at(-1)).toContain("unclosed action");
    const docker = await start([agent.url.replace("http", "consul")], { DOCKER_HOST: "ssh://far" });
    expect(await docker.ended).toBe(1);
    expect(docker.log().at(-1)).toContain("DOCKER_HOST");
  });
});

/** A Consul that remembers what it was asked. */
interface Recorder {
  readonly address: string;
  readonly requests: { readonly method: string; readonly url: string; readonly body: string; readonly token: string }[];
  readonly services: Map<string, Record<string, unknown>>;
  puts(): string[];
  close(): Promise<void>;
}

async function recorder(
  listen: number | string,
  tls?: { readonly key: string; readonly cert: string; readonly ca: string },
): Promise<Recorder> {
  const requests: Recorder["requests"] = [];
  const services: Recorder["services"] = new Map();
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    let body = "";
    request.on("data", (chunk) => {
      body += chunk;
    });
    request.on("end", () => {
      const { method = "", url = "", headers } = request;
      requests.push({ method, url, body, token: String(headers["x-consul-token"] ?? "") });
      if (url === "/v1/status/leader") return void response.end('"127.0.0.1:8300"');
      if (url === "/v1/agent/services") return void response.end(JSON.stringify(Object.fromEntries(services)));
      if (url === "/v1/agent/service/register") {
        const given = JSON.parse(body) as Record<string, unknown>;
        services.set(String(given["ID"]), {
          ...given,
          Service: given["Name"],
          Tags: given["Tags"] ?? [],
          Meta: given["Meta"] ?? {},
        });
      } else services.delete(decodeURIComponent(url.split("/").at(-1) ?? ""));
      response.end();
    });
  };
  const server =
    tls === undefined
      ? createServer(answer)
      : createTlsServer({ ...tls, requestCert: true, rejectUnauthorized: true }, answer);
  await new Promise<void>((resolve) => {
    if (typeof listen === "string") server.listen(listen, resolve);
    else server.listen(listen, "127.0.0.1", resolve);
  });
  const at = server.address() as AddressInfo | string;
  return {
    address: typeof at === "string" ? at : `127.0.0.1:${at.port}`,
    requests,
    services,
    puts: () => requests.filter(({ method }) => method === "PUT").map(({ url }) => url),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

describe("consul://", () => {
  let consul: Recorder;
  beforeEach(async () => {
    consul = await recorder(0);
  });
  afterEach(() => consul.close());

  it("sends the recorded bodies; a resync that finds all as it was writes nothing; what was lost comes back", async () => {
    add("pre", 21090, ["SERVICE_NAME=pre"]);
    const one = await start(["-resync", "1", `consul://${consul.address}`]);
    await logged(one, `added: 7072652d2d2d ${host}:pre:80`);
    // The request of the recorded trace, byte for byte.
    expect(consul.requests.find(({ method }) => method === "PUT")?.body).toBe(
      `{"ID":"${host}:pre:80","Name":"pre","Port":21090,"Address":"${ip}","Check":null,"Checks":null}\n`,
    );
    const syncs = (): number => one.log().filter((line) => line === "Syncing services on 1 containers").length;
    await eventually("three resyncs", () => syncs() > 3);
    expect(consul.puts()).toEqual(["/v1/agent/service/register"]);
    consul.services.clear();
    await eventually("registered anew", () => consul.services.size === 1);
    const id = add("next", 21091, ["SERVICE_NAME=next", "SERVICE_CHECK_TTL=60s"]);
    await eventually("the next one", () => consul.services.size === 2);
    expect(consul.services.get(`${host}:next:80`)).toMatchObject({
      Check: { TTL: "1m0s" },
      Meta: { check_ttl: "60s" },
    });
    die(id);
    await logged(one, `removed: 6e6578742d2d ${host}:next:80`);
    expect(consul.puts().at(-1)).toBe(`/v1/agent/service/deregister/${host}:next:80`);
  });

  it("ended by a signal it deregisters nothing; started again it writes nothing, and takes out what ended meanwhile, SERVICE_ID or not", async () => {
    const ids = [add("stays", 1), add("ends", 2), add("named", 3, ["SERVICE_ID=own-id"])];
    const first = await start([`consul://${consul.address}`]);
    await eventually("all three", () => consul.services.size === 3);
    await logged(first, `added: 73746179732d ${host}:stays:80`);
    await eventually("all three are remembered", async () => {
      const { places } = JSON.parse(await readFile(join(folder.path, "state.json"), "utf8")) as { places: object };
      return Object.values(places).length === 3 && !Object.values(places).includes("");
    });
    await first.stop("SIGTERM");
    expect(await first.ended).toBeNull();
    expect(consul.services.size).toBe(3);
    for (const id of ids.slice(1)) engine.containers.delete(id);
    const before = consul.puts().length;
    const second = await start([`consul://${consul.address}`]);
    await eventually("the ended ones are gone", () => consul.services.size === 1);
    await logged(second, `added: 73746179732d ${host}:stays:80`);
    expect(consul.puts().slice(before).sort()).toEqual(
      [`/v1/agent/service/deregister/${host}:ends:80`, "/v1/agent/service/deregister/own-id"].sort(),
    );
  });

  it("without its memory nothing that stands is touched but by -cleanup, which knows its own ID form", async () => {
    for (const id of [`${host}:gone:80`, "manual", "other:gone:80"]) consul.services.set(id, { Service: "web" });
    const first = await start([`consul://${consul.address}`], { TRILITH_REGISTRATOR_STATE: "off" });
    add("web", 1);
    await eventually("registered", () => consul.services.size === 4);
    await first.stop();
    await start(["-cleanup", `consul://${consul.address}`], { TRILITH_REGISTRATOR_STATE: "off" });
    await eventually("cleaned", () => consul.services.size === 3);
    expect([...consul.services.keys()].sort()).toEqual([`${host}:web:80`, "manual", "other:gone:80"].sort());
  });

  it("CONSUL_HTTP_TOKEN, consul-unix:// and CONSUL_HTTP_ADDR", async () => {
    const socket = join(folder.path, "consul.sock");
    const local = await recorder(socket);
    try {
      add("web", 1);
      await start([`consul-unix://${socket}`], { CONSUL_HTTP_TOKEN: "secret" });
      await eventually("by the socket", () => local.services.size === 1);
      expect(new Set(local.requests.map(({ token }) => token))).toEqual(new Set(["secret"]));
      await start(["consul://"], { CONSUL_HTTP_ADDR: consul.address, TRILITH_REGISTRATOR_STATE: "off" });
      await eventually("by the variable", () => consul.services.size === 1);
    } finally {
      await local.close();
    }
  });

  it.runIf(openssl)("consul-tls:// with CONSUL_CACERT, CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY", async () => {
    const at = (name: string): string => join(folder.path, name);
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    await run("openssl", [
      ...["req", "-x509", ...key, "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"],
      ...["-keyout", at("key.pem"), "-out", at("cert.pem")],
    ]);
    const pem = await readFile(at("cert.pem"), "utf8");
    const far = await recorder(0, { key: await readFile(at("key.pem"), "utf8"), cert: pem, ca: pem });
    try {
      add("web", 1);
      const known = { CONSUL_CACERT: at("cert.pem") };
      const stranger = await start([`consul-tls://${far.address}`], known);
      expect(await stranger.ended).toBe(1);
      await start([`consul-tls://${far.address}`], {
        ...known,
        CONSUL_CLIENT_CERT: at("cert.pem"),
        CONSUL_CLIENT_KEY: at("key.pem"),
      });
      await eventually("registered over TLS", () => far.services.size === 1);
    } finally {
      await far.close();
    }
  });

  it("a Trilith agent takes it as Consul does: found by name, checks and all", async () => {
    add("api", 21100, [
      "SERVICE_NAME=api",
      "SERVICE_TAGS=a,b",
      "SERVICE_REGION=eu",
      "SERVICE_CHECK_TTL=30s",
      "SERVICE_CHECK_INITIAL_STATUS=passing",
    ]);
    await start([agent.url.replace("http", "consul")]);
    const found = await eventually("found", async () => {
      const list = (await (await fetch(`${agent.url}/v1/health/service/api?passing`)).json()) as { Service: unknown }[];
      return list[0]?.Service as Record<string, unknown> | undefined;
    });
    expect(found).toMatchObject({
      ID: `${host}:api:80`,
      Port: 21100,
      Address: ip,
      Tags: ["b", "a"],
      Meta: { region: "eu" },
    });
  });
});

describe.runIf(await havePrograms("etcd"))("etcd://", () => {
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
    await etcd.wipe();
    const short = add("short", 4);
    await eventually(
      "it is noticed",
      () => one.log().filter((line) => line.startsWith("etcd: trying again: ")).length === 2,
    );
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
    const raw = engine.containers.get(id) as { State: object };
    raw.State = { ...raw.State, Running: false, Status: "exited", ExitCode: 1 };
    engine.happens("die", id, { exitCode: "1" });
    await eventually("run out", async () => Object.keys(await v2()).length === 0);
    raw.State = { ...raw.State, Running: true, Status: "running" };
    engine.happens("start", id);
    await eventually("runs again", async () => Object.keys(await v2()).length === 1);
  });

  it("an agent writes its containers there besides, as `docker.backends` says", async () => {
    etcd = await startEtcd(["--enable-v2=true"]);
    const uri = `${etcd.endpoint.replace("http", "etcd")}/services`;
    const both = await startLibraryAgent({
      protocols: {
        docker: { host: `unix://${engine.path}`, ip: "192.0.2.7", backends: [{ uri, ttl: "4s" }] },
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

describe.runIf(await haveZooKeeper())("zookeeper://", () => {
  let server: ZooKeeperServer;
  let eye: ZooKeeper;
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
    const first = await start([`zookeeper://${server.address}/base`]);
    const znode = `/base/web/${ip}:1`;
    await eventually(
      "both",
      async () => (await eye.get(znode)) !== undefined && (await eye.children("/base/ghost"))?.length === 1,
    );
    const owner = (await eye.get(znode))?.stat.owner;
    await eventually("told", () => first.log().some((line) => line.startsWith("added: ") && line.includes(":web:")));
    await first.stop("SIGKILL");
    engine.containers.delete(ghost);
    await start([`zookeeper://${server.address}/base`]);
    await eventually("taken over", async () => ![undefined, owner].includes((await eye.get(znode))?.stat.owner));
    await eventually("the ghost is gone", async () => (await eye.children("/base/ghost")) === undefined);
  });

  it("a server that is killed and started again loses nothing; a silent one neither", async () => {
    const id = add("web", 1);
    const one = await start([`zookeeper://${server.address}/again`]);
    const znode = `/again/web/${ip}:1`;
    await eventually("there", async () => (await eye.get(znode)) !== undefined);
    await server.stop("SIGKILL");
    add("late", 2);
    await server.start();
    await eventually("both", async () => (await eye.children("/again/web"))?.length === 2, 30_000);
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
      await zk.makePath("/client/a/b");
      const rings: string[] = [];
      expect(await zk.get("/client/x", () => void rings.push("came"))).toBeUndefined();
      await zk.create("/client/x", "1", "ephemeral");
      await eventually("the watch rings", () => rings.includes("came"));
      await expect(zk.create("/client/x", "2", "ephemeral")).rejects.toMatchObject({ code: "conflict" });
      await expect(zk.create("/client/no/where", "2", "ephemeral")).rejects.toMatchObject({ code: "not-found" });
      await expect(zk.remove("/client/a")).rejects.toMatchObject({ code: "conflict" });
      await expect(zk.get("relative")).rejects.toMatchObject({ code: "invalid" });
      expect(await zk.remove("/client/nothing")).toBe(false);
      const session = zk.session();
      expect(await zk.children("/client", () => void rings.push("over"))).toEqual(expect.arrayContaining(["a", "x"]));
      way.freeze();
      await eventually("the silence is noticed", () => news.includes("away"));
      await eventually("the server gives the session up", async () => (await eye.get("/client/x")) === undefined);
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

describe("the memory", () => {
  it("a place that cannot be written is told once, and it goes on", async () => {
    await writeFile(join(folder.path, "file"), "");
    add("web", 1);
    const one = await start([`${agent.url.replace("http", "consulkv")}/mem`], {
      TRILITH_REGISTRATOR_STATE: join(folder.path, "file/state.json"),
    });
    await eventually("registered all the same", async () => (await fetch(`${agent.url}/v1/kv/mem/?recurse`)).ok);
    add("two", 2);
    await eventually("both", () => one.log().filter((line) => line.startsWith("added: ")).length === 2);
    expect(one.log().filter((line) => line.includes("cannot be remembered"))).toHaveLength(1);
  });
});
