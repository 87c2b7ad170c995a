// The configuration that protocols' READMEs show is one that an agent takes, as a whole file.
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { settingsFaults } from "../trilith.ts";
import { validateFiles } from "./consul/cli.ts";

const examples = readdirSync(import.meta.dirname, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .flatMap(({ name }) => {
    const readme = readFileSync(join(import.meta.dirname, name, "README.md"), "utf8");
    const blocks = [...readme.matchAll(/```json\n(.*?)```/gs)].map(([, text = ""]) => text);
    return blocks
      .filter((text) => text.includes('"protocols"') || readme.includes(`<!-- example -->\n\`\`\`json\n${text}`))
      .map((text) => [name, text] as const);
  });

it("is found", () => {
  const names = new Set(examples.map(([name]) => name));
  for (const name of ["zookeeper", "flat", "hosts", "dns-upstream", "etcd", "consul-upstream", "proxy"])
    expect(names).toContain(name);
});

it.each(examples)("%s", async (_, text) => {
  const folder = await mkdtemp(join(tmpdir(), "trilith-readmes-"));
  try {
    const file = join(folder, "agent.json");
    await writeFile(file, text);
    expect(await validateFiles([file], undefined, settingsFaults)).toEqual({ errors: [], warnings: [] });
  } finally {
    await rm(folder, { recursive: true });
  }
});
