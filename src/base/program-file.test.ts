// Where commands are found, and what their files say.
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { findProgram } from "./program-file.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "programs-"));
  for (const name of ["one", "two"]) await mkdir(join(folder, name));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test("a command is the first executable file of its name on the path", async () => {
  const [one, two] = [join(folder, "one"), join(folder, "two")];
  const path = `${join(folder, "none")}:${one}:${two}`;
  await writeFile(join(one, "tool"), "not executable", { mode: 0o644 });
  await mkdir(join(one, "other"));
  for (const name of ["tool", "other"]) await writeFile(join(two, name), `#!/bin/${name}`, { mode: 0o755 });
  // Root may read everything, but execute only what somebody may execute.
  expect((await findProgram("tool", path))?.path).toBe(join(two, "tool"));
  expect((await findProgram("other", path))?.path).toBe(join(two, "other"));
  expect(await findProgram("nothing", path)).toBeUndefined();
  expect(await findProgram(join(one, "tool"), path)).toBeUndefined();
  expect((await findProgram(join(two, "tool"), undefined))?.path).toBe(join(two, "tool"));
  expect((await findProgram("sh", undefined))?.path).toMatch(/\/sh$/);
  const found = await findProgram("tool", path);
  expect(Buffer.from(await found!.read(2, 100)).toString()).toBe("/bin/tool");
});

test("a file that changes its user is told, where that is another one", async () => {
  const file = join(folder, "tool");
  await writeFile(file, "x", { mode: 0o755 });
  expect((await findProgram(file, undefined))?.changesUser).toBe(false);
  await chmod(file, 0o4755);
  // It is this user's own.
  expect((await findProgram(file, undefined))?.changesUser).toBe(false);
});
