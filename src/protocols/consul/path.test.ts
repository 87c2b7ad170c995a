// Paths: cleaning on the escaped form, decoding, what may be printed.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isPrintable } from "../../wire/consul-definition/faults.ts";
import { cleanPath, decodePath, splitTarget } from "./path.ts";

describe("cleanPath", () => {
  it.each([
    ["/", "/"],
    ["/v1/kv/a", "/v1/kv/a"],
    ["/v1/kv/a/", "/v1/kv/a/"],
    ["/v1//catalog/nodes", "/v1/catalog/nodes"],
    ["/v1/kv/odd/./x/../y", "/v1/kv/odd/y"],
    ["/v1/kv//lead", "/v1/kv/lead"],
    ["/v1/kv/a/..", "/v1/kv"],
    ["/v1/kv/a/../", "/v1/kv/"],
    ["/../..", "/"],
    ["//", "/"],
    ["v1", "/v1"],
    ["/v1/kv/%2E%2E/z", "/v1/kv/%2E%2E/z"],
    ["/v1/kv/...", "/v1/kv/..."],
    ["/v1/kv/.a/..b", "/v1/kv/.a/..b"],
  ])("%s", (path, clean) => expect(cleanPath(path)).toBe(clean));

  it("is clean once cleaned, and never climbs out", () => {
    const part = fc.constantFrom("", ".", "..", "a", "b%2F", "...");
    fc.assert(
      fc.property(fc.array(part), (parts) => {
        const clean = cleanPath(`/${parts.join("/")}`);
        expect(cleanPath(clean)).toBe(clean);
        expect(clean.split("/").slice(1, -1)).not.toContain("");
        expect(clean.split("/")).not.toContain("..");
      }),
    );
  });
});

describe("decodePath", () => {
  it.each([
    ["/a%20b", "/a b"],
    ["/a+b", "/a+b"],
    ["/%C5%BC", "/ż"],
    ["/100%25", "/100%"],
    ["/a%2Fb", "/a/b"],
    ["/a%00b", "/a\u0000b"],
  ])("%s", (path, decoded) => expect(decodePath(path)).toBe(decoded));
  it.each(["/a%zz", "/a%", "/a%f", "/%ff", "/%c5"])("refuses %s", (path) => expect(decodePath(path)).toBeUndefined());
  it("reads what encodeURIComponent wrote", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (text) => {
        expect(decodePath(`/${encodeURIComponent(text)}`)).toBe(`/${text}`);
      }),
    );
  });
});

it("separates path and query, also of the absolute form", () => {
  expect(splitTarget("/v1/kv/a?raw&x=1")).toEqual({ path: "/v1/kv/a", query: "raw&x=1" });
  expect(splitTarget("http://host:1/v1/kv/a?raw")).toEqual({ path: "/v1/kv/a", query: "raw" });
  expect(splitTarget("http://host")).toEqual({ path: "/", query: "" });
});

it("knows what Go would print", () => {
  for (const text of ["/a b", "/żółć", "/🂡", "/\u0301"]) expect(isPrintable(text)).toBe(true);
  for (const text of ["/a\nb", "/\u0000", "/\u0007", "/\u00a0", "/\u200b", "/\u007f"])
    expect(isPrintable(text)).toBe(false);
});
