// Real peers for tests: installs Debian packages when it may, says by name what is missing, fails for it when CI=true.
import { execFile, spawn } from "node:child_process";
import { access, mkdir, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Debian packages by the program that shows they are there. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  dockerd: ["docker.io", "busybox-static", "iptables"],
  docker: ["docker.io"],
  "docker-compose": ["docker-compose"],
  podman: ["podman", "runc", "conmon", "containernetworking-plugins", "iptables", "busybox-static"],
  openssl: ["openssl"],
  curl: ["curl"],
  etcd: ["etcd-server", "etcd-client"],
  dig: ["bind9-dnsutils"],
  dnsmasq: ["dnsmasq-base"],
  socat: ["socat"],
  nc: ["netcat-openbsd"],
  prlimit: ["util-linux"],
  strace: ["strace"],
  ip: ["iproute2"],
  iptables: ["iptables"],
  dnsperf: ["dnsperf"],
  nsd: ["nsd"],
  haproxy: ["haproxy"],
  nginx: ["nginx-light"],
  apache2: ["apache2-bin"],
  wrk: ["wrk"],
  python3: ["python3"],
  cc: ["gcc", "libc6-dev"],
  promtool: ["prometheus"],
  mvn: ["maven"],
  javac: ["default-jdk-headless"],
  java: ["default-jre-headless"],
  zooinspector: ["zookeeper"],
  "avahi-daemon": ["avahi-daemon", "dbus"],
  "avahi-browse": ["avahi-utils"],
  "dbus-daemon": ["dbus"],
  nsenter: ["util-linux"],
  "musl-gcc": ["musl-tools"],
  "aarch64-linux-gnu-gcc": ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
  "qemu-aarch64": ["qemu-user"],
  "redis-server": ["redis-server"],
  "redis-cli": ["redis-tools"],
  "redis-benchmark": ["redis-tools"],
  wget: ["wget"],
  setpriv: ["util-linux"],
  "systemd-notify": ["systemd"],
  pg_ctlcluster: ["postgresql"],
  "/usr/lib/python3/dist-packages/kazoo": ["python3-kazoo"],
  "/usr/lib/python3/dist-packages/requests": ["python3-requests"],
  "/usr/lib/python3/dist-packages/aiohttp": ["python3-aiohttp"],
  "/usr/lib/python3/dist-packages/uvloop": ["python3-uvloop"],
  "/usr/lib/python3/dist-packages/grpc": ["python3-grpcio"],
  "/usr/share/perl5/LWP": ["libwww-perl"],
  php: ["php-cli", "php-curl"],
  ruby: ["ruby"],
};

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

async function onPath(program: string): Promise<boolean> {
  if (program.startsWith("/")) return await exists(program);
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin"];
  for (const folder of folders) if (await exists(join(folder, program))) return true;
  return false;
}

