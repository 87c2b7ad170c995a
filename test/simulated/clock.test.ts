// The fake clock itself: order, cancelling, sleeping, jumps.
import { expect, test } from "vitest";
import { fakeClock } from "./clock.ts";

test("timers fire in the order of their time, each at its own time", async () => {
  const clock = fakeClock(0);
  const start = clock.monotonic();
  const seen: [string, number][] = [];
  const note = (name: string) => (): void => void seen.push([name, clock.monotonic() - start]);
  clock.after(30, note("c"));
  clock.after(10, () => {
    note("a")();
    clock.after(5, note("b"));
  });
  const gone = clock.after(20, note("never"));
  gone.cancel();
  gone.cancel();
  expect(clock.timers).toBe(2);
  await clock.advance(29);
  expect(seen).toEqual([
    ["a", 10],
    ["b", 15],
  ]);
  expect(clock.nextInMs()).toBe(1);
  await clock.advance(1);
  expect(seen.at(-1)).toEqual(["c", 30]);
  expect(clock.timers).toBe(0);
});

test("a sleeper wakes, goes on sleeping within one advance, and is aborted at once", async () => {
  const clock = fakeClock();
  const began = clock.now();
  const woke: number[] = [];
  const sleeper = (async () => {
    for (let i = 0; i < 3; i++) {
      await clock.sleep(100);
      woke.push(clock.now() - began);
    }
  })();
  await clock.advance(1000);
  await sleeper;
  expect(woke).toEqual([100, 200, 300]);
  const abort = new AbortController();
  const aborted = clock.sleep(50, abort.signal);
  abort.abort(new Error("enough"));
  await expect(aborted).rejects.toThrow("enough");
  expect(clock.timers).toBe(0);
});

test("a jump moves the wall clock only", () => {
  const clock = fakeClock(1_000);
  const monotonic = clock.monotonic();
  clock.jump(0);
  expect(clock.now()).toBe(0);
  clock.advanceNow(7);
  expect(clock.now()).toBe(7);
  expect(clock.monotonic()).toBe(monotonic + 7);
});
