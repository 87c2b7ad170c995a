// The hook's library in C: its cases under the sanitizers, on glibc and musl, on arm64 by emulation; what a program notices of it that has no table.
import { execFile } from "node:child_process";
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { hookTable } from "../support/hook-table.ts";
import { freePort, havePrograms } from "../support/peers.ts";

const run = promisify(execFile);
const native = resolve(import.meta.dirname, "../../native");
const cases = join(native, "test/hook.c");
const library = join(native, "libtrilith.c");
const WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"];
const here = await havePrograms("cc", "musl-gcc", "aarch64-linux-gnu-gcc", "qemu-aarch64", "strace", "setpriv");

interface Build {
  readonly compiler: string;
  readonly flags: readonly string[];
  readonly runner?: readonly string[];
  /** Cases that the emulator cannot run: it has no memory that a fork empties, and no mounts to clone. */
  readonly without?: readonly string[];
}

const BUILDS: Readonly<Record<string, Build>> = {
  "glibc, address and undefined behaviour watched": {
    compiler: "cc",
    flags: ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
  },
  "glibc, threads watched": { compiler: "cc", flags: ["-O1", "-g", "-fsanitize=thread"] },
  "glibc as it is shipped": { compiler: "cc", flags: ["-O2"] },
  musl: { compiler: "musl-gcc", flags: ["-O2"] },
  "arm64 by emulation": {
    compiler: "aarch64-linux-gnu-gcc",
    flags: ["-O2"],
    runner: ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
    without: ["-threads", "-fork", "-chroot"],
  },
};

/** All that it says, also where it ends badly. */
const outputOf = (words: readonly string[], env: NodeJS.ProcessEnv): Promise<string> =>
  new Promise((done) => {
    const [program = "", ...more] = words;
    execFile(program, more, { timeout: 150_000, env: { ...process.env, ...env } }, (error, out, wrong) =>
      done(`${error === null ? "" : `${error.message}\n`}${wrong}${out}`),
    );
  });

