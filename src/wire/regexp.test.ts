// RE2's syntax in linear time: held against JavaScript's engine where both mean the same, and against patterns made to hang it.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../base/error.ts";
import { compile } from "./regexp.ts";

const found = (pattern: string, text: string): boolean => compile(pattern).found(text);

describe("patterns", () => {
  it.each([
    ["^n[0-9]$", "n1", true],
    ["^n[0-9]$", "node-1", false],
    ["b1", "web1", true],
    ["^1\\.", "1.10", true],
    ["^1\\.", "110", false],
    ["", "anything", true],
    ["^$", "", true],
    ["a|", "x", true],
    ["^(?:ab|cd)+$", "abcdab", true],
    ["^(ab|cd)+$", "abc", false],
    ["^a{2,3}$", "aaaa", false],
    ["^a{2,}$", "aaaa", true],
    ["a{,3}", "a{,3}", true],
    ["^a{2}b{0}$", "aa", true],
    ["(?i)^WEB$", "web", true],
    ["^(?i:w)EB$", "wEB", true],
    ["^(?i:w)EB$", "web", false],
    ["^a.c$", "a\nc", false],
    ["(?s)^a.c$", "a\nc", true],
    ["(?m)^c$", "a\nc", true],
    ["^c$", "a\nc", false],
    ["\\bfoo\\b", "a foo b", true],
    ["\\bfoo\\b", "afoo", false],
    ["\\Boo", "foo", true],
    ["^\\d+\\s\\w+$", "12 ab_1", true],
    ["[^a-c]", "abc", false],
    ["[]a]", "]", true],
    ["[a\\-z]", "-", true],
    ["[a-]", "-", true],
    ["[[:alpha:]]+[[:^alpha:]]", "ab1", true],
    ["^\\p{L}+$", "żółć", true],
    ["^\\P{L}+$", "żółć", false],
    ["^\\pN$", "٣", true],
    ["\\p{Greek}", "λ", true],
    ["^.$", "🂡", true],
    ["\\x41\\x{1F0A1}", "A🂡", true],
    ["\\Qa.b\\E", "a.b", true],
    ["\\Qa.b\\E", "axb", false],
    ["\\Aa\\z", "a", true],
    ["a*?b", "aab", true],
    ["(?P<name>x)(?<other>y)", "xy", true],
    ["(?i)[^a]", "A", false],
    ["\\t\\n", "\t\n", true],
  ])("%s on %j", (pattern, text, expected) => expect(found(pattern, text)).toBe(expected));

  it.each([
    ["[", "missing closing ]: `[`"],
    ["(", "missing closing )"],
    [")", "unexpected )"],
    ["*a", "missing argument to repetition operator: `*`"],
    ["a**", "invalid nested repetition operator"],
    ["a{1001}", "invalid repeat count: `{1001}`"],
    ["a{3,2}", "invalid repeat count"],
    ["\\", "trailing backslash at end of expression"],
    ["\\k", "invalid escape sequence: `\\k`"],
    ["[b-a]", "invalid character class range"],
    ["\\p{Nope}", "invalid character class range: `\\p{Nope}`"],
    ["(?=a)", "invalid or unsupported Perl syntax"],
    ["(a)\\1", "invalid escape sequence: `\\1`"],
    ["(((a{100}){100}){100})", "expression too large"],
    ["(".repeat(1000), "expression nests too deeply"],
  ])("refuses %.20s", (pattern, message) => {
    expect(() => compile(pattern)).toThrow(InputError);
    expect(() => compile(pattern)).toThrow(message);
  });
});

it("answers where backtracking would not", () => {
  const text = `${"a".repeat(5000)}!`;
  for (const pattern of ["^(a+)+$", "^(a|a)*$", "(a*)*b", "(.*)(.*)(.*)(.*)x", "^(a?){50}a{50}$"]) {
    expect(found(pattern, text)).toBe(false);
    expect(compile(pattern).groups(text)).toBeUndefined();
  }
});

describe("groups", () => {
  it.each([
    ["^geo-(.*?)-([^\\-]+?)$", "geo-web-api-v1", ["geo-web-api-v1", "web-api", "v1"]],
    ["(a+)(b*)", "xaab", ["aab", "aa", "b"]],
    ["(a+?)(b*)", "xaab", ["a", "a", ""]],
    ["(?U)(a+)(b*)", "xaab", ["a", "a", ""]],
    ["(?U)(a+?)(b*?)", "xaab", ["aab", "aa", "b"]],
    ["(a)|(b)", "b", ["b", "", "b"]],
    ["(?:x)(?P<name>y)", "xy", ["xy", "y"]],
    ["a|ab", "ab", ["a"]],
    ["(ab|a)(bc)?", "abc", ["ab", "ab", ""]],
    ["(a|b)*", "abba", ["abba", "a"]],
    ["(.)(?i:B)", "🂡b", ["🂡b", "🂡"]],
    ["^$", "", [""]],
  ])("of %s in %j", (pattern, text, expected) => expect(compile(pattern).groups(text)).toEqual(expected));
  it("are none without a match", () => expect(compile("^x(y)").groups("yxy")).toBeUndefined());
});

describe("held against JavaScript", () => {
  const atom = fc.constantFrom("a", "b", ".", "[ab]", "[^a]", "\\d", "\\w", "^", "$", "\\b", "(?:a|b)", "(a)");
  const times = fc.constantFrom("", "", "", "*", "+", "?", "{2}", "{1,2}", "*?");
  const sequence = fc
    .array(fc.tuple(atom, times), { maxLength: 5 })
    .map((parts) => parts.map(([one, many]) => one + (/^[\^$]|\\b/.test(one) ? "" : many)).join(""));
  const pattern = fc.array(sequence, { minLength: 1, maxLength: 3 }).map((parts) => parts.join("|"));
  it("finds the same", () => {
    fc.assert(
      fc.property(
        pattern,
        fc.string({ unit: fc.constantFrom("a", "b", "1", " ", "\n"), maxLength: 8 }),
        (source, text) => {
          const match = new RegExp(source, "u").exec(text);
          expect(found(source, text)).toBe(match !== null);
          // What an iteration that ends a loop leaves in its groups differs between the engines: the whole match is compared.
          expect(compile(source).groups(text)?.[0]).toBe(match?.[0]);
        },
      ),
      { numRuns: 2000 },
    );
  });
  it("raises nothing but InputError", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(..."ab*+?{}[]()|\\^$.-1,:pPxQEid<>=".split("")) }),
        fc.string(),
        (source, text) => {
          try {
            found(source, text);
          } catch (error) {
            expect(error).toBeInstanceOf(InputError);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });
});
