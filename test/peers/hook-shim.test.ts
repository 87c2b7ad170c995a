// The hook as people use it: a real agent writes the table, `trilith hook` starts real programs, and neither a dead agent nor a bad disk stops them.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { chmod, chown, copyFile, mkdir, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join, resolve } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { decodeHookTable, type HookTable } from "../../src/wire/hook-table.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import { type Done, program, runToEnd } from "../support/program.ts";

const root = resolve(import.meta.dirname, "../..");
const able =
  (await havePrograms("cc", "musl-gcc", "curl", "dig", "python3", "ip", "unshare")) && process.getuid?.() === 0;

/** What is undone after the running test, in reverse order, however it went. */
const ending: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0).reverse()) await end();
});
/** Makes folders that no try before this one has used. */
let tries = 0;
const unused = (name: string): string => `${name}-${++tries}`;

/** Something that answers every request with its name. */
interface Instance {
  readonly name: string;
  readonly port: number;
  close(): Promise<void>;
}

async function instance(name: string, port = 0): Promise<Instance> {
  const server: Server = createServer((_request, response) =>
    response.setHeader("connection", "close").end(`${name}\n`),
  );
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    name,
    port: (server.address() as AddressInfo).port,
    async close() {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}

/** A program that lives for the running test: connects once a line and tells who answered. */
class Caller {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  constructor(command: readonly string[], env: Readonly<Record<string, string>>) {
    const script = `
import socket, sys
for line in sys.stdin:
    try:
        s = socket.create_connection((line.strip(), 80), 5)
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        data = b""
        while True:
            more = s.recv(4096)
            if not more: break
            data += more
        print(data.split(b"\\r\\n\\r\\n")[-1].decode().strip(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
`;
    const [file = "", ...words] = [...command, "python3", "-c", script];
    this.#child = spawn(file, words, { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, ...env } });
    ending.push(() => this.#end());
    this.#reader = createInterface({ input: this.#child.stdout! });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  async get(host: string): Promise<string> {
    this.#child.stdin?.write(`${host}\n`);
    return (await this.#lines.next()).value as string;
  }

  async #end(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = once(this.#child, "exit");
      this.#child.stdin?.end();
      await ended;
    }
    this.#reader.close();
  }
}

/** An agent whose table lies in a folder of its own. */
class Agent {
  readonly folder: string;
  readonly table: string;
  readonly #flags: readonly string[];
  readonly #inside: readonly string[];
  readonly #config: object;
  #port = 0;
  #running: Awaited<ReturnType<typeof startProgram>> | undefined;

  constructor(
    folder: string,
    options: { table?: string; flags?: readonly string[]; inside?: readonly string[]; config?: object } = {},
  ) {
    this.folder = folder;
    this.table = options.table ?? join(folder, "run", "table");
    this.#flags = options.flags ?? ["--data-dir", join(folder, "data")];
    this.#inside = options.inside ?? [];
    this.#config = options.config ?? {};
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }
  get pid(): number {
    return this.#running?.pid ?? -1;
  }

  async start(): Promise<void> {
    this.#port ||= await freePort();
    await mkdir(this.folder, { recursive: true });
    const config = join(this.folder, "hook.json");
    await writeFile(
      config,
      JSON.stringify({
        ...this.#config,
        telemetry: { prometheus_retention_time: "1h" },
        ...(this.#flags.includes("--dev") ? {} : { hook: { table: this.table } }),
      }),
    );
    this.#running = await startProgram(
      [
        ...this.#inside,
        ...[process.execPath, program, "agent", "--http-port", `${this.#port}`, "--dns-port", "-1"],
        ...["--docker-host", "off", "--environ", "off", "--config-file", config, ...this.#flags],
      ],
      join(this.folder, "log"),
    );
    await eventually("the agent answers", async () => (await fetch(`http://${this.address}/v1/status/leader`)).ok);
  }
  /** For the running test. */
  async startHere(): Promise<this> {
    ending.push(() => this.stop());
    await this.start();
    return this;
  }
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.stop(signal);
  }
  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  run(...words: readonly string[]): Promise<Done> {
    return runToEnd([process.execPath, program, ...words], this.env);
  }
  get env(): Record<string, string> {
    return { TRILITH_HTTP_ADDR: this.address };
  }
  async register(service: string, { name, port }: Pick<Instance, "name" | "port">, more: object = {}): Promise<void> {
    const body = JSON.stringify({ ID: name, Name: service, Address: "127.0.0.1", Port: port, ...more });
    const answer = await fetch(`http://${this.address}/v1/agent/service/register`, { method: "PUT", body });
    expect(answer.status).toBe(200);
  }
  async deregister(name: string): Promise<void> {
    const answer = await fetch(`http://${this.address}/v1/agent/service/deregister/${name}`, { method: "PUT" });
    expect(answer.status).toBe(200);
  }
  async told(): Promise<{ readonly table: string; readonly generation: number; readonly services: number }> {
    const answer = await fetch(`http://${this.address}/v1/trilith/hook`);
    expect(answer.status).toBe(200);
    return (await answer.json()) as Awaited<ReturnType<Agent["told"]>>;
  }
  async written(): Promise<HookTable> {
    return decodeHookTable(await readFile(this.table));
  }
  /** Doctor's lines about the hook. */
  async doctor(): Promise<string> {
    return (await this.run("doctor")).out
      .split("\n")
      .filter((line) => /\bhook\b/.test(line))
      .join("\n");
  }
}

const backends = (table: HookTable, subject: string): number[] | undefined =>
  table.services
    .find((each) => each.subject === subject)
    ?.backends.map(({ port }) => port)
    .sort((a, b) => a - b);

describe.runIf(able)("trilith hook", { timeout: 120_000 }, () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let agent: Agent;
  let instances: Instance[];

  beforeAll(async () => {
    folder = await ownFolder("hook-shim");
    agent = new Agent(join(folder.path, "one"));
    await agent.start();
    instances = await Promise.all(["a", "b", "c"].map((name) => instance(name)));
  }, 120_000);
  /** The agent is there and knows "web", and nothing that another test told it. */
  beforeEach(async () => {
    if (!agent.isRunning) await agent.start();
    const known = (await (await fetch(`http://${agent.address}/v1/agent/services`)).json()) as Record<string, unknown>;
    for (const id of Object.keys(known)) if (!["a", "b", "c"].includes(id)) await agent.deregister(id);
    for (const each of instances) await agent.register("web", each, { Tags: [`only-${each.name}`] });
    // Where another agent wrote it meanwhile, that one's stays until this one's sources have told what runs.
    await eventually("its table is its own", async () => {
      const table = await agent.written();
      return backends(table, "web")?.length === 3 && backends(table, "mine") === undefined;
    });
    await agent.told();
  }, 120_000);
  afterAll(async () => {
    await agent?.stop();
    await Promise.all((instances ?? []).map((each) => each.close()));
    await folder?.remove();
  });

  it("has curl reach a service by its name alone, on whichever ports it runs, and spreads its connections", async () => {
    const one = await agent.run("hook", "--", "curl", "-s", "http://web.service.consul/");
    expect([one.exitCode, one.err]).toEqual([0, ""]);
    expect(one.out).toMatch(/^[abc]\n$/);
    const loop = "for i in $(seq 30); do curl -s http://web.service.consul/; done";
    const many = await agent.run("hook", "--", "sh", "-c", loop);
    expect(new Set(many.out.trim().split("\n"))).toEqual(new Set(["a", "b", "c"]));
    expect(many.out.trim().split("\n")).toHaveLength(30);
    const tagged = await agent.run("hook", "--", "curl", "-s", "http://only-b.web.service.consul/");
    expect(tagged.out).toBe("b\n");
  });

  it("ends as the program did, passes signals on, and keeps what was preloaded before", async () => {
    expect((await agent.run("hook", "--", "sh", "-c", "exit 7")).exitCode).toBe(7);
    expect(await agent.run("hook", "--", "no-such-program")).toMatchObject({ exitCode: 127 });
    expect((await agent.run("hook", "--", "sh", "-c", "kill -KILL $$")).exitCode).toBe(137);
    const script = 'trap "echo got it; exit 3" TERM; echo ready; while :; do sleep 0.05; done';
    const child = spawn(process.execPath, [program, "hook", "--", "sh", "-c", script], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, ...agent.env },
    });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    expect((await lines.next()).value).toBe("ready");
    child.kill("SIGTERM");
    expect((await lines.next()).value).toBe("got it");
    if (child.exitCode === null) await once(child, "exit");
    expect(child.exitCode).toBe(3);
    const printed = await agent.run("hook", "--print");
    const [, library = ""] = /^LD_PRELOAD=(.*)$/m.exec(printed.out) ?? [];
    expect(printed.out).toContain(`TRILITH_HOOK_TABLE=${agent.table}`);
    // Programs go on as other users: what is printed serves them, too.
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const variables = Object.fromEntries(
      printed.out
        .trim()
        .split("\n")
        .map((line) => line.split("=") as [string, string]),
    );
    const got = await runToEnd([...nobody, "curl", "-s", "http://web.service.consul/"], variables);
    expect([got.out.trim(), got.err]).toEqual([expect.stringMatching(/^[abc]$/), ""]);
    const before = await runToEnd([process.execPath, program, "hook", "--", "sh", "-c", 'echo "$LD_PRELOAD"'], {
      ...agent.env,
      LD_PRELOAD: library,
    });
    expect(before.out.trim()).toBe(library);
    expect((await agent.run("hook", "sh")).err).toContain("put -- before the command: trilith hook -- sh");
    expect((await agent.run("hook", "curl", "-s", "x")).err).toContain("the command: trilith hook -- curl -s x");
  });

  it("knows whatever was acknowledged before", async () => {
    for (let i = 0; i < 5; i++) {
      await agent.register(`fresh-${i}`, { name: `fresh-${i}`, port: instances[i % 3]!.port });
      const got = await agent.run("hook", "--", "curl", "-s", `http://fresh-${i}.service.consul/`);
      expect(got.out).toBe(`${instances[i % 3]!.name}\n`);
      await agent.deregister(`fresh-${i}`);
    }
    // A generation that was told is what programs see that run already.
    const caller = new Caller([process.execPath, program, "hook", "--"], agent.env);
    for (let i = 0; i < 20; i++) {
      const now = instances[i % 3]!;
      await agent.register("moving", { name: "moving", port: now.port });
      await agent.told();
      expect(await caller.get("moving.service.consul")).toBe(now.name);
    }
    await agent.deregister("moving");
    await agent.told();
    expect(await caller.get("moving.service.consul")).not.toMatch(/^[abc]$/);
  }, 120_000);

  it("goes on while the agent is dead, and follows it when it is back", async () => {
    const caller = new Caller([process.execPath, program, "hook", "--"], agent.env);
    expect(await caller.get("web.service.consul")).toMatch(/^[abc]$/);
    const before = await agent.written();
    await agent.stop("SIGKILL");
    for (let i = 0; i < 10; i++) expect(await caller.get("web.service.consul")).toMatch(/^[abc]$/);
    const other = await runToEnd(
      [process.execPath, program, "hook", "--table", agent.table, "--", "curl", "-s", "http://web.service.consul/"],
      agent.env,
    );
    expect([other.out.trim()].join()).toMatch(/^[abc]$/);
    const known = await runToEnd(
      [process.execPath, program, "hook", "--", "curl", "-s", "http://web.service.consul/"],
      { ...agent.env, TRILITH_HOOK_TABLE: agent.table },
    );
    expect(known.err).toContain(`no agent answers at ${agent.address}; going on with the table ${agent.table}`);
    expect(known.out).toMatch(/^[abc]\n$/);
    const nothing = await agent.run("hook", "--", "true");
    expect([nothing.exitCode, nothing.err]).toEqual([
      1,
      expect.stringMatching(/no agent answers at .*trilith agent.*--table/),
    ]);
    await agent.start();
    // Nothing changed: the table of before is still the right one, and nobody has to read another.
    expect((await agent.told()).generation).toBe(before.generation);
    await agent.register("web", { name: "c", port: instances[0]!.port });
    await agent.register("web", { name: "b", port: instances[0]!.port });
    expect((await agent.told()).generation).toBeGreaterThan(before.generation);
    for (let i = 0; i < 10; i++) expect(await caller.get("web.service.consul")).toBe("a");
  }, 120_000);

  it("goes on without it when the agent is told to stop hooking, in C and in Node, and with it when it is told to again", async () => {
    const own = await new Agent(join(folder.path, unused("told"))).startHere();
    await own.register("web", instances[0]!);
    const become = async (enabled: boolean): Promise<void> => {
      const hook = { enabled, table: own.table };
      await writeFile(join(own.folder, "hook.json"), JSON.stringify({ hook }));
      expect(await own.run("reload")).toMatchObject({ exitCode: 0 });
    };
    const caller = new Caller([process.execPath, program, "hook", "--"], own.env);
    const node = `require("readline").createInterface({ input: process.stdin }).on("line", (host) =>
      fetch("http://" + host).then((answer) => answer.text()).then((text) => console.log(text.trim()), (error) => console.log(error.cause?.code)))`;
    const { out } = await own.run("hook", "--print");
    const env = {
      ...process.env,
      ...Object.fromEntries(
        out
          .trim()
          .split("\n")
          .map((line) => line.split("=")),
      ),
    };
    delete env.LD_PRELOAD;
    const child = spawn(process.execPath, ["--import", join(dirname(program), "../hook.js"), "-e", node], {
      ...{ stdio: ["pipe", "pipe", "inherit"], env },
    });
    ending.push(async () => void child.kill());
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    const get = async (): Promise<readonly string[]> => {
      child.stdin?.write("web.service.consul\n");
      return [await caller.get("web.service.consul"), (await lines.next()).value as string];
    };
    expect(await get()).toEqual(["a", "a"]);
    const { v4, services } = await own.written();
    await become(false);
    expect(await get()).toEqual(["gaierror", expect.stringMatching(/^(ENOTFOUND|EAI_AGAIN)$/)]);
    expect((await own.run("hook", "--", "true")).err).toContain("hook.enabled is false");
    await become(true);
    await eventually("it is back", async () => (await get()).join() === "a,a");
    const now = await own.written();
    expect([now.v4, now.services.map(({ slot, subject }) => `${slot} ${subject}`)]).toEqual([
      v4,
      services.map(({ slot, subject }) => `${slot} ${subject}`),
    ]);
  }, 120_000);

  it("finds the table that the agent of this host left in its data folder", async () => {
    const own = join(folder.path, unused("left"));
    const alone = await new Agent(own, { table: join(own, "data", "hook", "table") }).startHere();
    await alone.register("web", instances[0]!);
    await alone.told();
    await alone.stop("SIGKILL");
    // Where nobody is at the default port.
    const run = (env: Record<string, string>): Promise<Done> =>
      runToEnd(["unshare", "-n", process.execPath, program, "hook", "--", "getent", "ahostsv4", "web.service.consul"], {
        TRILITH_DATA_DIR: join(alone.folder, "data"),
        ...env,
      });
    const found = await run({});
    expect(found.err).toContain(`no agent answers at 127.0.0.1:8500; going on with the table ${alone.table}`);
    expect([found.exitCode, found.out]).toEqual([0, expect.stringMatching(/^127\./)]);
    // The data folder of an agent that was named is nobody's to guess.
    expect(await run({ TRILITH_HTTP_ADDR: "127.0.0.1:9" })).toMatchObject({
      exitCode: 1,
      err: expect.stringContaining("no agent answers at 127.0.0.1:9, and there is no table at"),
    });
  });

  it("has a table that was moved away or overwritten written again", async () => {
    await agent.told();
    await rename(agent.table, `${agent.table}.moved`);
    await eventually("the table is there again", async () => (await agent.written()).services.length > 0);
    await writeFile(agent.table, "something else");
    await eventually("the table is whole again", async () => backends(await agent.written(), "web")?.length === 3);
    expect((await readdir(dirname(agent.table))).sort()).toEqual(["observed", "table", "table.moved", "trilith.lock"]);
    expect((await stat(agent.table)).mode & 0o777).toBe(0o644);
  });

  it("learns from programs which backend refuses, tries it itself, and takes it back when it answers", async () => {
    // Its port is nobody's while it is away.
    const gone = await instance("gone", await freePort());
    await agent.register("shaky", { name: "gone", port: gone.port });
    await agent.register("shaky", { name: "stays", port: instances[0]!.port });
    await agent.told();
    await gone.close();
    const suspect = async (): Promise<boolean | undefined> =>
      (await agent.written()).services
        .find(({ subject }) => subject === "shaky")
        ?.backends.find(({ port }) => port === gone.port)?.suspect;
    expect(await suspect()).toBe(false);
    await eventually("a program fails and the agent looks", async () => {
      await agent.run("hook", "--", "sh", "-c", "for i in 1 2 3 4 5 6; do curl -s http://shaky.service.consul/; done");
      return await suspect();
    });
    const metrics = async (name: string): Promise<number> =>
      Number(
        new RegExp(`^trilith_${name} (\\d+)`, "m").exec(
          await (await fetch(`http://${agent.address}/v1/agent/metrics?format=prometheus`)).text(),
        )?.[1],
      );
    await eventually("it is counted", async () => (await metrics("hook_suspects")) === 1);
    await eventually("its failures, too", async () => (await metrics("hook_failures_total")) > 0);
    await eventually("and what went well", async () => (await metrics("hook_connects_total")) > 0);
    const why = await agent.run("why", "shaky");
    expect(why.out).toMatch(
      new RegExp(`shaky\\.service\\.consul.*127\\.0\\.0\\.1:${gone.port} \\(this host, refuses\\)`),
    );
    const steady = await agent.run(
      "hook",
      "--",
      "sh",
      "-c",
      "for i in 1 2 3 4; do curl -s http://shaky.service.consul/; done",
    );
    expect(steady.out).toBe("a\n".repeat(4));
    const back = await instance("back", gone.port);
    ending.push(() => back.close());
    await eventually("it is taken back", async () => (await suspect()) === false);
  }, 120_000);

  it("does not let another agent write the same table, and says so; that one takes over when the first is gone", async () => {
    const other = await new Agent(join(folder.path, unused("two")), { table: agent.table }).startHere();
    const before = await agent.written();
    const mine = await instance("mine");
    ending.push(() => mine.close());
    await other.register("mine", mine);
    await eventually("the second one says why", async () =>
      (await other.doctor()).includes(`another agent writes its table in ${dirname(agent.table)} (pid ${agent.pid})`),
    );
    const asked = await other.run("hook", "--", "true");
    expect([asked.exitCode, asked.err]).toEqual([1, expect.stringContaining("another agent writes its table")]);
    expect((await agent.written()).generation).toBe(before.generation);
    await agent.stop();
    await eventually(
      "the second one takes over",
      async () => backends(await other.written(), "mine") !== undefined,
      40_000,
    );
    expect((await other.written()).generation).toBeGreaterThan(before.generation);
    await other.stop();
    await agent.start();
    await eventually(
      "the first one has its table again",
      async () => backends(await agent.written(), "web")?.length === 3,
    );
  }, 120_000);

  it("says which programs it cannot help, and runs them all the same", async () => {
    const source = join(folder.path, "static.c");
    const file = join(folder.path, "static");
    await writeFile(source, '#include <stdio.h>\nint main(void) { puts("hello"); return 5; }\n');
    expect((await runToEnd(["cc", "-static", "-o", file, source])).exitCode).toBe(0);
    const still = await agent.run("hook", "--", file);
    expect([still.exitCode, still.out]).toEqual([5, "hello\n"]);
    expect(still.err).toMatch(/static is statically linked.*trilith proxy.*NAME\.connect\.DOMAIN/);
    const other = join(folder.path, "other-user");
    await copyFile("/bin/true", other);
    await chown(other, 65_534, 65_534);
    await chmod(other, 0o4755);
    const changing = await agent.run("hook", "--", other);
    expect([changing.exitCode, changing.err]).toEqual([
      0,
      expect.stringContaining("runs as another user (setuid or setgid)"),
    ]);
    const script = join(folder.path, "script");
    await writeFile(script, `#!/usr/bin/env ${file}\n`, { mode: 0o755 });
    expect((await agent.run("hook", "--", script)).err).toContain("is statically linked");
  });
});

