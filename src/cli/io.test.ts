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

  it("reads key=value words, with any key", () => {
    expect(pairs(["a=1", "b=x=y", "__proto__=z"], "--label")).toEqual(
      Object.assign(Object.create(null), { a: "1", b: "x=y", ["__proto__"]: "z" }),
    );
    expect(() => pairs(["novalue"], "--label")).toThrow('--label "novalue": expected key=value');
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
