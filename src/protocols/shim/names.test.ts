// Names of services and tags: those that programs can look up, each for one subject alone.
import fc from "fast-check";
import { expect, test } from "vitest";
import { isNameable, MOST_TAGS, namedTags, namesOf } from "./names.ts";

const ZONE = { domain: "consul", datacenter: "dc1" };

test("a service and a tag have the names that DNS answers", () => {
  expect(namesOf({ service: "web" }, ZONE)).toEqual([
    "web.service.consul",
    "web.service.dc1.consul",
    "web.connect.consul",
    "_web._tcp.service.consul",
    "_web._udp.service.consul",
  ]);
  expect(namesOf({ service: "db", tag: "primary" }, ZONE)).toEqual([
    "primary.db.service.consul",
    "primary.db.service.dc1.consul",
    "_db._primary.service.consul",
  ]);
  expect(namesOf({ service: "db", tag: "v1.2" }, { domain: "x.test", datacenter: "d c" })).toEqual([
    "v1.2.db.service.x.test",
  ]);
});

test("a second domain has the same names", () => {
  expect(namesOf({ service: "db", tag: "a" }, { ...ZONE, altDomain: "alt.example" })).toEqual(
    ["consul", "alt.example"].flatMap((domain) => namesOf({ service: "db", tag: "a" }, { ...ZONE, domain })),
  );
  expect(namesOf({ service: "db" }, { ...ZONE, altDomain: "consul" })).toHaveLength(5);
});

test("a transport as a tag does not take the whole service's names", () => {
  expect(namesOf({ service: "dns", tag: "udp" }, ZONE)).toEqual([
    "udp.dns.service.consul",
    "udp.dns.service.dc1.consul",
  ]);
});

test("what host names cannot hold has no name", () => {
  for (const service of ["a b", "a.b", "", "-x", "é", "x".repeat(64), "a/b"]) {
    expect(isNameable(service), service).toBe(false);
    expect(namesOf({ service }, ZONE)).toEqual([]);
  }
  for (const tag of ["a b", "", "é", "a=b", "a..b", ".a"]) expect(namesOf({ service: "web", tag }, ZONE)).toEqual([]);
  expect(isNameable("Web_1-x")).toBe(true);
});

test("whatever the subject, its names are names, and none is another subject's of a sane service", () => {
  const word = fc.stringMatching(/^[a-z0-9-]{0,8}$/);
  fc.assert(
    fc.property(word, fc.option(fc.oneof(word, fc.string()), { nil: undefined }), word, (service, tag, other) => {
      const names = namesOf(tag === undefined ? { service } : { service, tag }, ZONE);
      for (const name of names) expect(name).toMatch(/^[a-z0-9_.-]{1,253}$/);
      if (service === other) return;
      for (const name of namesOf({ service: other }, ZONE)) expect(names).not.toContain(name);
    }),
  );
});

test("of many tags those of the most instances have names", () => {
  const instances = [
    { tags: ["Shared", "shared", "x=1"] },
    { tags: ["shared", "b"] },
    ...Array.from({ length: 80 }, (_, i) => ({ tags: [`only-${String(i).padStart(2, "0")}`, "each"] })),
  ];
  const { tags, left } = namedTags(instances);
  expect(tags).toHaveLength(MOST_TAGS);
  expect(left).toBe(83 - MOST_TAGS);
  expect(tags).toContain("shared");
  expect(tags).toContain("each");
  expect(tags).toContain("only-00");
  expect(tags).not.toContain("only-79");
  expect(tags).toEqual([...tags].sort());
});
