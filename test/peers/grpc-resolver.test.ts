// The resolvers of trilith/grpc with real gRPC servers that come, move and die while calls go on: by the agent, and by the tailnet alone.
import { join } from "node:path";
import grpc from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { registerResolvers } from "../../src/grpc.ts";
import { createTrilith, type Trilith } from "../../src/index.ts";
import { runClient } from "../support/clients.ts";
import { caller, type GrpcServer, load, startGrpcServer } from "../support/grpc.ts";
import { type FakeTailscaled, fakeTailscaled, inside, runInTailnet } from "../support/minidisc.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../support/peers.ts";

const able = inside || ((await havePrograms("unshare", "ip")) && process.getuid?.() === 0);
const WORKERS = 8;
/** Retried where a server died under a call, by the rules of gRPC (A6); the user knows which methods may be. */
const RETRYING = {
  "grpc.service_config": JSON.stringify({
    loadBalancingConfig: [{ round_robin: {} }],
    methodConfig: [
      {
        name: [{}],
        waitForReady: true,
        retryPolicy: {
          maxAttempts: 4,
          initialBackoff: "0.05s",
          maxBackoff: "0.5s",
          backoffMultiplier: 2,
          retryableStatusCodes: ["UNAVAILABLE"],
        },
      },
    ],
  }),
};

const cleanUp: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const step of cleanUp.splice(0).reverse()) await step();
});
const opened = (target: string, options?: grpc.ClientOptions): ReturnType<typeof caller> => {
  const client = caller(target, options);
  cleanUp.push(() => client.close());
  return client;
};
const loaded = (client: ReturnType<typeof caller>): ReturnType<typeof load> => {
  const calls = load(client, WORKERS);
  cleanUp.push(() => calls.stop());
  return calls;
};
async function started(words: readonly string[], env: Readonly<Record<string, string>>): Promise<GrpcServer> {
  const server = await startGrpcServer(words, env);
  cleanUp.push(() => server.end("SIGKILL"));
  return server;
}
/** Who answers so many calls. */
async function answering(client: ReturnType<typeof caller>, calls: number): Promise<string[]> {
  const ports = await Promise.all(Array.from({ length: calls }, () => client.call()));
  return [...new Set(ports)].sort();
}

/** What holds for both ways to find: `serve` starts a server in the n-th place. */
function behaviours(
  scheme: string,
  serve: (name: string, n: number, ...labels: readonly string[]) => Promise<GrpcServer>,
): void {
  test("calls go to all endpoints with the labels, in turn; changes are pushed into the channel", async () => {
    const client = opened(`${scheme}://turns?env=prod`);
    const servers = [await serve("turns", 1, "env=prod"), await serve("turns", 2, "env=prod", "zone=eu")];
    const other = await serve("turns", 3, "env=staging");
    const ports = servers.map(({ port }) => port).sort();
    await eventually("both answer", async () => (await answering(client, 8)).join() === ports.join());
    // Under round_robin sequential calls take turns exactly.
    const turns: string[] = [];
    for (let i = 0; i < 6; i++) turns.push(await client.call());
    expect(new Set(turns.filter((_, i) => i % 2 === 0)).size).toBe(1);
    expect(new Set(turns).size).toBe(2);
    expect(turns).not.toContain(other.port);

    const third = await serve("turns", 3, "env=prod");
    await eventually("the third, too", async () => (await answering(client, 12)).includes(third.port));
    await servers[0]?.end("SIGTERM");
    await eventually("the first no more", async () => {
      const now = await answering(client, 12);
      return now.length === 2 && now.includes(third.port);
    });
  });

  test("servers that move between ports under load lose no call", async () => {
    const client = opened(`${scheme}://moving`);
    let servers = [await serve("moving", 1), await serve("moving", 2), await serve("moving", 3)];
    await eventually("it is found", () => client.call());
    const calls = loaded(client);
    await calls.more(200);
    for (let round = 0; round < 2; round++)
      for (const [n, old] of [...servers.entries()]) {
        const next = await serve("moving", n + 1);
        servers = servers.map((one) => (one === old ? next : one));
        await eventually("the new one is called", () => calls.answered.has(next.port));
        await old.end("SIGTERM");
        await calls.more(100);
      }
    await calls.stop();
    expect(calls.failed).toEqual([]);
    expect(calls.answered.size).toBe(9);
  });

  test("one of three killed: retried calls all succeed, others fail where they were under way at most", async () => {
    const retrying = opened(`${scheme}://dying`, RETRYING);
    const plain = opened(`${scheme}://dying`, { "grpc.use_local_subchannel_pool": 1 });
    const servers = [await serve("dying", 1), await serve("dying", 2), await serve("dying", 3)];
    for (const client of [retrying, plain])
      await eventually("all three are called", async () => (await answering(client, 12)).length === 3);
    const safe = loaded(retrying);
    const bare = loaded(plain);
    await Promise.all([safe.more(300), bare.more(300)]);
    await servers[1]?.end("SIGKILL");
    await Promise.all([safe.more(500), bare.more(500)]);
    const before = safe.answered.get(servers[1]?.port ?? "");
    await Promise.all([safe.more(100), bare.more(100)]);
    expect(safe.answered.get(servers[1]?.port ?? "")).toBe(before);
    await Promise.all([safe.stop(), bare.stop()]);
    expect(safe.failed).toEqual([]);
    expect(bare.failed.length).toBeLessThanOrEqual(WORKERS);
    for (const { code } of bare.failed) expect(code).toBe(grpc.status.UNAVAILABLE);
    console.log(`${scheme}: killed under ${WORKERS} callers: ${bare.failed.length} failed without a retry policy`);
  });

  test("nothing found: UNAVAILABLE with the reason; calls that are ready to wait are answered when it comes", async () => {
    const client = opened(`${scheme}://late?env=prod`);
    await expect(client.call()).rejects.toMatchObject({
      code: grpc.status.UNAVAILABLE,
      details: expect.stringContaining('service "late" env=prod: there is none'),
    });
    const waiting = client.call({ wait: true, deadlineMs: 30_000 });
    const server = await serve("late", 1, "env=prod");
    expect(await waiting).toBe(server.port);
    // The last one gone says so itself: nobody is called any more.
    await server.end("SIGTERM");
    await eventually("it is gone", () =>
      client.call().then(
        () => false,
        (error: grpc.ServiceError) => error.details.includes("there is none"),
      ),
    );
  });
}

