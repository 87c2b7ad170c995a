// Which counter files are forgotten: on a real folder, with the programs' own format.
import { lutimes, mkdir, readdir, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ownFolder } from "../../../test/support/peers.ts";
import { readForeignFile, removeForeignFile } from "../../base/mapped-file.ts";
import { encodeObserved, type SeenBlock } from "../../wire/hook-observed.ts";
import { clearForgotten, FORGET_MS } from "./forgotten.ts";

let folder: Awaited<ReturnType<typeof ownFolder>>;
beforeEach(async () => {
  folder = await ownFolder("forgotten");
});
afterEach(() => folder.remove());

const uid = process.geteuid?.() ?? 0;
const HOUR_MS = 3_600_000;
const block = (place: number, pid: number, lastUsedMs: number): SeenBlock => ({
  ...{ place, pid, uid, startTicks: 1, namespace: 1, lastUsedMs },
  entries: new Map(),
});
/** The kernel's note of a change cannot be set back: the agent's clock is ahead instead. */
const clear = (aheadMs: number, living: readonly number[] = []): Promise<readonly string[]> =>
  clearForgotten(folder.path, {
    now: () => Date.now() + aheadMs,
    disk: { list: readdir },
    read: readForeignFile,
    remove: removeForeignFile,
    isAlive: (pid) => living.includes(pid),
  });

test("those that nobody used for a week go, with nobody alive who could use them", async () => {
  const path = join(folder.path, String(uid));
  const put = (...blocks: readonly SeenBlock[]): Promise<void> => writeFile(path, encodeObserved(blocks));
  const now = Date.now();
  await put(block(0, 100, now), block(5, 101, now - FORGET_MS));
  expect(await clear(FORGET_MS - HOUR_MS)).toEqual([]);
  expect(await clear(FORGET_MS + HOUR_MS, [101])).toEqual([]);
  expect(await clear(FORGET_MS + HOUR_MS)).toEqual([path]);
  // Used lately, though the file's own times say nothing of that.
  await put(block(0, 100, now + 2 * HOUR_MS));
  expect(await clear(FORGET_MS + HOUR_MS)).toEqual([]);
  // Just made, and not used yet.
  await put();
  expect(await clear(HOUR_MS)).toEqual([]);
  expect(await clear(FORGET_MS + HOUR_MS)).toEqual([path]);
  expect(await readdir(folder.path)).toEqual([]);
});

test("what makers left half-made goes after an hour; other files, links' targets and folders stay", async () => {
  const half = `.${uid}.4711.1a2b`;
  const elsewhere = await ownFolder("forgotten-elsewhere");
  try {
    const kept = join(elsewhere.path, "kept");
    await writeFile(kept, "");
    await writeFile(join(folder.path, half), "");
    await writeFile(join(folder.path, "notes"), "");
    await writeFile(join(folder.path, String(uid)), "something else");
    await mkdir(join(folder.path, `.${uid}.1.1`));
    await symlink(kept, join(folder.path, `.${uid}.2.2`));
    await utimes(join(folder.path, half), 1, 1);
    await lutimes(join(folder.path, `.${uid}.2.2`), 1, 1);
    expect(await clear(0)).toEqual([]);
    expect(await clear(HOUR_MS - 60_000)).toEqual([]);
    expect((await clear(HOUR_MS + 60_000)).map((path) => path.slice(folder.path.length + 1)).sort()).toEqual([
      `.${uid}.2.2`,
      half,
    ]);
    await writeFile(join(folder.path, half), "");
    await symlink(kept, join(folder.path, `.${uid}.2.2`));
    expect((await clear(2 * FORGET_MS)).map((path) => path.slice(folder.path.length + 1)).sort()).toEqual([
      `.${uid}.2.2`,
      half,
    ]);
    expect((await readdir(folder.path)).sort()).toEqual([`.${uid}.1.1`, String(uid), "notes"]);
    expect(await readdir(elsewhere.path)).toEqual(["kept"]);
  } finally {
    await elsewhere.remove();
    await rm(folder.path, { recursive: true, force: true });
  }
});
