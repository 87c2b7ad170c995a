// A TCP port that stands for a service with three instances: requests on open connections, new connections, large files; beside HAProxy in TCP mode and no proxy at all, in one run, interleaved.
import { execFile, spawn } from "node:child_process";
import { readFile, truncate, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../test/support/peers.ts";

const run = promisify(execFile);
const ROUNDS = Number(process.env["BENCH_ROUNDS"] ?? 5);
const SECONDS = Number(process.env["BENCH_SECONDS"] ?? 3);
/** Processor time in /proc comes in hundredths of a second. */
const TICK_US = 10_000;
const FILE_BYTES = 10 * 1_048_576;

interface Contestant {
  readonly name: string;
  readonly port: number;
  /** Whose processor time counts; none for no proxy. */
  readonly pid?: number;
  stop(): Promise<void>;
}

interface Load {
  readonly name: string;
  readonly path: string;
  readonly connections: number;
  readonly headers: readonly string[];
  readonly unit: "requests" | "MB";
}

const LOADS: readonly Load[] = [
  { name: "requests on open connections", path: "/small", connections: 50, headers: [], unit: "requests" },
  { name: "new connections", path: "/small", connections: 50, headers: ["Connection: close"], unit: "requests" },
  { name: "large files", path: "/large", connections: 8, headers: [], unit: "MB" },
];

interface Measured {
  readonly perSecond: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  /** Processor time per request or megabyte. */
  readonly processorUs: number;
}

const listens = (port: number): Promise<unknown> =>
  eventually(
    `somebody listens at ${port}`,
    () =>
      new Promise<boolean>((resolve) => {
        const socket = connect(port, "127.0.0.1");
        socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
        socket.end();
      }),
  );

async function nginx(folder: string, ports: readonly number[]): Promise<Contestant> {
  await writeFile(join(folder, "small"), "hello\n");
  await writeFile(join(folder, "large"), "");
  await truncate(join(folder, "large"), FILE_BYTES);
  const listen = ports.map((port) => `listen 127.0.0.1:${port} backlog=4096;`).join(" ");
  const kept = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${folder};`);
  await writeFile(
    join(folder, "nginx.conf"),
    `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log ${folder}/error.log;
events { worker_connections 4096; }
http { access_log off; sendfile on; keepalive_requests 1000000000; ${kept.join(" ")} server { ${listen} root ${folder}; } }
`,
  );
  const log = join(folder, "nginx.log");
  const program = await startProgram(["nginx", "-c", join(folder, "nginx.conf"), "-p", folder], log);
  for (const port of ports) await listens(port);
  return { name: "no proxy", port: ports[0] as number, stop: () => program.stop() };
}

async function trilith(ports: readonly number[]): Promise<Contestant> {
  const script = join(import.meta.dirname, "_proxy.ts");
  const child = spawn(process.execPath, ["--import", "tsx", script, ...ports.map(String)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const port = await new Promise<number>((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`the proxy ended with ${code}`)));
    child.stdout.once("data", (line: Buffer) => resolve(Number(line.toString())));
  });
  return {
    name: "trilith",
    port,
    pid: child.pid as number,
    stop: () =>
      new Promise((resolve) => {
        child.once("exit", () => resolve());
        child.stdin.end();
      }),
  };
}

async function haproxy(folder: string, ports: readonly number[]): Promise<Contestant> {
  const port = await freePort();
  await writeFile(
    join(folder, "haproxy.cfg"),
    `global
  nbthread 1
  maxconn 8000
defaults
  mode tcp
  option redispatch
  timeout connect 5s
  timeout client 1m
  timeout server 1m
listen l
  bind 127.0.0.1:${port} backlog 4096
${ports.map((each) => `  server s${each} 127.0.0.1:${each}`).join("\n")}
`,
  );
  const program = await startProgram(
    ["haproxy", "-db", "-f", join(folder, "haproxy.cfg")],
    join(folder, "haproxy.log"),
  );
  await listens(port);
  return { name: "HAProxy", port, pid: program.pid, stop: () => program.stop() };
}

async function processorUs(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_US;
}

const UNIT_MS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1_000, m: 60_000 };

function latencyMs(text: string, percent: string): number {
  const [, value, unit = ""] = new RegExp(`^\\s+${percent}%\\s+([\\d.]+)(us|ms|s|m)$`, "m").exec(text) ?? [];
  return Number(value) * (UNIT_MS[unit] ?? Number.NaN);
}

async function measure({ port, pid }: Contestant, load: Load, seconds: number): Promise<Measured> {
  const before = pid === undefined ? 0 : await processorUs(pid);
  const headers = load.headers.flatMap((header) => ["-H", header]);
  const { stdout } = await run("wrk", [
    ...["-t1", `-c${load.connections}`, `-d${seconds}`, "--latency", ...headers],
    `http://127.0.0.1:${port}${load.path}`,
  ]);
  const after = pid === undefined ? 0 : await processorUs(pid);
  const requests = Number(/(\d+) requests in/.exec(stdout)?.[1]);
  const elapsed = Number(/requests in ([\d.]+)s/.exec(stdout)?.[1]);
  if (!(requests > 0) || /Non-2xx|Socket errors: (?!connect 0, read 0, write 0, timeout 0)/.test(stdout))
    throw new Error(`wrk against port ${port} says:\n${stdout}`);
  const amount = load.unit === "MB" ? (requests * FILE_BYTES) / 1_000_000 : requests;
  return {
    perSecond: amount / elapsed,
    medianMs: latencyMs(stdout, "50"),
    p99Ms: latencyMs(stdout, "99"),
    processorUs: (after - before) / amount,
  };
}

