// `npm test` (check, unit, conformance, simulated, interop) and `npm run test:peers` (the slow peers); ends with "N passed, N failed".
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ensureBuilt, must, root } from "./ensure.mjs";
import { tally } from "./tally.mjs";

const peers = process.argv.includes("--peers");
const given = process.argv.slice(2).filter((word) => word !== "--peers");
// `--peer consul=/path/to/consul`: suites that hold a stand-in against a peer hold the user's own program, too.
const own = {};
const rest = [];
for (let i = 0; i < given.length; i++) {
  if (given[i] !== "--peer") {
    rest.push(given[i]);
    continue;
  }
  const [, name, command] = /^([a-z]+)=(.+)$/.exec(given[++i] ?? "") ?? [];
  if (command === undefined) {
    console.error("--peer: expected NAME=COMMAND, such as consul=/usr/local/bin/consul");
    process.exit(2);
  }
  own[`TRILITH_PEER_${name.toUpperCase()}`] = command;
}
ensureBuilt();
if (!peers && rest.length === 0) must(process.execPath, [join(root, "scripts", "check.mjs")]);

const result = join(root, ".tmp", peers ? "vitest-peers.json" : "vitest.json");
mkdirSync(join(root, ".tmp"), { recursive: true });
rmSync(result, { force: true });
const run = spawnSync("npx", ["--no-install", "vitest", "run", ...rest], {
  cwd: root,
  stdio: "inherit",
  env: { ...process.env, ...own, TRILITH_PEERS: peers ? "1" : "0" },
});
if (!existsSync(result)) {
  console.error("the test runner left no result");
  process.exit(run.status || 1);
}
const report = JSON.parse(readFileSync(result, "utf8"));
const { passed, failed } = tally(report);
const left = report.numPendingTests + report.numTodoTests;
console.log(`${passed} passed, ${failed} failed${left > 0 ? `, ${left} skipped` : ""}`);
process.exit(run.status !== 0 || failed > 0 ? 1 : 0);
