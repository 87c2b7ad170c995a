// Sessions and locks on real directories in memory, with a clock under control: what ends them, what becomes of their keys, and who wins.
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type FakeClock, fakeClock } from "../../test/simulated/clock.ts";
import { checkChange, nodeChange, serviceChange } from "../../test/support/directory.ts";
import { silentLog } from "../base/log.ts";
import { createMetrics } from "../base/metrics.ts";
import { systemRandom } from "../base/random.ts";
import type { Kv } from "../contracts/kv.ts";
import { SessionRefused, type SessionRequest } from "../contracts/session.ts";
import type { Storage } from "../contracts/storage.ts";
import { type Change, keyOf, scope } from "../model/record.ts";
import { createKv } from "./kv.ts";
import { createDirectory, type LocalDirectory } from "./local.ts";
import { Dues, faultOf, KINDS, recordOf } from "./locks.ts";
import { createSessions, type RunningSessions } from "./session.ts";
import { memoryStorage } from "./storage/memory.ts";

let clock: FakeClock;
let directory: LocalDirectory;
let kv: Kv;
let sessions: RunningSessions;
const ends: (() => Promise<unknown>)[] = [];

const text = (value: string): Uint8Array => Buffer.from(value);
const request = (more: Partial<SessionRequest> = {}): SessionRequest => ({
  name: "",
  node: "n1",
  lockDelayMs: 0,
  behavior: "release",
  nodeChecks: [],
  serviceChecks: [],
  ...more,
});
const write = async (...changes: Change[]): Promise<void> => {
  expect((await directory.write(changes)).result).toBe("written");
};
const get = (id: string): unknown => directory.view().get("session", id);
const holder = (key: string): string | undefined => directory.view().get("kv", key)?.session;
const removal = (table: "node" | "service" | "check", key: string): Change => ({ op: "delete", table, key });

async function begin(storage: Storage = memoryStorage()): Promise<void> {
  directory = createDirectory(storage, { clock, random: systemRandom, log: silentLog, metrics: createMetrics() });
  await directory.start();
  const dues = new Dues(clock);
  kv = createKv({ directory, clock, random: systemRandom, dues });
  sessions = createSessions({ directory, shared: false, clock, random: systemRandom, log: silentLog, dues });
  sessions.start();
  const built = { sessions, directory };
  ends.push(async () => {
    await built.sessions.stop();
    await built.directory.stop();
  });
}

beforeEach(async () => {
  clock = fakeClock();
  await begin();
  await write(nodeChange("n1", "10.0.0.1"), checkChange("n1", "serfHealth", "passing"));
});
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
  expect(clock.timers).toBe(0);
});

