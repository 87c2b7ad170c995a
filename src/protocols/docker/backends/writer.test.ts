// The differ of the command line against a backend that fails, forgets and is looked into: what is wanted stands, nothing else, and no write is made twice.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type FakeClock, fakeClock } from "../../../../test/simulated/clock.ts";
import { TrilithError } from "../../../base/error.ts";
import type { Backend, Entry } from "./backend.ts";
import type { Memory } from "./memory.ts";
import { Writer, type WriterOptions } from "./writer.ts";

const entry = (container: string, port = 80, more: Partial<Entry> = {}): Entry => ({
  id: `host:${container}:80`,
  name: "web",
  ip: "192.0.2.1",
  port,
  tags: [],
  labels: {},
  attributes: {},
  checks: [],
  containerId: `${container}-0123456789ab`,
  containerHostname: container,
  exposedPort: 80,
  ...more,
});

/** A backend in memory, with switches. */
interface Store extends Backend {
  readonly rows: Map<string, string>;
  writes: number;
  refreshes: number;
  away: boolean;
  refuses: (entry: Entry) => boolean;
  /** The next call does its work, and its answer is lost. */
  deaf: boolean;
}

function store(): Store {
  const rows = new Map<string, string>();
  const content = (one: Entry): string => `${one.ip}:${one.port}`;
  const call = async (self: Store, work: () => void): Promise<void> => {
    await Promise.resolve();
    if (self.away) throw new TrilithError("unavailable", "connection refused");
    work();
    if (self.deaf) {
      self.deaf = false;
      throw new TrilithError("timeout", "no answer");
    }
  };
  return {
    rows,
    writes: 0,
    refreshes: 0,
    away: false,
    deaf: false,
    refuses: () => false,
    scheme: "test",
    place: ({ name, id }) => `${name}/${id}`,
    content,
    async ping() {},
    async read(places) {
      await call(this, () => {});
      return new Map([...rows].filter(([place]) => places.includes(place)));
    },
    async list() {
      return [...rows.keys()].map((place) => ({
        place,
        name: place.split("/")[0] ?? "",
        id: place.split("/")[1] ?? "",
      }));
    },
    async write(one) {
      await call(this, () => {
        this.writes++;
        if (this.refuses(one)) throw new TrilithError("invalid", "no");
        rows.set(this.place(one), content(one));
      });
    },
    async refresh(one) {
      await call(this, () => {
        this.refreshes++;
        rows.set(this.place(one), content(one));
      });
    },
    async remove(place) {
      await call(this, () => void rows.delete(place));
    },
    close() {},
  };
}

const keptIn = (places: Map<string, string>): Memory => ({ places, save: async () => {} });

/** A writer at work; `stop` ends it as a crash would: between two steps. */
function start(
  backend: Backend,
  clock: FakeClock,
  places: Map<string, string> = new Map(),
  options: Partial<WriterOptions> = {},
): { readonly writer: Writer; readonly log: string[]; stop(): Promise<void> } {
  const log: string[] = [];
  const random = { fraction: () => 0.5, below: () => 0, uuid: () => "", bytes: () => new Uint8Array() };
  const writer = new Writer(
    backend,
    keptIn(places),
    { clock, random },
    { say: (text) => void log.push(text), refreshMs: 0, resyncMs: 0, cleanup: undefined, ...options },
  );
  const stop = new AbortController();
  const running = writer.run(stop.signal);
  return {
    writer,
    log,
    async stop() {
      stop.abort();
      await running;
    },
  };
}

