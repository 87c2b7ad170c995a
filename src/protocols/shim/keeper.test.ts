// Keeping the hook's table: in step with the directory, in few writes, also where the file, the disk or the agent's start stand in the way.
import { beforeEach, describe, expect, test } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import {
  goneChange,
  nodeChange,
  serviceChange,
  type TestDirectory,
  testDirectory,
} from "../../../test/support/directory.ts";
import { magicInMemory, type World, world } from "../../../test/support/lookup.ts";
import { memoryDurable } from "../../base/durable.ts";
import { callbackLog } from "../../base/log.ts";
import type { Magic } from "../../contracts/magic.ts";
import { decodeHookTable, type HookTable } from "../../wire/hook-table.ts";
import { encodeHookTable } from "../../wire/hook-table-encode.ts";
import { Composer } from "./composer.ts";
import { createHostView } from "./host.ts";
import { createKeeper, type Keeper } from "./keeper.ts";
import type { Place } from "./place.ts";
import { TableWriter } from "./writer.ts";

let host: World;
let directory: TestDirectory;
let magic: Magic;
let keeper: Keeper;
let written: HookTable[];
let identity: string;
let closed: number;
let opened: number;
/** What the disk says to the next writes, and to the next tries to open. */
let failing: Error | undefined;
let locked: Error | undefined;
let told: (() => void) | undefined;
let lines: string[];
let surroundings: string;
/** What the host says to those who ask for its addresses. */
let unseen: Error | undefined;
/** This host's address to others. */
let outward: string;

const disk = (code: string): Error => Object.assign(new Error(code), { code });
const never = new AbortController().signal;

async function make(
  options: {
    readonly adopted?: HookTable;
    readonly atOnce?: boolean;
    readonly ready?: boolean;
    readonly magic?: Magic;
  } = {},
): Promise<void> {
  const clock = fakeClock();
  directory = testDirectory(clock, options.ready ?? true);
  host = await world({ clock, directory });
  await directory.write([nodeChange("home", "10.1.0.1")]);
  magic = options.magic ?? (await magicInMemory());
  const zone = { domain: "consul", datacenter: "dc1" };
  const composer = new Composer({
    clock,
    lookup: host.lookup,
    magic,
    ownAddresses: () => () => true,
    own: () => ({ name: "home", labels: {} }),
    zone: () => zone,
    defaults: () => ({ policy: "p2c", prefetch: 0, prefetchIdleMs: 10_000, tryMs: 1_000, locality: true }),
    isSuspect: () => false,
    addressesOf: () => [],
  });
  written = [];
  closed = 0;
  opened = 0;
  failing = undefined;
  locked = undefined;
  told = undefined;
  lines = [];
  surroundings = "";
  unseen = undefined;
  outward = "192.0.2.7";
  identity = options.adopted === undefined ? "gone" : "earlier";
  const place: Place = {
    file: {
      path: "/run/x/table",
      read: async () => undefined,
      recover: async () => {},
      async replace(content) {
        if (failing !== undefined) throw failing;
        written.push(decodeHookTable(content));
        identity = `file ${written.length}`;
      },
      remove: async () => {},
    },
    observed: "/run/x/observed",
    adopted: options.adopted,
    limits: undefined,
    usual: undefined,
    identity: async () => identity,
    empty: async () => false,
    async close() {
      closed++;
    },
  };
  keeper = createKeeper({
    clock,
    log: callbackLog((level, _part, text) => void lines.push(`${level}: ${text}`)),
    directory,
    lookup: host.lookup,
    composer,
    async open() {
      opened++;
      if (locked !== undefined) throw locked;
      return place;
    },
    writerFor: (at) =>
      new TableWriter(at, {
        ...{ magic, composer, domain: "consul", clock },
        host: createHostView({
          ...{ clock, network: () => ({ device: 4n, inode: 7n }), interfaces: () => [], advertised: () => "" },
          outward: async (family) => (family === 4 ? outward : undefined),
        }),
      }),
    atOnce: options.atOnce ?? true,
    firstLists: () =>
      new Promise<void>((resolve) => {
        told = resolve;
      }),
    surroundings: () => {
      if (unseen !== undefined) throw unseen;
      return surroundings;
    },
    opened: () => {},
  });
}

const web = (id: string, port: number) => serviceChange("home", id, "web", { address: "10.9.0.1", port });
const ports = (table: HookTable | undefined): number[] | undefined =>
  table?.services.find(({ subject }) => subject === "web")?.backends.map(({ port }) => port);
