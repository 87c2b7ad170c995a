// `npm run check`: style, types, unused things and the architecture, in seconds.
import { ensureInstalled, must } from "./ensure.mjs";

ensureInstalled();
const steps = [
  ["biome", ["check", "."]],
  ["tsc", ["--noEmit", "-p", "tsconfig.json"]],
  ["tsc", ["--noEmit", "-p", "tsconfig.build.json", "--isolatedDeclarations", "--declaration"]],
  ["knip", []],
  ["vitest", ["run", "test/architecture.test.ts", "--reporter=dot"]],
];
for (const [tool, args] of steps) {
  console.log(`— ${tool} ${args.join(" ")}`);
  must("npx", ["--no-install", tool, ...args]);
}
