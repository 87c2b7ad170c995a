// Real etcd for tests: one node on loopback ports, or three nodes in network namespaces that can be killed, paused and cut off.
import { execFile } from "node:child_process";
import { rm } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { type Log, silentLog } from "../../src/base/log.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { Batch, Row } from "../../src/contracts/storage.ts";
import {
  createEtcdStorage,
  type EtcdSettings,
  type EtcdStorage,
  type EtcdTiming,
} from "../../src/directory/storage/etcd.ts";
import { eventually, freePort, ownFolder, startProgram } from "./peers.ts";

const run = promisify(execFile);

/** One etcd on loopback. */
export interface EtcdNode {
  readonly endpoint: string;
  /** The pid while it runs. */
  pid(): number | undefined;
  start(): Promise<void>;
  stop(signal?: NodeJS.Signals): Promise<void>;
  pause(): void;
  resume(): void;
  /** Runs etcdctl (API 3) against it; its standard output. */
  ctl(...args: string[]): Promise<string>;
  /** Stops it and removes its data; it can be started again, empty. */
  wipe(): Promise<void>;
  /** Stops it and removes everything. */
  remove(): Promise<void>;
}

/** Starts one etcd with a data folder and ports of its own; `flags` are added to its command line. */
export async function startEtcd(flags: readonly string[] = [], scheme: "http" | "https" = "http"): Promise<EtcdNode> {
  const folder = await ownFolder("etcd");
  const [port, peerPort] = [await freePort(), await freePort()];
  const endpoint = `${scheme}://127.0.0.1:${port}`;
  const data = join(folder.path, "data");
  let program: Awaited<ReturnType<typeof startProgram>> | undefined;
  const node: EtcdNode = {
    endpoint,
    pid: () => program?.pid,
    async start() {
      if (program !== undefined) return;
      program = await startProgram(
        [
          ...["etcd", "--name", "one", "--data-dir", data],
          ...["--listen-client-urls", endpoint, "--advertise-client-urls", endpoint],
          ...["--listen-peer-urls", `http://127.0.0.1:${peerPort}`],
          ...["--initial-advertise-peer-urls", `http://127.0.0.1:${peerPort}`],
          ...["--initial-cluster", `one=http://127.0.0.1:${peerPort}`],
          ...flags,
        ],
        join(folder.path, "log"),
      );
      if (scheme === "http")
        await eventually("etcd answers", async () => (await fetch(`${endpoint}/health`)).ok, 60_000);
    },
    async stop(signal = "SIGTERM") {
      const ending = program;
      program = undefined;
      if (ending === undefined) return;
      process.kill(ending.pid, "SIGCONT");
      await ending.stop(signal);
    },
    pause: () => void (program !== undefined && process.kill(program.pid, "SIGSTOP")),
    resume: () => void (program !== undefined && process.kill(program.pid, "SIGCONT")),
    ctl: (...args) => etcdctl(endpoint, ...args),
    async wipe() {
      await node.stop("SIGKILL");
      await rm(data, { recursive: true, force: true });
    },
    async remove() {
      await node.stop("SIGKILL");
      await folder.remove();
    },
  };
  await node.start();
  return node;
}

/** Runs etcdctl with API 3; its standard output. */
async function etcdctl(endpoints: string, ...args: string[]): Promise<string> {
  const { stdout } = await run("etcdctl", ["--command-timeout=5s", `--endpoints=${endpoints}`, ...args], {
    env: { ...process.env, ETCDCTL_API: "3" },
    maxBuffer: 1 << 26,
  });
  return stdout;
}

/** Three members, numbered from 1, each in a network namespace of its own on one bridge that the test reaches. */
export interface EtcdCluster {
  readonly endpoints: readonly string[];
  start(n: number): Promise<void>;
  kill(n: number): Promise<void>;
  pause(n: number): void;
  resume(n: number): void;
  /** Cuts a member off from peers and clients alike. */
  isolate(n: number): Promise<void>;
  heal(n: number): Promise<void>;
  /** The number of the leader that a majority knows. */
  leader(): Promise<number>;
  /** Waits until all three members answer and agree. */
  healthy(): Promise<void>;
  /** Undoes every fault, and waits until all is well. */
  mend(): Promise<void>;
  remove(): Promise<void>;
}