describe("the writer", () => {
  it("registers, replaces, removes, and writes nothing that stands already", async () => {
    const [backend, clock] = [store(), fakeClock()];
    const { writer, log, stop } = start(backend, clock);
    writer.want([entry("a"), entry("b", 81)]);
    await clock.settle();
    expect(Object.fromEntries(backend.rows)).toEqual({
      "web/host:a:80": "192.0.2.1:80",
      "web/host:b:80": "192.0.2.1:81",
    });
    expect(log).toEqual([
      "Syncing services on 2 containers",
      "added: a-0123456789 host:a:80",
      "added: b-0123456789 host:b:80",
    ]);
    writer.want([entry("a"), entry("b", 81)]);
    await clock.advance(600_000);
    expect(backend.writes).toBe(2);
    writer.want([entry("a", 90)]);
    await clock.settle();
    expect(Object.fromEntries(backend.rows)).toEqual({ "web/host:a:80": "192.0.2.1:90" });
    expect(log.at(-1)).toBe("removed: b-0123456789 host:b:80");
    await stop();
    expect(clock.timers).toBe(0);
  });

  it("what ended while nobody looked is removed after a restart; what stands is not written again; a stranger's stays", async () => {
    const [backend, clock, places] = [store(), fakeClock(), new Map<string, string>()];
    const first = start(backend, clock, places);
    first.writer.want([entry("a"), entry("b"), entry("c", 82, { id: "own-id" })]);
    await clock.settle();
    await first.stop();
    expect(backend.rows.size).toBe(3);
    backend.rows.set("web/host:gone:80", "192.0.2.1:5");
    const { writes } = backend;
    const second = start(backend, clock, places);
    second.writer.want([entry("a")]);
    await clock.settle();
    expect([...backend.rows.keys()]).toEqual(["web/host:a:80", "web/host:gone:80"]);
    expect(backend.writes).toBe(writes);
    await second.stop();
    const cleaning = start(backend, clock, places, { cleanup: { hostname: "host" } });
    cleaning.writer.want([entry("a")]);
    await clock.settle();
    expect([...backend.rows.keys()]).toEqual(["web/host:a:80"]);
    expect(cleaning.log).toContain("dangling: host:gone:80");
    await cleaning.stop();
  });

  it("what was written just before the end, its answer lost, is known after a restart", async () => {
    const [backend, clock, places] = [store(), fakeClock(), new Map<string, string>()];
    backend.rows.set("web/host:a:80", "before");
    const first = start(backend, clock, places);
    first.writer.want([entry("z")]);
    await clock.settle();
    backend.deaf = true;
    first.writer.want([entry("z"), entry("a")]);
    await clock.settle();
    await first.stop();
    expect(backend.rows.get("web/host:a:80")).toBe("192.0.2.1:80");
    const second = start(backend, clock, places);
    second.writer.want([]);
    await clock.settle();
    expect(backend.rows.size).toBe(0);
    await second.stop();
  });

  it("-cleanup touches IDs of its own form and host only", async () => {
    const [backend, clock] = [store(), fakeClock()];
    for (const id of [
      "host:a b:80",
      "host:g:80",
      "host:gone",
      "host:gone:http",
      "manual",
      "other:gone:80",
      "prefix:host:gone:80",
      "host:a:9999",
    ])
      backend.rows.set(`web/${id}`, "x");
    for (const id of ["host:gone:80", "host:gone:53:udp"]) backend.rows.set(`web/${id}`, "x");
    const { writer, stop } = start(backend, clock, new Map(), { cleanup: { hostname: "host" } });
    writer.want([entry("aa", 80, { id: "host:aa:80" })]);
    await clock.settle();
    expect([...backend.rows.keys()].filter((key) => key.includes("gone"))).toEqual([
      "web/host:gone",
      "web/host:gone:http",
      "web/other:gone:80",
      "web/prefix:host:gone:80",
    ]);
    expect(backend.rows.size).toBe(9);
    await stop();
  });

  it("a backend that is away, or comes back empty, loses nothing", async () => {
    const [backend, clock] = [store(), fakeClock()];
    const { writer, log, stop } = start(backend, clock);
    writer.want([entry("a"), entry("b")]);
    await clock.settle();
    backend.away = true;
    writer.want([entry("a"), entry("c")]);
    await clock.advance(120_000);
    backend.away = false;
    backend.rows.clear();
    // With the next attempt, not with the next look at everything.
    await clock.advance(16_000);
    expect([...backend.rows.keys()].sort()).toEqual(["web/host:a:80", "web/host:c:80"]);
    expect(log.filter((line) => line.includes("connection refused"))).toHaveLength(1);
    expect(log.at(-1)).toBe("test: answers again");
    // Lost without anybody having noticed: seen within a minute.
    backend.rows.delete("web/host:a:80");
    await clock.advance(61_000);
    expect(backend.rows.has("web/host:a:80")).toBe(true);
    await stop();
  });

  it("what is refused holds up nothing else, is told once, and tried again with each look", async () => {
    const [backend, clock] = [store(), fakeClock()];
    backend.refuses = ({ id }) => id.includes("bad");
    const { writer, log, stop } = start(backend, clock, new Map(), { resyncMs: 2_000 });
    writer.want([entry("bad"), entry("good")]);
    await clock.settle();
    expect([...backend.rows.keys()]).toEqual(["web/host:good:80"]);
    expect(log.filter((line) => line.startsWith("register failed: host:bad:80 no"))).toHaveLength(1);
    const { writes } = backend;
    backend.refuses = () => false;
    await clock.advance(2_000);
    expect(backend.rows.size).toBe(2);
    expect(backend.writes).toBe(writes + 1);
    await stop();
  });

  it("entries with a TTL are refreshed, but not those whose container failed, which may run out and come back", async () => {
    const [backend, clock] = [store(), fakeClock()];
    const { writer, log, stop } = start(backend, clock, new Map(), { refreshMs: 2_000 });
    writer.want([entry("a"), entry("b")]);
    await clock.advance(4_000);
    expect(backend.refreshes).toBe(4);
    expect(log.filter((line) => line === "refreshed: a-0123456789 host:a:80")).toHaveLength(2);
    writer.want([entry("a"), entry("b", 80, { ended: true })]);
    backend.rows.delete("web/host:b:80");
    await clock.advance(120_000);
    expect([...backend.rows.keys()]).toEqual(["web/host:a:80"]);
    writer.want([entry("a"), entry("b")]);
    await clock.settle();
    expect(backend.rows.size).toBe(2);
    await stop();
  });

  it("two entries for one place: the first counts, the other is told", async () => {
    const [backend, clock] = [store(), fakeClock()];
    const { writer, log, stop } = start({ ...backend, place: () => "one" }, clock);
    writer.want([entry("a", 1), entry("b", 2)]);
    await clock.settle();
    expect(log).toContain("host:b:80 is not registered: host:a:80 stands at one already");
    await stop();
  });

  it("whatever happens, what is wanted stands in the end and nothing of its own besides", async () => {
    const names = ["a", "b", "c", "d"];
    const step = fc.oneof(
      fc.record({
        what: fc.constant("want" as const),
        who: fc.uniqueArray(fc.constantFrom(...names)),
        port: fc.nat(2),
      }),
      fc.record({
        what: fc.constantFrom("away" as const, "back" as const, "deaf" as const, "wipe" as const, "restart" as const),
      }),
      fc.record({ what: fc.constant("wait" as const), ms: fc.nat(70_000) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
        const [backend, clock, places] = [store(), fakeClock(), new Map<string, string>()];
        backend.rows.set("web/stranger", "x");
        let wanted: Entry[] = [];
        let now = start(backend, clock, places);
        for (const one of steps) {
          if (one.what === "want") {
            wanted = one.who.map((name) => entry(name, 80 + one.port));
            now.writer.want(wanted);
          } else if (one.what === "away") backend.away = true;
          else if (one.what === "back") backend.away = false;
          else if (one.what === "deaf") backend.deaf = true;
          else if (one.what === "wipe") backend.rows.clear();
          else if (one.what === "restart") {
            await now.stop();
            now = start(backend, clock, places);
            now.writer.want(wanted);
          } else if ("ms" in one) await clock.advance(one.ms);
        }
        backend.away = false;
        now.writer.want(wanted);
        await clock.advance(130_000);
        backend.rows.delete("web/stranger");
        expect(Object.fromEntries(backend.rows)).toEqual(
          Object.fromEntries(wanted.map((one) => [backend.place(one), backend.content(one)])),
        );
        const { writes } = backend;
        await clock.advance(300_000);
        expect(backend.writes).toBe(writes);
        await now.stop();
      }),
      { numRuns: 60 },
    );
  });
});
