// The hook's table as a source of names: what it knows, how it changes, and what it says where it knows nothing.
import { describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { type SomeService, tableBytes } from "../../../test/support/hook-table-bytes.ts";
import type { Names, Sought } from "../grpc/names.ts";
import { backendsOf } from "./backends.ts";
import { createCurrentTable } from "./table.ts";
import { tableSource } from "./table-source.ts";

function setUp(first?: Record<string, SomeService>) {
  const clock = fakeClock();
  let file = first && { bytes: tableBytes(first), superseded: 0 };
  const table = createCurrentTable({
    clock,
    path: "/table",
    open() {
      const own = file;
      return own && { bytes: own.bytes, u32At: () => own.superseded, isReplaced: () => own !== file, close() {} };
    },
  });
  const put = (services: Record<string, SomeService>): void => {
    if (file !== undefined) file.superseded = 1;
    file = { bytes: tableBytes(services), superseded: 0 };
  };
  const source = tableSource(table, "/table", clock);
  const over = new AbortController();
  const seen: Names[] = [];
  const follow = async (sought: Sought): Promise<void> => {
    for await (const names of source.follow(sought, over.signal)) seen.push(names);
  };
  return { clock, put, source, over, seen, follow };
}

const A = { address: "10.0.0.1", port: 1 };

describe("the hook's table as a source", () => {
  it("gives what can be connected to, with what the service asks for, now and after changes", async () => {
    const { clock, put, source, over, seen, follow } = setUp({
      web: { policy: "first", tryMs: 300, backends: [A, { ...A, port: 0 }, { ...A, port: 2, only: "udp" }] },
    });
    await source.reach(over.signal);
    const following = follow({ service: "web", labels: {} });
    await clock.advance(5_000);
    expect(seen).toHaveLength(1);
    expect(backendsOf(seen[0] as Names)).toEqual({
      endpoints: [{ ...A, weight: 1, tier: 0 }],
      policy: "first",
      tryMs: 300,
      known: true,
      fresh: false,
    });
    put({
      web: {
        backends: [
          { ...A, suspect: true },
          { ...A, port: 3, weight: 7 },
        ],
      },
    });
    await clock.advance(1_000);
    expect(seen[1]?.endpoints).toMatchObject([{ addresses: [{ host: "10.0.0.1", port: 3 }], weight: 7 }]);
    put({ web: { backends: [{ ...A, suspect: true }] } });
    await clock.advance(1_000);
    expect(seen[2]?.endpoints).toHaveLength(1);
    put({ other: { backends: [] } });
    await clock.advance(1_000);
    expect(seen[3]).toEqual({ fresh: false, known: false, endpoints: [] });
    over.abort();
    await following;
    expect(clock.timers).toBe(0);
  });

  it("knows a tag, and no labels; where it is not there it says so", async () => {
    const { clock, over, seen, follow } = setUp({ "primary.db": { backends: [A] } });
    const following = follow({ service: "db", labels: {}, tags: ["primary"] });
    await clock.settle();
    expect(seen[0]?.endpoints).toHaveLength(1);
    over.abort();
    await following;
    await expect(follow({ service: "db", labels: { env: "prod" } })).rejects.toThrow("no labels");
    const nowhere = setUp();
    await expect(nowhere.source.reach(over.signal)).rejects.toThrow("there is no table of the hook at /table");
    await expect(nowhere.follow({ service: "db", labels: {} })).rejects.toMatchObject({ code: "unavailable" });
  });
});
