// Netflix's own client of Eureka (eureka-client 1.10.18, on Java) against a whole agent.
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { runClient } from "../support/clients.ts";
import { startAgent } from "../support/ground.ts";
import { havePrograms, ownFolder } from "../support/peers.ts";

describe.runIf(await havePrograms("mvn", "javac"))("eureka-client on Java", () => {
  it("registers, finds what came in through other dialects, changes its status and goes", async () => {
    const folder = await ownFolder("eureka-java");
    const agent = await startAgent();
    try {
      await cp(join(import.meta.dirname, "clients/eureka-java"), folder.path, { recursive: true });
      const inFolder = async (...command: string[]): Promise<void> => {
        expect(await runClient(command, { cwd: folder.path, timeoutMs: 240_000 })).toMatchObject({ exitCode: 0 });
      };
      await inFolder("mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib");
      await inFolder("javac", "-cp", "lib/*", "-d", "out", "Main.java");
      await fetch(`${agent.url}/v1/agent/service/register`, {
        method: "PUT",
        body: JSON.stringify({ Name: "web", Address: "192.0.2.1", Port: 80 }),
      });
      const ended = await runClient(["java", "-cp", "lib/*:out", "Main"], {
        cwd: folder.path,
        env: { EUREKA_URL: `${agent.url}/eureka/` },
        timeoutMs: 120_000,
      });
      expect(ended).toMatchObject({ exitCode: 0, output: expect.stringMatching(/^ok$/m) as unknown });
      expect(agent.errors).toEqual([]);
    } finally {
      await agent.stop();
      await folder.remove();
    }
  }, 600_000);
});