/** One installation at a time on this machine. A lock whose process is gone does not count. */
async function withLock<T>(work: () => Promise<T>): Promise<T> {
  const lock = join(tmpdir(), "trilith-test-apt.lock");
  for (let tries = 0; ; tries++) {
    try {
      await writeFile(lock, String(process.pid), { flag: "wx" });
      break;
    } catch {
      const holder = Number(await readFile(lock, "utf8").catch(() => ""));
      if (holder > 0 && !(await exists(`/proc/${holder}`))) await rm(lock, { force: true });
      if (tries > 1200) throw new Error(`${lock} is held for too long by another test run`);
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
  try {
    return await work();
  } finally {
    await rm(lock, { force: true });
  }
}

async function install(packages: readonly string[]): Promise<void> {
  const policy = "/usr/sbin/policy-rc.d";
  const forbid = !(await onPath("policy-rc.d"));
  // Packages must not start their daemons on standard ports.
  if (forbid) await writeFile(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  try {
    await run("apt-get", ["update"], { env, maxBuffer: 1 << 26 });
    await run("apt-get", ["install", "-y", "--no-install-recommends", ...packages], { env, maxBuffer: 1 << 26 });
  } finally {
    if (forbid) await rm(policy, { force: true });
  }
}

/**
 * Makes sure that programs are there, installing their Debian packages as root. True = all there. False = not to be had here:
 * the caller then marks its tests as not run with the reason; with CI=true this throws instead.
 */
export async function havePrograms(...programs: string[]): Promise<boolean> {
  const missing = async (): Promise<string[]> => {
    const found = await Promise.all(programs.map(onPath));
    return programs.filter((_, i) => !found[i]);
  };
  let gone = await missing();
  if (gone.length > 0 && process.getuid?.() === 0 && (await onPath("apt-get"))) {
    await withLock(async () => {
      gone = await missing();
      if (gone.length > 0) await install([...new Set(gone.flatMap((name) => PACKAGES[name] ?? [name]))]);
    });
    gone = await missing();
  }
  if (gone.length === 0) return true;
  const text = `not run: ${gone.join(", ")} is not installed and could not be installed (needs root on Debian)`;
  if (process.env["CI"] === "true") throw new Error(text);
  console.warn(text);
  return false;
}

/** A folder of the test's own, removed by `remove`. */
export async function ownFolder(name: string): Promise<{ readonly path: string; remove(): Promise<void> }> {
  const path = join(tmpdir(), `trilith-test-${name}-${process.pid}-${Math.random().toString(36).slice(2, 8)}`);
  await mkdir(path, { recursive: true });
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/** Starts a program in the background, its output in a file; `stop` ends it by pid (SIGTERM, then SIGKILL) and waits. */
export async function startProgram(
  command: readonly string[],
  logFile: string,
  env: Readonly<Record<string, string>> = {},
): Promise<{
  readonly pid: number;
  stop(signal?: NodeJS.Signals): Promise<void>;
  readonly ended: Promise<number | null>;
}> {
  const log = await open(logFile, "a");
  const [file = "", ...args] = command;
  const child = spawn(file, args, { stdio: ["ignore", log.fd, log.fd], env: { ...process.env, ...env } });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("exit", (code) => resolve(code));
    child.once("error", reject);
  });
  await log.close();
  return {
    pid: child.pid ?? -1,
    ended,
    async stop(signal = "SIGTERM") {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill(signal);
      const killer = setTimeout(() => child.kill("SIGKILL"), 10_000);
      await ended;
      clearTimeout(killer);
    },
  };
}

/** Asks again and again until the answer is not undefined/false; throws with `what` after `timeoutMs`. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 30_000,
): Promise<T> {
  const end = Date.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer as T;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`gave up after ${timeoutMs} ms: ${what}`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Where the system takes ports from for connections and for listeners that ask for any: one from there that is free now is anybody's in a moment. */
async function firstEphemeralPort(): Promise<number> {
  const range = await readFile("/proc/sys/net/ipv4/ip_local_port_range", "utf8").catch(() => "");
  return Number.parseInt(range, 10) || 0;
}

const FIRST_OWN_PORT = 10_000;

/** A TCP port that is free on loopback (and, as far as one can tell, for UDP too), and that the system gives to nobody who does not ask for it by its number. */
export async function freePort(): Promise<number> {
  const { createServer } = await import("node:net");
  const own = (await firstEphemeralPort()) - FIRST_OWN_PORT;
  for (let left = 100; ; left--) {
    const wanted = own < 1_000 || left === 0 ? 0 : FIRST_OWN_PORT + Math.floor(Math.random() * own);
    const got = await new Promise<number | undefined>((resolve, reject) => {
      const server = createServer();
      server.once("error", (error: NodeJS.ErrnoException) =>
        error.code === "EADDRINUSE" && wanted !== 0 ? resolve(undefined) : reject(error),
      );
      server.listen(wanted, "127.0.0.1", () => {
        const { port } = server.address() as { port: number };
        server.close(() => resolve(port));
      });
    });
    if (got !== undefined) return got;
  }
}
