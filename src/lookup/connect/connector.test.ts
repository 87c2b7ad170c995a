// One connection to a service, and what stands behind a name: labels, tiers, transports, other datacenters.
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { all, at, closedPort, serve, type TestConnector, testConnector } from "../../../test/support/connect.ts";
import { callbackLog } from "../../base/log.ts";
import type { Answer, Endpoint, Query } from "../../model/query.ts";
import { backendsBy } from "./backends.ts";

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});
const saying = async (word: string): Promise<number> => {
  const server = await serve((socket) => socket.resume().end(word));
  ends.push(() => server.close());
  return server.port;
};
const over = (...args: Parameters<typeof testConnector>): TestConnector => {
  const made = testConnector(...args);
  ends.push(() => made.connector.stop(0));
  return made;
};

describe("dial", () => {
  it("gives a socket to the next backend where one refuses, and says how many did", async () => {
    const [dead, port] = [await closedPort(), await saying("hello")];
    const made = over([at(dead), at(port)]);
    const { socket, backend, retries } = await made.connector.dial({ service: "web" }, { policy: "first" });
    expect({ backend, retries }).toEqual({ backend: { address: "127.0.0.1", port }, retries: 1 });
    const heard = all(socket);
    socket.resume();
    expect(String(await heard)).toBe("hello");
    socket.end();
    await once(socket, "close");
  });

  it("says why there is none: unknown, none to use, all tried, too late", async () => {
    const made = over([]);
    await expect(made.connector.dial({ service: "web" })).rejects.toMatchObject({
      code: "not-found",
      message: 'service "web" has no instance that fits and is healthy',
    });
    made.known = false;
    await expect(
      made.connector.dial({ service: "web", tags: ["primary"], labels: { env: "prod" } }),
    ).rejects.toMatchObject({
      code: "not-found",
      message: 'there is no service "primary.web?env=prod"',
    });
    made.known = true;
    made.backends = [at(await closedPort())];
    await expect(made.connector.dial({ service: "web" }, { limitMs: 100 })).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringMatching(
        /^no instance of "web" could be reached: connecting to 127\.0\.0\.1:\d+: .*ECONNREFUSED/,
      ),
    });
  });

  it("ends with the signal, while it connects and while it waits", async () => {
    const made = over([at(await closedPort())]);
    const stop = new AbortController();
    const dialing = made.connector.dial({ service: "web" }, { signal: stop.signal, limitMs: 60_000 });
    setTimeout(() => stop.abort(new Error("enough")), 100);
    await expect(dialing).rejects.toThrow("enough");
    await expect(made.connector.dial({ service: "web" }, { signal: stop.signal })).rejects.toThrow("enough");
  });
});

describe("the backends of a query", () => {
  const endpoint = (
    port: number,
    more: { labels?: Record<string, string>; tags?: readonly string[]; node?: string; zone?: string; at?: string } = {},
  ): Endpoint =>
    ({
      address: more.at ?? "192.0.2.1",
      port,
      weight: 2,
      resident: {
        instance: {
          node: more.node ?? "far",
          address: more.at ?? "",
          labels: more.labels ?? {},
          tags: more.tags ?? [],
        },
        node: {
          name: more.node ?? "far",
          address: "192.0.2.1",
          labels: more.zone === undefined ? {} : { zone: more.zone },
        },
      },
    }) as never;
  const answer = (endpoints: readonly Endpoint[], known = true): Answer => ({
    endpoints,
    known,
    fresh: true,
    ageMs: 0,
    index: 1,
  });
  const warned: string[] = [];
  beforeEach(() => void warned.splice(0));
  const finding = (now: () => Answer, later: Answer = answer([], false)): ReturnType<typeof backendsBy> =>
    backendsBy({
      lookup: {
        resolveNow: (query: Query) => {
          expect(query).toMatchObject({ order: "stable", asker: "127.0.0.1" });
          return now();
        },
        resolve: async () => later,
      },
      own: () => ({ name: "Alpha", labels: { zone: "eu" } }),
      ownAddresses: () => (address) => address === "192.0.2.9",
      log: callbackLog((_, __, text) => void warned.push(text)),
    });

  it("carry what instances ask for, how near they are and over what they are reached; one list as long as nothing changes", () => {
    const endpoints = [
      endpoint(1, { node: "alpha", labels: { "trilith.balance": "least", "trilith.try": "nonsense" } }),
      endpoint(2, { zone: "eu", labels: { "trilith.try": "250ms" } }),
      endpoint(3, { zone: "us", tags: ["udp"] }),
    ];
    const find = finding(() => answer(endpoints));
    const found = find({ service: "web" });
    expect(found).toEqual({
      endpoints: [
        { address: "192.0.2.1", port: 1, weight: 2, tier: 0 },
        { address: "192.0.2.1", port: 2, weight: 2, tier: 1 },
        { address: "192.0.2.1", port: 3, weight: 2, tier: 2, transport: "udp" },
      ],
      policy: "least",
      tryMs: 250,
      known: true,
      fresh: true,
    });
    const again = find({ service: "web" });
    expect("endpoints" in again && "endpoints" in found && again.endpoints === found.endpoints).toBe(true);
    expect(warned).toEqual([expect.stringMatching(/^service web: label trilith\.try=nonsense: /)]);
    const anywhere = finding(() => answer([endpoint(1, { node: "alpha", labels: { "trilith.locality": "off" } })]));
    expect(anywhere({ service: "web" })).toMatchObject({ endpoints: [{ tier: 2 }] });
  });

  it("are not this host's where they are only registered here, with somebody else's address or name", () => {
    const told = ["192.0.2.9", "192.0.2.7", "db.example", "localhost", "alpha.example"];
    const endpoints = told.map((at, i) => endpoint(i, { node: "alpha", zone: "eu", at }));
    const find = finding(() => answer(endpoints));
    const { endpoints: found } = find({ service: "web" }) as { endpoints: readonly { tier?: number }[] };
    expect(found.map(({ tier }) => tier)).toEqual([0, 2, 2, 0, 0]);
  });

  it("are asked of others where nobody here knows them", async () => {
    const find = finding(() => answer([], false), answer([endpoint(7)]));
    expect(await find({ service: "web", datacenter: "dc2" })).toMatchObject({ known: true, endpoints: [{ port: 7 }] });
  });
});
