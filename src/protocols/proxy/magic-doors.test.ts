// Magic addresses that open when somebody asks for them: what is opened, kept, left to others, closed and forgotten.
import { afterEach, describe, expect, it, vi } from "vitest";
import { type FakeClock, fakeClock } from "../../../test/simulated/clock.ts";
import { ask, serve } from "../../../test/support/connect.ts";
import { startAgent } from "../../../test/support/ground.ts";
import { magicInMemory } from "../../../test/support/lookup.ts";
import { freePort } from "../../../test/support/peers.ts";
import { memoryDurable } from "../../base/durable.ts";
import { TrilithError } from "../../base/error.ts";
import { callbackLog } from "../../base/log.ts";
import type { AskedMagic, Magic } from "../../contracts/magic.ts";
import { Doors, FORGET_MS } from "./magic-doors.ts";
import { Ports } from "./ports.ts";

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** An instance of this host: its port, and its address where that is not the node's. */
type Own = readonly [port: number, address?: string];

interface Bench {
  readonly doors: Doors;
  readonly magic: Magic;
  readonly clock: FakeClock;
  /** "127.129.3.7:80" and so on, without the address. */
  open(): readonly string[];
  readonly calls: string[];
  readonly lines: string[];
  /** Ports by service, of other hosts. */
  have(services: Readonly<Record<string, readonly number[]>>, own?: readonly Own[]): Promise<void>;
  readonly taken: Set<number>;
}

/** Doors over a small world; what is kept goes to the durable of an earlier one where given. */
async function bench(
  options: { readonly durable?: ReturnType<typeof memoryDurable>; readonly all?: boolean; readonly most?: number } = {},
): Promise<Bench & { readonly durable: ReturnType<typeof memoryDurable> }> {
  const clock = fakeClock();
  const durable = options.durable ?? memoryDurable();
  const magic = await magicInMemory(durable);
  const taken = new Set<number>();
  const calls: string[] = [];
  const lines: string[] = [];
  const log = callbackLog((level, _, text) => void lines.push(`${level} ${text}`));
  const open = new Set<string>();
  let services: Readonly<Record<string, readonly number[]>> = {};
  let own: readonly Own[] = [];
  let index = 1;
  let ring = (): void => {};
  const ports = new Ports({
    connector: {
      async proxy(on, { service }) {
        if (!("host" in on)) throw new Error("no address");
        const key = `${service}:${on.port}/${on.protocol}`;
        if (taken.has(on.port)) throw new TrilithError("address-in-use", `${on.port} is taken`);
        calls.push(`+${key}`);
        open.add(key);
        return {
          ...{ host: on.host, port: on.port, status: () => ({}) as never, retell() {} },
          async stop(drainMs) {
            if (open.delete(key)) calls.push(`-${key} ${drainMs}`);
          },
        };
      },
    },
    ...{ clock, log },
  });
  const residentOf = (port: number, address = ""): unknown => ({
    instance: { port, address, tags: [], labels: {} },
    node: { address: "10.0.0.1" },
  });
  const doors = new Doors({
    config: { all: options.all ?? false, ports: new Map(), most: options.most ?? 100 },
    directory: {
      view: () =>
        ({
          index,
          serviceNames: () => Object.keys(services),
          residents: (name: string) => (services[name] ?? []).map((port) => residentOf(port)),
          residentsOn: () => own.map(([port, address]) => residentOf(port, address)),
        }) as never,
      changed: (_, __, signal) =>
        new Promise((resolve, reject) => {
          ring = () => resolve(index);
          signal.addEventListener("abort", reject);
        }),
      ready: async () => {},
    },
    lookup: { resolveNow: ({ service }) => ({ known: services[service] !== undefined }) as never },
    ...{ magic, ports, clock, log, node: () => "alpha", interfaces: () => [{ address: "192.168.1.1" }] },
  });
  ends.push(() => doors.stop());
  return {
    ...{ doors, magic, clock, calls, lines, taken, durable },
    open: () => [...open].sort(),
    async have(given, here = []) {
      services = given;
      own = here;
      index++;
      ring();
      // The watch has begun to gather, or waits for its first turn.
      await new Promise(setImmediate);
      await clock.advance(100);
      await new Promise(setImmediate);
    },
  };
}

