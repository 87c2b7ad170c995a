// Temporary folders: what processes left that were killed is removed, what lives, is used, is young or is not surely ours stays, and no link leads anywhere.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { access, chmod, mkdir, mkdtemp, readdir, rm, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type FolderLock, lockFolder } from "./lock.ts";
import { keptFromOthers, makeOpenFolder } from "./mapped-file.ts";
import { makeTemporaryFolder, removeTemporaryFolder, sweepTemporaryFolders } from "./temporary-folder.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "temporary-"));
  vi.stubEnv("TMPDIR", root);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(root, { recursive: true, force: true });
});

const later = (): number => Date.now() + 120_000;
const sweep = (nowMs = later()): Promise<readonly string[]> => sweepTemporaryFolders("hook", nowMs);
/** A folder as an agent has it. */
async function make(): Promise<string> {
  const path = await makeTemporaryFolder("hook");
  await writeFile(join(path, "table"), "x");
  await makeOpenFolder(join(path, "observed"));
  await writeFile(join(path, "observed", "0"), "x");
  return path;
}
const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

describe("a temporary folder", () => {
  test("may be entered by everybody, and is removed whole", async () => {
    const path = await make();
    expect((await stat(path)).mode & 0o777).toBe(0o755);
    expect((await keptFromOthers(join(path, "table")))?.path).not.toBe(path);
    expect(await removeTemporaryFolder(path)).toBe(true);
    expect(await readdir(root)).toEqual([]);
    expect(await removeTemporaryFolder(path)).toBe(true);
  });

  test("leads nobody elsewhere who removes it", async () => {
    const path = await make();
    await mkdir(join(root, "precious"));
    await writeFile(join(root, "precious", "file"), "x");
    await symlink(join(root, "precious"), join(path, "observed", "link"));
    await symlink(join(root, "precious"), join(path, "link"));
    expect(await removeTemporaryFolder(path)).toBe(true);
    expect(await readdir(join(root, "precious"))).toEqual(["file"]);
    // Folders that others made within are theirs to remove.
    const other = await make();
    await mkdir(join(other, "observed", "theirs"));
    await writeFile(join(other, "observed", "theirs", "file"), "x");
    expect(await removeTemporaryFolder(other)).toBe(false);
    expect(await isThere(join(other, "observed", "theirs", "file"))).toBe(true);
  });

  test("that was left behind is swept away, one that is locked, young, used or odd is not", async () => {
    const dead = await make();
    await writeFile(join(dead, "trilith.lock.1.abcd"), "");
    expect(await sweep(Date.now())).toEqual([]);
    const living = await make();
    const lock: FolderLock = await lockFolder(living);
    const used = await make();
    const child: ChildProcess = spawn("sleep", ["1000"], {
      env: { ...process.env, TRILITH_HOOK_TABLE: `${used}/table` },
    });
    await once(child, "spawn");
    try {
      const open = await make();
      await chmod(open, 0o777);
      await mkdir(join(root, "precious"));
      await symlink(join(root, "precious"), join(root, "hook-abcdef"));
      await writeFile(join(root, "hook-ABCDEF"), "");
      await mkdir(join(root, "hook-longer-name"));
      await mkdir(join(root, "other-abcdef"));
      expect(await sweep()).toEqual([dead]);
      for (const path of [living, used, open]) expect(await isThere(join(path, "table")), path).toBe(true);
      expect((await readdir(root)).sort()).toEqual(
        [living, used, open, "precious", "hook-abcdef", "hook-ABCDEF", "hook-longer-name", "other-abcdef"]
          .map((path) => path.replace(`${root}/`, ""))
          .sort(),
      );
    } finally {
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
      await lock.release();
    }
    expect([...(await sweep())].sort()).toEqual([living, used].sort());
  });

  test("is left alone where others may rename it", async () => {
    const path = await make();
    await chmod(root, 0o777);
    expect(await sweep()).toEqual([]);
    await chmod(root, 0o1777);
    await utimes(path, new Date(), new Date());
    expect(await sweep()).toEqual([path]);
  });
});
