// When another host is asked again.
import { expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { testDirectory } from "../../../test/support/directory.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { Circle, type CircleOptions } from "./circle.ts";

it("asks at once who calls while a question to him from before is still to fail", async () => {
  const clock = fakeClock();
  const asked: (() => void)[] = [];
  const http = {
    request: ({ signal }: { readonly signal: AbortSignal }) =>
      new Promise((_, reject) => {
        asked.push(() => reject(new Error("nobody answers")));
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      }),
  };
  const options = { clock, random: systemRandom, http, directory: testDirectory(clock), log: silentLog, port: 0 };
  const circle = new Circle({
    ...options,
    ...{ key: () => undefined, life: "1", addressIsPlace: false, mayAsk: () => true },
  } as unknown as CircleOptions);
  circle.set("found", ["10.0.0.2:8504"]);
  const fails = async (): Promise<void> => {
    await clock.settle();
    asked.at(-1)?.();
    await clock.settle();
  };
  for (let tries = 1; tries < 10; tries++) {
    await fails();
    expect(asked).toHaveLength(tries);
    await clock.advance(20_000);
  }
  circle.told("10.0.0.2:8504");
  await fails();
  expect(asked).toHaveLength(11);
  // Once: it is waited for again where that one fails, too.
  await fails();
  expect(asked).toHaveLength(11);
  await circle.stop();
  expect(clock.timers).toBe(0);
});