/** Lets the keeper run for a while. */
const run = (ms: number): Promise<void> => host.clock.advance(ms);
/** A table as an earlier life of this agent would have left it. */
async function earlier(...changes: Parameters<TestDirectory["write"]>[0]): Promise<HookTable> {
  await make();
  await directory.write(changes);
  keeper.start();
  await run(200);
  await keeper.stop();
  return { ...written[0]!, generation: 41 };
}

beforeEach(() => make());

describe("while the agent runs", () => {
  test("a burst is written once or twice, and all of it", async () => {
    keeper.start();
    await run(1_000);
    expect(written).toHaveLength(1);
    for (let i = 0; i < 200; i++) {
      await directory.write([web(`w${i}`, 1000 + i)]);
      await host.clock.settle();
    }
    await run(1_000);
    expect(written.length - 1).toBeLessThanOrEqual(2);
    expect(ports(written.at(-1))).toHaveLength(200);
    expect(written.map(({ generation }) => generation)).toEqual(written.map((_, i) => i + 1));
    await keeper.stop();
  });

  test("changes that keep coming are gathered, and each is soon there", async () => {
    keeper.start();
    await run(1_000);
    for (let i = 0; i < 100; i++) {
      await directory.write([web(`w${i}`, 1000 + i)]);
      await run(5);
    }
    expect(written.length - 1).toBeGreaterThanOrEqual(3);
    expect(written.length - 1).toBeLessThanOrEqual(6);
    await run(200);
    expect(ports(written.at(-1))).toHaveLength(100);
    await keeper.stop();
  });

  test("this host's address stands in the table, and another one soon after it changed", async () => {
    await directory.write([web("w1", 1)]);
    keeper.start();
    await run(1_000);
    expect(written.at(-1)?.host).toEqual({ network: { device: 4n, inode: 7n }, v4: "192.0.2.7" });
    outward = "192.0.2.9";
    await run(40_000);
    expect(written.map(({ host }) => host?.v4)).toEqual(["192.0.2.7", "192.0.2.9"]);
    await keeper.stop();
  });

  test("what was answered from the last known good is asked again", async () => {
    const { resolveNow } = host.lookup;
    let stale = true;
    Object.assign(host.lookup, {
      resolveNow: (query: Parameters<typeof resolveNow>[0]) => {
        const answer = resolveNow(query);
        return stale ? { ...answer, fresh: false, endpoints: [] } : answer;
      },
    });
    await directory.write([web("w1", 1)]);
    keeper.start();
    await run(1_000);
    expect(ports(written.at(-1))).toEqual([]);
    stale = false;
    await run(6_000);
    expect(ports(written.at(-1))).toEqual([1]);
    await keeper.stop();
  });

  test("what changes nothing is not written", async () => {
    await directory.write([web("w1", 1)]);
    keeper.start();
    await run(1_000);
    await directory.write([serviceChange("home", "w1", "web", { address: "10.9.0.1", port: 1, labels: { a: "b" } })]);
    await directory.write([
      { op: "put", table: "kv", key: "x", value: { key: "x", value: new Uint8Array(), flags: 0n, lockIndex: 0 } },
    ]);
    keeper.ring(["web"]);
    await run(60_000);
    expect(written).toHaveLength(1);
    await keeper.stop();
  });

  test("whoever asks has everything that was acknowledged before", async () => {
    keeper.start();
    await run(1_000);
    for (let i = 0; i < 5; i++) {
      await directory.write([web(`w${i}`, 1000 + i)]);
      let done = false;
      const current = keeper.current(never).then(() => {
        done = true;
      });
      while (!done) await run(10);
      await current;
      expect(ports(written.at(-1))).toHaveLength(i + 1);
      expect(keeper.standing().written?.generation).toBe(written.at(-1)?.generation);
    }
    await keeper.stop();
  });

  test("a hold of the guard that ends by itself is noticed", async () => {
    await host.list("web", ["m1", "m2", "m3", "m4"]);
    keeper.start();
    await run(1_000);
    await host.list("web", []);
    await run(2_000);
    expect(ports(written.at(-1))).toHaveLength(4);
    expect(written.at(-1)?.services[0]?.held).toBe(true);
    await run(11 * 60_000);
    expect(written.at(-1)?.services).toEqual([]);
    await keeper.stop();
  });

  test("a file that somebody took away or replaced is written again", async () => {
    await directory.write([web("w1", 1)]);
    keeper.start();
    await run(1_000);
    identity = "gone";
    await run(6_000);
    expect(written).toHaveLength(2);
    expect(ports(written[1])).toEqual([1]);
    await run(60_000);
    expect(written).toHaveLength(2);
    await keeper.stop();
  });

  test("other addresses of this host have everything looked at again", async () => {
    await directory.write([web("w1", 1)]);
    keeper.start();
    await run(1_000);
    let asked = 0;
    const { resolveNow } = host.lookup;
    Object.assign(host.lookup, {
      resolveNow: (query: Parameters<typeof resolveNow>[0]) => {
        asked++;
        return resolveNow(query);
      },
    });
    await run(20_000);
    expect(asked).toBe(0);
    surroundings = "another network";
    await run(6_000);
    expect(asked).toBe(1);
    await keeper.stop();
  });

  test("a host that cannot even be looked at is told, and the table is kept again when it can be", async () => {
    await directory.write([web("w1", 1)]);
    keeper.start();
    await run(1_000);
    unseen = disk("EMFILE");
    await run(20_000);
    await directory.write([web("w2", 2)]);
    for (let i = 0; i < 40; i++) {
      await run(500);
      expect(keeper.standing().trouble?.message).toContain("EMFILE");
    }
    // Once, however long it lasts; who waits for the table has it meanwhile.
    expect(lines.filter((line) => line.startsWith("error: ") && line.includes("EMFILE"))).toHaveLength(1);
    expect(ports(written.at(-1))).toEqual([1, 2]);
    const asked = keeper.current(never);
    await run(1_000);
    await asked;
    unseen = undefined;
    await directory.write([web("w3", 3)]);
    surroundings = "another network";
    await run(20_000);
    expect(ports(written.at(-1))).toEqual([1, 2, 3]);
    expect(keeper.standing().trouble).toBeUndefined();
    await keeper.stop();
  });

  test("a full disk is told, writing is tried again, and later changes are not lost", async () => {
    await directory.write([web("w1", 1)]);
    keeper.start();
    await run(1_000);
    failing = disk("ENOSPC");
    await directory.write([web("w2", 2)]);
    await run(500);
    expect(keeper.standing().trouble?.message).toBe(
      "the hook's table /run/x/table cannot be written: no space is left on the disk of /run/x",
    );
    const asked = keeper.current(never).catch((error: unknown) => error);
    await run(500);
    expect(await asked).toMatchObject({ code: "disk-full" });
    await directory.write([web("w3", 3)]);
    await run(10_000);
    failing = undefined;
    await run(120_000);
    expect(keeper.standing().trouble).toBeUndefined();
    expect(ports(written.at(-1))).toEqual([1, 2, 3]);
    expect(lines.filter((line) => line.includes("no space"))).toHaveLength(1);
    await keeper.stop();
  });

  test("addresses that cannot be written down for good keep new services out, and change nothing else", async () => {
    const durable = memoryDurable();
    let full = false;
    await make({
      magic: await magicInMemory({
        ...durable,
        write: (writes) => (full ? Promise.reject(disk("ENOSPC")) : durable.write(writes)),
      }),
    });
    await directory.write([web("w1", 1)]);
    keeper.start();
    await run(1_000);
    full = true;
    await directory.write([web("w2", 2), serviceChange("home", "a", "api", { port: 9 })]);
    await run(1_000);
    expect(ports(written.at(-1))).toEqual([1, 2]);
    expect(written.at(-1)?.services.map(({ subject }) => subject)).toEqual(["web"]);
    expect(keeper.standing().trouble?.message).toMatch(/new services get no magic addresses.*ENOSPC/);
    full = false;
    await run(60_000);
    expect(
      written
        .at(-1)
        ?.services.map(({ subject }) => subject)
        .sort(),
    ).toEqual(["api", "web"]);
    expect(keeper.standing().trouble).toBeUndefined();
    await keeper.stop();
  });

  test("after stop nothing is left, and nobody waits for ever", async () => {
    locked = new Error("another agent");
    keeper.start();
    await run(500);
    const asked = keeper.current(never).catch((error: unknown) => error);
    await run(5);
    await keeper.stop();
    expect(await asked).toBeInstanceOf(Error);
    await expect(keeper.current(never)).rejects.toThrow("stopping");
    await make();
    await host.list("web", ["m1", "m2", "m3"]);
    keeper.start();
    await run(500);
    await host.list("web", []);
    await run(500);
    host.lookup.release("web");
    await keeper.stop();
    await keeper.stop();
    expect(closed).toBe(1);
    expect(directory.waiting).toBe(0);
    expect(host.clock.timers).toBe(0);
  });

  test("a stop in the middle of many services is no failure", async () => {
    for (let i = 0; i < 450; i++) await host.list(`s${i}`, [`m${i}`]);
    keeper.start();
    let pauses = 0;
    const { yield: pause } = host.clock;
    host.clock.yield = () => {
      // The first is before the services are looked at.
      if (++pauses === 2) void keeper.stop();
      return pause();
    };
    for (let turns = 0; turns < 1000 && pauses < 2; turns++) await run(1);
    await keeper.stop();
    expect([pauses, lines]).toEqual([2, []]);
  });
});

