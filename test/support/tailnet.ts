// A real tailnet for tests: tailscaled and tailscale built from the Go module proxy, their test control server, and nodes in namespaces of their own.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { copyFile, mkdir, open } from "node:fs/promises";
import { request } from "node:http";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { buildGo, haveGo, runClient } from "./clients.ts";
import { eventually, havePrograms, startProgram } from "./peers.ts";

const run = promisify(execFile);
const MODULE = resolve(import.meta.dirname, "../peers/clients/tailnet-control");
/** Where tailscaled listens for its LocalAPI; every node has a /run of its own. */
const SOCKET = "/run/tailscale/tailscaled.sock";
/** The underlay: the control server is .1, node n is .(10 + n). */
const UNDERLAY = "10.77.0";

/** What the LocalAPI says, as far as tests look at it. */
export interface TailnetStatus {
  readonly BackendState: string;
  readonly TUN: boolean;
  readonly TailscaleIPs: readonly string[] | null;
  readonly Self: { readonly Online: boolean; readonly HostName: string };
  readonly Health: readonly string[];
  readonly Peer: Readonly<
    Record<string, { readonly HostName: string; readonly Online: boolean; readonly TailscaleIPs: readonly string[] }>
  > | null;
}

/** One host of the tailnet: a network and a mount namespace with a tailscaled in it. */
export interface TailnetNode {
  readonly name: string;
  /** The process that holds the namespaces. */
  readonly pid: number;
  /** Its address on the underlay. */
  readonly underlay: string;
  /** Its IPv4 address in the tailnet, once it was up: "100.64.0.1". */
  readonly address: string;
  /** tailscaled's socket as it is seen from outside the node. */
  readonly socketPath: string;
  /** A command line that runs `command` on this node, in the caller's folder. */
  within(...command: readonly string[]): string[];
  /** Starts a program on this node; `stop` as in `startProgram`. */
  start(
    command: readonly string[],
    logFile: string,
    env?: Readonly<Record<string, string>>,
  ): ReturnType<typeof startProgram>;
  /** Runs a program on this node to its end. */
  run(command: readonly string[], env?: Readonly<Record<string, string>>): ReturnType<typeof runClient>;
  /** Starts tailscaled; without a TUN device (userspace networking, with a SOCKS5 proxy at localhost:1055) where asked. It needs `up` the first time, and remembers it then. */
  startDaemon(options?: { readonly userspace?: boolean }): Promise<void>;
  /** With a tailscaled that has a TUN device, and logged in: whatever of that it is not yet. */
  mend(): Promise<void>;
  /** Ends tailscaled by a signal; SIGKILL by default. */
  killDaemon(signal?: NodeJS.Signals): Promise<void>;
  /** `tailscale up`: logs in to the control server; resolves when it is running with an address. */
  up(): Promise<void>;
  /** Any other command of `tailscale`: down, logout … @throws Error with its output when it fails */
  tailscale(...words: readonly string[]): Promise<string>;
  /** Asks the LocalAPI as it is now. */
  status(): Promise<TailnetStatus>;
}

export interface Tailnet {
  readonly nodes: readonly TailnetNode[];
  /** Ends everything that this tailnet started. */
  stop(): Promise<void>;
}

/**
 * Whether a tailnet can be brought up here: root, namespaces, /dev/net/tun, Go. False = not here, and the reason was said; with CI=true
 * this throws instead.
 */
export async function haveTailnet(): Promise<boolean> {
  if (!(await haveGo()) || !(await havePrograms("ip", "nsenter", "unshare"))) return false;
  const trouble = await run("unshare", [
    "--net",
    "--mount",
    "sh",
    "-c",
    "exec 3<>/dev/net/tun && ip link add type veth",
  ])
    .then(() => undefined)
    .catch((error: { stderr?: string }) => (error.stderr ?? String(error)).trim());
  if (trouble === undefined) return true;
  const text = `not run: a tailnet needs root, network namespaces and /dev/net/tun: ${trouble}`;
  if (process.env["CI"] === "true") throw new Error(text);
  console.warn(text);
  return false;
}

/** The files of the three programs. */
export interface TailnetPrograms {
  readonly control: string;
  readonly tailscaled: string;
  readonly tailscale: string;
}

/** Builds the three programs (90 MB) into `folder`/bin, one after another, because the first two share most of what they compile. */
export async function tailnetPrograms(folder: string): Promise<TailnetPrograms> {
  return {
    tailscaled: await buildGo(folder, "tailscaled", { folder: MODULE, main: "tailscale.com/cmd/tailscaled" }),
    tailscale: await buildGo(folder, "tailscale", { folder: MODULE, main: "tailscale.com/cmd/tailscale" }),
    control: await buildGo(folder, "tailnet-control", { folder: MODULE }),
  };
}

