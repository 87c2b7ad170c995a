// The client of the commands against an agent: names of every kind arrive as they were given.
import { expect, it } from "vitest";
import { startAgent } from "../../test/support/ground.ts";
import { clientFor, segment } from "./client.ts";

it.each([".", "..", "...", "a/b", "a b?c#d", "żółć", "%2E"])(
  "a service called %j is registered, asked for and taken out",
  async (id) => {
    const agent = await startAgent();
    const client = clientFor({ httpAddr: agent.url }, { env: () => undefined, signal: new AbortController().signal });
    try {
      await client.request("PUT", "/v1/agent/service/register", { body: JSON.stringify({ Name: id, Port: 1 }) });
      expect(await client.get(`/v1/trilith/find/${segment(id)}`)).toMatchObject({ service: id, known: true });
      await client.request("PUT", `/v1/agent/service/deregister/${segment(id)}`);
      expect(agent.trilith.agent.services().has(id)).toBe(false);
    } finally {
      await client.close();
      await agent.stop();
    }
  },
);
