// The block in a file of others' lines: whatever stands there, not a byte of it changes, and the block comes and goes.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { blockOf, linesIn, putTogether, takeApart } from "./block.ts";

const foreign = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        "127.0.0.1 localhost",
        "",
        "# a comment",
        "10.0.0.9\tweb",
        "  ",
        "#BEGIN trilith",
        "# BEGIN trilith2",
      ),
      fc.string({ maxLength: 20 }).filter((text) => !/\n|# (BEGIN|END) trilith/.test(text)),
    ),
  )
  .chain((lines) => fc.constantFrom("\n", "\r\n").map((end) => lines.map((line) => line + end).join("")));
const lines = fc.array(fc.constantFrom("10.0.0.1\tweb", "10.0.0.2\tdb mail"));

describe("the block", () => {
  it("is put in, found and taken out without touching others' lines", () => {
    fc.assert(
      fc.property(foreign, foreign, lines, lines, (before, after, first, second) => {
        const block = blockOf("trilith", first);
        const parts = takeApart(before + block + after, "trilith");
        expect(parts).toEqual({ before, after, block, strays: 0 });
        expect(linesIn(block)).toEqual(first);
        expect(putTogether(parts, blockOf("trilith", second))).toBe(before + blockOf("trilith", second) + after);
        expect(putTogether(parts, undefined)).toBe(before + after);
        const anew = takeApart(before, "trilith");
        expect(putTogether(anew, block)).toBe(before + block);
      }),
    );
  });

  it("does not join a last line without an end", () => {
    expect(putTogether(takeApart("a b", "t"), blockOf("t", []))).toMatch(/^a b\n# BEGIN t .*\n# END t\n$/);
    expect(takeApart("a\n# BEGIN t\nx\n# END t", "t")).toMatchObject({
      before: "a\n",
      block: "# BEGIN t\nx\n# END t\n",
    });
  });

  it("takes out marks that belong to nothing and second blocks, but nobody's lines", () => {
    const parts = takeApart(
      "a\n# BEGIN t\nb\n# BEGIN t\nc\n# END t\nd\n# END t\ne\n# BEGIN t\nf\n# END t\ng\n# BEGIN t\nh\n",
      "t",
    );
    expect(parts).toEqual({ before: "a\nb\n", block: "# BEGIN t\nc\n# END t\n", after: "d\ne\ng\nh\n", strays: 4 });
  });

  it("keeps the file's line ends and other blocks", () => {
    const text = "a\r\n# BEGIN u\r\nx\r\n# END u\r\n";
    const made = putTogether(takeApart(text, "t"), blockOf("t", ["1.2.3.4\tweb"], "\r\n"));
    expect(made.startsWith(text)).toBe(true);
    expect(made.replaceAll("\r\n", "")).not.toContain("\n");
    expect(linesIn(takeApart(made, "t").block ?? "")).toEqual(["1.2.3.4\tweb"]);
  });
});
