// Statements of wrappers: what is read, what is refused, what is registered, and how ports are named.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../../base/error.ts";
import {
  PortNames,
  parseCheckWord,
  parseLine,
  registrationsOf,
  runKey,
  runOfForeignId,
  type Statement,
} from "./statement.ts";

const port = (number: number, host = "", protocol: "tcp" | "udp" = "tcp") => ({ protocol, port: number, host });
const statement: Statement = {
  pid: 12,
  start: 345,
  part: "",
  name: "web",
  command: "python3 -m http.server",
  tags: ["a"],
  labels: { k: "v" },
  ports: [
    { ...port(80), name: "web", first: true },
    { ...port(81, "127.0.0.1"), name: "web-81", first: false },
    { ...port(53, "", "udp"), name: "web-53", first: false },
  ],
  checks: [
    { kind: "http", detail: { url: "/" }, intervalMs: 1000, ttlMs: 0, id: "", name: "" },
    { kind: "tcp", detail: { address: "" }, intervalMs: 1000, ttlMs: 0, id: "", name: "" },
    { kind: "ttl", detail: {}, intervalMs: 0, ttlMs: 5000, id: "web:1", name: "n" },
  ],
  draining: false,
};
const parse = (kind: string, detail: unknown): unknown => ({ kind, detail });

describe("lines", () => {
  it("are read as they were written", () => {
    for (const line of [
      { n: 1, state: statement },
      { n: 2, gone: { died: true, text: "x" } },
      { n: 3, report: { check: "c", status: "warning", output: "o" } },
    ])
      expect(JSON.parse(JSON.stringify(parseLine(JSON.stringify(line))))).toEqual(line);
  });

  it.each<[unknown, string]>([
    ["x", 'line: "x": expected an object'],
    [{}, "n: nothing: expected a count"],
    [{ n: 1 }, "state: nothing: expected an object"],
    [{ n: 1, state: { ...statement, pid: -1 } }, "pid: -1: expected a process ID"],
    [{ n: 1, state: { ...statement, name: "" } }, 'name: "": expected a name'],
    [
      { n: 1, state: { ...statement, ports: [{ ...port(70_000), name: "x", first: true }] } },
      "ports[0].port: 70000: expected a port",
    ],
    [{ n: 1, state: { ...statement, labels: { a: 1 } } }, "labels.a: 1: expected text"],
    [
      { n: 1, state: { ...statement, checks: [{ kind: "script" }] } },
      'checks[0].kind: "script": expected http, tcp or ttl',
    ],
    [{ n: 1, report: { check: "a", status: "bad", output: "" } }, 'report.status: "bad": expected passing'],
  ])("%j is refused", (raw, text) => expect(() => parseLine(JSON.stringify(raw))).toThrow(text));

  it("of any kind raise nothing but InputError", () => {
    const keys = fc.constantFrom("n", "state", "gone", "report", "pid", "ports", "labels", "checks", "__proto__");
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof({ maxDepth: 3 }, fc.jsonValue(), fc.dictionary(keys, tie("value"))),
    }));
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          value.map((v) => JSON.stringify(v)),
        ),
        (text) => {
          try {
            parseLine(text);
          } catch (error) {
            expect(error).toBeInstanceOf(InputError);
          }
        },
      ),
    );
  });
});

describe("registrations", () => {
  const [web, second, udp] = registrationsOf(statement, parse);
  it("are one per port; checks are about the first, tcp about every TCP port", () => {
    expect(web).toMatchObject({ id: "web:12:80", name: "web", tags: ["a"], labels: { k: "v" }, address: "", port: 80 });
    expect(web?.checks.map((check) => check.kind)).toEqual(["http", "tcp", "ttl"]);
    expect(web?.checks[2]).toMatchObject({ id: "web:1", ttlMs: 5000, detail: {} });
    expect(second).toMatchObject({
      name: "web-81",
      address: "127.0.0.1",
      addresses: [{ host: "127.0.0.1", port: 81, reach: "loopback" }],
    });
    expect(second?.checks.map((check) => check.kind)).toEqual(["tcp"]);
    expect(udp).toMatchObject({ id: "web:12:53:udp", name: "web-53", tags: ["a", "udp"], checks: [] });
  });
  it("carry their run in the foreign ID", () => {
    for (const registration of [web, second, udp])
      expect(runKey(runOfForeignId(registration?.foreignId ?? "")!)).toBe(runKey(statement));
    for (const part of ["greeter", "a:1/tcp", "x#y", "ü"])
      for (const { foreignId } of registrationsOf({ ...statement, part }, () => ({})))
        expect(runOfForeignId(foreignId ?? "")).toEqual({ pid: 12, start: 345, part });
    expect(runOfForeignId("somebody else's")).toBeUndefined();
  });
  it("drain together", () => {
    expect(registrationsOf({ ...statement, draining: true }, parse).every((r) => r.draining === true)).toBe(true);
    expect(web?.draining).toBeUndefined();
  });
});

describe("names of ports", () => {
  const names = (given: PortNames, ...ports: number[]): string[] =>
    given.give(ports.map((p) => port(p))).map((p) => p.name);
  it("stay while the first port is there", () => {
    const given = new PortNames("web");
    expect(names(given)).toEqual([]);
    expect(names(given, 8080)).toEqual(["web"]);
    expect(names(given, 80, 8080, 9090)).toEqual(["web-80", "web", "web-9090"]);
    expect(names(given, 80, 9090)).toEqual(["web", "web-9090"]);
    expect(names(given, 80, 9090, 8080)).toEqual(["web", "web-9090", "web-8080"]);
  });
});

describe("--check", () => {
  it.each<[string, object]>([
    ["http:/health", { check: { kind: "http", detail: { url: "/health" }, intervalMs: 1000 } }],
    ["http", { check: { kind: "http", detail: { url: "/" } } }],
    ["https://a.example/x", { check: { kind: "http", detail: { url: "https://a.example/x" } } }],
    ["tcp", { check: { kind: "tcp", detail: { address: "" } } }],
    ["tcp:[::1]:80", { check: { kind: "tcp", detail: { address: "[::1]:80" } } }],
    ["ttl:1m30s", { check: { kind: "ttl", ttlMs: 90_000, id: "id", intervalMs: 0 } }],
    ["script:test -f /x", { script: "test -f /x", check: { kind: "ttl", ttlMs: 32_000, id: "id" } }],
  ])("%s", (word, wanted) => expect(parseCheckWord(word, 1000, "id")).toMatchObject(wanted));
  it.each([
    "",
    "http:health",
    "http://",
    "https:/x",
    "tcp:80",
    "ttl",
    "ttl:0s",
    "ttl:-1s",
    "ttl:ten",
    "script:",
    "grpc:x",
  ])("%j is refused", (word) => expect(() => parseCheckWord(word, 1000, "id")).toThrow(InputError));
});
