// Requests of undici to a service, against real HTTP servers: spread, handed on while nothing was sent, and never to what is gone.
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { Readable } from "node:stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { freePort } from "../../../test/support/peers.ts";
import { silentPorts } from "../../../test/support/silent-ports.ts";
import { systemClock } from "../../base/clock.ts";
import { TrilithError } from "../../base/error.ts";
import { systemRandom } from "../../base/random.ts";
import { systemTcp } from "../../base/tcp.ts";
import type { ConnectPolicy } from "../../contracts/connect.ts";
import { createBalancer } from "../balance/create.ts";
import type { Names } from "../grpc/names.ts";
import type { Followed } from "./followed.ts";
import { ServiceDispatcher } from "./service-dispatcher.ts";

const ORIGIN = "http://web.service.consul";

describe("a service's dispatcher", () => {
  let servers: { server: Server; port: number; requests: number; sockets: number }[];
  let names: Names | undefined;
  let failing: Error | undefined;
  let told: ((names: Names) => void) | undefined;
  let followed: Followed;
  const dispatchers: ServiceDispatcher[] = [];

  const start = async (): Promise<number> => {
    const one = { requests: 0, sockets: 0, port: 0, server: createServer() };
    one.server.on("request", (request, response) => {
      one.requests++;
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const text = `${request.headers.host} ${Buffer.concat(chunks)}`;
        if (request.url === "/slow") setTimeout(() => response.end(text), 100);
        else response.end(text);
      });
    });
    one.server.on("connection", () => one.sockets++);
    // Longer than a test may take: only we close connections.
    one.server.keepAliveTimeout = 120_000;
    one.server.listen(0, "127.0.0.1");
    await once(one.server, "listening");
    one.port = (one.server.address() as AddressInfo).port;
    servers.push(one);
    return one.port;
  };
  const know = (...ports: number[]): void => {
    names = {
      fresh: true,
      known: true,
      endpoints: ports.map((port) => ({ addresses: [{ host: "127.0.0.1", port }], weight: 1, labels: {} })),
    };
    told?.(names);
  };
  const create = (policy: ConnectPolicy = "round-robin"): ServiceDispatcher => {
    const made = new ServiceDispatcher({
      sought: { service: "web", labels: {} },
      origin: ORIGIN,
      followed,
      balancer: createBalancer({ clock: systemClock, random: systemRandom }),
      clock: systemClock,
      tcp: systemTcp,
      policy,
      options: { keepAliveTimeout: 120_000, keepAliveMaxTimeout: 120_000 },
    });
    dispatchers.push(made);
    return made;
  };
  const get = async (made: ServiceDispatcher, path = "/", body?: string | Readable): Promise<string> => {
    const method = body === undefined ? "GET" : "POST";
    const answer = await made.request({ origin: ORIGIN, path, method, ...(body === undefined ? {} : { body }) });
    return await answer.body.text();
  };

  beforeEach(() => {
    servers = [];
    names = undefined;
    failing = undefined;
    told = undefined;
    followed = {
      peek: () => names,
      async now() {
        await systemClock.yield();
        if (failing !== undefined) throw failing;
        return names as Names;
      },
      changed(_, listener) {
        told = listener;
        return {
          stop() {
            told = undefined;
          },
        };
      },
    };
  });
  afterEach(async () => {
    await Promise.all(dispatchers.splice(0).map((each) => each.destroy()));
    for (const { server } of servers) {
      server.closeAllConnections();
      server.close();
    }
  });

  it("gives each request to an instance, by its name", async () => {
    know(await start(), await start());
    const made = create();
    for (let i = 0; i < 6; i++) expect(await get(made)).toBe("web.service.consul ");
    expect(servers.map(({ requests }) => requests)).toEqual([3, 3]);
    // Connections are kept.
    expect(servers.map(({ sockets }) => sockets)).toEqual([1, 1]);
  });

  it("hands a request on where its instance cannot be reached, whatever its body is", async () => {
    know(await freePort(), await freePort(), await start());
    const made = create("first");
    expect(await get(made)).toBe("web.service.consul ");
    expect(await get(made, "/", "text")).toBe("web.service.consul text");
    expect(await get(made, "/", Readable.from(["a", "b"].map((each) => Buffer.from(each))))).toBe(
      "web.service.consul ab",
    );
    expect(servers[0]?.requests).toBe(3);
    const all = await Promise.all(Array.from({ length: 20 }, () => get(made)));
    expect(new Set(all)).toEqual(new Set(["web.service.consul "]));
  });

  it("fails with the last instance's error where none is reached, and in words where there is none", async () => {
    const port = await freePort();
    know(await freePort(), port);
    const made = create("first");
    await expect(get(made)).rejects.toMatchObject({ code: "ECONNREFUSED" });
    know();
    await expect(get(made)).rejects.toThrow('service "web" has no instance that fits and is healthy');
    names = { fresh: true, known: false, endpoints: [] };
    await expect(get(made)).rejects.toThrow('there is no service "web"');
  });

  it("says what is wrong with a request, and does not hand on what has begun", async () => {
    const port = await start();
    know(port, await start());
    const made = create("first");
    await expect(made.request({ origin: ORIGIN, path: "no slash", method: "GET" })).rejects.toMatchObject({
      code: "UND_ERR_INVALID_ARG",
    });
    let begun = 0;
    for (const { server } of servers) {
      server.removeAllListeners("request");
      server.on("request", (request) => {
        begun++;
        request.socket.destroy();
      });
    }
    // The other side's end, or its reset: whichever is read first.
    await expect(get(made)).rejects.toMatchObject({ code: expect.stringMatching(/^(UND_ERR_SOCKET|ECONNRESET)$/) });
    expect(begun).toBe(1);
  });

  it("gives nothing to what is gone, lets it end what it has, and closes its connections", async () => {
    know(await start());
    const sockets: Socket[] = [];
    const closed = new Promise((resolve) =>
      servers[0]?.server.on("connection", (socket: Socket) => {
        sockets.push(socket.once("close", resolve));
      }),
    );
    const made = create();
    const slow = get(made, "/slow");
    await once(servers[0]?.server as Server, "request");
    know(await start());
    for (let i = 0; i < 3; i++) await get(made);
    expect(await slow).toBe("web.service.consul ");
    expect(servers.map(({ requests }) => requests)).toEqual([1, 3]);
    expect(sockets).toHaveLength(1);
    await closed;
  });

  it("waits for the first answer, says why there is none, and ends when it is told", async () => {
    const port = await start();
    const made = create();
    const early = get(made);
    know(port);
    names = { ...(names as unknown as Names) };
    expect(await early).toBe("web.service.consul ");
    names = undefined;
    failing = new TrilithError("unavailable", "no agent answers");
    await expect(get(create())).rejects.toThrow("no agent answers");
    know(port);
    const slow = get(made, "/slow");
    await made.close();
    expect(await slow).toBe("web.service.consul ");
    expect(told).toBeUndefined();
    await expect(get(made)).rejects.toThrow("the dispatcher is closed");
  });

  it("does not wait for silent instances one after the other", async () => {
    const silent = await silentPorts(7);
    try {
      const live = await start();
      const refused = await freePort();
      // The live one is last: whoever has a weight comes first.
      names = {
        fresh: true,
        known: true,
        endpoints: [...silent.ports, refused, live].map((port) => ({
          addresses: [{ host: "127.0.0.1", port }],
          weight: port === live ? 0 : 1,
          labels: {},
        })),
      };
      const made = create("first");
      const began = performance.now();
      // One second for the first of them, then the others are looked at at once.
      expect(await get(made)).toBe("web.service.consul ");
      expect(performance.now() - began).toBeGreaterThan(900);
      expect(servers[0]?.requests).toBe(1);
      know(...silent.ports);
      await expect(get(create("first"))).rejects.toMatchObject({ code: "UND_ERR_CONNECT_TIMEOUT" });
    } finally {
      silent.stop();
    }
  });
});
