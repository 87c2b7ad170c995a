// Listening sockets that were handed over to a proxy: for whom it connects, and that it never connects to itself.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { ask, at, serve, testConnector } from "../../../test/support/connect.ts";
import type { ProxyOn } from "../../contracts/connect.ts";

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

const saying = async (word: string): Promise<number> => {
  const server = await serve((socket) => socket.resume().end(word));
  ends.push(() => server.close());
  return server.port;
};
const listening = async (): Promise<Extract<ProxyOn, { server: unknown }> & { readonly port: number }> => {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, port: (server.address() as AddressInfo).port };
};

describe("a socket that was handed over", () => {
  it("in this namespace is no backend of its own", async () => {
    const { server, port } = await listening();
    const made = testConnector([at(port), at(await saying("another"))]);
    ends.push(() => made.connector.stop(0));
    await made.connector.proxy({ server, here: true }, { service: "web" }, { policy: "first" });
    expect(await ask(port, "")).toBe("another");
    const { retries, total } = made.connector.proxies()[0]?.status() ?? {};
    expect({ retries, total }).toEqual({ retries: 0, total: 1 });
  });

  it("by UDP is no TCP backend", async () => {
    const port = await saying("tcp");
    const datagrams = createSocket("udp4").bind(port, "127.0.0.1");
    await once(datagrams, "listening");
    const { server, port: own } = await listening();
    const made = testConnector([at(port)]);
    ends.push(() => made.connector.stop(0));
    await made.connector.proxy({ datagrams, here: true }, { service: "web" });
    await made.connector.proxy({ server, here: true }, { service: "web" });
    expect(await ask(own, "")).toBe("tcp");
  });

  it("connects for the caller that it stands for, as all clients have one address", async () => {
    const made = testConnector(await Promise.all(["a", "b", "c", "d"].map(async (word) => at(await saying(word)))));
    ends.push(() => made.connector.stop(0));
    const chosen = new Set<string>();
    for (let i = 0; i < 12; i++) {
      const { server, port } = await listening();
      const options = { policy: "sticky", caller: `container ${i}` } as const;
      await made.connector.proxy({ server, here: true }, { service: "web" }, options);
      const first = await ask(port, "");
      expect(await ask(port, "")).toBe(first);
      chosen.add(first);
    }
    expect(chosen.size).toBeGreaterThan(1);
  });
});
