// The protocol in a whole agent: what it tells over HTTP, in doctor and why; a refused connection that programs saw ends the guard's hold.
import { once } from "node:events";
import { chmod, chown, mkdir, open, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { eventually, freePort, ownFolder } from "../../../test/support/peers.ts";
import { systemClock } from "../../base/clock.ts";
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
      expect.stringMatching(/the hook's table .* cannot be written: something that is not a folder/),
    ]);
    expect(told()[0]).toMatch(/^false the hook's table/);
    await rm(join(folder.path, "run"));
    await eventually("there is one", async () => (await stat(table()).catch(() => undefined)) !== undefined);
  });
});

test.runIf(process.getuid?.() === 0)(
  "a table where nobody but root may enter is told with the folder, the users and what to do, until that is done",
  async () => {
    const path = join(folder.path, "private");
    await mkdir(path, { mode: 0o700 });
    await chmod(folder.path, 0o755);
    await start({ table: join(path, "run", "table") });
    await ask();
    expect(told()).toEqual([
      expect.stringMatching(/^true table/),
      `false the table ${path}/run/table: programs of users other than root do not have it, for they may not enter ${path} (mode 0700): chmod a+x ${path}, or give hook.table a path such as /run/trilith/table`,
    ]);
    expect(await (await ask()).json()).toMatchObject({ limits: expect.stringContaining(`may not enter ${path} `) });
    // A group is somebody's wish, and told without alarm.
    await chown(path, 0, 4711);
    await chmod(path, 0o710);
    // It is looked at every few seconds, and when something is written.
    await agent.trilith.agent.register("api", registration("w1", 8080));
    await eventually(
      "it is seen",
      async () => /^true table .*users outside of group 4711 do not/.test(told().join()),
      15_000,
    );
    expect(told()).toHaveLength(1);
    await chmod(path, 0o711);
    await agent.trilith.agent.register("api", registration("w2", 8081));
    await eventually("it is mended", async () => !told().join().includes("programs of users"), 15_000);
  },
);

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
      expect.stringMatching(/^true table .*: 3 services and tags, written \d s ago/),
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
      expect.objectContaining({
        text: expect.stringMatching(/^not followed: label trilith\.balance=fair: expected one of p2c/),
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

test("what a crash left half-done is ended, also where the table itself is still right", async () => {
  const kept = async (): Promise<void> => {
    agent = await startAgent({ dev: false, dataDir: folder.path, protocols: { shim: { table: table() } } });
  };
  await kept();
  await agent.trilith.agent.register("api", registration("w1", 8080));
  await ask();
  await agent.stop();
  const before = decodeHookTable(await readFile(table()));
  // The table of before, which some program still has, and whose successor had just been put in its place.
  await writeFile(`${table()}.old`, await readFile(table()));
  const held = await open(`${table()}.old`, "r");
  try {
    await kept();
    const answer = (await (await ask()).json()) as { readonly generation: number };
    expect(answer.generation).toBe(before.generation);
    expect((await held.readFile()).readUInt32LE(48)).toBe(1);
    expect(await stat(`${table()}.old`).catch(() => "gone")).toBe("gone");
  } finally {
    await held.close();
  }
});

describe("what programs saw", () => {
  /** This user's programs failed so often to connect to these ports. */
  async function saw(ports: readonly number[], failures: number): Promise<void> {
    const uid = process.getuid?.() ?? 0;
    const entries = ports.map((port, i) => {
      const seen = {
        ...{ address: "127.0.0.1", port, consecutiveFailures: 1, connects: 0, failures },
        connectMicros: 0,
      };
      return [i, { ...seen, lastErrno: 111, ejectedUntilMs: 0, changedMs: 1 }] as const;
    });
    const block = {
      ...{ place: 0, pid: 1, uid, startTicks: 1, namespace: 1, lastUsedMs: 1 },
      entries: new Map(entries),
    };
    await writeFile(join(dirname(table()), "observed", String(uid)), encodeObserved([block]));
  }
  async function listening(port = 0): Promise<Server> {
    const server = createServer().listen(port, "127.0.0.1");
    await once(server, "listening");
    return server;
  }
  const portOf = (server: Server): number => (server.address() as { port: number }).port;

  test("of a backend that refuses the agent, too, makes it suspect in the table until it answers", async () => {
    await start();
    const port = await freePort();
    await agent.trilith.agent.register("api", registration("w1", port));
    expect((await backends()).map(({ suspect }) => suspect)).toEqual([false]);
    let failures = 0;
    // Read from the file alone: nobody asks for a round.
    const suspect = async (): Promise<boolean | undefined> =>
      decodeHookTable(await readFile(table())).services.find(({ subject }) => subject === "web")?.backends[0]?.suspect;
    await eventually("it is suspect", async () => {
      await saw([port], ++failures);
      return await suspect();
    });
    const server = await listening(port);
    try {
      await eventually("it is taken back", async () => (await suspect()) === false);
    } finally {
      server.close();
    }
  });

  test("of a held backend that refuses the agent, too, ends its hold; those that answer stay held", async () => {
    await start();
    const servers = [await listening(), await listening()];
    const [first, second] = servers.map(portOf) as [number, number];
    const ports = [first, await freePort(), second, await freePort()];
    const list = ports.map((port, i) => registration(`m${i}`, port));
    const { agent: own } = agent.trilith;
    try {
      await own.adopt("zk", { list, authority: "second-hand" });
      expect(await backends()).toHaveLength(4);
      // All at once: that is held.
      await own.adopt("zk", { list: [], authority: "second-hand" });
      expect(await backends()).toHaveLength(4);
      let failures = 0;
      // Programs met one of the two that are gone.
      await eventually("those that refuse are gone", async () => {
        await saw(ports.slice(0, 2), ++failures);
        const now = await backends();
        if (now.length !== 2) throw new Error(JSON.stringify([ports, now, told()]));
        return true;
      });
      expect(new Set((await backends()).map(({ port }) => port))).toEqual(new Set([first, second]));
    } finally {
      for (const server of servers) server.close();
    }
  });
});

test("what a program left half-made beside the table is cleared away in time, by an agent that is told nothing", async () => {
  // Hours ahead, and without patience for what is done every few hours.
  const clock: typeof systemClock = {
    ...systemClock,
    now: () => Date.now() + 7_200_000,
    after: (ms, call, hold) => systemClock.after(ms >= 120_000 ? 50 : ms, call, hold),
  };
  agent = await startAgent({ protocols: { shim: { table: table() } } }, { clock });
  await ask();
  const half = join(dirname(table()), "observed", ".4711.1.1a2b");
  await writeFile(half, "x");
  await eventually("it is gone", async () =>
    stat(half).then(
      () => false,
      () => true,
    ),
  );
});
