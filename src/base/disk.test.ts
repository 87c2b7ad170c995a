// The system's disk: files that are replaced whole.
import { readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { afterEach, expect, it } from "vitest";
import { ownFolder } from "../../test/support/peers.ts";
import { systemDisk } from "./disk.ts";

let folder: Awaited<ReturnType<typeof ownFolder>> | undefined;
afterEach(async () => await folder?.remove());

it("replaces a file many times at once: it is one of them, whole, and nothing is left beside it", async () => {
  folder = await ownFolder("disk");
  const path = `${folder.path}/state.json`;
  const texts = Array.from({ length: 20 }, (_, i) => String(i).repeat(10_000));
  await Promise.all(texts.map((text) => systemDisk.replace(path, text, 0o600)));
  expect(texts).toContain(await readFile(path, "utf8"));
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect(await readdir(folder.path)).toEqual(["state.json"]);
});

it("follows no link that lies where it writes, and takes over nobody's rights", async () => {
  folder = await ownFolder("disk");
  const path = `${folder.path}/state.json`;
  await writeFile(`${folder.path}/other`, "untouched");
  for (let i = 0; i < 200; i++) await symlink("other", `${path}.${process.pid}.${i}.tmp`);
  await systemDisk.replace(path, "new", 0o600);
  expect(await readFile(`${folder.path}/other`, "utf8")).toBe("untouched");
  expect(await readFile(path, "utf8")).toBe("new");
  expect((await stat(path)).isFile() && (await stat(path)).mode & 0o777).toBe(0o600);
});

it("names the file that was meant where it fails, each time in the same words", async () => {
  folder = await ownFolder("disk");
  const path = `${folder.path}/none/hosts`;
  for (let i = 0; i < 2; i++)
    await expect(systemDisk.replace(path, "new")).rejects.toMatchObject({
      code: "ENOENT",
      message: `ENOENT: no such file or directory, open '${path}'`,
    });
});

it("leaves nothing behind where it fails", async () => {
  folder = await ownFolder("disk");
  await systemDisk.makeFolder(`${folder.path}/taken`);
  await writeFile(`${folder.path}/taken/file`, "");
  const { path } = folder;
  await expect(systemDisk.replace(`${path}/taken`, "new")).rejects.toThrow(`rename '${path}/taken' -> '${path}/taken'`);
  expect(await readdir(path)).toEqual(["taken"]);
});

it("puts other content into the same file, and touches nothing before where it differs, nor a file that has changed", async () => {
  folder = await ownFolder("disk");
  const path = `${folder.path}/hosts`;
  const own = "127.0.0.1 localhost\n";
  await writeFile(path, own);
  const { ino } = await stat(path);
  let now = own;
  for (const rest of [
    "10.0.0.1 web\n",
    "",
    "10.0.0.1 web\n10.0.0.2 db\n",
    "10.0.0.1 web\n",
    `${"x".repeat(100_000)}\n`,
    "é\n",
  ]) {
    expect(await systemDisk.overwrite(path, own + rest, now)).toBe(true);
    now = own + rest;
    expect(await readFile(path, "utf8")).toBe(now);
  }
  expect((await stat(path)).ino).toBe(ino);
  expect(await systemDisk.overwrite(path, "mine", "what it was once")).toBe(false);
  expect(await readFile(path, "utf8")).toBe(now);
  await expect(systemDisk.overwrite(`${folder.path}/none`, "", "")).rejects.toMatchObject({ code: "ENOENT" });
});