describe("doors at magic addresses", () => {
  it("open for what is asked for and known, and for nothing else; others are in nobody's way", async () => {
    const { doors, magic, open, have, calls } = await bench();
    doors.start();
    expect(magic.doors).toBe(doors);
    await have({ web: [8080], db: [5432] });
    expect(open()).toEqual([]);
    await doors.open("none");
    expect([open(), doors.isOpen("none")]).toEqual([[], false]);
    // It comes later: nobody was told an address.
    await have({ web: [8080], db: [5432], none: [99] });
    expect(open()).toEqual([]);
    expect(doors.isOpen("web")).toBe(false);
    await Promise.all([doors.open("Web"), doors.open("web")]);
    expect([doors.isOpen("WEB"), open()]).toEqual([true, ["web:80/tcp", "web:8080/tcp"]]);
    await doors.open("web");
    expect(calls).toHaveLength(2);
    await have({ web: [8080, 8081], db: [5432] });
    await vi.waitFor(() => expect(open()).toEqual(["web:80/tcp", "web:8080/tcp", "web:8081/tcp"]));
    await have({ db: [5432] });
    await vi.waitFor(() => expect(open()).toEqual([]));
    expect([doors.isOpen("web"), calls.at(-1)]).toEqual([false, "-web:8081/tcp Infinity"]);
    await have({ web: [8082] });
    await vi.waitFor(() => expect(open()).toEqual(["web:80/tcp", "web:8082/tcp"]));
    await doors.stop();
    expect([open(), magic.doors]).toEqual([[], undefined]);
    await doors.open("db");
    expect(open()).toEqual([]);
  });

  it("leave this host's own instances their ports, also those that come later, and tell", async () => {
    const { doors, open, have } = await bench();
    doors.start();
    await have({ web: [8080, 8081] }, [[8080]]);
    await doors.open("web");
    expect(open()).toEqual(["web:80/tcp", "web:8081/tcp"]);
    expect(doors.left()).toMatchObject([{ service: "web", ports: [{ port: 8080 }] }]);
    await have({ web: [8080, 8081] }, [[8080], [80]]);
    await vi.waitFor(() => expect(open()).toEqual(["web:8081/tcp"]));
    // It went, and comes back.
    await have({ web: [8080, 8081] });
    expect(open()).toEqual(["web:8081/tcp"]);
  });

  it("count as this host's own who listens here, not who is registered here with another host's address", async () => {
    const { doors, open, have } = await bench();
    doors.start();
    await have({ db: [1, 2, 3, 4, 5, 6] }, [
      [1, "127.0.0.1"],
      [2, "0.0.0.0"],
      [3, "192.168.1.1"],
      [4, "10.0.0.1"],
      [5, "10.0.0.9"],
      [6, "db.example.com"],
    ]);
    await doors.open("db");
    expect(open()).toEqual(["db:5/tcp", "db:6/tcp", "db:80/tcp"]);
  });

  it("are not asked for beyond the most that there is room for", async () => {
    const { doors, open, have, magic } = await bench({ most: 1 });
    doors.start();
    await have({ web: [8080], db: [5432] });
    await doors.open("web");
    await doors.open("db");
    expect([doors.isOpen("web"), doors.isOpen("db")]).toEqual([true, false]);
    expect(open()).toEqual(["web:8080/tcp"]);
    expect(magic.asked.all().map(({ service }) => service)).toEqual(["web"]);
  });

  it("open again after a restart what was open before, and no port that was somebody else's", async () => {
    const first = await bench();
    first.taken.add(80);
    first.doors.start();
    await first.have({ web: [8080], db: [5432] });
    await first.doors.open("web");
    expect(first.open()).toEqual(["web:8080/tcp"]);
    await first.doors.stop();

    const second = await bench({ durable: first.durable });
    second.doors.start();
    await second.have({ web: [8080, 8081], db: [5432] });
    await vi.waitFor(() => expect(second.open()).toEqual(["web:8080/tcp"]));
    expect(second.doors.isOpen("web")).toBe(false);
    await second.doors.open("web");
    expect(second.open()).toEqual(["web:80/tcp", "web:8080/tcp", "web:8081/tcp"]);
    await second.doors.stop();
    expect((await magicInMemory(first.durable)).asked.all()).toEqual([
      { service: "web", ports: ["80/tcp", "8080/tcp", "8081/tcp"] },
    ]);
  });

  it("forget what nobody has known for a week, not what was away for less or for a moment", async () => {
    const { doors, magic, clock, have } = await bench();
    doors.start();
    await have({ web: [8080] });
    await doors.open("web");
    const kept: AskedMagic = { service: "web", ports: ["80/tcp", "8080/tcp"] };
    const later = async (ms: number): Promise<void> => {
      await clock.advance(ms);
      await have({});
    };
    await have({});
    await later(30_000);
    expect(magic.asked.all()).toEqual([kept]);
    await later(60_000);
    await vi.waitFor(() => expect(magic.asked.all()).toEqual([{ ...kept, unknownSinceMs: expect.any(Number) }]));
    await have({ web: [8080] });
    await vi.waitFor(() => expect(magic.asked.all()).toEqual([kept]));
  });

  it("do not add up several short absences", async () => {
    const { doors, magic, clock, have } = await bench();
    doors.start();
    await have({ web: [8080] });
    await doors.open("web");
    const kept: AskedMagic = { service: "web", ports: ["80/tcp", "8080/tcp"] };
    for (let i = 0; i < 4; i++) {
      await have({});
      await clock.advance(40_000);
      await have({});
      expect(magic.asked.all()).toEqual([kept]);
      await have({ web: [8080] });
    }
    await have({});
    await clock.advance(61_000);
    await have({});
    await vi.waitFor(() => expect(magic.asked.all()).toEqual([{ ...kept, unknownSinceMs: expect.any(Number) }]));
  });

  it("forget at last what was away all that time, also over restarts", async () => {
    const { durable, magic: before, clock: early } = await bench();
    const kept: AskedMagic = { service: "web", ports: ["80/tcp"] };
    await before.asked.keep({ ...kept, unknownSinceMs: early.now() - FORGET_MS + 60_000 });
    const { doors, magic, clock, have } = await bench({ durable });
    doors.start();
    await have({});
    await clock.advance(50_000);
    await have({});
    expect(magic.asked.all()).toHaveLength(1);
    await clock.advance(20_000);
    await have({});
    await vi.waitFor(() => expect(magic.asked.all()).toEqual([]));
    await doors.stop();
    expect((await magicInMemory(durable)).asked.all()).toEqual([]);
  });

  it("go on where nothing can be written down, and say so", async () => {
    const { doors, magic, open, have, lines } = await bench();
    magic.asked.keep = async () => {
      throw new TrilithError("read-only", "the disk is read-only");
    };
    doors.start();
    await have({ web: [8080] });
    await doors.open("web");
    expect([doors.isOpen("web"), open()]).toEqual([true, ["web:80/tcp", "web:8080/tcp"]]);
    expect(lines).toContain(
      "warn after a restart magic addresses answer again when they are asked for: the disk is read-only",
    );
  });

  it("never listen where they are stopped before the start; started twice they listen once; beyond their number they say so", async () => {
    const never = await bench({ all: true });
    await never.doors.stop();
    never.doors.start();
    await never.have({ web: [8080] });
    expect([never.calls, never.magic.doors]).toEqual([[], undefined]);
    const twice = await bench({ all: true, most: 2 });
    twice.doors.start();
    twice.doors.start();
    await twice.have({ web: [8080, 8081, 8082] });
    await vi.waitFor(() => expect(twice.open()).toEqual(["web:8080/tcp", "web:8081/tcp"]));
    expect([twice.calls, twice.doors.beyond]).toEqual([["+web:8080/tcp", "+web:8081/tcp"], 1]);
  });
});