/** A network and a mount namespace held by a process that ends when this one does: its standard input is a pipe from here; `endHolder` ends it. */
export async function namespaces(name: string, folder: string): Promise<ChildProcess & { pid: number }> {
  const resolv = join(folder, `${name}-resolv.conf`);
  await copyFile("/etc/resolv.conf", resolv);
  // tailscaled could write to resolv.conf: the node has its own.
  const script = `mount -t tmpfs tmpfs /run && mkdir /run/tailscale && mount --bind ${resolv} /etc/resolv.conf && ip link set lo up && touch /run/ready && exec cat`;
  const log = await open(join(folder, `${name}.log`), "a");
  const words = ["--net", "--mount", "--propagation", "private", "sh", "-c", script];
  const child = spawn("unshare", words, { stdio: ["pipe", log.fd, log.fd] }) as ChildProcess & { pid: number };
  await log.close();
  await eventually(`the namespaces of ${name}`, async () => {
    if (child.exitCode !== null) throw new Error(`unshare ended with ${child.exitCode}: see ${folder}/${name}.log`);
    await run("nsenter", ["-t", `${child.pid}`, "-m", "test", "-e", "/run/ready"]);
    return true;
  });
  return child;
}

/** Ends what holds namespaces. */
export async function endHolder(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((done) => child.once("exit", done));
  child.stdin?.end();
  await gone;
}

/** A command line that runs in the namespaces of a process, in the folder of this one. */
export const inside = (pid: number, command: readonly string[]): string[] => [
  "nsenter",
  "-t",
  `${pid}`,
  "-n",
  "-m",
  `--wd=${process.cwd()}`,
  "--",
  ...command,
];

async function ip(pid: number, line: string): Promise<void> {
  const [file = "", ...words] = inside(pid, ["ip", ...line.split(" ")]);
  await run(file, words);
}

/**
 * Brings up a tailnet: a control server with DERP and STUN, and `count` nodes on one bridge, all of them in namespaces of their own.
 * `folder`: for logs and state, nobody else's; and for the programs, unless `built` are given. Nodes are logged in and see each other when
 * this resolves.
 */
