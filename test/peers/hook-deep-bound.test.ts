// Libraries that a program opens with RTLD_DEEPBIND take their functions from libc: the hook reaches them all the same, and no other library is found than without it.
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { hookTable } from "../support/hook-table.ts";
import { havePrograms } from "../support/peers.ts";

const run = promisify(execFile);
const native = resolve(import.meta.dirname, "../../native");
const here = await havePrograms("cc", "aarch64-linux-gnu-gcc", "qemu-aarch64");

interface Machine {
  readonly compiler: string;
  /** The words before a program that is to have the library, and the variables for it. */
  started(preload: string | undefined): { words: readonly string[]; env: Readonly<Record<string, string>> };
}

const MACHINES: Readonly<Record<string, Machine>> = {
  x64: {
    compiler: "cc",
    started: (preload) => ({ words: [], env: preload === undefined ? {} : { LD_PRELOAD: preload } }),
  },
  "arm64 by emulation": {
    compiler: "aarch64-linux-gnu-gcc",
    started: (preload) => ({
      words: [
        ...["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
        ...(preload === undefined ? [] : ["-E", `LD_PRELOAD=${preload}`]),
      ],
      env: {},
    }),
  },
};

/** How a library's tables come to be filled and sealed. */
const LINKED: Readonly<Record<string, readonly string[]>> = {
  "all at once, and sealed": ["-Wl,-z,now", "-Wl,-z,relro"],
  "when called": ["-Wl,-z,lazy", "-Wl,-z,relro"],
  "when called, never sealed": ["-Wl,-z,lazy", "-Wl,-z,norelro"],
  "without stubs": ["-fno-plt"],
  "without libc, which the program has": ["-nostdlib"],
  "with addresses in its text": ["-DIN_ITS_TEXT", "-Wl,-z,notext", "-Wl,-z,lazy"],
};

describe.runIf(here).each(Object.entries(MACHINES))("%s", (_name, { compiler, started }) => {
  let folder = "";
  let preload = "";
  let program = "";
  let table: ReturnType<typeof hookTable>;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "trilith-deep-"));
    preload = join(folder, "libtrilith.so");
    program = join(folder, "deep");
    const source = join(native, "libtrilith.c");
    // What is beside the hook is not beside the program.
    const path = (name: string): string => `-Wl,--enable-new-dtags,-rpath,$ORIGIN/${name}`;
    await run(compiler, ["-shared", "-fPIC", "-O2", "-pthread", "-o", preload, source, path("decoys"), "-ldl"]);
    for (const place of ["beside", "decoys"]) {
      await mkdir(join(folder, place));
      for (const name of ["libbeside.so", "libdeeply.so"]) await library(join(folder, place, name));
    }
    await run(compiler, ["-O1", "-Wl,-z,lazy", "-o", program, join(native, "test/deep.c"), path("beside"), "-ldl"]);
    table = hookTable(join(folder, "table/table"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const library = (path: string, ...flags: string[]): Promise<unknown> =>
    run(compiler, ["-shared", "-fPIC", "-O2", ...flags, "-o", path, join(native, "test/deep-library.c")]);

  /** What the program says of a library, under the hook or without it. */
  async function opened(path: string, when: "lazy" | "now", name: string, preloaded?: string): Promise<string> {
    const { words, env } = started(preloaded);
    const [first = "", ...more] = [...words, program, path, when, name, "80"];
    const variables = { ...process.env, ...env, TRILITH_HOOK_TABLE: table.path };
    return (await run(first, more, { env: variables, timeout: 60_000 })).stdout;
  }

  async function backend(): Promise<number> {
    const server = createServer((socket) => socket.end());
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    onTestFinished(() => void server.close());
    return (server.address() as AddressInfo).port;
  }

  it.each(Object.entries(LINKED))("a library linked %s reaches services", async (name, flags) => {
    const path = join(folder, `${name.replaceAll(/\W/g, "-")}.so`);
    await library(path, ...flags);
    const port = await backend();
    await table.put([{ name: "web", ports: [port] }]);
    for (const when of ["lazy", "now"] as const) {
      const said = await opened(path, when, "web.service.consul", preload);
      expect(said.match(/^reached: .*$/gm), said).toEqual(Array.from({ length: 3 }, () => `reached: ${port}`));
      expect(said).toContain("error: none");
      // What is not hooked is as it was, search paths, errors and the library's pages among it.
      const strip = (text: string): string => text.replaceAll(/^reached: .*$/gm, "");
      const plain = await opened(path, when, "127.0.0.1");
      expect(plain).toMatch(/^beside: .*\/beside\/lib.*\nbeside, deep: .*\/beside\/lib/);
      expect(plain).toContain("missing: /nowhere/libmissing.so: cannot open");
      expect(plain).toMatch(/^part: /m);
      expect(strip(said)).toBe(strip(plain));
    }
  });

  it("a library that brings a function of its own keeps it, and so does one that has it from a library of its own", async () => {
    const own = join(folder, "own.so");
    const user = join(folder, "user.so");
    await library(own, "-DWITH_ITS_OWN");
    await library(user, "-Wl,-z,lazy,--no-as-needed", own);
    await table.put([{ name: "web", ports: [await backend()] }]);
    for (const [path, when] of [
      [own, "lazy"],
      [own, "now"],
      [user, "lazy"],
      [user, "now"],
    ] as const)
      expect((await opened(path, when, "web.service.consul", preload)).match(/^reached: .*$/gm)).toEqual(
        Array.from({ length: 3 }, () => "reached: -77"),
      );
  });

  it("threads may open libraries at the same time, each while the loader still fills another one's tables", async () => {
    // The loader takes its time for so many; emulated for fewer.
    const emulated = started(undefined).words.length > 0;
    const names = ["puts", "malloc", "free", "printf", "abort", "exit", "getenv", "calloc", "realloc", "rand"];
    const addresses = Array.from({ length: emulated ? 500 : 20_000 }, (_, i) => `(void *)${names[i % names.length]}`);
    const source = `#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
const void *const many[] = {(void *)connect, ${addresses.join(", ")}};`;
    await writeFile(join(folder, "many.c"), source);
    const paths = [1, 2, 3, 4].map((number) => join(folder, `many-${number}.so`));
    const seal = ["-Wl,-z,now", "-Wl,-z,relro"];
    for (const path of paths)
      await run(compiler, ["-shared", "-fPIC", "-O1", ...seal, "-o", path, join(folder, "many.c")]);
    const threads = join(folder, "threads");
    await run(compiler, ["-O1", "-pthread", "-o", threads, join(native, "test/deep-threads.c"), "-ldl"]);
    const { words, env } = started(preload);
    const [first = "", ...more] = [...words, threads, ...paths];
    for (let i = 0; i < (emulated ? 1 : 4); i++) {
      const { stdout } = await run(first, more, { env: { ...process.env, ...env }, timeout: 60_000 });
      expect(stdout).toBe("opened\n".repeat(4));
    }
  });

  it("another library that is preloaded before comes first, for the program and for what it opens", async () => {
    const front = join(folder, "front.so");
    const source = `
#include <unistd.h>
int setsockopt(int fd, int level, int option, const void *value, unsigned bytes) {
  (void)level, (void)option, (void)value, (void)bytes;
  return write(1, "in front\\n", 9) == 9 && fd >= 0 ? 0 : -1;
}`;
    await writeFile(`${front}.c`, source);
    await run(compiler, ["-shared", "-fPIC", "-o", front, `${front}.c`]);
    const path = join(folder, "plain.so");
    await library(path);
    const port = await backend();
    await table.put([{ name: "web", ports: [port] }]);
    const said = await opened(path, "now", "web.service.consul", `${front}:${preload}`);
    expect(said).toContain(`reached: ${port}\n`);
    expect(said.match(/in front\n/g), said).toHaveLength(4);
  });
});
