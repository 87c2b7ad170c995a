// Tests of how the directory goes along with its store: shared syncs, refusals of the store, start and stop, the clearing of old graves.
import { afterEach, describe, expect, test } from "vitest";
import { type FakeClock, fakeClock } from "../../test/simulated/clock.ts";
import { NO_FAULTS, SimulatedStore, seededRandom } from "../../test/simulated/store.ts";
import { ownFolder } from "../../test/support/peers.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { openDurable } from "../base/durable.ts";
import { TrilithError } from "../base/error.ts";
import { silentLog } from "../base/log.ts";
import { createMetrics } from "../base/metrics.ts";
import type { Written } from "../contracts/directory.ts";
import type { Batch, Storage } from "../contracts/storage.ts";
import { type Change, type Index, scope } from "../model/record.ts";
import { createDirectory, type LocalDirectory } from "./local.ts";
import { lmdbStorage } from "./storage/lmdb.ts";
import { memoryStorage } from "./storage/memory.ts";

const put = (key: string, text = "", size = 0): Change => ({
  op: "put",
  table: "kv",
  key,
  value: { key, value: Buffer.from(text.padEnd(size)), flags: 0n, lockIndex: 0 },
});
const gone = (key: string): Change => ({ op: "delete", table: "kv", key });
const never = new AbortController().signal;

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});
function directoryOn(storage: Storage, clock: Clock = systemClock): LocalDirectory {
  const directory = createDirectory(storage, {
    clock,
    random: seededRandom(1),
    log: silentLog,
    metrics: createMetrics(),
  });
  ends.push(() => directory.stop());
  return directory;
}
async function indexOf(written: Promise<Written>): Promise<Index> {
  const outcome = await written;
  if (outcome.result !== "written") throw new Error(outcome.result);
  return outcome.index;
}

describe("one sync for many", () => {
  test("what the directory and others write in one turn becomes durable together", async () => {
    const folder = await ownFolder("one-sync");
    ends.push(() => folder.remove());
    const durable = await openDurable(folder.path);
    ends.push(() => durable.close());
    const directory = directoryOn(lmdbStorage(durable));
    await directory.start();
    let turns = 0;
    let over = false;
    const count = (): void => {
      turns++;
      if (!over) setImmediate(count);
    };
    setImmediate(count);
    for (let round = 0; round < 10; round++) {
      const began = turns;
      const at = (work: Promise<unknown>): Promise<number> => work.then(() => turns);
      const others = (n: number): Promise<number> =>
        at(durable.write([{ table: "agent", key: `${n}`, value: Buffer.from(String(round)) }]));
      const directorys = (n: number): Promise<number> => at(directory.write([put(`k${n}`, String(round))]));
      const ended = await Promise.all([others(1), directorys(1), others(2), directorys(2), directorys(3)]);
      // A sync takes turns of the event loop; all five ended in the same one.
      expect(new Set(ended).size).toBe(1);
      expect(ended[0]).toBeGreaterThan(began);
    }
    over = true;
  });
});

