// After tsc: copies what is not TypeScript into dist, makes the program executable, and stamps the build time.
import { chmodSync, cpSync, readdirSync, statSync, utimesSync } from "node:fs";
import { join, relative } from "node:path";
import { root } from "./ensure.mjs";

function copyBelow(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) copyBelow(path);
    else if (/\.(proto|html|css|svg)$/.test(name)) cpSync(path, join(root, "dist", relative(join(root, "src"), path)));
  }
}
copyBelow(join(root, "src"));
const main = join(root, "dist", "cli", "main.js");
chmodSync(main, 0o755);
utimesSync(main, new Date(), new Date());
