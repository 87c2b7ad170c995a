// The laws of every listener and every source, whichever protocol it belongs to: start twice is once, stop before start is nothing,
// after stop nothing comes out, and what was opened is released.

import { mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { createHttp } from "../../src/base/http.ts";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemProcesses } from "../../src/base/process.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { Ground } from "../../src/contracts/ground.ts";
import type { Listener, Part } from "../../src/contracts/protocol.ts";
import type { Source, SourceList } from "../../src/contracts/source.ts";
import { goneKeyOf } from "../../src/model/instance.ts";
import { protocols } from "../../src/protocols/index.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { freePort, ownFolder } from "../support/peers.ts";

/** What each protocol is told so that it listens and brings in here. Every protocol of the list has to be named. */
type Configured = (at: { folder: string; port: number; engine: string }) => unknown;
const CONFIGURED: Readonly<Record<string, Configured>> = {
  file: ({ folder }) => ({ paths: [folder] }),
  docker: ({ engine }) => ({ host: `unix://${engine}` }),
  process: () => undefined,
  eureka: ({ port }) => ({ port }),
  backends: ({ port }) => ({ port }),
  peers: ({ port }) => ({ find: "list", hosts: [`127.0.0.1:${port}`], port }),
  mdns: () => ({ interfaces: ["lo"], files: false }),
  minidisc: ({ folder }) => ({ socket: join(folder, "no-tailscaled.sock") }),
  etcd: ({ port }) => ({ endpoints: [`http://127.0.0.1:${port}`], registrator: "/services", skydns: "skydns.local" }),
  "consul-upstream": ({ port }) => ({ upstreams: { url: `http://127.0.0.1:${port}` } }),
  "dns-upstream": ({ port }) => ({
    services: [{ service: "web", name: "_http._tcp.example.com", resolvers: [`127.0.0.1:${port}`] }],
    timeout: "100ms",
  }),
  flat: ({ folder }) => ({ files: join(folder, "none") }),
  hosts: ({ folder }) => ({ path: join(folder, "..", "hosts") }),
  zookeeper: ({ port }) => ({ servers: `127.0.0.1:${port}`, sets: ["/discovery/*"], session_timeout: "1s" }),
  shim: ({ folder }) => ({ table: join(folder, "hook", "table") }),
  proxy: ({ port }) => ({ listen: { [port]: "web", [`${port}/udp`]: "dns" } }),
  api: () => undefined,
  consul: () => undefined,
  dns: ({ port }) => ({ port }),
};

/** A Docker engine without containers. */
async function emptyEngine(path: string): Promise<{ close(): Promise<void> }> {
  const server = createServer((request, response) => {
    response.setHeader("content-type", "application/json");
    if (request.url?.includes("/events")) response.writeHead(200).flushHeaders();
    else if (request.url?.includes("/containers/json")) response.end("[]");
    else response.end('{"ApiVersion":"1.41","Version":"20.10"}');
  });
  await new Promise<void>((listening) => server.listen(path, listening));
  return {
    close: () =>
      new Promise((closed) => {
        server.close(() => closed());
        server.closeAllConnections();
      }),
  };
}

async function portIsFree(where: string): Promise<boolean> {
  const at = where.lastIndexOf(":");
  const server = createTcpServer();
  return await new Promise((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(Number(where.slice(at + 1)), where.slice(0, at), () => server.close(() => resolve(true)));
  });
}

const held = (): string[] =>
  process.getActiveResourcesInfo().filter((name) => /FSEvent|TCPServer|UDPWrap|Timeout/.test(name));

