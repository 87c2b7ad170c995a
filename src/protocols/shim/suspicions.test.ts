// What programs saw: summed, and where failures grew the agent looks itself; whatever anybody writes into the files, it does no more than that.
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type FakeClock, fakeClock } from "../../../test/simulated/clock.ts";
import { seededRandom } from "../../../test/support/lookup.ts";
import { createMetrics, type Metrics } from "../../base/metrics.ts";
import type { Net, Socket } from "../../base/net.ts";
import { encodeObserved, OBSERVED_BYTES, type Seen } from "../../wire/hook-observed.ts";
import { backendKey, createSuspicions, type Suspicions } from "./suspicions.ts";

const UID = 1000;
/** The folder: each file by its name, with its owner. */
let files: Map<string, { readonly uid: number; readonly bytes: Uint8Array } | Error>;
let folderGone: boolean;
let clock: FakeClock;
let metrics: Metrics;
let suspicions: Suspicions;
/** What the backends do when the agent tries them, by "address port". */
let refuses: Set<string>;
let silent: Set<string>;
let broken: string | undefined;
let tried: string[];
let changes: string[];
let backends: Set<string>;
let others: { readonly address: string; readonly port: number }[];

beforeEach(() => {
  files = new Map();
  folderGone = false;
  clock = fakeClock();
  metrics = createMetrics();
  refuses = new Set();
  silent = new Set();
  broken = undefined;
  tried = [];
  changes = [];
  others = [];
  backends = new Set([backendKey("10.0.0.1", 80), backendKey("10.0.0.2", 80)]);
  const connect: Net["connect"] = async (to, signal) => {
    const key = "host" in to ? backendKey(to.host, to.port) : "";
    tried.push(key);
    const errno = broken ?? (refuses.has(key) ? "ECONNREFUSED" : undefined);
    if (errno !== undefined)
      throw Object.assign(new Error(errno), { cause: Object.assign(new Error(errno), { code: errno }) });
    if (silent.has(key))
      return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason), { once: true }));
    return { destroy() {} } as unknown as Socket;
  };
  suspicions = createSuspicions({
    clock,
    random: seededRandom(1),
    disk: {
      async list() {
        if (folderGone) throw Object.assign(new Error("no such folder"), { code: "ENOENT" });
        return [...files.keys()];
      },
    },
    async read(path, uid, size) {
      const file = files.get(path.slice("/observed/".length));
      if (file instanceof Error) throw file;
      return file?.uid === uid && file.bytes.length === size ? file.bytes : undefined;
    },
    net: { connect },
    metrics,
    backends: () => backends,
    beside: (address) => others.filter((each) => each.address !== address),
    meant: (address, port) => [{ address, port }, ...(address === "192.0.2.7" ? [{ address: "127.0.0.1", port }] : [])],
    changed: (address, port, { suspect, news, refused }) =>
      void changes.push(
        `${address}:${port} ${suspect ? "suspect" : "well"}${refused ? " refused" : ""}${news ? "" : " as before"}`,
      ),
  });
});
afterEach(async () => {
  await suspicions.stop();
  expect(clock.timers).toBe(0);
});

const seen = (address: string, failures: number, more: Partial<Seen> = {}): Seen => ({
  ...{ address, port: 80, consecutiveFailures: failures, connects: 0, failures, connectMicros: 100 },
  ...{ lastErrno: 111, ejectedUntilMs: 0, changedMs: 1, ...more },
});
/** What user `uid` has seen, in one block. */
function saw(entries: readonly Seen[], uid = UID, name = String(uid)): void {
  const bytes = encodeObserved([
    {
      ...{ place: 3, pid: 1, uid, startTicks: 1, namespace: 1, lastUsedMs: 1 },
      entries: new Map(entries.map((each, i) => [i, each])),
    },
  ]);
  files.set(name, { uid, bytes });
}
const run = (ms: number): Promise<void> => clock.advance(ms);
const metric = (name: string): number | undefined => metrics.read().find((each) => each.name === name)?.value;

