// Which files npm puts into the package, by npm's own reading of package.json.
import { execFileSync } from "node:child_process";
import { root } from "./ensure.mjs";

/** Their paths below the root of the repository. */
export function packedFiles() {
  const words = ["pack", "--dry-run", "--json", "--ignore-scripts", "--silent"];
  const [packed] = JSON.parse(execFileSync("npm", words, { cwd: root, encoding: "utf8", maxBuffer: 1 << 26 }));
  return packed.files.map(({ path }) => path);
}
