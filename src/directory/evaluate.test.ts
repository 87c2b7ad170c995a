// What a write comes to on tables that were loaded whole: the indexes are there as if everything had been written one by one.
import { expect, it } from "vitest";
import { evaluate } from "./evaluate.ts";
import { Tables } from "./tables.ts";

const session = (id: string) => ({
  ...{ table: "session" as const, key: id, createIndex: 2, modifyIndex: 2 },
  value: { id, name: "", node: "n", lockDelayMs: 0, behavior: "release" as const, nodeChecks: [], serviceChecks: [] },
});
const kept = (id: string, bound?: string) => ({
  ...{ table: "kept" as const, key: `x\u0000${id}`, createIndex: 3, modifyIndex: 3 },
  value: { kind: "x", id, value: 1, ...(bound === undefined ? {} : { session: bound }) },
});

it("takes what is tied to a session along with it, and nothing else", () => {
  const rows = [session("s1"), session("s11"), kept("1", "s1"), kept("2"), kept("3", "s11"), kept("4", "s1")];
  const tables = Tables.from(rows, 3);
  const removed = (...ids: string[]): unknown => {
    const evaluated = evaluate(
      tables.clone(),
      ids.map((key) => ({ op: "delete", table: "session", key })),
      [],
      "test",
      0,
    );
    return evaluated.kind === "write" ? evaluated.cascaded.map(({ table, key }) => [table, key]) : evaluated.kind;
  };
  expect(removed("s1")).toEqual([
    ["kept", "x\u00001"],
    ["kept", "x\u00004"],
  ]);
  expect(removed("s11")).toEqual([["kept", "x\u00003"]]);
  expect(removed("none")).toBe("nothing");
});