/** Starts the cluster; needs root. The subnet is 10.77.<third>.0/24, so that tests at the same time can have one each. */
export async function startEtcdCluster(third: number): Promise<EtcdCluster> {
  const folder = await ownFolder("etcd-cluster");
  const tag = `te${third}`;
  const address = (n: number): string => `10.77.${third}.${10 + n}`;
  const numbers = [1, 2, 3];
  const endpoints = numbers.map((n) => `http://${address(n)}:2379`);
  const programs = new Map<number, Awaited<ReturnType<typeof startProgram>>>();
  const ip = async (...args: string[]): Promise<void> => void (await run("ip", args));
  const sw = `${tag}-sw`;
  const root = `${tag}-root`;
  const initial = numbers.map((n) => `e${n}=http://${address(n)}:2380`).join(",");

  const cluster: EtcdCluster = {
    endpoints,
    async start(n) {
      if (programs.has(n)) return;
      programs.set(
        n,
        await startProgram(
          [
            ...["ip", "netns", "exec", `${tag}-${n}`, "etcd", "--name", `e${n}`],
            ...["--data-dir", join(folder.path, `e${n}`), "--initial-cluster", initial],
            ...["--listen-client-urls", "http://0.0.0.0:2379", "--advertise-client-urls", `http://${address(n)}:2379`],
            ...[
              "--listen-peer-urls",
              "http://0.0.0.0:2380",
              "--initial-advertise-peer-urls",
              `http://${address(n)}:2380`,
            ],
            ...["--heartbeat-interval", "100", "--election-timeout", "1000"],
          ],
          join(folder.path, `e${n}.log`),
        ),
      );
    },
    async kill(n) {
      const program = programs.get(n);
      programs.delete(n);
      await program?.stop("SIGKILL");
    },
    pause: (n) => void process.kill(programs.get(n)?.pid ?? Number.NaN, "SIGSTOP"),
    resume: (n) => void process.kill(programs.get(n)?.pid ?? Number.NaN, "SIGCONT"),
    isolate: (n) => ip("-n", sw, "link", "set", `p${n}`, "down"),
    heal: (n) => ip("-n", sw, "link", "set", `p${n}`, "up"),
    leader: () =>
      eventually(
        "a leader that two members know",
        async () => {
          const said = await Promise.all(
            numbers.map(async (n) => {
              const text = await etcdctl(
                endpoints[n - 1] as string,
                "--command-timeout=1s",
                "endpoint",
                "status",
                "-w",
                "json",
              ).catch(() => "[]");
              // IDs are beyond 2^53: compared as text.
              return {
                n,
                me: /"member_id":(\d+)/.exec(text)?.[1],
                leader: /"leader":(\d+)/.exec(text)?.[1] ?? "0",
              };
            }),
          );
          for (const { n, me } of said)
            if (me !== undefined && said.filter(({ leader }) => leader === me).length >= 2) return n;
          return undefined;
        },
        60_000,
      ),
    async healthy() {
      await eventually(
        "three healthy members",
        async () => {
          await etcdctl(endpoints.join(","), "endpoint", "health");
          return true;
        },
        60_000,
      );
    },
    async mend() {
      for (const n of numbers) {
        await cluster.start(n);
        cluster.resume(n);
        await cluster.heal(n);
      }
      await cluster.healthy();
    },
    async remove() {
      for (const [n, program] of programs) {
        process.kill(program.pid, "SIGCONT");
        programs.delete(n);
        await program.stop("SIGKILL");
      }
      await ip("link", "del", root).catch(() => {});
      for (const name of [...numbers.map((n) => `${tag}-${n}`), sw]) await ip("netns", "del", name).catch(() => {});
      await folder.remove();
    },
  };
  /** What a killed run left under the same names. */
  const clear = async (): Promise<void> => {
    const { stdout } = await run("ip", ["netns", "list"]);
    const there = new Set(stdout.split("\n").map((line) => line.split(" ")[0]));
    for (const name of [...numbers.map((n) => `${tag}-${n}`), sw]) {
      if (!there.has(name)) continue;
      const { stdout: pids } = await run("ip", ["netns", "pids", name]);
      for (const pid of pids.split("\n").filter(Boolean)) process.kill(Number(pid), "SIGKILL");
      await ip("netns", "del", name);
    }
    await ip("link", "del", root).catch(() => {});
  };
  try {
    await clear();
    await ip("netns", "add", sw);
    await ip("-n", sw, "link", "set", "lo", "up");
    await ip("-n", sw, "link", "add", "br0", "type", "bridge");
    await ip("-n", sw, "link", "set", "br0", "up");
    await ip("link", "add", root, "type", "veth", "peer", "name", "proot", "netns", sw);
    await ip("-n", sw, "link", "set", "proot", "master", "br0");
    await ip("-n", sw, "link", "set", "proot", "up");
    await ip("addr", "add", `10.77.${third}.254/24`, "dev", root);
    await ip("link", "set", root, "up");
    for (const n of numbers) {
      const ns = `${tag}-${n}`;
      await ip("netns", "add", ns);
      await ip("-n", ns, "link", "set", "lo", "up");
      await ip("-n", sw, "link", "add", `p${n}`, "type", "veth", "peer", "name", "eth0", "netns", ns);
      await ip("-n", sw, "link", "set", `p${n}`, "master", "br0");
      await ip("-n", sw, "link", "set", `p${n}`, "up");
      await ip("-n", ns, "addr", "add", `${address(n)}/24`, "dev", "eth0");
      await ip("-n", ns, "link", "set", "eth0", "up");
    }
    await Promise.all(numbers.map((n) => cluster.start(n)));
    await cluster.healthy();
    return cluster;
  } catch (error) {
    await cluster.remove();
    throw error;
  }
}

