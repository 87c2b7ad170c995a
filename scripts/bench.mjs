// `npm run bench [NAME …]`: runs the measurements in bench/ one after the other, each beside a peer in the same run.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { ensureBuilt, must, root } from "./ensure.mjs";

ensureBuilt();
const wanted = process.argv.slice(2);
const all = readdirSync(join(root, "bench")).filter((name) => name.endsWith(".ts") && !name.startsWith("_"));
for (const name of all.sort()) {
  if (wanted.length > 0 && !wanted.includes(name.replace(/\.ts$/, ""))) continue;
  console.log(`\n— ${name}`);
  must(process.execPath, ["--import", "tsx", join(root, "bench", name)]);
}
