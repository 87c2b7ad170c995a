// Before every test file: in CI random tests repeat the same cases, so that luck does not decide what lands, elsewhere they explore; who waits for something waits long enough; what a failed try leaves behind does not refuse the next.
import { inspect } from "node:util";
import fc from "fast-check";
import { beforeEach, type TestContext, vi } from "vitest";

if (process.env["CI"] === "true") fc.configureGlobal({ seed: 20_261_121 });

/** Vitest itself gives up after a second, which a machine with other work takes now and then. */
const WAIT_MS = 15_000;
const { waitFor, waitUntil } = vi;
vi.waitFor = (callback, options) =>
  waitFor(callback, typeof options === "number" ? options : { timeout: WAIT_MS, ...options });
vi.waitUntil = (callback, options) =>
  waitUntil(callback, typeof options === "number" ? options : { timeout: WAIT_MS, ...options });

// What a try that failed leaves unfinished (a question that is still asked, a socket that nobody listens to) fails later, with nobody to
// catch it, and would refuse the run although the next try passes. Only such failures are told and go no further.
if (process.env["CI"] === "true") {
  let task: TestContext["task"] | undefined;
  let failed = false;
  const hasFailed = (): boolean => {
    failed ||= (task?.result?.retryCount ?? 0) > 0 || task?.result?.state === "fail";
    return failed;
  };
  beforeEach((context) => {
    hasFailed();
    task = context.task;
  });
  const errors: NodeJS.EventEmitter = process;
  for (const kind of ["unhandledRejection", "uncaughtException"] as const) {
    const listener = (error: unknown, more: unknown): void => {
      if (hasFailed()) {
        console.warn(`left by a try that failed: ${inspect(error)}`);
        return;
      }
      // The test runner leaves to other listeners what they listen to.
      errors.off(kind, listener);
      errors.emit(kind, error, more);
      errors.on(kind, listener);
    };
    errors.on(kind, listener);
  }
}