describe("a store that refuses", () => {
  /** A store whose commits fail while `failure` is set; as on a full disk, whole rounds fail. */
  function failing(): { storage: Storage; failure: Error | undefined } {
    const inner = memoryStorage();
    const self: { storage: Storage; failure: Error | undefined } = {
      failure: undefined,
      storage: {
        ...inner,
        async commit(commit) {
          if (self.failure !== undefined) throw self.failure;
          return inner.commit(commit);
        },
      },
    };
    return self;
  }

  test("nothing of a refused round is to be seen, later writes go on from what is durable", async () => {
    const store = failing();
    const directory = directoryOn(store.storage);
    await directory.start();
    const first = await indexOf(directory.write([put("a", "1")]));
    store.failure = new TrilithError("disk-full", "no space");
    const waiting = directory.changed("kv:a", first, never);
    const outcomes = await Promise.allSettled([
      directory.write([put("a", "2")]),
      directory.write([put("b", "1")]),
      // Stands on the first: would be nothing to write had that been written.
      directory.write([put("a", "2")]),
      directory.write([put("c", "1")], [{ table: "kv", key: "a", at: first }]),
    ]);
    for (const outcome of outcomes)
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "disk-full" } });
    expect(directory.view().at("kv:a")).toBe(first);
    expect(directory.view().count("kv")).toBe(1);
    store.failure = undefined;
    const second = await indexOf(directory.write([put("a", "2")], [{ table: "kv", key: "a", at: first }]));
    expect(await waiting).toBe(second);
    expect(directory.view().get("kv", "a")).toMatchObject({ createIndex: first, modifyIndex: second });
  });

  test("indexes that the store skips are taken as they are", async () => {
    const inner = memoryStorage();
    const directory = directoryOn({
      ...inner,
      async commit(commit) {
        const written = await inner.commit(commit);
        return written.result === "written" ? { ...written, index: written.index * 10 } : written;
      },
    });
    await directory.start();
    const made = await Promise.all([indexOf(directory.write([put("a")])), indexOf(directory.write([put("b")]))]);
    expect(made).toEqual([20, 30]);
    expect(directory.view().get("kv", "a")).toMatchObject({ createIndex: 20, modifyIndex: 20 });
    expect(directory.view().at("kv:b")).toBe(30);
  });

  test("a store that cannot be opened says why, to start and to who waits for it", async () => {
    const directory = directoryOn({
      ...memoryStorage(),
      // biome-ignore lint/correctness/useYield: it fails before it has anything to yield
      async *open(): AsyncGenerator<Batch> {
        throw new TrilithError("newer-data", "from the future");
      },
    });
    const ready = directory.ready();
    await expect(directory.start()).rejects.toMatchObject({ code: "newer-data" });
    await expect(ready).rejects.toMatchObject({ code: "newer-data" });
    await expect(directory.write([put("a")])).rejects.toMatchObject({ code: "unavailable" });
  });

  test("too many changes for the store are too large", async () => {
    const directory = directoryOn({ ...memoryStorage(), maxChanges: 10 });
    await directory.start();
    const many = Array.from({ length: 11 }, (_, i) => put(`k${i}`));
    await expect(directory.write(many)).rejects.toMatchObject({ code: "too-large" });
    expect(directory.view().count("kv")).toBe(0);
    await indexOf(directory.write(many.slice(0, directory.maxChanges)));
  });
});

/** A line of changes that tells what it is sent. */
function line(clock: FakeClock): { follow: NonNullable<Storage["follow"]>; send(batch: Batch): Promise<void> } {
  const batches: Batch[] = [];
  let bell = (): void => {};
  return {
    async *follow(_, signal) {
      while (!signal.aborted) {
        const next = batches.shift();
        if (next !== undefined) yield next;
        else
          await new Promise<void>((resolve) => {
            bell = resolve;
            signal.addEventListener("abort", () => resolve(), { once: true });
          });
      }
    },
    async send(batch) {
      batches.push(batch);
      bell();
      await clock.settle();
    },
  };
}

