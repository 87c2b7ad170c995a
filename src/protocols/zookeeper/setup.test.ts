// What a reload of the configuration says where it needs a restart.
import { expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { testDirectory } from "../../../test/support/directory.ts";
import { callbackLog } from "../../base/log.ts";
import type { Ground } from "../../contracts/ground.ts";
import { zookeeper } from "./setup.ts";

const ANNOUNCE = [{ service: "web", path: "/discovery/web" }];
const SETS = [{ path: "/discovery/db" }];

it("a reload says what counts after a restart only: what is written, who is told, sets where there were none", async () => {
  const said: string[] = [];
  const clock = fakeClock();
  const partOf = async (raw: object) =>
    await zookeeper.setup(zookeeper.configure(raw), {
      ...{ clock, directory: testDirectory(clock), lookup: {}, agent: {}, leaving: () => false },
      ...{ log: callbackLog((level, _part, text) => void said.push(`${level} ${text}`)), self: { node: "home" } },
    } as unknown as Ground);
  const servers = "127.0.0.1:2181";
  const afterRestart = /^warn zookeeper\.announce, or who is told, is another one now: .* after a restart$/;

  const writing = await partOf({ servers, announce: ANNOUNCE });
  await writing?.reload?.();
  await writing?.reload?.({ raw: { servers, announce: ANNOUNCE } });
  expect(said).toEqual([]);
  await writing?.reload?.({ raw: { servers: "127.0.0.1:2182", announce: ANNOUNCE } });
  expect(said.splice(0)).toEqual([expect.stringMatching(afterRestart)]);
  await writing?.reload?.({ raw: { servers, announce: ANNOUNCE, sets: SETS } });
  expect(said.splice(0)).toEqual(["warn zookeeper.sets was empty when this agent started: a restart reads them"]);
  await writing?.reload?.({ raw: undefined });
  expect(said.splice(0)).toEqual([expect.stringMatching(afterRestart)]);

  // Sets are read from the new servers at once.
  const reading = await partOf({ servers, sets: SETS });
  await reading?.reload?.({ raw: { servers: "127.0.0.1:2182", sets: SETS } });
  expect(said).toEqual([]);
  await reading?.reload?.({ raw: { servers, sets: SETS, announce: ANNOUNCE } });
  expect(said).toEqual([expect.stringMatching(afterRestart)]);
});
