// Configuration text: HCL as Consul's documents write it, JSON against JSON.parse, positions, and what a mistake is told.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../../base/error.ts";
import { parseConfigText } from "./config.ts";

const hcl = (text: string): unknown => structuredClone(parseConfigText(text, "a.hcl").value);
const fault = (text: string, name = "a.hcl"): string => {
  try {
    parseConfigText(text, name);
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as Error).message;
  }
  throw new Error("was taken");
};

describe("HCL", () => {
  it("reads a service file with every kind of thing in it", () => {
    expect(
      hcl(`
# the shop
service {
  name = "web" // its name
  tags = ["v1", "primary",]
  port = 0x1F90
  "meta" { version = 3, "team.name" = "core" } /* a
  comment over lines */
  weights = { passing = 10  warning = 1 }
  check { id = "a" ttl = "10s" }
  check {
    id = "b"
    args = ["/bin/sh", "-c", "exit 0"]
    interval = "10s"
  }
  enable_tag_override = true
}
services = [{ name = "x" }, { name = "y" }]
ratio = -1.5e2
empty = []
none {}
`),
    ).toEqual({
      service: {
        name: "web",
        tags: ["v1", "primary"],
        port: 8080,
        meta: { version: 3, "team.name": "core" },
        weights: { passing: 10, warning: 1 },
        check: [
          { id: "a", ttl: "10s" },
          { id: "b", args: ["/bin/sh", "-c", "exit 0"], interval: "10s" },
        ],
        enable_tag_override: true,
      },
      services: [{ name: "x" }, { name: "y" }],
      ratio: -150,
      empty: [],
      none: {},
    });
  });

  it.each<[string, unknown]>([
    ["", {}],
    ["a.b-c_1 = 1", { "a.b-c_1": 1 }],
    ["a = 017", { a: 15 }],
    ['service "web" "x" { port = 1 }', { service: { web: { x: { port: 1 } } } }],
    ['a "x" {}\na "y" {}', { a: [{ x: {} }, { y: {} }] }],
    ["a = 1\na = 2", { a: 2 }],
    [String.raw`a = "q\"\\\n\t\u00e4\U0001F600\x41\101"`, { a: 'q"\\\n\tä😀AA' }],
    [`a = "$\{ foo["b"] }-$x"`, { a: `$\{ foo["b"] }-$x` }],
    ["a = <<EOF\n  one\n two\nEOF\nb = 1", { a: "  one\n two\n", b: 1 }],
    ["a = <<-EOF\n    one\n      two\n    EOF\nb = 1", { a: "one\n  two\n", b: 1 }],
    ["a = <<-EOF\n one\n    EOF", { a: " one\n" }],
    ["a = <<EOF\r\none\r\nEOF\r\n", { a: "one\r\n" }],
    ["\ufeffa = 1", { a: 1 }],
    ['{"a": {"b": [1, null]}}', { a: { b: [1, null] } }],
  ])("%j", (text, value) => expect(hcl(text)).toEqual(value));

  it.each<[string, string]>([
    ["a = ", "a.hcl:1:5: expected a value, found the end of the file"],
    ["a = 1\n  b c", 'a.hcl:2:6: expected "=" or "{" after the key "c", found the end of the file'],
    ['service {\n name = "a"\n', 'a.hcl:1:9: a block that begins here has no closing "}"'],
    ['a = "x\ny"', 'a.hcl:1:5: a text that begins here has no closing " on its line'],
    ["a = 10s", 'a.hcl:1:5: a number directly followed by letters: put a text such as "10s" in double quotes'],
    ["a = yes", "a.hcl:1:5: expected a value, found the bare word yes: put text in double quotes"],
    ["a = 089", "a.hcl:1:5: 089 begins with 0 and is therefore octal, but holds an 8 or 9"],
    ["a = [1 2]", 'a.hcl:1:8: expected "," or "]" in a list, found "2"'],
    ["a = [1", 'a.hcl:1:5: a list that begins here has no closing "]"'],
    ["/* x", "a.hcl:1:1: a comment that begins here has no closing */"],
    ["a = <<EOF\nx\n", "a.hcl:1:5: a text that begins here has no closing line with EOF"],
    ["}", 'a.hcl:1:1: expected a key, found "}"'],
    ["a b = 1", 'a.hcl:1:5: expected "{" after a block\'s labels, found "="'],
    ['a = "\\q"', "a.hcl:1:6: there is no escape \\q"],
    ["a = 1\u0000", "a.hcl:1:6: the text holds a NUL character"],
    [`a ${"{ a ".repeat(200)}`, "a.hcl:1:403: nested deeper than 100 levels"],
  ])("refuses %j", (text, message) => expect(fault(text)).toBe(message));

  it("reads what it would write", () => {
    const key = fc.oneof(fc.stringMatching(/^[a-z_][a-z0-9_.-]{0,8}$/), fc.string(), fc.constant("__proto__"));
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc.string({ unit: "grapheme" }),
        fc.integer(),
        fc.double({ noNaN: true, noDefaultInfinity: true }),
        fc.boolean(),
        fc.array(tie("value"), { maxLength: 4 }),
        fc.dictionary(key, tie("value"), { maxKeys: 4 }),
      ),
    }));
    const write = (v: unknown): string => {
      if (typeof v === "string")
        return `"${[...v].map((c) => (/[ -~]/.test(c) && !/["\\$]/.test(c) ? c : `\\U${c.codePointAt(0)!.toString(16).padStart(8, "0")}`)).join("")}"`;
      if (Array.isArray(v)) return `[${v.map(write).join(", ")}]`;
      if (typeof v === "object" && v !== null) return `{\n${members(v as Record<string, unknown>)}}`;
      return Object.is(v, -0) ? "-0" : String(v).replace("e+", "e");
    };
    const members = (o: Record<string, unknown>): string =>
      Object.entries(o)
        .map(([k, v]) => `${/^[a-z_][a-z0-9_.-]*$/.test(k) ? k : write(k)} = ${write(v)} # c\n`)
        .join("");
    fc.assert(
      fc.property(fc.dictionary(key, value, { maxKeys: 5 }), (object) => {
        const strip = (v: unknown): unknown => JSON.parse(JSON.stringify(v));
        expect(strip(parseConfigText(members(object), "a.hcl").value)).toEqual(strip(object));
      }),
    );
  });
});

