// Templates of files: consul-template's functions over what is known, what is waited for, and what is refused at once.
import { describe, expect, it } from "vitest";
import { type Known, type Need, needKey, needText, type Reading, type ServiceInstance } from "./needs.ts";
import { parseFileTemplate } from "./template.ts";

const instance = (id: string, more: Partial<ServiceInstance> = {}): ServiceInstance => ({
  ...{ node: "n1", nodeId: "", nodeAddress: "10.0.0.1", datacenter: "dc1", nodeTaggedAddresses: {} },
  ...{
    nodeMeta: { rack: "r1" },
    id,
    name: "web",
    address: "10.0.0.9",
    port: 80,
    tags: ["v2", "v1"],
    meta: { zone: "a" },
  },
  ...{ status: "passing", draining: false, held: false, weight: 1, weights: { passing: 1, warning: 1 }, checks: [] },
  ...more,
});
const web: Known["service"] = {
  answer: [instance("w1"), instance("w2", { port: 81, tags: ["v1"], meta: {} })],
  all: [instance("w1"), instance("w2", { port: 81 }), instance("w3", { status: "critical" })],
};

function make(source: string, known: readonly (readonly [Need, unknown])[] = []) {
  const values = new Map(known.map(([need, value]) => [needKey(need), { value }]));
  const asked: string[] = [];
  const lacking: string[] = [];
  const reading: Reading = {
    get: (need) => {
      asked.push(needText(need));
      return values.get(needKey(need)) as never;
    },
    lacks: (what) => void lacking.push(what),
  };
  const env = (name: string): string | undefined => (name === "COLOR" ? "blue" : undefined);
  return { text: parseFileTemplate(source, "in.tpl", env)(reading), asked, lacking };
}
const WEB = { kind: "service", service: "web", health: "passing" } as const;
const all: readonly (readonly [Need, unknown])[] = [
  [WEB, web],
  [
    { ...WEB, tag: "v1.x", datacenter: "dc2", near: "_agent" },
    { answer: [instance("far")], all: [] },
  ],
  [{ kind: "services" }, [{ name: "web", tags: ["b", "a"] }]],
  [{ kind: "nodes" }, [{ id: "i", node: "n1", address: "10.0.0.1", datacenter: "dc1", taggedAddresses: {}, meta: {} }]],
  [{ kind: "node", node: "gone" }, undefined],
  [{ kind: "key", key: "a/b" }, "1"],
  [{ kind: "key", key: "none" }, undefined],
  [
    { kind: "keys", prefix: "cfg/" },
    [
      { key: "cfg/", value: "" },
      { key: "cfg/x", value: "1" },
      { key: "cfg/y/z", value: "2" },
    ],
  ],
  [{ kind: "file", path: "/f" }, "content"],
];

describe("a file's template", () => {
  it.each([
    [
      '{{range service "web"}}{{.ID}}={{.Address}}:{{.Port}} {{.Tags}} {{.ServiceMeta.zone}};{{end}}',
      "w1=10.0.0.9:80 [v1 v2] a;w2=10.0.0.9:81 [v1] ;",
    ],
    ['{{range service "web|any"}}{{.ID}} {{.Status}};{{end}}', "w1 passing;w2 passing;w3 critical;"],
    ['{{range service "web" "critical"}}{{.ID}}{{end}}{{range service "web|passing,warning"}}{{.ID}}{{end}}', "w3w1w2"],
    ['{{range service "v1.x.web@dc2~_agent"}}{{.ID}}{{.NodeMeta.rack}}{{end}}', "farr1"],
    [
      '{{with index (service "web") 0}}{{.Node}} {{.NodeAddress}} {{.Weights.Passing}} {{.Tags.Contains "v2"}}{{end}}',
      "n1 10.0.0.1 1 true",
    ],
    ['{{range $tag, $all := service "web" | byTag}}{{$tag}}:{{len $all}} {{end}}', "v1:2 v2:1 "],
    ['{{range services}}{{.Name}} {{.Tags | join ","}}{{end}}{{range nodes}}{{.Node}}{{end}}', "web a,bn1"],
    ['{{with node "gone"}}x{{else}}none{{end}}', "none"],
    ['{{key "a/b"}}{{key "/a/b" | parseInt | add 2}}{{keyOrDefault "none" "d"}}{{keyExists "none"}}', "13dfalse"],
    ['{{range ls "cfg"}}{{.Key}}={{.Value}};{{end}}{{range tree "/cfg/"}}{{.Key}};{{end}}', "x=1;x;y/z;"],
    ['{{env "COLOR"}}{{env "NONE"}}{{envOrDefault "NONE" "e"}}{{file "/f"}}', "blueecontent"],
    [
      '{{"a,b" | split "," | join "+"}}{{toUpper "x"}}{{"aXbX" | replaceAll "X" "."}}{{"ab" | contains "b"}}',
      "a+bXa.b.true",
    ],
    ['{{in (split "," "a,b") "b"}}{{range loop 2}}{{.}}{{end}}{{"x" | toJSON}}', 'true01"x"'],
    ['{{with parseJSON "{\\"a\\":{\\"b\\":[1,2]}}"}}{{index .a.b 1}}{{.none}}{{end}}', "2<no value>"],
    ['{{range service "web"}}{{if .Tags | contains "v2"}}{{.ID}}{{end}}{{end}}', "w1"],
    ["{{multiply 2 3}}{{subtract 1 3}}{{divide 2 7}}{{modulo 2 7}}{{maximum 1 2}}", "62312"],
    ['{{"a\\nb" | indent 2}}{{"x.cfg" | trimSuffix ".cfg"}}{{regexMatch "^x+$" "xx"}}', "  a\n  bxtrue"],
  ])("%s", (source, text) => {
    const made = make(source, all);
    expect(made.text).toBe(text);
    expect(made.lacking).toEqual([]);
  });

  it("asks for all it needs while nothing is known, and says what it cannot be made without", () => {
    expect(make('{{range service "web"}}x{{end}}{{key "a"}}{{ls "b" | len}}').asked).toEqual([
      'service "web"',
      'key "a"',
      'keys below "b/"',
    ]);
    expect(make('{{key "none"}}', all).lacking).toEqual(['key "none"']);
  });

  it.each([
    ["x\n {{nope}}", 'in.tpl:2:4: function "nope" not defined'],
    ['{{secret "a"}}', "is not offered: there is no Vault here"],
    ['{{plugin "rm"}}', "is not offered: a template may not run programs"],
    ["{{sprig_trim}}", "is not offered: Sprig's"],
    ["{{if}}", "missing value"],
  ])("%j is refused when it is read", (source, text) => {
    expect(() => make(source)).toThrow(text);
  });

  it.each([
    ['{{service "a b"}}', 'in.tpl:1:3: service "a b": expected [tag.]name'],
    ['{{service "web|well"}}', 'filter "well": expected any, passing'],
    ['{{service "web?ns=x"}}', "namespaces"],
    ['{{range service "web"}}{{.Prot}}{{end}}', "can't evaluate field Prot: there are Node, NodeID"],
    ['{{mustEnv "NONE"}}', "NONE is not in the environment"],
    ['{{"1" | add 2}}', "add: expected a number"],
  ])("%j does not work", (source, text) => {
    expect(() => make(source, all)).toThrow(text);
  });
});
