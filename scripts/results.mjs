// Sums the test runner's JSON reports: what failed and why, the slowest files, and as the last line `N passed, N failed`.
import { existsSync, readFileSync } from "node:fs";
import { relative } from "node:path";
import { failedOutsideTests, tally } from "./tally.mjs";

let passed = 0;
let failed = 0;
const files = [];
for (const report of process.argv.slice(2)) {
  if (!existsSync(report)) {
    failed++;
    console.log(`${report}: there is no such report: the test runner did not end by itself`);
    continue;
  }
  const result = JSON.parse(readFileSync(report, "utf8"));
  const counted = tally(result);
  passed += counted.passed;
  failed += counted.failed;
  for (const file of result.testResults) {
    const name = relative(process.cwd(), file.name);
    files.push({ name, seconds: (file.endTime - file.startTime) / 1000 });
    if (failedOutsideTests(file))
      console.log(
        `FAILED ${name}: ${file.message.slice(0, 1_500) || "outside its tests: the runner's output says what"}`,
      );
    for (const test of file.assertionResults) {
      if (test.status !== "failed") continue;
      console.log(`FAILED ${name}: ${test.fullName}\n  ${test.failureMessages.join("\n").slice(0, 1_500)}`);
    }
  }
}
files.sort((a, b) => b.seconds - a.seconds);
const slowest = files.slice(0, 8).map((file) => `${file.name} ${file.seconds.toFixed(0)} s`);
if (slowest.length > 0) console.log(`slowest: ${slowest.join(", ")}`);
console.log(`${passed} passed, ${failed} failed`);
