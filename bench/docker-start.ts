// From a container's start to its name in DNS and from `docker kill` to its end there: a real dockerd, an agent with its data on disk,
// beside what was recorded of Registrator and Consul (which cannot be had here).
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { readFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { decode, encode } from "dns-packet";
import { type Docker, startDocker } from "../test/support/docker.ts";
import { havePrograms } from "../test/support/peers.ts";

const RUNS = Number(process.env["BENCH_RUNS"] ?? 10);
const POLL_MS = 1;
const NAME = "bench.service.consul";

/** One number of each run, in milliseconds. */
interface Run {
  readonly startEventToDns: number;
  readonly killToDns: number;
  readonly dieEventToDns: number;
}

/** Calls back with every container event and when it was read. */
function followEvents(docker: Docker, heard: (action: string, atMs: number) => void): () => void {
  const stream = request({ socketPath: docker.socketPath, path: "/events" }, (response) => {
    response.on("error", () => {});
    const lines = createInterface({ input: response });
    lines.on("error", () => {});
    lines.on("line", (line) => {
      const event = JSON.parse(line) as { Type: string; Action: string };
      if (event.Type === "container") heard(event.Action, performance.now());
    });
  });
  stream.on("error", () => {});
  stream.end();
  return () => void stream.destroy();
}

/** Asks for SRV records every millisecond until the answer has (or has none of) them; resolves with when the reply came. */
function untilAnswer(port: number, present: boolean): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = createSocket("udp4");
    const question = encode({ type: "query", id: 7, questions: [{ type: "SRV", name: NAME }] });
    const ask = (): void => socket.send(question, port, "127.0.0.1");
    const timer = setInterval(ask, POLL_MS);
    const limit = setTimeout(
      () => end(new Error(`${NAME} ${present ? "did not appear" : "did not go"} within 30 s`)),
      30_000,
    );
    const end = (outcome: number | Error): void => {
      clearInterval(timer);
      clearTimeout(limit);
      socket.close();
      if (typeof outcome === "number") resolve(outcome);
      else reject(outcome);
    };
    socket.on("message", (reply) => {
      const atMs = performance.now();
      if ((decode(reply).answers ?? []).length > 0 === present) end(atMs);
    });
    ask();
  });
}

async function measure(docker: Docker, port: number): Promise<Run> {
  const at = new Map<string, number>();
  const stop = followEvents(docker, (action, ms) => at.set(action, ms));
  try {
    await docker.docker("create", "--name", "bench", "-p", "80", "-e", "SERVICE_NAME=bench", "bbexp1");
    const appears = untilAnswer(port, true);
    await docker.post("/containers/bench/start");
    const appeared = await appears;
    const goes = untilAnswer(port, false);
    const killed = performance.now();
    await docker.post("/containers/bench/kill");
    const gone = await goes;
    const died = at.get("die") ?? Number.NaN;
    await docker.docker("rm", "-f", "bench");
    return {
      startEventToDns: appeared - (at.get("start") ?? Number.NaN),
      killToDns: gone - killed,
      dieEventToDns: gone - (at.get("die") ?? died),
    };
  } finally {
    stop();
  }
}

/** "min/median/max" in milliseconds. */
function summary(numbers: readonly number[]): { readonly text: string; readonly median: number } {
  const sorted = [...numbers].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.round(share * (sorted.length - 1))] ?? Number.NaN;
  return { text: `${at(0).toFixed(1)} / ${at(0.5).toFixed(1)} / ${at(1).toFixed(1)} ms`, median: at(0.5) };
}

interface Recorded {
  readonly runs: readonly {
    readonly dns_after_event_ms: number;
    readonly kill_to_die_event_ms: number;
    readonly dns_gone_after_die_ms: number;
  }[];
}

if (!(await havePrograms("dockerd", "docker", "iptables", "ip"))) process.exit(0);
const docker = await startDocker("bench");
try {
  const agent = spawn(
    process.execPath,
    ["--import", "tsx", join(import.meta.dirname, "_docker-agent.ts"), docker.host, join(docker.folder, "trilith")],
    { stdio: ["pipe", "pipe", "inherit"] },
  );
  const ended = new Promise<number | null>((resolve) => agent.once("exit", resolve));
  try {
    const port = await Promise.race([
      new Promise<number>((resolve) => agent.stdout.once("data", (line: Buffer) => resolve(Number(line.toString())))),
      ended.then((code) => {
        throw new Error(`the agent ended with ${code}`);
      }),
    ]);
    await measure(docker, port);
    const runs: Run[] = [];
    for (let i = 0; i < RUNS; i++) runs.push(await measure(docker, port));
    const file = join(import.meta.dirname, "../test/golden/registrator/timings.json");
    const recorded = (JSON.parse(await readFile(file, "utf8")) as Recorded).runs;
    const show = (what: string, ours: readonly number[], theirs: readonly number[]): void => {
      const [a, b] = [summary(ours), summary(theirs)];
      console.log(
        `${what}: ${a.text} (min/median/max of ${ours.length}); Registrator and Consul, recorded: ${b.text}; ratio ${(a.median / b.median).toFixed(2)}`,
      );
    };
    show(
      "start event → DNS answer",
      runs.map((r) => r.startEventToDns),
      recorded.map((r) => r.dns_after_event_ms),
    );
    show(
      "docker kill → out of DNS",
      runs.map((r) => r.killToDns),
      recorded.map((r) => r.kill_to_die_event_ms + r.dns_gone_after_die_ms),
    );
    show(
      "die event → out of DNS",
      runs.map((r) => r.dieEventToDns),
      recorded.map((r) => r.dns_gone_after_die_ms),
    );
  } finally {
    agent.stdin.end();
    await ended;
  }
} finally {
  await docker.remove();
}
