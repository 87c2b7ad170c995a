// A TCP port that stands for a service: who is tried, what passes through, how it ends; with real sockets on loopback.
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { all, ask, at, closedPort, serve, type TestConnector, testConnector } from "../../../test/support/connect.ts";
import { systemClock } from "../../base/clock.ts";
import { TrilithError } from "../../base/error.ts";
import { systemTcp } from "../../base/tcp.ts";
import type { ProxyListener, ProxyOptions } from "../../contracts/connect.ts";

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

const backend = async (connection: (socket: Socket) => void): Promise<number> => {
  const server = await serve(connection);
  ends.push(() => server.close());
  return server.port;
};
const saying = (word: string): Promise<number> => backend((socket) => socket.resume().end(word));
const echo = (): Promise<number> => backend((socket) => socket.pipe(socket));
const over = (...args: Parameters<typeof testConnector>): TestConnector => {
  const made = testConnector(...args);
  ends.push(() => made.connector.stop(0));
  return made;
};
const proxy = (made: TestConnector, options: ProxyOptions = {}): Promise<ProxyListener> =>
  made.connector.proxy({ host: "127.0.0.1", port: 0 }, { service: "web" }, options);

describe("a TCP proxy", () => {
  it("passes on what both say, and the end of each direction by itself", async () => {
    const port = await backend(async (socket) => {
      socket.write("hello ");
      socket.end(`got ${(await all(socket)).length}`);
    });
    const made = over([at(port)]);
    const { port: own, status } = await proxy(made);
    expect(await ask(own, "x".repeat(70_000))).toBe("hello got 70000");
    await vi.waitFor(() => expect(made.connector.proxies()[0]?.status().open).toBe(0));
    const { total, failed, toBackend, toClient, backends } = made.connector.proxies()[0]?.status() ?? {};
    expect({ total, failed, toBackend, toClient }).toEqual({ total: 1, failed: 0, toBackend: 70_000, toClient: 15 });
    expect(backends).toEqual([
      { address: "127.0.0.1", port, open: 0, total: 1, failures: 0, toBackend: 70_000, toClient: 15 },
    ]);
    expect(status).toBeTypeOf("function");
  });

  it("carries megabytes both ways at once without a byte lost, whoever is slower", async () => {
    const made = over([at(await echo())]);
    const { port } = await proxy(made);
    const sent = randomBytes(24 * 1_048_576);
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    const heard = createHash("sha256");
    let bytes = 0;
    socket.on("data", (chunk: Buffer) => {
      heard.update(chunk);
      bytes += chunk.length;
      // Now and then the reader sleeps, so that the buffers on the way fill up.
      if (bytes % 5 === 0) {
        socket.pause();
        setTimeout(() => socket.resume(), 3);
      }
    });
    socket.end(sent);
    await once(socket, "end");
    expect(bytes).toBe(sent.length);
    expect(heard.digest("hex")).toBe(createHash("sha256").update(sent).digest("hex"));
  });

  it("holds back a sender whose reader takes nothing", async () => {
    const got: Socket[] = [];
    const made = over([at(await backend((socket) => void got.push(socket.pause())))]);
    const { port } = await proxy(made);
    const socket = connect({ port, host: "127.0.0.1" });
    ends.push(async () => socket.destroy());
    let sent = 0;
    const chunk = Buffer.alloc(1_048_576);
    const push = (): void => {
      while (sent < 64 && socket.write(chunk)) sent++;
    };
    socket.on("drain", () => {
      sent++;
      push();
    });
    push();
    // What the kernel's buffers take goes; then it stands still.
    let before = -1;
    await vi.waitFor(
      () => {
        const now = made.connector.proxies()[0]?.status().toBackend ?? 0;
        const still = now > 0 && now === before;
        before = now;
        expect(still).toBe(true);
      },
      { interval: 200 },
    );
    expect(sent).toBeLessThan(64);
    const heard = once(got[0] as Socket, "end");
    got[0]?.resume();
    await vi.waitFor(() => expect(sent).toBe(64));
    socket.end();
    await heard;
    expect(made.connector.proxies()[0]?.status().toBackend).toBe(64 * chunk.length);
  });

  it("tries the next backend where one refuses, and tells the lookup of it", async () => {
    const [dead, alive] = [await closedPort(), await saying("alive")];
    const made = over([at(dead), at(alive)]);
    const { port } = await proxy(made, { policy: "first" });
    for (let i = 0; i < 5; i++) expect(await ask(port)).toBe("alive");
    const status = made.connector.proxies()[0]?.status();
    // After the first time it is known, and left out for a second.
    expect(status).toMatchObject({ total: 5, failed: 0, retries: 1 });
    expect(made.refused).toEqual([`web 127.0.0.1:${dead}`]);
  });

  it("tries the next backend where one does not answer in time", async () => {
    const alive = await saying("alive");
    const made = over([at(9), at(alive)], {
      tcp: {
        ...systemTcp,
        // A host that is silent.
        connect: (to, options) =>
          to.port === 9 ? new Promise((_, reject) => options?.started?.(reject)) : systemTcp.connect(to, options),
      },
    });
    const { port } = await proxy(made, { policy: "first", tryMs: 150 });
    const beganMs = performance.now();
    expect(await ask(port)).toBe("alive");
    expect(performance.now() - beganMs).toBeGreaterThan(140);
    expect(made.connector.proxies()[0]?.status()).toMatchObject({ failed: 0, retries: 1 });
    expect(made.refused).toEqual([]);
  });

  it("tries the next backend where one takes the connection and cuts it before anything was said", async () => {
    const cutting = await backend((socket) => socket.resetAndDestroy());
    const made = over([at(cutting), at(await saying("alive"))]);
    const { port } = await proxy(made, { policy: "first" });
    const socket = connect({ port, host: "127.0.0.1" });
    expect((await all(socket)).toString()).toBe("alive");
    expect(made.connector.proxies()[0]?.status()).toMatchObject({ total: 1, failed: 0, retries: 1 });
  });

  it("tries the next backend where one ends the connection before anything was said, as one that is killed does", async () => {
    let taken = 0;
    const ending = await backend((socket) => {
      taken++;
      socket.end();
    });
    const made = over([at(ending), at(await saying("alive"))]);
    const { port } = await proxy(made, { policy: "first" });
    expect((await all(connect({ port, host: "127.0.0.1" }))).toString()).toBe("alive");
    expect(made.connector.proxies()[0]?.status()).toMatchObject({ total: 1, failed: 0, retries: 1 });
    // Who is alone means it, and where all do, the client is told.
    made.backends = [at(ending)];
    taken = 0;
    expect((await all(connect({ port, host: "127.0.0.1" }))).toString()).toBe("");
    expect(taken).toBe(1);
    made.backends = [at(ending), at(await backend((socket) => socket.end()))];
    expect((await all(connect({ port, host: "127.0.0.1" }))).toString()).toBe("");
    expect(made.connector.proxies()[0]?.status()).toMatchObject({ total: 3, failed: 0 });
  });

  it("gives up on backends that take connections only to cut them", async () => {
    let cuts = 0;
    const made = over([
      at(
        await backend((socket) => {
          cuts++;
          socket.resetAndDestroy();
        }),
      ),
    ]);
    // Where the cut comes in the very moment of the connection, it is a try in vain, and they end with the limit.
    const { port } = await proxy(made, { limitMs: 200 });
    await expect(all(connect({ port, host: "127.0.0.1" }))).rejects.toThrow(/ECONNRESET/);
    expect(cuts).toBeGreaterThan(1);
    expect(cuts).toBeLessThan(20);
  });

  it("cuts the client where nobody can be reached, and says why", async () => {
    const dead = await closedPort();
    const made = over([at(dead)]);
    const { port } = await proxy(made, { limitMs: 200 });
    await expect(ask(port, "hello")).rejects.toThrow(/ECONNRESET|EPIPE/);
    expect(made.connector.proxies()[0]?.status()).toMatchObject({ failed: 1, open: 0 });
    expect(made.connector.proxies()[0]?.status().lastFailure).toMatch(
      /^no instance of "web" could be reached: connecting to 127\.0\.0\.1:\d+: .*ECONNREFUSED/,
    );
    made.backends = [];
    await expect(ask(port, "hello")).rejects.toThrow(/ECONNRESET|EPIPE/);
    expect(made.connector.proxies()[0]?.status().lastFailure).toBe(
      'service "web" has no instance that fits and is healthy',
    );
    made.known = false;
    await expect(ask(port)).rejects.toThrow(/ECONNRESET|EPIPE/);
    expect(made.connector.proxies()[0]?.status().lastFailure).toBe('there is no service "web"');
  });

  it("waits for a backend that comes back within the limit", async () => {
    const server = await serve((socket) => socket.end("back"));
    await server.close();
    const made = over([at(server.port)]);
    const { port } = await proxy(made);
    const answer = ask(port);
    await vi.waitFor(() => expect(made.refused.length).toBeGreaterThan(0));
    const again = await serve((socket) => socket.end("back"), server.port);
    ends.push(() => again.close());
    expect(await answer).toBe("back");
  });

  it("waits for who knows the service, within the limit", async () => {
    const port = await saying("known");
    let asked = 0;
    const made = over([], {
      find: async () => {
        if (++asked < 4) throw new TrilithError("unavailable", "no agent answers");
        return { endpoints: [at(port)], known: true, fresh: true };
      },
    });
    const listener = await proxy(made);
    expect(await ask(listener.port)).toBe("known");
    asked = Number.NEGATIVE_INFINITY;
    const hasty = await proxy(made, { limitMs: 100 });
    await expect(ask(hasty.port, "hello")).rejects.toThrow(/ECONNRESET|EPIPE/);
    expect(hasty.status().lastFailure).toBe("no agent answers");
    // Whoever dials by itself is told at once.
    await expect(made.connector.dial({ service: "web" })).rejects.toThrow("no agent answers");
  });

  it("mirrors resets, in both directions, after what was sent before", async () => {
    const got: Socket[] = [];
    const cut: string[] = [];
    const port = await backend((socket) => {
      got.push(socket);
      socket.on("error", (error: NodeJS.ErrnoException) => cut.push(error.code ?? ""));
      socket.on("data", (data) => {
        if (data.toString() !== "go") return;
        socket.write("last words");
        setImmediate(() => socket.resetAndDestroy());
      });
    });
    const made = over([at(port)]);
    const { port: own } = await proxy(made);
    const first = connect({ port: own, host: "127.0.0.1" });
    let heard = "";
    first.on("data", (data) => {
      heard += data;
    });
    first.write("go");
    const [error] = (await once(first, "error")) as [NodeJS.ErrnoException];
    expect([error.code, heard]).toEqual(["ECONNRESET", "last words"]);
    const second = connect({ port: own, host: "127.0.0.1" });
    await once(second, "connect");
    second.write("hm");
    await vi.waitFor(() => expect(got).toHaveLength(2));
    second.resetAndDestroy();
    await vi.waitFor(() => expect(cut).toEqual(["ECONNRESET"]));
    await vi.waitFor(() => expect(made.connector.proxies()[0]?.status().open).toBe(0));
  });

  it("serves everybody while its backends come and go, and its figures add up in the end", async () => {
    const servers = await Promise.all(["a", "b", "c"].map((word) => serve((socket) => socket.resume().end(word))));
    const ports = servers.map(({ port }) => port);
    const made = over(ports.map((port) => at(port)));
    const listener = await proxy(made);
    let enough = false;
    let asked = 0;
    let heardBytes = 0;
    let lost = 0;
    const client = async (): Promise<void> => {
      while (!enough) {
        asked++;
        // A connection that its backend took and had not served when that ended is lost with it.
        const word = await ask(listener.port, "hello").catch(() => "");
        if (word === "") lost++;
        heardBytes += word.length;
      }
    };
    const clients = Array.from({ length: 8 }, client);
    for (let round = 0; round < 12; round++) {
      const i = round % 3;
      const before = asked;
      // One is listed that is gone, one that is there is not, one is both.
      await servers[i]?.close();
      made.backends = ports.filter((_, k) => k !== (i + 1) % 3).map((port) => at(port, { weight: round + 1 }));
      await vi.waitFor(() => expect(asked).toBeGreaterThan(before + 20));
      servers[i] = await serve((socket) => socket.resume().end("x"), ports[i]);
    }
    enough = true;
    await Promise.all(clients);
    await vi.waitFor(() => expect(listener.status().open).toBe(0));
    for (const server of servers) await server.close();
    const { total, failed, retries, toBackend, toClient, backends } = listener.status();
    expect({ total, failed, toClient }).toEqual({ total: asked, failed: 0, toClient: heardBytes });
    expect(heardBytes + lost).toBe(asked);
    const sum = (key: "open" | "total" | "failures" | "toBackend" | "toClient"): number =>
      backends.reduce((all, each) => all + each[key], 0);
    expect({ open: sum("open"), failures: sum("failures") }).toEqual({ open: 0, failures: retries });
    expect([sum("toBackend"), sum("toClient")]).toEqual([toBackend, toClient]);
    expect(retries).toBeGreaterThan(0);
    // Who was taken and left at once counts at each backend that took it.
    expect(sum("total")).toBeGreaterThanOrEqual(total);
    expect(sum("total")).toBeLessThanOrEqual(total + retries);
  });

  it("leaves established connections alone when their backend is gone from the list", async () => {
    const made = over([at(await echo())]);
    const { port } = await proxy(made);
    const socket = connect({ port, host: "127.0.0.1" });
    socket.write("one");
    expect(String((await once(socket, "data"))[0])).toBe("one");
    made.backends = [at(await saying("new"))];
    socket.write("two");
    expect(String((await once(socket, "data"))[0])).toBe("two");
    expect(await ask(port)).toBe("new");
    socket.destroy();
  });

  it("uses the client's port for backends that have none, and leaves out those of UDP and itself", async () => {
    const made = over([]);
    const listener = await proxy(made);
    made.backends = [at(listener.port), at(53, { transport: "udp" })];
    await expect(ask(listener.port)).rejects.toThrow(/ECONNRESET|EPIPE/);
    expect(listener.status().lastFailure).toBe('service "web" has no instance that is reached over TCP');
    const far = await serve((socket) => socket.end("same port"), listener.port, "127.0.0.2");
    ends.push(() => far.close());
    made.backends = [at(0, { address: "127.0.0.2" })];
    expect(await ask(listener.port)).toBe("same port");
  });

  it("that listens on all addresses is not its own backend at any of them", async () => {
    const made = over([], { interfaces: () => [{ address: "192.0.2.7" }] });
    const { port } = await made.connector.proxy({ host: "0.0.0.0", port: 0 }, { service: "web" });
    for (const address of ["127.0.0.1", "192.0.2.7"]) {
      made.backends = [at(port, { address })];
      await expect(made.connector.dial({ service: "web" })).rejects.toThrow(/no instance that is reached over TCP/);
    }
    made.backends = [at(port, { address: "192.0.2.8" })];
    await expect(made.connector.dial({ service: "web" }, { limitMs: 50 })).rejects.toThrow(/could be reached/);
  });

  it.each([
    [1, /^PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 (\d+) (\d+)\r\nhello$/],
    [2, /^\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01(..)(..)hello$/s],
  ] as const)("tells the backend who connects by PROXY protocol %i", async (version, expected) => {
    const heard: string[] = [];
    const port = await backend(async (socket) => {
      const said = await all(socket);
      heard.push(said.toString("latin1"));
      socket.end();
    });
    const made = over([at(port)]);
    const { port: own } = await proxy(made, { proxyProtocol: version });
    const socket = connect({ port: own, host: "127.0.0.1", allowHalfOpen: true });
    await once(socket, "connect");
    const { localPort } = socket;
    socket.end("hello");
    await all(socket);
    const [, from = "", to = ""] = expected.exec(heard[0] ?? "") ?? [];
    const number = (text: string): number =>
      version === 1 ? Number(text) : Buffer.from(text, "latin1").readUInt16BE();
    expect([number(from), number(to)]).toEqual([localPort, own]);
  });

  it("serves IPv6 clients with IPv4 backends", async () => {
    const heard: string[] = [];
    const backendPort = await backend(async (socket) => {
      heard.push(String(await all(socket)));
      socket.end("hello");
    });
    const made = over([at(backendPort)]);
    for (const [host, asked, line] of [
      ["::1", "::1", /^PROXY TCP6 ::1 ::1 \d+ \d+\r\n$/],
      ["::", "127.0.0.1", /^PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 \d+ \d+\r\n$/],
    ] as const) {
      const { port } = await made.connector.proxy({ host, port: 0 }, { service: "web" }, { proxyProtocol: 1 });
      expect(await ask(port, "", asked)).toBe("hello");
      expect(heard.at(-1)).toMatch(line);
    }
  });

  it("passes on at once what comes in small pieces, and finds out who is gone: options are the listener's, or set on lasting connections", async () => {
    const server = await backend((socket) => socket.pipe(socket));
    const probe = createServer().listen(0);
    await once(probe, "listening");
    const prototype = Object.getPrototypeOf((probe as unknown as { _handle: object })._handle) as {
      setNoDelay(on: boolean): number;
      setKeepAlive(on: boolean, seconds: number): number;
    };
    probe.close();
    const clock = fakeClock();
    const made = over([at(server)], { clock: { ...systemClock, after: clock.after } });
    const noDelay = vi.spyOn(prototype, "setNoDelay");
    const keepAlive = vi.spyOn(prototype, "setKeepAlive");
    try {
      const { port } = await proxy(made);
      expect([noDelay.mock.calls, keepAlive.mock.calls]).toEqual([[[true]], [[true, 60]]]);
      await new Promise((resolve) => setTimeout(resolve, 1_100));
      const socket = connect({ port, host: "127.0.0.1" });
      ends.push(async () => socket.destroy());
      socket.write("hello");
      await once(socket, "data");
      // The backend's side; the client's has it from the listener.
      expect([noDelay.mock.calls.length, keepAlive.mock.calls.length]).toEqual([2, 1]);
      await clock.advance(59_000);
      expect(keepAlive.mock.calls).toHaveLength(1);
      await clock.advance(1_000);
      expect(keepAlive.mock.calls).toEqual([
        [true, 60],
        [true, 60],
      ]);
      await clock.advance(60_000);
      expect(keepAlive.mock.calls).toHaveLength(2);
    } finally {
      noDelay.mockRestore();
      keepAlive.mockRestore();
    }
  });

  it("stop: listens no more, lets what is open end, then cuts it; twice is once", async () => {
    const made = over([at(await echo())]);
    const listener = await proxy(made);
    const [early, late] = [0, 1].map(() => connect({ port: listener.port, host: "127.0.0.1", allowHalfOpen: true }));
    for (const socket of [early, late] as Socket[]) {
      socket.write("hello");
      await once(socket, "data");
    }
    const stopped = listener.stop(Number.POSITIVE_INFINITY);
    await expect(ask(listener.port)).rejects.toThrow(/ECONNREFUSED/);
    expect(listener.status()).toMatchObject({ draining: true, open: 2 });
    early?.end("bye");
    expect(String((await once(early as Socket, "data"))[0])).toBe("bye");
    await once(early as Socket, "end");
    await vi.waitFor(() => expect(listener.status().open).toBe(1));
    // Less patience counts, more does not.
    const cut = once(late as Socket, "error");
    const again = listener.stop(50);
    void listener.stop(20_000);
    expect(((await cut) as [NodeJS.ErrnoException])[0].code).toBe("ECONNRESET");
    await Promise.all([stopped, again]);
    expect(made.connector.proxies()).toEqual([]);
    expect(listener.status().open).toBe(0);
  });

  it("stop: who still waits for a backend is cut, too, and nothing is left", async () => {
    const dead = await closedPort();
    const made = over([at(dead)]);
    const listener = await proxy(made, { limitMs: 60_000 });
    const waiting = ask(listener.port, "hello");
    await vi.waitFor(() => expect(made.refused.length).toBeGreaterThan(2));
    const cut = expect(waiting).rejects.toThrow(/ECONNRESET/);
    await listener.stop(0);
    await cut;
    const tries = made.refused.length;
    await new Promise((resolve) => setTimeout(resolve, 900));
    expect(made.refused).toHaveLength(tries);
    expect(listener.status()).toMatchObject({ open: 0, failed: 0 });
  });

  it("lets any number of clients wait for the service without a warning", async () => {
    const warnings: Error[] = [];
    const warned = (warning: Error): void => void warnings.push(warning);
    process.on("warning", warned);
    let found: ((value: { endpoints: ReturnType<typeof at>[]; known: true; fresh: true }) => void) | undefined;
    const endpoints = new Promise<{ endpoints: ReturnType<typeof at>[]; known: true; fresh: true }>((resolve) => {
      found = resolve;
    });
    let waiting = 0;
    const made = over([], {
      find(_, signal) {
        waiting++;
        signal?.addEventListener("abort", () => {});
        return endpoints;
      },
    });
    const { port } = await proxy(made);
    const all = Array.from({ length: 20 }, (_, i) => ask(port, `${i}`));
    await vi.waitFor(() => expect(waiting).toBe(20));
    found?.({ endpoints: [at(await echo())], known: true, fresh: true });
    expect(await Promise.all(all)).toEqual(Array.from({ length: 20 }, (_, i) => `${i}`));
    process.off("warning", warned);
    expect(warnings).toEqual([]);
  });

  it("keeps some files free whoever has the others, where the system would close clients without a word", async () => {
    const port = await echo();
    const first = connect(port, "127.0.0.1");
    await once(first, "connect");
    const { fd } = (first as unknown as { _handle: { fd: number } })._handle;
    first.destroy();
    // Each connection takes four here: the client and the backend are this process, too.
    const made = over([at(port)], { filesLimit: fd + 16 + 20 });
    const listener = await proxy(made);
    const sockets: Socket[] = [];
    const said = async (): Promise<string> => {
      const socket = connect({ port: listener.port, host: "127.0.0.1" });
      sockets.push(socket);
      socket.write("hello");
      return await new Promise((resolve) => {
        socket.once("data", (data) => resolve(String(data)));
        socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
      });
    };
    const words: string[] = [];
    for (let i = 0; i < 12; i++) words.push(await said());
    const served = words.filter((word) => word === "hello").length;
    expect(served).toBeGreaterThan(1);
    expect(served).toBeLessThan(8);
    expect(listener.status()).toMatchObject({ open: served, refused: 12 - served, failed: 0 });
    expect(made.warned).toEqual([expect.stringMatching(/^too many connections: \d+ are open/)]);
    for (const socket of sockets) socket.destroy();
    await vi.waitFor(() => expect(listener.status().open).toBe(0));
    expect(await said()).toBe("hello");
    sockets.at(-1)?.destroy();
  });

  it("counts and tells of clients for whom the system had no file left, and of no other trouble of the system", async () => {
    const made = over([at(await echo())]);
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const listener = await made.connector.proxy({ server }, { service: "web" });
    const { _handle: handle } = server as unknown as { _handle: { onconnection(error: number): void } };
    // ECONNABORTED, EMFILE, ENFILE as libuv numbers them on Linux.
    for (const error of [-103, -24, -23]) handle.onconnection(error);
    expect(listener.status()).toMatchObject({ refused: 2, open: 0, failed: 0 });
    expect(made.warned).toEqual([expect.stringMatching(/^too many connections: 0 are open/)]);
  });

  it("takes no more connections than files allow, and says so once", async () => {
    const made = over([at(await echo())], { filesLimit: 160 });
    const { port, status } = await proxy(made);
    const sockets = Array.from({ length: 20 }, () => connect({ port, host: "127.0.0.1" }));
    ends.push(async () => void sockets.map((socket) => socket.destroy()));
    const results = await Promise.all(
      sockets.map(
        (socket) =>
          new Promise<string>((resolve) => {
            socket.once("data", (data) => resolve(String(data)));
            socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
            socket.write("hello");
          }),
      ),
    );
    expect(results.filter((each) => each === "hello")).toHaveLength(16);
    expect(made.connector.proxies()[0]?.status()).toMatchObject({ open: 16, refused: 4 });
    expect(made.warned).toEqual([expect.stringMatching(/^too many connections: 16 are open, .* 160 files/)]);
    expect(status).toBeTypeOf("function");
  });

  it("goes on after this process was short of files for a moment", async () => {
    let short = 3;
    const made = over([at(await saying("there"))], {
      tcp: {
        ...systemTcp,
        connect: (...args) =>
          short-- > 0
            ? Promise.reject(Object.assign(new Error("connect EMFILE"), { code: "EMFILE" }))
            : systemTcp.connect(...args),
      },
    });
    const { port } = await proxy(made);
    expect(await ask(port)).toBe("there");
    expect(made.connector.proxies()[0]?.status()).toMatchObject({ failed: 0, retries: 0 });
    expect(made.refused).toEqual([]);
  });
});
