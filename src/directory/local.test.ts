// Tests of the directory on the store in memory: views, indexes, scopes, cascades, waiters.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { createMetrics } from "../base/metrics.ts";
import { systemRandom } from "../base/random.ts";
import type { Check } from "../model/check.ts";
import type { Instance } from "../model/instance.ts";
import type { Node } from "../model/node.ts";
import type { Reason } from "../model/reason.ts";
import { type Change, type Index, keyOf, type Scope, scope } from "../model/record.ts";
import { createDirectory, type LocalDirectory } from "./local.ts";
import { memoryStorage } from "./storage/memory.ts";

const node = (name: string, address = "10.0.0.1"): Node => ({
  id: "",
  name,
  address,
  datacenter: "dc1",
  taggedAddresses: {},
  labels: {},
});
const service = (on: string, id: string, name = id, more: Partial<Instance> = {}): Instance => ({
  id,
  name,
  node: on,
  tags: [],
  labels: {},
  address: "",
  port: 80,
  origin: { source: "api", authority: "first-hand" },
  ...more,
});
const check = (on: string, id: string, serviceId = "", more: Partial<Check> = {}): Check => ({
  id,
  node: on,
  name: id,
  status: "passing",
  notes: "",
  output: "",
  serviceId,
  type: "ttl",
  ...more,
});
const put = {
  node: (value: Node): Change => ({ op: "put", table: "node", key: keyOf.node(value.name), value }),
  service: (value: Instance): Change => ({
    op: "put",
    table: "service",
    key: keyOf.service(value.node, value.id),
    value,
  }),
  check: (value: Check): Change => ({ op: "put", table: "check", key: keyOf.check(value.node, value.id), value }),
  kv: (key: string, text: string): Change => ({
    op: "put",
    table: "kv",
    key,
    value: { key, value: new TextEncoder().encode(text), flags: 0n, lockIndex: 0 },
  }),
};
const gone: Reason = { code: "died", text: "it died", confirmed: true, atMs: 1 };

let directory: LocalDirectory;
beforeEach(async () => {
  directory = createDirectory(memoryStorage(), {
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    metrics: createMetrics(),
  });
  await directory.start();
});
afterEach(() => directory.stop());

async function write(...changes: Change[]): Promise<Index> {
  const written = await directory.write(changes);
  if (written.result !== "written") throw new Error(written.result);
  return written.index;
}
const never = new AbortController().signal;
/** Which of the scopes moved during the work. */
async function moved(scopes: readonly Scope[], work: () => Promise<unknown>): Promise<Scope[]> {
  const before = directory.view();
  const woken = new Set<Scope>();
  const end = new AbortController();
  const waits = scopes.map((each) =>
    directory.changed(each, before.at(each), end.signal).then(
      (at) => {
        expect(directory.view().at(each)).toBe(at);
        woken.add(each);
      },
      () => {},
    ),
  );
  await work();
  await systemClock.yield();
  end.abort();
  await Promise.all(waits);
  const after = directory.view();
  expect(scopes.filter((each) => after.at(each) > before.at(each))).toEqual(scopes.filter((each) => woken.has(each)));
  return scopes.filter((each) => woken.has(each));
}

