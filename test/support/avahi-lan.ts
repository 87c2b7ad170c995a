// A LAN of network namespaces on one bridge, each host with a name, folders and a message bus of its own, for real Avahi daemons and candidates beside them.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { access, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { eventually, havePrograms, ownFolder, startProgram } from "./peers.ts";
import { type Done, runToEnd } from "./program.ts";

const run = promisify(execFile);

/** True where such a LAN can be had; as `havePrograms`. */
export async function haveAvahiLan(): Promise<boolean> {
  return havePrograms("ip", "avahi-daemon", "avahi-browse", "dbus-daemon", "nsenter", "unshare");
}

/** A real avahi-daemon. */
export interface AvahiDaemon {
  /** Ends it with a goodbye (SIGTERM), or without (SIGKILL). */
  stop(signal?: NodeJS.Signals): Promise<void>;
  /** Adds or replaces (undefined: removes) a file of /etc/avahi/services. */
  serviceFile(name: string, xml: string | undefined): Promise<void>;
}

/** A host of the LAN, on interface eth0. */
export interface AvahiHost {
  /** "a": the host is called "host-a". */
  readonly name: string;
  readonly ipv4: string;
  readonly ipv6: string;
  /** A folder of the host's own. */
  readonly folder: string;
  /** Puts a command into the host's namespaces (network, mounts, host name). */
  command(...command: readonly string[]): string[];
  /** What such a command needs in its environment: the address of the host's message bus. */
  readonly env: Readonly<Record<string, string>>;
  run(...command: readonly string[]): Promise<Done>;
  spawn(...command: readonly string[]): ChildProcess;
  /** Starts avahi-daemon; `conf` replaces lines of its [server] section: `{ "host-name": "x" }`. */
  avahi(conf?: Readonly<Record<string, string>>): Promise<AvahiDaemon>;
  /** The cable is pulled, or plugged in again. */
  link(up: boolean): Promise<void>;
}

export interface AvahiLan {
  host(name: string): AvahiHost;
  /** Puts the network namespace of this process on the LAN, too, as eth0; for suites that run in one of their own. */
  joinAs(name: string): Promise<Pick<AvahiHost, "ipv4" | "ipv6">>;
  close(): Promise<void>;
}

type Undo = (() => Promise<unknown>)[];

let lans = 0;

/** Makes hosts "a", "b" … with 10.77.0.10, .11 … and fd77::a, ::b … Every name carries this process's id; `close` ends and removes everything. */
export async function startAvahiLan(...names: readonly string[]): Promise<AvahiLan> {
  const prefix = `tl${process.pid}-${++lans}`;
  const folder = await ownFolder("lan");
  const undo: Undo = [() => folder.remove()];
  const hosts = new Map<string, AvahiHost>();
  const close = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const hub = `${prefix}-sw`;
    await ip("netns", "add", hub);
    undo.push(() => ip("netns", "del", hub));
    await ip("-n", hub, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0");
    await ip("-n", hub, "link", "set", "br0", "up");
    for (const name of names) hosts.set(name, await addHost(prefix, name, join(folder.path, name), undo));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    host(name) {
      const host = hosts.get(name);
      if (host === undefined) throw new Error(`there is no host "${name}" on this LAN`);
      return host;
    },
    async joinAs(name) {
      const hub = `${prefix}-sw`;
      await plug(hub, name, `${process.pid}`, (...words) => ip(...words));
      undo.push(() => ip("link", "del", "eth0"));
      return addressesOf(name);
    },
    close,
  };
}

const ip = (...args: string[]): Promise<unknown> => run("ip", args);

/** "a" is 10.77.0.10 and fd77::a, "b" 10.77.0.11 … */
function addressesOf(name: string): { readonly hex: string; readonly ipv4: string; readonly ipv6: string } {
  const number = 10 + name.charCodeAt(0) - 97;
  const hex = number.toString(16);
  return { hex, ipv4: `10.77.0.${number}`, ipv6: `fd77::${hex}` };
}

/** A cable from the hub to eth0 of a namespace (its name, or a process in it), with the host's addresses; `within` runs `ip` there. */
async function plug(hub: string, name: string, space: string, within: typeof ip): Promise<void> {
  const port = `p-${name}`;
  const { hex, ipv4, ipv6 } = addressesOf(name);
  await ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space);
  await within("link", "set", "eth0", "address", `02:00:00:00:77:${hex.padStart(2, "0")}`);
  await ip("-n", hub, "link", "set", port, "master", "br0");
  await ip("-n", hub, "link", "set", port, "up");
  await within("link", "set", "eth0", "up");
  await within("addr", "add", `${ipv4}/24`, "dev", "eth0");
  await within("addr", "add", `${ipv6}/64`, "dev", "eth0", "nodad");
}