describe.runIf(able)("programs of other kinds", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let agent: Agent;
  let web: Instance;
  let dnsPort: number;
  let port: number;

  beforeAll(async () => {
    folder = await ownFolder("hook-kinds");
    [dnsPort, port] = [await freePort(), await freePort()];
    agent = new Agent(folder.path, {
      flags: ["--data-dir", join(folder.path, "data"), "--dns-port", `${dnsPort}`],
      config: { protocols: { proxy: { magic: true, ports: { web: [port] } } } },
    });
    await agent.start();
    web = await instance("a");
    await agent.register("web", web);
  });
  afterAll(async () => {
    await agent?.stop();
    await web?.close();
    await folder?.remove();
  });

  it("those of musl get a library of their own", async () => {
    const source = join(folder.path, "get.c");
    await writeFile(
      source,
      `#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  if (getaddrinfo(argv[1], "80", &hints, &found) != 0) return 2;
  int fd = socket(found->ai_family, SOCK_STREAM, 0);
  if (connect(fd, found->ai_addr, found->ai_addrlen) != 0) return 3;
  char text[4096];
  const char *ask = "GET / HTTP/1.0\\r\\n\\r\\n";
  if (write(fd, ask, strlen(ask)) < 0) return 4;
  ssize_t n, all = 0;
  while ((n = read(fd, text + all, sizeof text - 1 - all)) > 0) all += n;
  text[all] = 0;
  char *body = strstr(text, "\\r\\n\\r\\n");
  return body == NULL || fputs(body + 4, stdout) < 0;
}
`,
    );
    for (const compiler of ["musl-gcc", "cc"]) {
      const file = join(folder.path, `get-${compiler}`);
      expect(await runToEnd([compiler, "-o", file, source])).toMatchObject({ exitCode: 0 });
      const got = await agent.run("hook", "--", file, "web.service.consul");
      expect([got.exitCode, got.out, got.err], compiler).toEqual([0, "a\n", ""]);
    }
  }, 120_000);

  it("those without the hook reach a service by its connect name", async () => {
    const { out } = await runToEnd(["dig", "+short", "@127.0.0.1", "-p", `${dnsPort}`, "web.connect.consul"]);
    expect(out).toMatch(/^127\.(1[3-9]\d|12[89]|2\d\d)\.\d+\.\d+\n$/);
    const got = await runToEnd(["curl", "-s", `http://${out.trim()}:${port}/`]);
    expect(got.out).toBe("a\n");
    // It is the address that hooked programs get.
    expect((await agent.run("why", "web")).out).toContain(out.trim());
  });
});

