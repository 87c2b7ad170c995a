// A reader that does not keep up is waited for, until it takes more or is gone.
import { EventEmitter } from "node:events";
import { expect, it } from "vitest";
import { drained } from "./drained.ts";
import type { ServerResponse } from "./http.ts";

const settled = async (promise: Promise<void>): Promise<boolean> =>
  await Promise.race([promise.then(() => true), new Promise<boolean>((resolve) => setImmediate(() => resolve(false)))]);

it.each(["drain", "abort"])("waits, goes on by %s, and leaves no listener behind", async (how) => {
  const response = new EventEmitter();
  const controller = new AbortController();
  const waiting = drained(response as unknown as ServerResponse, controller.signal);
  expect(await settled(waiting)).toBe(false);
  if (how === "drain") response.emit("drain");
  else controller.abort();
  expect(await settled(waiting)).toBe(true);
  expect(response.listenerCount("drain")).toBe(0);
});

it("does not wait for a reader that is gone already", async () => {
  const response = new EventEmitter();
  expect(await settled(drained(response as unknown as ServerResponse, AbortSignal.abort()))).toBe(true);
  expect(response.listenerCount("drain")).toBe(0);
});
