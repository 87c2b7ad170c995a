// The forms of lists: what each line and value says, what is left out and why, and that random text is a list or a fault.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../../base/error.ts";
import { hostPort } from "../../base/net.ts";
import { type Format, formatOf, type Listed, type Lists, type ParseOptions, parseLists } from "./parse.ts";

const read = (text: string, format: Format, options: Partial<ParseOptions> = {}): Lists =>
  parseLists(text, format, { port: undefined, ...options });
/** "service host:port *weight k=v tag" of everything listed. */
const told = ({ services }: Lists): readonly string[] =>
  [...services].flatMap(([service, list]) =>
    list.map(({ host, port, weight, labels, tags }) =>
      [
        ...[service, port === 0 ? host : hostPort(host, port), ...(weight === undefined ? [] : [`*${weight}`])],
        ...[...Object.entries(labels).map(([key, value]) => `${key}=${value}`), ...tags],
      ]
        .filter((word) => word !== "")
        .join(" "),
    ),
  );

describe("lists of endpoints", () => {
  it("as lines, with comments, weights, labels, tags, IPv6, names and any line ends", () => {
    const text =
      "\uFEFF# the shop\r\n10.0.0.1:80\r\n  10.0.0.2:80   5 zone=a v1 # new\r\n\r\n[2001:db8::1]:81\n\tdb-1.example.com:5432 role=primary=1\rweb#1:80\n";
    const lists = read(text, "lines");
    expect(told(lists)).toEqual([
      "10.0.0.1:80",
      "10.0.0.2:80 *5 zone=a v1",
      "[2001:db8::1]:81",
      "db-1.example.com:5432 role=primary=1",
    ]);
    expect(lists.faults).toEqual(['line 7: "web#1": expected an IP address or a host\'s name']);
    expect(told(read("10.0.0.1\n2001:db8::1\n10.0.0.2:81", "lines", { port: 80 }))).toEqual([
      "10.0.0.1:80",
      "[2001:db8::1]:80",
      "10.0.0.2:81",
    ]);
  });

  it("as JSON and YAML: lists, lists by service, objects, groups of Prometheus' file_sd", () => {
    const json =
      '["10.0.0.1:80", {"host": "10.0.0.2", "port": 80, "weight": 5, "labels": {"zone": "a", "n": 1}, "tags": ["v1"]}, {"address": "10.0.0.3:82", "tags": "v2"}, {"ip": "::1", "port": "83"}]';
    const all = ["10.0.0.1:80", "10.0.0.2:80 *5 zone=a n=1 v1", "10.0.0.3:82 v2", "[::1]:83"];
    expect(told(read(json, "json"))).toEqual(all);
    expect(told(read(json, "yaml"))).toEqual(all);
    expect(told(read('{"web": ["10.0.0.1:80"], "db": [{"host": "h", "port": 5432}], "none": []}', "json"))).toEqual([
      "web 10.0.0.1:80",
      "db h:5432",
    ]);
    expect(told(read("web:\n  - 10.0.0.1:80\n  - {host: 10.0.0.2, port: 80, weight: 2}\n# end\n", "yaml"))).toEqual([
      "web 10.0.0.1:80",
      "web 10.0.0.2:80 *2",
    ]);
    expect(told(read('[{"targets": ["a:1", "b:2"], "labels": {"job": "x"}}]', "json"))).toEqual([
      "a:1 job=x",
      "b:2 job=x",
    ]);
  });

  it("as a hosts file: each name is a service, or all of them are one", () => {
    const text =
      "127.0.0.1 localhost\n::1 ip6-localhost\nff02::1 ip6-allnodes\n10.0.0.1  Web web.example.com # one\n10.0.0.2 web\nfe80::1%eth0 db\nnonsense\n10.0.0.3\n";
    const lists = read(text, "hosts");
    expect(told(lists)).toEqual(["web 10.0.0.1", "web 10.0.0.2", "web.example.com 10.0.0.1", "db fe80::1%eth0"]);
    expect(lists.faults).toEqual([
      'line 7: "nonsense": expected an IP address and names',
      "line 8: 10.0.0.3 has no name",
    ]);
    expect(told(read("10.0.0.1 a b\n10.0.0.2 c", "hosts", { oneService: true, port: 80 }))).toEqual([
      "10.0.0.1:80 host=a",
      "10.0.0.2:80 host=c",
    ]);
  });

  it("do not come back out of hosts files into which this directory was written", () => {
    const note = "(written by Trilith: changes in here are lost)";
    const text = `10.0.0.1 a\n# BEGIN trilith ${note}\n10.0.0.2\tweb\n# END trilith\r\n10.0.0.3 b\nbad\n# BEGIN two ${note}\n10.0.0.4\tdb\n# END two\n# BEGIN mine\n10.0.0.5 c\n# END mine\n`;
    const lists = read(text, "hosts");
    expect(told(lists)).toEqual(["a 10.0.0.1", "b 10.0.0.3", "c 10.0.0.5"]);
    expect(lists.faults).toEqual([expect.stringContaining("line 6:")]);
    expect(told(read("# Written by Trilith: changes in here are lost.\n10.0.0.2\tweb\n", "hosts"))).toEqual([]);
  });

  it.each<[string, Format, RegExp]>([
    ["10.0.0.1", "lines", /line 1: "10\.0\.0\.1" has no port/],
    ["10.0.0.1:0", "lines", /port: expected a number from 1 to 65535/],
    ["10.0.0.1:99999", "lines", /from 1 to 65535, but got 99999/],
    ["10.0.0:80", "lines", /"10\.0\.0": expected an IP address/],
    [":80", "lines", /expected an IP address or a host's name/],
    ["a:1 0", "lines", /weight: expected a whole number from 1/],
    ["a:1 =x", "lines", /"=x": expected key=value/],
    ['["a"]', "json", /\[0\]: "a" has no port/],
    ["[1]", "json", /\[0\]: expected "host:port" or an object, but got 1/],
    ['[{"host": "a", "port": 1, "wieght": 1}]', "json", /wieght: unknown key; known are host/],
    ['{"web": [{"host": "a", "port": 1, "weight": 0}]}', "json", /web\[0\]: weight: expected/],
    ['[{"host": "a", "port": 1, "labels": {"a": {}}}]', "json", /labels\.a: expected a text/],
    ["10.0.0.1 a_b/c", "hosts", /"a_b\/c" is not a host's name/],
  ])("leaves one entry out: %s", (text, format, fault) => {
    const { faults, services } = read(text, format);
    expect([...services.values()].flat()).toEqual([]);
    expect(faults).toEqual([expect.stringMatching(fault)]);
  });

  it.each<[string, Format, RegExp]>([
    ['["a:1"', "json", /JSON/],
    ['{"web": "a:1"}', "json", /web: expected a list of endpoints, but got "a:1"/],
    ['{"a b": []}', "json", /expected a service's name/],
    ["5", "json", /expected a list of endpoints, or an object/],
    ["a: [b", "yaml", /line 1/],
    ["a\0:1", "lines", /NUL/],
  ])("refuses the whole of %j", (text, format, fault) => {
    expect(() => read(text, format)).toThrow(fault);
  });

  it("comes back from lines as it was written", () => {
    const word = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/);
    const entry = fc.record(
      {
        host: fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()),
        port: fc.integer({ min: 1, max: 65_535 }),
        weight: fc.integer({ min: 1, max: 65_535 }),
        labels: fc.dictionary(word, word),
        tags: fc.array(word),
      },
      { requiredKeys: ["host", "port", "labels", "tags"] },
    );
    const line = ({ host, port, weight, labels, tags }: Listed): string =>
      [hostPort(host, port), weight ?? "", ...Object.entries(labels).map((pair) => pair.join("=")), ...tags].join(" ");
    fc.assert(
      fc.property(fc.array(entry), fc.constantFrom("\n", "\r\n"), (entries, end) => {
        const { services, faults } = read(entries.map((one) => line(one as Listed)).join(end), "lines");
        expect(faults).toEqual([]);
        expect(services.get("")?.map((one) => ({ ...one, labels: { ...one.labels } }))).toEqual(
          entries.map((one) => ({ ...one, labels: { ...one.labels } })),
        );
      }),
    );
  });

  it("is a list or a fault, whatever the text", () => {
    const text = fc.oneof(fc.string(), fc.json(), fc.string({ unit: fc.constantFrom(...'a1:.[]{}\n -#=,"') }));
    fc.assert(
      fc.property(text, fc.constantFrom<Format>("json", "yaml", "lines", "hosts"), (given, format) => {
        try {
          for (const list of read(given, format).services.values())
            for (const { host, port } of list) {
              expect(host).not.toBe("");
              expect(port).toBeGreaterThanOrEqual(0);
            }
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
    );
  });

  it("tells its format by its name", () => {
    expect(["a.json", "/x/b.YML", "c.yaml", "/etc/hosts", "x.hosts", "d.txt", "e", "f.json.d/g"].map(formatOf)).toEqual(
      [...["json", "yaml", "yaml", "hosts", "hosts", "lines", "lines", "lines"]],
    );
  });
});