describe("an agent without configuration", () => {
  it("answers at a service's magic address from when it is asked for, and for as long as the service is there", async () => {
    const server = await serve((socket) => socket.end("hello"));
    ends.push(() => server.close());
    const made = await startAgent();
    ends.push(() => made.stop());
    const { trilith, url } = made;
    const states = (): readonly string[] =>
      trilith.sources().flatMap(({ name, text }) => (name === "proxy" ? [text] : []));
    const get = async (path: string): Promise<{ readonly status: number; readonly json: unknown }> => {
      const response = await fetch(`${url}/v1/trilith/magic${path}`);
      return { status: response.status, json: await response.json() };
    };
    expect(states()).toEqual([]);
    expect(await get("/web")).toMatchObject({ status: 404, json: { error: { code: "not-found" } } });
    await fetch(`${url}/v1/catalog/register`, {
      method: "PUT",
      body: JSON.stringify({
        ...{ Node: "far", Address: "127.0.0.3" },
        Service: { ID: "web", Service: "web", Port: server.port, Address: "127.0.0.1", Tags: ["redis"] },
      }),
    });
    const { v4 } = trilith.magic.of({ service: "web" });
    await expect(ask(server.port, "", v4)).rejects.toThrow(/ECONNREFUSED/);
    expect(await get("/WEB")).toEqual({
      status: 200,
      json: {
        ...{ service: "web", address: v4, missing: [] },
        listening: [
          { port: 6379, protocol: "tcp" },
          { port: server.port, protocol: "tcp" },
        ],
      },
    });
    expect(await ask(server.port, "", v4)).toBe("hello");
    expect(states()).toEqual(["magic addresses in 127.128.0.0/9: 2 ports of 1 service answer"]);
    const { port } = server;
    const own = await freePort();
    await trilith.agent.register("api", {
      ...{ id: "w", name: "web", tags: [], labels: {}, address: "127.0.0.1", port: own, checks: [] },
    });
    await vi.waitFor(() =>
      expect(states()[0]).toBe(
        `magic addresses in 127.128.0.0/9: 2 ports of 1 service answer; web:${own} left to this host's own instances`,
      ),
    );
    expect((await get("/web")).json).toMatchObject({
      listening: [{ port: 6379 }, { port }],
      missing: [{ port: own, text: "left to this host's own instance" }],
    });
    expect((await fetch(`${url}/v1/trilith/magic/web`, { method: "POST" })).status).toBe(405);
    expect((await fetch(`${url}/v1/trilith/magic/web`, { headers: { "x-forwarded-for": "192.0.2.1" } })).status).toBe(
      403,
    );
    expect(await get("/")).toMatchObject({ status: 400 });
  });

  it("opens nothing where it is switched off", async () => {
    const made = await startAgent({ protocols: { proxy: { magic: false } } });
    ends.push(() => made.stop());
    expect(made.trilith.magic.doors).toBeUndefined();
    expect((await fetch(`${made.url}/v1/trilith/magic/web`)).status).toBe(501);
    expect(made.trilith.sources().filter(({ name }) => name === "proxy")).toEqual([]);
  });
});
