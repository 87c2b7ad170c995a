// What a write comes to on tables that were loaded whole: the indexes are there as if everything had been written one by one.
import { expect, it } from "vitest";
import type { Row } from "../contracts/storage.ts";
import { type Change, keyOf, scope } from "../model/record.ts";
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

it("a drain moves what is told of checks when it begins, ends or goes with its service, also for who reads the store anew", () => {
  const node = {
    ...{ id: "", name: "n", address: "192.0.2.1", datacenter: "dc1", taggedAddresses: {}, labels: {} },
  };
  const service = (draining: boolean, more: object = {}): Change => ({
    ...{ op: "put", table: "service", key: keyOf.service("n", "w") },
    value: {
      ...{ id: "w", node: "n", name: "web", tags: [], labels: {}, address: "", port: 80 },
      ...(draining ? { draining } : {}),
      ...more,
      origin: { source: "api", authority: "first-hand" },
    },
  });
  const rows = new Map<string, Row>();
  let tables = new Tables();
  const moved = (...changes: readonly Change[]): boolean => {
    const index = tables.index + 1;
    const evaluated = evaluate(tables, changes, [], `w${index}`, index);
    if (evaluated.kind !== "write") throw new Error(evaluated.kind);
    const made = [...evaluated.changes, ...evaluated.cascaded].map((change): Row => {
      const { table, key } = change;
      const createIndex = tables.get(table, key)?.createIndex ?? index;
      return { table, key, value: change.op === "put" ? change.value : undefined, createIndex, modifyIndex: index };
    });
    tables = tables.clone();
    const touched = tables.apply(made, index);
    for (const row of made)
      if (row.value === undefined) rows.delete(`${row.table} ${row.key}`);
      else rows.set(`${row.table} ${row.key}`, row);
    const anew = Tables.from(rows.values(), index);
    for (const each of ["checks", scope.checksOf("web"), scope.service("web"), scope.node("n")] as const)
      expect(anew.at(each), `${each} at ${index}`).toBe(tables.at(each));
    expect(touched.has("checks")).toBe(touched.has(scope.checksOf("web")));
    expect(tables.at("checks") === index).toBe(touched.has("checks"));
    return touched.has("checks");
  };
  expect(moved({ op: "put", table: "node", key: "n", value: node }, service(false))).toBe(false);
  expect(moved(service(false, { port: 81 }))).toBe(false);
  expect(moved(service(true))).toBe(true);
  expect(moved(service(false))).toBe(true);
  expect(moved(service(false, { port: 82 }))).toBe(false);
  expect(moved(service(true))).toBe(true);
  expect(moved({ op: "delete", table: "service", key: keyOf.service("n", "w") })).toBe(true);
});
