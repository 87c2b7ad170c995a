// Trilith's agent held against the recorded answers of a real Consul 1.19.2, scenario by scenario (test/conformance/consul/README.md).
import { beforeAll, describe, expect, it } from "vitest";
import { type Replayed, replayAll, scenarios } from "../support/kit.ts";

describe("as Consul 1.19.2 answered", () => {
  let rows: ReadonlyMap<string, Replayed>;
  beforeAll(async () => {
    rows = await replayAll("-dev");
  });

  it.each(scenarios)("%s", (name) => {
    const row = rows.get(name);
    expect(row, `${name} was not run`).toBeDefined();
    expect(row?.differences).toEqual([]);
    expect(row?.passed).toBeGreaterThan(0);
  });
});
