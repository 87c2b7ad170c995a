// After tsc: copies what is not TypeScript into dist, makes one file of Node's hook, makes the program executable, and writes down that the build is complete.
import { chmodSync, cpSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { buildSync } from "esbuild";
import { root, stamp } from "./ensure.mjs";

/** Elsewhere for tests of another build. */
const dist = process.argv[2] ?? join(root, "dist");

function copyBelow(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) copyBelow(path);
    else if (/\.(proto|html|css|svg)$/.test(name)) cpSync(path, join(dist, relative(join(root, "src"), path)));
  }
}
copyBelow(join(root, "src"));
// It stands before every program that is started with it: one file is read in half the time of twenty. What it needs only now and then stays outside.
buildSync({
  entryPoints: [join(dist, "hook.js")],
  outfile: join(dist, "hook.js"),
  allowOverwrite: true,
  bundle: true,
  platform: "node",
  target: "node20.19",
  format: "esm",
  external: ["./base/http.js", "./protocols/api/client.js"],
  legalComments: "none",
  logLevel: "warning",
});
chmodSync(join(dist, "cli", "main.js"), 0o755);
if (process.argv[2] === undefined) {
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, "");
}
