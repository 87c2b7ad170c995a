// What it costs to know the processes of a host: an agent beside 10,000 sleeping processes, with and without looking at them, and how soon
// a server is found when it listens and missed when it ends.
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { havePrograms } from "../test/support/peers.ts";

const SLEEPERS = Number(process.env["BENCH_PROCESSES"] ?? 10_000);
const RUNS = Number(process.env["BENCH_RUNS"] ?? 10);
const IDLE_MS = Number(process.env["BENCH_IDLE_MS"] ?? 20_000);
const TICKS_A_SECOND = 100;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** CPU of a process so far, in milliseconds, its threads included. */
function cpuMs(pid: number | undefined): number {
  const text = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_A_SECOND;
}

function memoryMiB(pid: number | undefined): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]) / 1024;
}

/** One parent that forks so many children, which all sleep. Ends with its input. */
async function sleepers(count: number): Promise<ChildProcess> {
  const script = `
import os, sys, signal
signal.signal(signal.SIGTERM, signal.SIG_DFL)
kids = []
for i in range(${count}):
    pid = os.fork()
    if pid == 0:
        signal.pause(); os._exit(0)
    kids.append(pid)
print(len(kids), flush=True); sys.stdin.read()
for pid in kids: os.kill(pid, signal.SIGKILL)
for pid in kids: os.waitpid(pid, 0)`;
  const parent = spawn("python3", ["-c", script], { stdio: ["pipe", "pipe", "inherit"] });
  await new Promise((resolve) => parent.stdout.once("data", resolve));
  return parent;
}

/** An agent in a process of its own; `line` resolves with the next line it prints. */
function startAgent(environ: boolean): { readonly child: ChildProcess; line(): Promise<string> } {
  const child = spawn(
    process.execPath,
    ["--import", "tsx", join(import.meta.dirname, "_process-agent.ts"), environ ? "on" : "off"],
    { stdio: ["pipe", "pipe", "inherit"] },
  );
  const lines: string[] = [];
  const waiting: ((line: string) => void)[] = [];
  let rest = "";
  child.stdout?.on("data", (bytes) => {
    rest += bytes;
    const all = rest.split("\n");
    rest = all.pop() ?? "";
    for (const line of all) {
      const next = waiting.shift();
      if (next === undefined) lines.push(line);
      else next(line);
    }
  });
  return {
    child,
    line: () => {
      const line = lines.shift();
      return line === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(line);
    },
  };
}

async function end(child: ChildProcess): Promise<void> {
  const over = new Promise((resolve) => child.once("exit", resolve));
  child.stdin?.end();
  await over;
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** "min / median / max ms". */
function summary(numbers: readonly number[]): string {
  const sorted = [...numbers].sort((a, b) => a - b);
  const at = (share: number): string => (sorted[Math.round(share * (sorted.length - 1))] ?? Number.NaN).toFixed(0);
  return `${at(0.5)} ms (${at(0)}–${at(1)})`;
}

if (!(await havePrograms("python3", "unshare", "ip"))) process.exit(0);
// In namespaces of its own, so that what else goes on on this machine is not measured.
if (process.env["BENCH_INSIDE"] === undefined) {
  const words = ["-n", "-p", "-f", "--mount-proc", "--", "/bin/sh", "-c", 'ip link set lo up && exec "$@"', "sh"];
  const inside = spawn(
    "unshare",
    [
      ...words,
      ...(process.execArgv.length === 0
        ? [process.execPath, "--import", "tsx"]
        : [process.execPath, ...process.execArgv]),
      import.meta.filename,
    ],
    {
      stdio: "inherit",
      env: { ...process.env, BENCH_INSIDE: "1" },
    },
  );
  process.exit(await new Promise((resolve) => inside.once("exit", resolve)));
}
const crowd = await sleepers(SLEEPERS);
try {
  console.log(`${SLEEPERS} sleeping processes`);
  for (const environ of [false, true]) {
    const agent = startAgent(environ);
    const began = performance.now();
    await agent.line();
    const readyMs = performance.now() - began;
    const startCpu = cpuMs(agent.child.pid);
    await pause(3000);
    const before = cpuMs(agent.child.pid);
    await pause(IDLE_MS);
    const idle = ((cpuMs(agent.child.pid) - before) / IDLE_MS) * 1000;
    console.log(
      `${environ ? "looking at them" : "not looking   "}: started after ${readyMs.toFixed(0)} ms with ${startCpu.toFixed(0)} ms CPU; ` +
        `idle ${idle.toFixed(1)} ms CPU a second; ${memoryMiB(agent.child.pid).toFixed(0)} MiB`,
    );
    if (environ) {
      const [found, missed]: [number[], number[]] = [[], []];
      for (let i = 0; i < RUNS; i++) {
        const server = spawn(
          "python3",
          [
            "-c",
            `import socket, time\ns=socket.socket(); s.bind(('127.0.0.1',${await freePort()})); s.listen(); print(time.time(), flush=True); time.sleep(60)`,
          ],
          { env: { ...process.env, SERVICE_NAME: "bench" }, stdio: ["ignore", "pipe", "inherit"] },
        );
        const listens = await new Promise<number>((resolve) =>
          server.stdout.once("data", (bytes) => resolve(Number(bytes) * 1000)),
        );
        found.push(Number(await agent.line()) - listens);
        await pause(Math.random() * 500);
        const over = new Promise<number>((resolve) => server.once("exit", () => resolve(Date.now())));
        server.kill("SIGKILL");
        missed.push(Number(await agent.line()) - (await over));
      }
      console.log(`listens → in answers: ${summary(found)}; ended → out of them: ${summary(missed)}`);
    }
    await end(agent.child);
  }
} finally {
  await end(crowd);
}
