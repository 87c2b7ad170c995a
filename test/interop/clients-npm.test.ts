// Node's client of Consul (npm consul 2.0.1) against a whole agent: services, watches, catalog, keys, locks, queries, events, transactions.
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { npmWith, runClient } from "../support/clients.ts";
import { startAgent } from "../support/ground.ts";
import { ownFolder } from "../support/peers.ts";

describe("npm consul", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  beforeAll(async () => {
    folder = await ownFolder("npm-consul");
    await npmWith(folder.path, "consul@2.0.1");
  });
  afterAll(() => folder?.remove());

  it("does what Node programs do", async () => {
    const agent = await startAgent();
    try {
      const program = join(import.meta.dirname, "clients/npm-consul.cjs");
      const options = { env: { CONSUL_HTTP_ADDR: agent.url }, timeoutMs: 50_000 };
      expect(await runClient([process.execPath, program, folder.path], options)).toEqual({
        exitCode: 0,
        output: "ok\n",
      });
      expect(agent.errors).toEqual([]);
    } finally {
      await agent.stop();
    }
  });
});
