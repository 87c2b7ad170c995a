// Names of records in etcd: every text comes back, and people can read them.
import fc from "fast-check";
import { expect, test } from "vitest";
import { keyOf, type Table } from "../../../model/record.ts";
import { escapeKey, layout, unescapeKey } from "./keys.ts";

const tables: Table[] = ["alive", "check", "grave", "kv", "node", "service", "session"];
const anyText = fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code)) });
const oddText = fc.string({
  unit: fc.constantFrom("%", "/", "\u0000", "2", "F", "u", "D", "8", "\ud800", "\udc00", "ü"),
});

test("every key comes back from its escaped form, and from bytes", () => {
  const at = layout("/trilith");
  fc.assert(
    fc.property(fc.constantFrom(...tables), fc.oneof(anyText, oddText), (table, key) => {
      const text = escapeKey(table, key);
      expect(unescapeKey(table, text)).toBe(key);
      expect(Buffer.from(text).toString()).toBe(text);
      expect(at.parse(at.record(table, key))).toEqual({ table, key });
    }),
    { numRuns: 2000 },
  );
});

test("different keys have different names", () => {
  fc.assert(
    fc.property(fc.constantFrom(...tables), oddText, oddText, (table, a, b) => {
      fc.pre(a !== b);
      expect(escapeKey(table, a)).not.toBe(escapeKey(table, b));
    }),
  );
});

test("names are readable", () => {
  const at = layout("/trilith/");
  expect(at.record("service", keyOf.service("Web-1", "api:8080")).toString()).toBe("/trilith/service/web-1/api:8080");
  expect(at.record("check", keyOf.check("n", "disk/root 100%")).toString()).toBe("/trilith/check/n/disk%2Froot 100%25");
  expect(at.record("kv", "config/app/名前").toString()).toBe("/trilith/kv/config/app/名前");
  expect(at.record("kv", "a\u0000b\n").toString()).toBe("/trilith/kv/a%00b%0A");
  expect(at.record("kv", "__proto__").toString()).toBe("/trilith/kv/__proto__");
});

test("what is no record is not taken for one", () => {
  const at = layout("/trilith/");
  for (const key of [
    "/trilith/",
    "/trilith/.tick",
    "/trilith/node",
    "/trilith/pod/x",
    "/other/node/x",
    "/trilith/node/%zz",
    "/trilith/node/%0a",
    "/trilith/__proto__/x",
  ])
    expect(at.parse(Buffer.from(key))).toBeUndefined();
  expect(at.parse(Buffer.from([...Buffer.from("/trilith/node/"), 0xff, 0xfe]))).toBeUndefined();
  expect(at.parse(Buffer.from("/trilith/node/\ufffd"))).toEqual({ table: "node", key: "\ufffd" });
});

test("the watched range holds tables and tick, not the commits", () => {
  const at = layout("/t");
  const inside = (key: Buffer): boolean => Buffer.compare(at.from, key) <= 0 && Buffer.compare(key, at.to) < 0;
  for (const table of tables) expect(inside(at.record(table, "\uffff"))).toBe(true);
  expect(inside(at.tick)).toBe(true);
  expect(inside(at.commit("x"))).toBe(false);
  expect(() => layout("")).toThrow(/prefix is empty/);
});
