// JSON as Go writes and reads it: escapes, bigints, the first value of a body.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeJson, encodeExactJson, encodeJson } from "./json.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("encodeJson", () => {
  it("escapes what Go escapes", () => {
    expect(encodeJson({ a: "<x> & \u2028" }, 0)).toBe('{"a":"\\u003cx\\u003e \\u0026 \\u2028"}');
  });
  it("indents by four", () => {
    expect(encodeJson([{ A: 1, B: [], C: {} }], 4)).toBe(
      '[\n    {\n        "A": 1,\n        "B": [],\n        "C": {}\n    }\n]',
    );
  });
  it("is read back as the same value", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(0, 4), (value, indent) => {
        const text = encodeJson(value, indent);
        expect(text).not.toMatch(/[<>&\u2028\u2029]/);
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)));
        expect(encodeExactJson(value, indent)).toBe(text);
      }),
    );
  });
  it("writes bigints as numbers", () => {
    const value = [{ Flags: 18_446_744_073_709_551_615n, None: undefined, List: [], Map: {} }];
    expect(encodeExactJson(value, 0)).toBe('[{"Flags":18446744073709551615,"List":[],"Map":{}}]');
    expect(encodeExactJson(value, 4)).toContain('\n        "Flags": 18446744073709551615,\n');
  });
});

describe("decodeJson", () => {
  it.each([
    ['{"Name":"x"} junk', { Name: "x" }],
    [' {"a":"}\\""}{"b":1}', { a: '}"' }],
    ["true false", true],
    ['"a""b"', "a"],
    ["[1,[2]]]", [1, [2]]],
    ["12 ", 12],
    ["null", null],
  ])("takes the first value of %j", (text, value) => expect(decodeJson(bytes(text))).toEqual(value));

  it.each(["", "  \n", "{nonsense", "x", "{", '{"a":', '"open', "}", "]"])("refuses %j", (text) =>
    expect(() => decodeJson(bytes(text))).toThrow(expect.objectContaining({ code: "invalid" })),
  );

  it("refuses bytes that are not UTF-8", () => {
    expect(() => decodeJson(new Uint8Array([0x22, 0xff, 0x22]))).toThrow("not UTF-8");
  });

  it("keeps names like __proto__ as names", () => {
    const value = decodeJson(bytes('{"__proto__":{"x":1}}')) as object;
    expect(Object.keys(value)).toEqual(["__proto__"]);
    expect((value as { x?: number }).x).toBeUndefined();
  });

  it("finds the end of any value whatever follows", () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.object(), fc.array(fc.jsonValue())),
        fc.string({ unit: "grapheme-ascii" }),
        (value, junk) => {
          const text = JSON.stringify(value);
          expect(decodeJson(bytes(text + junk))).toEqual(JSON.parse(text));
        },
      ),
    );
  });

  it("raises nothing but invalid", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (random) => {
        try {
          decodeJson(random);
        } catch (error) {
          expect(error).toMatchObject({ code: "invalid" });
        }
      }),
    );
  });
});
