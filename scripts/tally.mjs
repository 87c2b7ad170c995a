// Counts the test runner's JSON reports. A file that fails outside its tests (a beforeAll, an import) is one failure: its tests are only "skipped" there.
export function failedOutsideTests({ status, assertionResults }) {
  return status === "failed" && !assertionResults.some((test) => test.status === "failed");
}

export function tally({ numPassedTests, numFailedTests, testResults, success }) {
  const failed = numFailedTests + testResults.filter(failedOutsideTests).length;
  // The runner may also fail of an error that belongs to no file.
  return { passed: numPassedTests, failed: success || failed > 0 ? failed : 1 };
}
