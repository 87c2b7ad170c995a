// Templates that are read again while they are being read.
import { execFileSync } from "node:child_process";
import { open, readFile, writeFile } from "node:fs/promises";
import { afterEach, expect, it } from "vitest";
import { ownFolder } from "../test/support/peers.ts";
import { type Renders, render } from "./render.ts";

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
});

it("goes by what was read last, however long what was to be read before takes", async () => {
  const folder = await ownFolder("render-reload");
  undo.push(() => folder.remove());
  const [config, slow, out] = ["config.hcl", "slow.ctmpl", "out"].map((name) => `${folder.path}/${name}`) as [
    string,
    string,
    string,
  ];
  // Whoever reads it waits for a writer.
  execFileSync("mkfifo", [slow]);
  const is = (what: string) => writeFile(config, `template {\n  ${what}\n  destination = "${out}"\n}\n`);
  await is('contents = "first"');
  const renders: Renders = await render({ config: [config], wait: "1ms" });
  undo.push(() => renders.stop());
  await expect.poll(() => readFile(out, "utf8").catch(() => ""), { timeout: 5_000 }).toBe("first");
  await is(`source = "${slow}"`);
  const before = renders.reload();
  const writer = await open(slow, "w");
  await is('contents = "newer"');
  const after = renders.reload();
  await new Promise((resolve) => setTimeout(resolve, 300));
  await writer.write("older");
  await writer.close();
  await Promise.all([before, after]);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(await readFile(out, "utf8")).toBe("newer");
});