describe.runIf(able)("programs in another network namespace", () => {
  const name = `tri${process.pid % 100_000}`;
  const ip = async (...words: readonly string[]): Promise<void> => {
    const { exitCode, err } = await runToEnd(["ip", ...words]);
    if (exitCode !== 0) throw new Error(`ip ${words.join(" ")}: ${err}`);
  };
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let agent: Agent;
  let servers: readonly Server[] = [];

  beforeAll(async () => {
    folder = await ownFolder("hook-network");
    agent = new Agent(join(folder.path, "home"));
    await agent.start();
    // As an engine makes a container's network: a cable to the host, which is its router.
    await ip("netns", "add", name);
    await ip("link", "add", `${name}h`, "type", "veth", "peer", "name", "eth0", "netns", name);
    await ip("address", "add", "198.18.77.1/30", "dev", `${name}h`);
    await ip("link", "set", `${name}h`, "up");
    await ip("-n", name, "address", "add", "198.18.77.2/30", "dev", "eth0");
    for (const link of ["lo", "eth0"]) await ip("-n", name, "link", "set", link, "up");
    await ip("-n", name, "route", "add", "default", "via", "198.18.77.1");
  });
  afterAll(async () => {
    for (const server of servers) server.close();
    await ip("netns", "delete", name).catch(() => undefined);
    await agent?.stop();
    await folder?.remove();
  });

  it("reach what listens everywhere on the host, in C and in Node, and are refused by what listens on loopback", async () => {
    const listen = async (text: string, host: string): Promise<number> => {
      const server = createServer((_request, response) => response.setHeader("connection", "close").end(text));
      servers = [...servers, server];
      server.listen(0, host);
      await once(server, "listening");
      return (server.address() as AddressInfo).port;
    };
    for (const [service, host] of [
      ["open", "0.0.0.0"],
      ["private", "127.0.0.1"],
    ] as const)
      await agent.register(service, { name: service, port: await listen(service, host) });
    // Asked here, so that the namespace needs no way to the agent.
    expect((await agent.run("hook", "--print")).exitCode).toBe(0);
    const library = /LD_PRELOAD=(.*)/.exec((await agent.run("hook", "--print")).out)?.[1] ?? "";
    const there = (words: readonly string[], env: Readonly<Record<string, string>>): Promise<Done> =>
      runToEnd(["ip", "netns", "exec", name, "env", ...Object.entries(env).map((each) => each.join("=")), ...words]);
    const table = { TRILITH_HOOK_TABLE: agent.table };
    const script = `fetch("http://" + process.argv[1] + ".service.consul/").then((answer) => answer.text()).then(console.log, (error) => console.log(error.cause.code))`;
    const node = [process.execPath, "--import", join(dirname(dirname(program)), "hook.js"), "-e", script];
    const curl = ["curl", "-sS", "-m", "5"];
    expect((await there([...curl, "http://open.service.consul/"], { ...table, LD_PRELOAD: library })).out).toBe("open");
    expect((await there([...node, "open"], table)).out).toBe("open\n");
    expect((await there([...curl, "http://private.service.consul/"], { ...table, LD_PRELOAD: library })).exitCode).toBe(
      7,
    );
    expect((await there([...node, "private"], table)).out).toBe("ECONNREFUSED\n");
    // On the host all is as ever, also after the others were refused.
    expect((await agent.run("hook", "--", ...curl, "http://private.service.consul/")).out).toBe("private");
  });
});