export async function startTailnet(
  folder: string,
  options: { readonly count?: number; readonly up?: boolean; readonly built?: TailnetPrograms } = {},
): Promise<Tailnet> {
  const { count = 3, up = true } = options;
  await mkdir(folder, { recursive: true });
  const built = options.built ?? (await tailnetPrograms(folder));
  const ends: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const one of ends.splice(0).reverse()) await one();
  };
  try {
    const hub = await namespaces("hub", folder);
    ends.push(() => endHolder(hub));
    await ip(hub.pid, "link add bridge type bridge forward_delay 0");
    await ip(hub.pid, `addr add ${UNDERLAY}.1/24 dev bridge`);
    await ip(hub.pid, "link set bridge up");
    const control = await startControl(built.control, hub.pid, folder);
    ends.push(() => endHolder(control.child));
    const nodes: Node[] = [];
    for (let n = 1; n <= count; n++) {
      const node = new Node(n, await namespaces(`node${n}`, folder), folder, built, control.url);
      ends.push(() => node.end());
      await ip(hub.pid, `link add to${n} type veth peer name eth0 netns ${node.pid}`);
      await ip(hub.pid, `link set to${n} master bridge up`);
      await ip(node.pid, `addr add ${node.underlay}/24 dev eth0`);
      await ip(node.pid, "link set eth0 up");
      await ip(node.pid, `route add default via ${UNDERLAY}.1`);
      nodes.push(node);
    }
    if (up) {
      await Promise.all(nodes.map((node) => node.startDaemon()));
      // One after another, so that node n has the address 100.64.0.n.
      for (const node of nodes) await node.up();
      for (const node of nodes)
        await eventually(
          `${node.name} sees all others online`,
          async () => {
            const peers = Object.values((await node.status()).Peer ?? {});
            return peers.length === count - 1 && peers.every(({ Online }) => Online);
          },
          60_000,
        );
    }
    return { nodes, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startControl(
  binary: string,
  hub: number,
  folder: string,
): Promise<{ readonly child: ChildProcess; readonly url: string }> {
  const [file = "", ...words] = inside(hub, [binary, "-ip", `${UNDERLAY}.1`]);
  const log = await open(join(folder, "control.log"), "a");
  const child = spawn(file, words, { stdio: ["pipe", "pipe", log.fd] });
  await log.close();
  const said = await new Promise<string>((done, failed) => {
    child.once("exit", (code) => failed(new Error(`the control server ended with ${code}: see ${folder}/control.log`)));
    child.once("error", failed);
    child.stdout?.once("data", (chunk: Buffer) => done(chunk.toString()));
  });
  return { child, url: (JSON.parse(said) as { control: string }).control };
}

class Node implements TailnetNode {
  readonly name: string;
  readonly pid: number;
  readonly underlay: string;
  readonly socketPath: string;
  address = "";
  private readonly holder: ChildProcess;
  private readonly folder: string;
  private readonly programs: { readonly tailscaled: string; readonly tailscale: string };
  private readonly control: string;
  private daemon: Awaited<ReturnType<typeof startProgram>> | undefined;

  constructor(
    number: number,
    holder: ChildProcess & { pid: number },
    folder: string,
    programs: { readonly tailscaled: string; readonly tailscale: string },
    control: string,
  ) {
    this.name = `node${number}`;
    this.holder = holder;
    this.pid = holder.pid;
    this.underlay = `${UNDERLAY}.${10 + number}`;
    this.socketPath = `/proc/${holder.pid}/root${SOCKET}`;
    this.folder = folder;
    this.programs = programs;
    this.control = control;
  }

  within(...command: readonly string[]): string[] {
    return inside(this.pid, command);
  }

  start(
    command: readonly string[],
    logFile: string,
    env: Readonly<Record<string, string>> = {},
  ): ReturnType<typeof startProgram> {
    return startProgram(this.within(...command), logFile, env);
  }

  run(command: readonly string[], env: Readonly<Record<string, string>> = {}): ReturnType<typeof runClient> {
    return runClient(this.within(...command), { env });
  }

  async startDaemon({ userspace = false }: { readonly userspace?: boolean } = {}): Promise<void> {
    const command = [
      this.programs.tailscaled,
      `--statedir=${join(this.folder, `${this.name}-state`)}`,
      ...(userspace ? ["--tun=userspace-networking", "--socks5-server=localhost:1055"] : ["--tun=tailscale0"]),
      `--socket=${SOCKET}`,
      "--port=41641",
    ];
    // Nothing of the test may leave the machine, and it need not: logs stay here.
    const env = { TS_NO_LOGS_NO_SUPPORT: "true", TS_DISABLE_PORTMAPPER: "true" };
    const daemon = await this.start(command, join(this.folder, `${this.name}-tailscaled.log`), env);
    this.daemon = daemon;
    await eventually(`tailscaled of ${this.name} answers`, () => this.status(), 60_000);
  }

  async killDaemon(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    await this.daemon?.stop(signal);
    this.daemon = undefined;
  }

  async mend(): Promise<void> {
    const now = await this.status().catch(() => undefined);
    if (now?.TUN !== true) {
      await this.killDaemon("SIGTERM");
      await this.startDaemon();
    }
    if (now?.TUN !== true || now.BackendState !== "Running") await this.up();
  }

  async up(): Promise<void> {
    await this.tailscale(
      "up",
      `--login-server=${this.control}`,
      "--accept-dns=false",
      "--netfilter-mode=off",
      `--hostname=md${this.name}`,
      "--timeout=30s",
    );
    const status = await eventually(
      `${this.name} is running`,
      async () => {
        const now = await this.status();
        return now.BackendState === "Running" && (now.TailscaleIPs?.length ?? 0) > 0 && now;
      },
      60_000,
    );
    this.address = status.TailscaleIPs?.find((one) => !one.includes(":")) ?? "";
  }

  async tailscale(...words: readonly string[]): Promise<string> {
    const { exitCode, output } = await this.run([this.programs.tailscale, `--socket=${SOCKET}`, ...words]);
    if (exitCode !== 0)
      throw new Error(`tailscale ${words.join(" ")} on ${this.name} ended with ${exitCode}: ${output}`);
    return output;
  }

  status(): Promise<TailnetStatus> {
    return new Promise((done, failed) => {
      const asking = request(
        {
          socketPath: this.socketPath,
          path: "/localapi/v0/status",
          headers: { host: "local-tailscaled.sock" },
          timeout: 5000,
        },
        (response) => {
          let text = "";
          response.setEncoding("utf8");
          response.on("data", (chunk: string) => {
            text += chunk;
          });
          response.once("error", failed);
          response.once("end", () => {
            if (response.statusCode === 200) done(JSON.parse(text) as TailnetStatus);
            else failed(new Error(`tailscaled of ${this.name} answered ${response.statusCode}: ${text}`));
          });
        },
      );
      asking.once("timeout", () => asking.destroy(new Error("no answer within 5 s")));
      asking.once("error", failed);
      asking.end();
    });
  }

  async end(): Promise<void> {
    await this.killDaemon("SIGTERM");
    await endHolder(this.holder);
  }
}
