// The laws of a whole agent's life: started and stopped again and again it leaves nothing behind, and twice is once.
import { readdirSync, readlinkSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { createTrilith, type Settings, TrilithError } from "../../src/index.ts";
import { startAgent } from "../support/ground.ts";
import { freePort, ownFolder } from "../support/peers.ts";

/** Open files; those of /proc aside, which an agent reads in passing all the time. */
const files = (): number =>
  readdirSync("/proc/self/fd").filter((file) => {
    try {
      return !readlinkSync(`/proc/self/fd/${file}`).startsWith("/proc/");
    } catch {
      return false;
    }
  }).length;
/** What keeps the process busy; files read in passing aside. */
const resources = (...only: string[]): string[] =>
  process
    .getActiveResourcesInfo()
    .filter((name) => !/^FS/.test(name) && (only.length === 0 || only.includes(name)))
    .sort();
const SOCKETS = ["TCPServerWrap", "UDPWrap", "PipeServerWrap"];

async function settings(more: Partial<Settings> = {}): Promise<Partial<Settings>> {
  return {
    dev: true,
    node: "alpha",
    httpPort: await freePort(),
    protocols: { dns: { port: await freePort() }, docker: { host: "unix:///nonexistent/docker.sock" } },
    ...more,
  };
}

const forEver = (signal?: AbortSignal): Promise<never> =>
  new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason), { once: true }));

