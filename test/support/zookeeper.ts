// A real ZooKeeper for tests: one server on a loopback port, which can be killed, paused and started again on the same data.

import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import type { LanHost } from "./lan.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "./peers.ts";
import { runToEnd } from "./program.ts";

/** One ZooKeeper on loopback. */
export interface ZooKeeperServer {
  /** host:port, on loopback 127.0.0.1:port */
  readonly address: string;
  start(): Promise<void>;
  stop(signal?: NodeJS.Signals): Promise<void>;
  pause(): void;
  resume(): void;
  /** Stops it and removes its data; it can be started again, empty. */
  wipe(): Promise<void>;
  /** Stops it and removes everything. */
  remove(): Promise<void>;
}

/** True where ZooKeeper is there (Debian's package, which brings zooinspector). */
export function haveZooKeeper(): Promise<boolean> {
  return havePrograms("zooinspector", "java");
}

const LIBRARIES = /^(zookeeper.*|slf4j-(simple|api)|netty.*|jline.*|snappy-java|metrics-core.*|log4j.*)\.jar$/;

async function classPath(): Promise<string> {
  const folder = "/usr/share/java";
  const jars = (await readdir(folder)).filter((name) => LIBRARIES.test(name)).map((name) => join(folder, name));
  const environment = await readFile("/etc/zookeeper/conf/environment", "utf8").catch(() => "");
  const [, named = ""] = /^CLASSPATH="?([^"\n]*)"?$/m.exec(environment) ?? [];
  return ["/etc/zookeeper/conf", named, ...jars].join(":");
}

/** Asks with one of ZooKeeper's four-letter words. */
function word(port: number, what: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(what));
    let text = "";
    socket.setTimeout(1_000, () => socket.destroy(new Error("silent")));
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(text));
  });
}

/**
 * Starts one with a folder and a port of its own, on loopback or on a host of a test's LAN. Session time-outs from 1 to 20 s are granted.
 */
export async function startZooKeeper(on?: Pick<LanHost, "address" | "within">): Promise<ZooKeeperServer> {
  const folder = await ownFolder("zookeeper");
  const port = on === undefined ? await freePort() : 2181;
  const host = on?.address ?? "127.0.0.1";
  const ruok = async (): Promise<boolean> => {
    if (on === undefined) return (await word(port, "ruok")) === "imok";
    const asking = `exec 3<>/dev/tcp/${host}/${port}; echo -n ruok >&3; timeout 1 cat <&3`;
    return (await runToEnd(on.within("bash", "-c", asking))).out === "imok";
  };
  const config = join(folder.path, "zoo.cfg");
  await writeFile(
    config,
    [
      ...["tickTime=500", "maxSessionTimeout=20000", `dataDir=${join(folder.path, "data")}`, `clientPort=${port}`],
      ...[`clientPortAddress=${host}`, "admin.enableServer=false", "4lw.commands.whitelist=*", ""],
    ].join("\n"),
  );
  const path = await classPath();
  let program: Awaited<ReturnType<typeof startProgram>> | undefined;
  const self: ZooKeeperServer = {
    address: `${host}:${port}`,
    async start() {
      if (program !== undefined) return;
      const java = ["java", "-Xmx256m", "-cp", path, "org.apache.zookeeper.server.quorum.QuorumPeerMain", config];
      program = await startProgram(on?.within(...java) ?? java, join(folder.path, "log"));
      await eventually("ZooKeeper answers", ruok, 60_000);
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
    async wipe() {
      await self.stop("SIGKILL");
      await rm(join(folder.path, "data"), { recursive: true, force: true });
    },
    async remove() {
      await self.stop("SIGKILL");
      await folder.remove();
    },
  };
  try {
    await self.start();
  } catch (error) {
    await self.remove();
    throw error;
  }
  return self;
}