async function startAgent(httpPort: number): Promise<Trilith> {
  const agent = createTrilith({
    dev: true,
    httpPort,
    protocols: { dns: { port: -1 }, docker: false, file: false, process: { environ: false } },
  });
  await agent.start();
  return agent;
}

const NOWHERE = "/nonexistent/tailscaled.sock";

(inside ? (): void => {} : describe)("by the agent", { timeout: 120_000 }, () => {
  let httpPort: number;
  let agent: Trilith;
  beforeAll(async () => {
    httpPort = await freePort();
    registerResolvers(grpc, { agent: `127.0.0.1:${httpPort}`, tailscaled: NOWHERE });
    agent = await startAgent(httpPort);
  });
  afterAll(() => agent?.stop());
  behaviours("trilith", (name, _, ...labels) =>
    started(["127.0.0.1", name, ...labels], { TRILITH_HTTP_ADDR: `127.0.0.1:${httpPort}` }),
  );
});

(inside ? (): void => {} : describe)("an agent that is away", { timeout: 120_000 }, () => {
  test("leaves the last endpoints, and tells changes again when it is back", async () => {
    const httpPort = await freePort();
    registerResolvers(grpc, { agent: `127.0.0.1:${httpPort}`, tailscaled: NOWHERE });
    const env = { TRILITH_HTTP_ADDR: `127.0.0.1:${httpPort}` };
    const client = opened("trilith://kept");
    await expect(client.call()).rejects.toMatchObject({
      code: grpc.status.UNAVAILABLE,
      details: expect.stringMatching(/no agent answers at 127\.0\.0\.1:\d+.*no tailscaled answers at \/nonexistent/),
    });
    let agent = await startAgent(httpPort);
    cleanUp.push(() => agent.stop());
    const server = await started(["127.0.0.1", "kept"], env);
    expect(await client.call({ wait: true, deadlineMs: 30_000 })).toBe(server.port);
    const calls = loaded(client);
    await calls.more(50);
    await agent.stop();
    await calls.more(200);
    agent = await startAgent(httpPort);
    const second = await started(["127.0.0.1", "kept"], env);
    await eventually("the new one is called", () => calls.answered.has(second.port));
    await calls.stop();
    expect(calls.failed).toEqual([]);
  });

  test("keeps no program running: one that is done ends, its channel still open", async () => {
    const httpPort = await freePort();
    const agent = await startAgent(httpPort);
    cleanUp.push(() => agent.stop());
    const server = await started(["127.0.0.1", "once"], { TRILITH_HTTP_ADDR: `127.0.0.1:${httpPort}` });
    const script = join(import.meta.dirname, "../support/grpc-once.ts");
    const words = ["--import", "tsx", script, "trilith://once", `127.0.0.1:${httpPort}`];
    // null = it did not end.
    expect(await runClient([process.execPath, ...words], { timeoutMs: 15_000 })).toEqual({
      exitCode: 0,
      output: server.port,
    });
  });

  test("targets that say nothing are refused, and modules that are no gRPC", () => {
    for (const target of [
      "trilith://",
      "trilith:///?a=b",
      "trilith://web/path",
      "trilith://web?a=1&a=2",
      "trilith://%ff",
    ])
      expect(() => caller(target), target).toThrow(/expected|percent-encoded|Could not find/);
    expect(() => registerResolvers({} as typeof grpc)).toThrow(/@grpc\/grpc-js, version 1.14 or newer/);
  });
});

(inside ? (): void => {} : describe.skipIf(!able))("by the tailnet", () => {
  test("all of it", () => runInTailnet(import.meta.filename, 400_000), 410_000);
});

(inside ? describe : (): void => {})("by the tailnet alone", { timeout: 120_000 }, () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  const hosts: FakeTailscaled[] = [];
  beforeAll(async () => {
    folder = await ownFolder("grpc-tailnet");
    const all = [1, 2, 3].map((n) => ({ name: `host${n}`, ip: `100.64.0.${n}` }));
    for (const own of all)
      hosts.push(
        await fakeTailscaled(
          join(folder.path, own.name),
          own,
          all.filter((one) => one !== own),
        ),
      );
    // The caller is a fourth program on host 1; no agent is anywhere.
    registerResolvers(grpc, { agent: "127.0.0.1:1", tailscaled: hosts[0]?.path ?? "" });
  });
  afterAll(async () => {
    for (const host of hosts) await host.close();
    await folder.remove();
  });
  behaviours("minidisc", (name, n, ...labels) =>
    started([`100.64.0.${n}`, name, ...labels], { TS_SOCKET: hosts[n - 1]?.path ?? "" }),
  );

  test("trilith:// asks the tailnet where no agent has ever answered", async () => {
    const server = await started(["100.64.0.2", "both"], { TS_SOCKET: hosts[1]?.path ?? "" });
    const client = opened("trilith://both");
    expect(await client.call({ wait: true, deadlineMs: 30_000 })).toBe(server.port);
  });
});
