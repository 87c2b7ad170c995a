// Rewritten connections, datagrams and names in this very process: what is ours goes elsewhere, and nothing else notices.
import { AsyncLocalStorage } from "node:async_hooks";
import dgram from "node:dgram";
import dns, { lookup as importedLookup } from "node:dns";
import { lookup as importedPromise } from "node:dns/promises";
import { once } from "node:events";
import {
  type AddressInfo,
  BlockList,
  connect,
  createServer,
  type LookupFunction,
  type NetConnectOpts,
  type Server,
  Socket,
} from "node:net";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { freePort } from "../../test/support/peers.ts";
import { silentPorts } from "../../test/support/silent-ports.ts";
import { hookNode, type OwnAddresses, type Rewrite, type Try, type TryOutcome } from "./node-hook.ts";

const MAGIC = "127.128.0.1";
const MAGIC6 = "fd12:3456:789a::1";
const OWN: OwnAddresses = { v4: MAGIC, v6: MAGIC6, any: [4, 6] };

const listen = async (server: Server, host = "127.0.0.1"): Promise<number> => {
  server.listen(0, host);
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
};

describe("a hooked Node", () => {
  let tries: { address: string; port: number; limitMs?: number }[];
  let outcomes: (string | TryOutcome)[];
  let onOutcome: (() => void) | undefined;
  let rewrite: Rewrite;
  let hook: { undo(): void };
  let server: Server;
  let port: number;
  let accepted: Socket[];

  beforeEach(async () => {
    tries = [];
    outcomes = [];
    accepted = [];
    rewrite = {
      name: (host) => (host === "web.service.consul" ? OWN : undefined),
      isOwn: (address) => address === MAGIC || address === MAGIC6,
      connection(address) {
        if (address !== MAGIC && address !== MAGIC6) return undefined;
        let next = 0;
        return (): Try | undefined => {
          const each = tries[next];
          if (each !== undefined) next++;
          const ended = ({ ...outcome }: TryOutcome): void => {
            outcomes.push(outcome.ok ? "ok" : outcome.code);
            onOutcome?.();
          };
          return each && { ...each, ended };
        };
      },
      datagram: (address) => (address === MAGIC ? (tries[0] ?? "nobody") : undefined),
    };
    hook = hookNode(rewrite);
    server = createServer((socket) => {
      accepted.push(socket);
      socket.on("error", () => {});
      socket.end("hello");
    });
    port = await listen(server);
  });

  afterEach(async () => {
    vi.useRealTimers();
    hook.undo();
    for (const socket of accepted) socket.destroy();
    server.close();
    await once(server, "close");
  });

  /** Connects and reads to the end. */
  const talk = async (options: NetConnectOpts): Promise<string> => {
    const socket = connect(options);
    let text = "";
    socket.on("data", (chunk) => {
      text += String(chunk);
    });
    await once(socket, "close");
    return text;
  };

  it("leads a connection by name and by address to the backend's address and port", async () => {
    tries = [{ address: "127.0.0.1", port }];
    for (const host of ["web.service.consul", MAGIC]) expect(await talk({ host, port: 80 })).toBe("hello");
    expect(await talk({ host: "web.service.consul", port: 80, family: 4 })).toBe("hello");
    expect(outcomes).toEqual(["ok", "ok", "ok"]);
    const socket = connect({ host: MAGIC, port: 80 });
    await once(socket, "connect");
    expect([socket.remoteAddress, socket.remotePort]).toEqual(["127.0.0.1", port]);
    socket.destroy();
  });

  it("tries the next one where one refuses, keeping what was asked of the socket", async () => {
    const dead = await freePort();
    tries = [
      { address: "127.0.0.1", port: dead },
      { address: "127.0.0.1", port: dead },
      { address: "127.0.0.1", port },
    ];
    const events: string[] = [];
    const socket = connect({ host: MAGIC, port: 80, localAddress: "127.0.0.9" });
    for (const name of ["lookup", "connect", "ready", "error", "close"]) socket.on(name, () => events.push(name));
    socket.write("early");
    socket.unref();
    expect(socket.connecting).toBe(true);
    await once(socket, "connect");
    expect(accepted[0]?.remoteAddress ?? socket.localAddress).toBe("127.0.0.9");
    expect((socket as unknown as { _handle: { hasRef(): boolean } })._handle.hasRef()).toBe(false);
    socket.ref();
    socket.resume();
    await once(socket, "close");
    expect(events).toEqual(["connect", "ready", "close"]);
    expect(outcomes).toEqual(["ECONNREFUSED", "ECONNREFUSED", "ok"]);
  });

  it("fails as Node does, naming what was tried last, or at once where nobody is", async () => {
    const dead = await freePort();
    tries = [{ address: "127.0.0.1", port: dead }];
    const [error] = (await once(
      connect({ host: MAGIC, port: 80 }).on("connect", () => {}),
      "close",
    ).then(
      () => [],
      (each: unknown) => [each],
    )) as [NodeJS.ErrnoException | undefined];
    expect(error).toMatchObject({ code: "ECONNREFUSED", syscall: "connect", address: "127.0.0.1", port: dead });
    expect(error?.message).toBe(`connect ECONNREFUSED 127.0.0.1:${dead}`);
    tries = [];
    await expect(once(connect({ host: MAGIC, port: 80 }), "connect")).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });

  it("hands out nothing that was given up: destroyed, aborted, blocked", async () => {
    const dead = await freePort();
    tries = [
      { address: "127.0.0.1", port: dead },
      { address: "127.0.0.1", port },
    ];
    const socket = connect({ host: MAGIC, port: 80 });
    await new Promise((resolve) => process.nextTick(resolve));
    socket.destroy();
    await once(socket, "close");
    const over = new AbortController();
    const aborted = new Socket({ signal: over.signal });
    aborted.connect({ host: MAGIC, port: 80 });
    process.nextTick(() => over.abort());
    await expect(once(aborted, "connect")).rejects.toMatchObject({ code: "ABORT_ERR" });
    const list = new BlockList();
    list.addAddress("127.0.0.1");
    const blocked = Object.assign(new Socket(), { blockList: list });
    blocked.connect({ host: MAGIC, port: 80 });
    await expect(once(blocked, "connect")).rejects.toMatchObject({ code: "ECONNREFUSED" });
    expect(accepted).toHaveLength(0);
    expect(outcomes).toEqual([]);
  });

  it("does not wait for silent ones: another is tried beside them, and they have failed", async () => {
    const silent = await silentPorts(7);
    try {
      tries = [
        ...silent.ports.map((each) => ({ address: "127.0.0.1", port: each, limitMs: 20_000 })),
        { address: "127.0.0.1", port },
      ];
      const began = performance.now();
      const socket = connect({ host: MAGIC, port: 80, localAddress: "127.0.0.9" });
      expect(String((await once(socket, "data"))[0])).toBe("hello");
      expect([socket.localAddress, socket.remotePort, accepted.length]).toEqual(["127.0.0.9", port, 1]);
      // One, after 250 ms one more, 100 ms later two more, then four. No more than a lower bound: machines may be slow.
      expect(performance.now() - began).toBeGreaterThan(440);
      expect(outcomes).toEqual(["ok", ...Array(4).fill("ETIMEDOUT")]);
      await once(socket, "close");
      // One that refuses among the silent ones is replaced at once.
      tries = [
        { ...tries[0], limitMs: 300 } as Try,
        { address: "127.0.0.1", port: await freePort(), limitMs: 20_000 },
        { address: "127.0.0.1", port },
      ];
      outcomes = [];
      expect(await talk({ host: MAGIC, port: 80 })).toBe("hello");
      expect(outcomes).toEqual(["ECONNREFUSED", "ok", "ETIMEDOUT"]);
      // Somebody who comes while it is waited for.
      tries = [{ address: "127.0.0.1", port: silent.ports[0] as number }];
      outcomes = [];
      const late = talk({ host: MAGIC, port: 80 });
      setTimeout(() => tries.push({ address: "127.0.0.1", port }), 300);
      expect(await late).toBe("hello");
      // Nobody else: it is waited for, and the others are told of its silence.
      tries = [{ ...tries[0], limitMs: 100 } as Try, { ...tries[0], port: silent.ports[1], limitMs: 100 } as Try];
      outcomes = [];
      const waiting = connect({ host: MAGIC, port: 80 });
      await vi.waitUntil(() => outcomes.length === 2);
      expect([outcomes, waiting.connecting]).toEqual([["ETIMEDOUT", "ETIMEDOUT"], true]);
      waiting.destroy();
      await once(waiting, "close");
      expect(outcomes).toHaveLength(2);
    } finally {
      silent.stop();
    }
  });

  it("ends all that is under way when the program gives up, and keeps nothing open", async () => {
    const silent = await silentPorts(4);
    try {
      tries = silent.ports.map((each) => ({ address: "127.0.0.1", port: each, limitMs: 20_000 }));
      const open = (): number => process.getActiveResourcesInfo().filter((each) => each.startsWith("TCP")).length;
      const before = open();
      const socket = connect({ host: MAGIC, port: 80 });
      await vi.waitUntil(() => open() > before + 2);
      socket.destroy();
      await once(socket, "close");
      await vi.waitUntil(() => open() <= before);
      expect(outcomes).toEqual([]);
      // In the very moment in which the one beside it connects, or is refused.
      server.removeAllListeners("connection");
      const ended: Promise<unknown>[] = [];
      server.on("connection", (one) => ended.push(once(one.on("error", () => {}).resume(), "close")));
      for (const second of [port, await freePort()]) {
        tries = [
          { address: "127.0.0.1", port: silent.ports[0] as number, limitMs: 20_000 },
          { address: "127.0.0.1", port: second, limitMs: 20_000 },
        ];
        const last = connect({ host: MAGIC, port: 80 });
        onOutcome = () => last.destroy();
        await once(last, "close");
        onOutcome = undefined;
      }
      await vi.waitUntil(() => ended.length === 1);
      await Promise.all(ended);
      await vi.waitUntil(() => open() <= before);
    } finally {
      silent.stop();
    }
  });

  it("takes no silence of its own for a backend's", async () => {
    tries = [
      { address: "127.0.0.1", port, limitMs: 0 },
      { address: "127.0.0.1", port },
    ];
    const socket = connect({ host: MAGIC, port: 80 });
    await new Promise((resolve) => process.nextTick(resolve));
    // The event loop stands still for longer than the limit, and after that timers come first. The connection was made long ago.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    expect(await new Promise((resolve) => socket.once("data", (chunk) => resolve(String(chunk))))).toBe("hello");
    expect(outcomes).toEqual(["ok"]);
    await once(socket, "close");
    expect(accepted).toHaveLength(1);
  });

  it("leaves alone what is connected, also when the time of a try is over", async () => {
    server.removeAllListeners("connection");
    server.on("connection", (socket) => {
      accepted.push(socket.on("error", () => {}));
      socket.pipe(socket);
    });
    tries = [
      { address: "127.0.0.1", port, limitMs: 1_000 },
      { address: "127.0.0.1", port },
    ];
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const socket = connect({ host: MAGIC, port: 80 });
    await once(socket, "connect");
    vi.advanceTimersByTime(60_000);
    vi.useRealTimers();
    socket.write("still here");
    expect(String((await once(socket, "data"))[0])).toBe("still here");
    expect([outcomes, accepted.length]).toEqual([["ok"], 1]);
    socket.destroy();
  });

  it("asks the program's own lookup, which may find a magic address, also at once", async () => {
    tries = [{ address: "127.0.0.1", port }];
    const asked: string[] = [];
    const lookup: LookupFunction = (host, { all }, callback) => {
      asked.push(host);
      if (all) callback(null, [{ address: MAGIC, family: 4 }], 4);
      else callback(null, MAGIC, 4);
    };
    for (const autoSelectFamily of [true, false])
      expect(await talk({ host: "web.service.consul", port: 80, lookup, autoSelectFamily })).toBe("hello");
    expect([asked, outcomes]).toEqual([
      ["web.service.consul", "web.service.consul"],
      ["ok", "ok"],
    ]);
  });

  it("calls back in the caller's asynchronous context, whichever backend it became", async () => {
    const storage = new AsyncLocalStorage<string>();
    const dead = await freePort();
    const seen = (target: NetConnectOpts): Promise<unknown> =>
      storage.run("mine", () => {
        const socket = connect(target);
        return new Promise((resolve) => {
          socket.on("connect", () => resolve(storage.getStore())).on("error", () => resolve("error"));
        }).finally(() => socket.destroy());
      });
    const plain = await seen({ host: "127.0.0.1", port });
    expect(plain).toBe("mine");
    tries = [{ address: "127.0.0.1", port }];
    expect(await seen({ host: "web.service.consul", port: 80 })).toBe(plain);
    tries.unshift({ address: "127.0.0.1", port: dead }, { address: "127.0.0.1", port: dead });
    expect(await seen({ host: "web.service.consul", port: 80 })).toBe(plain);
  });

  it("works with Node's own choice between IPv4 and IPv6, also where one of them has nobody", async () => {
    const six = createServer((socket) => socket.end("six"));
    const port6 = await listen(six, "::1");
    const dead = await freePort();
    rewrite.connection = (address) => {
      const mine =
        address === MAGIC
          ? [{ address: "127.0.0.1", port: dead }]
          : address === MAGIC6
            ? [
                { address: "::1", port: dead },
                { address: "::1", port: port6 },
              ]
            : undefined;
      if (mine === undefined) return undefined;
      return () => {
        const each = mine.shift();
        return each && { ...each, ended: ({ ...outcome }) => void outcomes.push(outcome.ok ? "ok" : outcome.code) };
      };
    };
    expect(await talk({ host: "web.service.consul", port: 80, autoSelectFamily: true })).toBe("six");
    expect(outcomes).toEqual(["ECONNREFUSED", "ECONNREFUSED", "ok"]);
    six.close();
  });

  it("answers lookups in every form that Node has", async () => {
    const v4 = { address: MAGIC, family: 4 };
    const v6 = { address: MAGIC6, family: 6 };
    const name = "web.service.consul";
    expect(await promisify(dns.lookup)(name)).toEqual(v4);
    expect(await promisify(importedLookup)(name, 6)).toEqual(v6);
    expect(await promisify(dns.lookup)(name, { family: "IPv6" as never })).toEqual(v6);
    expect(await promisify(dns.lookup)(name, { all: true })).toEqual([v4, v6]);
    expect(await promisify(dns.lookup)(name, { all: true, family: 4 })).toEqual([v4]);
    expect(await dns.promises.lookup(name)).toEqual(v4);
    expect(await importedPromise(name, { all: true })).toEqual([v4, v6]);
    expect(await importedPromise(name, 6)).toEqual(v6);
    expect(() => dns.lookup(name, { family: 5 } as never, () => {})).toThrow(/family/);
    expect(() => dns.lookup(name, {}, undefined as never)).toThrow(/callback/);
    // Elsewhere it may take a moment to know.
    rewrite.name = async () => OWN;
    expect(await promisify(dns.lookup)(name)).toEqual(v4);
    expect(await importedPromise(name, { all: true })).toEqual([v4, v6]);
    rewrite.name = async () => undefined;
    expect(await promisify(dns.lookup)("127.0.0.1")).toEqual({ address: "127.0.0.1", family: 4 });
    expect(await importedPromise("::1")).toEqual({ address: "::1", family: 6 });
  });

  it("leads datagrams by name to the backend, and refuses them where nobody is", async () => {
    const far = dgram.createSocket("udp4").bind(0, "127.0.0.1");
    await once(far, "listening");
    far.on("message", (bytes, from) => far.send(`pong ${bytes}`, from.port, from.address));
    tries = [{ address: "127.0.0.1", port: far.address().port }];
    const near = dgram.createSocket("udp4");
    near.send("ping", 53, "web.service.consul");
    expect(String((await once(near, "message"))[0])).toBe("pong ping");
    near.connect(53, MAGIC);
    await once(near, "connect");
    near.send("connected");
    expect(String((await once(near, "message"))[0])).toBe("pong connected");
    near.disconnect();
    tries = [];
    const error = await new Promise((resolve) => near.send("nobody", 53, MAGIC, resolve));
    expect(error).toMatchObject({ code: "ECONNREFUSED" });
    near.close();
    far.close();
  });

  it("leaves everything else as Node has it: results, errors and their stacks, what functions look like; and all of it after the end", async () => {
    const dead = await freePort();
    const seen = async (): Promise<unknown[]> => {
      const failed = (target: NetConnectOpts): Promise<unknown> =>
        once(connect(target), "connect").then(
          () => "connected",
          ({ stack, code, ...rest }: NodeJS.ErrnoException) => [stack, code, rest],
        );
      let thrown: unknown;
      try {
        dns.lookup("x", { family: 5 } as never, () => {});
      } catch (error) {
        // Deeper frames tell from where this function was called.
        thrown = (error as Error).stack?.split("\n").slice(0, 3);
      }
      const udp = dgram.createSocket("udp4");
      const sent = await new Promise((resolve) => udp.send("x", dead, "127.0.0.1", (...all) => resolve(all)));
      udp.close();
      return [
        await failed({ host: "127.0.0.1", port: dead }),
        await failed({ host: "::1", port: dead }),
        await failed({ host: "localhost", port: dead }),
        await failed({ path: "/nowhere/socket" }),
        await talk({ host: "127.0.0.1", port }),
        await talk({ host: "localhost", port }),
        sent,
        thrown,
        await promisify(dns.lookup)("localhost", { family: 4 }),
        await dns.promises.lookup("127.0.0.1"),
        [dns.lookup.name, dns.lookup.length, Object.keys(dns.lookup), dns.lookup === importedLookup],
        [dns.promises.lookup.name, dns.promises.lookup.length, dns.promises.lookup === importedPromise],
      ];
    };
    const hooked = await seen();
    hook.undo();
    expect(await seen()).toEqual(hooked);
    await expect(once(connect({ host: MAGIC, port: dead }), "connect")).rejects.toMatchObject({
      code: "ECONNREFUSED",
      address: MAGIC,
    });
  });
});
