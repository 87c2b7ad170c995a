// The protocol in a whole agent: what it tells over HTTP, in doctor and why; a refused connection that programs saw ends the guard's hold.
import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { eventually, freePort, ownFolder } from "../../../test/support/peers.ts";
import type { Registration } from "../../model/instance.ts";
import { encodeObserved } from "../../wire/hook-observed.ts";
import { decodeHookTable, type TableBackend } from "../../wire/hook-table.ts";

let folder: Awaited<ReturnType<typeof ownFolder>>;
let agent: RunningAgent;
const table = (): string => join(folder.path, "run", "table");

beforeEach(async () => {
  folder = await ownFolder("shim");
});
afterEach(async () => {
  await agent?.stop();
  await folder.remove();
});

const start = async (shim: unknown = { table: table() }): Promise<void> => {
  agent = await startAgent({ protocols: { shim } });
};
const registration = (id: string, port: number, more: Partial<Registration> = {}): Registration => ({
  ...{ id, name: "web", tags: [], labels: {}, address: "127.0.0.1", port, checks: [] },
  ...more,
});
const ask = (path = "", init: RequestInit = {}): Promise<Response> =>
  fetch(`${agent.url}/v1/trilith/hook${path}`, init);
const backends = async (): Promise<readonly TableBackend[]> => {
  await ask();
  return decodeHookTable(await readFile(table())).services.find(({ subject }) => subject === "web")?.backends ?? [];
};
const told = (): readonly string[] =>
  agent.trilith
    .sources()
    .filter(({ name }) => name === "hook")
    .map(({ ok, text }) => `${ok} ${text}`);

describe("the route", () => {
  test("tells where the table is when it holds what was acknowledged, and nothing to other hosts", async () => {
    await start();
    await agent.trilith.agent.register("api", registration("w1", 8080));
    const answer = await ask();
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({
      table: table(),
      observed: join(dirname(table()), "observed"),
      services: 2,
    });
    expect((await backends()).map(({ port }) => port)).toEqual([8080]);
    for (const [path, init, status, text] of [
      ["", { method: "POST" }, 405, /use GET/],
      ["/x", {}, 404, /nothing is at \/v1\/trilith\/hook\/x/],
      ["", { headers: { "x-forwarded-for": "192.0.2.1" } }, 403, /programs on this host only/],
    ] as const) {
      const refused = await ask(path, init);
      expect([refused.status, await refused.text()]).toEqual([status, expect.stringMatching(text)]);
    }
  });

  test("is not there where the hook is off", async () => {
    await start(false);
    expect((await ask()).status).toBe(404);
    expect(told()).toEqual([]);
  });

  test("says why there is no table", async () => {
    await writeFile(join(folder.path, "run"), "no folder");
    await start();
    const answer = await ask();
    expect([answer.status, await answer.text()]).toEqual([
      409,
      expect.stringMatching(/the hook's table .* cannot be written: something that is no folder/),
    ]);
    expect(told()[0]).toMatch(/^false the hook's table/);
    await rm(join(folder.path, "run"));
    await eventually("there is one", async () => (await stat(table()).catch(() => undefined)) !== undefined);
  });
});

test("names lie in the second domain of DNS, too", async () => {
  agent = await startAgent({ protocols: { shim: { table: table() }, dns: { port: -1, altDomain: "alt.example" } } });
  await agent.trilith.agent.register("api", registration("w1", 8080));
  await ask();
  const web = decodeHookTable(await readFile(table())).services.find(({ subject }) => subject === "web");
  expect(web?.names).toEqual(expect.arrayContaining(["web.service.consul", "web.service.alt.example"]));
});

describe("people", () => {
  test("read in doctor and why how the table stands, and what is wrong in labels", async () => {
    await start();
    await agent.trilith.agent.register(
      "api",
      registration("w1", 8080, { tags: ["v1"], labels: { "trilith.balance": "fair" } }),
    );
    await ask();
    expect(told()).toEqual([
      expect.stringMatching(/^true table .*: 3 names of services and tags, written \d s ago/),
      expect.stringMatching(/^false web: label trilith.balance=fair: expected one of/),
    ]);
    const why = (await (await fetch(`${agent.url}/v1/trilith/why/web`)).json()) as {
      answers: readonly { protocol: string; to: string; text: string }[];
    };
    const { v4, v6 } = agent.trilith.magic.of({ service: "web" });
    expect(why.answers.filter(({ protocol }) => protocol === "shim")).toEqual([
      {
        protocol: "shim",
        to: "programs with the hook",
        text: `web.service.consul (${v4}, ${v6}), p2c: 127.0.0.1:8080 (this host)`,
      },
      expect.objectContaining({
        text: expect.stringMatching(/^v1\.web\.service\.consul .*: 127\.0\.0\.1:8080 \(this host\)$/),
      }),
    ]);
    // Asking about what is not there makes nothing.
    const count = decodeHookTable(await readFile(table())).services.length;
    await fetch(`${agent.url}/v1/trilith/why/nobody`);
    expect(agent.trilith.magic.settled).toBe(true);
    await ask();
    expect(decodeHookTable(await readFile(table())).services).toHaveLength(count);
  });
});

describe("what programs saw", () => {
  test("of a held backend that refuses the agent, too, ends its hold; those that answer stay held", async () => {
    await start();
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((listening) => server.once("listening", listening));
    const open = (server.address() as { port: number }).port;
    const ports = [open, await freePort(), await freePort(), await freePort()];
    const list = ports.map((port, i) => registration(`m${i}`, port));
    const { agent: own } = agent.trilith;
    try {
      await own.adopt("zk", { list, authority: "second-hand" });
      expect(await backends()).toHaveLength(4);
      // All at once: that is held.
      await own.adopt("zk", { list: [], authority: "second-hand" });
      expect(await backends()).toHaveLength(4);
      const observed = join(dirname(table()), "observed");
      await mkdir(observed, { recursive: true });
      const uid = process.getuid?.() ?? 0;
      const saw = (failures: number): Promise<void> =>
        writeFile(
          join(observed, String(uid)),
          encodeObserved([
            {
              ...{ place: 0, pid: 1, uid, startTicks: 1, namespace: 1, lastUsedMs: 1 },
              entries: new Map(
                ports.slice(0, 2).map((port, i) => [
                  i,
                  {
                    ...{ address: "127.0.0.1", port, consecutiveFailures: 1, connects: 0, failures },
                    ...{ connectMicros: 0, lastErrno: 111, ejectedUntilMs: 0, changedMs: 1 },
                  },
                ]),
              ),
            },
          ]),
        );
      let failures = 0;
      await eventually("the one that refuses is gone", async () => {
        await saw(++failures);
        return (await backends()).length === 3;
      });
      expect((await backends()).map(({ port }) => port)).toEqual(expect.arrayContaining([open]));
      expect((await backends()).map(({ port }) => port)).not.toContain(ports[1]);
    } finally {
      server.close();
    }
  });
});
