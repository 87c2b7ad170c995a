// The engine for Go templates: blocks, methods, where a fault stands, and that any text is a template or a fault.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { goFunctions } from "./functions.ts";
import { parseGoTemplate, type Template } from "./template.ts";
import { fail, type Value } from "./values.ts";

class Fault extends Error {}
let calls = 0;

function parse(source: string): Template {
  return parseGoTemplate(source, {
    functions: Object.assign(
      goFunctions(() => ""),
      {
        called: { least: 0, most: 0, call: () => ++calls },
        upper: { least: 1, most: 1, call: ([text]: readonly Value[]) => String(text).toUpperCase() },
      },
    ),
    notOffered: (name) => (name === "exec" ? "no programs here" : undefined),
    field: (value, name) => {
      if (typeof value !== "object" || value === null) return fail(`no field ${name}`);
      return Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : fail(`no field ${name}`);
    },
    fault: (text, line, column) => new Fault(`${line}:${column}: ${text}`),
  });
}

const data = {
  list: ["a", "b", "c"],
  text: "x",
  none: [],
  map: { k: "v", j: "w" },
  has: (one: string, two = "") => `${one}${two}!`,
};
const render = (source: string): string => parse(source)(data);

describe("a Go template", () => {
  it.each([
    ["{{range .list}}{{if eq . `b`}}{{continue}}{{end}}{{.}}{{end}}", "ac"],
    ["{{range .list}}{{if eq . `b`}}{{break}}{{end}}{{.}}{{end}}", "a"],
    ["{{range 3}}{{.}}{{end}}", "012"],
    ["{{with .none}}x{{else with .text}}{{.}}{{else}}y{{end}}", "x"],
    ["{{with .none}}x{{else if .list}}yes{{end}}", "yes"],
    ['{{define "row"}}<{{.}}{{$}}>{{end}}{{range .list}}{{template "row" .}}{{end}}{{template "row"}}', null],
    ['{{.has "a"}}{{.has "a" "b"}}{{"c" | .has}}{{range .list}}{{$.has .}}{{end}}', "a!ab!c!a!b!c!"],
    ["{{range $k, $v := .map}}{{$k}}={{$v}};{{end}}", "j=w;k=v;"],
    ["{{/* one */}}a{{- /* two */ -}} b", "ab"],
    ["a  \n{{-\t.text\n-}}\n b", "axb"],
    ["a\u00a0 {{- .text}}", "a\u00a0x"],
    ['{{`}}`}}{{ "}}" }}', "}}}}"],
    ["{{- `a` -}}\n{{`b`}}", "ab"],
    ["{{-3}}", "-3"],
    // What Go itself gives for these.
    ["{{$a := 1}}{{if $a = 3}}{{end}}{{$a}}", "3"],
    ["{{$a := 1}}{{with $a = 3}}{{.}}{{end}}{{$a}}", "33"],
    ["{{$i := 9}}{{$e := 9}}{{range $i, $e = .list}}{{end}}{{$i}}{{$e}}", "2c"],
    ["{{$a := 1}}{{if true}}{{$a := 2}}{{end}}{{$a}}", "1"],
    ["{{eq nil nil}}{{eq 1 2 1}}{{ne .text `y`}}", "truetruetrue"],
  ])("%s", (source, text) => {
    expect(render(source)).toBe(text ?? "<aa><bb><cc><<no value><no value>>");
  });

  it("works out and and or only as far as they have to be", () => {
    calls = 0;
    expect(render("{{and .none called}}{{or .text called}}{{or .none called}}{{and called .none called}}")).toBe(
      "[]x1[]",
    );
    expect(calls).toBe(2);
  });

  it.each([
    ["a\n  {{nofunc}}", '2:5: function "nofunc" not defined'],
    ["{{exec}}", '1:3: function "exec" is not offered: no programs here'],
    ["a\n\n {{if .text", "3:2: unclosed action"],
    ["\n{{if .text}}\n{{.text}}", "2:3: unexpected EOF"],
    ["{{.text}}\n{{.text | upper | nope 1}}", '2:19: function "nope" not defined'],
    ["{{break}}", "1:3: {{break}} outside {{range}}"],
    ["{{range .list}}{{else}}{{break}}{{end}}", "1:26: {{break}} outside {{range}}"],
    ['{{template "x"}}', '1:3: template "x" not defined'],
    ['{{if .text}}{{define "x"}}{{end}}{{end}}', "unexpected {{define}}"],
    ["{{template x}}", "expected a quoted name"],
    ["{{.text ; }}", '1:9: unexpected ";'],
    ["{{range .list}}{{else}}{{else}}{{end}}", "unexpected {{else}}"],
    ["{{range $a, $b, $c := .list}}{{end}}", "at most two variables"],
    // Comments without an end to their action: read once, not in every way there is.
    [`a\n{{ ${"/**/".repeat(40)}`, "2:1: unclosed action"],
  ])("%j is refused with the place", (source, text) => {
    expect(() => parse(source)).toThrow(text);
  });

  it.each([
    ["a\n{{ .list.nope }}", "2:3: no field nope"],
    ['{{.text "x"}}', "1:3: can't give arguments to a string"],
    ["{{range .text}}{{end}}", "range can't iterate over x"],
    ["{{range 1000000000}}{{end}}", "range can't go to"],
    ['{{define "x"}}{{template "x"}}{{end}}{{template "x"}}', 'template "x" uses itself without end'],
    ["{{range .list}}\n{{index . 1}}{{end}}", "2:3: index"],
    ['{{eq 1 "1"}}', "eq: incompatible types for comparison: number and string"],
    ["{{ne true 1}}", "ne: incompatible types"],
    ["{{len 3}}", "len of type number"],
  ])("%j does not run, with the place", (source, text) => {
    const template = parse(source);
    expect(() => template(data)).toThrow(Fault);
    expect(() => template(data)).toThrow(text);
  });

  it("any text is a template or a fault with a place", () => {
    const piece = fc.oneof(
      fc.string(),
      fc.constantFrom("{{", "}}", "{{if .text}}", "{{end}}", "{{- ", " -}}", "|", ".list", '"', "`", "$x :=", "(", ")"),
      fc.constantFrom(
        "{{range .list}}",
        "{{break}}",
        '{{define "x"}}',
        '{{template "x"}}',
        "{{else}}",
        "/*",
        "*/",
        "\n",
      ),
    );
    fc.assert(
      fc.property(fc.array(piece), (pieces) => {
        try {
          expect(typeof render(pieces.join(""))).toBe("string");
        } catch (error) {
          expect(String(error)).toMatch(/^Error: \d+:\d+: /);
        }
      }),
      { numRuns: 500 },
    );
  });
});