describe("an agent's life", () => {
  it("does not begin with a protocol that there is not", () => {
    expect(() => createTrilith({ dev: true, protocols: { mdsn: true } })).toThrow(/protocol "mdsn": there are .*mdns/);
  });

  it("leaves nothing behind after a hundred starts and stops", async () => {
    const plain = await settings();
    const given = { ...plain, protocols: { ...plain.protocols, mdns: { interfaces: ["lo"], files: false } } };
    const once = async (): Promise<void> => {
      const trilith = createTrilith(given);
      await trilith.start();
      await trilith.agent.register("api", {
        id: "web",
        name: "web",
        tags: [],
        labels: {},
        address: "",
        port: 80,
        checks: [{ id: "", name: "", notes: "", kind: "ttl", detail: {}, intervalMs: 0, timeoutMs: 0, ttlMs: 60_000 }],
      });
      const response = await fetch(`http://${trilith.self.listening.get("http")}/v1/health/service/web`);
      expect(await response.json()).toHaveLength(1);
      await trilith.stop();
    };
    // What is loaded and opened once for the whole process comes with the first rounds.
    for (let i = 0; i < 3; i++) await once();
    await expect.poll(() => resources(...SOCKETS), { timeout: 15_000 }).toEqual([]);
    const before = { files: files(), resources: resources() };
    for (let i = 0; i < 100; i++) await once();
    // fetch's own idle connections to ports that are closed go a moment later.
    const left = (): boolean => files() <= before.files && resources().length <= before.resources.length;
    await expect.poll(left, { timeout: 15_000 }).toBe(true);
    expect(resources(...SOCKETS)).toEqual([]);
  });

  it("keeps its data folder to itself, and leaves it in good order", async () => {
    const folder = await ownFolder("life");
    try {
      const given = await settings({ dev: false, dataDir: join(folder.path, "data") });
      for (let round = 0; round < 5; round++) {
        const trilith = createTrilith(given);
        await trilith.start();
        const { node, nodeId } = trilith.self;
        const second = createTrilith({ ...given, httpPort: await freePort(), protocols: { dns: { port: -1 } } });
        await expect(second.start()).rejects.toMatchObject({ code: "locked" });
        await trilith.kv.set(`round/${round}`, Buffer.from(nodeId));
        await trilith.stop();
        const again = createTrilith(given);
        await again.start();
        expect(again.self).toMatchObject({ node, nodeId });
        for (let i = 0; i <= round; i++)
          expect(Buffer.from(again.kv.get(`round/${i}`)?.value ?? []).toString()).toBe(nodeId);
        await again.stop();
      }
    } finally {
      await folder.remove();
    }
  });

  it("takes out what a source brought in that has been switched off, and nothing else", async () => {
    const folder = await ownFolder("switched-off");
    try {
      const service = { name: "kept", port: 80 };
      const dataDir = join(folder.path, "data");
      const given = await settings({ dev: false, dataDir });
      const file = { definitions: [{ service: { name: "from-file", port: 81 } }] };
      const first = createTrilith({ ...given, protocols: { ...given.protocols, file } });
      await first.start();
      await fetch(`http://${first.self.listening.get("http")}/v1/agent/service/register`, {
        method: "PUT",
        body: JSON.stringify({ Name: service.name, Port: service.port }),
      });
      await expect.poll(() => [...first.agent.services().keys()].sort()).toEqual(["from-file", "kept"]);
      await first.stop();
      const second = createTrilith({ ...given, protocols: { ...given.protocols, file: false } });
      await second.start();
      expect([...second.agent.services().keys()]).toEqual(["kept"]);
      await expect.poll(() => second.directory.view().residents("from-file")).toEqual([]);
      expect(second.directory.view().residents("kept")).toHaveLength(1);
      await second.stop();
    } finally {
      await folder.remove();
    }
  });

  it.each([
    [{ bindAddress: "127.0.0.1" }, "127.0.0.1"],
    [{ bindAddress: "127.0.0.9" }, "127.0.0.9"],
    [{ bindAddress: "127.0.0.9", advertiseAddress: "192.0.2.7" }, "192.0.2.7"],
    [{}, "127.0.0.1"],
  ])("with %j tells others to come to %s", async (more, address) => {
    const trilith = createTrilith(await settings(more));
    await trilith.start();
    expect(trilith.agent.node.address).toBe(address);
    await trilith.stop();
  });

  it("says what of a reload failed, also where nobody waits for it, as at SIGHUP", async () => {
    const agent = await startAgent();
    try {
      Object.assign(agent.trilith.agent, { restate: () => Promise.reject(new Error("the disk is full")) });
      await expect(agent.trilith.reload()).rejects.toThrow("the disk is full");
      expect(agent.errors).toEqual([expect.stringContaining("the disk is full")]);
    } finally {
      await agent.stop();
    }
  });

  it("starts once however often it is asked, and not again after it was stopped", async () => {
    const trilith = createTrilith(await settings());
    await Promise.all([trilith.start(), trilith.start(), trilith.start()]);
    await Promise.all([trilith.stop(), trilith.stop()]);
    await expect(trilith.start()).rejects.toBeInstanceOf(TrilithError);
  });

  it("is nothing when stopped before it was started", async () => {
    const before = files();
    const trilith = createTrilith(await settings());
    await trilith.stop();
    expect(files()).toBe(before);
  });

  it("stops in the middle of a start, wherever that is, and leaves nothing behind", async () => {
    const folder = await ownFolder("midway");
    try {
      const given = await settings({ dev: false, dataDir: join(folder.path, "data") });
      for (let turns = 0; turns < 60; turns++) {
        const trilith = createTrilith(given);
        const started = trilith.start().then(
          () => "up",
          (error: unknown) => (error as TrilithError).code,
        );
        for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve));
        await trilith.stop();
        expect(["up", "stopped"]).toContain(await started);
      }
      // The folder and the ports are free.
      const last = createTrilith(given);
      await last.start();
      await last.stop();
      await expect.poll(() => resources(...SOCKETS)).toEqual([]);
    } finally {
      await folder.remove();
    }
  });

  it.each(["etcd", "join"])("stops while a start waits for what does not answer (%s)", async (kind) => {
    const folder = await ownFolder("silent-store");
    const silent = createServer((socket) => socket.on("error", () => {}));
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const called = new Promise((resolve) => silent.once("connection", resolve));
    /** Nothing that is waited for runs out. */
    const patient = { ...systemClock, sleep: (_ms: number, signal?: AbortSignal) => forEver(signal) };
    try {
      const trilith = createTrilith(
        await settings(
          kind === "etcd"
            ? {
                dev: false,
                storage: "etcd",
                dataDir: join(folder.path, "data"),
                etcd: { endpoints: [url], prefix: "/t/", livenessMs: 15_000 },
              }
            : { join: { servers: [url], livenessMs: 15_000 } },
        ),
        { clock: patient },
      );
      const started = trilith.start().catch(() => {});
      // Who waits for the start to end, to reload, holds nobody up.
      const reload = trilith.reload().catch((error: unknown) => error);
      await called;
      await trilith.stop();
      await started;
      expect(await reload).toMatchObject({ code: "stopped" });
    } finally {
      silent.close();
      await folder.remove();
    }
  });

  it("leaves nothing behind when a port is taken", async () => {
    const first = createTrilith(await settings());
    await first.start();
    const before = { files: files(), resources: resources(...SOCKETS) };
    const port = Number(first.self.listening.get("http")?.split(":")[1]);
    const second = createTrilith({ ...(await settings()), httpPort: port });
    await expect(second.start()).rejects.toMatchObject({ code: "address-in-use" });
    await expect.poll(() => ({ files: files(), resources: resources(...SOCKETS) })).toEqual(before);
    await first.stop();
  });

  it.each(["http", "dns"])("tells no other host of one whose %s port is taken", async (taken) => {
    const folder = await ownFolder("taken-port");
    const server = createTrilith(await settings());
    try {
      await server.start();
      const place = (name: string): string => server.self.listening.get(name) ?? "";
      const join = { servers: [`http://${place("http")}`], livenessMs: 120_000 };
      const given = async (port?: number, more: Partial<Settings> = {}): Promise<Partial<Settings>> => {
        const all = await settings({ node: "client", join, ...more });
        if (port === undefined) return all;
        return taken === "http"
          ? { ...all, httpPort: port }
          : { ...all, protocols: { ...all.protocols, dns: { port } } };
      };
      const port = Number(place(taken).split(":")[1]);
      const refused = async (more?: Partial<Settings>): Promise<void> => {
        await expect(createTrilith(await given(port, more)).start()).rejects.toMatchObject({ code: "address-in-use" });
      };
      const kept = { dev: false, dataDir: folder.path };
      const view = () => server.directory.view();
      const known = () => ({
        ...{ nodes: [...view().list("node")].map(({ name }) => name), alive: view().count("alive") },
        ...{ graves: [...view().list("grave")].flatMap(({ scopes }) => scopes), web: view().residents("web").length },
        client: view().get("node", "client"),
      });
      const nobody = { nodes: ["alpha"], alive: 0, graves: [], web: 0, client: undefined };
      expect(known()).toEqual(nobody);
      await refused();
      await refused(kept);
      expect(known()).toEqual(nobody);
      // What its earlier life told stays.
      const before = createTrilith(await given(undefined, kept));
      await before.start();
      await before.agent.register("api", {
        ...{ id: "web", name: "web", tags: [], labels: {}, address: "", port: 80, checks: [] },
      });
      await before.agent.synced();
      await before.stop();
      const left = known();
      expect(left).toMatchObject({ nodes: ["alpha", "client"], web: 1, graves: [] });
      await refused(kept);
      expect(known()).toEqual(left);
    } finally {
      await server.stop();
      await folder.remove();
    }
  });

  it.each([
    [{ httpPort: 70_000 }, /httpPort: 70000: expected a port/],
    [{ node: "a b" }, /node "a b": expected a name/],
    [{ domain: "" }, /domain "": expected/],
    [{ dev: false }, /a data folder is needed/],
    [{ storage: "etcd" as const }, /needs the members' URLs/],
  ])("refuses %j and says what would be right", async (wrong, text) => {
    const given = await settings();
    expect(() => createTrilith({ ...given, ...wrong })).toThrow(text);
  });
});
