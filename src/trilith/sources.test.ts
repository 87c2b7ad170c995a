// Sources carried to the agent: any number of them, until undone.
import { afterEach, expect, it } from "vitest";
import { systemClock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import type { Source } from "../contracts/source.ts";
import { type Carrying, carryAll } from "./sources.ts";
import { Undo } from "./undo.ts";

const warnings: Error[] = [];
const warned = (warning: Error): number => warnings.push(warning);
afterEach(() => process.off("warning", warned));

it("are carried without a warning, however many there are, and end together", async () => {
  process.on("warning", warned);
  const undo = new Undo();
  const adopted: string[] = [];
  let listening = 0;
  const sources = Array.from(
    { length: 25 },
    (_, i): Source => ({
      name: `source-${i}`,
      async *watch(signal) {
        const over = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
        listening++;
        yield { list: [], authority: "first-hand" };
        await over;
        listening--;
      },
      state: () => ({ ok: true, text: "" }),
    }),
  );
  const to = {
    agent: { adopt: async (name: string) => void adopted.push(name) },
    clock: systemClock,
    random: systemRandom,
  } as unknown as Carrying;
  await Promise.all(carryAll(sources, to, undo));
  expect([adopted.length, listening]).toEqual([25, 25]);
  await undo.all({ error: expect.unreachable } as unknown as Log);
  expect(listening).toBe(0);
  await new Promise((resolve) => setImmediate(resolve));
  expect(warnings).toEqual([]);
});