describe("JSON", () => {
  it("agrees with JSON.parse about every value", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(undefined, 2, "\t"), (object, space) => {
        const text = JSON.stringify(object, null, space);
        expect(JSON.stringify(parseConfigText(text, "a.json").value)).toBe(JSON.stringify(JSON.parse(text)));
      }),
    );
  });

  it("agrees with JSON.parse about what is JSON", () => {
    const piece = fc.constantFrom(
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      '"a"',
      '"\\u00e',
      '"\\n"',
      "1",
      "-0.5e3",
      "01",
      "true",
      "nul",
      " ",
      "\n",
      "\u0001",
      "'",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const text = `{"x":${pieces.join("")}}`;
        let wanted: unknown;
        try {
          wanted = JSON.parse(text);
        } catch {
          expect(fault(text, "a.json")).toMatch(/^a\.json:\d+:\d+: /);
          return;
        }
        expect(JSON.stringify(parseConfigText(text, "a.json").value)).toBe(JSON.stringify(wanted));
      }),
      { numRuns: 2000 },
    );
  });

  it.each<[string, string]>([
    ['{\n  "service": {\n    "name": "web"\n    "port": 80\n  }\n}', 'a.json:4:5: expected "," or "}", found """'],
    ['{"a": 1,}', 'a.json:1:9: expected a key in double quotes, found "}"'],
    ["// nothing", 'a.json:1:1: expected a value, found "/"'],
    ["[1]", "a.json:1:1: the file must hold an object with keys"],
    ['{"a": "x', 'a.json:1:7: a text that begins here has no closing "'],
  ])("refuses %j", (text, message) => expect(fault(text, "a.json")).toBe(message));
});

describe("positions", () => {
  const config = parseConfigText(
    'service {\n  name = "a"\n  check { ttl = "x" }\n  check {\n    ttl = "y"\n  }\n}\nlist = [\n  1,\n  2]\nlist = [3]\n',
    "web.hcl",
  );
  it("are known for every key and item", () => {
    expect(config.at(["service", "name"])).toBe("web.hcl:2: service.name");
    expect(config.at(["service", "check", 1, "ttl"])).toBe("web.hcl:5: service.check[1].ttl");
    expect(config.position(["service", "check", 0])).toEqual({ line: 3, column: 3 });
    expect(config.at(["list", 0])).toBe("web.hcl:11: list[0]");
  });
  it("fall back to what is around", () => {
    expect(config.at(["service", "port"])).toBe("web.hcl:1: service.port");
    expect(config.at([])).toBe("web.hcl:1");
  });
  it("tell what was given twice", () => {
    expect(config.duplicates).toEqual([["list"]]);
  });
});
