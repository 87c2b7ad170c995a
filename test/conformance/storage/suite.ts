// The laws of every store, as a suite to be run over each of them.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Batch, Commit, Row, Storage } from "../../../src/contracts/storage.ts";
import { sameValue } from "../../../src/model/codec.ts";
import { type Change, type Expect, type Index, keyOf } from "../../../src/model/record.ts";
import { checkFollower, checkHistory, History, markOf } from "./history.ts";

/** One content, and the stores that open it. */
export interface StoreUnderTest {
  /** A store on the content: for shared stores another client each time; embedded ones are asked once between restarts. */
  client(): Promise<Storage>;
  /** Ends all clients as a restart of their processes does. False where nothing outlives it. */
  restart(): Promise<boolean>;
  /** Makes forgotten history a fact, where the store can: followers from before must be given a snapshot. */
  compact?(): Promise<void>;
  /** Ends everything and removes the content. */
  end(): Promise<void>;
}

export interface SuiteOptions {
  /** Commits of each writer in the random runs. */
  readonly commits?: number;
  /** Random runs. */
  readonly runs?: number;
}

/** Everything a store holds. */
export async function contentOf(storage: Storage): Promise<{ readonly index: Index; readonly rows: Row[] }> {
  const rows: Row[] = [];
  let index = 0;
  let complete = false;
  for await (const batch of storage.open()) {
    if (batch.kind !== "snapshot") continue;
    expect(complete).toBe(false);
    rows.push(...batch.rows);
    index = batch.index;
    complete = batch.complete;
  }
  expect(complete).toBe(true);
  return { index, rows };
}

