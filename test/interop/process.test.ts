// `trilith run` with real programs: ports found, signals and exit codes kept, and registrations that live exactly as long as their process.
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Settings } from "../../src/contracts/settings.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../support/peers.ts";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const ready = await havePrograms("python3");

let port: number;
const cleanUp: (() => Promise<unknown> | unknown)[] = [];

beforeAll(async () => {
  port = await freePort();
});
afterEach(async () => {
  for (const step of cleanUp.splice(0).reverse()) await step();
});

async function startAgent(settings: Partial<Settings> = { dev: true, storage: "memory" }): Promise<Trilith> {
  const trilith = createTrilith({
    httpPort: port,
    ...settings,
    protocols: { docker: false, dns: { port: -1 }, file: false, process: { environ: false } },
  });
  await trilith.start();
  cleanUp.push(() => trilith.stop());
  return trilith;
}

interface Wrapper {
  readonly child: ChildProcess;
  readonly ended: Promise<{ readonly code: number | null; readonly signal: string | null }>;
  out(): string;
  err(): string;
}

/** Starts `trilith run` in a process of its own; `words` are its flags, `--`, and the command. */
function wrap(...words: readonly string[]): Wrapper {
  const child = spawn(process.execPath, ["--import", "tsx", main, "run", ...words], {
    env: { ...process.env, TRILITH_HTTP_ADDR: `127.0.0.1:${port}` },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let err = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    out += chunk.toString();
  });
  child.stderr?.on("data", (chunk: Buffer) => {
    err += chunk.toString();
  });
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve) =>
    child.once("exit", (code, signal) => resolve({ code, signal })),
  );
  cleanUp.push(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGTERM");
      const killer = setTimeout(() => child.kill("SIGKILL"), 5000);
      await ended;
      clearTimeout(killer);
    }
  });
  return { child, ended, out: () => out, err: () => err };
}

const endpoints = (trilith: Trilith, service: string, asker?: string): string[] =>
  trilith.lookup
    .resolveNow({ service, order: "stable", ...(asker === undefined ? {} : { asker }) })
    .endpoints.map(({ address, port: at }) => `${address}:${at}`);
const held = (trilith: Trilith, name: string): string[] =>
  [...trilith.agent.services().values()].filter((s) => s.instance.name === name).map((s) => s.instance.id);
const pidIn = (id: string): number => Number(/:(\d+):/.exec(id)?.[1]);

async function registered(trilith: Trilith, name: string, count = 1): Promise<string[]> {
  return await eventually(`${count} of ${name}`, () => {
    const ids = held(trilith, name);
    return ids.length === count ? ids : undefined;
  });
}
const gone = (trilith: Trilith, name: string): Promise<boolean> =>
  eventually(`${name} to go`, () => held(trilith, name).length === 0 && endpoints(trilith, name).length === 0);

const SERVER = ["python3", "-u", "-m", "http.server", "0"];

