// Both layouts of etcd, read key by key; the configuration that says where they lie.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { configureEtcd, type Layout } from "./config.ts";
import { type Entry, groupOf, readEntry } from "./entries.ts";

const REGISTRATOR: Layout = { kind: "registrator", prefix: "/services/" };
const SKYDNS: Layout = { kind: "skydns", prefix: "/skydns/local/skydns/", domain: "skydns.local" };
const registrator = (rest: string, value: string) => readEntry(REGISTRATOR, `/services/${rest}`, value);
const skydns = (rest: string, value: object | string) =>
  readEntry(SKYDNS, `/skydns/local/skydns/${rest}`, typeof value === "string" ? value : JSON.stringify(value));

describe("Registrator's layout", () => {
  it("is service and ID, with the host in front of the ID", () => {
    expect(registrator("web/host-1:web.1:80", "10.0.0.1:32768")).toEqual({
      ...{ key: "/services/web/host-1:web.1:80", service: "web", id: "host-1:web.1:80" },
      ...{ host: "10.0.0.1", port: 32768, node: "host-1", priority: 0, weight: undefined, labels: {} },
    });
    expect(registrator("dns/h:dns:53:udp", "10.0.0.1:53")).toMatchObject({ node: "h", port: 53 });
  });
  it("takes other IDs, with the value's host as the node", () => {
    expect(registrator("web/one", "web-7.example:80")).toMatchObject({ id: "one", node: "web-7.example", port: 80 });
    expect(registrator("web/one", "[2001:db8::1]:80")).toMatchObject({ host: "2001:db8::1", port: 80 });
    expect(registrator("web/one", "2001:db8::1:80")).toMatchObject({ host: "2001:db8::1", port: 80 });
  });
  it("leaves alone what lies elsewhere below the same prefix", () => {
    for (const rest of ["web", "a/b/c", "/x", "web/"]) expect(registrator(rest, "10.0.0.1:80")).toBeUndefined();
  });
  it.each(["", "10.0.0.1", ":80", "10.0.0.1:99999", "[host]:80", "a b:80", "http://10.0.0.1:80"])(
    "complains about %j",
    (value) => {
      expect(registrator("web/one", value)).toMatchObject({ fault: expect.stringContaining('expected "host:port"') });
    },
  );
});

describe("SkyDNS' layout", () => {
  it("is reversed labels, the last but one the service", () => {
    expect(
      skydns("east/production/rails/1", {
        host: "10.0.0.1",
        port: 80,
        priority: 20,
        weight: 7,
        text: "hi",
        ttl: 60,
        group: "g1",
      }),
    ).toEqual({
      ...{ key: "/skydns/local/skydns/east/production/rails/1", service: "rails", id: "1.rails.production.east" },
      ...{ host: "10.0.0.1", port: 80, node: "1.rails.production.east.skydns.local", priority: 20, weight: 7 },
      labels: { "skydns-name": "1.rails.production.east.skydns.local", text: "hi", group: "g1" },
    });
    expect(skydns("web", { host: "10.0.0.1" })).toMatchObject({
      service: "web",
      id: "web",
      port: 0,
      priority: 10,
      weight: undefined,
    });
  });
  it("has targets of its own making for addresses, stripped where told, and names as they are", () => {
    expect(skydns("web/a", { host: "10.0.0.1", targetstrip: 1 })).toMatchObject({ node: "web.skydns.local" });
    expect(skydns("web/a", { host: "db.example.com." })).toMatchObject({
      node: "db.example.com",
      host: "db.example.com",
    });
    expect(skydns("web/h1:web:80", { host: "10.0.0.1", port: 80 })).toMatchObject({ node: "h1", service: "web" });
  });
  it("leaves alone the apex, mail exchangers and text", () => {
    expect(skydns("dns/ns/a", { host: "10.0.0.1" })).toBeUndefined();
    expect(skydns("dns/apex", { host: "10.0.0.1" })).toBeUndefined();
    expect(skydns("east/dns/stub/xx", { host: "10.0.0.1" })).toBeUndefined();
    expect(skydns("dns/a", { host: "10.0.0.1" })).toMatchObject({ service: "dns" });
    expect(skydns("mx/a", { host: "mail.example.com", mail: true })).toBeUndefined();
    expect(skydns("txt/a", { text: "only" })).toBeUndefined();
  });
  it.each([
    ["no json"],
    ["[]"],
    ["null"],
    ['{"host": 7}'],
    ['{"host": "a b"}'],
    ['{"host": "10.0.0.1", "port": -1}'],
    ['{"host": "10.0.0.1", "weight": 1.5}'],
  ])("complains about %s", (value) => expect(skydns("web/a", value)).toHaveProperty("fault"));
  it("has groups: those with the shortest keys decide, where they agree", () => {
    const entry = (rest: string, group?: string): Entry =>
      skydns(rest, { host: "10.0.0.1", ...(group === undefined ? {} : { group }) }) as Entry;
    const keys = (...entries: Entry[]): string[] => groupOf(entries).map(({ id }) => id);
    expect(keys(entry("svc/a", "g1"), entry("svc/b", "g2"))).toEqual(["a.svc", "b.svc"]);
    expect(keys(entry("x/svc", "g1"), entry("x/svc/a", "g2"), entry("x/svc/b"), entry("x/svc/c", "g1"))).toEqual([
      "svc.x",
      "b.svc.x",
      "c.svc.x",
    ]);
  });
});

