// Consul's own Go client (github.com/hashicorp/consul/api 1.29.4, with its lock, semaphore and watch recipes) against a whole agent.
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildGo, haveGo, runClient } from "../../support/clients.ts";
import { type RunningAgent, startAgent } from "../../support/ground.ts";
import { ownFolder } from "../../support/peers.ts";

const there = await haveGo();

describe.runIf(there)("Consul's Go client", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let program: string;
  let agent: RunningAgent;
  beforeAll(async () => {
    folder = await ownFolder("go-api");
    program = await buildGo(folder.path, "go-api", { folder: join(import.meta.dirname, "go-api") });
  }, 300_000);
  afterAll(() => folder?.remove());

  it.each([
    ["service", "registers, follows by blocking queries, turns critical, is in maintenance and goes"],
    ["catalog", "enters an outside node, changes its check, and takes it out"],
    ["watches", "runs watch plans of eight types"],
    ["kv", "keeps bytes and flags, compares and sets, lists, follows and deletes"],
    ["lock", "locks, waits, hands over, and is told when its session ends"],
    ["semaphore", "lets no more than two hold at once"],
    ["election", "elects ten leaders, one after the other"],
    ["session", "renews, ends, is bound to checks, and runs out"],
    ["query", "makes, executes, changes and deletes prepared queries and templates"],
    ["event", "fires and follows events"],
    ["txn", "changes keys, nodes, services and checks together or not at all"],
    ["snapshot", "saves and restores"],
    ["cluster", "asks what programs ask before they begin"],
  ])("%s: %s", async (scenario) => {
    agent = await startAgent();
    try {
      const env = { CONSUL_HTTP_ADDR: agent.url };
      expect(await runClient([program, scenario], { env, timeoutMs: 55_000 })).toEqual({
        exitCode: 0,
        output: `ok ${scenario}\n`,
      });
      expect(agent.errors).toEqual([]);
    } finally {
      await agent.stop();
    }
  });
});
