// What a crash leaves: a process is killed under load again and again, and everything it acknowledged is there, whole; synced before it was told.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { type Durable, openDurable } from "../../src/base/durable.ts";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import { systemRandom } from "../../src/base/random.ts";
import { createDirectory, type LocalDirectory } from "../../src/directory/local.ts";
import { lmdbStorage } from "../../src/directory/storage/lmdb.ts";
import { havePrograms, ownFolder } from "../support/peers.ts";
import { changesOf, counterOf, faultsOf } from "./crash-content.ts";

const run = promisify(execFile);
const WRITERS = 16;
const ROUNDS = 200;
const LANES = 3;
const LOADER = ["--import", "tsx", fileURLToPath(new URL("./crash-writer.ts", import.meta.url))];

let folder: Awaited<ReturnType<typeof ownFolder>>;
beforeEach(async () => {
  folder = await ownFolder("crash");
});
afterEach(() => folder.remove());

interface Opened {
  readonly durable: Durable;
  readonly directory: LocalDirectory;
  close(): Promise<void>;
}
async function openDirectory(path: string): Promise<Opened> {
  const durable = await openDurable(path);
  const directory = createDirectory(lmdbStorage(durable), {
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    metrics: createMetrics(),
  });
  await directory.start();
  return {
    durable,
    directory,
    async close() {
      await directory.stop();
      await durable.close();
    },
  };
}

/** Starts the writer, lets `until` decide when it is killed, and tells what it had acknowledged. */
async function killedRun(
  path: string,
  until: (child: ChildProcess, saying: (text: string) => Promise<void>) => Promise<void>,
): Promise<Map<number, number>> {
  const child = spawn(process.execPath, [...LOADER, path, String(WRITERS)], { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  let complained = "";
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.once("close", (_, signal) => resolve(signal)));
  const listeners = new Set<() => void>();
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
    for (const listener of [...listeners]) listener();
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complained += text;
  });
  /** Resolves when the writer has said it. */
  const saying = (text: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const listener = (): void => {
        if (said.includes(text)) resolve();
      };
      listeners.add(listener);
      listener();
      void ended.then(() => reject(new Error(`the writer ended by itself: ${complained}`)));
    });
  try {
    await until(child, saying);
  } finally {
    child.kill("SIGKILL");
  }
  expect(await ended).toBe("SIGKILL");
  const acknowledged = new Map<number, number>();
  // A line cut short by the end is an acknowledgement nobody got.
  for (const [, writer, n] of said.matchAll(/^ack (\d+) (\d+)\n/gm)) acknowledged.set(Number(writer), Number(n));
  return acknowledged;
}

