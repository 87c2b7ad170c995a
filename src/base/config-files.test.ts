// The rule for configuration files on a real folder: order, names, and what only looks like a file.
import { execFileSync } from "node:child_process";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { ownFolder } from "../../test/support/peers.ts";
import { configFiles } from "./config-files.ts";
import { systemDisk } from "./disk.ts";

let folder: Awaited<ReturnType<typeof ownFolder>>;
const at = (name: string): string => join(folder.path, name);
beforeEach(async () => {
  folder = await ownFolder("config-files");
});
afterEach(() => folder.remove());

it("takes *.json and *.hcl of a folder in lexical order, hidden and linked ones too, and nothing that is no file", async () => {
  for (const name of ["b.hcl", "a.json", "C.HCL", ".hidden.json", "notes.txt", "a.json~"])
    await writeFile(at(name), "");
  await mkdir(at("folder.json"));
  await writeFile(at("folder.json/inner.json"), "");
  await symlink(at("b.hcl"), at("linked.hcl"));
  await symlink(at("nowhere"), at(".#a.json"));
  await symlink(at("folder.json"), at("z.json"));
  execFileSync("mkfifo", [at("pipe.json")]);
  const expected = [".hidden.json", "C.HCL", "a.json", "b.hcl", "linked.hcl"].map(at);
  expect(await configFiles(folder.path, systemDisk)).toEqual(expected);
  expect(await configFiles(`${folder.path}//`, systemDisk)).toEqual(expected);
});

it("takes a file that is named whatever its name, and leaves to its reader what cannot be looked at", async () => {
  await writeFile(at("plain"), "");
  expect(await configFiles(at("plain"), systemDisk)).toEqual([at("plain")]);
  expect(await configFiles(at("missing"), systemDisk)).toBeUndefined();
  await symlink(at("loop.json"), at("loop.json"));
  expect(await configFiles(folder.path, systemDisk)).toEqual([at("loop.json")]);
  await expect(configFiles(at("loop.json"), systemDisk)).rejects.toThrow("ELOOP");
});
