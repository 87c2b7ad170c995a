// The differ: what a new list changes, what it complains about, and that applying it always ends at the list.
import fc from "fast-check";
import { expect, test } from "vitest";
import type { CheckSpec } from "../model/check.ts";
import type { Registration } from "../model/instance.ts";
import { normalize, reconcile, registrationFault, same } from "./reconcile.ts";

const service = (id: string, more: Partial<Registration> = {}): Registration => ({
  id,
  name: id,
  tags: [],
  labels: {},
  address: "",
  port: 80,
  checks: [],
  ...more,
});
const ttl = (more: Partial<CheckSpec> = {}): CheckSpec => ({
  id: "",
  name: "",
  notes: "",
  kind: "ttl",
  detail: {},
  intervalMs: 0,
  timeoutMs: 0,
  ttlMs: 10_000,
  ...more,
});
const lastOf = (...list: Registration[]): Map<string, Registration> => new Map(list.map((r) => [r.id, normalize(r)]));

test("same: absent and undefined are equal, order of keys does not count, __proto__ is a key like any other", () => {
  expect(same({ a: 1, b: undefined }, { a: 1 })).toBe(true);
  expect(same({ a: 1, b: [1, { c: 2 }] }, { b: [1, { c: 2 }], a: 1 })).toBe(true);
  expect(same({ a: 1 }, { a: 1, b: 2 })).toBe(false);
  expect(same([1, 2], [2, 1])).toBe(false);
  expect(same([], {})).toBe(false);
  expect(same(null, {})).toBe(false);
  expect(same(JSON.parse('{"__proto__":"x"}'), JSON.parse('{"__proto__":"x"}'))).toBe(true);
  expect(same(JSON.parse('{"__proto__":"x"}'), JSON.parse('{"__proto__":"y"}'))).toBe(false);
  expect(same(JSON.parse('{"__proto__":"x"}'), {})).toBe(false);
  expect(same({ toString: undefined }, {})).toBe(true);
});

test("checks get Consul's ids and names", () => {
  expect(normalize(service("w1", { name: "web", checks: [ttl()] })).checks).toMatchObject([
    { id: "service:w1", name: "Service 'web' check" },
  ]);
  expect(normalize(service("w1", { checks: [ttl(), ttl({ id: "own", name: "Own" }), ttl()] })).checks).toMatchObject([
    { id: "service:w1:1" },
    { id: "own", name: "Own" },
    { id: "service:w1:3" },
  ]);
  expect(normalize(service("", { name: "web" })).id).toBe("web");
});

test("put and gone; what is missing at second hand is hearsay", () => {
  const before = lastOf(service("a"), service("b"), service("c"));
  const list = [service("a"), service("b", { port: 81 }), service("d")];
  const first = reconcile("docker", before, { list, authority: "first-hand" }, 7);
  expect(first.put.map(({ id }) => id)).toEqual(["b", "d"]);
  expect(first.gone).toEqual([
    { id: "c", why: { code: "missing", text: "is no longer in the list of docker", confirmed: true, atMs: 7 } },
  ]);
  const second = reconcile("zk", before, { list, authority: "second-hand" }, 7);
  expect(second.gone[0]?.why.confirmed).toBe(false);
  const died = { code: "died", text: "exit code 1", confirmed: true, atMs: 3 } as const;
  const told = reconcile("zk", before, { list, authority: "second-hand", gone: new Map([["c", died]]) }, 7);
  expect(told.gone).toEqual([{ id: "c", why: died }]);
});

test("twice the same id: the first wins; what cannot be held is left out; both are told", () => {
  const { list, complaints } = reconcile(
    "file",
    new Map(),
    {
      list: [
        service("a", { text: "a.json" }),
        service("a", { port: 81, text: "b.json" }),
        service("n", { name: "" }),
        service("p", { port: 70_000 }),
        service("f", { port: 1.5 }),
        service("z", { name: "a\0b" }),
        service("constructor"),
        service("__proto__"),
      ],
      authority: "first-hand",
      complaints: [{ about: "c.json", text: "line 3: no brace" }],
    },
    0,
  );
  expect([...list.keys()]).toEqual(["a", "constructor", "__proto__"]);
  expect(list.get("a")?.port).toBe(80);
  expect(complaints.map(({ text }) => text)).toEqual([
    "line 3: no brace",
    'the id "a" is in the list of file twice: a.json and b.json; the first one counts',
    'service "n" has no name',
    'service "p": port 70000: expected a whole number from 0 to 65535',
    'service "f": port 1.5: expected a whole number from 0 to 65535',
    'service "a\\u0000b": name must not contain NUL'.replace(
      'service "a\\u0000b"',
      `service ${JSON.stringify("a\0b")}`,
    ),
  ]);
});

test("a thing with the same foreign id under another id is a rename", () => {
  const before = lastOf(service("old", { foreignId: "c1:80" }), service("other", { foreignId: "c2:80" }));
  const { put, gone, renamed } = reconcile(
    "docker",
    before,
    {
      list: [service("new", { foreignId: "c1:80" }), service("other", { foreignId: "c2:80" })],
      authority: "first-hand",
    },
    0,
  );
  expect(put.map(({ id }) => id)).toEqual(["new"]);
  expect(renamed).toEqual(new Map([["new", "old"]]));
  expect(gone).toEqual([
    { id: "old", why: { code: "replaced", text: 'is called "new" now', confirmed: true, atMs: 0 } },
  ]);
});

test("applying differences one after the other always ends at the last list; the same list again changes nothing", () => {
  const registration = fc.record({
    id: fc.constantFrom("a", "b", "c", "__proto__", "toString"),
    port: fc.constantFrom(80, 81, -1),
    foreignId: fc.option(fc.constantFrom("x", "y"), { nil: undefined }),
    labels: fc.dictionary(fc.constantFrom("k", "__proto__"), fc.constantFrom("1", "2")),
  });
  fc.assert(
    fc.property(fc.array(fc.array(registration, { maxLength: 6 }), { maxLength: 8 }), (lists) => {
      let last: ReadonlyMap<string, Registration> = new Map();
      const held = new Map<string, Registration>();
      for (const ids of lists) {
        const list = ids.map(({ id, foreignId, ...more }) =>
          service(id, { ...more, ...(foreignId === undefined ? {} : { foreignId }) }),
        );
        const whole = { list, authority: "first-hand" as const };
        const difference = reconcile("s", last, whole, 0);
        for (const { id } of difference.gone) expect(held.delete(id)).toBe(true);
        for (const r of difference.put) held.set(r.id, r);
        last = difference.list;
        const wanted = new Map<string, Registration>();
        for (const r of list)
          if (registrationFault(r) === undefined && !wanted.has(r.id)) wanted.set(r.id, normalize(r));
        expect(new Map(held)).toEqual(wanted);
        const again = reconcile("s", last, whole, 0);
        expect([again.put, again.gone]).toEqual([[], []]);
      }
    }),
  );
});
