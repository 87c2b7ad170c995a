// `node --import trilith/hook` with real programs: Node's own modules in several versions, ioredis, pg, undici; tables and agents that come, change and go.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import dgram from "node:dgram";
import { once } from "node:events";
import { chmod, mkdir, readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createSecureServer, type Http2ServerRequest, type Http2ServerResponse } from "node:http2";
import type { AddressInfo } from "node:net";
import { dirname, join, resolve } from "node:path";
import type { TLSSocket } from "node:tls";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { hookLibrary } from "../../src/base/native-build.ts";
import { decodeObserved } from "../../src/wire/hook-observed.ts";
import { decodeHookTable } from "../../src/wire/hook-table.ts";
import { npmWith } from "../support/clients.ts";
import { type SomeService, writeTable } from "../support/hook-table-bytes.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import { startPostgres } from "../support/postgres.ts";
import { program } from "../support/program.ts";
import { silentPorts } from "../support/silent-ports.ts";

const run = promisify(execFile);
const programs = resolve(import.meta.dirname, "../support/hook-node");
const hook = join(dirname(dirname(program)), "hook.js");
const able = await havePrograms("openssl", "redis-server", "redis-cli", "setpriv", "pg_ctlcluster", "cc", "curl");
/** Besides the one that runs this. */
const VERSIONS = ["22", "24", "latest"];

type Listening = Server | ReturnType<typeof createSecureServer>;
const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of cleanUp.splice(0).reverse()) await step();
});

async function portOf(server: Listening): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanUp.push(() => {
    server.close();
    if ("closeAllConnections" in server) (server as Server).closeAllConnections();
  });
  return (server.address() as AddressInfo).port;
}

async function silentOnes(count: number): Promise<{ readonly ports: readonly number[] }> {
  const silent = await silentPorts(count);
  cleanUp.push(silent.stop);
  return silent;
}

/** Answers with a name, the Host header and what was sent. */
function web(name: string): Server {
  return createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    response.end(`${name} ${request.headers.host}${text === "" ? "" : ` ${text}`}`);
  });
}

/** In the place of others: chosen only after all that have a weight. */
const after = (...ports: readonly number[]): SomeService["backends"] =>
  ports.map((port) => ({ address: "127.0.0.1", port, weight: 0 }));
const at = (...ports: readonly number[]): SomeService["backends"] =>
  ports.map((port) => ({ address: "127.0.0.1", port }));

