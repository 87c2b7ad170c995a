// The laws of sessions and locks over a shared store that misbehaves, by many seeds: checked against everything that ever happened in it.
import { describe, expect, test } from "vitest";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import type { Kv } from "../../src/contracts/kv.ts";
import { createKv } from "../../src/directory/kv.ts";
import { createDirectory, type LocalDirectory } from "../../src/directory/local.ts";
import { Dues, KINDS } from "../../src/directory/locks.ts";
import { createSessions, type RunningSessions } from "../../src/directory/session.ts";
import type { KvPair } from "../../src/model/kv.ts";
import type { Session } from "../../src/model/record.ts";
import { checkChange, nodeChange } from "../support/directory.ts";
import { fakeClock } from "./clock.ts";
import { type Faults, SimulatedStore, seededRandom, type Transaction } from "./store.ts";

const KEYS = ["a", "b"];
const NODES = ["n1", "n2"];
/** What may come of an operation whose store is in trouble. */
const TROUBLE: ReadonlySet<string> = new Set(["unavailable", "timeout", "stopped", "invalid"]);

interface Process {
  readonly directory: LocalDirectory;
  readonly kv: Kv;
  readonly sessions: RunningSessions;
}

/** Holds everything that happened to the laws. */
function checkLog(log: readonly Transaction[]): { readonly holds: number; readonly ended: number } {
  const sessions = new Map<string, Session>();
  const keys = new Map<string, KvPair>();
  let [holds, ended] = [0, 0];
  for (const { index, rows } of log) {
    const before = new Map(keys);
    for (const { table, key, value } of rows)
      if (table === "session") {
        if (value === undefined) {
          sessions.delete(key);
          ended++;
        } else sessions.set(key, value as Session);
      } else if (table === "kv") {
        if (value === undefined) keys.delete(key);
        else keys.set(key, value as KvPair);
      }
    for (const { table, key } of rows) {
      const was = before.get(key);
      const now = keys.get(key);
      if (table !== "kv" || now === undefined || now.session === was?.session) continue;
      if (now.session === undefined) {
        // Freed by its holder, who leaves its name, or by its holder's end.
        const alive = sessions.get(was?.session ?? "");
        if (alive !== undefined && alive.ended === undefined)
          expect(Buffer.from(now.value).toString(), `${index}: ${key} is taken away from ${alive.id}`).toBe(alive.id);
        continue;
      }
      holds++;
      expect(was?.session, `${index}: ${key} is taken from a holder`).toBeUndefined();
      expect(now.lockIndex, `${index}: the fencing number of ${key}`).toBe((was?.lockIndex ?? 0) + 1);
      expect(sessions.get(now.session), `${index}: ${key} is taken by nobody`).toBeDefined();
      expect(sessions.get(now.session)?.ended, `${index}: ${key} is taken by who is over`).toBeUndefined();
    }
    for (const { key, session } of keys.values())
      if (session !== undefined)
        expect(sessions.has(session), `${index}: ${key} is held by a session that is gone`).toBe(true);
  }
  return { holds, ended };
}

