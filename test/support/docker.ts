// A real dockerd of a test's own: own socket, own data folder, images made from busybox; everything ended by pid and removed.
import { execFile } from "node:child_process";
import { readlinkSync } from "node:fs";
import { access, copyFile, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { eventually, ownFolder, startProgram } from "./peers.ts";

const run = promisify(execFile);

/** A running dockerd. */
export interface Docker {
  /** unix://…/docker.sock */
  readonly host: string;
  readonly socketPath: string;
  readonly folder: string;
  readonly pid: number;
  /** Runs the docker client; resolves with its trimmed output, rejects where it fails. */
  docker(...args: string[]): Promise<string>;
  /** Sends a POST without a body to the engine, which takes less of the machine than a client's process; rejects where it is refused. */
  post(path: string): Promise<void>;
  /** Ends the daemon by pid, its containers with it; `start` brings it back on the same data. */
  stop(): Promise<void>;
  /** `live`: its containers run on (--live-restore) and are left alone. */
  start(options?: { readonly live?: boolean }): Promise<void>;
  /** Ends the daemon without warning. */
  kill(): Promise<void>;
  /** After a try that failed: the daemon runs, and there are no containers, no swarm and none of these networks. */
  clear(...networks: readonly string[]): Promise<void>;
  /** Removes all containers, ends the daemon and everything it left. */
  remove(): Promise<void>;
}

const APPLETS = "sh ash httpd nc sleep cat echo ls env true false ps kill test touch rm trap wget";

/** Images besides `bb` itself, with the changes `docker commit` makes for them. */
const IMAGES: Readonly<Record<string, readonly string[]>> = {
  bbexp1: ["EXPOSE 80", 'CMD ["/bin/sleep","1000000"]'],
  bbexp3: ["EXPOSE 80", "EXPOSE 443", "EXPOSE 53/udp", 'CMD ["/bin/sleep","1000000"]'],
  bbweb: ["EXPOSE 80", 'CMD ["/bin/httpd","-f","-p","80","-h","/www"]'],
};

/** In a network namespace of its own a dockerd is in nobody's way. */
const LOCK = join(tmpdir(), `trilith-test-docker-${readlinkSync("/proc/self/ns/net").replace(/\D/g, "")}.lock`);
const BRIDGE = "docker0";

/** One dockerd at a time: they share the machine's bridge and packet filter. A lock whose process is gone does not count. */
async function lock(): Promise<() => Promise<void>> {
  await eventually(
    "no other test has a dockerd running",
    async () => {
      try {
        await writeFile(LOCK, String(process.pid), { flag: "wx" });
        return true;
      } catch {
        const holder = Number(await readFile(LOCK, "utf8").catch(() => ""));
        const alive =
          holder > 0 &&
          (await access(`/proc/${holder}`).then(
            () => true,
            () => false,
          ));
        if (!alive && holder > 0) await rm(LOCK, { force: true });
        return false;
      }
    },
    170_000,
  );
  return () => rm(LOCK, { force: true });
}

/** Ends what a killed daemon left behind: containerd, its shims (their command lines name the folder) and the shims' containers. */
async function endLeftovers(folder: string): Promise<void> {
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (!/^[^\0]*containerd/.test(command) || !command.includes(`${folder}/`)) continue;
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
    for (const victim of [...(command.includes("shim") ? children.split(" ") : []), pid].map(Number)) {
      try {
        if (victim > 0) process.kill(victim, "SIGKILL");
      } catch {
        // It ended by itself meanwhile.
      }
    }
  }
}

const hasBridge = (): Promise<boolean> =>
  access(`/sys/class/net/${BRIDGE}`).then(
    () => true,
    () => false,
  );

