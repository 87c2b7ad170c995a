// A real Podman of a test's own: its own storage, its own socket, images made from busybox; everything ended by pid and removed.
import { execFile } from "node:child_process";
import { access, copyFile, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { eventually, ownFolder, startProgram } from "./peers.ts";

const run = promisify(execFile);

/** Podman with a service that speaks Docker's API. */
export interface Podman {
  /** unix://…/podman.sock */
  readonly host: string;
  /** Runs the podman client on the same storage, also while the service is away. */
  podman(...args: string[]): Promise<string>;
  /** Ends the service; containers run on. */
  stop(): Promise<void>;
  start(): Promise<void>;
  /** After a try that failed: the service runs, and there are no containers. */
  clear(): Promise<void>;
  /** Removes all containers, ends the service and everything it left. */
  remove(): Promise<void>;
}

/** The bridge of Podman's default network, which it makes and leaves. */
const BRIDGE = "cni-podman0";
const hasBridge = (): Promise<boolean> =>
  access(`/sys/class/net/${BRIDGE}`).then(
    () => true,
    () => false,
  );

/** Starts a rootful Podman with the image `pexp1` (EXPOSE 80, sleeps). Needs root and the programs of `havePrograms("podman", …)`. */
export async function startPodman(name: string): Promise<Podman> {
  const bridgeBefore = await hasBridge();
  const own = await ownFolder(`podman-${name}`);
  const at = (...path: string[]): string => join(own.path, ...path);
  const settings = at("containers.conf");
  // The default asks for more than a container may be given on small machines.
  await writeFile(settings, '[containers]\ndefault_ulimits = ["nofile=1024:20000", "nproc=1024:20000"]\n');
  const options = [
    ...["--root", at("root"), "--runroot", at("run"), "--tmpdir", at("tmp"), "--storage-driver", "vfs"],
    ...["--cgroup-manager", "cgroupfs", "--events-backend", "file"],
  ];
  const env = { CONTAINERS_CONF: settings };
  const podman = async (...args: string[]): Promise<string> =>
    (await run("podman", [...options, ...args], { env: { ...process.env, ...env }, maxBuffer: 1 << 26 })).stdout.trim();
  let program: Awaited<ReturnType<typeof startProgram>> | undefined;
  const start = async (): Promise<void> => {
    program = await startProgram(
      ["podman", ...options, "system", "service", "-t", "0", `unix://${at("podman.sock")}`],
      at("podman.log"),
      env,
    );
    await eventually("podman answers", async () =>
      (await run("curl", ["-sf", "--unix-socket", at("podman.sock"), "http://podman/_ping"])).stdout.startsWith("OK"),
    );
  };
  const stop = async (): Promise<void> => {
    await program?.stop();
    program = undefined;
  };
  const self: Podman = {
    host: `unix://${at("podman.sock")}`,
    podman,
    start,
    stop,
    async clear() {
      if (program === undefined) await start();
      await podman("rm", "-f", "-t", "0", "-a");
    },
    async remove() {
      await podman("rm", "-f", "-t", "0", "-a").catch(() => "");
      await stop();
      const mounts = (await readFile("/proc/self/mounts", "utf8")).split("\n").map((line) => line.split(" ")[1] ?? "");
      for (const mount of mounts.filter((path) => path.startsWith(`${own.path}/`)).reverse())
        await run("umount", ["-l", mount]).catch(() => "");
      if (!bridgeBefore && (await hasBridge())) await run("ip", ["link", "delete", BRIDGE]).catch(() => "");
      await own.remove();
    },
  };
  try {
    await mkdir(at("rootfs/bin"), { recursive: true });
    await copyFile("/bin/busybox", at("rootfs/bin/busybox"));
    for (const applet of ["sh", "sleep", "true", "false"]) await symlink("busybox", at("rootfs/bin", applet));
    await run("tar", ["-C", at("rootfs"), "-cf", at("rootfs.tar"), "."]);
    await podman(
      "import",
      "--change",
      "EXPOSE 80",
      "--change",
      'CMD ["/bin/sleep","1000000"]',
      at("rootfs.tar"),
      "pexp1",
    );
    await start();
  } catch (error) {
    await self.remove();
    throw error;
  }
  return self;
}