describe.runIf(able)("the hook's table", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  beforeAll(async () => {
    folder = await ownFolder("hook-places");
  });
  afterAll(() => folder?.remove());

  /** In a mount namespace of its own, in which the table's folder is what `mount` makes of it. */
  const within = (mount: string): readonly string[] => ["unshare", "-m", "sh", "-c", `${mount} && exec "$@"`, "sh"];

  it("on a full disk is told, programs keep the last one, and it is written when there is room", async () => {
    const own = join(folder.path, unused("full"));
    const run = join(own, "run");
    await mkdir(run, { recursive: true });
    const agent = await new Agent(own, { inside: within(`mount -t tmpfs -o size=64k tmpfs ${run}`) }).startHere();
    expect((await agent.told()).services).toBe(1);
    for (let i = 0; i < 400; i++)
      await agent.register(`a-rather-long-name-of-a-service-${i}`, { name: `s${i}`, port: 1000 + i });
    await eventually("it is told", async () =>
      (await agent.doctor()).includes(`no space is left on the disk of ${run}`),
    );
    const there = (): HookTable => decodeHookTable(readFileSync(`/proc/${agent.pid}/root${agent.table}`));
    expect(there().services.length).toBeLessThan(400);
    for (let i = 3; i < 400; i++) await agent.deregister(`s${i}`);
    await eventually("there is room again", async () => !(await agent.doctor()).includes("no space"), 90_000);
    await eventually("all that is left is in it", () => there().services.length === 4);
  }, 180_000);

  it("in a read-only folder, or one that is somebody else's, is told in plain words", async () => {
    const own = join(folder.path, unused("closed"));
    const run = join(own, "run");
    await mkdir(run, { recursive: true });
    const inside = within(`mount --bind ${run} ${run} && mount -o remount,ro,bind ${run}`);
    const agent = await new Agent(own, { inside }).startHere();
    await eventually("it is told", async () => (await agent.doctor()).includes(`${run} cannot be written to`));
    expect(await agent.run("hook", "--", "true")).toMatchObject({
      exitCode: 1,
      err: expect.stringContaining("cannot be written to"),
    });
    await agent.stop();
    await chown(run, 65_534, 65_534);
    const other = await new Agent(own, { flags: ["--data-dir", join(own, "other")] }).startHere();
    await eventually("it is told", async () =>
      (await other.doctor()).includes(`the folder ${run} belongs to user 65534`),
    );
    await chown(run, 0, 0);
    await eventually("it is written", async () => (await other.written()).services.length > 0, 60_000);
  }, 120_000);

  it("of an agent without a data folder is made when it is asked for, and goes with the agent", async () => {
    const agent = await new Agent(join(folder.path, unused("dev")), { flags: ["--dev"] }).startHere();
    expect(await agent.doctor()).toContain("no table until somebody asks for one");
    const { table } = await agent.told();
    expect(decodeHookTable(await readFile(table)).services.map(({ subject }) => subject)).toEqual(["consul"]);
    expect((await stat(join(dirname(table), "observed"))).mode & 0o7777).toBe(0o1777);
    await agent.stop();
    await expect(stat(dirname(table))).rejects.toThrow(/ENOENT/);
  });
});