async function addHost(prefix: string, name: string, folder: string, undo: Undo): Promise<AvahiHost> {
  const [hub, space] = [`${prefix}-sw`, `${prefix}-${name}`];
  const { ipv4, ipv6 } = addressesOf(name);
  await ip("netns", "add", space);
  undo.push(() => ip("netns", "del", space));
  await ip("-n", space, "link", "set", "lo", "up");
  const noDad = ["all", "default"].map((of) => `net.ipv6.conf.${of}.accept_dad=0`);
  await ip("netns", "exec", space, "sysctl", "-qw", ...noDad);
  await plug(hub, name, space, (...words) => ip("-n", space, ...words));

  const pid = await hold(space, name, folder, undo);
  const command = (...parts: readonly string[]): string[] => ["nsenter", "-t", pid, "-m", "-n", "-u", "--", ...parts];
  const env = { DBUS_SYSTEM_BUS_ADDRESS: `unix:path=${join(folder, "bus")}` };
  let bus: Promise<void> | undefined;
  return {
    name,
    ipv4,
    ipv6,
    folder,
    command,
    env,
    run: (...parts) => runToEnd(command(...parts), env),
    spawn: (...parts) => {
      const [file = "", ...args] = command(...parts);
      return spawn(file, args, { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } });
    },
    async avahi(conf = {}) {
      bus ??= startBus(folder, command, undo);
      await bus;
      return startAvahi(`host-${name}`, folder, command, env, conf, undo);
    },
    link: async (up) => void (await ip("-n", hub, "link", "set", `p-${name}`, up ? "up" : "down")),
  };
}

/** A sleeping process that holds a host's mounts and name; its pid. */
async function hold(space: string, name: string, folder: string, undo: Undo): Promise<string> {
  const [etc, state] = [join(folder, "etc"), join(folder, "run")];
  await mkdir(join(etc, "services"), { recursive: true });
  await mkdir(state, { recursive: true });
  await writeFile(join(etc, "hosts"), "");
  const script = [
    `hostname host-${name}`,
    "mount --make-rprivate /",
    "mkdir -p /etc/avahi /run/avahi-daemon",
    `mount --bind ${etc} /etc/avahi`,
    `mount --bind ${state} /run/avahi-daemon`,
    `echo $$ > ${join(folder, "pid")}`,
    "exec sleep infinity",
  ].join(" && ");
  const holder = await startProgram(
    ["ip", "netns", "exec", space, "unshare", "-m", "-u", "sh", "-c", script],
    join(folder, "holder.log"),
  );
  undo.push(() => holder.stop("SIGKILL"));
  return await eventually(
    `host ${name} is there`,
    async () => (await readFile(join(folder, "pid"), "utf8").catch(() => "")).trim() || undefined,
  );
}

type InHost = (...parts: readonly string[]) => string[];

async function startBus(folder: string, command: InHost, undo: Undo): Promise<void> {
  const path = join(folder, "bus");
  await writeFile(
    join(folder, "bus.conf"),
    `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=${path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy></busconfig>
`,
  );
  const daemon = await startProgram(
    command("dbus-daemon", `--config-file=${join(folder, "bus.conf")}`, "--nofork", "--nopidfile"),
    join(folder, "bus.log"),
  );
  undo.push(() => daemon.stop());
  await eventually("the message bus is there", () =>
    access(path).then(
      () => true,
      () => false,
    ),
  );
}

async function startAvahi(
  hostName: string,
  folder: string,
  command: InHost,
  env: Readonly<Record<string, string>>,
  conf: Readonly<Record<string, string>>,
  undo: Undo,
): Promise<AvahiDaemon> {
  const server: Record<string, string> = {
    "host-name": hostName,
    "use-ipv4": "yes",
    "use-ipv6": "yes",
    "allow-interfaces": "eth0",
    "ratelimit-interval-usec": "1000000",
    "ratelimit-burst": "1000",
    ...conf,
  };
  const lines = Object.entries(server).map(([key, value]) => `${key}=${value}`);
  await writeFile(
    join(folder, "etc", "avahi-daemon.conf"),
    `[server]\n${lines.join("\n")}\n[wide-area]\nenable-wide-area=no\n[publish]\npublish-hinfo=no\npublish-workstation=no\n[reflector]\n[rlimits]\n`,
  );
  const state = join(folder, "run");
  for (const file of ["pid", "socket"]) await rm(join(state, file), { force: true });
  const log = join(folder, "avahi.log");
  const daemon = await startProgram(
    command("avahi-daemon", "--no-drop-root", "--no-chroot", "--no-rlimits", "--debug"),
    log,
    env,
  );
  undo.push(() => daemon.stop("SIGKILL"));
  await eventually("avahi-daemon runs", () => readFile(join(state, "pid"), "utf8").then((text) => text !== "")).catch(
    async (error: Error) => {
      // Two on one host are in each other's way.
      await daemon.stop("SIGKILL");
      throw new Error(`${error.message}\n${await readFile(log, "utf8")}`);
    },
  );
  return {
    stop: (signal) => daemon.stop(signal),
    async serviceFile(file, xml) {
      const path = join(folder, "etc", "services", file);
      if (xml === undefined) await rm(path);
      else await writeFile(path, xml);
    },
  };
}
