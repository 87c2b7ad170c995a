// The table at the place where programs look that are told of none: one that an agent left that is gone misleads them, and is told.
import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ownFolder } from "../../../test/support/peers.ts";
import { systemDisk } from "../../base/disk.ts";
import { lockFolder } from "../../base/lock.ts";
import type { Composer } from "./composer.ts";
import type { Keeper } from "./keeper.ts";
import { openPlace } from "./place.ts";
import type { Suspicions } from "./suspicions.ts";
import { hookStates } from "./tell.ts";

let folder: Awaited<ReturnType<typeof ownFolder>>;
beforeEach(async () => {
  folder = await ownFolder("place");
});
afterEach(async () => await folder.remove());

test("one that an agent left there that is gone is told, as long as it is there and nobody writes it", async () => {
  const usual = join(folder.path, "usual", "table");
  const place = await openPlace(join(folder.path, "own", "table"), systemDisk, usual);
  const now = async (): Promise<string | undefined> => {
    await place.identity();
    return place.usual;
  };
  expect(place.usual).toBeUndefined();
  await mkdir(dirname(usual));
  await writeFile(usual, "old");
  expect(await now()).toMatch(
    /usual\/table was left by an agent that is gone, .*remove it, or give hook\.table that path$/,
  );
  const other = await lockFolder(dirname(usual));
  expect(await now()).toBeUndefined();
  await other.release();
  expect(await now()).toContain("was left by an agent");
  await rm(usual);
  expect(await now()).toBeUndefined();
  await place.close();
});

test("doctor says it", () => {
  const place = { file: { path: "/run/x/table" }, usual: "there was left one", limits: undefined };
  const states = hookStates({
    clock: { now: () => 0 },
    keeper: { standing: () => ({ place, written: undefined }) } as unknown as Keeper,
    composer: { complaints: () => [] } as unknown as Composer,
    suspicions: { count: () => 0, unread: () => 0, trouble: () => undefined } as unknown as Suspicions,
    ...{ placed: false, host: { now: undefined } },
  });
  expect(states.map(({ ok, text }) => `${ok} ${text}`)).toEqual([
    "true table /run/x/table: not written yet",
    "false there was left one",
  ]);
});

test("this agent's own one is none of them", async () => {
  const usual = join(folder.path, "usual", "table");
  await mkdir(dirname(usual));
  await writeFile(usual, "old", { mode: 0o644 });
  const place = await openPlace(usual, systemDisk, usual);
  expect(place.usual).toBeUndefined();
  await place.close();
});