/** Starts a dockerd, with further flags where some are given. Needs root and the programs of `havePrograms("dockerd", "docker", "iptables")`. */
export async function startDocker(name: string, flags: readonly string[] = []): Promise<Docker> {
  const unlock = await lock();
  const bridgeBefore = await hasBridge();
  const own = await ownFolder(`docker-${name}`);
  const socketPath = join(own.path, "docker.sock");
  const host = `unix://${socketPath}`;
  const pidFile = join(own.path, "pid");
  let program: Awaited<ReturnType<typeof startProgram>> | undefined;
  const docker = async (...args: string[]): Promise<string> =>
    (await run("docker", ["-H", host, ...args], { maxBuffer: 1 << 26 })).stdout.trim();
  const containerdPidFile = join(own.path, "exec/containerd/containerd.pid");
  const start = async ({ live = false }: { readonly live?: boolean } = {}): Promise<void> => {
    // A daemon that was killed leaves its containerd (or, where nobody reaps, its zombie) behind, and a successor would wait for it.
    if (!live) await endLeftovers(own.path);
    await rm(containerdPidFile, { force: true });
    program = await startProgram(
      [
        "dockerd",
        ...["--data-root", join(own.path, "data")],
        ...["--exec-root", join(own.path, "exec")],
        ...["--pidfile", pidFile],
        ...["-H", host],
        ...["--storage-driver", "vfs"],
        ...["--default-ulimit", "nofile=1024:20000"],
        ...["--shutdown-timeout", "2"],
        ...flags,
      ],
      join(own.path, "dockerd.log"),
    );
    let over: number | null | undefined;
    void program.ended.then((code) => {
      over = code;
    });
    await eventually(
      "dockerd answers",
      async () => {
        if (over !== undefined) return true;
        return (await docker("version", "--format", "{{.Server.Version}}")) !== "";
      },
      60_000,
    );
    if (over !== undefined)
      throw new Error(
        `dockerd ended with ${over}: ${(await readFile(join(own.path, "dockerd.log"), "utf8")).slice(-2000)}`,
      );
  };
  const stop = async (): Promise<void> => {
    await program?.stop();
    program = undefined;
  };
  const removeContainers = async (): Promise<void> => {
    const ids = (await docker("ps", "-aq").catch(() => "")).split("\n").filter((id) => id !== "");
    if (ids.length > 0) await docker("rm", "-f", ...ids).catch(() => "");
  };
  const self: Docker = {
    host,
    socketPath,
    folder: own.path,
    get pid() {
      return program?.pid ?? -1;
    },
    docker,
    post: (path) =>
      new Promise((resolve, reject) => {
        const call = request({ socketPath, path, method: "POST" }, (reply) => {
          reply.resume();
          if ((reply.statusCode ?? 500) < 300) reply.once("end", () => resolve());
          else reject(new Error(`POST ${path}: ${reply.statusCode}`));
        });
        call.once("error", reject);
        call.end();
      }),
    start,
    stop,
    async kill() {
      await program?.stop("SIGKILL");
      program = undefined;
    },
    async clear(...networks) {
      if (program === undefined) await start();
      await docker("swarm", "leave", "--force").catch(() => "");
      await removeContainers();
      for (const network of networks) await docker("network", "rm", network).catch(() => "");
    },
    async remove() {
      if (program !== undefined) {
        await removeContainers();
        // Their bridges would outlive the daemon, with subnets that the next one's networks want.
        await docker("network", "prune", "-f").catch(() => "");
        await stop();
      }
      await endLeftovers(own.path);
      // The daemon's own mounts below its folder (netns, containers that it could not clean up).
      const mounts = (await readFile("/proc/self/mounts", "utf8")).split("\n").map((line) => line.split(" ")[1] ?? "");
      for (const mount of mounts.filter((path) => path.startsWith(`${own.path}/`)).reverse())
        await run("umount", ["-l", mount]).catch(() => "");
      if (!bridgeBefore && (await hasBridge())) await run("ip", ["link", "delete", BRIDGE]).catch(() => "");
      await own.remove();
      await unlock();
    },
  };
  try {
    await start();
    await makeImages(own.path, docker);
  } catch (error) {
    await self.remove();
    throw error;
  }
  return self;
}

async function makeImages(folder: string, docker: Docker["docker"]): Promise<void> {
  const root = join(folder, "rootfs");
  for (const path of ["bin", "etc", "tmp", "proc", "sys", "dev", "www"])
    await mkdir(join(root, path), { recursive: true });
  await copyFile("/bin/busybox", join(root, "bin/busybox"));
  for (const applet of APPLETS.split(" ")) await symlink("busybox", join(root, "bin", applet));
  await writeFile(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
  await writeFile(join(root, "www/index.html"), "ok\n");
  const archive = join(folder, "rootfs.tar");
  await run("tar", ["-C", root, "-cf", archive, "."]);
  await docker("import", archive, "bb:latest");
  for (const [image, changes] of Object.entries(IMAGES)) {
    const id = await docker("create", "bb:latest", "/bin/sleep", "1000000");
    await docker("commit", ...changes.flatMap((change) => ["--change", change]), id, image);
    await docker("rm", id);
  }
}
