// The recorded scenarios of Consul while two other processes want a core each all the time.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Replays, replayAll, scenarios } from "../support/kit.ts";

describe("as Consul 1.19.2 answered, under load", () => {
  const busy: ChildProcess[] = [];
  let replays: Replays;
  beforeAll(async () => {
    // Ends by itself should nobody be left to end it.
    const loop = "const end = Date.now() + 600_000; while (Date.now() < end);";
    for (let i = 0; i < 2; i++) busy.push(spawn(process.execPath, ["-e", loop], { stdio: "ignore" }));
    replays = await replayAll("-dev");
    for (const process of busy) expect(process.exitCode, "the load ended before the scenarios did").toBeNull();
  }, 600_000);
  afterAll(async () => {
    for (const process of busy) {
      process.kill("SIGKILL");
      if (process.exitCode === null && process.signalCode === null) await once(process, "exit");
    }
  });

  it.each(scenarios)("%s", async (name) => {
    const { differences, passed } = await replays.of(name);
    expect(differences).toEqual([]);
    expect(passed).toBeGreaterThan(0);
  });
});
