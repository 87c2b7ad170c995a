// Connecting while agents, back ends, ZooKeeper and links die under load: with one retry no connection fails as long as one healthy instance is reachable.
import { readFileSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { haveLan, type Lan, type LanHost, startLan } from "../support/lan.ts";
import { eventually, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import { program, runToEnd } from "../support/program.ts";
import { haveZooKeeper, startZooKeeper, type ZooKeeperServer } from "../support/zookeeper.ts";

const here = (await haveLan()) && (await haveZooKeeper()) && (await havePrograms("curl", "python3", "cc"));
const scripts = join(import.meta.dirname, "../support/chaos");
/** Set to try longer: so many rounds of all troubles. */
const rounds = Number(process.env["TRILITH_CHAOS"] ?? 1);

type Program = Awaited<ReturnType<typeof startProgram>>;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** One try of a client, or two. */
interface Line {
  readonly atMs: number;
  readonly what: "ok" | "unconnected" | "cut";
  readonly text: string;
  readonly tries: number;
  readonly tookMs: number;
}

/** A host with an agent; `settings` is the agent's configuration. */
class Host {
  readonly lan: LanHost;
  readonly #folder: string;
  readonly #settings: object;
  #agent: Program | undefined;
  #server: Program | undefined;
  /** Ends what `serveMany` started, where that is there still. */
  #many: (() => Promise<void>) | undefined;

  constructor(lan: LanHost, folder: string, settings: object) {
    this.lan = lan;
    this.#folder = folder;
    this.#settings = settings;
  }

  async agent(): Promise<void> {
    const { name, address } = this.lan;
    const config = join(this.#folder, `${name}.json`);
    await writeFile(config, JSON.stringify(this.#settings));
    const flags = ["--node", name, "--bind", address, "--config-file", config, "--data-dir", join(this.#folder, name)];
    const off = ["--docker-host", "off", "--environ", "off"];
    this.#agent = await startProgram(
      this.lan.within(process.execPath, program, "agent", ...flags, ...off),
      join(this.#folder, `${name}.log`),
    );
    await eventually(
      `${name} is up`,
      async () => (await this.trilith("find", "consul", "--json")).exitCode === 0,
      60_000,
    );
  }
  async killAgent(): Promise<void> {
    const killed = this.#agent;
    this.#agent = undefined;
    await killed?.stop("SIGKILL");
  }
  /** As it is between troubles, also after one that did not come to its end; `serves`: with its back end, and no more. */
  async mend(serves: boolean): Promise<void> {
    await this.lan.plug();
    if (this.#agent === undefined) await this.agent();
    await this.#many?.();
    if (serves && this.#server === undefined) await this.serve();
  }

  /** Starts a back end under this host's agent, on another port than before. */
  async serve(): Promise<void> {
    const { name, address } = this.lan;
    const server = [process.execPath, join(scripts, "server.mjs"), name, address];
    this.#server = await startProgram(
      this.lan.within(process.execPath, program, "run", "--name", "web", "--", ...server),
      join(this.#folder, `${name}-server.log`),
    );
  }
  /** Kills the back end itself, as by the kernel; `trilith run` ends with it. */
  async killServer(): Promise<void> {
    const killed = this.#server;
    this.#server = undefined;
    await runToEnd(["pkill", "-KILL", "-f", `${join(scripts, "server.mjs")} ${this.lan.name} `]);
    await killed?.ended;
  }

  /** Starts so many more back ends in one process, and registers each; returns what kills them all at once, and what takes them out. */
  async serveMany(count: number): Promise<{ kill(): Promise<void>; deregister(): Promise<void> }> {
    const { name, address } = this.lan;
    const log = join(this.#folder, `${name}-many.log`);
    const command = [process.execPath, join(scripts, "server.mjs"), name, address, String(count)];
    const many = await startProgram(this.lan.within(...command), log);
    const ports = await eventually("they listen", () => {
      const lines = readFileSync(log, "utf8").trim().split("\n").slice(-count);
      return lines.length === count && lines;
    });
    const each = async (...words: readonly string[]): Promise<void> => {
      const { exitCode, err } = await this.trilith(...words);
      if (exitCode !== 0) throw new Error(err);
    };
    const deregister = async (): Promise<void> => {
      await Promise.all(ports.map((port) => each("deregister", `many-${port}`)));
      this.#many = undefined;
    };
    this.#many = async () => {
      await many.stop("SIGKILL");
      await deregister();
    };
    await Promise.all(ports.map((port) => each("register", "--name", "web", "--id", `many-${port}`, "--port", port)));
    return { kill: () => many.stop("SIGKILL"), deregister };
  }

  trilith(...words: readonly string[]): ReturnType<typeof runToEnd> {
    return runToEnd(this.lan.within(process.execPath, program, ...words));
  }
  /** The hosts whose instances of "web" are found here, in order. */
  async finds(): Promise<string> {
    const { out } = await this.trilith("find", "web", "--json");
    const { endpoints } = JSON.parse(out || '{"endpoints":[]}') as { endpoints: { address: string }[] };
    return endpoints
      .map(({ address }) => `b${Number(address.split(".").at(-1)) - 1}`)
      .sort()
      .join(" ");
  }
  async end(): Promise<void> {
    await this.killServer();
    await this.#agent?.stop();
  }
}

describe.skipIf(!here)("connecting under load while everything else dies", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let lan: Lan;
  let zookeeper: ZooKeeperServer;
  let client: Host;
  let backends: readonly [Host, Host, Host];
  let keeper: LanHost;
  const loads = new Map<string, { readonly program: Program; readonly log: string }>();

  const load = async (name: string, command: readonly string[], env: Record<string, string> = {}): Promise<void> => {
    const log = join(folder.path, `load-${name.replaceAll(/\W+/g, "-")}.log`);
    loads.set(name, { program: await startProgram(client.lan.within(...command), log, env), log });
  };
  const linesOf = (name: string): Line[] =>
    readFileSync(loads.get(name)?.log ?? "", "utf8")
      .split("\n")
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line) as Line);
  /** All clients have reached all of these hosts, and only these, since. */
  const all = async (hosts: string, timeoutMs = 60_000): Promise<void> => {
    await eventually(`the client's agent finds ${hosts}`, async () => (await client.finds()) === hosts, timeoutMs);
    const sinceMs = Date.now();
    await eventually(
      `every client reaches ${hosts}`,
      () =>
        [...loads.keys()].every((name) => {
          const seen = linesOf(name).filter(({ atMs, what }) => atMs > sinceMs && what === "ok");
          return hosts.split(" ").every((host) => seen.some(({ text }) => text === host));
        }),
      timeoutMs,
    );
  };

  beforeAll(async () => {
    folder = await ownFolder("chaos");
    await mkdir(join(folder.path, "cache"));
    lan = await startLan(["client", "b1", "b2", "b3", "keeper"], "10.79.0");
    keeper = lan.hosts[4] as LanHost;
    zookeeper = await startZooKeeper(keeper);
    const servers = { servers: zookeeper.address, session_timeout: "4s" };
    const settings = {
      protocols: { zookeeper: { ...servers, announce: [{ service: "web", path: "/discovery/{service}" }] } },
    };
    backends = [1, 2, 3].map(
      (n) => new Host(lan.hosts[n] as LanHost, folder.path, settings),
    ) as unknown as typeof backends;
    client = new Host(lan.hosts[0] as LanHost, folder.path, {
      protocols: { zookeeper: { ...servers, sets: ["/discovery/*"] } },
    });
    await Promise.all([client, ...backends].map((host) => host.agent()));
    await Promise.all(backends.map((host) => host.serve()));
    await eventually("all are found", async () => (await client.finds()) === "b1 b2 b3", 60_000);

    const hook = [process.execPath, program, "hook", "--"];
    const python = (kind: string, host: string, port: number): string[] => [
      ...["python3", join(scripts, "load.py"), kind, host, String(port)],
    ];
    const env = { XDG_CACHE_HOME: join(folder.path, "cache") };
    await load("blocking", [...hook, ...python("blocking", "web.service.consul", 80)], env);
    await load("curl", [...hook, ...python("curl", "web.service.consul", 80)], env);
    await load(
      "node",
      [
        process.execPath,
        ...["--import", pathToFileURL(join(dirname(program), "../hook.js")).href],
        ...[join(scripts, "load.mjs"), "http://web.service.consul/"],
      ],
      { TRILITH_HOOK_TABLE: join(folder.path, "client", "hook", "table") },
    );
    await load("proxy", [process.execPath, program, "proxy", "7000=web"]);
    await load("proxied", python("proxied", "127.0.0.1", 7000));
    // The proxy itself says nothing.
    const { program: proxy } = loads.get("proxy") as { program: Program };
    loads.delete("proxy");
    proxies.push(proxy);
    await all("b1 b2 b3");
  }, 240_000);
  const proxies: Program[] = [];
  beforeEach(async () => {
    await keeper.plug();
    await zookeeper.start();
    await Promise.all([client.mend(false), ...backends.map((each) => each.mend(true))]);
    await all("b1 b2 b3", 90_000);
  }, 240_000);
  afterAll(async () => {
    for (const { program: one } of loads.values()) await one.stop("SIGTERM");
    for (const one of proxies) await one.stop("SIGTERM");
    await Promise.all([client, ...(backends ?? [])].map((host) => host?.end()));
    await zookeeper?.remove();
    await lan?.stop();
    if (process.env["TRILITH_CHAOS_KEEP"] === undefined) await folder?.remove();
    else await rm(join(folder.path, "cache"), { recursive: true });
  });

  const troubles: readonly (readonly [string, () => Promise<void>])[] = [
    [
      "a back end is killed and comes back at another port",
      async () => {
        await backends[0].killServer();
        await pause(2_000);
        await backends[0].serve();
      },
    ],
    [
      "a host's cable is pulled",
      async () => {
        await backends[1].lan.unplug();
        await pause(7_000);
        await backends[1].lan.plug();
      },
    ],
    [
      "ZooKeeper is killed, and a back end moves meanwhile",
      async () => {
        await zookeeper.stop("SIGKILL");
        await backends[2].killServer();
        await backends[2].serve();
        await pause(4_000);
        await zookeeper.start();
      },
    ],
    [
      "the client's own agent is killed, and a back end goes meanwhile",
      async () => {
        await client.killAgent();
        await backends[0].killServer();
        await pause(3_000);
        await client.agent();
        await backends[0].serve();
      },
    ],
    [
      "ZooKeeper cannot be reached until its sessions are over",
      async () => {
        await keeper.unplug();
        await pause(9_000);
        await keeper.plug();
      },
    ],
    [
      "a back end's agent is killed",
      async () => {
        await backends[1].killAgent();
        await pause(2_000);
        await backends[1].agent();
      },
    ],
    [
      "ten back ends of one host are killed at once, three remain",
      async () => {
        const many = await backends[0].serveMany(10);
        await eventually("they are found", async () => (await client.finds()).split(" ").length === 13, 60_000);
        await pause(1_000);
        await many.kill();
        await pause(4_000);
        await many.deregister();
      },
    ],
    [
      "one host alone is reachable",
      async () => {
        await Promise.all([backends[0].lan.unplug(), backends[2].lan.unplug()]);
        await pause(7_000);
        await Promise.all([backends[0].lan.plug(), backends[2].lan.plug()]);
      },
    ],
    [
      "ZooKeeper and the client's agent are killed, and all back ends but one",
      async () => {
        await Promise.all([zookeeper.stop("SIGKILL"), client.killAgent()]);
        // What is asked of a back end dies with it, connected or not: a client that tries once more bears that once at a time.
        await backends[0].killServer();
        await pause(500);
        await backends[1].killServer();
        await pause(3_000);
        await Promise.all([zookeeper.start(), client.agent()]);
        await Promise.all([backends[0].serve(), backends[1].serve()]);
      },
    ],
  ];

  const failed = (name: string, sinceMs: number): Line[] =>
    linesOf(name).filter(({ atMs, what }) => atMs >= sinceMs && what === "unconnected");

  for (let round = 1; round <= rounds; round++)
    it.each(troubles)(
      `round ${round}: %s`,
      async (_, trouble) => {
        const sinceMs = Date.now();
        await trouble();
        await all("b1 b2 b3", 90_000);
        const told: string[] = [];
        for (const name of loads.keys()) {
          const lines = linesOf(name).filter(({ atMs }) => atMs >= sinceMs);
          const [retried, cut] = [lines.filter(({ tries }) => tries > 1), lines.filter(({ what }) => what === "cut")];
          const slowest = Math.max(...lines.map(({ tookMs }) => tookMs));
          told.push(
            `${name} ${lines.length} (retried ${retried.length}, cut off ${cut.length}, slowest ${slowest} ms)`,
          );
        }
        console.log(told.join(", "));
        for (const name of loads.keys()) expect(failed(name, sinceMs), name).toEqual([]);
      },
      240_000,
    );
});
