// Trilith's agent held against the recorded answers of a real Consul 1.19.2, scenario by scenario (test/conformance/consul/README.md).
import { beforeAll, describe, expect, it } from "vitest";
import { type Replays, replayAll, scenarios } from "../support/kit.ts";

describe("as Consul 1.19.2 answered", () => {
  let replays: Replays;
  beforeAll(async () => {
    replays = await replayAll("-dev");
  });

  it.each(scenarios)("%s", async (name) => {
    const { differences, passed } = await replays.of(name);
    expect(differences).toEqual([]);
    expect(passed).toBeGreaterThan(0);
  });
});
