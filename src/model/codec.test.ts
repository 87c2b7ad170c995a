// Tests of the record codec: what goes in comes out, whatever the keys are called, and garbage only ever raises `damaged`.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { TrilithError } from "../base/error.ts";
import { decodeRecord, encodeRecord, frozenCopy, sameValue } from "./codec.ts";
import type { KvPair } from "./kv.ts";
import { compareUtf8 } from "./order.ts";
import type { Tables } from "./record.ts";

const key = fc.oneof(
  fc.string(),
  fc.constantFrom("__proto__", "constructor", "$bytes", "$bigint", "$$x", "$", "toString"),
);
const leaf = fc.oneof(
  fc.string({ unit: "binary" }).filter((text) => !/\p{Surrogate}/u.test(text)),
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => (n === 0 ? 0 : n)),
  fc.boolean(),
  fc.constant(null),
  fc.uint8Array({ maxLength: 20 }),
  fc.bigInt(),
);
const { value } = fc.letrec((tie) => ({
  value: fc.oneof({ depthSize: "small" }, leaf, tie("object"), fc.array(tie("value"), { maxLength: 4 })),
  object: fc
    .array(fc.tuple(key, tie("value")), { maxLength: 5 })
    .map((pairs) =>
      pairs.reduce(
        (o, [k, v]) => Object.defineProperty(o, k, { value: v, enumerable: true, configurable: true, writable: true }),
        Object.create(null),
      ),
    ),
}));

describe("codec", () => {
  test("decode(encode(x)) = x, for any fields, bytes and big integers", () => {
    fc.assert(
      fc.property(value, value, (detail, extra) => {
        const record = { id: "c", future: extra, foreign: { detail } } as unknown as Tables["check"];
        expect(sameValue(decodeRecord("check", encodeRecord("check", record)), record)).toBe(true);
      }),
    );
  });

  test("nothing is inherited by what was decoded, and __proto__ is an ordinary name", () => {
    const labels = JSON.parse('{"__proto__": "x", "a": "b"}');
    const node = decodeRecord("node", encodeRecord("node", { labels } as Tables["node"]));
    expect(Object.keys(node.labels)).toEqual(["__proto__", "a"]);
    expect(node.labels["constructor"]).toBeUndefined();
    expect(({} as Record<string, unknown>)["x"]).toBeUndefined();
    expect(Object.isFrozen(node.labels)).toBe(true);
  });

  test("kv pairs keep bytes and 64-bit flags", () => {
    const pair: KvPair = {
      key: "ключ/\u0001",
      value: new Uint8Array([0, 255, 128]),
      flags: 0xffff_ffff_ffff_ffffn,
      lockIndex: 3,
    };
    expect(sameValue(decodeRecord("kv", encodeRecord("kv", pair)), pair)).toBe(true);
  });

  test("random bytes only ever raise `damaged`", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map((t) => new TextEncoder().encode(t)),
        ),
        (bytes) => {
          try {
            decodeRecord("node", bytes);
          } catch (error) {
            expect(error).toBeInstanceOf(TrilithError);
            expect((error as TrilithError).code).toBe("damaged");
          }
        },
      ),
    );
  });

  test("what JSON cannot hold is refused with its place", () => {
    const node = { labels: { a: Number.NaN } } as unknown as Tables["node"];
    expect(() => encodeRecord("node", node)).toThrow("node.labels.a: NaN cannot be stored");
  });

  test("a frozen copy means the same, shares nothing and cannot be changed", () => {
    fc.assert(
      fc.property(value, (original) => {
        const copied = frozenCopy(original);
        expect(sameValue(copied, original)).toBe(true);
        if (typeof copied === "object" && copied !== null && !(copied instanceof Uint8Array)) {
          expect(copied).not.toBe(original);
          expect(Object.isFrozen(copied)).toBe(true);
        }
      }),
    );
  });

  test("sameValue tells different values apart", () => {
    fc.assert(
      fc.property(value, value, (a, b) => {
        const text = (v: unknown): string =>
          Buffer.from(encodeRecord("check", { v } as unknown as Tables["check"])).toString();
        if (text(a) === text(b)) expect(sameValue(a, b)).toBe(true);
        if (sameValue(a, b)) expect(text(a).length).toBe(text(b).length);
      }),
    );
    expect(sameValue({ a: undefined }, {})).toBe(true);
    expect(sameValue({ toString: 1 }, {})).toBe(false);
    expect(sameValue([1, 2], [2, 1])).toBe(false);
    expect(sameValue(new Uint8Array([1]), [1])).toBe(false);
  });

  test("the order of text is the order of its UTF-8 bytes", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), (a, b) => {
        expect(Math.sign(compareUtf8(a, b))).toBe(Math.sign(Buffer.compare(Buffer.from(a), Buffer.from(b))));
      }),
    );
    expect(compareUtf8("\uffff", "\u{10000}")).toBeLessThan(0);
  });
});