describe("a shared store", () => {
  test("before it has answered nothing can be written; then all is there, and fresh", async () => {
    const store = new SimulatedStore(1);
    await store.client().commit({ id: "x", changes: [put("a", "1")], expect: [] });
    const directory = directoryOn(store.client());
    await directory.start();
    expect(directory.view().fresh).toBe(false);
    await expect(directory.write([put("b")])).rejects.toMatchObject({ code: "unavailable" });
    await directory.ready();
    expect(directory.view().get("kv", "a")).toBeDefined();
    expect(directory.view().fresh).toBe(true);
  });

  test("while it is away the view is the last one known, with the time", async () => {
    const clock = fakeClock();
    const { follow, send } = line(clock);
    const directory = directoryOn({ ...new SimulatedStore(1).client(), follow }, clock);
    await directory.start();
    await directory.ready();
    await send({ kind: "reachable", reachable: false, atMs: 1234 });
    expect(directory.view()).toMatchObject({ fresh: false, asOfMs: 1234 });
    await send({ kind: "reachable", reachable: true, atMs: 5678 });
    expect(directory.view()).toMatchObject({ fresh: true, asOfMs: clock.now() });
  });

  test("a store that went back is taken as it is: everybody concerned is woken", async () => {
    const old = new SimulatedStore(1);
    const restored = new SimulatedStore(2);
    for (let i = 0; i < 5; i++) await old.client().commit({ id: `${i}`, changes: [put("a", String(i))], expect: [] });
    await restored.client().commit({ id: "r", changes: [put("b", "1")], expect: [] });
    let restore = (): void => {};
    const restoring = new Promise<void>((resolve) => {
      restore = resolve;
    });
    const directory = directoryOn({
      ...old.client(),
      async *follow(_, signal) {
        await restoring;
        yield* restored.client().open();
        yield* restored.client().follow?.(restored.index, signal) ?? [];
      },
    });
    await directory.start();
    await directory.ready();
    const before = directory.view();
    const waits = [
      directory.changed("kv:a", before.at("kv:a"), never),
      directory.changed("kv:b", before.at("kv:b"), never),
    ];
    const end = new AbortController();
    const unconcerned = directory.changed("kv:c", before.at("kv:c"), end.signal);
    restore();
    await Promise.all(waits);
    expect(directory.view().index).toBe(restored.index);
    expect(Array.from(directory.view().list("kv"), ({ key }) => key)).toEqual(["b"]);
    end.abort(new Error("enough"));
    await expect(unconcerned).rejects.toThrow("enough");
  });

  test("a node with more on it than one commit holds is removed in pieces, the node last", async () => {
    const store = new SimulatedStore(3);
    const directory = directoryOn(store.client());
    await directory.start();
    await directory.ready();
    await indexOf(
      directory.write([
        {
          op: "put",
          table: "node",
          key: "n",
          value: { id: "", name: "n", address: "10.0.0.1", datacenter: "dc1", taggedAddresses: {}, labels: {} },
        },
      ]),
    );
    for (let from = 0; from < 300; from += 50)
      await indexOf(
        directory.write(
          Array.from({ length: 50 }, (_, i) => ({
            op: "put",
            table: "service",
            key: `n\u0000s${from + i}`,
            value: {
              id: `s${from + i}`,
              name: "web",
              node: "n",
              tags: [],
              labels: {},
              address: "",
              port: 1,
              origin: { source: "api", authority: "first-hand" },
            },
          })),
        ),
      );
    expect(directory.view().residents("web")).toHaveLength(300);
    const removed = await indexOf(directory.write([{ op: "delete", table: "node", key: "n" }]));
    expect(directory.view().count("node") + directory.view().count("service")).toBe(0);
    expect(store.log.at(-1)?.index).toBe(removed);
    expect(store.log.at(-1)?.rows.some(({ table, value }) => table === "node" && value === undefined)).toBe(true);
  });

  test("an outcome that stays unknown is handed out as such, a refusal behind it as well", async () => {
    const clock = fakeClock();
    const store = new SimulatedStore(1, NO_FAULTS);
    let asked = 0;
    const directory = directoryOn(
      {
        ...store.client(),
        async commit(commit) {
          asked++;
          if (asked === 1) {
            await store.client().commit(commit);
            return { result: "unknown", cause: new Error("no answer") };
          }
          throw new TrilithError("unavailable", "gone");
        },
      },
      clock,
    );
    await directory.start();
    await directory.ready();
    const outcome = directory.write([put("a", "1")]);
    await clock.advance(10_000);
    expect(await outcome).toMatchObject({ result: "unknown" });
    expect(asked).toBeGreaterThan(1);
    // Said to be unknown, and it did happen.
    await clock.settle();
    expect(directory.view().get("kv", "a")).toBeDefined();
  });
});