it("any key and value are an entry, a fault, or nothing", () => {
  fc.assert(
    fc.property(
      fc.string(),
      fc.oneof(fc.string(), fc.json(), fc.constantFrom('{"host":"a"}', "1.2.3.4:5")),
      fc.boolean(),
      (rest, value, sky) => {
        const found = sky ? skydns(rest, value) : registrator(rest, value);
        if (found === undefined || "fault" in found) return;
        expect(found.service).not.toBe("");
        expect(found.id).not.toBe("");
        expect(found.port).toBeLessThanOrEqual(65_535);
        expect(found.host).not.toBe("");
      },
    ),
  );
});

describe("the configuration", () => {
  const endpoints = ["http://127.0.0.1:2379"];
  it("as the README has it says what is read", () => {
    const readme = readFileSync(join(import.meta.dirname, "README.md"), "utf8");
    const example = /<!-- example -->\n\n```json\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
    expect(configureEtcd(JSON.parse(example).protocols.etcd)).toMatchObject({
      access: { endpoints },
      layouts: [REGISTRATOR, SKYDNS],
    });
  });
  it("takes several of each, and paths of one's own", () => {
    const config = configureEtcd({
      endpoints,
      registrator: ["/a", "/b/"],
      skydns: ["Example.COM."],
      skydns_path: "/names",
    });
    expect(config?.layouts.map(({ prefix }) => prefix)).toEqual(["/a/", "/b/", "/names/com/example/"]);
    expect(configureEtcd({ endpoints, registrator: "/" })?.layouts).toEqual([{ kind: "registrator", prefix: "/" }]);
  });
  it.each([
    [{ registrator: "/a" }, "etcd.endpoints: is missing"],
    [{ endpoints: ["etcd:2379"], registrator: "/a" }, '"etcd:2379" is not an endpoint'],
    [{ endpoints }, "nothing is to be read"],
    [{ endpoints, registrator: "a" }, "etcd.registrator: expected a path"],
    [{ endpoints, registrator: ["/a", "/a/b"] }, 'what lies below "/a/b/" would be read twice'],
    [{ endpoints, skydns: "." }, "etcd.skydns: expected a domain"],
    [{ endpoints, registrator: "/a", username: "u" }, "username and password belong together"],
    [{ endpoints, registrator: "/a", key_file: "/k" }, "cert_file and key_file belong together"],
    [{ endpoints, registrator: "/a", prefix: "/b" }, "etcd.prefix: unknown key"],
  ])("%j is refused", (raw, text) => {
    expect(() => configureEtcd(raw)).toThrow(text);
  });
});
