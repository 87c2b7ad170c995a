// Files that are mapped: replaced as a whole, the earlier one marked for those who hold it, also after a crash half-way; folders that can be trusted.
import { execFileSync } from "node:child_process";
import { watch } from "node:fs";
import { chmod, link, mkdir, mkdtemp, open, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { keptFromOthers, makeOpenFolder, makeTrustedFolder, mappedFile, readForeignFile } from "./mapped-file.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "mapped-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const bytes = (fill: number): Buffer => Buffer.alloc(64, fill);
const make = () => mappedFile(join(folder, "table"), { at: 48, value: 1 });

describe("a mapped file", () => {
  test("whoever holds the earlier one finds the mark in it, and nothing else changed", async () => {
    const file = make();
    expect(await file.read(100)).toBeUndefined();
    await file.replace(bytes(1));
    const held = await open(file.path, "r");
    try {
      await file.replace(bytes(2));
      const seen = await held.readFile();
      expect(seen.readUInt32LE(48)).toBe(1);
      expect([...seen.subarray(0, 48), ...seen.subarray(52)].every((byte) => byte === 1)).toBe(true);
    } finally {
      await held.close();
    }
    expect(Buffer.from((await file.read(100))!)).toEqual(bytes(2));
    expect(await readdir(folder)).toEqual(["table"]);
    expect((await stat(file.path)).mode & 0o777).toBe(0o644);
  });

  test("the earlier one has a second name while the new one takes its place, so that a crash leaves it to be found", async () => {
    const file = make();
    await file.replace(bytes(1));
    const names: string[] = [];
    const watcher = watch(folder, (_event, name) => void names.push(name ?? ""));
    try {
      await file.replace(bytes(2));
      await vi.waitFor(() => {
        expect(names).toContain("table.old");
        expect(names.indexOf("table.old")).toBeLessThan(names.lastIndexOf("table"));
      }, 10_000);
    } finally {
      watcher.close();
    }
  });

  test("what a crash left is marked and taken away", async () => {
    const file = make();
    await file.replace(bytes(1));
    const held = await open(file.path, "r");
    try {
      // A crash after the new file took its place, before the earlier one was marked.
      await link(file.path, `${file.path}.old`);
      await rm(file.path);
      await writeFile(file.path, bytes(2));
      await writeFile(`${file.path}.next`, "half of a th");
      await file.recover();
      expect((await held.readFile()).readUInt32LE(48)).toBe(1);
    } finally {
      await held.close();
    }
    expect(await readdir(folder)).toEqual(["table"]);
    expect((await readFile(file.path)).equals(bytes(2))).toBe(true);
  });

  test("taken away it is marked, too", async () => {
    const file = make();
    await file.remove();
    await file.replace(bytes(1));
    const held = await open(file.path, "r");
    try {
      await file.remove();
      expect((await held.readFile()).readUInt32LE(48)).toBe(1);
    } finally {
      await held.close();
    }
    expect(await readdir(folder)).toEqual([]);
  });

  test("links, folders and short files in its place are left as they are", async () => {
    const file = make();
    await writeFile(join(folder, "other"), bytes(7));
    await symlink("other", file.path);
    await expect(file.replace(bytes(1))).rejects.toThrow(/table is not a file of this program's/);
    await expect(file.read(100)).rejects.toThrow(/not a file of this program's/);
    expect(await readFile(join(folder, "other"))).toEqual(bytes(7));
    await rm(file.path);
    await mkdir(file.path);
    await expect(file.replace(bytes(1))).rejects.toThrow();
    expect(await readdir(folder)).toEqual(["other", "table"]);
    await rm(file.path, { recursive: true });
    await writeFile(file.path, "short");
    const held = await open(file.path, "r");
    try {
      await file.replace(bytes(1));
      expect((await held.readFile()).toString()).toBe("short");
    } finally {
      await held.close();
    }
    await expect(file.read(10)).rejects.toThrow(/not a file/);
  });
});

describe("folders", () => {
  test("those that others may write to are not trusted, unless what is in them is safe", async () => {
    const path = join(folder, "a", "b");
    await makeTrustedFolder(path);
    expect((await stat(path)).mode & 0o777).toBe(0o755);
    await writeFile(join(folder, "file"), "");
    for (const no of ["file", "file/below"])
      await expect(makeTrustedFolder(join(folder, no))).rejects.toThrow(/not a folder is in the place of .*file/);
    await chmod(path, 0o777);
    await expect(makeTrustedFolder(path)).rejects.toThrow(/can be written to by others/);
    await chmod(path, 0o1777);
    await makeTrustedFolder(path);
    await chmod(path, 0o700);
    await makeTrustedFolder(path);
    expect((await stat(path)).mode & 0o777).toBe(0o755);
    await chmod(path, 0o700);
    const { uid, gid } = await stat(path);
    expect(await keptFromOthers(join(path, "table"))).toEqual({ path, uid, gid: undefined, mode: 0o700 });
    await chmod(path, 0o750);
    expect(await keptFromOthers(join(path, "table"))).toEqual({ path, uid, gid, mode: 0o750 });
    await chmod(path, 0o755);
    expect((await keptFromOthers(join(path, "table")))?.path).not.toBe(path);
  });

  test("a folder for everybody is one, and nothing else is taken for it", async () => {
    const path = join(folder, "observed");
    await makeOpenFolder(path);
    await makeOpenFolder(path);
    expect((await stat(path)).mode & 0o7777).toBe(0o1777);
    await rm(path, { recursive: true });
    await symlink(folder, path);
    await expect(makeOpenFolder(path)).rejects.toThrow(/is not a folder of user/);
  });
});

describe("files of others", () => {
  test("are read only where they are files of the user and size expected", async () => {
    const path = join(folder, "1000");
    const uid = process.getuid?.() ?? -1;
    expect(await readForeignFile(path, uid, 64)).toBeUndefined();
    await writeFile(path, bytes(3));
    expect(await readForeignFile(path, uid, 64)).toEqual(bytes(3));
    expect(await readForeignFile(path, uid, 63)).toBeUndefined();
    expect(await readForeignFile(path, uid + 1, 64)).toBeUndefined();
    await symlink(path, join(folder, "link"));
    expect(await readForeignFile(join(folder, "link"), uid, 64)).toBeUndefined();
    execFileSync("mkfifo", [join(folder, "pipe")]);
    expect(await readForeignFile(join(folder, "pipe"), uid, 64)).toBeUndefined();
    expect(await readForeignFile(folder, uid, 64)).toBeUndefined();
  });
});
