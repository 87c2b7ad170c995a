// One host with an agent that speaks everything, a second host on its LAN, and the peers of all dialects; in a network namespace of the test's own.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { openZooKeeper, type ZooKeeper } from "../../../src/base/zookeeper.ts";
import { type AvahiHost, startAvahiLan } from "../avahi-lan.ts";
import { toldRecursor } from "../dns-peers.ts";
import { type Docker, startDocker } from "../docker.ts";
import { type EtcdNode, startEtcd } from "../etcd.ts";
import { fakeTailscaled } from "../minidisc.ts";
import { eventually, ownFolder, startProgram } from "../peers.ts";
import { type Done, program, runToEnd } from "../program.ts";
import { answersFrom } from "../zone.ts";
import { startZooKeeper, type ZooKeeperServer } from "../zookeeper.ts";
import type { Seen } from "./model.ts";

const PEERS = { peers: "lan", peers_key: "a secret that both hosts share" };

/** Where the agents answer; the namespace is the test's own, so the usual ports are free. */
export const AGENT = "http://127.0.0.1:8500";
export const OTHER = "http://127.0.0.1:8510";
export const CLIENT_HOST = "http://127.0.0.1:8520";
export const TAILNET = { own: "100.64.0.1", go: "100.64.0.2", python: "100.64.0.3", reader: "100.64.0.4" };

export interface Machine {
  readonly folder: string;
  /** The agent's host, and the other one. */
  readonly here: { readonly ipv4: string; readonly ipv6: string };
  readonly far: AvahiHost;
  readonly docker: Docker;
  readonly etcd: EtcdNode;
  readonly zookeeper: ZooKeeperServer;
  /** The lines of the zone that the agent's DNS upstream asks; may be changed. */
  readonly zone: string[];
  /** tailscaled's socket of a host. */
  tailscaled(ip: string): string;
  /** What ends when all is over, last first. */
  readonly ends: (() => Promise<unknown>)[];
  at(...path: readonly string[]): string;
  /** Starts a program that ends with the machine at the latest. */
  start(command: readonly string[], env?: Readonly<Record<string, string>>): ReturnType<typeof startProgram>;
  /** A server for these services: "NAME:PORT". `on`: another host than the agent's. */
  serve(words: readonly string[], on?: AvahiHost): Promise<void>;
  trilith(...words: readonly string[]): Promise<Done>;
  /** Starts `trilith registrator` with these flags, into the keys that the agent reads. */
  registrator(...flags: readonly string[]): Promise<unknown>;
  /** Of each server set below a znode: its members' addresses, ports and metadata. */
  members(path: string): Promise<readonly Seen[]>;
  /** Ports of one `trilith proxy` that stand for these services. */
  proxied(services: readonly string[]): Promise<readonly number[]>;
  put(path: string, body?: unknown): Promise<void>;
  get(path: string): Promise<unknown>;
  /** The same of the agent on the other host. */
  putFar(path: string, body?: unknown): Promise<void>;
  getFar(path: string): Promise<unknown>;
  close(): Promise<void>;
}

const ANSWERS = join(import.meta.dirname, "answers.mjs");

