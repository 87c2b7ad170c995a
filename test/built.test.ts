// Tests when `npm start` and `npm test` take what was built for whole: never after a build that was interrupted.
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { expect, it } from "vitest";

const ensure = resolve(import.meta.dirname, "../scripts/ensure.mjs");

it("a build counts when it was complete, and until a source is newer", async () => {
  const folder = await mkdtemp(join(tmpdir(), "trilith-built-"));
  const write = async (path: string, second: number): Promise<void> => {
    const file = join(folder, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, "");
    await utimes(file, second, second);
  };
  const built = (): string => {
    const script = `console.log((await import(${JSON.stringify(ensure)})).isBuilt(${JSON.stringify(folder)}))`;
    return execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" }).trim();
  };
  try {
    for (const name of ["src/a.ts", "package.json", "tsconfig.build.json", "tsconfig.json"]) await write(name, 1000);
    // Ended half-way: the program is there, but perhaps not what it loads.
    await write("dist/cli/main.js", 2000);
    expect(built()).toBe("false");
    await write(".tmp/built", 2000);
    expect(built()).toBe("true");
    await write("src/a.ts", 3000);
    expect(built()).toBe("false");
    await write(".tmp/built", 3000);
    expect(built()).toBe("true");
    await rm(join(folder, "dist"), { recursive: true });
    expect(built()).toBe("false");
  } finally {
    await rm(folder, { recursive: true });
  }
});