const sorted = (values: readonly number[]): readonly number[] => values.toSorted((a, b) => a - b);
const median = (values: readonly number[]): number => sorted(values)[Math.floor(values.length / 2)] ?? Number.NaN;
const shown = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));
const spread = (values: readonly number[]): string =>
  `${shown(median(values))} (${shown(sorted(values)[0] ?? Number.NaN)}–${shown(sorted(values).at(-1) ?? Number.NaN)})`;

if (!(await havePrograms("nginx", "haproxy", "wrk"))) throw new Error("nginx, haproxy and wrk are needed");
const folder = await ownFolder("bench-proxy");
const ports = [await freePort(), await freePort(), await freePort()];
const contestants: Contestant[] = [];
try {
  contestants.push(await nginx(folder.path, ports));
  contestants.push(await haproxy(folder.path, ports), await trilith(ports));
  for (const load of LOADS) {
    const results = new Map(contestants.map(({ name }) => [name, [] as Measured[]]));
    for (const each of contestants) await measure(each, load, 1);
    for (let round = 0; round < ROUNDS; round++) {
      // Another one is first each time.
      const order = contestants.map((_, i) => contestants[(i + round) % contestants.length] as Contestant);
      for (const each of order) results.get(each.name)?.push(await measure(each, load, SECONDS));
    }
    const per = load.unit === "MB" ? "MB" : "request";
    console.log(
      `\n${load.name}, ${load.connections} at a time; median of ${ROUNDS} rounds of ${SECONDS} s (least–most)`,
    );
    console.log(
      `| | ${load.unit}/s | median ms | 99 % ms | µs of processor per ${per} |\n| --- | --- | --- | --- | --- |`,
    );
    for (const { name, pid } of contestants) {
      const all = results.get(name) ?? [];
      const column = (key: keyof Measured): string => spread(all.map((one) => one[key]));
      console.log(
        `| ${name} | ${column("perSecond")} | ${column("medianMs")} | ${column("p99Ms")} | ${pid === undefined ? "–" : column("processorUs")} |`,
      );
    }
  }
} finally {
  for (const each of contestants.reverse()) await each.stop();
  await folder.remove();
}