/** Starts all of it; `close` also after a failure in between. */
export async function startMachine(): Promise<Machine> {
  const folder = await ownFolder("everything");
  const ends: Machine["ends"] = [() => folder.remove()];
  const at = (...path: readonly string[]): string => join(folder.path, ...path);
  const close = async (): Promise<void> => {
    for (const end of ends.splice(0).reverse()) await end();
  };
  let logs = 0;
  const start: Machine["start"] = async (command, env) => {
    const running = await startProgram(command, at(`log-${++logs}`), env);
    ends.push(() => running.stop());
    return running;
  };
  const call = async (path: string, init?: RequestInit): Promise<string> => {
    const response = await fetch(path.startsWith("http") ? path : `${AGENT}${path}`, init);
    const text = await response.text();
    if (!response.ok) throw new Error(`${init?.method ?? "GET"} ${path}: ${response.status} ${text}`);
    return text;
  };
  try {
    for (const name of ["avahi", "flat", "alpha/services.d"]) await mkdir(at(name), { recursive: true });
    const lan = await startAvahiLan("b");
    ends.push(() => lan.close());
    const here = await lan.joinAs("a");
    const far = lan.host("b");
    const [docker, etcd, zookeeper] = await Promise.all([startDocker("everything"), startEtcd(), startZooKeeper()]);
    ends.push(
      () => docker.remove(),
      () => etcd.remove(),
      () => zookeeper.remove(),
    );
    const zone: string[] = [];
    const dns = await toldRecursor(answersFrom(() => zone));
    ends.push(() => dns.stop());
    const hosts = Object.entries(TAILNET).map(([name, ip]) => ({ name: `md-${name}`, ip }));
    for (const own of hosts) {
      const fake = await fakeTailscaled(
        at(own.ip),
        own,
        hosts.filter((one) => one !== own),
      );
      ends.push(() => fake.close());
    }
    await far.avahi();
    const zk = await openZooKeeper({ servers: zookeeper.address, sessionTimeoutMs: 10_000, clock: systemClock });
    ends.push(() => zk.close());
    const ports = new Map<string, number>();
    const curl = async (...words: readonly string[]): Promise<string> => {
      const { exitCode, out, err } = await far.run("curl", "-sSf", "-m", "10", ...words);
      if (exitCode !== 0) throw new Error(`curl ${words.join(" ")} on the other host: ${exitCode} ${err}`);
      return out;
    };
    const machine: Machine = {
      ...{ folder: folder.path, here, far, docker, etcd, zookeeper, zone, ends, at, start, close },
      tailscaled: (ip) => at(ip),
      async serve(words, on) {
        const command = [process.execPath, ANSWERS, folder.path, ...words];
        const [file = "", ...rest] = on?.command(...command) ?? command;
        const server = spawn(file, rest, { stdio: ["ignore", "pipe", "inherit"] });
        const gone = once(server, "exit");
        ends.push(async () => {
          server.kill("SIGKILL");
          await gone;
        });
        await Promise.race([
          once(server.stdout, "data"),
          gone.then(([code]) => Promise.reject(new Error(`a server of ${words.join(" ")} ended with ${code}`))),
        ]);
      },
      trilith: (...words) => runToEnd([process.execPath, program, ...words]),
      registrator: (...flags) =>
        start(
          [process.execPath, program, "registrator", ...flags, `${etcd.endpoint.replace("http", "etcd")}/services`],
          {
            ...{ DOCKER_HOST: docker.host, TRILITH_REGISTRATOR_STATE: at("registrator.json") },
          },
        ),
      members: (path) => membersOf(zk, path),
      async proxied(services) {
        if (ports.size === 0) {
          const wanted = services.map((service, i) => [service, 21_000 + i] as const);
          const rules = wanted.map(([service, port]) => `${port}=${service}`);
          const running = await start([process.execPath, program, "proxy", "--wait", "1s", ...rules]);
          for (const [service, port] of wanted)
            await eventually(`a port stands for ${service}`, () => answers(port)).catch(async (error: Error) => {
              await running.stop();
              throw new Error(`${error.message}\n${await readFile(at(`log-${logs}`), "utf8")}`, { cause: error });
            });
          for (const [service, port] of wanted) ports.set(service, port);
        }
        return services.map((service) => ports.get(service) ?? 0);
      },
      put: async (path, body) =>
        void (await call(path, { method: "PUT", ...(body === undefined ? {} : { body: JSON.stringify(body) }) })),
      get: async (path) => JSON.parse(await call(path)),
      putFar: async (path, body) =>
        void (await curl("-X", "PUT", "-d", body === undefined ? "" : JSON.stringify(body), `${AGENT}${path}`)),
      getFar: async (path) => JSON.parse(await curl(`${AGENT}${path}`)),
    };
    await startAgents(machine, dns.place);
    await startFarAgent(machine);
    return machine;
  } catch (error) {
    await close();
    throw error;
  }
}

/** Whether somebody listens there. */
function answers(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(port, "127.0.0.1", () => done(true));
    socket.once("error", () => done(false));
    socket.once("connect", () => socket.destroy());
  });
}

async function membersOf(zk: ZooKeeper, path: string): Promise<readonly Seen[]> {
  const found: Seen[] = [];
  for (const service of (await zk.children(path)) ?? [])
    for (const name of (await zk.children(`${path}/${service}`)) ?? []) {
      const znode = await zk.get(`${path}/${service}/${name}`);
      if (!name.startsWith("member_") || znode === undefined) continue;
      const { serviceEndpoint, metadata = {} } = JSON.parse(Buffer.from(znode.data).toString()) as Member;
      const { host: address, port } = serviceEndpoint;
      found.push({ service, address, port, labels: metadata });
    }
  return found;
}

