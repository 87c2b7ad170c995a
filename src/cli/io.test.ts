// Tables, pairs and spans of time as people read them.
import { describe, expect, it } from "vitest";
import { ago, pairs, table } from "./io.ts";

describe("what commands print", () => {
  it("aligns columns without trailing blanks", () => {
    expect(
      table([
        ["NAME", "N"],
        ["web", "12"],
        ["a", ""],
      ]),
    ).toBe("NAME  N\nweb   12\na\n");
  });

  it("prints one row a line whatever names hold, and aligns wide characters", () => {
    expect(
      table([
        ["a\nb\u001b[31m", "x"],
        ["😀日e\u0301", "y"],
        ["z".repeat(500), "w"],
      ]),
    ).toBe(
      `a\\u{a}b\\u{1b}[31m${" ".repeat(120 - 17 + 2)}x\n😀日e\u0301${" ".repeat(120 - 5 + 2)}y\n${"z".repeat(119)}…  w\n`,
    );
  });

  it("reads key=value words, with any key", () => {
    expect(pairs(["a=1", "b=x=y", "__proto__=z"], "--label")).toEqual(
      Object.assign(Object.create(null), { a: "1", b: "x=y", ["__proto__"]: "z" }),
    );
    expect(() => pairs(["novalue"], "--label")).toThrow('--label: "novalue": expected key=value');
  });

  it.each([
    [900, "1s"],
    [61_000, "1m 1s"],
    [3_660_000, "1h 1m"],
    [90_000_000, "1d 1h"],
  ])("%i ms is %s", (ms, text) => {
    expect(ago(ms)).toBe(text);
  });
});
