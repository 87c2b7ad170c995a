// Python's client of Consul (py-consul 1.8.0) against a whole agent: services, catalog, keys, locks, sessions, queries, events, transactions.
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { havePython, pythonWith, runClient } from "../support/clients.ts";
import { startAgent } from "../support/ground.ts";
import { ownFolder } from "../support/peers.ts";

const there = await havePython();

describe.runIf(there)("py-consul", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let python: string;
  beforeAll(async () => {
    folder = await ownFolder("py-consul");
    python = await pythonWith(folder.path, "py-consul==1.8.0");
  });
  afterAll(() => folder?.remove());

  it("does what Python programs do", async () => {
    const agent = await startAgent();
    try {
      const program = join(import.meta.dirname, "clients/py-consul.py");
      const env = { CONSUL_HTTP_ADDR: agent.url };
      expect(await runClient([python, program], { env, timeoutMs: 50_000 })).toEqual({ exitCode: 0, output: "ok\n" });
      expect(agent.errors).toEqual([]);
    } finally {
      await agent.stop();
    }
  });
});