/** A small generator of numbers that can be repeated. */
export function seeded(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const pair = (key: string, text: string): Change => ({
  op: "put",
  table: "kv",
  key: keyOf.kv(key),
  value: { key, value: new TextEncoder().encode(text), flags: 0n, lockIndex: 0 },
});
const gone = (key: string): Change => ({ op: "delete", table: "kv", key });
const at = (key: string, index: Index): Expect => ({ table: "kv", key, at: index });

/** One record of each table, with what is hard to store. */
const ODD: readonly Change[] = [
  {
    op: "put",
    table: "node",
    key: "node-1",
    value: {
      id: "6a3f0a6e-0000-4000-8000-000000000001",
      name: "Node-1",
      address: "10.0.0.1",
      datacenter: "dc1",
      taggedAddresses: Object.assign(Object.create(null), { ["__proto__"]: "x", lan: "10.0.0.1" }),
      labels: JSON.parse('{"__proto__":"polluted","constructor":"c","":"empty"}'),
      external: true,
    },
  },
  {
    op: "put",
    table: "service",
    key: keyOf.service("node-1", "wéb\u{1f600}:1"),
    value: {
      id: "wéb\u{1f600}:1",
      name: "Web",
      node: "Node-1",
      tags: ["a", "", "a"],
      labels: {},
      address: "",
      port: 65535,
      addresses: [{ host: "fd00::1", port: 1, reach: "lan", network: "x" }],
      weights: { passing: 1, warning: 0 },
      foreign: {
        Proxy: { Upstreams: [null, { a: 1.5 }] },
        bytes: new Uint8Array([0, 255]),
        big: 12345678901234567890n,
      },
      origin: { source: "api", authority: "first-hand" },
    },
  },
  {
    op: "put",
    table: "check",
    key: keyOf.check("node-1", "c"),
    value: {
      id: "c",
      node: "Node-1",
      name: "",
      status: "critical",
      notes: "\u0000\u001f\u2028",
      output: "x".repeat(4096),
      serviceId: "",
      type: "",
    },
  },
  {
    op: "put",
    table: "kv",
    key: `long/${"é".repeat(3000)}`,
    value: {
      key: `long/${"é".repeat(3000)}`,
      value: new Uint8Array(100_000).fill(7),
      flags: 2n ** 64n - 1n,
      lockIndex: 9,
      session: "s",
    },
  },
  {
    op: "put",
    table: "kv",
    key: "a\u0000b/../ ",
    value: { key: "a\u0000b/../ ", value: new Uint8Array(0), flags: 0n, lockIndex: 0 },
  },
  {
    op: "put",
    table: "session",
    key: "s",
    value: {
      id: "s",
      name: "",
      node: "Node-1",
      lockDelayMs: 15_000,
      behavior: "release",
      nodeChecks: ["serfHealth"],
      serviceChecks: [],
    },
  },
  {
    op: "put",
    table: "grave",
    key: "000.x.0",
    value: { scopes: ["nodes", "service:web"], gone: [{ table: "node", key: "n" }] },
  },
];

/** Runs the suite. `make` gives an empty content. */
export function describeStorage(name: string, make: () => Promise<StoreUnderTest>, options: SuiteOptions = {}): void {
  describe(`store: ${name}`, () => {
    let content: StoreUnderTest;
    let ids = 0;
    let follows: { readonly end: AbortController; readonly done: Promise<void> }[] = [];
    beforeEach(async () => {
      content = await make();
    });
    afterEach(async () => {
      for (const each of follows) each.end.abort();
      await Promise.all(follows.map(({ done }) => done));
      follows = [];
      await content.end();
    });

    const commitOf = (changes: readonly Change[], expected: readonly Expect[] = []): Commit => ({
      id: `c${ids++}`,
      changes,
      expect: expected,
    });
    /** Repeats a commit until its outcome is known. */
    async function known(storage: Storage, commit: Commit): Promise<Index | undefined> {
      for (let tries = 0; tries < 200; tries++) {
        const written = await storage.commit(commit).catch(() => undefined);
        if (written?.result === "written") return written.index;
        if (written?.result === "expectation-failed") return undefined;
      }
      throw new Error(`the outcome of ${commit.id} stays unknown`);
    }
    const write = (
      storage: Storage,
      changes: readonly Change[],
      expected: readonly Expect[] = [],
    ): Promise<Index | undefined> => known(storage, commitOf(changes, expected));
    /** Follows from an index; `until` resolves when a batch reaches an index. */
    function follow(storage: Storage, after: Index): { readonly batches: Batch[]; until(index: Index): Promise<void> } {
      const end = new AbortController();
      const batches: Batch[] = [];
      let reached = 0;
      let bell = (): void => {};
      const done = (async () => {
        try {
          for await (const batch of storage.follow?.(after, end.signal) ?? []) {
            batches.push(batch);
            if (batch.kind === "delta" || (batch.kind === "snapshot" && batch.complete))
              reached = Math.max(reached, batch.index);
            bell();
          }
        } catch (error) {
          if (!end.signal.aborted) throw error;
        }
      })();
      follows.push({ end, done });
      return {
        batches,
        async until(index) {
          while (reached < index)
            await new Promise<void>((resolve) => {
              bell = resolve;
            });
        },
      };
    }

    test("an empty store has an index and no records", async () => {
      const { index, rows } = await contentOf(await content.client());
      expect(index).toBeGreaterThanOrEqual(1);
      expect(rows).toEqual([]);
    });

    test("indexes: a put makes, a second changes, a removal ends, the next makes anew", async () => {
      const storage = await content.client();
      const begin = (await contentOf(storage)).index;
      const made = (await write(storage, [pair("a", "1")])) as Index;
      const changed = (await write(storage, [pair("a", "2"), pair("b", "1")])) as Index;
      expect(made).toBeGreaterThan(begin);
      expect(changed).toBeGreaterThan(made);
      const before = (await contentOf(storage)).rows.map(({ key, createIndex, modifyIndex }) => [
        key,
        createIndex,
        modifyIndex,
      ]);
      expect(before.sort()).toEqual([
        ["a", made, changed],
        ["b", changed, changed],
      ]);
      const removed = (await write(storage, [gone("a"), gone("never")])) as Index;
      expect(removed).toBeGreaterThan(changed);
      const again = (await write(storage, [pair("a", "3")])) as Index;
      const { rows, index } = await contentOf(storage);
      expect(index).toBeGreaterThanOrEqual(again);
      expect(rows.find(({ key }) => key === "a")).toMatchObject({ createIndex: again, modifyIndex: again });
    });

    test("every kind of record comes back as it was, also after a restart", async () => {
      const storage = await content.client();
      await contentOf(storage);
      const index = await write(storage, ODD);
      const check = async (rows: readonly Row[]): Promise<void> => {
        expect(rows).toHaveLength(ODD.length);
        for (const change of ODD) {
          const row = rows.find(({ table, key }) => table === change.table && key === change.key);
          expect(row).toMatchObject({ createIndex: index, modifyIndex: index });
          expect(sameValue(row?.value, change.op === "put" ? change.value : undefined)).toBe(true);
        }
      };
      await check((await contentOf(storage)).rows);
      if (!(await content.restart())) return;
      await check((await contentOf(await content.client())).rows);
    });

    test("expectations: missing, present, moved; a refused commit leaves nothing", async () => {
      const storage = await content.client();
      await contentOf(storage);
      expect(await write(storage, [pair("a", "1")], [at("a", 99)])).toBeUndefined();
      const made = (await write(storage, [pair("a", "1")], [at("a", 0)])) as Index;
      expect(await write(storage, [pair("a", "2")], [at("a", 0)])).toBeUndefined();
      expect(await write(storage, [pair("b", "1"), gone("a")], [at("a", made), at("b", made)])).toBeUndefined();
      expect((await contentOf(storage)).rows.map(({ key }) => key)).toEqual(["a"]);
      const changed = (await write(storage, [pair("b", "1")], [at("a", made), at("b", 0)])) as Index;
      await write(storage, [gone("b")], [at("b", changed)]);
      expect(await write(storage, [pair("b", "2")], [at("b", changed)])).toBeUndefined();
      expect(await write(storage, [pair("b", "2")], [at("b", 0)])).toBeDefined();
    });

    test("of many that expect the same, one wins", async () => {
      const storage = await content.client();
      await contentOf(storage);
      const won = await Promise.all(
        Array.from({ length: 30 }, (_, i) =>
          write(storage, [pair("one", String(i)), pair(`trace/${i}`, "")], [at("one", 0)]),
        ),
      );
      const winners = won.flatMap((index, i) => (index === undefined ? [] : [i]));
      expect(winners).toHaveLength(1);
      const { rows } = await contentOf(storage);
      expect(rows.map(({ key }) => key).sort()).toEqual(["one", `trace/${winners[0]}`]);
    });

    test("the index goes on after a restart, also when the last write was a removal", async () => {
      const storage = await content.client();
      await contentOf(storage);
      await write(storage, [pair("a", "1")]);
      const removed = (await write(storage, [gone("a")])) as Index;
      if (!(await content.restart())) return;
      const again = await content.client();
      expect((await contentOf(again)).index).toBeGreaterThanOrEqual(removed);
      expect(await write(again, [pair("a", "1")], [at("a", 0)])).toBeGreaterThan(removed);
    });

    test("random writers: one order of whole commits explains what everybody saw", async () => {
      for (let run = 0; run < (options.runs ?? 5); run++) {
        if (run > 0) {
          await content.end();
          content = await make();
        }
        const random = seeded(run * 7919 + 1);
        const storage = await content.client();
        const clients = storage.shared ? [storage, await content.client(), await content.client()] : [storage];
        const { index: first } = await contentOf(storage);
        for (const other of clients.slice(1)) await contentOf(other);
        const followers = storage.shared ? clients.map((each) => follow(each, first)) : [];
        const history = new History();
        const seen = new Map<string, Index>();
        const keys = Array.from({ length: 6 }, (_, i) => `k${i}`);
        const key = (): string => keys[random(keys.length)] as string;
        const writer = async (client: Storage, name: string): Promise<void> => {
          for (let i = 0; i < (options.commits ?? 40); i++) {
            const id = `r${run}.${name}.${i}`;
            const changes = new Map<string, Change>([["mark", pair(markOf(id), "")]]);
            for (let n = random(4); n >= 0; n--) {
              const each = key();
              changes.set(each, random(3) === 0 ? gone(each) : pair(each, id));
            }
            const expected: Expect[] = [];
            if (random(2) === 0) {
              const each = key();
              expected.push(at(each, random(4) === 0 ? 0 : (seen.get(each) ?? 0)));
            }
            const commit: Commit = { id, changes: [...changes.values()], expect: expected };
            const written = await history.attempt(commit, async () => {
              // As the directory does: an unknown outcome is asked about again with the same commit.
              let last = await client.commit(commit);
              for (let tries = random(3); last.result === "unknown" && tries > 0; tries--)
                last = await client.commit(commit);
              return last;
            });
            if (written?.result === "written")
              for (const change of commit.changes) seen.set(change.key, change.op === "put" ? written.index : 0);
          }
        };
        await Promise.all(clients.flatMap((each, c) => [0, 1, 2, 3].map((w) => writer(each, `${c}.${w}`))));
        // Commits whose outcome stayed unknown may still arrive; one more write of a known outcome stands behind what is acknowledged.
        const settle = commitOf([pair("settle", "")]);
        await known(storage, settle);
        let snapshot = await contentOf(storage);
        for (let same = 0; same < 3; ) {
          await new Promise((resolve) => setTimeout(resolve, 5));
          const next = await contentOf(storage);
          same = next.rows.length === snapshot.rows.length && next.index === snapshot.index ? same + 1 : 0;
          snapshot = next;
        }
        const last = snapshot.rows.find((row) => row.key === "settle")?.modifyIndex as Index;
        const rows = snapshot.rows.filter((row) => row.key !== "settle");
        const transactions = checkHistory(history.attempts, rows, first);
        const settled = snapshot.rows.filter((row) => row.key === "settle");
        for (const row of settled) transactions.set(last, [row]);
        const outcomes = new Set(history.attempts.map(({ outcome }) => outcome));
        expect(outcomes.has("written") && outcomes.has("expectation-failed")).toBe(true);
        for (const follower of followers) {
          await follower.until(snapshot.index);
          checkFollower(follower.batches, transactions, first, snapshot.index);
        }
        if (!(await content.restart())) continue;
        follows = [];
        const kept = await contentOf(await content.client());
        checkHistory(
          history.attempts,
          kept.rows.filter((row) => row.key !== "settle"),
          first,
        );
      }
    });

    test("shared: a repeated commit is written once and told the same index", async () => {
      const storage = await content.client();
      if (!storage.shared) return;
      const other = await content.client();
      await contentOf(storage);
      await contentOf(other);
      const commit = commitOf([pair("once", "1")], [at("once", 0)]);
      const index = await known(storage, commit);
      await write(other, [pair("between", "")]);
      expect(await known(storage, commit)).toBe(index);
      expect((await contentOf(storage)).rows.find(({ key }) => key === "once")).toMatchObject({
        createIndex: index,
        modifyIndex: index,
      });
    });

    test("shared: latest is not behind what was acknowledged to anybody", async () => {
      const storage = await content.client();
      if (!storage.shared) return;
      const other = await content.client();
      await contentOf(storage);
      await contentOf(other);
      const index = (await write(storage, [pair("a", "1")])) as Index;
      for (let tries = 0; ; tries++) {
        const latest = await other.latest?.().catch((error: unknown) => {
          if (tries > 50) throw error;
          return undefined;
        });
        if (latest === undefined) continue;
        expect(latest).toBeGreaterThanOrEqual(index);
        break;
      }
    });

    test("shared: who was away too long is given the whole", async () => {
      const storage = await content.client();
      if (!storage.shared || content.compact === undefined) return;
      const { index: first } = await contentOf(storage);
      await write(storage, [pair("a", "1"), pair("b", "1")]);
      await write(storage, [gone("a")]);
      const last = (await write(storage, [pair("c", "1")])) as Index;
      await content.compact();
      const follower = follow(await content.client(), first);
      await follower.until(last);
      const whole = follower.batches.filter((batch) => batch.kind === "snapshot");
      expect(whole.length).toBeGreaterThan(0);
      expect(whole.flatMap(({ rows }) => rows.map(({ key }) => key)).sort()).toEqual(["b", "c"]);
    });

    test("shared: following ends when aborted", async () => {
      const storage = await content.client();
      if (!storage.shared) return;
      const { index } = await contentOf(storage);
      const end = new AbortController();
      const ended = (async () => {
        try {
          for await (const _ of storage.follow?.(index, end.signal) ?? []);
        } catch (error) {
          if (!end.signal.aborted) throw error;
        }
      })();
      await write(storage, [pair("a", "1")]);
      end.abort();
      await ended;
    });
  });
}
