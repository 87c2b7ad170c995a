// A folder for links that is not there is named, with what to do, before anything is made.
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { afterEach, beforeEach, expect, it } from "vitest";
import { command } from "./link.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "link-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function link(...words: string[]): Promise<string> {
  let out = "";
  const parser = new Command().exitOverride();
  const io = { out: (text: string) => (out += text), err: () => {}, env: () => undefined, terminal: false };
  const rest = { stdin: async () => new Uint8Array(), signal: new AbortController().signal, close: () => {} };
  command.define(parser, { ...io, ...rest }, () => {});
  await parser.parseAsync(words, { from: "user" });
  return out;
}

it.each([[["consul"]], [["consul", "--remove"]], [[]]])("%j below a folder that is not there", async (words) => {
  const missing = join(folder, "bin");
  await expect(link(...words, "--dir", missing)).rejects.toThrow(
    `--dir: ${missing}: there is no such folder: name one that is in the PATH, or make it first (mkdir -p)`,
  );
  await writeFile(missing, "");
  await expect(link(...words, "--dir", missing)).rejects.toThrow(`--dir: ${missing}: this is no folder: `);
  expect(await readdir(folder)).toEqual(["bin"]);
});

it("shows what is in a folder that is there", async () => {
  expect(await link("--dir", folder)).toBe("");
});