describe("reads", () => {
  test("an empty directory stands at 1, everywhere", () => {
    const view = directory.view();
    expect(view.index).toBe(1);
    for (const each of ["nodes", "services", "tree:", "kv:x", "service:web"] as const) expect(view.at(each)).toBe(1);
    expect(view.residents("web")).toEqual([]);
    expect(view.fresh).toBe(true);
  });

  test("a view never changes", async () => {
    await write(put.node(node("n1")), put.service(service("n1", "web")));
    const view = directory.view();
    const before = view.residents("web");
    await write(put.service(service("n1", "web", "web", { port: 81 })));
    await write({ op: "delete", table: "node", key: "n1" });
    expect(view.residents("web")).toBe(before);
    expect(view.get("service", keyOf.service("n1", "web"))?.port).toBe(80);
    expect([...view.serviceNames()]).toEqual(["web"]);
    expect(directory.view().residents("web")).toEqual([]);
  });

  test("residents: node checks first, by node then id, ignoring case, kept until something of the service changes", async () => {
    await write(
      put.node(node("B")),
      put.node(node("a")),
      put.service(service("B", "w2", "Web")),
      put.service(service("B", "w1", "web")),
      put.service(service("a", "w9", "web")),
      put.check(check("B", "own", "w1")),
      put.check(check("B", "other", "w2")),
      put.check(check("B", "serfHealth")),
    );
    const residents = directory.view().residents("WEB");
    expect(residents.map(({ instance }) => `${instance.node}/${instance.id}`)).toEqual(["a/w9", "B/w1", "B/w2"]);
    expect(residents[1]?.checks.map(({ id }) => id)).toEqual(["serfHealth", "own"]);
    await write(put.node(node("c")), put.kv("k", "v"));
    expect(directory.view().residents("web")).toBe(residents);
    await write(put.check(check("B", "own", "w1", { status: "critical" })));
    expect(directory.view().residents("web")[1]?.checks[1]?.status).toBe("critical");
    expect(directory.view().get("node", "b")?.name).toBe("B");
    expect(
      directory
        .view()
        .residentsOn("b")
        .map(({ instance }) => instance.id),
    ).toEqual(["w1", "w2"]);
  });

  test("at an address: nodes, services of that address, services that use their node's", async () => {
    await write(
      put.node(node("n1", "10.0.0.1")),
      put.node(node("n2", "FD00:0::1")),
      put.service(service("n1", "own", "own", { address: "10.9.9.9" })),
      put.service(service("n1", "nodes")),
      put.service(service("n2", "six")),
    );
    const names = (ip: string): string[] => {
      const found = directory.view().atAddress(ip);
      return [...found.nodes.map(({ name }) => name), ...found.residents.map(({ instance }) => instance.id)];
    };
    expect(names("10.0.0.1")).toEqual(["n1", "nodes"]);
    expect(names("10.9.9.9")).toEqual(["own"]);
    expect(names("fd00::1")).toEqual(["n2", "six"]);
    expect(names("example.org")).toEqual([]);
    await write(put.service(service("n1", "own", "own", { address: "10.8.8.8" })));
    expect(names("10.9.9.9")).toEqual([]);
  });

  test("keys are listed in the order of their bytes, by prefix", async () => {
    await write(...["b", "a/\uffff", "a/\u{10000}", "a/", "a", "__proto__"].map((key) => put.kv(key, key)));
    expect(Array.from(directory.view().list("kv"), ({ key }) => key)).toEqual([
      "__proto__",
      "a",
      "a/",
      "a/\uffff",
      "a/\u{10000}",
      "b",
    ]);
    expect(Array.from(directory.view().list("kv", "a/"), ({ key }) => key)).toEqual(["a/", "a/\uffff", "a/\u{10000}"]);
  });
});

describe("writes", () => {
  test("an equal record is not written, a missing one not deleted", async () => {
    const index = await write(put.node(node("n1")));
    expect(
      await moved(["nodes", "node:n1"], () => write(put.node(node("n1")), { op: "delete", table: "kv", key: "none" })),
    ).toEqual([]);
    expect(directory.view().index).toBe(index);
  });

  test("what a caller does with its object afterwards does not matter", async () => {
    const labels: Record<string, string> = { a: "1" };
    await write(put.node({ ...node("n1"), labels }));
    labels["a"] = "2";
    expect(directory.view().get("node", "n1")?.labels["a"]).toBe("1");
    expect(() => {
      (directory.view().get("node", "n1")?.labels as Record<string, string>)["a"] = "3";
    }).toThrow(TypeError);
  });

  test("expectations: all hold or nothing is written", async () => {
    const index = await write(put.kv("a", "1"));
    const fails = await directory.write([put.kv("b", "1")], [{ table: "kv", key: "a", at: index - 1 }]);
    expect(fails).toEqual({ result: "expectation-failed" });
    expect(directory.view().get("kv", "b")).toBeUndefined();
    const holds = await directory.write(
      [put.kv("b", "1")],
      [
        { table: "kv", key: "a", at: index },
        { table: "kv", key: "b", at: 0 },
      ],
    );
    expect(holds.result).toBe("written");
  });

  test("of writes made at once each sees those before it", async () => {
    const won = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        directory.write([put.kv("one", String(i))], [{ table: "kv", key: "one", at: 0 }]),
      ),
    );
    expect(won.filter(({ result }) => result === "written")).toHaveLength(1);
    expect(won[0]?.result).toBe("written");
    const both = await Promise.all([directory.write([put.kv("x", "1")]), directory.write([put.kv("x", "1")])]);
    expect(both[0]).toEqual(both[1]);
  });

  test("services need their node, checks their service", async () => {
    await expect(write(put.service(service("no", "web")))).rejects.toThrow(
      'service "web" names node "no", which is not registered',
    );
    await write(put.node(node("n1")));
    await expect(write(put.check(check("n1", "c", "none")))).rejects.toThrow(
      'check "c" is about service "none" on node "n1"',
    );
    await expect(write({ op: "put", table: "node", key: "wrong", value: node("n2") })).rejects.toThrow(
      "the record's own is",
    );
    await expect(write(put.kv("\ud800", ""))).rejects.toThrow("well-formed");
  });

  test("create and modify indexes", async () => {
    const made = await write(put.kv("a", "1"));
    const changed = await write(put.kv("a", "2"));
    expect(directory.view().get("kv", "a")).toMatchObject({ createIndex: made, modifyIndex: changed });
    await write({ op: "delete", table: "kv", key: "a" });
    const again = await write(put.kv("a", "2"));
    expect(directory.view().get("kv", "a")).toMatchObject({ createIndex: again, modifyIndex: again });
  });

  test("after stop: reads go on, everything else says stopped", async () => {
    await write(put.kv("a", "1"));
    const waiting = directory.changed("kv:a", 99, never);
    await directory.stop();
    await expect(waiting).rejects.toMatchObject({ code: "stopped" });
    await expect(write(put.kv("b", "1"))).rejects.toMatchObject({ code: "stopped" });
    await expect(directory.changed("kv:a", 1, never)).rejects.toMatchObject({ code: "stopped" });
    expect(directory.view().get("kv", "a")).toBeDefined();
  });
});

