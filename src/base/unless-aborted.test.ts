// What waits for a promise no longer than its signal allows.
import { getEventListeners } from "node:events";
import { expect, it } from "vitest";
import { unlessAborted } from "./unless-aborted.ts";

const never = new Promise<never>(() => {});

it("is the promise where nothing is aborted, and leaves no listener behind", async () => {
  const { signal } = new AbortController();
  expect(await unlessAborted(Promise.resolve(1), undefined)).toBe(1);
  expect(await unlessAborted(Promise.resolve(2), signal)).toBe(2);
  await expect(unlessAborted(Promise.reject(new Error("own")), signal)).rejects.toThrow("own");
  await new Promise((resolve) => setImmediate(resolve));
  expect(getEventListeners(signal, "abort")).toEqual([]);
});

it("rejects with the signal's reason, before and after the abort; what the promise fails with later is heard by nobody", async () => {
  const stop = new AbortController();
  const waiting = unlessAborted(never, stop.signal);
  let fail: (error: Error) => void = () => {};
  const late = new Promise<never>((_, reject) => {
    fail = reject;
  });
  const failing = unlessAborted(late, stop.signal);
  stop.abort(new Error("enough"));
  await expect(waiting).rejects.toThrow("enough");
  await expect(failing).rejects.toThrow("enough");
  await expect(unlessAborted(Promise.reject(new Error("own")), stop.signal)).rejects.toThrow("enough");
  fail(new Error("late"));
  // An unhandled rejection would fail the run.
  await new Promise((resolve) => setImmediate(resolve));
});
