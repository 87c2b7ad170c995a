// Before every test file: in CI random tests repeat the same cases, so that luck does not decide what lands, elsewhere they explore; who waits for something waits long enough.
import fc from "fast-check";
import { vi } from "vitest";

if (process.env["CI"] === "true") fc.configureGlobal({ seed: 20_261_121 });

/** Vitest itself gives up after a second, which a machine with other work takes now and then. */
const WAIT_MS = 15_000;
const { waitFor, waitUntil } = vi;
vi.waitFor = (callback, options) =>
  waitFor(callback, typeof options === "number" ? options : { timeout: WAIT_MS, ...options });
vi.waitUntil = (callback, options) =>
  waitUntil(callback, typeof options === "number" ? options : { timeout: WAIT_MS, ...options });
