// The etcd storage against a real etcd: reading, writing once, following across restarts, cuts and compaction, leases, limits.
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Clock, sleepOn, systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { TrilithError } from "../../src/base/error.ts";
import { silentLog } from "../../src/base/log.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { Commit } from "../../src/contracts/storage.ts";
import { createEtcdStorage, type EtcdStorage } from "../../src/directory/storage/etcd.ts";
import { type Change, keyOf } from "../../src/model/record.ts";
import { cuttable, type EtcdNode, etcdStorage, Follower, ownPrefix, startEtcd } from "../support/etcd.ts";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";

const here = await havePrograms("etcd", "etcdctl", "openssl");

let serial = 0;
const newId = (): string => `test-${process.pid}-${serial++}`;
const kv = (key: string, value: string | Uint8Array): Change => ({
  op: "put",
  table: "kv",
  key,
  value: { key, value: typeof value === "string" ? Buffer.from(value) : value, flags: 2n ** 63n, lockIndex: 0 },
});
const write = (changes: readonly Change[], expects: Commit["expect"] = []): Commit => ({
  id: newId(),
  changes,
  expect: expects,
});
const many = (n: number): Change[] => Array.from({ length: n }, (_, i) => kv(`${i}`, ""));
const text = (row: unknown): string => Buffer.from((row as { value: Uint8Array }).value).toString();
const code = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    (value) => `no error but ${JSON.stringify(value)}`,
    (error: unknown) => (error instanceof TrilithError ? error.code : String(error)),
  );

