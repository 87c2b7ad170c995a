// The history checker itself: it must find each kind of wrong.
import { describe, expect, test } from "vitest";
import type { Batch, Row } from "../../../src/contracts/storage.ts";
import type { Change, Expect } from "../../../src/model/record.ts";
import { type Attempt, checkFollower, checkHistory, markOf } from "./history.ts";

const put = (key: string, text = ""): Change => ({
  op: "put",
  table: "kv",
  key,
  value: { key, value: Buffer.from(text), flags: 0n, lockIndex: 0 },
});
const row = (key: string, createIndex: number, modifyIndex: number, text = ""): Row => ({
  table: "kv",
  key,
  value: { key, value: Buffer.from(text), flags: 0n, lockIndex: 0 },
  createIndex,
  modifyIndex,
});
const attempt = (
  id: string,
  start: number,
  end: number,
  outcome: Attempt["outcome"],
  index: number,
  changes: Change[] = [],
  expected: Expect[] = [],
): Attempt => ({
  commit: { id, changes: [put(markOf(id)), ...changes], expect: expected },
  start,
  end,
  outcome,
  ...(outcome === "written" ? { index } : {}),
});
const A = markOf("a");
const B = markOf("b");

describe("the history checker finds", () => {
  const right = [
    attempt("a", 0, 1, "written", 2, [put("k", "1")]),
    attempt("b", 2, 3, "written", 3, [put("k", "2")], [{ table: "kv", key: "k", at: 2 }]),
  ];
  const content = [row(A, 2, 2), row(B, 3, 3), row("k", 2, 3, "2")];
  const cases: readonly (readonly [string, readonly Attempt[], readonly Row[], string | undefined])[] = [
    ["nothing wrong with what is right", right, content, undefined],
    [
      "an acknowledged write that is missing",
      right,
      [row(A, 2, 2), row("k", 2, 2, "1")],
      "acknowledged and is missing",
    ],
    ["half a write", right, [row(A, 2, 2), row(B, 3, 3), row("k", 2, 2, "1")], "instead of 2/3"],
    ["a write done twice", right, [row(A, 2, 4), ...content.slice(1)], "written twice"],
    ["another value", right, [...content.slice(0, 2), row("k", 2, 3, "other")], "has another"],
    ["a record nobody wrote", right, [...content, row("ghost", 3, 3)], "too much"],
    ["a wrong index", [attempt("a", 0, 1, "written", 5)], [row(A, 2, 2)], "was told index 5"],
    [
      "nothing wrong with two writes at one index that do not touch each other",
      [attempt("a", 0, 2, "written", 2, [put("k", "1")]), attempt("b", 1, 3, "written", 2, [put("l", "2")])],
      [row(A, 2, 2), row(B, 2, 2), row("k", 2, 2, "1"), row("l", 2, 2, "2")],
      undefined,
    ],
    [
      "two writes at one index that touch each other",
      [
        attempt("a", 0, 2, "written", 2, [put("k", "1")]),
        attempt("b", 1, 3, "written", 2, [], [{ table: "kv", key: "k", at: 0 }]),
      ],
      [row(A, 2, 2), row(B, 2, 2), row("k", 2, 2, "1")],
      "one touches the other",
    ],
    [
      "an order against time",
      [attempt("a", 0, 1, "written", 3), attempt("b", 2, 3, "written", 2)],
      [row(A, 3, 3), row(B, 2, 2)],
      "stands after it",
    ],
    [
      "an expectation that did not hold",
      [attempt("a", 0, 1, "written", 2, [], [{ table: "kv", key: "k", at: 9 }])],
      [row(A, 2, 2)],
      "did not hold",
    ],
    [
      "a refused write that is there",
      [attempt("a", 0, 1, "expectation-failed", 0)],
      [row(A, 2, 2)],
      "was refused and is there",
    ],
    [
      "a refusal without a reason",
      [attempt("a", 0, 1, "expectation-failed", 0, [], [{ table: "kv", key: "k", at: 0 }])],
      [],
      "held all the time",
    ],
    [
      "a refusal for what came only later",
      [
        attempt("a", 0, 1, "expectation-failed", 0, [], [{ table: "kv", key: "k", at: 0 }]),
        attempt("b", 2, 3, "written", 2, [put("k", "1")]),
      ],
      [row(B, 2, 2), row("k", 2, 2, "1")],
      "held all the time",
    ],
    ["nothing wrong with an unknown outcome that was not written", [attempt("a", 0, 1, "unknown", 0)], [], undefined],
    [
      "nothing wrong with an unknown outcome that was written",
      [attempt("a", 0, 1, "unknown", 0)],
      [row(A, 7, 7)],
      undefined,
    ],
  ];
  for (const [what, attempts, rows, text] of cases)
    test(what, () => {
      const check = (): unknown => checkHistory(attempts, rows, 1);
      if (text === undefined) check();
      else expect(check).toThrow(text);
    });
});

describe("the follower's checker finds", () => {
  const transactions = new Map([
    [2, [row("x", 2, 2), row("y", 2, 2)]],
    [4, [row("x", 2, 4)]],
  ]);
  const delta = (index: number, ...rows: Row[]): Batch => ({ kind: "delta", index, rows });
  const first = delta(2, row("x", 2, 2), row("y", 2, 2));
  const second = delta(4, row("x", 2, 4));
  const cases: readonly (readonly [string, readonly Batch[], string | undefined])[] = [
    ["nothing wrong with what is right", [first, first, delta(3), second, first], undefined],
    ["nothing wrong with two at once", [delta(4, row("x", 2, 2), row("y", 2, 2), row("x", 2, 4))], undefined],
    [
      "nothing wrong with a snapshot",
      [{ kind: "snapshot", index: 4, rows: [row("x", 2, 4), row("y", 2, 2)], complete: true }],
      undefined,
    ],
    ["half a transaction", [delta(2, row("x", 2, 2)), second], "lacks"],
    ["one left out", [second], "lacks"],
    ["an early end", [first], "ended at 2"],
    ["one that nobody wrote", [first, delta(4, row("z", 3, 3), row("x", 2, 4))], "nobody wrote"],
    ["a false snapshot", [{ kind: "snapshot", index: 4, rows: [row("x", 2, 4)], complete: true }], "lacks"],
  ];
  for (const [what, batches, text] of cases)
    test(what, () => {
      const check = (): unknown => checkFollower(batches, transactions, 1, 4);
      if (text === undefined) check();
      else expect(check).toThrow(text);
    });
});
