// Thresholds, as Consul's status handler counts [recorded: check-thresholds].
import { expect, test } from "vitest";
import type { Status } from "../model/check.ts";
import { ResultCounter } from "./thresholds.ts";

const run = (counter: ResultCounter, results: readonly Status[]): (Status | undefined)[] =>
  results.map((status) => counter.count({ status, output: "" }));

test("without thresholds every result counts", () => {
  expect(run(new ResultCounter(), ["critical", "passing", "warning", "critical"])).toEqual([
    "critical",
    "passing",
    "warning",
    "critical",
  ]);
});

test("the first result counts whatever the thresholds", () => {
  expect(run(new ResultCounter({ failuresBeforeCritical: 3 }), ["critical"])).toEqual(["critical"]);
  expect(run(new ResultCounter({ successBeforePassing: 3 }), ["passing"])).toEqual(["passing"]);
});

test("failures before critical; a success in between starts over", () => {
  expect(
    run(new ResultCounter({ failuresBeforeCritical: 3 }), [
      "passing",
      "critical",
      "critical",
      "warning",
      "critical",
      "critical",
      "critical",
    ]),
  ).toEqual(["passing", undefined, undefined, "warning", undefined, undefined, "critical"]);
});

test("between the thresholds it is warning", () => {
  expect(
    run(new ResultCounter({ failuresBeforeWarning: 1, failuresBeforeCritical: 3 }), [
      "passing",
      "critical",
      "critical",
      "critical",
    ]),
  ).toEqual(["passing", "warning", "warning", "critical"]);
});

test("success before passing; a warning is a success", () => {
  expect(
    run(new ResultCounter({ successBeforePassing: 3 }), ["critical", "passing", "warning", "passing", "warning"]),
  ).toEqual(["critical", undefined, undefined, "passing", "warning"]);
});

test("a final outcome is not softened", () => {
  const counter = new ResultCounter({ failuresBeforeCritical: 5 });
  run(counter, ["passing"]);
  expect(counter.count({ status: "critical", output: "Timed out", final: true })).toBe("critical");
});