describe("removal", () => {
  beforeEach(async () => {
    await write(
      put.node(node("n1")),
      put.node(node("n2")),
      put.service(service("n1", "web")),
      put.service(service("n1", "api")),
      put.check(check("n1", "service:web", "web")),
      put.check(check("n1", "serfHealth")),
    );
  });

  test("a service takes its checks along", async () => {
    await write({ op: "delete", table: "service", key: keyOf.service("n1", "web"), why: gone });
    expect(Array.from(directory.view().list("check"), ({ id }) => id)).toEqual(["serfHealth"]);
    const [grave] = [...directory.view().list("grave")];
    expect(grave?.why).toEqual(gone);
    expect(grave?.gone).toEqual([{ table: "service", key: keyOf.service("n1", "web") }]);
  });

  test("a node takes everything along, also what the same write put on it", async () => {
    await write(put.service(service("n1", "late")), put.check(check("n1", "late", "late")), {
      op: "delete",
      table: "node",
      key: "n1",
    });
    expect(directory.view().count("service") + directory.view().count("check")).toBe(0);
    expect(Array.from(directory.view().list("node"), ({ name }) => name)).toEqual(["n2"]);
  });

  test("a node removed and put again in one write starts empty", async () => {
    await write({ op: "delete", table: "node", key: "n1" }, put.node(node("n1")), put.service(service("n1", "new")));
    expect(
      directory
        .view()
        .residentsOn("n1")
        .map(({ instance }) => instance.id),
    ).toEqual(["new"]);
  });
});

describe("what a dialect keeps with a session", () => {
  const session = {
    id: "s1",
    name: "",
    node: "n1",
    lockDelayMs: 0,
    behavior: "release",
    nodeChecks: [],
    serviceChecks: [],
  } as const;
  const kept = (id: string, bound?: string): Change => ({
    op: "put",
    table: "kept",
    key: keyOf.kept("x", id),
    value: { kind: "x", id, value: { a: 1 }, ...(bound === undefined ? {} : { session: bound }) },
  });
  test("goes with it, and wakes who waits for its kind", async () => {
    await write({ op: "put", table: "session", key: "s1", value: session }, kept("1", "s1"), kept("2"));
    const scopes = [scope.kept("x"), scope.kept("y"), "sessions"] as const;
    expect(await moved(scopes, () => write({ op: "delete", table: "session", key: "s1" }))).toEqual([
      "kept:x",
      "sessions",
    ]);
    expect(Array.from(directory.view().list("kept"), ({ id }) => id)).toEqual(["2"]);
  });
  test("goes with the one it is tied to now, be that written before or in the same moment", async () => {
    const put = (id: string): Change => ({ op: "put", table: "session", key: id, value: { ...session, id } });
    const end = (id: string): Change => ({ op: "delete", table: "session", key: id });
    const left = (): string[] => Array.from(directory.view().list("kept"), ({ id }) => id);
    await write(put("s1"), put("s11"), put("s2"), put("s3"), kept("1", "s1"), kept("2", "s1"), kept("3", "s1"));
    await write(kept("4", "s11"), kept("2", "s2"), kept("3"));
    await write(end("s1"), kept("5", "s2"));
    expect(left()).toEqual(["2", "3", "4", "5"]);
    // Untied, tied anew and ended at once.
    await write(kept("5", "s3"), end("s2"));
    expect(left()).toEqual(["3", "4", "5"]);
    await write({ op: "delete", table: "kept", key: keyOf.kept("x", "5") });
    await write(end("s3"), end("s11"));
    expect(left()).toEqual(["3"]);
  });
  test("cannot come without it", async () => {
    await expect(directory.write([kept("1", "s9")])).rejects.toThrow(
      'x "1" names session "s9", which is not registered',
    );
  });
});

