// A user's counter file on a real disk: made whole, trusted only where it is this user's alone, and missed when it is gone.
import { chmod, mkdir, readdir, rename, rm, symlink, truncate, unlink } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ownFolder } from "../../test/support/peers.ts";
import { type CounterFile, openCounterFile } from "./counter-file.ts";

describe("a counter file", () => {
  const name = String(process.geteuid?.());
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let path = "";
  const opened: CounterFile[] = [];
  const open = (): CounterFile | undefined => {
    const file = openCounterFile(folder.path, 4_096, Buffer.from("HEAD"));
    if (file !== undefined) opened.push(file);
    return file;
  };
  beforeEach(async () => {
    folder = await ownFolder("counter-file");
    path = join(folder.path, name);
  });
  afterEach(async () => {
    for (const file of opened.splice(0)) file.close();
    await folder.remove();
  });

  it("is made whole by the first, found by the second, and both see what either writes", async () => {
    const [one, two] = [open(), open()];
    const bytes = Buffer.alloc(8);
    expect(one?.write(100, Buffer.from("word"))).toBe(true);
    expect(two?.read(96, bytes)).toBe(true);
    expect(bytes.toString("latin1")).toBe("\0\0\0\0word");
    expect([two?.read(0, bytes), bytes.toString("latin1", 0, 4)]).toEqual([true, "HEAD"]);
    expect(two?.read(4_090, bytes)).toBe(false);
    expect(await readdir(folder.path)).toEqual([name]);
  });

  it("is missed when it is gone, when another one has its name, and with its folder", async () => {
    const first = open();
    expect(first?.isReplaced()).toBe(false);
    await rename(path, `${path}.away`);
    expect(first?.isReplaced()).toBe(true);
    const second = open();
    expect([first?.isReplaced(), second?.isReplaced()]).toEqual([true, false]);
    await rm(folder.path, { recursive: true });
    expect(second?.isReplaced()).toBe(true);
    expect(open()).toBeUndefined();
    await mkdir(folder.path);
    expect(open()?.isReplaced()).toBe(false);
  });

  it("is not used where others may write to it, or it is a link or of another size", async () => {
    open();
    await chmod(path, 0o620);
    expect(open()).toBeUndefined();
    await chmod(path, 0o600);
    expect(open()).toBeDefined();
    await rename(path, `${path}.away`);
    await symlink(`${path}.away`, path);
    expect(open()).toBeUndefined();
    await unlink(path);
    open();
    await truncate(path, 4_000);
    expect(open()).toBeUndefined();
  });
});
