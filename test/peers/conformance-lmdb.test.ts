// The recorded scenarios of Consul, with an agent that keeps what it holds on disk.
import { beforeAll, describe, expect, it } from "vitest";
import { type Replayed, replayAll, scenarios } from "../support/kit.ts";

describe("as Consul 1.19.2 answered, with lmdb", () => {
  let rows: ReadonlyMap<string, Replayed>;
  beforeAll(async () => {
    rows = await replayAll("-data-dir {folder}/$$");
  }, 600_000);

  it.each(scenarios)("%s", (name) => {
    const row = rows.get(name);
    expect(row, `${name} was not run`).toBeDefined();
    expect(row?.differences).toEqual([]);
    expect(row?.passed).toBeGreaterThan(0);
  });
});
