// The test runner's settings: unit tests beside the files, suites under test/, slow peers only when asked for.
import { defineConfig } from "vitest/config";

const peers = process.env["TRILITH_PEERS"] === "1";

export default defineConfig({
  test: {
    include: peers ? ["test/peers/**/*.test.ts"] : ["src/**/*.test.ts", "test/**/*.test.ts"],
    exclude: peers ? [] : ["test/peers/**", "**/node_modules/**"],
    // On a busy machine the first test of a file may spend most of a minute loading what it tests.
    testTimeout: 120_000,
    hookTimeout: 180_000,
    setupFiles: ["test/support/setup.ts"],
    // CI's machine is shared and noisy: what fails there is tried twice more, and told. Elsewhere a failure is a failure.
    retry: process.env["CI"] === "true" ? 2 : 0,
    pool: "forks",
    maxWorkers: 2,
    reporters: ["default", ["json", { outputFile: peers ? ".tmp/vitest-peers.json" : ".tmp/vitest.json" }]],
  },
});
