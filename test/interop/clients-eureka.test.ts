// Node's client of Eureka (npm eureka-js-client 4.5.0) against a whole agent, with full fetches and with deltas.
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { npmWith, runClient } from "../support/clients.ts";
import { startAgent } from "../support/ground.ts";
import { ownFolder } from "../support/peers.ts";

describe("npm eureka-js-client", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  beforeAll(async () => {
    folder = await ownFolder("npm-eureka");
    await npmWith(folder.path, "eureka-js-client@4.5.0");
  });
  afterAll(() => folder?.remove());

  it.each([["false"], ["true"]])("registers, finds, and sees others go (delta: %s)", async (delta) => {
    const agent = await startAgent();
    try {
      await fetch(`${agent.url}/v1/agent/service/register`, {
        method: "PUT",
        body: JSON.stringify({ Name: "web", Address: "192.0.2.1", Port: 80 }),
      });
      const program = join(import.meta.dirname, "clients/eureka-js.cjs");
      const options = { env: { EUREKA_ADDR: agent.url, EUREKA_DELTA: delta }, timeoutMs: 50_000 };
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