describe("a crash", () => {
  test(`${ROUNDS} times killed: no acknowledged write is missing, none is half done, indexes go on`, async () => {
    let killedAtWork = 0;
    const lane = async (number: number): Promise<void> => {
      const path = join(folder.path, String(number));
      let index = 0;
      for (let round = number; round < ROUNDS; round += LANES) {
        const acknowledged = await killedRun(path, async (_, saying) => {
          // Mostly in the middle of the work, now and then at its very beginning.
          await saying(round % 5 === 0 ? "ready" : "ack ");
          await systemClock.sleep(Math.random() * 40);
        });
        if (acknowledged.size > 0) killedAtWork++;
        // The lock of the killed process is taken over.
        const { directory, close } = await openDirectory(path);
        const view = directory.view();
        for (let writer = 0; writer < WRITERS; writer++) {
          expect(faultsOf(view, writer)).toEqual([]);
          expect([writer, counterOf(view, writer)]).toEqual([
            writer,
            expect.toSatisfy((n: number) => n >= (acknowledged.get(writer) ?? 0)),
          ]);
        }
        expect(view.index).toBeGreaterThanOrEqual(index);
        index = view.index;
        await close();
      }
    };
    await Promise.all(Array.from({ length: LANES }, (_, number) => lane(number)));
    expect(killedAtWork).toBeGreaterThan(ROUNDS / 2);
  }, 300_000);

  test("nothing is acknowledged before it is synced", async ({ skip }) => {
    if (!(await havePrograms("strace"))) return skip("strace is not here");
    const trace = join(folder.path, "trace");
    const data = join(folder.path, "data");
    await run("strace", [
      "-f",
      "-qq",
      "-e",
      "trace=openat,pwrite64,pwritev,pwritev2,write,writev,fsync,fdatasync,msync",
      "-o",
      trace,
      process.execPath,
      ...LOADER,
      data,
      "1",
      "20",
    ]);
    // Calls in the order in which they ended.
    const calls = (await readFile(trace, "utf8")).split("\n").flatMap((line) => {
      const [, name, rest] = /^\d+ +(?:<\.\.\. )?(\w+)(?: resumed>)?(.*)$/.exec(line) ?? [];
      return name === undefined || rest === undefined || rest.endsWith("<unfinished ...>") ? [] : [{ name, rest }];
    });
    // The arguments of a call that was interrupted stand where it began.
    const begun = new Map<string, string>();
    const whole = (await readFile(trace, "utf8")).split("\n").flatMap((line) => {
      const start = /^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$/.exec(line);
      if (start !== null) {
        begun.set(`${start[1]} ${start[2]}`, start[3] ?? "");
        return [];
      }
      const end = /^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)/.exec(line);
      if (end !== null)
        return [
          { name: end[2] ?? "", args: (begun.get(`${end[1]} ${end[2]}`) ?? "") + end[3], result: Number(end[4]) },
        ];
      const call = /^\d+ +(\w+)\((.*)\) += (-?\d+)/.exec(line);
      return call === null ? [] : [{ name: call[1] ?? "", args: call[2] ?? "", result: Number(call[3]) }];
    });
    expect(whole.length).toBe(calls.length);
    /** Descriptors of the data file: true = every write on it is a sync [open(2), O_DSYNC]. */
    const files = new Map<number, boolean>();
    let unsynced = 0;
    let synced = 0;
    let acknowledged = 0;
    for (const { name, args, result } of whole) {
      const descriptor = Number.parseInt(args, 10);
      if (name === "openat") {
        if (result >= 0) files.delete(result);
        if (result >= 0 && args.includes('/trilith.mdb"'))
          files.set(result, args.includes("O_DSYNC") || args.includes("O_SYNC"));
      } else if (name === "fsync" || name === "fdatasync") {
        if (files.get(descriptor) !== undefined && result === 0) unsynced = 0;
      } else if (name === "msync") unsynced = 0;
      else if (args.startsWith('1, "ack ')) {
        expect([args, unsynced, synced > 0]).toEqual([args, 0, true]);
        acknowledged++;
        synced = 0;
      } else if (files.has(descriptor) && result > 0) {
        if (files.get(descriptor) === true) synced++;
        else unsynced++;
      }
    }
    expect(acknowledged).toBe(20);
  });
});

