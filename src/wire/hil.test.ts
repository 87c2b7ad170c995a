// Interpolation: what texts with expressions come to, and what is refused.
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the language under test looks like template strings.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../base/error.ts";
import { type HilScope, parseHil } from "./hil.ts";

const scope: HilScope = {
  variables: { "name.full": "geo-web", "name.suffix": "web" },
  functions: { match: (n) => ["all", "one", "two"][n] ?? "" },
};
const rendered = (text: string): unknown => parseHil(text).evaluate(scope);

describe("interpolation", () => {
  it.each([
    ["", ""],
    ["plain $ text {} }", "plain $ text {} }"],
    ["${name.full}", "geo-web"],
    ["a-${ name.suffix }-${match(2)}", "a-web-two"],
    ["$${name.full}", "${name.full}"],
    ['${match(9)}|${match(1 + 1)}|${match("1")}|${match(-1)}', "|two|one|"],
    ['${"a \\"${name.suffix}\\" b"}', 'a "web" b'],
    ["x${(1 + 2) * 3 % 4}${7 / 2}", "x13"],
    ["${match(1, 2)}${match(2,)}", "onetwo"],
    ["${1}", 1],
  ])("%s", (text, expected) => expect(rendered(text)).toBe(expected));

  it.each([
    ["${", "parse error at 1:3: expected expression but reached the end"],
    ["a\n${name.full", 'parse error at 2:12: expected "}" but reached the end'],
    ["${name.full]}", 'expected "}" but found "]"'],
    ['${"a}', "expected closing quote"],
    ["${match()}", "1:3: match: argument 1 is missing"],
    ["${match(1,}", 'expected expression but found "}"'],
    ["${match(1 2)}", 'expected ")" but found "2"'],
    ["${nope}", "1:3: unknown variable accessed: nope"],
    ["${toString}", "unknown variable accessed: toString"],
    ["${__proto__(1)}", "unknown function called: __proto__"],
    ["${match(name.full)}", '"geo-web" is not a number'],
    ["${1 / 0}", "divide by zero"],
    [`\${${"(".repeat(1000)}`, "nest deeper"],
  ])("refuses %.20s", (text, message) => expect(() => rendered(text)).toThrow(message));

  it("raises nothing but InputError", () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'${}()"\\ab.1+-*/% match'.split("")) }), (text) => {
        try {
          rendered(text);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
