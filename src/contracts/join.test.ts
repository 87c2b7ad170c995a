// The words between a client host and its server: what is written is read again as it was, and anything else is refused, never half taken.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TrilithError } from "../base/error.ts";
import { sameValue } from "../model/codec.ts";
import { keyOf } from "../model/record.ts";
import { batchLine, commitText, readCommit, readLine } from "./join.ts";
import type { Batch, Commit, Row } from "./storage.ts";

const name = fc.string({ minLength: 1, maxLength: 12, unit: "grapheme" }).filter((text) => !text.includes("\u0000"));
const labels = fc.dictionary(fc.oneof(name, fc.constantFrom("__proto__", "constructor", "$bytes")), fc.string(), {
  maxKeys: 4,
  noNullPrototype: false,
});
const node = fc.record({
  id: fc.string(),
  name,
  address: fc.string(),
  datacenter: fc.string(),
  taggedAddresses: labels,
  labels,
});
const instance = fc.record({
  id: name,
  name,
  node: name,
  tags: fc.array(fc.string(), { maxLength: 3 }),
  labels,
  address: fc.string(),
  port: fc.integer({ min: 0, max: 65_535 }),
  origin: fc.constant({ source: "api", authority: "first-hand" as const }),
});
const check = fc.record({
  id: name,
  node: name,
  name: fc.string(),
  status: fc.constantFrom("passing" as const, "warning" as const, "critical" as const),
  notes: fc.string(),
  output: fc.string(),
  serviceId: fc.string(),
  type: fc.string(),
});
const index = fc.integer({ min: 1, max: 2 ** 40 });
const row: fc.Arbitrary<Row> = fc
  .tuple(
    fc.oneof(
      node.map((value) => ({ table: "node" as const, key: keyOf.node(value.name), value })),
      instance.map((value) => ({ table: "service" as const, key: keyOf.service(value.node, value.id), value })),
      check.map((value) => ({ table: "check" as const, key: keyOf.check(value.node, value.id), value })),
    ),
    fc.boolean(),
    index,
    index,
  )
  .map(([record, gone, createIndex, modifyIndex]) => ({
    ...record,
    value: gone ? undefined : record.value,
    createIndex,
    modifyIndex,
  }));

describe("lines of a stream", () => {
  it("are read as they were written", () => {
    const batch: fc.Arbitrary<Exclude<Batch, { kind: "reachable" }>> = fc.oneof(
      fc.record({ kind: fc.constant("delta" as const), index, rows: fc.array(row) }),
      fc.record({ kind: fc.constant("snapshot" as const), index, rows: fc.array(row), complete: fc.boolean() }),
    );
    fc.assert(
      fc.property(batch, (given) => {
        const line = batchLine(given);
        expect(line.indexOf("\n")).toBe(line.length - 1);
        expect(sameValue(readLine(line), given)).toBe(true);
      }),
    );
  });

  it("anything else is damaged", () => {
    const text = fc.oneof(
      fc.string(),
      fc.json(),
      fc.json().map((rows) => `{"kind":"delta","index":1,"rows":[${rows}]}`),
    );
    fc.assert(
      fc.property(text, (given) => {
        try {
          readLine(given);
        } catch (error) {
          expect(error).toBeInstanceOf(TrilithError);
          expect((error as TrilithError).code).toBe("damaged");
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe("commits", () => {
  it("are read as they were written, without what the server makes itself", () => {
    fc.assert(
      fc.property(fc.array(row), fc.array(fc.tuple(name, index)), (rows, expected) => {
        const commit: Commit = {
          id: "id",
          changes: rows.map(({ table, key, value }) =>
            value === undefined ? { op: "delete", table, key } : ({ op: "put", table, key, value } as never),
          ),
          expect: expected.map(([key, at]) => ({ table: "service", key, at })),
        };
        const grave = { op: "put", table: "grave", key: "k", value: { scopes: [] } } as const;
        expect(sameValue(readCommit(commitText({ ...commit, changes: [...commit.changes, grave] })), commit)).toBe(
          true,
        );
      }),
    );
  });

  it("anything else is invalid or damaged, and no other table is written", () => {
    const change = fc.record({
      op: fc.constantFrom("put", "delete", "x"),
      table: fc.constantFrom("node", "service", "check", "kv", "session", "alive", "grave", "kept", "__proto__"),
      key: fc.oneof(fc.string(), fc.integer()),
      value: fc.oneof(fc.jsonValue(), node, instance, check),
    });
    const body = fc.oneof(
      fc.string(),
      fc.json(),
      fc.array(fc.oneof(change, fc.jsonValue())).map((changes) => JSON.stringify({ id: "i", changes, expect: [] })),
    );
    fc.assert(
      fc.property(body, (given) => {
        try {
          for (const { table } of readCommit(given).changes) expect(["node", "service", "check"]).toContain(table);
        } catch (error) {
          expect(error).toBeInstanceOf(TrilithError);
          expect(["invalid", "damaged"]).toContain((error as TrilithError).code);
        }
      }),
      { numRuns: 1000 },
    );
  });
});