describe("a data folder that cannot be used", () => {
  test("a second process is told the pid of the first", async () => {
    const { close } = await openDirectory(folder.path);
    const failed = await run(process.execPath, [...LOADER, folder.path, "1", "1"]).catch(
      (error: { stderr: string }) => error,
    );
    expect(failed.stderr).toContain(`the data folder ${folder.path} is in use by another process (pid ${process.pid})`);
    expect(failed.stderr).toContain("locked");
    await close();
  });

  test("while another process lives it keeps the folder; when it is killed the folder is free at once", async () => {
    await killedRun(folder.path, async (child, saying) => {
      await saying("ready\n");
      await expect(openDurable(folder.path)).rejects.toMatchObject({
        code: "locked",
        message: expect.stringContaining(`another process (pid ${child.pid})`),
      });
    });
    const { close } = await openDirectory(folder.path);
    await close();
  });

  test("a full disk: the write is refused, nothing is damaged, reads go on, writes work again when there is room", async ({
    skip,
  }) => {
    if (process.getuid?.() !== 0) return skip("a small file system can only be mounted by root");
    const mounted = await run("mount", ["-t", "tmpfs", "-o", "size=3m", "tmpfs", folder.path]).then(
      () => true,
      () => false,
    );
    if (!mounted) return skip("mount is not permitted here");
    try {
      const opened = await openDirectory(folder.path);
      let n = 0;
      let failure: unknown;
      const ballast = join(folder.path, "ballast");
      await opened.directory.write(changesOf(0, ++n));
      await writeFile(ballast, new Uint8Array(2_000_000));
      while (failure === undefined && n < 5000) {
        const written = await opened.directory.write(bigger(n + 1)).catch((error: unknown) => {
          failure = error;
        });
        if (written !== undefined) n++;
      }
      expect(failure).toMatchObject({ code: "disk-full", message: expect.stringContaining(folder.path) });
      // What was refused is not to be seen, what was acknowledged is.
      const view = opened.directory.view();
      expect(view.get("kv", `big/${n}`)).toBeDefined();
      expect(view.get("kv", `big/${n + 1}`)).toBeUndefined();
      // Several at once fail alike, each with its reason.
      const several = await Promise.allSettled([1, 2, 3].map((i) => opened.directory.write(bigger(n + i))));
      expect(several.every(({ status }) => status === "rejected")).toBe(true);
      expect(await opened.durable.trouble()).toMatchObject({ code: "disk-full" });
      // Room again: the same process writes on.
      await run("rm", [ballast]);
      expect(await opened.durable.trouble()).toBeUndefined();
      expect((await opened.directory.write(bigger(n + 1))).result).toBe("written");
      await opened.close();
      const again = await openDirectory(folder.path);
      for (let i = 2; i <= n + 1; i++) expect(again.directory.view().get("kv", `big/${i}`)?.value).toHaveLength(20_000);
      expect(again.directory.view().get("kv", `big/${n + 2}`)).toBeUndefined();
      expect(faultsOf(again.directory.view(), 0)).toEqual([]);
      await again.close();
    } finally {
      await run("umount", ["-l", folder.path]);
    }
  });

  test("a file system without room for a beginning", async ({ skip }) => {
    if (process.getuid?.() !== 0) return skip("a small file system can only be mounted by root");
    const mounted = await run("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder.path]).then(
      () => true,
      () => false,
    );
    if (!mounted) return skip("mount is not permitted here");
    try {
      await writeFile(join(folder.path, "ballast"), new Uint8Array(1 << 20)).catch(() => {});
      await expect(openDirectory(folder.path)).rejects.toMatchObject({ code: "disk-full" });
    } finally {
      await run("umount", ["-l", folder.path]);
    }
  });

  test("a read-only file system", async ({ skip }) => {
    if (process.getuid?.() !== 0) return skip("a read-only file system can only be mounted by root");
    const mounted = await run("mount", ["-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", folder.path]).then(
      () => true,
      () => false,
    );
    if (!mounted) return skip("mount is not permitted here");
    try {
      await expect(openDurable(folder.path)).rejects.toMatchObject({
        code: "read-only",
        message: expect.stringContaining(`${folder.path} cannot be written to (its file system is mounted read-only)`),
      });
    } finally {
      await run("umount", ["-l", folder.path]);
    }
  });

  test("a folder that belongs to somebody else", async ({ skip }) => {
    if (process.getuid?.() === 0) {
      await chmod(folder.path, 0o755);
      const failed = await run(process.execPath, [...LOADER, join(folder.path, "theirs"), "1", "1"], {
        uid: 65534,
        gid: 65534,
      }).catch((error: { stderr: string }) => error);
      if (failed.stderr.includes("Cannot find")) return skip("the checkout cannot be read by another user");
      expect(failed.stderr).toContain("cannot be written to (permission denied)");
      return;
    }
    await chmod(folder.path, 0o555);
    await expect(openDurable(folder.path)).rejects.toMatchObject({ code: "read-only" });
  });
});

function bigger(n: number): Parameters<LocalDirectory["write"]>[0] {
  const key = `big/${n}`;
  return [
    {
      op: "put",
      table: "kv",
      key,
      value: { key, value: new Uint8Array(20_000).fill(n % 256), flags: 0n, lockIndex: 0 },
    },
  ];
}