describe("a session", () => {
  test("stands on its node and its checks: what is not there, or critical, cannot carry one", async () => {
    await expect(sessions.create(request({ node: "n9" }))).rejects.toMatchObject({
      fault: { kind: "node-missing", node: "n9" },
    });
    await expect(sessions.create(request({ serviceChecks: [{ id: "c", namespace: "" }] }))).rejects.toMatchObject({
      fault: { kind: "check-missing", check: "c" },
    });
    await write(checkChange("n1", "c", "critical"));
    await expect(sessions.create(request({ checks: ["c"] }))).rejects.toBeInstanceOf(SessionRefused);
    await write(checkChange("n1", "c", "warning"));
    const id = await sessions.create(request({ checks: ["c"] }));
    expect(get(id)).toMatchObject({ id, node: "n1" });
    expect(sessions.list(directory.view(), "N1").map((each) => each.id)).toEqual([id]);
    expect(sessions.list(directory.view(), "n2")).toEqual([]);
  });

  test.each<[string, Partial<SessionRequest>, () => Change[]]>([
    ["its node goes", {}, () => [removal("node", keyOf.node("n1"))]],
    ["its node goes and comes again", {}, () => [removal("node", keyOf.node("n1"))]],
    [
      "a check goes and comes again",
      { nodeChecks: ["serfHealth"] },
      () => [removal("check", keyOf.check("n1", "serfHealth"))],
    ],
    ["a check goes", { nodeChecks: ["serfHealth"] }, () => [removal("check", keyOf.check("n1", "serfHealth"))]],
    [
      "a node check turns critical",
      { nodeChecks: ["serfHealth"] },
      () => [checkChange("n1", "serfHealth", "critical")],
    ],
    [
      "a service check turns critical",
      { serviceChecks: [{ id: "sc", namespace: "" }] },
      () => [checkChange("n1", "sc", "critical", { serviceId: "web" })],
    ],
    [
      "the service of its check goes",
      { serviceChecks: [{ id: "sc", namespace: "" }] },
      () => [removal("service", keyOf.service("n1", "web"))],
    ],
  ])("ends when %s, and its lock with it", async (what, more, changes) => {
    await write(serviceChange("n1", "web", "web"), checkChange("n1", "sc", "passing", { serviceId: "web" }));
    const id = await sessions.create(request(more));
    const other = await sessions.create(request({ node: "n2" })).catch(() => "");
    expect(other).toBe("");
    expect(await kv.set("lock", text("1"), { acquire: id })).toBe(true);
    await write(...changes());
    if (what.includes("again"))
      await write(what.includes("check") ? checkChange("n1", "serfHealth", "passing") : nodeChange("n1", "10.0.0.1"));
    // Whatever is read from here on knows of it.
    expect(sessions.living(directory.view(), id)).toBeUndefined();
    await sessions.settled();
    expect(get(id)).toBeUndefined();
    expect(directory.view().get("kv", "lock")).toMatchObject({ lockIndex: 1, value: new Uint8Array(text("1")) });
    expect(holder("lock")).toBeUndefined();
    await expect(kv.set("lock", text("2"), { acquire: id })).rejects.toThrow("invalid session");
  });

  test("does not stand on a node or a check that was made anew after it", async () => {
    const made = { ...request({ nodeChecks: ["serfHealth"] }), id: "s" };
    const since = directory.view().index;
    expect(faultOf(directory.view(), made, since)).toBeUndefined();
    await write(removal("check", keyOf.check("n1", "serfHealth")));
    await write(checkChange("n1", "serfHealth", "passing"));
    expect(faultOf(directory.view(), made, since)).toEqual({ kind: "check-missing", check: "serfHealth" });
    const without = { ...made, nodeChecks: [] };
    expect(faultOf(directory.view(), without, since)).toBeUndefined();
    await write(removal("node", keyOf.node("n1")));
    await write(nodeChange("n1", "10.0.0.1"));
    expect(faultOf(directory.view(), without, since)).toEqual({ kind: "node-missing", node: "n1" });
    expect(faultOf(directory.view(), without, directory.view().index)).toBeUndefined();
  });

  test("lives on while its checks only warn, and while other nodes' checks turn critical", async () => {
    const id = await sessions.create(request({ nodeChecks: ["serfHealth"] }));
    await write(
      checkChange("n1", "serfHealth", "warning"),
      checkChange("n1", "other", "critical"),
      nodeChange("n2", "10.0.0.2"),
      checkChange("n2", "serfHealth", "critical"),
    );
    await sessions.settled();
    expect(sessions.living(directory.view(), id)).toMatchObject({ id });
  });

  test("is destroyed twice without complaint; wakes those who wait for it and for its keys, all at one index", async () => {
    const id = await sessions.create(request());
    await kv.set("a", text(""), { acquire: id });
    await kv.set("b", text(""), { acquire: id });
    const view = directory.view();
    const signal = new AbortController().signal;
    const woken = [scope.session(id), "sessions" as const, scope.kv("a"), scope.kv("b")].map((each) =>
      directory.changed(each, view.at(each), signal),
    );
    await sessions.destroy(id);
    expect(new Set(await Promise.all(woken)).size).toBe(1);
    expect([holder("a"), holder("b")]).toEqual([undefined, undefined]);
    await sessions.destroy(id);
    await sessions.destroy("nobody");
    expect(directory.view().count("kept")).toBe(0);
  });

  test("with behaviour delete takes its keys along", async () => {
    const id = await sessions.create(request({ behavior: "delete" }));
    await kv.set("a", text("1"), { acquire: id });
    await kv.set("b", text("1"));
    await sessions.destroy(id);
    expect([...directory.view().list("kv")].map((pair) => pair.key)).toEqual(["b"]);
  });

  test("is renewed without waking anybody, and ends after twice its time to live", async () => {
    const id = await sessions.create(request({ ttlMs: 10_000 }));
    await kv.set("lock", text(""), { acquire: id });
    await clock.advance(19_000);
    const { index } = directory.view();
    expect(await sessions.renew(id)).toMatchObject({ id });
    expect(directory.view().index).toBe(index);
    await clock.advance(19_900);
    expect(get(id)).toBeDefined();
    await clock.advance(200);
    expect(get(id)).toBeUndefined();
    expect(holder("lock")).toBeUndefined();
    expect(await sessions.renew(id)).toBeUndefined();
  });

  test("without a time to live never ends by time, and can be renewed", async () => {
    const id = await sessions.create(request());
    await clock.advance(30 * 24 * 3_600_000);
    expect(await sessions.renew(id)).toMatchObject({ id });
  });

  test("survives a restart, with its time to live counted anew", async () => {
    const storage = memoryStorage();
    await begin(storage);
    await write(nodeChange("n1", "10.0.0.1"));
    const id = await sessions.create(request({ ttlMs: 10_000 }));
    await clock.advance(15_000);
    await sessions.stop();
    const rows = directory.view();
    const again = memoryStorage();
    await begin(again);
    await write(nodeChange("n1", "10.0.0.1"));
    const session = rows.get("session", id);
    if (session === undefined) throw new Error("the session is gone");
    await write({ op: "put", table: "session", key: id, value: session });
    await clock.advance(19_000);
    expect(get(id)).toBeDefined();
    await clock.advance(2_000);
    expect(get(id)).toBeUndefined();
  });

  test("is not ended by a process that slept before it had time to be renewed", async () => {
    const id = await sessions.create(request({ ttlMs: 10_000 }));
    clock.stall(60_000);
    await clock.settle();
    expect(get(id)).toBeDefined();
    expect(await sessions.renew(id)).toMatchObject({ id });
    await clock.advance(19_000);
    expect(get(id)).toBeDefined();
  });

  test("with more locks than one write takes is marked, unable to take another, and goes when all are free", async () => {
    await begin({ ...memoryStorage(), maxChanges: 20 });
    await write(nodeChange("n1", "10.0.0.1"));
    const id = await sessions.create(request({ lockDelayMs: 5_000 }));
    const keys = Array.from({ length: 100 }, (_, i) => `k${i}`);
    for (const key of keys) expect(await kv.set(key, text(""), { acquire: id })).toBe(true);
    const ending = sessions.destroy(id);
    await directory.changed("sessions", directory.view().at("sessions"), new AbortController().signal);
    expect(directory.view().get("session", id)).toMatchObject({ ended: true });
    expect(sessions.list(directory.view())).toEqual([]);
    await expect(kv.set("late", text(""), { acquire: id })).rejects.toThrow("invalid session");
    await ending;
    expect(get(id)).toBeUndefined();
    for (const key of keys) expect(holder(key)).toBeUndefined();
    const next = await sessions.create(request());
    expect(await kv.set("k99", text(""), { acquire: next })).toBe(false);
  });
});