describe.runIf(here)("the hook in C", { timeout: 180_000 }, () => {
  let folder = "";
  const COMPILERS = ["cc", "musl-gcc", "aarch64-linux-gnu-gcc"] as const;
  const libraryOf = (compiler: (typeof COMPILERS)[number]): string => join(folder, `lib-${compiler}.so`);
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "trilith-hook-native-"));
    await chmod(folder, 0o755);
    for (const compiler of COMPILERS)
      await run(compiler, [...WARNINGS, "-shared", "-fPIC", "-O2", "-o", libraryOf(compiler), library]);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it.each(Object.entries(BUILDS))(
    "%s: every case holds",
    async (name, { compiler, flags, runner = [], without = [] }) => {
      const own = await mkdtemp(join(folder, "run-"));
      const program = join(own, "hook");
      await run(compiler, ["-std=gnu11", ...WARNINGS, ...flags, "-o", program, cases, "-lpthread"]);
      await mkdir(join(own, "table"));
      const output = await outputOf([...runner, program, ...without], {
        TRILITH_HOOK_TABLE: join(own, "table/table"),
      });
      expect(output, name).toMatch(/all checks hold\n$/);
      expect(output).not.toContain("WARNING: ThreadSanitizer");
    },
    200_000,
  );

  it("compiles without a warning as one file with nothing but the C library, and shows only what it stands before", async () => {
    const HOOKS = [
      ["chroot", "close", "connect", "epoll_ctl", "getaddrinfo"],
      ["gethostbyname", "gethostbyname2", "gethostbyname2_r", "gethostbyname_r", "getsockopt"],
      ["recvfrom", "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt"],
    ].flat();
    for (const compiler of COMPILERS) {
      const { stdout } = await run("nm", ["-D", "--defined-only", libraryOf(compiler)]);
      const shown = stdout
        .trim()
        .split("\n")
        .map((line) => line.split(" ").at(-1) ?? "");
      // glibc's programs call another one where they were compiled with _FORTIFY_SOURCE, and only its dlopen binds deeply.
      const more = compiler === "musl-gcc" ? [] : ["__recvfrom_chk", "dlopen"];
      const own = shown.filter((name) => !/^_(init|fini)$/.test(name)); // musl's start-up files
      expect(own.sort(), compiler).toEqual([...more, ...HOOKS].sort());
    }
  });

  it("is loaded by programs of glibc, of musl and of arm64", async () => {
    const table = hookTable(join(folder, "loaded/table"));
    const server = createServer((socket) => socket.end());
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    await table.put([{ name: "web", ports: [port] }]);
    for (const [compiler, runner] of [
      ["cc", ["env"]],
      ["musl-gcc", ["env"]],
      ["aarch64-linux-gnu-gcc", ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]],
    ] as const) {
      const program = join(folder, `client-${compiler}`);
      await run(compiler, ["-o", program, join(native, "test/client.c")]);
      // The variable is for the program alone: what starts it may be of another C library.
      const preload = `LD_PRELOAD=${libraryOf(compiler)}`;
      const words = runner[0] === "env" ? ["env", preload] : [...runner, "-E", preload];
      const output = await outputOf([...words, program, "web.service.consul", "80"], {
        TRILITH_HOOK_TABLE: table.path,
      });
      expect(output, compiler).toBe(`connected to ${port}\n`);
    }
  });

  it("reads every name of a large table as the agent wrote it", async () => {
    const table = hookTable(join(folder, "large/table"));
    const services = Array.from({ length: 5000 }, (_, i) => ({ name: `s${i}-${"x".repeat(i % 40)}`, ports: [1 + i] }));
    await table.put(services);
    const script = `
import socket
for i in range(5000):
    name = "s%d-%s.service.consul" % (i, "x" * (i % 40))
    slot = i + 1
    expected = "127.128.%d.%d" % (slot >> 8, slot & 255)
    assert socket.gethostbyname(name) == expected, (name, socket.gethostbyname(name), expected)
    if i % 100 == 0:
        try: socket.create_connection((name, 80))
        except ConnectionRefusedError: pass
for name in ("s.service.consul", "s5000-.service.consul", "s1-x.service.consul.x"):
    try: socket.gethostbyname(name)
    except OSError: continue
    raise SystemExit(name + " is somebody")
print("all there")`;
    expect(
      await outputOf(["python3", "-c", script], {
        LD_PRELOAD: libraryOf("cc"),
        TRILITH_HOOK_TABLE: table.path,
      }),
    ).toBe("all there\n");
  });

  it("leaves programs alone where the table is missing, short, of another version, or somebody else's", async () => {
    const preload = libraryOf("cc");
    const path = join(await mkdtemp(join(folder, "spoilt-")), "own", "table");
    const table = hookTable(path);
    const plain = await outputOf(["getent", "ahosts", "127.0.0.1"], {});
    const same = async (): Promise<void> => {
      expect(await outputOf(["getent", "ahosts", "127.0.0.1"], { LD_PRELOAD: preload, TRILITH_HOOK_TABLE: path })).toBe(
        plain,
      );
      expect(
        await outputOf(["getent", "ahosts", "web.service.consul"], { LD_PRELOAD: preload, TRILITH_HOOK_TABLE: path }),
      ).not.toContain("127.128.");
    };
    await same();
    await table.put([{ name: "web", ports: [1] }]);
    expect(
      await outputOf(["getent", "ahosts", "web.service.consul"], { LD_PRELOAD: preload, TRILITH_HOOK_TABLE: path }),
    ).toContain("127.128.0.1");
    await chmod(path, 0o666);
    await same();
    await rm(path);
    await writeFile(path, "TRILHOOK", { mode: 0o644 });
    await same();
    await rm(path);
    await writeFile(path, Buffer.concat([Buffer.from("TRILHOOK"), Buffer.from([2, 0, 0, 0, 192]), Buffer.alloc(500)]));
    await same();
  });

  it("asks the kernel nothing about the table however often a program connects", async () => {
    const path = join(folder, "quiet/table");
    await hookTable(path).put([{ name: "web", ports: [await freePort()] }]);
    /** Calls that name the table; Python itself may be started by a chain of programs that each map it. */
    const looks = async (connects: number): Promise<number> => {
      const log = join(folder, `strace-${connects}`);
      const script = `
import socket
for i in range(${connects}):
    s = socket.socket()
    try: s.connect(("127.128.0.1", 80))
    except ConnectionRefusedError: continue
    raise SystemExit("connected to nobody")`;
      await run("strace", ["-o", log, "-e", "trace=openat,newfstatat,stat,access,readlink", "python3", "-c", script], {
        env: { ...process.env, LD_PRELOAD: libraryOf("cc"), TRILITH_HOOK_TABLE: path },
      });
      return (await readFile(log, "utf8")).split("\n").filter((line) => line.includes(`"${path}"`)).length;
    };
    /** All calls of a program that asks for a service's name so often. */
    const calls = async (lookups: number): Promise<number> => {
      const log = join(folder, `strace-names-${lookups}`);
      const script = `
import socket
for i in range(${lookups}): assert socket.gethostbyname("web.service.consul") == "127.128.0.1"`;
      await run("strace", ["-f", "-o", log, "python3", "-c", script], {
        env: { ...process.env, LD_PRELOAD: libraryOf("cc"), TRILITH_HOOK_TABLE: path },
      });
      return (await readFile(log, "utf8")).split("\n").length;
    };
    // Less than one for ten names: the interpreter's own memory comes and goes, and so do its files.
    expect(Math.abs((await calls(10_001)) - (await calls(1)))).toBeLessThan(1_000);
    const once = await looks(1);
    expect(once).toBeGreaterThan(0);
    // Every five seconds one look makes sure.
    expect(await looks(300)).toBeLessThan(once + 30);
  });

  it.runIf(process.getuid?.() === 0)("in a setuid program the variable says nothing", async () => {
    const own = await mkdtemp(join(folder, "setuid-"));
    await chmod(own, 0o755);
    const program = join(own, "hook");
    await run("cc", ["-O1", "-o", program, cases, "-lpthread"]);
    const env = { TRILITH_HOOK_TABLE: join(own, "table") };
    const asNobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    expect(await outputOf([...asNobody, program, "missing"], env)).toContain("ran missing");
    const raised = join(own, "raised");
    await copyFile(program, raised);
    await chmod(raised, 0o4755);
    expect(await outputOf([...asNobody, raised, "missing"], env)).toContain("TRILITH_HOOK_TABLE is not set");
  });
});
