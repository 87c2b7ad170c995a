// What tests of real programs under the hook share: the library, a table for each test, three instances behind a name, and whether a program reaches them.
import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, rm } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { hookTable } from "./hook-table.ts";
import { freePort } from "./peers.ts";

const run = promisify(execFile);

/** The name behind which the instances of each test are. */
export const NAME = "web.service.consul";

/** An HTTP server on a port of its own that says its number and ends the connection. */
export interface Instance {
  readonly port: number;
  requests: number;
  stop(): Promise<void>;
}

/** Starts one; `answer` stands in for what it says. */
export async function instance(number: number, address = "127.0.0.1", answer?: RequestListener): Promise<Instance> {
  const server: Server = createServer((request, response) => {
    it.requests++;
    if (answer !== undefined) answer(request, response);
    else response.writeHead(200, { connection: "close" }).end(`instance ${number}\n`);
  });
  // Some of them end while they are asked for: nobody else is to answer there.
  const port = await freePort();
  await new Promise<void>((done) => server.listen(port, address, done));
  const it: Instance = {
    port,
    requests: 0,
    stop: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
  return it;
}

/** Every answer is an instance's; how many instances gave one. */
export function spread(output: string, count: number): number {
  const answers = [...output.matchAll(/instance (\d)/g)].map(([, number]) => number);
  expect(answers, output).toHaveLength(count);
  return new Set(answers).size;
}

/** Of the running test, but for the folder. */
export interface Hooked {
  /** Of all tests of the suite, removed after them. */
  folder: string;
  own: string;
  env: Record<string, string>;
  table: ReturnType<typeof hookTable>;
  instances: Instance[];
  /** Called after the test, the last one first. */
  readonly stops: (() => Promise<unknown>)[];
  /** Runs a program to its end; its output. */
  run(program: string, ...words: string[]): Promise<string>;
  /** `ask` makes so many requests, one connection each: all are answered, by all instances; by the others when one is dead. */
  reachesSpreadsSurvives(ask: (requests: number) => Promise<string>): Promise<void>;
}

/** Within a `describe`: the library is compiled once, and each test has a folder, a table and three instances of its own. */
export function hooked(): Hooked {
  const it: Hooked = {
    folder: "",
    own: "",
    env: {},
    table: hookTable(""),
    instances: [],
    stops: [],
    async run(program, ...words) {
      const { stdout } = await run(program, words, { env: { ...process.env, ...it.env }, timeout: 60_000 });
      return stdout;
    },
    async reachesSpreadsSurvives(ask) {
      expect(spread(await ask(40), 40)).toBe(3);
      // Gone without a word: the table still has it.
      await it.instances[0]?.stop();
      expect(spread(await ask(30), 30)).toBe(2);
      await it.instances[1]?.stop();
      expect(spread(await ask(20), 20)).toBe(1);
    },
  };
  let preload = "";
  beforeAll(async () => {
    it.folder = await mkdtemp(join(tmpdir(), "trilith-hook-programs-"));
    // nginx and HAProxy go on as users of their own.
    await chmod(it.folder, 0o755);
    preload = join(it.folder, "libtrilith.so");
    const source = resolve(import.meta.dirname, "../../native/libtrilith.c");
    await run("cc", ["-shared", "-fPIC", "-O2", "-pthread", "-o", preload, source, "-ldl"]);
  });
  afterAll(() => rm(it.folder, { recursive: true, force: true }));

  beforeEach(async () => {
    it.instances = await Promise.all([1, 2, 3].map((number) => instance(number)));
    it.own = await mkdtemp(join(it.folder, "test-"));
    await chmod(it.own, 0o755);
    it.table = hookTable(join(it.own, "table"));
    it.env = { LD_PRELOAD: preload, TRILITH_HOOK_TABLE: it.table.path };
    // What programs see of back ends, as the agent's folder lets them.
    await mkdir(join(it.own, "observed"));
    await chmod(join(it.own, "observed"), 0o1777);
    await it.table.put([{ name: "web", ports: it.instances.map(({ port }) => port) }]);
  });
  afterEach(async () => {
    for (const stop of it.stops.splice(0).reverse()) await stop();
    await Promise.all(it.instances.map((each) => each.stop()));
  });
  return it;
}