describe("a place", () => {
  test("is not opened before somebody asks, where no table was asked for", async () => {
    await make({ atOnce: false });
    await directory.write([web("w1", 1)]);
    keeper.start();
    await run(60_000);
    expect([opened, written.length]).toEqual([0, 0]);
    const asked = keeper.current(never);
    await run(200);
    await asked;
    expect(ports(written[0])).toEqual([1]);
    await keeper.stop();
  });

  test("that another agent has is told, and taken when it is free", async () => {
    locked = new Error("another agent writes there");
    await directory.write([web("w1", 1)]);
    keeper.start();
    await run(10_000);
    expect(keeper.standing().trouble?.message).toBe("another agent writes there");
    expect(lines).toEqual(["error: another agent writes there"]);
    locked = undefined;
    await run(60_000);
    expect(keeper.standing().trouble).toBeUndefined();
    expect(ports(written[0])).toEqual([1]);
    await keeper.stop();
  });
});

describe("the table of an earlier life", () => {
  test("stays as it is where it is right", async () => {
    const before = await earlier(web("w1", 1), web("w2", 2));
    const kept = magic;
    await make({ adopted: before, magic: kept });
    await directory.write([web("w1", 1), web("w2", 2)]);
    keeper.start();
    await run(30_000);
    expect(written).toEqual([]);
    expect(keeper.standing().written?.generation).toBe(41);
    await directory.write([web("w3", 3)]);
    await run(1_000);
    expect(written.map(({ generation }) => generation)).toEqual([42]);
    await keeper.stop();
  });

  test("is replaced by what the directory says, with a higher generation", async () => {
    const before = await earlier(web("w1", 1));
    await make({ adopted: before, magic });
    await directory.write([web("w1", 7)]);
    keeper.start();
    await run(500);
    expect(written.map((each) => [each.generation, ports(each)])).toEqual([[42, [7]]]);
    await keeper.stop();
  });

  test("stays until the directory is known, and whoever asks is told it", async () => {
    const before = await earlier(web("w1", 1));
    await make({ adopted: before, ready: false, magic });
    keeper.start();
    await run(60_000);
    await keeper.current(never);
    expect(written).toEqual([]);
    expect(keeper.standing().written?.services).toBe(1);
    await directory.write([web("w1", 8)]);
    await run(1_000);
    expect(written).toEqual([]);
    directory.becomeReady();
    await run(6_000);
    expect(written.map(ports)).toEqual([[8]]);
    await keeper.stop();
  });

  test("loses no service until the sources have told what runs", async () => {
    const before = await earlier(web("w1", 1));
    await make({ adopted: before, magic });
    keeper.start();
    await run(3_000);
    expect(written).toEqual([]);
    expect(keeper.standing().waiting).toMatch(/until the sources have told/);
    await directory.write([web("w1", 5), serviceChange("home", "a", "api", { port: 9 })]);
    await run(500);
    expect(written.map(ports)).toEqual([[5]]);
    await directory.write([goneChange("home", "w1")]);
    await run(500);
    // From then on it is this life's table, and what goes is gone.
    expect(written.map(ports)).toEqual([[5], undefined]);
    await keeper.stop();
  });

  test("loses them when they have told, and after ten seconds in any case", async () => {
    const before = await earlier(web("w1", 1));
    await make({ adopted: before, magic });
    keeper.start();
    await run(500);
    told?.();
    await run(500);
    expect(written.map((each) => each.services)).toEqual([[]]);
    await keeper.stop();
    await make({ adopted: before, magic });
    keeper.start();
    await run(9_000);
    expect(written).toEqual([]);
    await run(2_000);
    expect(written.map((each) => each.services)).toEqual([[]]);
    await keeper.stop();
  });

  test("of another range or domain is never taken for the same", async () => {
    const before = await earlier(web("w1", 1));
    await make({ adopted: decodeHookTable(encodeHookTable({ ...before, domain: "other" })), magic });
    await directory.write([web("w1", 1)]);
    keeper.start();
    await run(500);
    expect(written.map(({ domain }) => domain)).toEqual(["consul"]);
    await keeper.stop();
  });
});