describe("the laws of listeners and sources", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let agent: RunningAgent;
  let engine: Awaited<ReturnType<typeof emptyEngine>>;
  const http = createHttp();
  const install = async (name: string): Promise<Part | undefined> => {
    const { trilith } = agent;
    const ground: Ground = {
      ...trilith,
      directory: trilith.directory,
      agent: trilith.agent,
      lookup: trilith.lookup,
      kv: trilith.kv,
      sessions: trilith.sessions,
      events: trilith.events,
      prepared: trilith.prepared,
      magic: trilith.magic,
      self: trilith.self,
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      disk: systemDisk,
      net: systemNet,
      http,
      processes: systemProcesses,
      metrics: createMetrics(),
      probes: new Map(),
      sources: () => [],
      dataTrouble: async () => undefined,
      answers: async () => [],
      vouch: async () => {},
      control: { reload: async () => {}, stop() {} },
    };
    const port = await freePort();
    const raw = CONFIGURED[name]?.({
      folder: join(folder.path, "services"),
      port,
      engine: join(folder.path, "engine.sock"),
    });
    return await protocols.find((one) => one.name === name)?.install(raw, ground);
  };

  beforeAll(async () => {
    folder = await ownFolder("laws");
    await mkdir(join(folder.path, "services"));
    await writeFile(join(folder.path, "services", "web.json"), '{"service": {"name": "web", "port": 80}}');
    engine = await emptyEngine(join(folder.path, "engine.sock"));
    agent = await startAgent();
  });
  afterAll(async () => {
    await agent.stop();
    await http.close();
    await engine.close();
    await folder.remove();
  });

  it("holds every protocol of the list", () => {
    expect(Object.keys(CONFIGURED).sort()).toEqual(protocols.map(({ name }) => name).sort());
  });

  describe.each(protocols.map(({ name }) => name))("%s", (name) => {
    const listeners = async (): Promise<readonly Listener[]> => (await install(name))?.listeners ?? [];
    const source = async (): Promise<Source | undefined> => (await install(name))?.source;

    it("listens once however often it is started, and frees its port", async () => {
      for (const listener of await listeners()) {
        const [where, again] = await Promise.all([listener.start(), listener.start()]);
        expect(again).toBe(where);
        expect(await portIsFree(where)).toBe(false);
        await Promise.all([listener.stop(), listener.stop()]);
        expect(await portIsFree(where)).toBe(true);
      }
    });

    it("stops before it was started without having done anything", async () => {
      for (const listener of await listeners()) {
        const before = held();
        await listener.stop();
        expect(held()).toEqual(before);
      }
    });

    it("says which port is taken", async () => {
      for (const listener of await listeners()) {
        const where = await listener.start();
        const [other] = (await Promise.all((await listeners()).map(async (one) => one))).filter(
          (one) => one.name === listener.name,
        );
        await listener.stop();
        const taken = createTcpServer();
        const at = where.lastIndexOf(":");
        await new Promise<void>((listening) =>
          taken.listen(Number(where.slice(at + 1)), where.slice(0, at), listening),
        );
        await expect(listener.start().then(() => listener.stop())).rejects.toThrow(/stopped|in use|EADDRINUSE/i);
        await new Promise((closed) => taken.close(closed));
        expect(other?.name).toBe(listener.name);
      }
    });

    it("tells its whole list at once, and nothing after it was told to end", async () => {
      const from = await source();
      if (from === undefined) return;
      const before = held().length;
      for (let round = 0; round < 3; round++) {
        const stop = new AbortController();
        const lists: unknown[] = [];
        let ended = false;
        const reading = (async () => {
          try {
            for await (const list of (round === 0 ? from : ((await source()) as Source)).watch(stop.signal)) {
              expect(ended).toBe(false);
              lists.push(list.list.map((one) => one.name));
            }
          } catch (error) {
            if (!stop.signal.aborted) throw error;
          }
        })();
        await expect.poll(() => lists.length, { timeout: 10_000 }).toBeGreaterThan(0);
        expect(lists[0]).toEqual(name === "file" ? ["web"] : []);
        stop.abort(new Error("enough"));
        ended = true;
        await reading;
      }
      await expect.poll(() => held().length, { timeout: 10_000 }).toBeLessThanOrEqual(before);
    });

    it("does nothing when told to end before it began", async () => {
      const from = await source();
      if (from === undefined) return;
      const before = held().length;
      const lists: unknown[] = [];
      try {
        for await (const list of from.watch(AbortSignal.abort(new Error("never mind")))) lists.push(list);
      } catch (error) {
        expect((error as Error).message).toBe("never mind");
      }
      expect(lists).toEqual([]);
      expect(held().length).toBeLessThanOrEqual(before);
    });

    it("has a state that people can read at any time", async () => {
      const from = await source();
      if (from === undefined) return;
      expect(from.name).toBe(name);
      expect(from.state().text).toMatch(/\w+/);
      const stop = new AbortController();
      let last: SourceList | undefined;
      for await (const list of from.watch(stop.signal)) {
        last = list;
        stop.abort(new Error("one is enough"));
        const { ok, text, entries = [] } = from.state();
        expect(text).toMatch(/\w+/);
        expect(new Set(entries.map((each) => each.name)).size).toBe(entries.length);
        for (const each of entries) expect(each.ok).toBe(each.text === "");
        if (ok) expect(entries.filter((each) => !each.ok)).toEqual([]);
        const listed = new Set(last.list.map(goneKeyOf));
        for (const key of entries.flatMap((each) => [...each.tells()])) expect(listed).toContain(key);
      }
      expect(last).toBeDefined();
    });
  });
});
