// The recorded scenarios of Consul, with an agent that keeps what it holds on disk.
import { beforeAll, describe, expect, it } from "vitest";
import { type Replays, replayAll, scenarios } from "../support/kit.ts";

describe("as Consul 1.19.2 answered, with lmdb", () => {
  let replays: Replays;
  beforeAll(async () => {
    replays = await replayAll("-data-dir {folder}/$$");
  }, 600_000);

  it.each(scenarios)("%s", async (name) => {
    const { differences, passed } = await replays.of(name);
    expect(differences).toEqual([]);
    expect(passed).toBeGreaterThan(0);
  });
});