describe.skipIf(!able)("node --import trilith/hook", { timeout: 120_000 }, () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let table: string;
  const nodes: string[] = [process.execPath];
  let ca: string;
  let key: Buffer;
  let cert: Buffer;

  beforeAll(async () => {
    folder = await ownFolder("hook-node");
    const platform = `node-${process.platform}-${process.arch}`;
    await Promise.all(
      VERSIONS.map(async (version) => {
        const home = await ownFolder(`hook-node-${version}`);
        cleanUpAll.push(home.remove);
        await npmWith(home.path, `${platform}@${version}`);
        nodes.push(join(home.path, "node_modules", platform, "bin/node"));
      }),
    );
    ca = join(folder.path, "cert.pem");
    const keyFile = join(folder.path, "key.pem");
    const words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"];
    const names = ["-subj", "/CN=test", "-addext", "subjectAltName=DNS:secure.service.consul"];
    await run("openssl", ["req", "-x509", ...words, ...names, "-keyout", keyFile, "-out", ca]);
    [key, cert] = [await readFile(keyFile), await readFile(ca)];
  }, 600_000);
  const cleanUpAll: (() => unknown)[] = [];
  afterAll(async () => {
    for (const step of cleanUpAll) await step();
    await folder.remove();
  });

  let tables = 0;
  const put = (services: Record<string, SomeService>): void => writeTable(table, services, ++tables);
  const newTable = (services?: Record<string, SomeService>): void => {
    table = join(folder.path, `table-${++tables}`);
    if (services !== undefined) put(services);
  };

  /** Starts a hooked program. */
  function start(
    file: string,
    words: readonly string[],
    { node = process.execPath, env = {}, flags }: Options = {},
  ): { child: ChildProcess; line(): Promise<string>; ended: Promise<unknown> } {
    const child = spawn(node, [...(flags ?? ["--import", hook]), file, ...words], {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, NODE_OPTIONS: "", TRILITH_HOOK_TABLE: table, ...env },
    });
    cleanUp.push(() => child.kill("SIGKILL"));
    let out = "";
    let err = "";
    let wake: (() => void) | undefined;
    child.stdout?.on("data", (chunk) => {
      out += chunk;
      wake?.();
    });
    child.stderr?.on("data", (chunk) => {
      err += chunk;
    });
    const closed = once(child, "close").then(([code]) => {
      wake?.();
      return code as number | null;
    });
    const last = closed.then((code) => {
      if (code !== 0 || err !== "") throw new Error(`${file} ${words.join(" ")} ended with ${code}: ${err}${out}`);
      return JSON.parse(out.trim().split("\n").at(-1) ?? "") as unknown;
    });
    last.catch(() => {});
    let taken = 0;
    return {
      child,
      async line() {
        for (;;) {
          const end = out.indexOf("\n", taken);
          if (end >= 0) {
            const line = out.slice(taken, end);
            taken = end + 1;
            return line;
          }
          if (child.exitCode !== null) throw new Error(`it ended: ${err}${out}`);
          await new Promise<void>((done) => {
            wake = done;
          });
        }
      },
      ended: last,
    };
  }
  interface Options {
    readonly node?: string;
    readonly env?: Readonly<Record<string, string>>;
    readonly flags?: readonly string[];
  }
  const node = (file: string, words: readonly string[], options?: Options): Promise<unknown> => {
    const one = start(file, words, options);
    one.child.stdin?.end();
    return one.ended;
  };
  const main = join(programs, "program.mjs");

  it("leads everything that Node has to the backends, past two that refuse, in every version", async () => {
    const secure = createSecureServer({ key, cert, allowHTTP1: true }, (request, response) => {
      const { servername } = request.socket as TLSSocket & { servername: string };
      response.end(`${servername} ${request.headers.host ?? request.headers[":authority"]}`);
    });
    const dead = [await freePort(), await freePort()];
    newTable({
      web: { policy: "first", backends: [...at(...dead), ...after(await portOf(web("one")))] },
      secure: { policy: "first", backends: [...at(...dead), ...after(await portOf(secure))] },
    });
    const answer = "one web.service.consul";
    for (const version of nodes)
      expect(await node(main, ["everything", "web.service.consul", ca], { node: version })).toEqual({
        lookup: "127.128.0.1",
        named: [{ address: "127.128.0.1", family: 4 }],
        promised: "fd12:3456:789a::1",
        common: "127.128.0.1",
        http: answer,
        httpNoAgent: answer,
        httpAgent: answer,
        fetch: answer,
        post: `${answer} body`,
        remote: "127.0.0.1",
        https: "secure.service.consul secure.service.consul",
        tls: [true, "h2"],
        http2: "secure.service.consul secure.service.consul:443",
      });
  }, 120_000);

  it("shares a program with the C library by LD_PRELOAD", async () => {
    const secure = createSecureServer({ key, cert, allowHTTP1: true }, (_, response) => response.end("secure"));
    const dead = [await freePort(), await freePort()];
    newTable({
      web: { policy: "first", backends: [...at(...dead), ...after(await portOf(web("one")))] },
      secure: { policy: "first", backends: [...at(...dead), ...after(await portOf(secure))] },
    });
    const env = { LD_PRELOAD: await hookLibrary("glibc") };
    for (const version of nodes) {
      const words = ["everything", "web.service.consul", ca];
      const both = (await node(main, words, { node: version, env })) as object;
      expect(both).toEqual(await node(main, words, { node: version }));
      expect(both).toMatchObject({ fetch: "one web.service.consul", https: "secure", remote: "127.0.0.1" });
    }
  }, 180_000);

  it("reaches into workers, clusters and child processes, and datagrams", async () => {
    const udp = dgram.createSocket("udp4").bind(0, "127.0.0.1");
    await once(udp, "listening");
    cleanUp.push(() => udp.close());
    udp.on("message", (bytes, from) => udp.send(`pong ${bytes}`, from.port, from.address));
    newTable({ web: { backends: at(await portOf(web("one"))) }, dns: { backends: at(udp.address().port) } });
    for (const version of nodes) {
      for (const what of ["worker", "cluster"])
        expect(await node(main, [what], { node: version })).toBe("one web.service.consul");
      expect(await node(main, ["datagrams", "dns.service.consul"], { node: version })).toBe("pong ping");
      const env = { NODE_OPTIONS: `--import ${hook}` };
      expect(await node(main, ["child"], { node: version, flags: [], env })).toBe("one web.service.consul");
    }
  }, 120_000);

  it("works where Node is restricted: no /proc, files as permitted, small files only; and under node --test", async () => {
    // With a place for counters, which the other tests' programs do without.
    const own = await ownFolder("hook-node-restricted");
    cleanUp.push(own.remove);
    await mkdir(join(own.path, "observed"));
    table = join(own.path, "table");
    put({ web: { policy: "first", backends: at(await freePort(), await portOf(web("one"))) } });
    const answer = "one web.service.consul";
    const folderless = `mount -t tmpfs none /proc && exec "$@"`;
    const env = { ...process.env, NODE_OPTIONS: "", TRILITH_HOOK_TABLE: table };
    const fetched = [main, "fetch", "web.service.consul"];
    for (const version of nodes) {
      const hooked = [version, "--import", hook, ...fetched];
      const [no, small] = await Promise.all([
        run("unshare", ["-m", "sh", "-c", folderless, "sh", ...hooked], { env }),
        run("bash", ["-c", 'ulimit -f 100; exec "$@"', "bash", ...hooked], { env }),
      ]);
      expect([no.stdout, no.stderr, small.stdout, small.stderr]).toEqual([`"${answer}"\n`, "", `"${answer}"\n`, ""]);
      // Without a right to read it there is no table, and no harm.
      const { stdout: flag } = await run(version, ["-p", 'process.allowedNodeEnvironmentFlags.has("--permission")']);
      const permission = flag === "true\n" ? "--permission" : "--experimental-permission";
      const rights = [permission, "--no-warnings", `--allow-fs-read=${hook}`, `--allow-fs-read=${main}`];
      // From Node 25 on the network wants a right of its own.
      if (Number((await run(version, ["--version"])).stdout.slice(1).split(".")[0]) >= 25) rights.push("--allow-net");
      const said = run(version, [...rights, "--import", hook, main, "resolved", "web.service.consul"], { env });
      expect((await said).stdout).toBe('"ENOTFOUND"\n');
      const tested = await run(version, ["--import", hook, "--test", join(programs, "tested.mjs")], { env });
      expect(tested.stdout).toMatch(/pass 1\n/);
    }
  }, 120_000);

  it("is not noticed by a program that uses no service, whether there is a table or not", async () => {
    const port = await portOf(web("one"));
    newTable();
    for (const version of nodes) {
      const words = ["foreign", "-", String(port)];
      const plain = await node(main, words, { node: version, flags: [] });
      expect(await node(main, words, { node: version })).toEqual(plain);
      put({ web: { backends: [] } });
      expect(await node(main, words, { node: version })).toEqual(plain);
    }
  }, 120_000);

  it("goes on to the next one where a backend is silent, and does not ask it again at once", async () => {
    const [silent = 0] = (await silentOnes(1)).ports;
    const six = web("six");
    six.listen(0, "::1");
    await once(six, "listening");
    cleanUp.push(() => six.close());
    const over6 = [{ address: "::1", port: (six.address() as AddressInfo).port }];
    newTable({
      web: { policy: "first", tryMs: 1_500, backends: [...at(silent), ...after(await portOf(web("two")))] },
      both: {
        policy: "first",
        tryMs: 30_000,
        backends: [...over6, ...at(await freePort(), silent).map((each) => ({ ...each, tier: 1 as const }))],
      },
    });
    // Node itself goes on to IPv6 while a try with IPv4 waits.
    for (const version of nodes)
      expect(await node(main, ["fetch", "both.service.consul"], { node: version })).toBe("six both.service.consul");
    const [text, first, second] = (await node(main, ["hang"])) as [string, number, number];
    expect(text).toBe("two web.service.consul");
    // Another one is tried beside it after 250 ms.
    expect(first).toBeGreaterThan(240);
    expect(second).toBeLessThan(240);
  });

  it("reaches the one of twelve that lives at the first try, whether the others refuse or are silent", async () => {
    const handle = (request: IncomingMessage | Http2ServerRequest, response: ServerResponse | Http2ServerResponse) => {
      const { servername } = request.socket as TLSSocket & { servername: string };
      (response as ServerResponse).end(`${servername} ${request.headers.host ?? request.headers[":authority"]}`);
    };
    const secure = await portOf(createSecureServer({ key, cert, allowHTTP1: true }, handle));
    const rpc = new grpc.Server();
    const text = (value: string): Buffer => Buffer.from(value);
    const words = {
      requestSerialize: text,
      requestDeserialize: String,
      responseSerialize: text,
      responseDeserialize: String,
    };
    rpc.addService(
      { who: { path: "/test.Who/who", requestStream: false, responseStream: false, ...words } },
      {
        who: (call: { request: string }, answer: (error: null, text: string) => void) =>
          answer(null, `one ${call.request}`),
      },
    );
    const rpcPort = await new Promise<number>((done, failed) =>
      rpc.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? done(bound) : failed(error),
      ),
    );
    cleanUp.push(() => rpc.forceShutdown());
    const webPort = await portOf(web("one"));
    const answer = "one web.service.consul";
    const { ports: silent } = await silentOnes(11);
    const refused = await Promise.all(Array.from({ length: 11 }, () => freePort()));
    for (const dead of [refused, silent]) {
      newTable();
      put({
        // In turn, so that those that are dead are met.
        web: { policy: "first", backends: at(...dead, webPort) },
        secure: { policy: "round-robin", backends: at(...dead, secure) },
        rpc: { policy: "first", backends: at(...dead, rpcPort) },
      });
      for (const version of nodes) {
        const began = performance.now();
        const words = ["everything", "web.service.consul", ca];
        expect(await node(main, words, { node: version })).toMatchObject({
          ...{ http: answer, httpNoAgent: answer, httpAgent: answer, fetch: answer, post: `${answer} body` },
          ...{ remote: "127.0.0.1", tls: [true, "h2"], https: "secure.service.consul secure.service.consul" },
          http2: "secure.service.consul secure.service.consul:443",
        });
        // Each by itself, in a program that has seen nothing yet.
        for (const one of ["fetch", "connected", "secured"])
          expect(await node(main, [one, "web.service.consul", ca], { node: version })).toBe(
            one === "secured" ? "secure.service.consul secure.service.consul" : answer,
          );
        expect(await node(join(programs, "grpc.mjs"), [], { node: version })).toBe("one grpc");
        // About 0.65 s for each that meets all the silent ones; one after the other would take 11 s.
        if (dead === silent) expect(performance.now() - began).toBeGreaterThan(600);
      }
    }
  }, 240_000);

  it("learns from the C library's programs who is gone, and they from it", async () => {
    const seen = await ownFolder("hook-node-seen");
    cleanUp.push(seen.remove);
    await mkdir(join(seen.path, "observed"));
    await chmod(join(seen.path, "observed"), 0o1777);
    const two = await portOf(web("two"));
    const curl = async (): Promise<string> =>
      (
        await run("curl", ["-s", "--ipv4", "http://web.service.consul/"], {
          env: { ...process.env, LD_PRELOAD: await hookLibrary("glibc"), TRILITH_HOOK_TABLE: table },
        }).catch((error: { stdout: string }) => error)
      ).stdout;
    const fetched = async (version: string): Promise<string> =>
      String(await node(main, ["fetch", "web.service.consul"], { node: version }));
    for (const [i, version] of nodes.entries()) {
      const gone = await freePort();
      table = join(seen.path, "table");
      put({ web: { policy: "first", backends: at(gone, two) } });
      // One of them meets the backend that is away; it is back before the other one comes, who leaves it alone all the same.
      const [first, second] = i % 2 === 0 ? [fetched, curl] : [curl, fetched];
      expect(await first(version)).toMatch(/^two /);
      const back = web("back").listen(gone, "127.0.0.1");
      await once(back, "listening");
      expect(await second(version)).toMatch(/^two /);
      const file = join(seen.path, "observed", String(process.geteuid?.()));
      const entries = decodeObserved(await readFile(file)).flatMap((block) => [...block.entries.values()]);
      expect(entries.find(({ port }) => port === gone)).toMatchObject({ consecutiveFailures: 1, failures: 1 });
      expect(entries.find(({ port }) => port === two)?.connects).toBeGreaterThan(0);
      back.close();
      back.closeAllConnections();
    }
  }, 120_000);

  it("loses no connection while backends move from port to port under load", async () => {
    const dead = await freePort();
    const open: { server: Server; port: number }[] = [];
    const leaving: Server[] = [];
    const move = async (): Promise<void> => {
      const server = web("moving");
      open.push({ server, port: await portOf(server) });
      // Closed a while after it left the table, also for a program that had to wait for the processor in between: connections that a
      // listener has not accepted are reset with it.
      if (open.length > 3) leaving.push((open.shift() as (typeof open)[number]).server);
      if (leaving.length > 5) leaving.shift()?.close();
      put({ web: { backends: at(dead, ...open.map(({ port }) => port)) } });
    };
    newTable();
    for (let i = 0; i < 3; i++) await move();
    const load = start(main, ["load", "web.service.consul", "16"]);
    await load.line();
    for (let i = 0; i < 40; i++) {
      await move();
      await new Promise((done) => setTimeout(done, 50));
    }
    load.child.stdin?.end();
    const { counts, failures } = (await load.ended) as { counts: Record<string, number>; failures: string[] };
    expect(failures).toEqual([]);
    expect(counts["moving web.service.consul"]).toBeGreaterThan(40);
  }, 120_000);

  it("ioredis: stays connected through a Redis that moves, and each new client finds it", async () => {
    const home = await ownFolder("hook-node-redis");
    cleanUp.push(home.remove);
    await npmWith(home.path, "ioredis@5");
    const redis = async (): Promise<{ port: number; stop(): Promise<void> }> => {
      const port = await freePort();
      const words = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", home.path];
      const server = await startProgram(["redis-server", ...words], join(home.path, "redis.log"));
      cleanUp.push(() => server.stop());
      const ping = ["-p", String(port), "ping"];
      await eventually("Redis answers", async () => (await run("redis-cli", ping)).stdout.startsWith("PONG"));
      return { port, stop: () => server.stop("SIGKILL") };
    };
    const dead = (await silentOnes(11)).ports;
    let there = await redis();
    const ports = [there.port];
    newTable({ redis: { backends: at(...dead, there.port) } });
    const file = join(home.path, "redis.cjs");
    await run("cp", [join(programs, "redis.cjs"), file]);
    const load = start(file, []);
    await load.line();
    for (let i = 0; i < 3; i++) {
      expect(await load.line()).toBe(String(there.port));
      const next = await redis();
      put({ redis: { backends: at(...dead, next.port) } });
      await there.stop();
      there = next;
      ports.push(next.port);
    }
    expect(await load.line()).toBe(String(there.port));
    load.child.stdin?.end();
    const seen = (await load.ended) as { counted: number; failures: string[]; ports: string[] };
    expect(seen.failures).toEqual([]);
    expect(seen.ports.sort()).toEqual(ports.map(String).sort());
    expect(seen.counted).toBeGreaterThanOrEqual(ports.length);
  }, 120_000);

  it("pg: pools and clients reach a PostgreSQL at any port", async () => {
    const home = await ownFolder("hook-node-pg");
    cleanUp.push(home.remove);
    const [server] = await Promise.all([startPostgres(home.path), npmWith(home.path, "pg@8")]);
    cleanUp.push(() => server.stop());
    const dead = [await freePort(), ...(await silentOnes(11)).ports];
    newTable({ db: { policy: "first", backends: at(...dead, server.port) } });
    const file = join(home.path, "pg.mjs");
    await run("cp", [join(programs, "pg.mjs"), file]);
    expect(await node(file, [])).toEqual(Array(4).fill(server.port));
  }, 120_000);

  it("undici: one of the program's own", async () => {
    const home = await ownFolder("hook-node-undici");
    cleanUp.push(home.remove);
    await npmWith(home.path, "undici@6");
    const dead = [await freePort(), ...(await silentOnes(11)).ports];
    newTable({ web: { policy: "first", backends: at(...dead, await portOf(web("one"))) } });
    const file = join(home.path, "undici.mjs");
    await run("cp", [join(programs, "undici.mjs"), file]);
    expect(await node(file, [])).toEqual(Array(4).fill("one web.service.consul"));
  }, 120_000);

  /** Starts an agent at this address that knows these services at these ports; what ends it. */
  const startAgent = async (
    url: string,
    services: Readonly<Record<string, readonly number[]>>,
  ): Promise<() => Promise<void>> => {
    const dns = await freePort();
    const flags = ["-dev", `-http-port=${url.split(":")[1]}`, `-dns-port=${dns}`, "-docker-host=off"];
    const agent = await startProgram([process.execPath, program, "agent", ...flags], join(folder.path, "agent.log"));
    cleanUp.push(() => agent.stop());
    const all = Object.entries(services).flatMap(([name, ports]) => ports.map((port) => [name, port] as const));
    for (const [name, port] of all) {
      const body = JSON.stringify({ ID: `${name}-${port}`, Name: name, Address: "127.0.0.1", Port: port });
      await eventually(
        "the agent registers",
        async () => (await fetch(`http://${url}/v1/agent/service/register`, { method: "PUT", body })).ok,
      );
    }
    return () => agent.stop("SIGKILL");
  };

  it("is not needed with trilith/undici, for Node's own fetch in every version, and connect", async () => {
    const url = `127.0.0.1:${await freePort()}`;
    const secure = createSecureServer({ key, cert, allowHTTP1: true }, (request, response) => {
      response.end(`${(request.socket as TLSSocket & { servername: string }).servername} ${request.headers.host}`);
    });
    await startAgent(url, {
      web: [await freePort(), await portOf(web("one"))],
      secure: [await freePort(), await portOf(secure)],
    });
    const doors = [...["undici.js", "index.js"].map((file) => join(dirname(hook), file)), ca];
    const options = { flags: [], env: { TRILITH_HTTP_ADDR: url } };
    const said = "one web.service.consul";
    for (const version of nodes)
      expect(await node(join(programs, "install.mjs"), doors, { ...options, node: version })).toEqual([
        said,
        `${said} text`,
        `${said} ab`,
        "one web",
        'there is no service "nobody"',
        "one socket",
        "secure.service.consul secure.service.consul",
      ]);
  }, 120_000);

  it("is not needed for connect and trilith/undici either: they read the table where no agent answers", async () => {
    newTable({
      web: { policy: "first", backends: [...at(await freePort()), ...after(await portOf(web("one")))] },
      nobody: { backends: [] },
    });
    const doors = ["undici.js", "index.js"].map((file) => join(dirname(hook), file));
    const env = { TRILITH_HTTP_ADDR: `127.0.0.1:${await freePort()}` };
    expect(await node(join(programs, "install.mjs"), doors, { flags: [], env })).toContain("one socket");
  });

  it("tells the agent of a backend that is gone, by what it saw", async () => {
    const url = `127.0.0.1:${await freePort()}`;
    const gone = await freePort();
    await startAgent(url, { web: [gone, await portOf(web("one"))] });
    const options = { env: { TRILITH_HOOK_TABLE: "", TRILITH_HTTP_ADDR: url } };
    const { table: path } = (await (await fetch(`http://${url}/v1/trilith/hook`)).json()) as { table: string };
    const suspects = async (): Promise<(number | undefined)[]> =>
      decodeHookTable(await readFile(path)).services.flatMap(({ backends }) =>
        backends.filter(({ suspect }) => suspect).map(({ port }) => port),
      );
    await eventually("both are in the table", async () =>
      decodeHookTable(await readFile(path)).services.some(({ backends }) => backends.some(({ port }) => port === gone)),
    );
    expect(await suspects()).not.toContain(gone);
    await eventually("a program meets it, and the agent looks at it", async () => {
      expect(await node(main, ["fetch", "web.service.consul"], options)).toBe("one web.service.consul");
      return (await suspects()).includes(gone);
    });
  }, 120_000);

  it("asks the agent where the table is, goes on without it, and finds the next one", async () => {
    const port = await portOf(web("one"));
    const http = await freePort();
    const url = `127.0.0.1:${http}`;
    const begin = (webPort: number): Promise<() => Promise<void>> => startAgent(url, { web: [webPort] });
    const lines = start(main, ["lines", "web.service.consul"], {
      env: { TRILITH_HOOK_TABLE: "", TRILITH_HTTP_ADDR: url },
    });
    const ask = async (): Promise<string> => {
      lines.child.stdin?.write("ask\n");
      return await lines.line();
    };
    expect(await ask()).toBe('"ENOTFOUND"');
    const kill = await begin(port);
    await eventually("the agent that came later is asked", async () => (await ask()) === '"one web.service.consul"');
    await kill();
    expect(await ask()).toBe('"one web.service.consul"');
    // The next agent has its table elsewhere, and another port in it.
    await begin(await portOf(web("two")));
    await eventually("the next table is found", async () => (await ask()) === '"two web.service.consul"');
    lines.child.stdin?.end();
    expect(await lines.ended).toBe("end");
  }, 120_000);
});
