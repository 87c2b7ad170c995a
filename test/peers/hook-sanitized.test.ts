// The hook's counter file and its connections opened ahead, in C under the sanitizers (native/test/observed.c, native/test/prefetch.c).
import { execFile } from "node:child_process";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { havePrograms } from "../support/peers.ts";

const run = promisify(execFile);
const SOURCES = resolve(import.meta.dirname, "../../native/test");
const BUILDS: Readonly<Record<string, readonly string[]>> = {
  "address and undefined behaviour watched": [
    "cc",
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
  ],
  "threads watched": ["cc", "-g", "-O1", "-fsanitize=thread"],
  musl: ["musl-gcc", "-O2"],
};
const here = await havePrograms("cc", "musl-gcc");

/** All that it says, also where it ends badly. */
const outputOf = (program: string, words: readonly string[], more: NodeJS.ProcessEnv = {}): Promise<string> =>
  new Promise((done) => {
    execFile(program, words, { timeout: 120_000, env: { ...process.env, ...more } }, (error, out, wrong) =>
      done(`${error === null ? "" : `${error.message}\n`}${wrong}${out}`),
    );
  });

describe.runIf(here).each(Object.entries(BUILDS))("%s", (_name, [compiler = "", ...flags]) => {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "trilith-sanitized-"));
    await chmod(folder, 0o755);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** One of the cases goes on as another user. */
  async function ownFolder(name: string): Promise<string> {
    const own = await mkdtemp(join(folder, `${name}-`));
    await chmod(own, 0o755);
    return own;
  }

  async function compiled(source: string): Promise<string> {
    const program = join(folder, source.replace(/\.c$/, ""));
    const warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"];
    await run(compiler, [
      "-std=gnu11",
      ...warnings,
      ...flags,
      join(SOURCES, source),
      "-o",
      program,
      "-lpthread",
      "-ldl",
    ]);
    return program;
  }

  it("the counter file: who gets which block, what a dead process leaves, whom it trusts", async () => {
    const own = await ownFolder("run");
    expect(await outputOf(await compiled("observed.c"), [own])).toMatch(/all checks hold\n$/);
  });

  it("connections opened ahead: what connect promises holds", async () => {
    const table = await ownFolder("ahead");
    const program = await compiled("prefetch.c");
    expect(await outputOf(program, [], { TRILITH_HOOK_TABLE: join(table, "table") })).toMatch(/all checks hold\n$/);
  });
});
