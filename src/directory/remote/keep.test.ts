// What a client host keeps when its server knows less all at once, and when it lets go.
import { describe, expect, it } from "vitest";
import { type FakeClock, fakeClock } from "../../../test/simulated/clock.ts";
import { nodeChange, serviceChange } from "../../../test/support/directory.ts";
import { callbackLog } from "../../base/log.ts";
import type { Batch, Row } from "../../contracts/storage.ts";
import { type Change, keyOf } from "../../model/record.ts";
import { KEEP_MS, Keeper } from "./keep.ts";

const row = (change: Change, modifyIndex = 5): Row => ({
  table: change.table,
  key: change.key,
  value: change.op === "put" ? change.value : undefined,
  createIndex: modifyIndex,
  modifyIndex,
});
const host = (name: string, ...ids: string[]): Row[] => [
  row(nodeChange(name, "192.0.2.1")),
  ...ids.map((id) => row(serviceChange(name, id, id.split("-")[0] as string))),
];
const OWN = [...host("me", "own-1"), row(serviceChange("s", "consul", "consul"))];
const snapshot = (index: number, ...rows: Row[]): Batch => ({ kind: "snapshot", index, rows, complete: true });

interface Small {
  readonly keeper: Keeper;
  readonly clock: FakeClock;
  readonly lines: string[];
  readonly ended: () => number;
  /** Keys of what is handed on. */
  take(batch: Batch, resumed?: boolean): string[];
}

function small(): Small {
  const clock = fakeClock();
  const lines: string[] = [];
  let ended = 0;
  const log = callbackLog((level, _part, text) => void lines.push(`${level}: ${text}`));
  const keeper = new Keeper("me", clock, log, () => void ended++);
  return {
    ...{ keeper, clock, lines, ended: () => ended },
    take(batch, resumed = false) {
      const told = keeper.take(batch, resumed, "http://s");
      return told.kind === "reachable" ? [] : told.rows.map(({ key }) => key.replaceAll("\u0000", "/")).sort();
    },
  };
}

describe("a server that knows less than before", () => {
  it("has its missing instances kept, with their hosts; this host's own are what the server says", () => {
    const { keeper, take, lines } = small();
    take(snapshot(90, ...OWN, ...host("a", "web-1"), ...host("b", "web-2")));
    expect(keeper.kept).toBeUndefined();
    const kept = take(snapshot(3, row(serviceChange("s", "consul", "consul"))));
    expect(kept).toEqual(["a", "a/web-1", "b", "b/web-2", "s/consul"]);
    expect(keeper.kept).toMatchObject({ missing: 2, known: 2 });
    expect(lines).toEqual([expect.stringContaining("http://s no longer knows 2 of 2 instances")]);
  });

  it("numbers nothing beyond its own index", () => {
    const { keeper, take } = small();
    take(snapshot(90, ...host("a", "web-1").map((each) => ({ ...each, modifyIndex: 80, createIndex: 70 }))));
    const told = keeper.take(snapshot(3), false, "http://s");
    expect(told.kind !== "reachable" && told.rows.map((each) => [each.createIndex, each.modifyIndex])).toEqual([
      [3, 3],
      [3, 3],
    ]);
  });

  it("is believed about what it goes on to tell, what was removed by somebody, and about half", () => {
    const all = [...OWN, ...host("a", "web-1"), ...host("b", "web-2")];
    const resumed = small();
    resumed.take(snapshot(90, ...all));
    expect(resumed.take(snapshot(91, ...OWN), true)).toHaveLength(3);
    expect(resumed.keeper.kept).toBeUndefined();
    // The same line with a lower number is another content under it.
    expect(resumed.take(snapshot(95, ...all), true)).toHaveLength(7);
    expect(resumed.take(snapshot(2, ...OWN), true)).toHaveLength(7);

    const removed = small();
    removed.take(snapshot(90, ...all));
    const gone = ["a", "b"].flatMap((name, i) => [
      { table: "service" as const, key: keyOf.service(name, `web-${i + 1}`) },
      { table: "node" as const, key: keyOf.node(name) },
    ]);
    const grave = { table: "grave", key: "1", value: { scopes: [], gone }, createIndex: 91, modifyIndex: 91 } as const;
    expect(removed.take(snapshot(91, ...OWN, grave))).toHaveLength(4);
    expect(removed.keeper.kept).toBeUndefined();

    const half = small();
    half.take(snapshot(90, ...all));
    expect(half.take(snapshot(3, ...OWN, ...host("a", "web-1")))).toHaveLength(5);
    expect(half.keeper.kept).toBeUndefined();
  });

  it("is asked anew when most are back, and its word is taken then", () => {
    const { keeper, take, ended } = small();
    take(snapshot(90, ...host("a", "web-1"), ...host("b", "web-2"), ...host("c", "web-3")));
    take(snapshot(3));
    take({ kind: "delta", index: 4, rows: host("a", "web-1") });
    expect(keeper.kept).toMatchObject({ missing: 2, known: 3 });
    take({ kind: "delta", index: 5, rows: host("b", "web-9") });
    expect([keeper.kept, ended()]).toEqual([undefined, 1]);
    expect(take(snapshot(5, ...host("a", "web-1"), ...host("b", "web-9")))).toHaveLength(4);
    expect(keeper.kept).toBeUndefined();
    // Only once.
    expect(take(snapshot(2))).toHaveLength(4);
  });

  it("is asked anew when the longest time is over; what is kept is of the time before", async () => {
    const { keeper, take, ended, clock } = small();
    take(snapshot(90, ...host("a", "web-1")));
    const goodMs = clock.now();
    clock.advanceNow(60_000);
    take(snapshot(3));
    expect(keeper.kept?.goodMs).toBe(goodMs);
    // Another connection meanwhile does not make it longer.
    await clock.advance(KEEP_MS / 2);
    take(snapshot(3));
    keeper.stillTrue();
    expect(keeper.kept).toMatchObject({ missing: 1, known: 1, goodMs });
    await clock.advance(KEEP_MS / 2);
    expect([keeper.kept, ended()]).toEqual([undefined, 1]);
    expect(take(snapshot(3))).toEqual([]);
  });

  it("is compared with what was known before this host started", () => {
    const { keeper, take } = small();
    keeper.remember(host("a", "web-1"), 1234);
    expect(take(snapshot(3))).toEqual(["a", "a/web-1"]);
    expect(keeper.kept?.goodMs).toBe(1234);
    keeper.stop();
  });
});
