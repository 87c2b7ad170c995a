// The hook's library: compiled once for many askers, anew when its sources change; what is missing is told with what to install.
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { hookLibrary, type Libc, lastingLibrary } from "./native-build.ts";
import type { Finished } from "./process.ts";

let folder: string;
let native: string;
let cache: string;
let env: Record<string, string | undefined>;
let ran: string[];
/** What the compilers say that they make programs for; absent = there is no such compiler. */
let compilers: Record<string, string>;
let fails: string | undefined;
/** The libraries that living processes have, by their file names. */
let used: string[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "native-"));
  native = join(folder, "native");
  cache = join(folder, "cache");
  await mkdir(native);
  await writeFile(join(native, "libtrilith.c"), "int one;");
  env = { XDG_CACHE_HOME: cache };
  ran = [];
  compilers = { cc: "x86_64-linux-gnu\n" };
  fails = undefined;
  used = [];
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const said = (output: string, exitCode = 0): Finished => ({
  exitCode,
  signal: null,
  output: Buffer.from(output),
  totalBytes: output.length,
});
const build = (libc: Libc = "glibc"): Promise<string> =>
  hookLibrary(libc, {
    native,
    arch: "x64",
    named: async (paths) => new Set(paths.filter((path) => used.some((name) => path.endsWith(name)))),
    processes: {
      env: (name) => env[name],
      async run([name = "", ...words]) {
        if (words[0] === "-dumpmachine") {
          const machine = compilers[name];
          if (machine === undefined) throw Object.assign(new Error("ENOENT"), { code: "ENOENT" });
          return said(machine);
        }
        ran.push(name);
        if (fails !== undefined) return said(fails, 1);
        await copyFile(join(native, "libtrilith.c"), words[words.indexOf("-o") + 1] as string);
        return said("");
      },
    },
  });

