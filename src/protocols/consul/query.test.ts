// Query parameters as Go's url.Values, numbers and booleans as its strconv.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseBool, parseUint, Query } from "./query.ts";

describe("Query", () => {
  it("knows bare, empty and repeated parameters", () => {
    const query = new Query("raw&cas=&tag=a&tag=b&note=all%20good+x&__proto__=1");
    expect(query.has("raw")).toBe(true);
    expect(query.get("raw")).toBe("");
    expect(query.has("cas")).toBe(true);
    expect(query.all("tag")).toEqual(["a", "b"]);
    expect(query.get("note")).toBe("all good x");
    expect(query.get("__proto__")).toBe("1");
    expect(query.has("constructor")).toBe(false);
  });
  it("drops what Go drops", () => {
    const query = new Query("a=%zz&b;c=1&&d=1&Recurse");
    expect(query.has("a")).toBe(false);
    expect(query.has("b")).toBe(false);
    expect(query.get("d")).toBe("1");
    expect(query.has("recurse")).toBe(false);
  });
  it("writes sorted and escaped", () => {
    expect(new Query("recurse&cas=1").encode()).toBe("cas=1&recurse=");
    expect(new Query("b=x%20y&a=%26(").encode()).toBe("a=%26%28&b=x+y");
  });
  it("reads back what it wrote", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const encoded = new Query(text).encode();
        expect(new Query(encoded).encode()).toBe(encoded);
      }),
    );
  });
});

describe("numbers and booleans", () => {
  it("takes all 64 bits", () => {
    expect(parseUint("18446744073709551615")).toEqual({ ok: true, value: 18_446_744_073_709_551_615n });
    expect(parseUint("0")).toEqual({ ok: true, value: 0n });
  });
  it.each([
    ["many", 'strconv.ParseUint: parsing "many": invalid syntax'],
    ["-1", 'strconv.ParseUint: parsing "-1": invalid syntax'],
    ["", 'strconv.ParseUint: parsing "": invalid syntax'],
    ["18446744073709551616", 'strconv.ParseUint: parsing "18446744073709551616": value out of range'],
    ["9".repeat(10_000), `strconv.ParseUint: parsing "${"9".repeat(10_000)}": value out of range`],
  ])("refuses %.30s", (given, text) => expect(parseUint(given)).toEqual({ ok: false, text }));
  it("has Go's booleans", () => {
    expect(["1", "t", "True", "0", "F", "false"].map(parseBool)).toEqual([true, true, true, false, false, false]);
    expect(["", "yes", "tRUE", "maybe"].map(parseBool)).toEqual([undefined, undefined, undefined, undefined]);
  });
});
