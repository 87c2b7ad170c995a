// Programs whose sockets do not block, each alone on its host, when nearly all back ends on other hosts die in the same moment: one retry reaches what is left.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { hookTable } from "../support/hook-table.ts";
import { haveLan, type Lan, type LanHost, startLan } from "../support/lan.ts";
import { eventually, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import { runToEnd } from "../support/program.ts";

const run = promisify(execFile);
const scripts = join(import.meta.dirname, "../support/chaos");
const here = (await haveLan()) && (await havePrograms("cc", "curl", "python3"));
const NAME = "web.service.consul";
const ROUNDS = 20;
const DYING = 11;
/** curl is a process for each try; "killed" is one that `timeout` ends before it has given up itself. */
const CLIENTS: Readonly<Record<string, readonly string[]>> = {
  curl: ["/usr/bin/python3", join(scripts, "lone.py"), "curl", NAME],
  killed: ["/usr/bin/python3", join(scripts, "lone.py"), "killed", NAME],
  asyncio: ["/usr/bin/python3", join(scripts, "lone.py"), "asyncio", NAME],
  node: [process.execPath, join(scripts, "lone.mjs"), NAME],
};

describe.runIf(here)("a lone program, and eleven of twelve back ends that die at once", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let lan: Lan;
  let library = "";
  let [client, dying, living]: LanHost[] = [];
  const servers: (() => Promise<void>)[] = [];
  const clients = new Set<ChildProcess>();
  let alive: Awaited<ReturnType<typeof serve>>;

  /** Servers of this host in one process. */
  async function serve(host: LanHost, count: number): Promise<{ ports: number[]; kill(): Promise<void> }> {
    const log = join(folder.path, `${host.name}-${Math.random()}.log`);
    const words = [process.execPath, join(scripts, "server.mjs"), host.name, host.address, String(count)];
    const server = await startProgram(host.within(...words), log);
    const kill = (): Promise<void> => server.stop("SIGKILL");
    servers.push(kill);
    const ports = await eventually("they listen", async () => {
      const said = (await readFile(log, "utf8")).match(/^\d+$/gm);
      return said?.length === count && said.map(Number);
    });
    return { ports, kill };
  }

  beforeAll(async () => {
    folder = await ownFolder("hook-lone");
    await chmod(folder.path, 0o755);
    library = join(folder.path, "libtrilith.so");
    const source = resolve(import.meta.dirname, "../../native/libtrilith.c");
    await run("cc", ["-shared", "-fPIC", "-O2", "-o", library, source]);
    lan = await startLan(["client", "dying", "living"], "10.81.0");
    [client, dying, living] = lan.hosts as LanHost[];
    alive = await serve(living as LanHost, 1);
  }, 60_000);
  afterEach(async () => {
    for (const each of clients) each.kill("SIGKILL");
    await dying?.plug();
  });
  afterAll(async () => {
    for (const kill of servers) await kill();
    await lan?.stop();
    await folder?.remove();
  });

  /** One client of each kind, that know nothing of one another: what each says after `disaster`. */
  async function round(disaster: () => Promise<void>, ports: readonly number[]): Promise<string[]> {
    const started = await Promise.all(
      Object.entries(CLIENTS).map(async ([kind, words]) => {
        const own = await mkdtemp(join(folder.path, `${kind}-`));
        await chmod(own, 0o755);
        await mkdir(join(own, "observed"));
        const each = { weight: 1, tier: 2 as const, suspect: false };
        await hookTable(join(own, "table")).put([
          {
            name: "web",
            ports: [],
            backends: [
              ...ports.map((port) => ({ ...each, address: (dying as LanHost).address, port })),
              { ...each, address: (living as LanHost).address, port: alive.ports[0] as number },
            ],
          },
        ]);
        const [file = "", ...args] = (client as LanHost).within(
          "env",
          `LD_PRELOAD=${library}`,
          `TRILITH_HOOK_TABLE=${join(own, "table")}`,
          ...words,
        );
        const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
        clients.add(child);
        child.once("exit", () => clients.delete(child));
        const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
        expect((await lines.next()).value, kind).toMatch(/^ready: (dying|living) at try 1$/);
        return { kind, child, lines };
      }),
    );
    await disaster();
    return Promise.all(
      started.map(async ({ kind, child, lines }) => {
        child.stdin.write("\n");
        const { value } = await lines.next();
        if (child.exitCode === null) await once(child, "exit");
        return `${kind} ${value}`;
      }),
    );
  }

  const expectAll = (said: readonly string[]): void => {
    for (const each of said) expect(each).toMatch(/^\w+ after: living at try [12]$/);
  };

  it(`killed, so that they refuse: ${ROUNDS} times`, async () => {
    const all: string[] = [];
    for (let i = 0; i < ROUNDS; i++) {
      const doomed = await serve(dying as LanHost, DYING);
      all.push(...(await round(() => doomed.kill(), doomed.ports)));
    }
    console.log(`at the second try: ${all.filter((each) => each.endsWith("2")).length} of ${all.length}`);
    expectAll(all);
  }, 300_000);

  it(`unplugged, so that they are silent: ${ROUNDS} times`, async () => {
    const all: string[] = [];
    for (let i = 0; i < ROUNDS; i++) {
      const doomed = await serve(dying as LanHost, DYING);
      const url = `http://${(dying as LanHost).address}:${doomed.ports[0]}/`;
      const reached = (client as LanHost).within("curl", "-sf", "-m", "1", url);
      await eventually("its cable is in again", async () => (await runToEnd(reached)).exitCode === 0);
      all.push(...(await round(() => (dying as LanHost).unplug(), doomed.ports)));
      await (dying as LanHost).plug();
      await doomed.kill();
    }
    console.log(`at the second try: ${all.filter((each) => each.endsWith("2")).length} of ${all.length}`);
    expectAll(all);
  }, 300_000);
});