describe("the library", () => {
  test("is compiled once, however many ask, and anew when its sources or the compiler are others", async () => {
    const paths = await Promise.all([build(), build(), build()]);
    expect(new Set(paths).size).toBe(1);
    expect(paths[0]).toMatch(/cache\/trilith\/libtrilith-glibc-[0-9a-f]{20}\.so$/);
    const count = ran.length;
    expect(await build()).toBe(paths[0]);
    expect(ran).toHaveLength(count);
    await writeFile(join(native, "table.h"), "#define X");
    const other = await build();
    expect(other).not.toBe(paths[0]);
    env["CC"] = "gcc -m32";
    expect(await build()).not.toBe(other);
    expect(ran.at(-1)).toBe("gcc");
    // Nothing half-made is left.
    expect((await readdir(join(cache, "trilith"))).every((name) => name.startsWith("libtrilith-"))).toBe(true);
    expect((await stat(join(cache, "trilith"))).mode & 0o022).toBe(0);
  });

  test("that is there needs no compiler, also where root or an earlier compiler made it", async () => {
    const path = await build();
    compilers = {};
    expect(await build()).toBe(path);
    compilers = { gcc: "x86_64-linux-gnu\n" };
    expect(await build()).toBe(path);
    expect(ran).toHaveLength(1);
    // One compiled by the compiler that is named counts as long as that is named.
    env["CC"] = "tcc";
    const named = await build();
    expect([named === path, ran.at(-1)]).toEqual([false, "tcc"]);
    const old = new Date(Date.now() - 3 * 86_400_000);
    await utimes(path, old, old);
    env["CC"] = "";
    expect(await build()).toBe(path);
    // That it was asked for is noted.
    expect(Date.now() - (await stat(path)).mtimeMs).toBeLessThan(60_000);
  });

  test("of earlier versions goes when nobody has it and nobody asked for it for a month", async () => {
    const name = (digit: string, rest = ""): string => `libtrilith-glibc-${digit.repeat(20)}.so${rest}`;
    const at = (file: string): string => join(cache, "trilith", file);
    const day = 86_400_000;
    const put = async (file: string, ageMs: number): Promise<void> => {
      const when = new Date(Date.now() - ageMs);
      await writeFile(at(file), "x");
      await utimes(at(file), when, when);
    };
    const first = await build();
    await put(name("1"), 31 * day);
    await put(name("2"), 29 * day);
    await put(name("3"), 400 * day);
    await put(`.${name("4", `.${"0".repeat(8)}-0000-0000-0000-${"0".repeat(12)}`)}`, 31 * day);
    await put(`libtrilith-glibc.so.${"0".repeat(8)}-0000-0000-0000-${"0".repeat(12)}`, 31 * day);
    await put("libtrilith-glibc.so", 400 * day);
    await put("notes.txt", 400 * day);
    await writeFile(join(folder, "precious"), "x");
    await symlink(join(folder, "precious"), at(name("5")));
    used = [name("3")];
    await build();
    expect(await readdir(join(cache, "trilith"))).toHaveLength(9);
    await writeFile(join(native, "libtrilith.c"), "int two;");
    const second = await build();
    expect((await readdir(join(cache, "trilith"))).sort()).toEqual(
      [first, second, name("2"), name("3"), name("5"), "libtrilith-glibc.so", "notes.txt"]
        .map((path) => path.replace(/.*\//, ""))
        .sort(),
    );
    used = [];
    await writeFile(join(native, "libtrilith.c"), "int three;");
    await build();
    expect(await readdir(join(cache, "trilith"))).not.toContain(name("3"));
  });

  test("has a name that stays, and that leads to the newest one", async () => {
    const lasting = await lastingLibrary(await build());
    expect(lasting).toBe(join(cache, "trilith", "libtrilith-glibc.so"));
    expect(await lastingLibrary(await build())).toBe(lasting);
    expect(await readFile(lasting, "utf8")).toBe("int one;");
    await writeFile(join(native, "libtrilith.c"), "int two;");
    await build();
    expect(await readFile(lasting, "utf8")).toBe("int two;");
    expect(
      (await readdir(join(cache, "trilith"))).filter((name) => !/^libtrilith-glibc(-.*)?\.so$/.test(name)),
    ).toEqual([]);
    expect(await lastingLibrary("/elsewhere/libtrilith.so")).toBe("/elsewhere/libtrilith.so");
    expect(await lastingLibrary(`/elsewhere/libtrilith-musl-${"0".repeat(20)}.so`)).toMatch(/0\.so$/);
  });

  test("that was shipped is taken as it is", async () => {
    const shipped = join(native, "prebuilt", "linux-x64-musl");
    await mkdir(shipped, { recursive: true });
    await writeFile(join(shipped, "libtrilith.so"), "");
    expect(await build("musl")).toBe(join(shipped, "libtrilith.so"));
    expect(ran).toEqual([]);
  });

  test("for musl is made by a compiler for musl only", async () => {
    await expect(build("musl")).rejects.toThrow(/no C compiler here for programs of musl.*apt install musl-tools/);
    compilers["musl-gcc"] = "x86_64-linux-gnu\n";
    await build("musl");
    expect(ran).toEqual(["musl-gcc"]);
    compilers = { cc: "x86_64-alpine-linux-musl\n" };
    await writeFile(join(native, "a.h"), "");
    await build("musl");
    expect(ran.at(-1)).toBe("cc");
    await expect(build("glibc")).rejects.toThrow(
      /there is no C compiler here to make the hook's library with: install one: apt install gcc libc6-dev/,
    );
  });

  test("that cannot be compiled says what the compiler says, and leaves nothing", async () => {
    fails = "libtrilith.c:1: fatal error: stdio.h: No such file or directory";
    await expect(build()).rejects.toThrow(/could not be compiled \(cc\).*libc6-dev.*\n.*stdio\.h/s);
    expect(await readdir(join(cache, "trilith"))).toEqual([]);
  });

  test("is not kept where others could change it, or where LD_PRELOAD could not name it", async () => {
    env = { XDG_CACHE_HOME: join(folder, "a b"), TMPDIR: folder };
    const path = await build();
    expect(path).not.toContain(" ");
    await rm(path);
    env = { XDG_CACHE_HOME: cache };
    await mkdir(join(cache, "trilith"), { recursive: true });
    await chmod(join(cache, "trilith"), 0o777);
    const elsewhere = await build();
    expect(elsewhere.startsWith(cache)).toBe(false);
    await rm(elsewhere);
    await chmod(join(cache, "trilith"), 0o700);
    const own = await build();
    await chmod(own, 0o666);
    await expect(build()).rejects.toThrow(/can be written to by others: remove it/);
  });
});
