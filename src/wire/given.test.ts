// Configuration that somebody wrote: what is there and right comes out, what is wrong is said with its place and what would be right.
import { describe, expect, it } from "vitest";
import { InputError } from "../base/error.ts";
import { type Given, given } from "./given.ts";

const KEYS = ["a", "b"];
const of = (value: unknown): Given => given(value, "part", KEYS, '{"a": 1}');

describe("given", () => {
  it("reads texts, numbers, durations, lists and words; what is absent is undefined or empty", () => {
    expect(of({ a: "x" }).text("a", "a text")).toBe("x");
    expect(of({ a: false }).flag("a")).toBe(false);
    expect(of({ a: 5 }).number("a", 1, 5)).toBe(5);
    expect(of({ a: "1m30s" }).duration("a", 0)).toBe(90_000);
    expect(of({ a: ["x", "y"] }).texts("a", "a text")).toEqual(["x", "y"]);
    expect(of({ a: "x" }).texts("a", "a text")).toEqual(["x"]);
    const words = of(JSON.parse('{"a": {"__proto__": "x", "y": ""}}')).words("a", "words");
    expect(Object.entries(words)).toEqual([
      ["__proto__", "x"],
      ["y", ""],
    ]);
    const none = of({});
    expect([none.text("a", ""), none.flag("a"), none.number("a", 0, 1), none.duration("a", 0)]).toEqual([
      ...[undefined, undefined, undefined, undefined],
    ]);
    expect([none.texts("a", ""), { ...none.words("a", "") }]).toEqual([[], {}]);
    expect(of(JSON.parse("{}")).raw("toString")).toBeUndefined();
  });

  it.each<[unknown, (given: Given) => unknown, string]>([
    [{ a: 1 }, (one) => one.text("a", "a text"), "part.a: expected a text, but got 1"],
    [{ a: "y" }, (one) => one.text("a", "x", /^x$/), 'part.a: expected x, but got "y"'],
    [{ a: "yes" }, (one) => one.flag("a"), 'part.a: expected true or false, but got "yes"'],
    [{ a: 1.5 }, (one) => one.number("a", 1, 5), "part.a: expected a whole number from 1 to 5, but got 1.5"],
    [{ a: 5 }, (one) => one.duration("a", 0), 'part.a: expected a duration such as "10s", but got 5'],
    [{ a: "1s" }, (one) => one.duration("a", 2000), 'part.a: expected at least 2000 ms, but got "1s"'],
    [{ a: ["x", 1] }, (one) => one.texts("a", "a text"), "part.a[1]: expected a text, but got 1"],
    [{ a: [] }, (one) => one.words("a", "an object"), "part.a: expected an object, but got []"],
    [{ a: { x: 1 } }, (one) => one.words("a", "words"), "part.a.x: expected words, but got 1"],
  ])("says what is wrong with %j", (value, read, text) => {
    let fault: unknown;
    try {
      read(of(value));
    } catch (error) {
      fault = error;
    }
    expect(fault).toBeInstanceOf(InputError);
    expect((fault as InputError).message).toBe(text);
  });

  it("refuses what is not an object, and keys that are nobody's", () => {
    for (const value of [null, [], "x", 1])
      expect(() => of(value)).toThrow(/^part: expected an object such as \{"a": 1\}/);
    expect(() => of({ c: 1 })).toThrow("part.c: unknown key; known are a, b");
  });
});
