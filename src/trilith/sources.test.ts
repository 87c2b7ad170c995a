// Sources carried to the agent: until stopped, started again when they break, and what a switched-off one told goes.
import { expect, it } from "vitest";
import { fakeClock } from "../../test/simulated/clock.ts";
import { callbackLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import type { Source, SourceList } from "../contracts/source.ts";
import { type Carrying, carry } from "./sources.ts";

const EMPTY: SourceList = { list: [], authority: "first-hand" };
const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });

function world(adopt: (name: string) => Promise<void> = async () => {}) {
  const clock = fakeClock();
  const said: string[] = [];
  const adopted: string[] = [];
  const to = {
    agent: {
      async adopt(name: string) {
        adopted.push(name);
        await adopt(name);
      },
    },
    log: callbackLog((level, _part, text, { error }) => void said.push(`${level} ${text}: ${error}`)),
    ...{ clock, random: systemRandom },
  } as unknown as Carrying;
  return { clock, said, adopted, to };
}

it("is carried until it is stopped, and stopping waits for its end and for what it told last", async () => {
  let take = (): void => {};
  const { clock, adopted, said, to } = world(() => new Promise((resolve) => (take = resolve)));
  const did: string[] = [];
  const source: Source = {
    name: "x",
    state: () => ({ ok: true, text: "" }),
    async *watch(signal) {
      did.push("begin");
      try {
        yield EMPTY;
        await aborted(signal);
      } finally {
        await clock.sleep(10);
        did.push("end");
      }
    },
  };
  const { first, stop } = carry(source, to);
  void first.then(() => did.push("told"));
  await clock.advance(1);
  expect([adopted, did]).toEqual([["x"], ["begin"]]);
  const stopping = stop().then(() => did.push("stopped"));
  await clock.advance(100);
  expect(did).toEqual(["begin"]);
  take();
  await clock.advance(5);
  expect(did).toEqual(["begin", "told"]);
  await clock.advance(5);
  await stopping;
  expect(did).toEqual(["begin", "told", "end", "stopped"]);
  expect([said, clock.timers]).toEqual([[], 0]);
});

it("is started again, later and later, when it breaks", async () => {
  const { clock, said, adopted, to } = world();
  let begun = 0;
  const source: Source = {
    name: "x",
    state: () => ({ ok: true, text: "" }),
    // biome-ignore lint/correctness/useYield: it breaks before it tells anything.
    async *watch() {
      begun++;
      throw new Error("broken");
    },
  };
  const { stop } = carry(source, to);
  await clock.advance(60);
  expect(begun).toBe(1);
  await clock.advance(70);
  expect(begun).toBe(2);
  // The pauses are 100 and 200 ms, a fifth more or less.
  await clock.advance(100);
  expect(begun).toBe(2);
  await clock.advance(140);
  expect(begun).toBe(3);
  expect(said).toEqual(Array.from({ length: 3 }, () => "error source x broke and is started again: broken"));
  expect(adopted).toEqual([]);
  await stop();
  expect(clock.timers).toBe(0);
});

it("keeps nobody waiting for its first list who stops it before it told one", async () => {
  const { adopted, to } = world();
  const source: Source = {
    name: "x",
    state: () => ({ ok: true, text: "" }),
    // biome-ignore lint/correctness/useYield: it has nothing to tell.
    async *watch(signal) {
      await aborted(signal);
    },
  };
  const { first, stop } = carry(source, to);
  await stop();
  await first;
  expect(adopted).toEqual([]);
});
