// A tailnet in one network namespace: addresses of 100.64.0.0/10 on its loopback, a fake tailscaled for each, Minidisc processes of every kind.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect } from "vitest";
import type { ModelService } from "./minidisc-models.ts";
import { eventually } from "./peers.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");

/** Set where a suite runs within its own network namespace. */
const INSIDE = "TRILITH_TEST_TAILNET";
export const inside: boolean = process.env[INSIDE] !== undefined;

/** Runs a test file again in a network namespace that has the addresses 100.64.0.1 to 100.64.0.9, and expects it to pass. */
export async function runInTailnet(file: string, timeoutMs: number): Promise<string> {
  const setUp = [
    "ip link set lo up",
    ...[1, 2, 3, 4, 5, 6, 7, 8, 9].flatMap((n) => [
      `ip addr add 100.64.0.${n}/32 dev lo`,
      `ip addr add fd7a:115c:a1e0::${n}/128 dev lo nodad`,
    ]),
    'exec "$@"',
  ].join(" && ");
  const vitest = [process.execPath, join(root, "node_modules/vitest/vitest.mjs"), "run", file, "--reporter=verbose"];
  // Where it takes too long, what it started ends with it: `timeout` ends the whole process group.
  const limit = ["-s", "KILL", `${timeoutMs / 1000}s`];
  const ended = await run("timeout", [...limit, "unshare", "-n", "--", "/bin/sh", "-c", setUp, "sh", ...vitest], {
    cwd: root,
    env: { ...process.env, [INSIDE]: "1", NO_COLOR: "1" },
    maxBuffer: 1 << 26,
  }).catch((error: { stdout: string; stderr: string; code: unknown }) => error);
  const said = `${ended.stdout}\n${ended.stderr}`;
  expect(said).toMatch(/Tests\s+[1-9][0-9]* passed(?! \|).*\(/);
  expect("code" in ended ? ended.code : 0, said).toBe(0);
  return said;
}

export interface FakePeer {
  readonly name: string;
  readonly ip: string;
  readonly ipv6?: string;
  online?: boolean;
}

/** The LocalAPI of one host; what it tells may be changed at any time. */
export interface FakeTailscaled {
  readonly path: string;
  state: string;
  tun: boolean;
  own: FakePeer;
  peers: FakePeer[];
  close(): Promise<void>;
}

export async function fakeTailscaled(path: string, own: FakePeer, peers: FakePeer[] = []): Promise<FakeTailscaled> {
  const host = ({ name, ip, ipv6, online = true }: FakePeer): object => ({
    HostName: name,
    DNSName: `${name}.tail-lab.ts.net.`,
    TailscaleIPs: ipv6 === undefined ? [ip] : [ip, ipv6],
    Online: online,
  });
  const server: Server = createServer((request, response) => {
    const { host: named, origin } = request.headers;
    if ((named !== "local-tailscaled.sock" && named !== "") || origin !== undefined)
      return void response.writeHead(403).end("invalid localapi request\n");
    if (request.url !== "/localapi/v0/status") return void response.writeHead(404).end("404 page not found\n");
    const anybody = fake.peers.length > 0;
    const self = fake.state === "NeedsLogin" ? null : (host(fake.own) as { TailscaleIPs: string[] }).TailscaleIPs;
    const body = JSON.stringify({
      Version: "1.102.5-fake",
      TUN: fake.tun,
      BackendState: fake.state,
      TailscaleIPs: self,
      Self: { ...host(fake.own), TailscaleIPs: self },
      Peer: anybody ? Object.fromEntries(fake.peers.map((each) => [`nodekey:${each.ip}`, host(each)])) : null,
    });
    response.writeHead(200, { "Content-Type": "application/json" }).end(body);
  });
  const fake: FakeTailscaled = {
    path,
    state: "Running",
    tun: true,
    own,
    peers,
    close: () =>
      new Promise((closed) => {
        server.close(() => closed());
        server.closeAllConnections();
      }),
  };
  await new Promise<void>((listening) => server.listen(path, listening));
  return fake;
}

export type Kind = "trilith" | "go" | "python";

/** A process of its own, to be killed. */
export interface Process {
  readonly kind: Kind;
  readonly child: ChildProcess;
  /** What it is now, as it says itself. */
  readonly said: () => string;
  kill(signal?: NodeJS.Signals): Promise<void>;
}

/** Starts a process that advertises; resolves when it has found its role. */
export async function startProcess(
  kind: Kind,
  { own, path }: Pick<FakeTailscaled, "own" | "path">,
  ...services: readonly string[]
): Promise<Process> {
  const script = fileURLToPath(new URL("./minidisc-process.ts", import.meta.url));
  const words = ["--import", "tsx", script, kind, own.ip, path, ...services];
  const child = spawn(process.execPath, words, { cwd: root, stdio: ["ignore", "pipe", "inherit", "ipc"] });
  let said = "";
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  await new Promise<void>((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`the ${kind} process ended with ${code}`)));
    child.stdout?.on("data", (chunk: Buffer) => {
      said = chunk.toString().trim().split("\n").at(-1) ?? said;
      resolve();
    });
  });
  return {
    kind,
    child,
    said: () => said,
    async kill(signal = "SIGKILL") {
      child.kill(signal);
      if (signal === "SIGKILL") child.kill("SIGCONT");
      await ended;
    },
  };
}

/** What a host lists; undefined while nobody answers there. */
export async function listed(ip: string, timeoutMs = 4_000): Promise<readonly ModelService[] | undefined> {
  try {
    const reply = await fetch(`http://${ip}:28004/services`, {
      headers: { connection: "close" },
      signal: AbortSignal.timeout(timeoutMs),
    });
    return reply.status === 200 ? ((await reply.json()) as readonly ModelService[]) : undefined;
  } catch {
    return undefined;
  }
}

/** The names that a host lists, in order. */
export async function names(ip: string, timeoutMs?: number): Promise<string> {
  return ((await listed(ip, timeoutMs)) ?? [])
    .map(({ name }) => name)
    .sort()
    .join(" ");
}

/** Hosts of a tailnet and the processes on them, each host made when it is first needed: number n is 100.64.0.n. */
export class Fleet {
  readonly #folder: string;
  readonly #hosts = new Map<number, Promise<FakeTailscaled>>();
  readonly #processes: { readonly host: number; readonly process: Process }[] = [];
  #ports = 8000;

  constructor(folder: string) {
    this.#folder = folder;
  }

  host(n: number): Promise<FakeTailscaled> {
    const made =
      this.#hosts.get(n) ?? fakeTailscaled(join(this.#folder, `sock-${n}`), { name: `host${n}`, ip: `100.64.0.${n}` });
    this.#hosts.set(n, made);
    return made;
  }

  async start(n: number, kind: Kind, name: string): Promise<Process> {
    const process = await startProcess(kind, await this.host(n), `${name}:${this.#ports++}`);
    this.#processes.push({ host: n, process });
    return process;
  }

  /** Waits until the host lists exactly these names, in order. */
  async lists(n: number, expected: string): Promise<void> {
    await eventually(`host ${n} lists "${expected}"`, async () => (await names(`100.64.0.${n}`)) === expected);
  }

  /** Ends the host's processes. */
  async clear(n: number): Promise<void> {
    await Promise.all(this.#processes.filter(({ host }) => host === n).map(({ process }) => process.kill()));
  }

  async end(): Promise<void> {
    await Promise.all(this.#processes.map(({ process }) => process.kill()));
    for (const host of this.#hosts.values()) await (await host).close();
  }
}