describe("failures that programs saw", () => {
  test("what a container saw of this host's address is tried at the loopback address that it stands for", async () => {
    backends = new Set([backendKey("127.0.0.1", 80)]);
    refuses.add(backendKey("127.0.0.1", 80));
    saw([seen("192.0.2.7", 1)]);
    suspicions.watch("/observed");
    await run(1_000);
    saw([seen("192.0.2.7", 2)]);
    await run(1_000);
    expect(tried).toEqual([backendKey("127.0.0.1", 80)]);
    expect(suspicions.isSuspect("127.0.0.1", 80)).toBe(true);
  });

  test("have the backend tried, and it is suspect until it answers again", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    refuses.add(backendKey("10.0.0.1", 80));
    saw([seen("10.0.0.1", 2), seen("10.0.0.2", 0)]);
    await run(1_500);
    expect(changes[0]).toBe("10.0.0.1:80 suspect refused");
    expect(suspicions.isSuspect("10.0.0.1", 80)).toBe(true);
    expect(suspicions.isSuspect("10.0.0.2", 80)).toBe(false);
    expect(suspicions.count()).toBe(1);
    await run(20_000);
    // More and more rarely, without anybody having to see more failures.
    expect(tried.length).toBeGreaterThan(3);
    expect(tried.length).toBeLessThan(10);
    refuses.clear();
    await run(12_000);
    expect(changes.at(-1)).toBe("10.0.0.1:80 well");
    // Each refusal ends a hold; people are told of the first.
    expect(changes.slice(1, -1).every((each) => each === "10.0.0.1:80 suspect refused as before")).toBe(true);
    expect(suspicions.count()).toBe(0);
    const tries = tried.length;
    await run(30_000);
    expect(tried.length).toBe(tries);
  });

  test("have the others of the service tried as well, once it is found that one is gone", async () => {
    others = Array.from({ length: 20 }, (_, i) => ({ address: `10.0.0.${i + 1}`, port: 80 }));
    backends = new Set(others.map(({ address, port }) => backendKey(address, port)));
    for (const { address } of others.slice(0, 19)) refuses.add(backendKey(address, 80));
    suspicions.watch("/observed");
    await run(1_500);
    saw([seen("10.0.0.1", 1)]);
    await run(1_500);
    expect(suspicions.count()).toBe(19);
    expect(suspicions.isSuspect("10.0.0.20", 80)).toBe(false);
    // Each once: that another one failed, too, is no reason to try again.
    expect(tried.length).toBeLessThanOrEqual(40);
    expect(tried.filter((each) => each === backendKey("10.0.0.20", 80))).toHaveLength(1);
  });

  test("of a backend that answers have no others tried", async () => {
    others = [
      { address: "10.0.0.1", port: 80 },
      { address: "10.0.0.2", port: 80 },
    ];
    suspicions.watch("/observed");
    await run(1_500);
    saw([seen("10.0.0.1", 1)]);
    await run(1_500);
    expect(tried).toEqual([backendKey("10.0.0.1", 80)]);
  });

  test("of a backend that answers the agent change nothing, and it is tried at most once a second", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    for (let i = 1; i <= 20; i++) {
      saw([seen("10.0.0.1", i * 5)]);
      await run(500);
    }
    expect(changes).toEqual([]);
    expect(tried.length).toBeGreaterThan(3);
    expect(tried.length).toBeLessThanOrEqual(11);
  });

  test("of many users at once have a backend tried at most once a second", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    for (let i = 1; i <= 5; i++) {
      for (let uid = 1; uid <= 9; uid++) saw([seen("10.0.0.1", i)], uid);
      await run(1_000);
    }
    expect(tried.length).toBeGreaterThan(2);
    expect(tried.length).toBeLessThanOrEqual(6);
  });

  test("leave nothing behind when the agent stops while it would try again", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    refuses.add(backendKey("10.0.0.1", 80));
    saw([seen("10.0.0.1", 1)]);
    await run(4_000);
    expect(suspicions.count()).toBe(1);
    await suspicions.stop();
    expect(clock.timers).toBe(0);
  });

  test("of what is silent make it suspect without anybody having refused", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    silent.add(backendKey("10.0.0.1", 80));
    saw([seen("10.0.0.1", 1)]);
    await run(5_000);
    expect(changes).toEqual(["10.0.0.1:80 suspect"]);
  });

  test("say nothing where the agent itself cannot connect at all", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    broken = "EMFILE";
    saw([seen("10.0.0.1", 1)]);
    await run(5_000);
    expect(tried).toEqual(["10.0.0.1 80"]);
    expect(changes).toEqual([]);
  });

  test("from before the agent lived have nothing tried, and are not counted", async () => {
    saw([seen("10.0.0.1", 7, { connects: 100 })]);
    suspicions.watch("/observed");
    await run(3_000);
    expect(tried).toEqual([]);
    saw([seen("10.0.0.1", 7, { connects: 104 })]);
    await run(1_500);
    expect([metric("hook_connects_total"), metric("hook_failures_total")]).toEqual([4, 0]);
  });

  test("of what is not in the table lead nowhere", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    saw([seen("10.0.0.9", 5), seen("10.0.0.1", 5, { port: 22 }), seen("127.0.0.1", 5)]);
    await run(3_000);
    expect(tried).toEqual([]);
    expect(metric("hook_failures_total")).toBe(15);
  });

  test("of a backend that left the table are forgotten", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    refuses.add(backendKey("10.0.0.1", 80));
    saw([seen("10.0.0.1", 2)]);
    await run(1_500);
    backends.delete(backendKey("10.0.0.1", 80));
    await run(15_000);
    expect(suspicions.count()).toBe(0);
    expect(suspicions.isSuspect("10.0.0.1", 80)).toBe(false);
  });
});

