// Tests where HTTP is served: at every client address, each of which is told.
import { expect, test } from "vitest";
import { startAgent } from "../../test/support/ground.ts";

test("several client addresses are all listened at, and all told", async () => {
  const agent = await startAgent({ clientAddress: "127.0.0.1 127.0.0.2" });
  try {
    const { listening } = agent.trilith.self;
    const places = [listening.get("http"), listening.get("http-more")];
    expect(places).toEqual([
      expect.stringMatching(/^127\.0\.0\.1:\d+$/) as string,
      expect.stringMatching(/^127\.0\.0\.2:\d+$/) as string,
    ]);
    for (const place of places) expect((await fetch(`http://${place}/v1/agent/self`)).status).toBe(200);
  } finally {
    await agent.stop();
  }
});
