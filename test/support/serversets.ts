// Peers of server sets for tests: kazoo's members and readers, and agents that run as processes of their own.
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { eventually, freePort, havePrograms, startProgram } from "./peers.ts";
import { program, runToEnd } from "./program.ts";

const SCRIPT = fileURLToPath(new URL("serverset.py", import.meta.url));
const PYTHON = "/usr/bin/python3";

/** True where kazoo is there (Debian's package). */
export function haveKazoo(): Promise<boolean> {
  return havePrograms("python3", "/usr/lib/python3/dist-packages/kazoo");
}

/** A member as a reader sees it. */
export interface SeenMember {
  readonly name: string;
  readonly owner: string;
  readonly serviceEndpoint: { readonly host: string; readonly port: number };
  readonly additionalEndpoints: Readonly<Record<string, { readonly host: string; readonly port: number }>>;
  readonly shard?: number;
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface KazooPeer {
  readonly pid: number;
  lines(): Promise<readonly string[]>;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

let count = 0;

async function kazoo(folder: string, words: readonly string[]): Promise<KazooPeer> {
  const log = join(folder, `kazoo-${++count}.log`);
  const running = await startProgram([PYTHON, SCRIPT, ...words], log);
  return {
    pid: running.pid,
    lines: async () => (await readFile(log, "utf8")).trim().split("\n"),
    stop: (signal) => running.stop(signal),
  };
}

/** Joins a set and stays; resolves with the member's path when it is in. */
export async function joinSet(
  folder: string,
  ...words: readonly string[]
): Promise<KazooPeer & { readonly member: string }> {
  const peer = await kazoo(folder, ["join", ...words]);
  const member = await eventually("the member is in", async () =>
    (await peer.lines()).find((line) => line.startsWith("MEMBER "))?.slice("MEMBER ".length),
  ).catch(async (error: unknown) => {
    await peer.stop("SIGKILL");
    throw error;
  });
  return { ...peer, member };
}

/** Watches a set: `seen` are all its states so far. */
export async function watchSet(
  folder: string,
  ...words: readonly string[]
): Promise<KazooPeer & { seen(): Promise<readonly (readonly SeenMember[])[]>; faults(): Promise<readonly string[]> }> {
  const peer = await kazoo(folder, ["watch", ...words]);
  const seen = async (): Promise<readonly (readonly SeenMember[])[]> =>
    (await peer.lines())
      .filter((line) => line.startsWith("MEMBERS "))
      .map((line) => JSON.parse(line.slice("MEMBERS ".length)) as readonly SeenMember[]);
  await eventually("the set is watched", async () => (await seen()).length > 0).catch(async (error: unknown) => {
    await peer.stop("SIGKILL");
    throw error;
  });
  return { ...peer, seen, faults: async () => (await peer.lines()).filter((line) => line.startsWith("FAULT ")) };
}

/** An agent as a process, started again on the same data. */
export interface AgentProcess {
  readonly url: string;
  pid(): number;
  start(): Promise<void>;
  stop(signal?: NodeJS.Signals): Promise<void>;
  put(path: string, body?: unknown): Promise<void>;
  /** "address:port" of what HTTP answers as well, in order. */
  find(service: string): Promise<readonly string[]>;
  log(): Promise<string>;
}

/** An agent with nothing but the given protocols. `protocols` may be another object at each start. */
export async function agentProcess(
  folder: string,
  node: string,
  protocols: () => Readonly<Record<string, unknown>>,
  flags: readonly string[] = [],
): Promise<AgentProcess> {
  const [http, dns] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${http}`;
  const config = join(folder, `${node}.json`);
  const log = join(folder, `${node}.log`);
  let running: Awaited<ReturnType<typeof startProgram>> | undefined;
  const self: AgentProcess = {
    url,
    pid: () => running?.pid ?? -1,
    async start() {
      await writeFile(config, JSON.stringify({ protocols: protocols() }));
      const ports = ["--http-port", `${http}`, "--dns-port", `${dns}`, "--bind", "127.0.0.1"];
      const off = ["--docker-host", "off", "--environ", "off"];
      const own = ["--node", node, "--data-dir", join(folder, node), "--config-file", config, ...flags];
      running = await startProgram([process.execPath, program, "agent", ...ports, ...off, ...own], log);
      await eventually(`${node} is up`, async () => (await fetch(`${url}/v1/status/leader`)).ok);
    },
    async stop(signal) {
      await running?.stop(signal);
      running = undefined;
    },
    async put(path, body) {
      const answer = await fetch(url + path, {
        method: "PUT",
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    },
    async find(service) {
      const rows = (await (await fetch(`${url}/v1/health/service/${service}?passing`)).json()) as {
        Node: { Address: string };
        Service: { Address: string; Port: number };
      }[];
      return rows.map(({ Node, Service }) => `${Service.Address || Node.Address}:${Service.Port}`).sort();
    },
    log: () => readFile(log, "utf8"),
  };
  await rm(config, { force: true });
  return self;
}

/** Lets everybody read a znode's children and data, or nobody. */
export async function mayBeRead(address: string, path: string, yes: boolean): Promise<void> {
  const script = `
from kazoo.client import KazooClient
from kazoo.security import make_acl
client = KazooClient("${address}")
client.start(timeout=30)
client.set_acls("${path}", [make_acl("world", "anyone", create=True, write=True, delete=True, admin=True, read=${yes ? "True" : "False"})])
client.stop()`;
  const { exitCode, err } = await runToEnd([PYTHON, "-c", script]);
  if (exitCode !== 0) throw new Error(`the access list of ${path}: ${err}`);
}