describe.runIf(able)("the README of the protocol", () => {
  it("works as it stands there", async () => {
    const readme = readFileSync(join(root, "src/protocols/shim/README.md"), "utf8");
    const example = /<!-- example -->\n+```sh\n([\s\S]*?)```/.exec(readme)?.[1];
    expect(example).toBeDefined();
    const folder = await ownFolder("hook-readme");
    const namespace = `trilith-hook-${process.pid}`;
    try {
      await writeFile(join(folder.path, "index.html"), "it works\n");
      expect((await runToEnd(["ip", "netns", "add", namespace])).exitCode).toBe(0);
      // A program of its own, so that what runs in the background is what gets the signal.
      await mkdir(join(folder.path, "bin"));
      const file = join(folder.path, "bin", "trilith");
      await writeFile(file, `#!/bin/sh\nexec ${process.execPath} ${program} "$@"\n`, { mode: 0o755 });
      const script = `ip link set lo up; cd ${folder.path}; export PATH=${dirname(file)}:$PATH
        ${example?.replaceAll(/ &$/gm, " >/dev/null 2>&1 &")}
        kill $(jobs -p); wait`;
      const done = await runToEnd(["ip", "netns", "exec", namespace, "bash", "-c", script]);
      expect(done.out).toContain("it works");
      expect((await runToEnd(["ip", "netns", "pids", namespace])).out).toBe("");
    } finally {
      await runToEnd(["ip", "netns", "delete", namespace]);
      await folder.remove();
    }
  }, 120_000);
});