describe("old graves", () => {
  test("of a store that others clear are forgotten here, and nobody there is asked", async () => {
    const clock = fakeClock();
    const { follow, send } = line(clock);
    let asked = 0;
    const directory = directoryOn(
      {
        ...new SimulatedStore(1).client(),
        clearedElsewhere: true,
        follow,
        // As a client host's: who is told of graves does not clear them.
        async commit() {
          asked++;
          return { result: "expectation-failed" };
        },
      },
      clock,
    );
    await directory.start();
    await directory.ready();
    const graveRow = (at: Index) => ({
      ...({ table: "grave", key: `${String(clock.now()).padStart(15, "0")}.${at}.0` } as const),
      ...{ createIndex: at, modifyIndex: at, value: { scopes: [scope.service(`s${at}`)] } },
    });
    const bury = (from: number, count: number): Promise<void> => {
      const rows = Array.from({ length: count }, (_, i) => graveRow(from + i));
      return send({ kind: "delta", index: from + count - 1, rows });
    };
    await bury(10, 3000);
    expect(directory.view().count("grave")).toBe(3000);
    const end = new AbortController();
    const waits = [scope.service("s10"), scope.service("s3009")].map((each) =>
      directory.changed(each, directory.view().at(each), end.signal).then(
        () => "woken",
        () => "asleep",
      ),
    );
    await clock.advance(30 * 60_000);
    for (const from of [3010, 7010]) {
      await bury(from, 4000);
      await clock.advance(30 * 60_000);
      expect(directory.view().count("grave")).toBeLessThan(2050);
    }
    expect(asked).toBe(0);
    // Who is told of all of them once more, as after a new connection, is not woken by what was forgotten.
    const again = Array.from({ length: 11_000 }, (_, i) => graveRow(10 + i)).filter(
      ({ modifyIndex }) => modifyIndex < 11_010,
    );
    await send({ kind: "snapshot", index: 11_009, rows: again, complete: true });
    // No scope goes back.
    expect(directory.view().at(scope.service("s10"))).toBeGreaterThanOrEqual(10);
    expect(directory.view().at(scope.service("s11009"))).toBe(11_009);
    end.abort(new Error("enough"));
    expect(await Promise.all(waits)).toEqual(["asleep", "asleep"]);
  });

  test("are not all that is remembered of what is gone: a real Consul tells none, and names that come and go are forgotten as well", async () => {
    const clock = fakeClock();
    const { follow, send } = line(clock);
    const directory = directoryOn({ ...new SimulatedStore(1).client(), clearedElsewhere: true, follow }, clock);
    await directory.start();
    await directory.ready();
    const MANY = 40_000;
    const row = (i: number, index: number) =>
      ({ table: "service", key: `n${i}\u0000s`, createIndex: 10 + i, modifyIndex: index }) as const;
    const origin = { source: "api", authority: "first-hand" } as const;
    const come = Array.from({ length: MANY }, (_, i) => ({
      ...row(i, 10 + i),
      value: {
        ...{ id: "s", name: `s${i}`, node: `n${i}`, tags: [], labels: {} },
        ...{ address: "", port: 1, origin },
      },
    }));
    const goes = Array.from({ length: MANY }, (_, i) => ({ ...row(i, 10 + MANY + i), value: undefined }));
    await send({ kind: "delta", index: 9 + MANY, rows: come });
    await send({ kind: "delta", index: 9 + 2 * MANY, rows: goes });
    const first = scope.service("s0");
    expect(directory.view().at(first)).toBe(10 + MANY);
    const end = new AbortController();
    const wait = directory.changed(first, directory.view().at(first), end.signal).catch(() => "asleep");
    await clock.advance(5 * 60_000);
    // One number stands for all of them.
    expect(directory.view().at(first)).toBe(directory.view().index);
    end.abort(new Error("enough"));
    expect(await wait).toBe("asleep");
  });

  test("are folded after a while: few remain, no scope goes back, nobody is woken", async () => {
    const clock = fakeClock();
    const storage = memoryStorage();
    const directory = directoryOn({ ...storage, close: async () => {} }, clock);
    await directory.start();
    const keys = Array.from({ length: 2600 }, (_, i) => `k${i}`);
    await Promise.all(keys.map((key) => directory.write([put(key)])));
    const removed = new Map<string, Index>();
    for (let from = 0; from < keys.length; from += 100)
      await Promise.all(
        keys.slice(from, from + 100).map(async (key) => {
          removed.set(key, await indexOf(directory.write([gone(key)])));
        }),
      );
    // One comes again: it speaks for itself.
    await indexOf(directory.write([put("k0", "again")]));
    await clock.advance(10 * 60_000);
    expect(directory.view().count("grave")).toBe(2600);
    const end = new AbortController();
    let woken = 0;
    const waits = keys.slice(0, 700).map((key) =>
      directory.changed(`kv:${key}`, directory.view().at(`kv:${key}`), end.signal).then(
        () => woken++,
        () => {},
      ),
    );
    await clock.advance(10 * 60_000);
    const view = directory.view();
    expect(view.count("grave")).toBeLessThanOrEqual(2001);
    for (const [key, index] of removed) expect(view.at(`kv:${key}`)).toBeGreaterThanOrEqual(index);
    expect(view.at("tree:k1")).toBeGreaterThanOrEqual(Math.max(removed.get("k1") ?? 0, removed.get("k1999") ?? 0));
    end.abort();
    await Promise.all(waits);
    expect(woken).toBe(0);
    // The same after a restart.
    const again = directoryOn(storage, clock);
    await again.start();
    for (const [key, index] of removed) expect(again.view().at(`kv:${key}`)).toBeGreaterThanOrEqual(index);
    // The youngest are still known exactly.
    expect(again.view().at("kv:k2599")).toBe(removed.get("k2599"));
  });
});
