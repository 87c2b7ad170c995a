// What inspecting a snapshot prints, to the column, and the file names that are made; Consul's own outputs stand in its command/snapshot/inspect/testdata.
import { describe, expect, it, test } from "vitest";
import { appendedName, appendedOf, bySize, byteSize, keyStats, prettyText } from "./snapshot-forms.ts";

const KEYS = [
  { key: "vault/core/a", bytes: 100 },
  { key: "vault/core/b/c", bytes: 50 },
  { key: "vault/sys/x", bytes: 150 },
  { key: "vault", bytes: 7 },
  { key: "web/a", bytes: 9 },
];

describe("keys by their beginnings", () => {
  it.each([
    [
      2,
      "vault/",
      [
        ["vault/core", 150, 2],
        ["vault/sys", 150, 1],
      ],
    ],
    [
      1,
      "",
      [
        ["vault", 307, 4],
        ["web", 9, 1],
      ],
    ],
    [3, "vault/core/b", [["vault/core/b", 50, 1]]],
    [0, "", [["", 316, 5]]],
  ] as const)("depth %i, filter %j", (depth, filter, rows) => {
    expect(keyStats(KEYS, depth, filter)?.map(({ Name, Sum, Count }) => [Name, Sum, Count])).toEqual(rows);
  });
  it("says nothing where no key is meant", () => {
    expect(keyStats(KEYS, 2, "nope")).toBeNull();
  });
});

test.each([
  [0, "0"],
  [1, "1B"],
  [1023, "1023B"],
  [1024, "1KB"],
  [17203, "16.8KB"],
  [3 * 2 ** 20, "3MB"],
  [2 ** 30, "1GB"],
  [5.5 * 2 ** 50, "5632TB"],
])("%i bytes are %s", (bytes, text) => {
  expect(byteSize(bytes)).toBe(text);
});

test("the pretty form is Consul's to the column", () => {
  const StatsKV = bySize([
    { Name: "vault/logical", Sum: 2048, Count: 4 },
    { Name: "vault/core", Sum: 6042, Count: 16 },
  ]);
  const Stats = bySize([
    { Name: "Index", Sum: 285, Count: 11 },
    { Name: "CoordinateBatchUpdate", Sum: 12595, Count: 27 },
  ]);
  const Meta = { ID: "2-12426-1604593650375", Size: 17228, Index: 12426, Term: 2, Version: 1 };
  expect(prettyText({ Meta, Stats, StatsKV, TotalSize: 12880, TotalSizeKV: 8090 }, [])).toBe(
    ` ID           2-12426-1604593650375
 Size         17228
 Index        12426
 Term         2
 Version      1

 Type                       Count      Size
 ----                       ----       ----
 CoordinateBatchUpdate      27         12.3KB
 Index                      11         285B
 ----                       ----       ----
 Total                                 12.6KB

 Key Name           Count      Size
 ----               ----       ----
 vault/core         16         5.9KB
 vault/logical      4          2KB
 ----               ----       ----
 Total                         7.9KB
`,
  );
});

describe("-append-filename", () => {
  const Config = { Version: "1.19.0", Datacenter: "dc1", NodeName: "alpha" };
  it.each([
    ["/a.b/backup.snap", "status,node,dc,version", "true", "/a.b/backup-1.19.0-dc1-alpha-leader.snap"],
    ["/a.b/backup", "dc", "true", "/a.b/backup-dc1"],
    ["backup.snap", "status", "false", "backup-follower.snap"],
    ["backup.snap", "status", undefined, "backup.snap"],
  ])("%s with %s, leader %s", (file, words, leader, name) => {
    const consul = leader === undefined ? {} : { leader };
    expect(appendedName(file, appendedOf(words), { Config, Stats: { consul } })).toBe(name);
  });
  it("knows what it knows", () => {
    expect(() => appendedOf("dc,host")).toThrow('-append-filename: "host": expected version, dc, node, status');
  });
});
