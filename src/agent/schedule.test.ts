// The scheduler on a fake clock: nothing piles up, hung targets hold up nobody, stopping ends everything.
import { expect, test } from "vitest";
import { fakeClock } from "../../test/simulated/clock.ts";
import { systemRandom } from "../base/random.ts";
import type { Outcome } from "../model/check.ts";
import { Scheduler } from "./schedule.ts";

const good: Outcome = { status: "passing", output: "" };

test("5,000 checks run at their interval, never more at once than allowed, on a handful of timers", async () => {
  const clock = fakeClock();
  const scheduler = new Scheduler({ clock, random: systemRandom, maxRunning: 64 });
  const runs = new Map<string, number>();
  let running = 0;
  let mostRunning = 0;
  let mostTimers = 0;
  for (let i = 0; i < 5000; i++)
    scheduler.set(`c${i}`, {
      intervalMs: 10_000,
      timeoutMs: 1000,
      run: async () => {
        running++;
        mostRunning = Math.max(mostRunning, running);
        await clock.sleep(5);
        running--;
        return good;
      },
      done: () => void runs.set(`c${i}`, (runs.get(`c${i}`) ?? 0) + 1),
    });
  for (let second = 0; second < 60; second++) {
    await clock.advance(1000);
    mostTimers = Math.max(mostTimers, clock.timers);
    expect(scheduler.waiting).toBeLessThan(500);
  }
  expect(mostRunning).toBeLessThanOrEqual(64);
  // Two for each running check (its time-out and its own sleep), one for all the rest.
  expect(mostTimers).toBeLessThanOrEqual(2 * 64 + 1);
  expect(runs.size).toBe(5000);
  for (const count of runs.values()) expect(count).toBeGreaterThanOrEqual(5);
  for (const count of runs.values()) expect(count).toBeLessThanOrEqual(8);
  await scheduler.stop();
  await clock.advance(10);
  expect(clock.timers).toBe(0);
}, 120_000);

test("targets that never answer take nothing from those that do", async () => {
  const clock = fakeClock();
  const scheduler = new Scheduler({ clock, random: systemRandom, maxRunning: 16 });
  const ended = new Map<string, number>();
  for (let i = 0; i < 200; i++)
    scheduler.set(`hung${i}`, {
      intervalMs: 10_000,
      timeoutMs: 10_000,
      run: (signal) =>
        new Promise((resolve) =>
          signal.addEventListener("abort", () => resolve({ status: "critical", output: "timed out" })),
        ),
      done: () => void ended.set("hung", (ended.get("hung") ?? 0) + 1),
    });
  for (let i = 0; i < 50; i++)
    scheduler.set(`well${i}`, {
      intervalMs: 10_000,
      timeoutMs: 1000,
      run: async () => good,
      done: () => void ended.set(`well${i}`, (ended.get(`well${i}`) ?? 0) + 1),
    });
  // In the first rounds nobody is known to be slow yet: at most 16 hang for 10 s at a time.
  await clock.advance(200_000);
  ended.clear();
  await clock.advance(60_000);
  for (let i = 0; i < 50; i++) expect(ended.get(`well${i}`) ?? 0, `well${i}`).toBeGreaterThanOrEqual(5);
  // The hung ones go on being asked, in their own half of the slots.
  expect(ended.get("hung") ?? 0).toBeGreaterThanOrEqual(8 * 5);
  await scheduler.stop();
  expect(clock.timers).toBe(0);
});

test("a probe that ignores its time-out loses its slot; its late answer counts for nothing", async () => {
  const clock = fakeClock();
  const scheduler = new Scheduler({ clock, random: systemRandom });
  const outcomes: Outcome[] = [];
  let answers = 0;
  scheduler.set("deaf", {
    intervalMs: 600_000,
    timeoutMs: 2000,
    run: async () => {
      await clock.sleep(30_000);
      answers++;
      return good;
    },
    done: (outcome) => void outcomes.push(outcome),
  });
  while (outcomes.length === 0) await clock.advance(1000);
  expect(outcomes).toEqual([{ status: "critical", output: "Timed out after 2000 ms", final: true }]);
  expect(scheduler.running).toBe(0);
  await clock.advance(30_000);
  expect(answers).toBe(1);
  expect(outcomes).toHaveLength(1);
  await scheduler.stop();
});

test("one result at a time, a probe that throws is a critical result, a removed job tells nothing", async () => {
  const clock = fakeClock();
  const scheduler = new Scheduler({ clock, random: systemRandom });
  const outcomes: string[] = [];
  let running = 0;
  scheduler.set("slow", {
    intervalMs: 1000,
    timeoutMs: 60_000,
    run: async () => {
      running++;
      expect(running).toBe(1);
      await clock.sleep(5000);
      running--;
      throw new Error("nobody expected this");
    },
    done: ({ status, output }) => void outcomes.push(`${status} ${output}`),
  });
  await clock.advance(21_500);
  expect(outcomes).toHaveLength(4);
  expect(outcomes[0]).toBe("critical the check itself failed: nobody expected this");
  expect(scheduler.running).toBe(1);
  scheduler.delete("slow");
  await clock.advance(20_000);
  expect(outcomes).toHaveLength(4);
  expect(scheduler.running).toBe(0);
  expect(clock.timers).toBe(0);
});

test("replacing a job ends what runs for the old one", async () => {
  const clock = fakeClock();
  const scheduler = new Scheduler({ clock, random: systemRandom });
  const done: string[] = [];
  const aborted: string[] = [];
  const job = (name: string): Parameters<Scheduler["set"]>[1] => ({
    intervalMs: 1000,
    timeoutMs: 50_000,
    run: (signal) =>
      new Promise((resolve) => {
        signal.addEventListener("abort", () => {
          aborted.push(name);
          resolve(good);
        });
      }),
    done: () => void done.push(name),
  });
  scheduler.set("x", job("old"));
  await clock.advance(1000);
  expect(scheduler.running).toBe(1);
  scheduler.set("x", job("new"));
  await clock.advance(1000);
  expect(aborted).toEqual(["old"]);
  expect(scheduler.running).toBe(1);
  await scheduler.stop();
  expect(done).toEqual([]);
  expect(scheduler.size).toBe(0);
});

test("light ones, which only wait, take no slot from each other or from anybody", async () => {
  const clock = fakeClock();
  const scheduler = new Scheduler({ clock, random: systemRandom, maxRunning: 4 });
  const ended = new Map<string, number>();
  const count = (id: string): void => void ended.set(id, (ended.get(id) ?? 0) + 1);
  for (let i = 0; i < 500; i++)
    scheduler.set(`silent${i}`, {
      intervalMs: 10_000,
      timeoutMs: 9000,
      light: true,
      run: (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve(good))),
      done: () => count(`silent${i}`),
    });
  scheduler.set("asked", { intervalMs: 1000, timeoutMs: 1000, run: async () => good, done: () => count("asked") });
  await clock.advance(60_000);
  expect(ended.get("asked")).toBeGreaterThanOrEqual(55);
  for (let i = 0; i < 500; i++) expect(ended.get(`silent${i}`)).toBeGreaterThanOrEqual(4);
  expect(scheduler.running).toBeGreaterThan(300);
  await scheduler.stop();
  expect(scheduler.running).toBe(0);
  await clock.advance(10);
  expect(clock.timers).toBe(0);
});