describe.skipIf(!ready)("trilith run", () => {
  it("registers what a server listens on, takes it out of answers before SIGTERM reaches it, and keeps its end", async () => {
    const trilith = await startAgent();
    const wrapper = wrap("--name", "web", "--tag", "blue", "--label", "team=shop", "--drain", "400ms", "--", ...SERVER);
    const [id = ""] = await registered(trilith, "web");
    const [where = ""] = endpoints(trilith, "web");
    const answer = await fetch(`http://127.0.0.1:${where.split(":").pop()}/`);
    expect(answer.status).toBe(200);
    expect(trilith.agent.services().get(id)?.instance).toMatchObject({
      tags: ["blue"],
      labels: { team: "shop" },
      address: "",
      origin: { source: "process", authority: "first-hand" },
    });
    wrapper.child.kill("SIGTERM");
    await eventually("no answers", () => endpoints(trilith, "web").length === 0);
    // Still there for those who have its address.
    expect(held(trilith, "web")).toEqual([id]);
    expect((await fetch(`http://127.0.0.1:${where.split(":").pop()}/`)).status).toBe(200);
    expect(await wrapper.ended).toEqual({ code: 143, signal: null });
    expect(held(trilith, "web")).toEqual([]);
    expect(trilith.agent.history("web")[0]?.text).toContain("was ended by SIGTERM");
    expect(wrapper.err()).not.toContain("trilith run:");
  });

  it("finds what a child of the program listens on, by the program's own name", async () => {
    const trilith = await startAgent();
    const wrapper = wrap(
      "--",
      "/bin/sh",
      "-c",
      "sleep 0.3; python3 -m http.server 0 >/dev/null 2>&1 & trap 'kill $!' TERM; wait; wait",
    );
    const [id = ""] = await registered(trilith, "sh");
    expect(id).toBe(`sh:${pidIn(id)}:${endpoints(trilith, "sh")[0]?.split(":").pop()}`);
    wrapper.child.kill("SIGTERM");
    await wrapper.ended;
    await gone(trilith, "sh");
  });

  it("gives several ports names that stay, notices ports that come and go, and keeps loopback at home", async () => {
    const trilith = await startAgent();
    const script = `
import socket, sys, time
def tcp(host, family=socket.AF_INET):
    s = socket.socket(family); s.bind((host, 0)); s.listen(); return s
a = tcp("127.0.0.1")
print("a", a.getsockname()[1], flush=True); sys.stdin.readline()
b = tcp("0.0.0.0")
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("0.0.0.0", b.getsockname()[1]))
print("b", b.getsockname()[1], flush=True); sys.stdin.readline()
a.close(); print("closed", flush=True); time.sleep(60)
`;
    const fifo = join((await folder()).path, "go");
    const wrapper = wrap(
      "--name",
      "multi",
      "--",
      "/bin/sh",
      "-c",
      `mkfifo ${fifo}; exec python3 -c '${script}' <>${fifo}`,
    );
    const go = async (): Promise<void> => {
      const { open } = await import("node:fs/promises");
      const handle = await open(fifo, "w");
      await handle.write("\n");
      await handle.close();
    };
    await registered(trilith, "multi");
    const a = /a (\d+)/.exec(wrapper.out())?.[1];
    expect(endpoints(trilith, "multi")).toEqual([`127.0.0.1:${a}`]);
    expect(endpoints(trilith, "multi", "203.0.113.9")).toEqual([]);
    await go();
    const b = await eventually("b", () => /b (\d+)/.exec(wrapper.out())?.[1]);
    await registered(trilith, `multi-${b}`, 2);
    expect(endpoints(trilith, "multi")).toEqual([`127.0.0.1:${a}`]);
    const udp = [...trilith.agent.services().values()].find((s) => s.instance.id.endsWith(":udp"));
    expect(udp?.instance).toMatchObject({ tags: ["udp"], port: Number(b) });
    await go();
    await eventually("the second to bear the name", () => endpoints(trilith, "multi")[0]?.endsWith(`:${b}`));
    expect(held(trilith, "multi")).toHaveLength(1);
  });

  it("lets a registration follow its process, not its wrapper", async () => {
    const trilith = await startAgent();
    const wrapper = wrap("--name", "web", "--", ...SERVER);
    const [id = ""] = await registered(trilith, "web");
    const pid = pidIn(id);
    cleanUp.push(() => {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // Gone already, as it should be.
      }
    });
    wrapper.child.kill("SIGKILL");
    await wrapper.ended;
    await eventually("the agent to notice", () =>
      trilith
        .sources()
        .find((s) => s.name === "process")
        ?.text.includes("1 without a wrapper"),
    );
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(held(trilith, "web")).toEqual([id]);
    process.kill(pid, "SIGKILL");
    await gone(trilith, "web");
    expect(trilith.agent.history("web")[0]?.text).toContain(`process ${pid} is gone`);
  });

  it("tells a killed program by its exit code and takes it out at once", async () => {
    const trilith = await startAgent();
    const wrapper = wrap("--name", "web", "--", ...SERVER);
    const [id = ""] = await registered(trilith, "web");
    process.kill(pidIn(id), "SIGKILL");
    expect(await wrapper.ended).toEqual({ code: 137, signal: null });
    expect(held(trilith, "web")).toEqual([]);
  });

  it("runs without an agent, says so once, and registers when one comes", async () => {
    const wrapper = wrap("--name", "web", "--", ...SERVER);
    await eventually("the note", () => wrapper.err().includes("no agent answers"));
    const trilith = await startAgent();
    await registered(trilith, "web");
    expect(wrapper.err().match(/no agent answers/g)).toHaveLength(1);
    await eventually("the good news", () => wrapper.err().includes("connected to the agent"));
  });

  it("comes through a restart of the agent; what died meanwhile is gone at once", async () => {
    const data = await folder();
    const settings: Partial<Settings> = { dataDir: data.path, storage: "lmdb" };
    const first = await startAgent(settings);
    const stays = wrap("--name", "stays", "--", ...SERVER);
    const orphan = wrap("--name", "orphan", "--", ...SERVER);
    const dies = wrap("--name", "dies", "--", ...SERVER);
    const [stayId] = await registered(first, "stays");
    const [orphanId = ""] = await registered(first, "orphan");
    const [dieId = ""] = await registered(first, "dies");
    orphan.child.kill("SIGKILL");
    cleanUp.push(() => process.kill(pidIn(orphanId), "SIGKILL"));
    await first.stop();
    process.kill(pidIn(dieId), "SIGKILL");
    await dies.ended;
    const second = await startAgent(settings);
    await gone(second, "dies");
    expect(held(second, "stays")).toEqual([stayId]);
    expect(held(second, "orphan")).toEqual([orphanId]);
    expect(endpoints(second, "orphan")).toHaveLength(1);
    await eventually("the wrapper back", () =>
      second
        .sources()
        .find((s) => s.name === "process")
        ?.text.includes("2 programs under `trilith run`, 1 without a wrapper"),
    );
    expect(held(second, "stays")).toEqual([stayId]);
    stays.child.kill("SIGTERM");
    await stays.ended;
    await gone(second, "stays");
  });

  it("checks what it is told to check, with scripts under the wrapper's own rights", async () => {
    const trilith = await startAgent();
    wrap(
      "--name",
      "web",
      "--check",
      "http:/",
      "--check",
      "tcp",
      "--check",
      'script:test -n "$TRILITH_PORT" && echo well',
      "--interval",
      "200ms",
      "--",
      ...SERVER,
    );
    await registered(trilith, "web");
    const statuses = (): string[] =>
      [...trilith.agent.checks().values()].map((c) => `${c.check.type || c.spec.kind} ${c.check.status}`).sort();
    await eventually("all to pass", () => statuses().join() === "http passing,tcp passing,ttl passing").catch(
      (error: unknown) => {
        throw new Error(JSON.stringify([...trilith.agent.checks().values()].map((c) => c.check)), { cause: error });
      },
    );
    expect([...trilith.agent.checks().values()].find((c) => c.spec.kind === "ttl")?.check.output).toBe("well\n");
  });

  it.each<[string, readonly string[], number, string]>([
    ["its exit code", ["--", "/bin/sh", "-c", "exit 3"], 3, ""],
    ["127 for an unknown command", ["--", "/no/such/program"], 127, "/no/such/program: command not found"],
    ["126 for what is no program", ["--", "/etc/passwd"], 126, "permission denied"],
    ["2 for a missing --", ["--name", "x", "sleep", "1"], 2, "put -- before the command: trilith run -- sleep 1"],
    ["2 for a wrong check", ["--check", "ping", "--", "true"], 2, '--check "ping": expected http:/path'],
    ["2 for a wrong port", ["--port", "70000", "--", "true"], 2, '"70000": expected a whole number from 1 to 65535'],
  ])("keeps %s", async (_, words, code, text) => {
    const wrapper = wrap(...words);
    expect((await wrapper.ended).code).toBe(code);
    expect(wrapper.err()).toContain(text);
  });

  it("forwards signals", async () => {
    const script =
      'trap "echo hup" HUP; trap "echo usr1" USR1; trap "echo usr2" USR2; trap "echo int" INT; trap "echo quit" QUIT; trap "echo term; exit 9" TERM; echo ready; while :; do sleep 0.02; done';
    const wrapper = wrap("--", "/bin/sh", "-c", script);
    await eventually("ready", () => wrapper.out().includes("ready"));
    for (const [signal, text] of [
      ["SIGHUP", "hup"],
      ["SIGUSR1", "usr1"],
      ["SIGUSR2", "usr2"],
      ["SIGINT", "int"],
      ["SIGQUIT", "quit"],
      ["SIGTERM", "term"],
    ] as const) {
      wrapper.child.kill(signal);
      await eventually(text, () => wrapper.out().includes(`${text}\n`));
    }
    expect((await wrapper.ended).code).toBe(9);
    expect(wrapper.out()).toBe("ready\nhup\nusr1\nusr2\nint\nquit\nterm\n");
  });

  it("lets Ctrl-C on a terminal reach the program once", async () => {
    const program = [
      "import signal, sys, time",
      "n = [0]",
      "def hit(*_):",
      "    n[0] += 1; print('hit', n[0], flush=True)",
      "signal.signal(signal.SIGINT, hit)",
      "print('ready', flush=True)",
      "end = time.time() + 1.5",
      "while time.time() < end: time.sleep(0.05)",
      "sys.exit(40 + n[0])",
    ].join("\n");
    const terminal = [
      "import os, pty, sys",
      "pid, fd = pty.fork()",
      "if pid == 0: os.execvp(sys.argv[1], sys.argv[1:])",
      "seen = b''",
      "sent = False",
      "while True:",
      "    try: chunk = os.read(fd, 4096)",
      "    except OSError: break",
      "    if not chunk: break",
      "    seen += chunk",
      "    if b'ready' in seen and not sent: sent = True; os.write(fd, b'\\x03')",
      "_, status = os.waitpid(pid, 0)",
      "print(seen.decode()); sys.exit(os.WEXITSTATUS(status))",
    ].join("\n");
    const child = spawn(
      "python3",
      ["-c", terminal, process.execPath, "--import", "tsx", main, "run", "--", "python3", "-c", program],
      { env: { ...process.env, TRILITH_HTTP_ADDR: `127.0.0.1:${port}` }, stdio: ["ignore", "pipe", "inherit"] },
    );
    let out = "";
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    const code = await new Promise((resolve) => child.once("exit", resolve));
    expect(out).toContain("hit 1");
    expect(code).toBe(41);
  });
});

async function folder(): Promise<{ readonly path: string }> {
  const own = await ownFolder("process");
  cleanUp.unshift(() => own.remove());
  return own;
}