let prefixes = 0;

/** A prefix that no other test uses. */
export function ownPrefix(): string {
  return `/trilith-test-${process.pid}-${prefixes++}/`;
}

/** Builds a storage on real time. */
export function etcdStorage(
  endpoints: readonly string[],
  settings: Partial<EtcdSettings> = {},
  timing: Partial<EtcdTiming> = {},
  log: Log = silentLog,
): Promise<EtcdStorage> {
  return createEtcdStorage(
    { endpoints, prefix: ownPrefix(), livenessMs: 15_000, ...settings },
    { clock: systemClock, random: systemRandom, disk: systemDisk, log },
    timing,
  );
}

/** A way to a server that can be cut: refused (`cut`), or silent as with a pulled cable (`freeze`). */
export interface Cuttable {
  /** `http://host:port` of the near end. */
  readonly endpoint: string;
  /** Ends all connections and refuses new ones. */
  cut(): void;
  /** Takes connections, passes nothing on. */
  freeze(): void;
  mend(): void;
  close(): Promise<void>;
}

/** Puts a cuttable way in front of an endpoint. */
export async function cuttable(endpoint: string): Promise<Cuttable> {
  const far = new URL(endpoint);
  let state: "open" | "cut" | "frozen" = "open";
  const pairs = new Set<{ near: Socket; far: Socket }>();
  const server = createServer((near) => {
    if (state === "cut") {
      near.destroy();
      return;
    }
    const pair = { near, far: connect(Number(far.port), far.hostname) };
    pairs.add(pair);
    const end = (): void => {
      pairs.delete(pair);
      pair.near.destroy();
      pair.far.destroy();
    };
    for (const [from, to] of [
      [pair.near, pair.far],
      [pair.far, pair.near],
    ] as const) {
      from.on("data", (bytes) => void to.write(bytes));
      from.on("error", end);
      from.on("close", end);
      if (state === "frozen") from.pause();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    cut() {
      state = "cut";
      for (const { near } of pairs) near.destroy();
    },
    freeze() {
      state = "frozen";
      for (const { near, far: other } of pairs) {
        near.pause();
        other.pause();
      }
    },
    mend() {
      state = "open";
      for (const { near, far: other } of pairs) {
        near.resume();
        other.resume();
      }
    },
    close: () =>
      new Promise((resolve) => {
        state = "cut";
        for (const { near } of pairs) near.destroy();
        server.close(() => resolve());
      }),
  };
}

/** Collects what a storage follows, and waits for it. */
export class Follower {
  readonly batches: Batch[] = [];
  /** The content as of the last batch: "table key" → row. */
  readonly rows = new Map<string, Row>();
  /** How often each record changed to which index, in order, without snapshots. */
  readonly changes: Row[] = [];
  index = 0;
  reachable = true;
  snapshots = 0;
  #partial: Row[] = [];
  readonly #stop = new AbortController();
  #bells: (() => void)[] = [];
  #ended: Promise<void> = Promise.resolve();

  /** Opens the storage and follows it. */
  static async start(storage: EtcdStorage): Promise<Follower> {
    const follower = new Follower();
    for await (const batch of storage.open()) follower.#take(batch);
    follower.#ended = (async () => {
      for await (const batch of storage.follow(follower.index, follower.#stop.signal)) follower.#take(batch);
    })();
    return follower;
  }

  #take(batch: Batch): void {
    this.batches.push(batch);
    if (batch.kind === "reachable") this.reachable = batch.reachable;
    else if (batch.kind === "snapshot") {
      if (this.#partial.length > 0 && batch.index !== this.index) this.#partial = [];
      this.index = batch.index;
      this.#partial.push(...batch.rows);
      if (batch.complete) {
        this.snapshots++;
        this.rows.clear();
        for (const row of this.#partial) this.rows.set(`${row.table} ${row.key}`, row);
        this.#partial = [];
      }
    } else {
      if (batch.index <= this.index) throw new Error(`index ${batch.index} after ${this.index}`);
      this.index = batch.index;
      for (const row of batch.rows) {
        this.changes.push(row);
        if (row.value === undefined) this.rows.delete(`${row.table} ${row.key}`);
        else this.rows.set(`${row.table} ${row.key}`, row);
      }
    }
    for (const bell of this.#bells.splice(0)) bell();
  }

  /** Resolves once `holds` is true; looks after every batch. */
  async until(what: string, holds: () => boolean, timeoutMs = 30_000): Promise<void> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      for (const bell of this.#bells.splice(0)) bell();
    }, timeoutMs);
    try {
      while (!holds()) {
        if (late) throw new Error(`gave up after ${timeoutMs} ms: ${what}`);
        await new Promise<void>((resolve) => {
          this.#bells.push(resolve);
        });
      }
    } finally {
      clearTimeout(timer);
    }
  }

  value(table: string, key: string): unknown {
    return this.rows.get(`${table} ${key}`)?.value;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
  }
}