interface Member {
  readonly serviceEndpoint: { readonly host: string; readonly port: number };
  readonly metadata?: Readonly<Record<string, string>>;
}

/** The agent, another directory's that reads it and is read by it, and a client host. */
async function startAgents(machine: Machine, resolver: string): Promise<void> {
  const { at, here, zookeeper, etcd, docker } = machine;
  const agent = async (
    node: string,
    config: object,
    ports: readonly [number, number],
    ...flags: readonly string[]
  ): Promise<void> => {
    await writeFile(at(`${node}.json`), JSON.stringify(config));
    const own = ["--node", node, "--data-dir", at(node), "--config-file", at(`${node}.json`), "--quiet"];
    const where = ["--http-port", `${ports[0]}`, "--dns-port", `${ports[1]}`];
    const words = [process.execPath, program, "agent", ...own, ...where, ...flags];
    const running = await startProgram(words, at(`${node}.log`));
    machine.ends.push(() => running.stop());
    await eventually(`the agent ${node} answers`, async () => {
      const rows = (await machine.get(`http://127.0.0.1:${ports[0]}/v1/health/service/consul`)) as unknown[];
      return rows.length > 0;
    }).catch(async (error: Error) => {
      throw new Error(`${error.message}\n${await readFile(at(`${node}.log`), "utf8")}`, { cause: error });
    });
  };
  const srv = (service: string) => ({ service, name: `_${service}._tcp.example.com`, tags: ["blue"] });
  const everything = {
    advertise_addr: here.ipv4,
    addresses: { dns: `127.0.0.1 ${here.ipv6}` },
    enable_script_checks: true,
    ...PEERS,
    hook: { table: at("hook", "table") },
    protocols: {
      mdns: { publish: "all", files: at("avahi"), host_name: "alpha" },
      minidisc: { socket: machine.tailscaled(TAILNET.own) },
      zookeeper: {
        servers: zookeeper.address,
        session_timeout: "4s",
        sets: ["/discovery/*"],
        announce: [{ service: "*", path: "/discovery/{service}", from: "directory" }],
      },
      etcd: { endpoints: [etcd.endpoint], registrator: "/services", skydns: "skydns.local" },
      flat: { files: at("flat"), settle: "50ms" },
      "dns-upstream": { services: [srv("dnssrv")], resolvers: resolver, floor: "200ms", cap: "400ms", hold: "200ms" },
      "consul-upstream": { upstreams: { url: OTHER }, hold: "1s" },
      hosts: { path: at("hosts"), block: false, names: ["{name}"] },
      backends: { address: here.ipv4, port: 80, networks: ["10.77.0.0/24"] },
    },
  };
  const dropped = ["--docker-host", docker.host];
  await agent("alpha", everything, [8500, 8600], ...dropped);
  const quiet = ["--docker-host", "off", "--environ", "off"];
  const other = {
    advertise_addr: machine.far.ipv4,
    protocols: { "consul-upstream": { upstreams: { url: AGENT } }, minidisc: false },
  };
  await agent("beta", other, [8510, 8610], ...quiet);
  await agent("gamma", { protocols: { minidisc: false } }, [8520, 8620], ...quiet, "--join", AGENT);
}

/** The other host's own agent, without a server: each shows the other what is its own. */
async function startFarAgent({ at, far, ends, getFar }: Machine): Promise<void> {
  await writeFile(at("delta.json"), JSON.stringify({ ...PEERS, advertise_addr: far.ipv4 }));
  const own = ["--node", "delta", "--data-dir", at("delta"), "--config-file", at("delta.json"), "--quiet"];
  const words = [process.execPath, program, "agent", ...own, "--docker-host", "off", "--environ", "off"];
  const running = await startProgram(far.command(...words), at("delta.log"));
  ends.push(() => running.stop());
  await eventually("both hosts' agents know each other", async () => {
    const nodes = (await getFar("/v1/catalog/nodes")) as { Node: string }[];
    return nodes.some(({ Node }) => Node === "alpha");
  }).catch(async (error: Error) => {
    throw new Error(`${error.message}\n${await readFile(at("delta.log"), "utf8")}`, { cause: error });
  });
}
