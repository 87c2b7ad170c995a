// Host names as addresses: asked for once, again now and then, and kept while nobody answers.
import { expect, test } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { seededRandom } from "../../../test/support/lookup.ts";
import { createHostnames } from "./hostnames.ts";

test("a name's addresses are there as soon as somebody has answered, and stay while nobody does", async () => {
  const clock = fakeClock();
  const asked: string[] = [];
  const changed: string[] = [];
  let answers: Record<string, readonly string[] | undefined> = { db: ["192.0.2.2", "192.0.2.1"] };
  const used = new Set(["db"]);
  const hostnames = createHostnames({
    clock,
    random: seededRandom(1),
    net: {
      async resolve(name) {
        asked.push(name);
        const found = answers[name];
        if (found === undefined) throw new Error("ENOTFOUND");
        return found;
      },
    },
    used: () => used,
    changed: (name) => void changed.push(name),
  });
  expect(hostnames.addressesOf("db")).toEqual([]);
  expect(hostnames.addressesOf("db")).toEqual([]);
  await clock.settle();
  expect([asked, changed]).toEqual([["db"], ["db"]]);
  expect(hostnames.addressesOf("db")).toEqual(["192.0.2.1", "192.0.2.2"]);
  await clock.advance(120_000);
  expect(asked.length).toBeGreaterThan(2);
  // The same in another order is no change.
  expect(changed).toEqual(["db"]);
  answers = {};
  await clock.advance(120_000);
  expect(hostnames.addressesOf("db")).toEqual(["192.0.2.1", "192.0.2.2"]);
  answers = { db: ["192.0.2.9"] };
  await clock.advance(60_000);
  expect(changed).toEqual(["db", "db"]);
  expect(hostnames.addressesOf("db")).toEqual(["192.0.2.9"]);
  // What is used no more is forgotten, and nobody asks any more.
  used.clear();
  await clock.advance(60_000);
  const count = asked.length;
  await clock.advance(600_000);
  expect(asked).toHaveLength(count);
  expect(clock.timers).toBe(0);
  expect(hostnames.addressesOf("db")).toEqual([]);
  hostnames.stop();
  expect(clock.timers).toBe(0);
  hostnames.addressesOf("other");
  expect(clock.timers).toBe(0);
  expect(asked).not.toContain("other");
});