describe("the lock delay", () => {
  test("keeps a key closed after a session's end, not after release", async () => {
    const [one, two] = [await sessions.create(request({ lockDelayMs: 15_000 })), await sessions.create(request())];
    await kv.set("k", text(""), { acquire: one });
    expect(await kv.set("k", text(""), { release: one })).toBe(true);
    expect(await kv.set("k", text(""), { acquire: two })).toBe(true);
    expect(await kv.set("k", text(""), { release: two })).toBe(true);
    expect(await kv.set("k", text(""), { acquire: one })).toBe(true);
    await sessions.destroy(one);
    expect(await kv.set("k", text(""), { acquire: two })).toBe(false);
    expect(kv.planSet(directory.view(), "k", text(""), { acquire: two })).toEqual({ ok: false, delayed: true });
    // Who does not ask for a lock may write all the time.
    expect(await kv.set("k", text("plain"))).toBe(true);
    await clock.advance(14_900);
    expect(await kv.set("k", text(""), { acquire: two })).toBe(false);
    await clock.advance(200);
    expect(await kv.set("k", text(""), { acquire: two })).toBe(true);
    expect(recordOf(directory.view(), KINDS.delay, "k")).toBeUndefined();
  });

  test("also of a deleted key; at most a minute; and the record of it goes by itself", async () => {
    const one = await sessions.create(request({ lockDelayMs: 3_600_000, behavior: "delete" }));
    const two = await sessions.create(request());
    await kv.set("k", text(""), { acquire: one });
    await sessions.destroy(one);
    expect(directory.view().get("kv", "k")).toBeUndefined();
    expect(await kv.set("k", text(""), { acquire: two })).toBe(false);
    await clock.advance(59_900);
    expect(await kv.set("k", text(""), { acquire: two })).toBe(false);
    expect(recordOf(directory.view(), KINDS.delay, "k")).toBeDefined();
    await clock.advance(200);
    expect(recordOf(directory.view(), KINDS.delay, "k")).toBeUndefined();
    expect(await kv.set("k", text(""), { acquire: two })).toBe(true);
  });

  test.each([
    ["counts on over a restart", 4_000, 11_000],
    ["is not longer for a clock that was set back", -3_600_000, 15_000],
    ["is over for a clock that was set forward", 3_600_000, 0],
  ])("%s", (_, jumpMs, leftMs) => {
    const dues = new Dues(clock);
    const record = {
      kind: KINDS.delay,
      id: "k",
      value: { ms: 15_000, atMs: clock.now() },
      createIndex: 5,
      modifyIndex: 5,
    };
    clock.jump(clock.now() + jumpMs);
    dues.watchFrom(5);
    expect(dues.remainingMs(record)).toBe(leftMs);
    // What comes while this process watches counts in full, whatever any clock says.
    expect(dues.remainingMs({ ...record, modifyIndex: 6 })).toBe(15_000);
  });
});

