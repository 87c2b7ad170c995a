// Deadlines: one timer for all, moved and deleted ones never fire.
import fc from "fast-check";
import { expect, test } from "vitest";
import { fakeClock } from "../../test/simulated/clock.ts";
import { Deadlines } from "./deadlines.ts";

test("a deadline moved on and on costs no memory and fires once", async () => {
  const clock = fakeClock();
  const fired: string[] = [];
  const deadlines = new Deadlines(clock, (name) => void fired.push(name));
  deadlines.set("__proto__", 10_000);
  for (let i = 0; i < 10_000; i++) {
    deadlines.set("ttl", 1000);
    clock.advanceNow(1);
  }
  expect(clock.timers).toBe(1);
  expect(fired).toEqual(["__proto__"]);
  clock.advanceNow(2000);
  expect(fired).toEqual(["__proto__", "ttl"]);
  expect(deadlines.size).toBe(0);
  expect(clock.timers).toBe(0);
});

test("any mix of setting, moving, deleting and waiting fires what a plain table would", () => {
  const step = fc.oneof(
    fc.record({
      op: fc.constant("set" as const),
      name: fc.constantFrom("a", "b", "c", "d", "e"),
      ms: fc.integer({ min: 0, max: 100 }),
    }),
    fc.record({ op: fc.constant("delete" as const), name: fc.constantFrom("a", "b", "c", "d", "e") }),
    fc.record({ op: fc.constant("wait" as const), ms: fc.integer({ min: 2, max: 60 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const clock = fakeClock();
      const fired: string[] = [];
      const expected: string[] = [];
      const table = new Map<string, number>();
      const deadlines = new Deadlines(clock, (name) => void fired.push(name));
      for (const one of steps) {
        if (one.op === "set") {
          deadlines.set(one.name, one.ms);
          table.set(one.name, clock.monotonic() + one.ms);
        } else if (one.op === "delete") {
          deadlines.delete(one.name);
          table.delete(one.name);
        } else {
          clock.advanceNow(one.ms);
          // Within a millisecond of the end it may be either.
          for (const [name, atMs] of table)
            if (atMs <= clock.monotonic() - 1) {
              table.delete(name);
              expected.push(name);
            } else if (!deadlines.has(name)) {
              table.delete(name);
              expected.push(name);
            }
        }
      }
      expect([...fired].sort()).toEqual([...expected].sort());
      expect(deadlines.size).toBe(table.size);
      expect(clock.timers).toBe(table.size === 0 ? 0 : 1);
    }),
  );
});