describe("counters", () => {
  test("are summed over users and blocks; a block that begins anew counts from nothing", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    saw([seen("10.0.0.1", 0, { connects: 10 })]);
    await run(1_500);
    saw([seen("10.0.0.1", 0, { connects: 25 })]);
    await run(1_500);
    expect(metric("hook_connects_total")).toBe(25);
    saw([seen("10.0.0.2", 0, { connects: 3 })]);
    await run(1_500);
    expect(metric("hook_connects_total")).toBe(28);
  });

  test("that nobody can have reached are no count", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    saw([seen("10.0.0.1", 0, { connects: Number.MAX_SAFE_INTEGER, failures: Number.MAX_SAFE_INTEGER })]);
    await run(1_500);
    expect([metric("hook_connects_total"), metric("hook_failures_total")]).toEqual([0, 0]);
    expect(tried).toEqual([]);
  });
});

describe("files that anybody may write", () => {
  test("of others' names, sizes and kinds are nobody's word", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    saw([seen("10.0.0.1", 9)], UID + 1, String(UID));
    saw([seen("10.0.0.1", 9)], UID, "notes.txt");
    // Others' names are taken by somebody in the hope that there is no place left.
    for (let i = 0; i < 600; i++) saw([seen("10.0.0.1", 9)], 12, String(100 + i));
    files.set("77", { uid: 77, bytes: new Uint8Array(100) });
    files.set("78", { uid: 78, bytes: new Uint8Array(OBSERVED_BYTES) });
    files.set("79", Object.assign(new Error("not yours"), { code: "EACCES" }));
    await run(3_000);
    expect(tried).toEqual([]);
    expect([suspicions.trouble(), suspicions.unread()]).toEqual([undefined, 1]);
    saw([seen("10.0.0.1", 9)]);
    await run(1_500);
    expect(tried).toEqual(["10.0.0.1 80"]);
  });

  test("full of garbage are read without harm, and nothing outside of the table is tried", async () => {
    suspicions.watch("/observed");
    await run(1_500);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(OBSERVED_BYTES - 1), fc.nat(255)), { maxLength: 300 }),
        async (bytes) => {
          const file = Buffer.from(encodeObserved([]));
          file.fill(bytes.length % 256, 64);
          for (const [at, value] of bytes) file[at] = value;
          files.set(String(UID), { uid: UID, bytes: file });
          await run(1_000);
          expect(tried.every((key) => backends.has(key))).toBe(true);
          expect(metric("hook_connects_total")).toBeGreaterThanOrEqual(0);
        },
      ),
      { numRuns: 30 },
    );
  });

  test("in a folder that is gone are told to be unreadable", async () => {
    folderGone = true;
    suspicions.watch("/observed");
    await run(1_000);
    expect(suspicions.trouble()).toMatch(/cannot be read in .*observed/);
  });
});
