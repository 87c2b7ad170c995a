// `trilith lock` against a running agent: who holds, who waits, what ends the command, which exit code.
import { type ChildProcess, spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { ownName } from "../support/own-name.ts";
import { eventually, ownFolder } from "../support/peers.ts";

const main = resolve(import.meta.dirname, "../../src/cli/main.ts");

interface Run {
  readonly child: ChildProcess;
  readonly ended: Promise<{ readonly code: number | null; readonly out: string; readonly err: string }>;
  text(): string;
}

describe("trilith lock", () => {
  let agent: RunningAgent;
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  const runs: Run[] = [];
  /** Where the locks of this try are, and its files. */
  let at: string;

  beforeAll(async () => {
    agent = await startAgent({ compat: "consul" });
    folder = await ownFolder("lock");
  });
  beforeEach(() => {
    at = ownName("lock");
  });
  afterEach(async () => {
    for (const { child } of runs.splice(0)) child.kill("SIGKILL");
  });
  afterAll(async () => {
    await agent?.stop();
    await folder?.remove();
  });

  const lock = (words: readonly string[], options: { input?: string; url?: string } = {}): Run => {
    const child = spawn(process.execPath, ["--import", "tsx", main, "lock", ...words], {
      env: { ...process.env, SHELL: "/bin/sh", TRILITH_HTTP_ADDR: options.url ?? agent.url, OUT: folder.path },
      stdio: ["pipe", "pipe", "pipe"],
    });
    let [out, err] = ["", ""];
    child.stdout?.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      err += chunk.toString();
    });
    child.stdin?.end(options.input ?? "");
    const ended = new Promise<{ code: number | null; out: string; err: string }>((done) => {
      child.once("close", (code) => done({ code, out, err }));
    });
    const run = { child, ended, text: () => out };
    runs.push(run);
    return run;
  };
  const ask = async (method: string, path: string, body?: string): Promise<unknown> => {
    const answer = await fetch(`${agent.url}${path}`, { method, ...(body === undefined ? {} : { body }) });
    const text = await answer.text();
    return text === "" ? answer.status : JSON.parse(text);
  };
  const pair = async (
    key: string,
  ): Promise<{ Session?: string; LockIndex: number; Value: string | null } | undefined> => {
    const found = await ask("GET", `/v1/kv/${key}`);
    return Array.isArray(found) ? found[0] : undefined;
  };
  /** What a command does until `go()`. */
  const untilTold = (): string => `until [ -e "$OUT/${at}" ]; do sleep 0.05; done`;
  const go = (): Promise<void> => writeFile(join(folder.path, at), "");
  const lines = async (file: string): Promise<string[]> =>
    (await readFile(join(folder.path, file), "utf8").catch(() => "")).split("\n").filter((line) => line !== "");

  test("runs the command while the lock is held, and leaves nothing behind", async () => {
    const run = lock([
      "-verbose",
      "-name",
      "mine",
      `/${at}`,
      `echo $CONSUL_LOCK_HELD; echo up; ${untilTold()}; echo -n end`,
    ]);
    await eventually("it runs", () => run.text().includes("up\n"));
    const held = await pair(`${at}/.lock`);
    expect(held?.LockIndex).toBe(1);
    const flags = await (await fetch(`${agent.url}/v1/kv/${at}/.lock`)).text();
    // 0x2ddccbc058a50c18: what Consul's own clients look for.
    expect(flags).toContain("3304740253564472344");
    const [session] = (await ask("GET", `/v1/session/info/${held?.Session}`)) as Record<string, unknown>[];
    expect(session).toMatchObject({ Name: "mine", TTL: "15s", Behavior: "release", NodeChecks: ["serfHealth"] });
    await go();
    const { code, out } = await run.ended;
    expect(code).toBe(0);
    expect(out).toMatch(
      new RegExp(
        `^Setting up lock at path: ${at}/\\.lock\nAttempting lock acquisition\nStarting handler '.*'\ntrue\nup\nend`,
      ),
    );
    expect(await pair(`${at}/.lock`)).toBeUndefined();
    expect(await ask("GET", `/v1/session/info/${held?.Session}`)).toEqual([]);
  });

  test("a failing command fails the lock only where that is asked for", async () => {
    expect(await lock([at, "exit 3"]).ended).toMatchObject({
      code: 0,
      err: "Error running handler: exit status 3\n",
    });
    expect(await lock(["-child-exit-code", at, "exit 3"]).ended).toMatchObject({ code: 2 });
    expect(await lock(["-child-exit-code", at, "true"]).ended).toMatchObject({ code: 0, err: "" });
    expect(await lock(["-child-exit-code", "-shell=false", at, "/no/such/program"]).ended).toMatchObject({
      code: 2,
      err: "Error executing handler: /no/such/program: command not found\n",
    });
  });

  test("what follows the prefix is the command's own, flags included", async () => {
    const plain = await lock(["-shell=false", at, "printf", "%s|", "-n", "a b", "-name=x", "--", "$HOME"]).ended;
    expect(plain).toMatchObject({ code: 0, out: "-n|a b|-name=x|--|$HOME|" });
    const input = await lock(["-pass-stdin", at, "cat"], { input: "from outside" }).ended;
    expect(input).toMatchObject({ code: 0, out: "from outside" });
    expect(await lock([at, "cat"], { input: "from outside" }).ended).toMatchObject({ code: 0, out: "" });
  });

  test.each([
    [["-n=0", "p", "true"], "-n"],
    [["-n", "two", "p", "true"], "-n"],
    [["-monitor-retry=-1", "p", "true"], "--monitor-retry"],
    [["-timeout", "soon", "p", "true"], "--timeout"],
    [["p"], "missing required argument"],
    [["/", "true"], "prefix"],
  ])("%j is a wrong command line", async (words, said) => {
    const { code, err } = await lock(words).ended;
    expect(code).toBe(2);
    expect(err).toContain(said);
  });

  test("several at once run one after the other", async () => {
    const work = `echo in >> "$OUT/${at}"; sleep 0.2; echo out >> "$OUT/${at}"`;
    const ends = await Promise.all([1, 2, 3].map(() => lock([at, work]).ended));
    expect(ends.map(({ code }) => code)).toEqual([0, 0, 0]);
    expect(await lines(at)).toEqual(["in", "out", "in", "out", "in", "out"]);
    expect(await pair(`${at}/.lock`)).toBeUndefined();
  });

  test("a semaphore lets as many in as it says, and only those who count alike", async () => {
    const held = lock(["-n", "2", at, "echo up; sleep 300"]);
    await eventually("one is in", () => held.text().includes("up"));
    const { err, code } = await lock(["-n", "3", at, "true"]).ended;
    expect([code, err]).toEqual([1, expect.stringContaining("others count to 2, this one to 3")]);
    expect(await lock([at, "true"]).ended).toMatchObject({ code: 1, err: expect.stringContaining("is not a lock") });
    const work = `echo in >> "$OUT/${at}"; sleep 0.3; echo out >> "$OUT/${at}"`;
    const rest = [1, 2, 3].map(() => lock(["-n", "2", at, work]));
    expect((await Promise.all(rest.map(({ ended }) => ended))).map((end) => end.code)).toEqual([0, 0, 0]);
    // One place is taken all the time: the others share the second.
    expect(await lines(at)).toEqual(["in", "out", "in", "out", "in", "out"]);
    const [mine] = Object.keys(
      JSON.parse(Buffer.from((await pair(`${at}/.lock`))?.Value ?? "", "base64").toString()).Holders,
    );
    expect(await pair(`${at}/${mine}`)).toMatchObject({ Session: mine });
    held.child.kill("SIGTERM");
    expect(await held.ended).toMatchObject({ code: 0 });
    expect(await ask("GET", `/v1/kv/${at}/?keys`)).toBe(404);
  });

  test("waits no longer than it is told", async () => {
    const { ID } = (await ask("PUT", "/v1/session/create", "{}")) as { ID: string };
    await ask("PUT", `/v1/kv/${at}/.lock?acquire=${ID}&flags=3304740253564472344`, "");
    const { code, err } = await lock(["-timeout=300ms", at, "true"]).ended;
    expect([code, err]).toEqual([1, "Shutdown triggered or timeout during lock acquisition\n"]);
    const waiting = lock(["-name", at, at, "echo never"]);
    const sessions = async (): Promise<number> =>
      ((await ask("GET", "/v1/session/list")) as { Name: string }[]).filter(({ Name }) => Name === at).length;
    await eventually("it waits", async () => (await sessions()) === 1);
    waiting.child.kill("SIGINT");
    expect(await waiting.ended).toMatchObject({ code: 1, out: "" });
    expect(await pair(`${at}/.lock`)).toMatchObject({ Session: ID });
    expect(await sessions()).toBe(0);
    await ask("PUT", `/v1/session/destroy/${ID}`);
  });

  test("a lost lock ends the command, and the exit code says so", async () => {
    const run = lock([at, 'trap "echo told; exit 0" TERM; echo up; while :; do sleep 0.05; done']);
    await eventually("it runs", () => run.text().includes("up"));
    await ask("PUT", `/v1/session/destroy/${(await pair(`${at}/.lock`))?.Session}`);
    const { code, out, err } = await run.ended;
    expect(out).toBe("up\ntold\n");
    expect(err).toContain("the lock was lost");
    expect(code).toBe(1);
  });

  test("signals reach the command and what it started; the lock is given back", async () => {
    const run = lock([at, 'trap "echo usr1" USR1; echo up; while :; do sleep 0.05; done']);
    await eventually("it runs", () => run.text().includes("up"));
    run.child.kill("SIGUSR1");
    await eventually("it got the signal", () => run.text().includes("usr1"));
    run.child.kill("SIGTERM");
    expect(await run.ended).toMatchObject({ code: 0, err: "Error running handler: signal: SIGTERM\n" });
    expect(await pair(`${at}/.lock`)).toBeUndefined();
    // The shell waits for its own child, which must be told as well.
    const nested = lock([at, "sleep 300; true"]);
    await eventually("it holds", async () => (await pair(`${at}/.lock`))?.Session !== undefined);
    nested.child.kill("SIGTERM");
    expect(await nested.ended).toMatchObject({ code: 0 });
  });

  describe("an agent that fails for a while", () => {
    let proxy: Server;
    let url: string;
    let failing = false;
    let failed = 0;
    /** How often the agent was asked since it failed. */
    let asked = 0;
    beforeAll(async () => {
      proxy = createServer((incoming, outgoing) => {
        if (failing && incoming.method === "GET") {
          failed++;
          asked = 0;
          failing = false; // one failure: what the command does next is answered
          outgoing.writeHead(500).end("No cluster leader");
          return;
        }
        asked++;
        const target = request(`${agent.url}${incoming.url}`, { method: incoming.method ?? "GET" }, (answer) => {
          outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
          answer.pipe(outgoing);
        });
        target.on("error", () => outgoing.destroy());
        outgoing.on("close", () => target.destroy());
        incoming.pipe(target);
      });
      await new Promise<void>((done) => proxy.listen(0, "127.0.0.1", done));
      url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    });
    afterAll(() => {
      proxy.closeAllConnections();
      proxy.close();
    });
    /** Ends the monitor's present question, so that it asks again. */
    const nudge = async (key: string): Promise<void> => {
      await ask("PUT", `/v1/kv/${key}?acquire=${(await pair(key))?.Session}&flags=3304740253564472344`, "x");
    };

    test("is put up with as often as it is told", async () => {
      const run = lock(["-monitor-retry=3", at, `echo up; ${untilTold()}; echo done`], { url });
      await eventually("it runs", () => run.text().includes("up"));
      failing = true;
      failed = 0;
      await nudge(`${at}/.lock`);
      await eventually("the monitor met a failure, and asked again", () => failed > 0 && asked > 0);
      await go();
      expect(await run.ended).toMatchObject({ code: 0, out: "up\ndone\n", err: "" });
    });

    test("ends the command where it is told not to", async () => {
      const run = lock(["-monitor-retry=0", at, "echo up; sleep 300"], { url });
      await eventually("it runs", () => run.text().includes("up"));
      failing = true;
      failed = 0;
      await nudge(`${at}/.lock`);
      await eventually("the monitor met a failure", () => failed > 0);
      const { code, err } = await run.ended;
      expect(code).toBe(1);
      expect(err).toContain("No cluster leader");
      expect(await pair(`${at}/.lock`)).toBeUndefined();
    });
  });

  test("without an agent it says how to get one", async () => {
    const { code, err } = await lock(["p", "true"], { url: "http://127.0.0.1:1" }).ended;
    expect([code, err]).toEqual([1, expect.stringContaining("no agent answers at")]);
  });
});
