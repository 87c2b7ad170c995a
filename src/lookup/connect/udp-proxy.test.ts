// A UDP port that stands for a service: clients keep their backend, answers come back, what does not listen is left; with real sockets on loopback.
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { once } from "node:events";
import { afterEach, describe, expect, it, vi } from "vitest";
import { at, type TestConnector, testConnector } from "../../../test/support/connect.ts";
import type { ProxyListener, ProxyOptions } from "../../contracts/connect.ts";

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

const open = async (message: (bytes: Buffer, from: RemoteInfo, socket: Socket) => void, port = 0): Promise<Socket> => {
  const socket = createSocket("udp4");
  socket.on("message", (bytes, from) => message(bytes, from, socket));
  socket.on("error", () => {});
  socket.bind(port, "127.0.0.1");
  await once(socket, "listening");
  ends.push(() => close(socket));
  return socket;
};
const close = (socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    try {
      socket.close(() => resolve());
    } catch {
      resolve();
    }
  });
const echo = (word: string, port = 0): Promise<Socket> =>
  open((bytes, from, socket) => socket.send(`${word} ${bytes}`, from.port, from.address), port);
const over = (backends: readonly Socket[]): TestConnector => {
  const made = testConnector(backends.map((socket) => at(socket.address().port)));
  ends.push(() => made.connector.stop(0));
  return made;
};
const proxy = (made: TestConnector, options: ProxyOptions = {}): Promise<ProxyListener> =>
  made.connector.proxy({ host: "127.0.0.1", port: 0, protocol: "udp" }, { service: "dns" }, options);

interface Client {
  readonly heard: string[];
  ask(text: string): Promise<string>;
  say(text: string): void;
}
const client = async (port: number): Promise<Client> => {
  const heard: string[] = [];
  const socket = await open((bytes) => void heard.push(String(bytes)));
  return {
    heard,
    say: (text) => socket.send(text, port, "127.0.0.1"),
    async ask(text) {
      const before = heard.length;
      socket.send(text, port, "127.0.0.1");
      await vi.waitFor(() => expect(heard.length).toBeGreaterThan(before), { interval: 5 });
      return heard[before] as string;
    },
  };
};

describe("a UDP proxy", () => {
  it("gives each client one backend, and the answers back to whom they belong", async () => {
    const made = over([await echo("a"), await echo("b"), await echo("c")]);
    const { port } = await proxy(made, { policy: "round-robin" });
    const words = new Set<string>();
    for (let i = 0; i < 6; i++) {
      const one = await client(port);
      const answers = [await one.ask(`1-${i}`), await one.ask(`2-${i}`), await one.ask(`3-${i}`)];
      const word = answers[0]?.slice(0, 1);
      expect(answers).toEqual([`${word} 1-${i}`, `${word} 2-${i}`, `${word} 3-${i}`]);
      words.add(word as string);
    }
    expect([...words].sort()).toEqual(["a", "b", "c"]);
    const status = made.connector.proxies()[0]?.status();
    expect(status).toMatchObject({ protocol: "udp", open: 6, total: 6, failed: 0, toBackend: 54, toClient: 90 });
    expect(status?.backends.map(({ open: now }) => now)).toEqual([2, 2, 2]);
  });

  it("sends what was not heard to another backend", async () => {
    const [gone, alive] = [await echo("gone"), await echo("alive")];
    const made = over([gone, alive]);
    await close(gone);
    const { port } = await proxy(made, { policy: "first" });
    const one = await client(port);
    expect(await one.ask("hello")).toBe("alive hello");
    expect(made.refused).toEqual([`dns 127.0.0.1:${made.backends[0]?.port}`]);
    expect(made.connector.proxies()[0]?.status()).toMatchObject({ retries: 1, failed: 0, open: 1 });
  });

  it("moves a client whose backend dies under it", async () => {
    const [first, second] = [await echo("first"), await echo("second")];
    const made = over([first, second]);
    const { port } = await proxy(made, { policy: "first" });
    const one = await client(port);
    expect(await one.ask("1")).toBe("first 1");
    await close(first);
    expect(await one.ask("2")).toBe("second 2");
    expect(await one.ask("3")).toBe("second 3");
  });

  it("leaves a backend that is listed no more and has fallen silent, without any word of the network", async () => {
    let mute = false;
    const silent = await open((bytes, from, socket) => {
      if (!mute) socket.send(`silent ${bytes}`, from.port, from.address);
    });
    const made = over([silent]);
    const { port } = await proxy(made);
    const one = await client(port);
    expect(await one.ask("1")).toBe("silent 1");
    mute = true;
    made.backends = [at((await echo("next")).address().port)];
    const beganMs = performance.now();
    await vi.waitFor(
      () => {
        one.say("again");
        expect(one.heard.at(-1)).toBe("next again");
      },
      { timeout: 10_000, interval: 100 },
    );
    expect(performance.now() - beganMs).toBeGreaterThan(1_500);
  });

  it("forgets clients that are silent, and makes room for new ones", async () => {
    const made = over([await echo("a")]);
    const { port, status } = await proxy(made, { idleMs: 200, clients: 3 });
    const early: Client[] = [];
    for (let i = 0; i < 3; i++) {
      early.push(await client(port));
      await early[i]?.ask("hello");
    }
    await (await client(port)).ask("hello");
    const listener = made.connector.proxies()[0] as ProxyListener;
    expect(listener.status()).toMatchObject({ open: 3, total: 4 });
    await vi.waitFor(() => expect(listener.status().open).toBe(0));
    expect(await early[0]?.ask("again")).toBe("a again");
    expect(listener.status()).toMatchObject({ open: 1, total: 5 });
    expect(status).toBeTypeOf("function");
  });

  it("a datagram for nobody is dropped, and why is told", async () => {
    const made = over([]);
    const { port } = await proxy(made);
    const listener = made.connector.proxies()[0] as ProxyListener;
    const one = await client(port);
    one.say("hello");
    await vi.waitFor(() => expect(listener.status().failed).toBe(1));
    expect(listener.status()).toMatchObject({
      open: 0,
      lastFailure: 'service "dns" has no instance that fits and is healthy',
    });
    made.backends = [at((await echo("there")).address().port)];
    expect(await one.ask("hello")).toBe("there hello");
  });

  it("stop: an answer that is on its way still comes, then nothing is left", async () => {
    const slow = await open((bytes, from, socket) => {
      setTimeout(() => socket.send(`slow ${bytes}`, from.port, from.address), 300);
    });
    const made = over([slow]);
    const listener = await proxy(made);
    const one = await client(listener.port);
    const answer = one.ask("hello");
    await vi.waitFor(() => expect(listener.status().toBackend).toBeGreaterThan(0));
    const stopped = listener.stop();
    expect(await answer).toBe("slow hello");
    await stopped;
    expect(listener.status()).toMatchObject({ open: 0, draining: true });
    expect(made.connector.proxies()).toEqual([]);
    // The port is free.
    await open(() => {}, listener.port);
  });
});
