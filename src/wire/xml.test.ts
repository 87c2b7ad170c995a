// XML: trees with places, escaping that can be read back, garbage that only ever raises InputError.
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../base/error.ts";
import { escapeXml, parseXml } from "./xml.ts";

describe("parseXml", () => {
  it("gives elements with attributes, text and places", () => {
    const root = parseXml(
      `<?xml version="1.0"?>\n<!DOCTYPE a SYSTEM "a.dtd">\n<a x="1 &amp; 2">\n  <b>t&#233;<![CDATA[<x>]]></b>\n  <b/>\n</a>`,
    );
    expect(root.name).toBe("a");
    expect([...root.attributes]).toEqual([["x", "1 & 2"]]);
    expect(root.children.map(({ name, text, line, column }) => ({ name, text, line, column }))).toEqual([
      { name: "b", text: "té<x>", line: 4, column: 3 },
      { name: "b", text: "", line: 5, column: 3 },
    ]);
  });
  it.each([
    ["", "1:1: not well-formed XML"],
    ["<a>\n<b></a>", "2:"],
    ["<a>&nope;</a>", "not well-formed XML"],
    ["<a/><b/>", "1:"],
    [`${"<a>".repeat(65)}`, "nested deeper than 64"],
  ])("refuses %j with the place", (text, message) => {
    expect(() => parseXml(text, "f")).toThrow(InputError);
    expect(() => parseXml(text, "f")).toThrow(message);
  });
  it("keeps names like __proto__ as data", () => {
    expect(parseXml('<a __proto__="x"/>').attributes.get("__proto__")).toBe("x");
  });
  it("reads what escapeXml wrote", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (text) => {
        const clean = text.replace(/[^\t\n\r\x20-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd");
        const root = parseXml(`<a b="${escapeXml(text)}">${escapeXml(text)}</a>`);
        expect(root.text).toBe(clean);
        expect(root.attributes.get("b")).toBe(clean.replace(/[\t\n]/g, " "));
      }),
    );
  });
  it("raises InputError only, whatever the text", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          parseXml(text);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
    );
  });
});
