// Filter expressions: grammar, types, nested lists, and what is refused in which words.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TrilithError } from "../../base/error.ts";
import { parseFilter } from "./filter.ts";
import { residentShape } from "./shapes.ts";

const row = {
  Node: { Node: "n1", Meta: { rack: "r1", "a-b": "x y" }, TaggedAddresses: null },
  Service: {
    ID: "web1",
    Service: "web",
    Tags: ["a", "V2"],
    Port: 80,
    Meta: { version: "1.10" },
    EnableTagOverride: true,
  },
  Checks: [
    { CheckID: "c1", Status: "passing", Output: "took 12ms" },
    { CheckID: "c2", Status: "warning", Output: "" },
  ],
};
const passes = (expression: string): boolean => parseFilter(expression, residentShape)?.(row) ?? true;

describe("expressions", () => {
  it.each([
    "Service.ID == web1",
    'Service.ID == "web1"',
    "Service.ID == `web1`",
    "Service.Port == 80",
    'Service.Port == "0x50"',
    "Service.Port != -1",
    "Service.EnableTagOverride == true",
    "a in Service.Tags",
    '"V2" in Service.Tags and not (x in Service.Tags)',
    "x not in Service.Tags",
    "Service.Tags contains a",
    "Service.Tags not contains x",
    "Service.Tags is not empty",
    "Node.TaggedAddresses is empty",
    'Node.Meta["a-b"] == "x y"',
    "Node.Meta[`a-b`] matches `^x`",
    "rack in Node.Meta",
    "nope not in Node.Meta",
    "Node.Meta.nope != x",
    "Node.Meta.nope matches x",
    "Node.Meta.nope not matches x",
    'Service.Meta.version matches "^1\\\\.1"',
    '"eb" in Service.ID',
    "Service.SocketPath == ``",
    "Checks.Status == passing and Checks.Status == warning",
    "Checks.Status != passing",
    'Checks.Output contains "12ms"',
    "Checks is not empty",
    "Service.Port == 80 or Service.Port == 81 and Service.ID == none",
    "not Service.Port == 81",
    "not not Service.Port == 80",
    "  ( Service.Port  ==  80 )  ",
    "not in Service.Tags or Service.Port == 80",
    'Node.Partition == "" and Service.Proxy.MeshGateway.Mode == ""',
    "Service.Proxy.Upstreams is empty and Service.Proxy.Expose.Checks == false",
    "not  Service.Port == 81  and\t(Service.Port == 80)",
  ])("%s", (expression) => expect(passes(expression)).toBe(true));

  it.each(['"80"', '"+80"', '"0x50"', '"0b101_0000"', '"0o120"', '"0120"', '"0_120"'])(
    "a port of %s is 80, as Go reads numbers",
    (value) => expect(passes(`Service.Port == ${value}`)).toBe(true),
  );

  it.each([
    "Service.ID == WEB1",
    "Service.Tags is empty",
    "Node.Meta.nope == x",
    '"x" in Node.Meta.nope',
    "Checks.Status == critical",
    "Service.Port == 80 and Service.ID == none",
    "v2 in Service.Tags",
  ])("not: %s", (expression) => expect(passes(expression)).toBe(false));

  it("has nothing against anything when empty", () => {
    expect(parseFilter("", residentShape)).toBeUndefined();
  });

  it("knows a map's own names only", () => {
    expect(passes("constructor in Node.Meta")).toBe(false);
    expect(passes("Node.Meta.toString == x")).toBe(false);
  });
});

describe("refusals", () => {
  it.each([
    ["Nope == 1", 'Selector "Nope" is not valid'],
    ["service.port == 80", 'Selector "service" is not valid'],
    ["Service.Nope == 1", 'Selector "Service.Nope" is not valid'],
    ["Service.ID.x == 1", 'Selector "Service.ID.x" is not valid'],
    ["Service.constructor == 1", 'Selector "Service.constructor" is not valid'],
    ["Service.ID is empty", 'Invalid match operator "Is Empty" for selector "Service.ID"'],
    ["Service.Port matches `8`", 'Invalid match operator "Matches" for selector "Service.Port"'],
    ["1 in Service.Port", 'Invalid match operator "In" for selector "Service.Port"'],
    ["Service == x", 'Invalid match operator "Equal" for selector "Service"'],
    [
      "Service.Port == abc",
      'Failed to coerce value "abc" for selector "Service.Port": strconv.ParseInt: parsing "abc": invalid syntax',
    ],
    [
      "Service.EnableTagOverride == maybe",
      'Failed to coerce value "maybe" for selector "Service.EnableTagOverride": strconv.ParseBool: parsing "maybe": invalid syntax',
    ],
    [
      "Service.ID matches `[`",
      'Failed to compile regular expression "[": error parsing regexp: missing closing ]: `[`',
    ],
    // The form of the whole is looked at before any field of it.
    ["Nope == 1 and (", "1:16 (15): no match found"],
    ["Nope == 1 and Service.Nope == 1", 'Selector "Nope" is not valid'],
    // Words need blanks around them.
    ["(Service.Port == 80)and Service.ID == x", "1:21 (20): no match found"],
    ["Service.Port == 80 and(Service.ID == x)", "1:23 (22): no match found"],
    ["not(Service.Port == 80)", "no match found"],
    ['Service.Tags contains"a"', "no match found"],
    ['"a"in Service.Tags', "1:4 (3): no match found"],
    ["Service.Tags is notempty", "no match found"],
    ['Service.Port == "08"', 'strconv.ParseInt: parsing "08": invalid syntax'],
    ['Service.Port == "8__0"', 'strconv.ParseInt: parsing "8__0": invalid syntax'],
    ['Checks.LastCheckStartTime == "x"', 'Invalid match operator "Equal" for selector "Checks.LastCheckStartTime"'],
    ["foo", "1:4 (3): no match found"],
    ["Service.Port ==", "no match found"],
    ["(Service.Port == 80", "no match found"],
    ["Service.Port => 80", "no match found"],
    ['Service.ID == "web', "no match found"],
    ["Service.Port == 80 80", "no match found"],
    ["Service.Port == 80 AND Service.ID == x", "no match found"],
    ['"/Service/Port" == 80', "no match found"],
    ["==", "no match found"],
    [`${"(".repeat(500)}Service.Port == 1${")".repeat(500)}`, "nests deeper than 100"],
    ["x".repeat(100_000), "longer than"],
  ])("%.40s", (expression, message) => {
    expect(() => passes(expression)).toThrow(expect.objectContaining({ code: "invalid" }));
    expect(() => passes(expression)).toThrow(message);
  });

  it("raise nothing but invalid", () => {
    const word = fc.constantFrom(
      ...[
        "Service.ID",
        "Service.Tags",
        "Node.Meta",
        "Checks.Status",
        "Service.Port",
        "and",
        "or",
        "not",
        "in",
        "is",
        "empty",
      ],
      ...["contains", "matches", "==", "!=", "(", ")", "80", "web1", '"x"', "`[`", "-1", '["a"]', ".", '"'],
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.array(word).map((words) => words.join(" ")),
          fc.string(),
        ),
        (expression) => {
          try {
            expect(typeof passes(expression)).toBe("boolean");
          } catch (error) {
            expect(error).toBeInstanceOf(TrilithError);
            expect((error as TrilithError).code).toBe("invalid");
          }
        },
      ),
      { numRuns: 2000 },
    );
  });
});
