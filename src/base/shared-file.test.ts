// A file that others replace: whom it is taken from, and what is seen of it afterwards.
import { chmod, chown, mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openShared } from "./shared-file.ts";

describe("a shared file", () => {
  let folder: string;
  let path: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "trilith-shared-"));
    path = join(folder, "table");
  });
  afterEach(() => rm(folder, { recursive: true }));

  it("is read whole, and shows later changes of its numbers and that another took its place", async () => {
    await writeFile(path, Buffer.from([1, 0, 0, 0, 0x78, 0x56, 0x34, 0x12]), { mode: 0o644 });
    const file = openShared(path);
    expect(Array.from(file?.bytes ?? [])).toEqual([1, 0, 0, 0, 0x78, 0x56, 0x34, 0x12]);
    expect(file?.u32At(4)).toBe(0x1234_5678);
    expect(file?.u32At(6)).toBeUndefined();
    await writeFile(path, Buffer.from([1, 0, 0, 0, 2, 0, 0, 0]), { flag: "r+" });
    expect(file?.u32At(4)).toBe(2);
    expect(file?.isReplaced()).toBe(false);
    await writeFile(join(folder, "next"), "");
    await rename(join(folder, "next"), path);
    expect(file?.isReplaced()).toBe(true);
    expect(file?.u32At(4)).toBe(2);
    await rm(path);
    expect(file?.isReplaced()).toBe(true);
    file?.close();
    expect(file?.u32At(4)).toBeUndefined();
  });

  it("is not taken where it is none, or where others may write to it", async () => {
    expect(openShared(path)).toBeUndefined();
    await mkdir(path);
    expect(openShared(path)).toBeUndefined();
    await rm(path, { recursive: true });
    for (const mode of [0o664, 0o646, 0o666]) {
      await writeFile(path, "text");
      await chmod(path, mode);
      expect(openShared(path)).toBeUndefined();
    }
    await chmod(path, 0o644);
    await symlink(path, join(folder, "link"));
    const linked = openShared(join(folder, "link"));
    expect(Buffer.from(linked?.bytes ?? []).toString()).toBe("text");
    linked?.close();
  });

  it.runIf(process.getuid?.() === 0)("is not taken from another user", async () => {
    await writeFile(path, "text", { mode: 0o644 });
    await chown(path, 12_345, 12_345);
    expect(openShared(path)).toBeUndefined();
  });
});