describe("a key's time to live", () => {
  const at = (key: string): number | undefined => directory.view().get("kv", key)?.modifyIndex;

  test("is exact, and wakes who waits for the key", async () => {
    await kv.set("k", text("1"), { ttlMs: 30_000 });
    const gone = directory.changed(scope.kv("k"), at("k") ?? 0, new AbortController().signal);
    await clock.advance(29_900);
    expect(at("k")).toBeDefined();
    await clock.advance(200);
    expect(at("k")).toBeUndefined();
    await gone;
    expect(directory.view().count("kept")).toBe(0);
  });

  test("is refreshed by the same value without anybody noticing", async () => {
    await kv.set("k", text("1"), { ttlMs: 30_000 });
    const before = at("k");
    await clock.advance(20_000);
    await kv.set("k", text("1"), { ttlMs: 30_000 });
    expect(at("k")).toBe(before);
    await clock.advance(20_000);
    expect(at("k")).toBe(before);
    await clock.advance(10_100);
    expect(at("k")).toBeUndefined();
  });

  test("counts from the last write, be it shorter or longer than before", async () => {
    await kv.set("k", text("1"), { ttlMs: 3_600_000 });
    await clock.advance(1_000);
    await kv.set("k", text("1"), { ttlMs: 5_000 });
    await clock.advance(4_000);
    await kv.set("k", text("1"), { ttlMs: 10_000 });
    await clock.advance(9_900);
    expect(at("k")).toBeDefined();
    await clock.advance(200);
    expect(at("k")).toBeUndefined();
  });

  test("is taken back by a write without one, and does not hit the next key of that name", async () => {
    await kv.set("a", text("1"), { ttlMs: 1_000 });
    await kv.set("b", text("1"), { ttlMs: 1_000 });
    await kv.set("c/1", text("1"), { ttlMs: 1_000 });
    await kv.set("a", text("1"));
    await kv.delete("b");
    await kv.deleteTree("c/");
    await kv.set("b", text("2"));
    await kv.set("c/1", text("2"));
    await clock.advance(5_000);
    expect(["a", "b", "c/1"].map((key) => at(key) === undefined)).toEqual([false, false, false]);
  });

  test("a time left over from a key that somebody else removed does not hit its successor", async () => {
    await kv.set("k", text("1"), { ttlMs: 1_000 });
    await write({ op: "delete", table: "kv", key: "k" });
    await write({ op: "put", table: "kv", key: "k", value: { key: "k", value: text("2"), flags: 0n, lockIndex: 0 } });
    await clock.advance(2_000);
    expect(at("k")).toBeDefined();
    expect(directory.view().count("kept")).toBe(0);
  });

  test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])("of %d ms is refused", async (ttlMs) => {
    await expect(kv.set("k", text(""), { ttlMs })).rejects.toThrow("ttl: must be more than 0");
  });

  test("keys with any characters", async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: "grapheme", minLength: 1 }), async (key) => {
        await kv.set(key, text("1"), { ttlMs: 1_000 });
        await clock.advance(1_100);
        expect(at(key)).toBeUndefined();
        expect(directory.view().count("kept")).toBe(0);
      }),
      { numRuns: 50, examples: [["%"], ["a\u0000b"], ["__proto__"], ["%00"], ["%2500"]] },
    );
  });
});

describe("acquiring at the moment a session ends", () => {
  test("no key stays held by a session that is not there, whatever the order", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(3), { minLength: 1, maxLength: 12 }), fc.nat(12), async (keys, when) => {
        const id = await sessions.create(request());
        const work = keys.map((key, i) =>
          kv.set(`k${key}`, text(String(i)), { acquire: id }).catch((error: Error) => {
            expect(error.message).toContain("invalid session");
            return false;
          }),
        );
        work.splice(
          Math.min(when, work.length),
          0,
          sessions.destroy(id).then(() => false),
        );
        await clock.settle();
        await Promise.all(work);
        for (const pair of directory.view().list("kv")) expect(pair.session).not.toBe(id);
        expect(get(id)).toBeUndefined();
        for (const kept of directory.view().list("kept")) expect(kept.id).not.toBe(id);
      }),
      { numRuns: 200 },
    );
  });
});
