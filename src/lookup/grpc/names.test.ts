// Two sources of names: the second stands in until the first has answered, and never after.
import { describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { TrilithError } from "../../base/error.ts";
import { type NameSource, type Names, preferring } from "./names.ts";

const SOUGHT = { service: "web", labels: {} };

/** A source that says its port while it is up. */
function source(name: string, port: number): NameSource & { up: boolean; follows: number } {
  const self = {
    name,
    up: false,
    follows: 0,
    async reach(): Promise<void> {
      if (!self.up) throw new TrilithError("unavailable", `${name} is away`);
    },
    async *follow(_: unknown, signal: AbortSignal): AsyncIterable<Names> {
      await self.reach();
      self.follows++;
      yield { fresh: true, known: true, endpoints: [{ addresses: [{ host: "h", port }], weight: 1, labels: {} }] };
      await new Promise<void>((done) => signal.addEventListener("abort", () => done(), { once: true }));
    },
  };
  return self;
}

describe("one source before another", () => {
  it("asks the first, and says both reasons where nobody is there", async () => {
    const clock = fakeClock();
    const [first, second] = [source("agent", 1), source("tailnet", 2)];
    const both = preferring(first, second, clock);
    const ask = async (): Promise<number | undefined> => {
      const over = new AbortController();
      for await (const { endpoints } of both.follow(SOUGHT, over.signal)) {
        over.abort();
        return endpoints[0]?.addresses[0]?.port;
      }
      return undefined;
    };
    await expect(ask()).rejects.toThrow("agent is away; tailnet is away");
    second.up = true;
    expect(await ask()).toBe(2);
    first.up = true;
    expect(await ask()).toBe(1);
    // It was there once: nobody stands in any more.
    first.up = false;
    await expect(ask()).rejects.toThrow(/^agent is away$/);
    expect([first.follows, second.follows]).toEqual([1, 1]);
  });

  it("gives way to the first as soon as that is there", async () => {
    const clock = fakeClock();
    const [first, second] = [source("agent", 1), source("tailnet", 2)];
    second.up = true;
    const over = new AbortController();
    const seen: (number | undefined)[] = [];
    const both = preferring(first, second, clock);
    const following = (async () => {
      while (!over.signal.aborted)
        for await (const { endpoints } of both.follow(SOUGHT, over.signal)) seen.push(endpoints[0]?.addresses[0]?.port);
    })();
    await clock.advance(1_000);
    expect(seen).toEqual([2]);
    first.up = true;
    await clock.advance(3_000);
    expect(seen).toEqual([2, 1]);
    over.abort();
    await following;
    expect(clock.timers).toBe(0);
  });
});