describe.skipIf(!here)("etcd", () => {
  let node: EtcdNode;
  const ends: (() => Promise<unknown>)[] = [];
  const end = <T extends { close(): Promise<void> } | { stop(): Promise<void> }>(thing: T): T => {
    ends.push(() => ("close" in thing ? thing.close() : thing.stop()));
    return thing;
  };
  const storage = async (prefix: string, ...rest: [endpoint?: string]): Promise<EtcdStorage> =>
    end(await etcdStorage([rest[0] ?? node.endpoint], { prefix }));
  const written = async (to: EtcdStorage, commit: Commit): Promise<number> => {
    const result = await to.commit(commit);
    if (result.result !== "written") throw new Error(`not written: ${JSON.stringify(result)}`);
    return result.index;
  };

  beforeAll(async () => {
    node = await startEtcd();
  });
  afterEach(async () => {
    for (const close of ends.splice(0).reverse()) await close();
    node.resume();
    await node.start();
  });
  afterAll(() => node?.remove());

  test("what one writes another one reads, follows, and finds with etcdctl", async () => {
    const prefix = ownPrefix();
    const [a, b] = [await storage(prefix), await storage(prefix)];
    const follower = end(await Follower.start(b));
    expect(follower.batches).toEqual([{ kind: "snapshot", index: follower.index, rows: [], complete: true }]);
    const created = await written(a, write([kv("a/b", "one"), kv("__proto__", "two")]));
    const changed = await written(a, write([kv("a/b", "three")]));
    const gone = await written(a, write([{ op: "delete", table: "kv", key: "__proto__" }]));
    expect(created).toBeLessThan(changed);
    expect(changed).toBeLessThan(gone);
    await follower.until("the deletion", () => follower.index >= gone);
    expect(
      follower.changes.map((row) => [row.key, row.value && text(row.value), row.createIndex, row.modifyIndex]),
    ).toEqual([
      ["a/b", "one", created, created],
      ["__proto__", "two", created, created],
      ["a/b", "three", created, changed],
      ["__proto__", undefined, 0, gone],
    ]);
    expect((follower.value("kv", "a/b") as { flags: bigint }).flags).toBe(2n ** 63n);
    expect(await node.ctl("get", "--keys-only", "--prefix", prefix)).toContain(`${prefix}kv/a/b\n`);
    const later = end(await Follower.start(await storage(prefix)));
    expect([...later.rows.keys()]).toEqual(["kv a/b"]);
    expect(later.rows.get("kv a/b")).toEqual(follower.rows.get("kv a/b"));
  });

  test("a large content comes in parts of one index, and nothing of other users comes with it", async () => {
    const prefix = ownPrefix();
    const a = await storage(prefix);
    await node.ctl("put", `${prefix.slice(0, -1)}x/kv/a`, "other");
    await node.ctl("put", `${prefix}kv/damaged`, "no record");
    for (let i = 0; i < 24; i++)
      await written(a, write(Array.from({ length: 125 }, (_, n) => kv(`${i}-${n}`, "x".repeat(200)))));
    const parts = [];
    for await (const batch of (await storage(prefix)).open()) parts.push(batch);
    const snapshots = parts.filter((part) => part.kind === "snapshot");
    expect(snapshots.length).toBeGreaterThan(2);
    expect(new Set(snapshots.map(({ index }) => index)).size).toBe(1);
    expect(snapshots.map(({ complete }) => complete)).toEqual([...snapshots.slice(1).map(() => false), true]);
    expect(new Set(snapshots.flatMap(({ rows }) => rows.map(({ key }) => key))).size).toBe(3000);
    // Half a content is none: where the revision is compacted away meanwhile, reading fails and is to be begun anew.
    const half = (await storage(prefix)).open()[Symbol.asyncIterator]();
    await half.next();
    await node.ctl("compact", String(await written(a, write([kv("more", "")]))));
    expect(await code(half.next())).toBe("unavailable");
  });

  test("expectations hold for each commit, also where several go in one transaction", async () => {
    const prefix = ownPrefix();
    const a = await storage(prefix);
    const first = await written(a, write([kv("x", "0")], [{ table: "kv", key: "x", at: 0 }]));
    const results = await Promise.all([
      a.commit(write([kv("x", "1")], [{ table: "kv", key: "x", at: first }])),
      a.commit(write([kv("x", "2")], [{ table: "kv", key: "x", at: first }])),
      a.commit(write([kv("y", "1")], [{ table: "kv", key: "y", at: 0 }])),
      a.commit(write([kv("z", "1")], [{ table: "kv", key: "z", at: 77 }])),
      a.commit(write([kv("w", "1")])),
      a.commit(write([kv("v", "1")], [{ table: "kv", key: "nowhere", at: 0 }])),
    ]);
    expect(results.map(({ result }) => result)).toEqual([
      "written",
      "expectation-failed",
      "written",
      "expectation-failed",
      "written",
      "written",
    ]);
    const follower = end(await Follower.start(await storage(prefix)));
    expect([...follower.rows].map(([key, { value }]) => [key, text(value)])).toEqual([
      ["kv v", "1"],
      ["kv w", "1"],
      ["kv x", "1"],
      ["kv y", "1"],
    ]);
  });

  test("two writers with check-and-set lose no update; commits to one key keep their order", async () => {
    const prefix = ownPrefix();
    const [a, b] = [await storage(prefix), await storage(prefix)];
    const follower = end(await Follower.start(a));
    const count = async (to: EtcdStorage): Promise<number> => {
      let tries = 0;
      for (let done = 0; done < 25; tries++) {
        const row = follower.rows.get("kv n");
        const next = String(Number(row === undefined ? 0 : text(row.value)) + 1);
        const result = await to.commit(write([kv("n", next)], [{ table: "kv", key: "n", at: row?.modifyIndex ?? 0 }]));
        if (result.result === "written") {
          await follower.until("the write", () => follower.index >= result.index);
          done++;
        } else await new Promise((resolve) => setTimeout(resolve, 1));
      }
      return tries;
    };
    await Promise.all([count(a), count(b), count(b)]);
    expect(text(follower.value("kv", "n"))).toBe("75");
    const order = await Promise.all(Array.from({ length: 40 }, (_, i) => written(a, write([kv("last", String(i))]))));
    expect(order).toEqual([...order].sort((x, y) => x - y));
    await follower.until("the last", () => follower.index >= (order.at(-1) as number));
    expect(text(follower.value("kv", "last"))).toBe("39");
  });

  test("many commits at once share transactions, all are written once", async () => {
    const prefix = ownPrefix();
    const a = await storage(prefix);
    const follower = end(await Follower.start(await storage(prefix)));
    const indexes = await Promise.all(Array.from({ length: 500 }, (_, i) => written(a, write([kv(`k${i}`, `${i}`)]))));
    expect(new Set(indexes).size).toBeLessThan(100);
    await follower.until("all", () => follower.index >= Math.max(...indexes));
    expect(follower.rows.size).toBe(500);
    expect(follower.changes.length).toBe(500);
    expect(follower.changes.every(({ key, modifyIndex }) => indexes[Number(key.slice(1))] === modifyIndex)).toBe(true);
  });

  test("a repeated commit is written once and tells its index, also through another process", async () => {
    const prefix = ownPrefix();
    const [a, b] = [await storage(prefix), await storage(prefix)];
    const commit = write([kv("once", "1")], [{ table: "kv", key: "once", at: 0 }]);
    const index = await written(a, commit);
    await written(a, write([kv("once", "2")]));
    expect(await written(a, commit)).toBe(index);
    expect(await written(b, commit)).toBe(index);
    const twice = write([kv("twice", "1")]);
    const [x, y] = await Promise.all([written(a, twice), written(a, twice)]);
    expect(x).toBe(y);
    const follower = end(await Follower.start(b));
    expect(text(follower.value("kv", "once"))).toBe("2");
  });

  test("limits: the largest commit is one revision, what is larger is refused by name", async () => {
    const prefix = ownPrefix();
    const a = await storage(prefix);
    const follower = end(await Follower.start(await storage(prefix)));
    expect(a.maxChanges).toBe(127);
    for (const n of [1, 126, 127]) {
      const index = await written(a, write(many(n)));
      await follower.until(`${n} changes`, () => follower.index >= index);
      expect(follower.batches.filter((batch) => batch.kind === "delta" && batch.index === index)).toMatchObject([
        { rows: { length: n } },
      ]);
    }
    expect(await code(a.commit(write(many(1025))))).toBe("too-large");
    const conditions = (n: number): Commit["expect"] =>
      Array.from({ length: n }, (_, i) => ({ table: "kv" as const, key: `none-${i}`, at: 0 }));
    await written(a, write([kv("x", "")], conditions(127)));
    await written(a, write(many(127), conditions(127)));
    expect(await code(a.commit(write([kv("x", "")], conditions(1025))))).toBe("too-large");
    await written(a, write([kv("large", new Uint8Array(512 << 10))]));
    const [large, small] = await Promise.all([
      code(a.commit(write([kv("larger", new Uint8Array(2 << 20))]))),
      written(a, write([kv("small", "")])),
    ]);
    expect(large).toBe("too-large");
    expect(small).toBeGreaterThan(0);
    expect(await code(a.commit(write([kv("huge", new Uint8Array(5 << 20))])))).toBe("too-large");
    await follower.until("the large value", () => follower.index >= small);
    expect((follower.value("kv", "large") as { value: Uint8Array }).value.length).toBe(512 << 10);
  });

  test("more than a flat transaction holds is one revision too, or nothing", async () => {
    const prefix = ownPrefix();
    const [a, b] = [await storage(prefix), await storage(prefix)];
    const follower = end(await Follower.start(b));
    const numbers = Array.from({ length: 1024 }, (_, i) => i);
    const puts = (value: string): Change[] => numbers.map((i) => kv(`w/${i}`, value));
    const at = (index: number): Commit["expect"] => numbers.map((i) => ({ table: "kv", key: `w/${i}`, at: index }));
    const whole = async (index: number): Promise<void> => {
      await follower.until(`revision ${index}`, () => follower.index >= index);
      expect(follower.batches.filter((batch) => batch.kind === "delta" && batch.index === index)).toMatchObject([
        { rows: { length: 1024 } },
      ]);
    };
    const created = await written(a, write(puts("1"), at(0)));
    await whole(created);
    expect(await a.commit(write(puts("2"), at(0)))).toEqual({ result: "expectation-failed" });
    const commit = write(puts("3"), at(created));
    const set = await written(a, commit);
    await whole(set);
    // The same again is the same.
    expect(await written(b, commit)).toBe(set);
    await written(b, write([kv("w/512", "other")]));
    expect(await a.commit(write(puts("4"), at(set)))).toEqual({ result: "expectation-failed" });
    const again = await written(a, write(puts("5")));
    await node.ctl("del", `${prefix}kv/w/7`);
    expect(await a.commit(write(puts("6"), at(again)))).toEqual({ result: "expectation-failed" });
    const end5 = await written(b, write([kv("end", "")]));
    await follower.until("the end", () => follower.index >= end5);
    for (const i of numbers)
      expect(text(follower.value("kv", `w/${i}`) ?? { value: "gone" })).toBe(i === 7 ? "gone" : "5");
    const foreign = numbers
      .slice(0, 65)
      .map((i): Commit["expect"][number] => ({ table: "kv", key: `w/${i}`, at: again }));
    expect(await code(a.commit(write(many(128), foreign)))).toBe("too-large");
    const [seven] = [await written(b, write([kv("w/7", "5")]))];
    const gone = numbers.map((i): Change => ({ op: "delete", table: "kv", key: `w/${i}` }));
    const stand = numbers.map((i): Commit["expect"][number] => ({
      table: "kv",
      key: `w/${i}`,
      at: i === 7 ? seven : again,
    }));
    expect(await a.commit(write(gone, at(again)))).toEqual({ result: "expectation-failed" });
    const removal = write(gone, stand);
    await whole(await written(a, removal));
    expect((await node.ctl("get", "--prefix", "--keys-only", `${prefix}kv/w/`)).trim()).toBe("");
    expect(await a.commit(write(gone, stand))).toEqual({ result: "expectation-failed" });
    const back = await written(b, write(puts("7")));
    const foreignAgain = foreign.map((each) => ({ ...each, at: back }));
    expect(await code(a.commit(write(many(128), foreignAgain)))).toBe("too-large");
    const [first, ...rest] = foreignAgain.filter(({ key }) => key !== "w/7");
    await written(a, write(many(128), [first as Commit["expect"][number], ...rest]));
  });

  test("two that write the same many keys at once: each step is done by one of them, whole", async () => {
    const prefix = ownPrefix();
    const stores = [await storage(prefix), await storage(prefix)];
    const numbers = Array.from({ length: 200 }, (_, i) => i);
    const follower = end(await Follower.start(await storage(prefix)));
    let index = 0;
    for (let round = 0; round < 10; round++) {
      const expects = numbers.map((i): Commit["expect"][number] => ({ table: "kv", key: `${i}`, at: index }));
      // What is written between the keys is nobody's condition: it must not make the commit fail.
      const between = stores.map((store, who) => store.commit(write([kv(`1${round}x${who}`, "")])));
      const results = await Promise.all(
        stores.map((store, who) =>
          store.commit(
            write(
              numbers.map((i) => kv(`${i}`, `${round}-${who}`)),
              expects,
            ),
          ),
        ),
      );
      await Promise.all(between);
      const winners = results.flatMap((result, who) =>
        result.result === "written" ? [{ who, at: result.index }] : [],
      );
      expect(winners).toHaveLength(1);
      const [winner] = winners as [{ who: number; at: number }];
      index = winner.at;
      await follower.until(`revision ${index}`, () => follower.index >= index);
      for (const i of numbers) expect(text(follower.value("kv", `${i}`))).toBe(`${round}-${winner.who}`);
    }
  });

  test("many large values in one revision arrive whole", async () => {
    const prefix = ownPrefix();
    const a = await storage(prefix);
    const way = end(await cuttable(node.endpoint));
    const follower = end(await Follower.start(await storage(prefix, way.endpoint)));
    way.cut();
    // Several MiB between two looks: etcd sends them in fragments.
    let last = 0;
    for (let i = 0; i < 12; i++)
      last = await written(a, write([kv(`big-${i}`, Buffer.alloc(700 << 10, i)), kv(`m-${i}`, "")]));
    way.mend();
    await follower.until("all", () => follower.index >= last);
    expect(follower.snapshots).toBe(1);
    expect(follower.changes.length).toBe(24);
    for (const batch of follower.batches) if (batch.kind === "delta") expect(batch.rows.length).toBe(2);
  });

  test("following goes on after a restart of etcd, says that it was away, and misses nothing", async () => {
    const prefix = ownPrefix();
    const a = await storage(prefix);
    const follower = end(await Follower.start(await storage(prefix)));
    await written(a, write([kv("before", "")]));
    const before = Date.now();
    await node.stop();
    await follower.until("away", () => !follower.reachable);
    const noticed = Date.now();
    const away = follower.batches.at(-1);
    expect(away).toMatchObject({ kind: "reachable", reachable: false });
    const { atMs } = away as { atMs: number };
    expect(atMs).toBeGreaterThan(before - 10_000);
    expect(atMs).toBeLessThanOrEqual(noticed);
    expect(await code(a.commit(write([kv("lost", "")])))).toBe("unavailable");
    expect(await code(a.latest())).toBe("unavailable");
    expect(await code(Follower.start(a))).toBe("unavailable");
    await node.start();
    const after = await written(a, write([kv("after", "")]));
    await follower.until("back", () => follower.reachable && follower.index >= after);
    expect(follower.snapshots).toBe(1);
    expect([...follower.rows.keys()].sort()).toEqual(["kv after", "kv before"]);
  });

  test("while etcd is paused the outcome is unknown in bounded time; the repetition writes once", async () => {
    const prefix = ownPrefix();
    const a = end(await etcdStorage([node.endpoint], { prefix }, { attemptMs: 500, patienceMs: 1_500 }));
    const follower = end(await Follower.start(a));
    await written(a, write([kv("n", "1")]));
    const at = follower.rows.get("kv n")?.modifyIndex ?? (await a.latest());
    node.pause();
    const commit = write([kv("n", "2")], [{ table: "kv", key: "n", at }]);
    expect(await a.commit(commit)).toMatchObject({ result: "unknown" });
    await follower.until("away", () => !follower.reachable);
    node.resume();
    const result = await a.commit(commit);
    if (result.result !== "written") throw new Error(`not written: ${JSON.stringify(result)}`);
    await follower.until("back", () => follower.reachable && follower.index >= result.index);
    expect(follower.changes.filter(({ key }) => key === "n").map(({ value }) => text(value))).toEqual(["1", "2"]);
    expect(follower.rows.get("kv n")?.modifyIndex).toBe(result.index);
  });

  test("a commit that fails after a lost attempt can never be done later", async () => {
    const prefix = ownPrefix();
    const way = end(await cuttable(node.endpoint));
    const a = end(await etcdStorage([way.endpoint], { prefix }, { attemptMs: 300, patienceMs: 600 }));
    const b = await storage(prefix);
    await written(a, write([kv("warm", "")]));
    way.freeze();
    const commit = write([kv("lock", "a")], [{ table: "kv", key: "lock", at: 0 }]);
    expect(await a.commit(commit)).toMatchObject({ result: "unknown" });
    await written(b, write([kv("lock", "b")], [{ table: "kv", key: "lock", at: 0 }]));
    way.cut();
    way.mend();
    expect(await a.commit(commit)).toEqual({ result: "expectation-failed" });
    await written(b, write([{ op: "delete", table: "kv", key: "lock" }]));
    // The lost attempt, done late: the same transaction once more.
    expect(await b.commit(commit)).toEqual({ result: "expectation-failed" });
    const follower = end(await Follower.start(b));
    expect(follower.value("kv", "lock")).toBeUndefined();
  });

  test("compaction while disconnected brings a snapshot", async () => {
    const prefix = ownPrefix();
    const a = await storage(prefix);
    const way = end(await cuttable(node.endpoint));
    const follower = end(await Follower.start(await storage(prefix, way.endpoint)));
    const first = await written(a, write([kv("stays", "1"), kv("goes", "1")]));
    await follower.until("both", () => follower.index >= first);
    way.cut();
    await follower.until("away", () => !follower.reachable);
    await written(a, write([{ op: "delete", table: "kv", key: "goes" }, kv("stays", "2")]));
    const last = await written(a, write([kv("comes", "1")]));
    await node.ctl("compact", String(last));
    way.mend();
    await follower.until("the snapshot", () => follower.snapshots === 2 && follower.reachable);
    expect([...follower.rows.keys()].sort()).toEqual(["kv comes", "kv stays"]);
    expect(text(follower.value("kv", "stays"))).toBe("2");
    const next = await written(a, write([kv("later", "1")]));
    await follower.until("what comes later", () => follower.index >= next);
    expect(follower.snapshots).toBe(2);
  });

  test("a silent way is noticed, and another endpoint taken", async () => {
    const prefix = ownPrefix();
    const [one, two] = [end(await cuttable(node.endpoint)), end(await cuttable(node.endpoint))];
    const a = end(
      await etcdStorage([one.endpoint, two.endpoint], { prefix }, { attemptMs: 500, askMs: 300, silentMs: 900 }),
    );
    const b = await storage(prefix);
    const follower = end(await Follower.start(a));
    one.freeze();
    const mine = await written(a, write([kv("mine", "")]));
    const other = await written(b, write([kv("other", "")]));
    await follower.until("both", () => follower.index >= Math.max(mine, other));
    one.mend();
    two.freeze();
    const next = await written(b, write([kv("next", "")]));
    await follower.until("the next", () => follower.index >= next);
    expect(follower.snapshots).toBe(1);
  });

  test("an empty etcd in the place of the old one is read afresh", async () => {
    const prefix = ownPrefix();
    const a = await storage(prefix);
    const follower = end(await Follower.start(a));
    for (let i = 0; i < 5; i++) await written(a, write([kv("old", `${i}`)]));
    await follower.until("the old", () => follower.rows.size === 1);
    await node.wipe();
    await follower.until("away", () => !follower.reachable);
    await node.start();
    await follower.until("empty", () => follower.snapshots === 2 && follower.rows.size === 0 && follower.reachable);
    const index = await written(a, write([kv("new", "")]));
    await follower.until("the new", () => follower.rows.has("kv new"));
    expect(follower.index).toBe(index);
  });

  test("an index moved by others is reached without any change of ours", async () => {
    const prefix = ownPrefix();
    const a = await storage(prefix);
    const follower = end(await Follower.start(a));
    await node.ctl("put", "/somebody/else", "x");
    const latest = await a.latest();
    expect(latest).toBeGreaterThan(follower.index);
    await follower.until("the index", () => follower.index >= latest);
    const nothing = await written(a, write([{ op: "delete", table: "kv", key: "never-there" }]));
    await follower.until("the empty commit's index", () => follower.index >= nothing);
    expect(follower.changes).toEqual([]);
  });

  test("the sign of life: under a lease, taken over by the next life, made again when lost", {
    timeout: 90_000,
  }, async () => {
    const prefix = ownPrefix();
    const watcher = end(await Follower.start(await storage(prefix)));
    const way = end(await cuttable(node.endpoint));
    const a = await storage(prefix, way.endpoint);
    const lives: (string | undefined)[] = [];
    const seen = (): void => {
      for (const row of watcher.changes.splice(0)) lives.push((row.value as { life: string } | undefined)?.life);
    };
    const first = new AbortController();
    const kept = a.alive("Web-1", "life-1", 2_000, first.signal);
    await watcher.until("alive", () => watcher.value("alive", keyOf.alive("web-1")) !== undefined);
    expect(watcher.value("alive", "web-1")).toMatchObject({ node: "Web-1", life: "life-1" });
    expect(await node.ctl("get", "-w", "fields", `${prefix}alive/web-1`)).toMatch(/"Lease" : [1-9]/);
    // Stopping for an upgrade: the next life takes the key over before the lease runs out.
    first.abort();
    await kept;
    const second = new AbortController();
    const keptAgain = a.alive("Web-1", "life-2", 2_000, second.signal);
    await new Promise((resolve) => setTimeout(resolve, 6_000));
    seen();
    expect(lives.splice(0)).toEqual(["life-1", "life-2"]);
    // Cut off for longer than the lease.
    way.freeze();
    await watcher.until("dead", () => watcher.value("alive", "web-1") === undefined);
    way.cut();
    way.mend();
    await watcher.until("alive again", () => watcher.value("alive", "web-1") !== undefined);
    seen();
    expect(lives.splice(0)).toEqual([undefined, "life-2"]);
    // etcd itself stands still for longer than the lease.
    node.pause();
    await new Promise((resolve) => setTimeout(resolve, 5_000));
    node.resume();
    await eventually("alive after the pause", async () => (await node.ctl("get", `${prefix}alive/web-1`)) !== "");
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect(await node.ctl("get", `${prefix}alive/web-1`)).toContain("life-2");
    // Somebody deletes it by hand: only a follower of the same storage can know.
    const own = end(await Follower.start(a));
    await own.until("it is there", () => own.value("alive", "web-1") !== undefined);
    await node.ctl("del", `${prefix}alive/web-1`);
    await own.until("deleted and made again", () => own.changes.some(({ value }) => value === undefined));
    await own.until("made again", () => own.value("alive", "web-1") !== undefined);
    second.abort();
    await keptAgain;
    await own.until("run out", () => own.value("alive", "web-1") === undefined);
  });

  test("aborting and closing leave nothing behind", async () => {
    const prefix = ownPrefix();
    const port = Number(new URL(node.endpoint).port).toString(16).toUpperCase().padStart(4, "0");
    /** Established connections to this etcd; it holds one to itself. */
    const sockets = async (): Promise<number> =>
      (await readFile("/proc/self/net/tcp", "utf8")).match(new RegExp(`:[0-9A-F]{4} [0-9A-F]{8}:${port} 01 `, "g"))
        ?.length ?? 0;
    const { before } = await eventually("connections of earlier tests are gone", async () => {
      const before = await sockets();
      await new Promise((resolve) => setTimeout(resolve, 200));
      return before === (await sockets()) && { before };
    });
    let timers = 0;
    const clock: Clock = {
      ...systemClock,
      after(ms, callback, keepAlive) {
        timers++;
        let pending = true;
        const end = (): void => {
          if (pending) timers--;
          pending = false;
        };
        const timer = systemClock.after(
          ms,
          () => {
            end();
            callback();
          },
          keepAlive,
        );
        return {
          cancel() {
            end();
            timer.cancel();
          },
        };
      },
      sleep: (ms, signal) => sleepOn(clock, ms, signal),
    };
    const a = await createEtcdStorage(
      { endpoints: [node.endpoint], prefix, livenessMs: 15_000 },
      { clock, random: systemRandom, disk: systemDisk, log: silentLog },
    );
    const follower = await Follower.start(a);
    await written(a, write([kv("warm", "")]));
    const stop = new AbortController();
    const kept = a.alive("n", "l", 5_000, stop.signal);
    await follower.until("alive", () => follower.rows.size === 2);
    expect(await sockets()).toBeGreaterThan(before);
    expect(timers).toBeGreaterThan(0);
    const reason = new Error("enough");
    await expect(a.commit(write([kv("x", "")]), AbortSignal.abort(reason))).rejects.toBe(reason);
    node.pause();
    const late = a.commit(write([kv("late", "")]));
    const queued = a.commit(write([kv("late", "2")]));
    await new Promise((resolve) => setTimeout(resolve, 100));
    const results = Promise.allSettled([late, queued]);
    await a.close();
    await a.close();
    await follower.stop();
    await kept;
    node.resume();
    expect(
      (await results).map((one) => (one.status === "fulfilled" ? one.value.result : (one.reason as TrilithError).code)),
    ).toEqual(["unknown", "stopped"]);
    expect(await code(a.commit(write([kv("x", "")])))).toBe("stopped");
    expect(timers).toBe(0);
    await eventually("every socket is closed", async () => (await sockets()) <= before);
  });

  test("without space: disk-full, and what would help", async () => {
    const small = await startEtcd(["--quota-backend-bytes", String(4 << 20)]);
    ends.push(() => small.remove());
    const a = end(await etcdStorage([small.endpoint], { prefix: "/small" }));
    const follower = end(await Follower.start(a));
    let failure: unknown;
    for (let i = 0; i < 50 && failure === undefined; i++)
      await written(a, write([kv("fill", Buffer.alloc(300 << 10, i))])).catch((error: unknown) => {
        failure = error;
      });
    expect(failure).toMatchObject({ code: "disk-full", message: expect.stringMatching(/out of space.*alarm disarm/) });
    // Reading goes on.
    expect(await a.latest()).toBeGreaterThan(1);
    expect(follower.value("kv", "fill")).toBeDefined();
  });

  test("authentication: the right password, a wrong one, none, and a token that is not valid any more", async () => {
    const closed = await startEtcd(["--auth-token-ttl", "3"]);
    ends.push(() => closed.remove());
    await closed.ctl("user", "add", "root:top");
    await closed.ctl("user", "add", "trilith:secret");
    await closed.ctl("role", "add", "trilith");
    await closed.ctl("role", "grant-permission", "trilith", "--prefix=true", "readwrite", "/trilith/");
    await closed.ctl("user", "grant-role", "trilith", "trilith");
    await closed.ctl("auth", "enable");
    const asked = (settings: object): Promise<EtcdStorage> =>
      etcdStorage([closed.endpoint], { prefix: "/trilith/", ...settings }).then(end);
    const a = await asked({ username: "trilith", password: "secret" });
    const follower = end(await Follower.start(a));
    const first = await written(a, write([kv("x", "1")]));
    await follower.until("the first", () => follower.index >= first);
    // Longer than a token lives.
    await new Promise((resolve) => setTimeout(resolve, 6_000));
    const second = await written(a, write([kv("x", "2")]));
    await follower.until("the second", () => follower.index >= second);
    await closed.stop();
    await closed.start();
    await eventually("written again", () => written(a, write([kv("x", "3")])));
    await follower.until("the third", () => text(follower.value("kv", "x")) === "3" && follower.reachable);
    const wrong = await asked({ username: "trilith", password: "guess" });
    expect(await code(wrong.latest())).toBe("not-allowed");
    expect(await code(wrong.commit(write([kv("x", "4")])))).toBe("not-allowed");
    const elsewhere = await asked({ username: "trilith", password: "secret", prefix: "/other/" });
    expect(await code(elsewhere.commit(write([kv("x", "4")])))).toBe("not-allowed");
    expect(await code((await asked({})).latest())).not.toMatch(/^no error/);
    const superfluous = end(await etcdStorage([node.endpoint], { username: "u", password: "p" }));
    expect(await code(superfluous.latest())).toBe("not-allowed");
  });

  test("TLS: with our certificate authority and client certificate, not without", async () => {
    const folder = await ownFolder("etcd-tls");
    ends.push(() => folder.remove());
    const at = (name: string): string => `${folder.path}/${name}`;
    const ssl = (...args: string[]): Promise<unknown> => promisify(execFile)("openssl", args, { cwd: folder.path });
    const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    await ssl("req", "-x509", ...ec, "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA");
    await writeFile(at("ext"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n");
    for (const name of ["server", "client"]) {
      await ssl("req", ...ec, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
      const sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext"];
      await ssl("x509", "-req", "-in", `${name}.csr`, ...sign, "-out", `${name}.pem`);
    }
    const files = ["--cert-file", at("server.pem"), "--key-file", at("server.key"), "--trusted-ca-file", at("ca.pem")];
    const secure = await startEtcd([...files, "--client-cert-auth"], "https");
    ends.push(() => secure.remove());
    const whole = { caFile: at("ca.pem"), certFile: at("client.pem"), keyFile: at("client.key") };
    const a = end(await etcdStorage([secure.endpoint], whole));
    await eventually("it answers", () => a.latest());
    const follower = end(await Follower.start(a));
    const index = await written(a, write([kv("x", "1")]));
    await follower.until("the write", () => follower.index >= index);
    expect(await code(end(await etcdStorage([secure.endpoint], { caFile: at("ca.pem") })).latest())).toBe(
      "unavailable",
    );
    expect(await code(end(await etcdStorage([secure.endpoint])).latest())).toBe("unavailable");
    await expect(etcdStorage([secure.endpoint], { ...whole, caFile: at("missing.pem") })).rejects.toThrow(
      /etcd\.caFile ".*missing\.pem": .*ENOENT/,
    );
    await expect(etcdStorage([secure.endpoint], { certFile: at("client.pem") })).rejects.toThrow(/belong together/);
  });
});
