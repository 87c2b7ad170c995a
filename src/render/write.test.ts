// One file on a real disk: nothing is touched without need, a check decides before, a command after, and rights stay.
import { chmod, lstat, mkdtemp, writeFile as put, readdir, readFile, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { systemClock } from "../base/clock.ts";
import { systemDisk } from "../base/disk.ts";
import { systemProcesses } from "../base/process.ts";
import { type FileRule, writeFile } from "./write.ts";

let folder = "";
const printed: string[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "trilith-render-"));
  printed.length = 0;
});
afterEach(() => rm(folder, { recursive: true }));
const machine = {
  clock: systemClock,
  disk: systemDisk,
  processes: systemProcesses,
  onOutput: (text: string) => void printed.push(text),
};
const at = (name: string): string => join(folder, name);
const write = (text: string, rule: Partial<FileRule> = {}, stop: AbortSignal = new AbortController().signal) =>
  writeFile({ path: at("out"), commandTimeoutMs: 5_000, makeFolders: true, ...rule }, text, machine, stop);
const text = (name = "out"): Promise<string> => readFile(at(name), "utf8");

it("writes what changed, keeps rights and links, and touches nothing else", async () => {
  const command = `echo ran >> ${at("log")}`;
  expect(await write("one", { command })).toBe(true);
  expect((await stat(at("out"))).mode & 0o777).toBe(0o644);
  await chmod(at("out"), 0o600);
  const before = await stat(at("out"));
  expect(await write("one", { command })).toBe(false);
  expect((await stat(at("out"))).ino).toBe(before.ino);
  await symlink(at("out"), at("link"));
  expect(await write("two", { command, path: at("link"), backup: true })).toBe(true);
  expect((await lstat(at("link"))).isSymbolicLink()).toBe(true);
  expect([await text(), await text("out.bak"), await text("log")]).toEqual(["two", "one", "ran\nran\n"]);
  expect((await stat(at("out"))).mode & 0o777).toBe(0o600);
  expect(await write("two", { mode: 0o640 })).toBe(true);
  expect((await stat(at("out"))).mode & 0o777).toBe(0o640);
  expect((await readdir(folder)).sort()).toEqual(["link", "log", "out", "out.bak"]);
  expect(await write("deep", { path: at("a/b/c") })).toBe(true);
  await expect(write("deep", { path: at("d/e"), makeFolders: false })).rejects.toThrow("ENOENT");
  await expect(write("x", { path: folder })).rejects.toThrow("is not a file");
});

it("leaves the file where the check does not take the new one, which it sees beside it", async () => {
  await put(at("out"), "good");
  const check = `grep -H good {} && test -s ${at("out")}`;
  await expect(write("bad", { check, command: `touch ${at("ran")}` })).rejects.toThrow(
    /stays as it was: .* exit status 1/,
  );
  expect(await readdir(folder)).toEqual(["out"]);
  expect(await text()).toBe("good");
  expect(await write("good too", { check })).toBe(true);
  expect(printed).toEqual([expect.stringContaining(".new:good too")]);
  expect(await readdir(folder)).toEqual(["out"]);
});

it("puts the former file back where the command fails, and runs it again", async () => {
  const command = `cat ${at("out")} >> ${at("log")}; grep -q good ${at("out")}`;
  await put(at("out"), "good\n");
  await expect(write("bad\n", { command })).rejects.toThrow(
    /failed: exit status 1; the former file is back, and with it the command went well/,
  );
  expect([await text(), await text("log")]).toEqual(["good\n", "bad\ngood\n"]);
  await rm(at("out"));
  await expect(write("bad\n", { command })).rejects.toThrow(
    /the new file is gone again, and with it the command failed, too/,
  );
  expect(await readdir(folder)).toEqual(["log"]);
});

it("ends a command that takes too long, and those that run when it is stopped", async () => {
  await expect(write("x", { command: "sleep 60", commandTimeoutMs: 50 })).rejects.toThrow("it took longer than 0.05 s");
  const stop = new AbortController();
  const writing = write("x", { command: `touch ${at("began")}; sleep 60` }, stop.signal);
  await expect.poll(() => systemDisk.info(at("began"))).toBeDefined();
  stop.abort(new Error("stopped"));
  await expect(writing).rejects.toThrow("stopped");
});

it("runs a command again that did not come to its end, and goes back to what was there before it", async () => {
  await put(at("out"), Buffer.from([0xff, 0x0a]));
  const pending = `${at(".out")}.pending`;
  const ended = async (command: string): Promise<void> => {
    const stop = new AbortController();
    await rm(at("began"), { force: true });
    const writing = write("new", { command: `touch ${at("began")}; ${command}` }, stop.signal);
    await expect.poll(() => systemDisk.info(at("began"))).toBeDefined();
    stop.abort(new Error("stopped"));
    await expect(writing).rejects.toThrow("stopped");
  };
  await ended("sleep 60");
  expect([await text(), (await stat(pending)).mode & 0o777]).toEqual(["new", 0o600]);
  expect(await write("new", { command: `cp ${at("out")} ${at("log")}` })).toBe(true);
  expect(await text("log")).toBe("new");
  expect(await write("new", { command: "false" })).toBe(false);

  await put(at("out"), Buffer.from([0xff, 0x0a]));
  await ended("sleep 60");
  await ended("sleep 60");
  await expect(write("newer", { command: "false" })).rejects.toThrow("the former file is back");
  // Byte for byte, whatever it is written in.
  expect([...(await readFile(at("out")))]).toEqual([0xff, 0x0a]);
  expect(await systemDisk.info(pending)).toBeUndefined();
});

it("gives the mode that is asked for whatever the umask says, and keeps the one that is there", async () => {
  expect(await write("one", { mode: 0o666 })).toBe(true);
  expect((await stat(at("out"))).mode & 0o777).toBe(0o666);
  expect(await write("one", { mode: 0o666, command: "false" })).toBe(false);
  expect(await write("two")).toBe(true);
  expect((await stat(at("out"))).mode & 0o777).toBe(0o666);
});

it("does not wait for what a command leaves running", async () => {
  const command = `(echo $$ > ${at("pid")}; exec sleep 30) & echo started`;
  expect(await write("x", { command, commandTimeoutMs: 10_000 })).toBe(true);
  await expect.poll(() => text("pid").catch(() => ""), { timeout: 5_000 }).toMatch(/^\d+\n/);
  const group = Number(await text("pid"));
  expect(() => process.kill(-group, 0)).not.toThrow();
  process.kill(-group, "SIGKILL");
  expect(printed).toContain("started");
});