async function run(
  seed: number,
  faults: Partial<Faults>,
  maxChanges?: number,
): Promise<{ holds: number; ended: number }> {
  const store = new SimulatedStore(seed, faults);
  const clock = fakeClock();
  const random = seededRandom(seed ^ 0x10c5);
  const processes = await Promise.all(
    [0, 1, 2].map(async (n): Promise<Process> => {
      const own = seededRandom(seed * 31 + n);
      const client = store.client();
      const directory = createDirectory(maxChanges === undefined ? client : { ...client, maxChanges }, {
        clock,
        random: own,
        log: silentLog,
        metrics: createMetrics(),
      });
      await directory.start();
      const dues = new Dues(clock);
      const kv = createKv({ directory, clock, random: own, dues });
      const sessions = createSessions({ directory, shared: true, clock, random: own, log: silentLog, dues });
      sessions.start();
      return { directory, kv, sessions };
    }),
  );
  let over = false;
  const time = (async () => {
    while (!over) await clock.advance(100);
  })();
  const pick = <T>(items: readonly T[]): T => items[random.below(items.length)] as T;
  await Promise.all(processes.map(({ directory }) => directory.ready()));
  const retried = async (work: () => Promise<unknown>): Promise<void> => {
    for (;;)
      try {
        await work();
        return;
      } catch (error) {
        if (!TROUBLE.has((error as { code: string }).code)) throw error;
      }
  };
  for (const name of NODES)
    await retried(() =>
      (processes[0] as Process).directory.write([nodeChange(name, "10.0.0.1"), checkChange(name, "c", "passing")]),
    );
  const known: string[] = [];
  const act = async ({ directory, kv, sessions }: Process): Promise<void> => {
    const key = pick(KEYS);
    // Often the holder as this process sees it: what is done to holders is what collides.
    const holder = kv.get(key)?.session;
    const id = holder !== undefined && random.below(3) > 0 ? holder : pick([...known.slice(-4), "nobody"]);
    switch (random.below(13)) {
      case 0:
      case 1:
        known.push(
          await sessions.create({
            name: "",
            node: pick(NODES),
            lockDelayMs: pick([0, 0, 500]),
            behavior: pick(["release", "delete"] as const),
            ...(random.below(2) === 0 ? {} : { ttlMs: 1_000 }),
            nodeChecks: random.below(2) === 0 ? [] : ["c"],
            serviceChecks: [],
          }),
        );
        return;
      case 2:
        return await sessions.destroy(id);
      case 3:
        await sessions.renew(id);
        return;
      case 4:
      case 12:
        await kv.set(key, Buffer.from(id), { release: id });
        return;
      case 5:
        await directory.write([checkChange(pick(NODES), "c", pick(["passing", "passing", "critical"] as const))]);
        return;
      case 6:
        await kv.delete(key);
        return;
      case 7:
        // No plain write to a lock: that would take its fencing number back, as in Consul.
        await kv.set("plain", Buffer.from(String(random.below(2))), random.below(2) === 0 ? {} : { ttlMs: 300 });
        return;
      default: {
        const taker = pick(known.slice(-4));
        if (taker !== undefined) await kv.set(key, Buffer.from(taker), { acquire: taker });
      }
    }
  };
  await Promise.all(
    processes.flatMap((process) =>
      [0, 1].map(async () => {
        for (let i = 0; i < 30; i++)
          await act(process).catch((error: { code?: string; message: string }) => {
            if (!TROUBLE.has(error.code ?? "")) throw error;
          });
      }),
    ),
  );
  store.heal();
  // Everybody's time is over by now, and whoever was in trouble has tried again.
  await clock.sleep(30_000);
  await Promise.all(processes.map(({ directory }) => directory.barrier()));
  const result = checkLog(store.log);
  const rows = store.rows.filter(({ value }) => value !== undefined);
  const left = rows.filter(({ table }) => table === "session").map(({ value }) => value as Session);
  expect(left.filter(({ ttlMs, ended }) => ttlMs !== undefined || ended === true)).toEqual([]);
  const critical = new Set(
    rows
      .filter(({ table }) => table === "check")
      .flatMap(({ value }) => {
        const check = value as { node: string; status: string };
        return check.status === "critical" ? [check.node] : [];
      }),
  );
  expect(left.filter(({ node, nodeChecks }) => nodeChecks.length > 0 && critical.has(node))).toEqual([]);
  const kept = rows.filter(({ table }) => table === "kept").map(({ value }) => value as { kind: string; id: string });
  expect(kept.filter(({ kind }) => kind === KINDS.delay || kind === KINDS.ttl)).toEqual([]);
  const there = new Set(left.map(({ id }) => id));
  expect(kept.filter(({ kind, id }) => (kind === KINDS.used || kind === KINDS.renewed) && !there.has(id))).toEqual([]);
  for (const { sessions, directory } of processes) {
    await sessions.stop();
    await directory.stop();
  }
  over = true;
  await time;
  expect(clock.timers).toBe(0);
  return result;
}

describe("sessions and locks", () => {
  test.each<[string, Partial<Faults>, number?]>([
    ["well-behaved", {}],
    ["slow and repeating", { turns: 8, repeat: 0.3, away: 0.1, snapshot: 0.1, compact: 0.05 }],
    ["of unknown outcomes", { turns: 5, unknown: 0.2, unavailable: 0.1, compact: 0.02 }],
    ["of small transactions", { turns: 5, repeat: 0.2 }, 6],
    ["of small transactions and unknown outcomes", { turns: 5, unknown: 0.1, unavailable: 0.05 }, 6],
  ])("over a store %s", { timeout: 120_000 }, async (_, faults, maxChanges) => {
    let [holds, ended] = [0, 0];
    for (let seed = 1; seed <= 20; seed++)
      try {
        const result = await run(seed, faults, maxChanges);
        holds += result.holds;
        ended += result.ended;
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
      }
    expect(holds).toBeGreaterThan(50);
    expect(ended).toBeGreaterThan(50);
  });
});