describe("scopes", () => {
  const all: Scope[] = [
    "nodes",
    "services",
    "checks",
    "sessions",
    "node:n1",
    "node:n2",
    "service:web",
    "service:api",
    "service:other",
    "instances:web",
    "instances:api",
    "checks:web",
    "checks:api",
    "kv:a",
    "tree:",
    "tree:a",
    "tree:b",
  ];
  beforeEach(async () => {
    await write(
      put.node(node("n1")),
      put.node(node("n2")),
      put.service(service("n1", "web")),
      put.service(service("n1", "api")),
      put.service(service("n2", "other")),
      put.check(check("n1", "service:web", "web")),
      put.check(check("n1", "serfHealth")),
    );
  });
  const cases: readonly (readonly [string, () => Change[], Scope[]])[] = [
    [
      "a node",
      () => [put.node(node("N1", "10.7.7.7"))],
      ["nodes", "node:n1", "service:web", "service:api", "instances:web", "instances:api"],
    ],
    [
      "a service's port",
      () => [put.service(service("n1", "web", "web", { port: 9 }))],
      ["services", "node:n1", "service:web", "instances:web"],
    ],
    [
      "a service's tags",
      () => [put.service(service("n1", "web", "web", { tags: ["t"] }))],
      ["services", "checks", "node:n1", "service:web", "instances:web", "checks:web"],
    ],
    [
      "a service's name",
      () => [put.service(service("n1", "web", "api"))],
      [
        "services",
        "checks",
        "node:n1",
        "service:web",
        "service:api",
        "instances:web",
        "instances:api",
        "checks:web",
        "checks:api",
      ],
    ],
    [
      "a service check",
      () => [put.check(check("n1", "service:web", "web", { output: "x" }))],
      ["checks", "node:n1", "service:web", "checks:web"],
    ],
    [
      "a node check",
      () => [put.check(check("n1", "serfHealth", "", { status: "critical" }))],
      ["checks", "node:n1", "service:web", "service:api"],
    ],
    [
      "a check that moves to another service",
      () => [put.check(check("n1", "service:web", "api"))],
      ["checks", "node:n1", "service:web", "service:api", "checks:web", "checks:api"],
    ],
    ["a key", () => [put.kv("a", "1")], ["kv:a", "tree:", "tree:a"]],
    ["a key below", () => [put.kv("a/b", "1")], ["tree:", "tree:a"]],
    [
      "the removal of a service",
      () => [{ op: "delete", table: "service", key: keyOf.service("n1", "web") }],
      ["services", "checks", "node:n1", "service:web", "instances:web", "checks:web"],
    ],
    [
      "the removal of a node",
      () => [{ op: "delete", table: "node", key: "n2" }],
      ["nodes", "services", "node:n2", "service:other"],
    ],
  ];
  for (const [what, changes, expected] of cases)
    test(`${what} moves exactly its scopes`, async () => {
      expect(await moved(all, () => write(...changes()))).toEqual(all.filter((each) => expected.includes(each)));
    });

  test("a scope never goes back, not after removals and not after the whole is read again", async () => {
    await write(put.kv("a", "1"), put.kv("b", "1"));
    await write({ op: "delete", table: "service", key: keyOf.service("n1", "web") });
    await write(put.service(service("n2", "other", "renamed")));
    await write({ op: "delete", table: "kv", key: "a" });
    await write({ op: "delete", table: "node", key: "n2" });
    const before = directory.view();
    const again = createDirectory(
      { ...directory.storage, close: async () => {} },
      { clock: systemClock, random: systemRandom, log: silentLog, metrics: createMetrics() },
    );
    await again.start();
    for (const each of [...all, "kv:b", "service:renamed", "instances:renamed"] as const)
      expect([each, again.view().at(each)]).toEqual([each, before.at(each)]);
    await again.stop();
  });
});

describe("waiters", () => {
  test("10,000 prefixes: only the right one wakes, aborted ones leave nothing", async () => {
    const end = new AbortController();
    const woken: string[] = [];
    const waits = Array.from({ length: 10_000 }, (_, i) => {
      const prefix = `app/${i}/`;
      return directory.changed(scope.tree(prefix), 1, end.signal).then(
        () => void woken.push(prefix),
        () => {},
      );
    });
    expect(directory.waiting).toBe(10_000);
    await write(put.kv("app/77/x", "1"));
    await systemClock.yield();
    expect(woken).toEqual(["app/77/"]);
    end.abort();
    await Promise.all(waits);
    expect(directory.waiting).toBe(0);
  });

  test("an index that lies ahead waits", async () => {
    const index = await write(put.kv("a", "1"));
    const waiting = directory.changed("kv:a", index + 1, never);
    await write(put.kv("a", "2"));
    const third = await write(put.kv("a", "3"));
    expect(await waiting).toBe(third);
  });

  test("a wait that is aborted before it begins", async () => {
    await expect(directory.changed("nodes", 1, AbortSignal.abort(new Error("no")))).rejects.toThrow("no");
  });
});
