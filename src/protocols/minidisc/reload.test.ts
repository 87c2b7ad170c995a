// Another configuration of Minidisc while the agent runs: whether this host's services are told changes at once, the rest waits for a restart by name.
import { expect, it, vi } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { testDirectory } from "../../../test/support/directory.ts";
import { callbackLog } from "../../base/log.ts";
import type { Ground } from "../../contracts/ground.ts";
import { minidisc } from "./setup.ts";

const did: string[] = [];
vi.mock("./peer.ts", () => ({
  createPeer: () => ({
    state: () => ({ ok: true, text: "", absent: false, tailnet: undefined }),
    async advertise() {
      did.push("told");
      return { update: () => {}, stop: () => void did.push("withdrawn") };
    },
    looked: async () => {},
    async *follow(signal: AbortSignal) {
      yield { services: [], hosts: [] };
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    },
    moved: (signal: AbortSignal) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true })),
    stop: async () => void did.push("stopped"),
  }),
}));

it("tells this host's services or not, from now on", async () => {
  const clock = fakeClock();
  const said: string[] = [];
  const untilAborted = (_after: unknown, signal: AbortSignal): Promise<never> =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
  const part = await minidisc.setup(minidisc.configure({ announce: false }), {
    ...{ clock, directory: testDirectory(clock), processes: { env: () => undefined } },
    agent: { node: {}, services: () => new Map(), checks: () => new Map(), version: () => 1, changed: untilAborted },
    log: callbackLog((level, _part, text) => void said.push(`${level} ${text}`)),
  } as unknown as Ground);
  const become = async (raw: unknown): Promise<readonly string[]> => {
    await part?.reload?.({ raw });
    await clock.advance(100);
    return did.splice(0);
  };
  part?.background?.start();
  await clock.advance(100);
  expect(did).toEqual([]);
  expect(await become({ announce: true })).toEqual(["told"]);
  expect(await become(true)).toEqual([]);
  expect(await become({ announce: false })).toEqual(["withdrawn", "stopped"]);
  expect(await become(true)).toEqual(["told"]);
  expect(said).toEqual([]);
  // Those of the others are followed on: nothing but this host's own ends.
  const stop = new AbortController();
  const following = (async () => {
    for await (const _list of part?.source?.watch(stop.signal) ?? []);
  })();
  await clock.advance(100);
  expect(await become({ announce: false })).toEqual(["withdrawn"]);
  expect(await become(true)).toEqual(["told"]);
  stop.abort();
  await following;
  expect(await become({ socket: "/elsewhere" })).toEqual([]);
  expect(said.splice(0)).toEqual([
    "warn minidisc.socket or minidisc.proxy is another one now: it counts after a restart",
  ]);
  await expect(part?.reload?.({ raw: { announced: true } })).rejects.toThrow("minidisc.announced");
  await part?.background?.stop();
  expect([did, said, clock.timers]).toEqual([["withdrawn", "stopped"], [], 0]);
});
