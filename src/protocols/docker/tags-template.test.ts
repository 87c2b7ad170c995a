// The templates of -tags: Registrator's functions and the parts of Go's text/template that people use.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseTemplate } from "./tags-template.ts";

const golden = join(import.meta.dirname, "../../../test/golden/registrator/inspect/tags-flag-template.json");
const container: unknown = JSON.parse(readFileSync(golden, "utf8"));
const data = {
  Id: "0123456789abcdef",
  Name: "/web",
  Args: ["a", "b", "c"],
  Nothing: null,
  Created: "2026-11-20T13:25:28.120000000Z",
  NetworkSettings: { Networks: { regnet: { IPAddress: "172.30.7.2", Aliases: null } } },
  Config: { Env: ["A=1", "SERVICE_X=2", "SERVICE_Y=3"], Labels: { "x.y": "lv", empty: "" }, Image: "reg:5000/app:1" },
  State: { Running: true, Pid: 42 },
};
const render = (template: string): string => parseTemplate(template)(data);

describe("templates", () => {
  it.each([
    ["plain, text", "plain, text"],
    ["", ""],
    ["{{.Name}}-{{.ID}}", "/web-0123456789abcdef"],
    [
      "{{strSlice .ID 0 12}} {{strSlice .ID 12}} {{strSlice .ID 99}} {{strSlice .ID 4 2}}",
      "0123456789ab cdef 0123456789abcdef 456789abcdef",
    ],
    ['{{toUpper "ab"}}{{"CD" | toLower}}', "ABcd"],
    ['{{replace -1 "0" "x" "00a0"}} {{replace 1 "0" "x" "00a0"}} {{replace 0 "0" "x" "0"}}', "xxax x0a0 0"],
    ['{{join "+" .Args}} {{split "," "a,b"}}', "a+b+c [a b]"],
    [
      '{{splitIndex -1 "/" "a/b/c"}}{{splitIndex 0 "/" "a/b"}}{{splitIndex 9 "/" "a/b"}}{{splitIndex -9 "/" "a/b"}}',
      "caba",
    ],
    [
      '{{matchFirstElement "^SERVICE_" .Config.Env}} {{matchAllElements "^SERVICE_" .Config.Env}} {{matchFirstElement "^Z" .Config.Env}}',
      "SERVICE_X=2 [SERVICE_X=2 SERVICE_Y=3] ",
    ],
    ['{{with jsonParse "{\\"a\\":[{\\"b\\":\\"x\\"}]}"}}{{range .a}}{{.b}}{{.c}}{{end}}{{.d}}{{end}}', "x"],
    ["{{sIndex 0 .Args}}{{sIndex -1 .Args}}{{sIndex 5 .Args}}", "acc"],
    ['{{mIndex "x.y" .Config.Labels}}{{mIndex "absent" .Config.Labels}}{{.Config.Labels.absent}}', "lv<no value>"],
    ["{{if .Config.Labels.absent}}y{{else}}n{{end}}{{with .Config.Labels.absent}}y{{else}}n{{end}}", "nn"],
    // What Docker leaves out or calls null while it is empty.
    [
      "<{{.State.Health.Status}}> {{.Nothing}} {{.Config.ExposedPorts}} {{range .Config.Volumes}}x{{end}}",
      "<> [] map[] ",
    ],
    ["{{.NetworkSettings.Networks.regnet.Aliases}}{{.NetworkSettings.Networks.regnet.IPAddress}}", "[]172.30.7.2"],
    ['<{{(index .NetworkSettings.Networks "nope").IPAddress}}{{index .Config.Labels "nope"}}>', "<>"],
    ["{{.Created}}", "2026-11-20 13:25:28.12 +0000 UTC"],
    [
      "{{and .Nothing .Name}} {{and .Name .ID}} {{or .Nothing .Args}} {{or false .Nothing}}",
      "[] 0123456789abcdef [a b c] []",
    ],
    ['{{print 1 2}} {{print "a" 1 2 "b"}} {{println 1 "x"}}', "1 2 a1 2b 1 x\n"],
    ["{{slice .ID 0 4}} {{slice .Args 1}}", "0123 [b c]"],
    ['{{html "<a&\'>"}} {{urlquery "a b/ü"}}', "&lt;a&amp;&#39;&gt; a+b%2F%C3%BC"],
    // Go's regular expressions, not JavaScript's.
    ['{{matchFirstElement "(?i)^service_[[:alpha:]]=" .Config.Env}}', "SERVICE_X=2"],
    ['{{printf "%.2f|%x|%X|%c|%05d" 1.5 255 "ab" 65 42}}', "1.50|ff|6162|A|00042"],
    ['{{printf "%05d|%+d|%-4d|%05s|%.2s|%c" -42 7 -1 "ab" "äöü" -1}}', "-0042|+7|-1  |000ab|äö|\ufffd"],
    ['{{index .Args 1}}{{index .Config.Labels "x.y"}}{{len .Args}}', "blv3"],
    ["{{if .State.Running}}up{{else}}down{{end}}", "up"],
    ['{{if eq .Name "x"}}1{{else if eq .State.Pid 42}}2{{else}}3{{end}}', "2"],
    ["{{range .Args}}<{{.}}>{{end}}{{range .Nothing}}x{{else}}none{{end}}", "<a><b><c>none"],
    ["{{range $i, $v := .Args}}{{$i}}{{$v}}{{$.Name}}{{end}}", "0a/web1b/web2c/web"],
    ["{{with .Config}}{{.Image}}{{end}}{{with .Nothing}}x{{else}}no{{end}}", "reg:5000/app:1no"],
    ['{{$a := "x"}}{{$a}}{{$a = "y"}}{{$a}}', "xy"],
    ["a {{- .Name -}} b{{/* nothing */}}", "a/webb"],
    ['{{printf "%s:%d %q %5d|%-3d|" .Name .State.Pid "q" 7 7}}', '/web:42 "q"     7|7  |'],
    [
      "{{(index .Args 0) | toUpper}}{{not .State.Running}}{{and .Name .ID}}{{or .Nothing .Name}}",
      "Afalse0123456789abcdef/web",
    ],
    ["{{.Config.StopSignal}}", ""],
    ["{{`raw }} text`}}", "raw }} text"],
  ])("%s", (template, text) => {
    expect(render(template)).toBe(text);
  });

  it("the recorded ones", () => {
    expect(
      parseTemplate(
        '{{.Config.Hostname}},{{strSlice .ID 0 12}},{{.Name}},{{toUpper .Config.Image}},{{mIndex "x.y" .Config.Labels}}',
      )(container),
    ).toMatch(/^chost,[0-9a-f]{12},\/c0,BBEXP1,lv$/);
  });

  it.each([
    ["{{.Nope", "unclosed action"],
    ["{{nofunc}}", 'function "nofunc" not defined'],
    ['{{httpGet "http://x"}}', 'function "httpGet" is not offered'],
    ["{{if .Name}}", "unexpected EOF"],
    ["{{end}}", "unexpected {{end}}"],
    ["{{else}}", "unexpected {{else}}"],
    ["{{}}", "missing value for command"],
    ["{{.Name | }}", "missing value for command"],
    ["{{$x}}", 'undefined variable "$x"'],
    ['{{toUpper "a" "b"}}', "wrong number of args for toUpper: want 1 got 2"],
    ["{{(.Name}}", "unclosed left paren"],
    ['{{"a" .Name}}', "can't give arguments"],
  ])("does not parse %s", (template, text) => {
    expect(() => parseTemplate(template)).toThrow(text);
  });

  it.each([
    ["{{.Nope}}", "can't evaluate field Nope"],
    ["{{.Name.More}}", "can't evaluate field More in type string"],
    ["{{sIndex 0 .Nothing}}", "the list is empty"],
    ['{{matchFirstElement "(" .Args}}', "is not a regular expression"],
    ["{{toUpper .State.Pid}}", "expected a string, found number"],
    ["{{index .Args 3}}", "out of range"],
  ])("does not run %s", (template, text) => {
    expect(() => render(template)).toThrow(text);
  });

  it("any text is a template or an error that says so", () => {
    const piece = fc.oneof(
      fc.string(),
      fc.constantFrom("{{", "}}", "{{if .Name}}", "{{end}}", "{{- ", "|", ".Name", '"', "`", "$x :=", "(", ")"),
    );
    fc.assert(
      fc.property(fc.array(piece), (pieces) => {
        try {
          expect(typeof render(pieces.join(""))).toBe("string");
        } catch (error) {
          expect(String(error)).toContain("template: tags: ");
        }
      }),
      { numRuns: 500 },
    );
  });
});
