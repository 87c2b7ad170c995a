// Tests where HTTP is served: at every client address, each of which is told.

import { once } from "node:events";
import { createServer } from "node:net";
import { expect, test } from "vitest";
import { startAgent } from "../../test/support/ground.ts";
import { freePort } from "../../test/support/peers.ts";

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

test("where one of several client addresses is taken none is listened at, and a reload may try again", async () => {
  const port = await freePort();
  const taken = createServer().listen(port, "127.0.0.2");
  await once(taken, "listening");
  const off = { api: false, consul: false, eureka: false, shim: false, proxy: false, process: false };
  let protocols: Readonly<Record<string, unknown>> = off;
  const settings = { clientAddress: "127.0.0.1 127.0.0.2", httpPort: port };
  const agent = await startAgent({ ...settings, protocols }, { reread: async () => ({ ...settings, protocols }) });
  try {
    const { listening } = agent.trilith.self;
    protocols = { ...off, api: true };
    await expect(agent.trilith.reload()).rejects.toMatchObject({ code: "address-in-use" });
    expect(listening.has("http")).toBe(false);
    await expect(fetch(`http://127.0.0.1:${port}/v1/trilith/list`)).rejects.toThrow();
    taken.close();
    await once(taken, "close");
    await agent.trilith.reload();
    expect([listening.get("http"), listening.get("http-more")]).toEqual([`127.0.0.1:${port}`, `127.0.0.2:${port}`]);
    expect((await fetch(`http://127.0.0.1:${port}/v1/trilith/list`)).status).toBe(200);
  } finally {
    taken.close();
    await agent.stop();
  }
});

test("what is wrong with an address is told with what to do about it", async () => {
  // RFC 5737's addresses are nobody's.
  await expect(startAgent({ clientAddress: "192.0.2.1" })).rejects.toThrow(
    /192\.0\.2\.1:\d+: .*this host has no such address/,
  );
});
