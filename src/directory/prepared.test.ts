// Prepared queries: what may be kept, which one a name means, what templates make of names, and where answers come from.
import { beforeEach, describe, expect, test } from "vitest";
import { SimulatedStore } from "../../test/simulated/store.ts";
import { checkChange, nodeChange, serviceChange } from "../../test/support/directory.ts";
import { seededRandom, type World, world } from "../../test/support/lookup.ts";
import { systemClock } from "../base/clock.ts";
import { TrilithError } from "../base/error.ts";
import { silentLog } from "../base/log.ts";
import { createMetrics } from "../base/metrics.ts";
import { systemRandom } from "../base/random.ts";
import type { Lookup } from "../contracts/lookup.ts";
import type { Prepared, PreparedAnswer } from "../contracts/prepared.ts";
import type { PreparedRequest, PreparedService } from "../model/prepared.ts";
import type { Answer } from "../model/query.ts";
import { type Change, keyOf } from "../model/record.ts";
import { createDirectory } from "./local.ts";
import { createPrepared, type PreparedBase } from "./prepared.ts";

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: the templates' own language.
let here: World;
let prepared: Prepared;

const SERVICE: PreparedService = {
  service: "web",
  onlyPassing: false,
  near: "",
  connect: false,
  peer: "",
  failover: { nearest: 0 },
};
const request = (name: string, service: Partial<PreparedService> = {}, more: Partial<PreparedRequest> = {}) => ({
  ...{ name, session: "", token: "", ttl: "" },
  ...more,
  service: { ...SERVICE, ...service },
});
const template = (pattern = "", removeEmptyTags = false) => ({
  template: { type: "name_prefix_match", pattern, removeEmptyTags },
});
const sessionChange = (id: string): Change => ({
  op: "put",
  table: "session",
  key: keyOf.session(id),
  value: { id, name: "", node: "home", lockDelayMs: 0, behavior: "release", nodeChecks: [], serviceChecks: [] },
});

async function preparedWith(more: Partial<PreparedBase> = {}): Promise<Prepared> {
  const { directory, lookup } = here;
  return createPrepared({
    ...{ directory, lookup, random: seededRandom(3), log: silentLog, node: "n2", datacenter: "dc1", datacenters: [] },
    // By name, the wanted one first: enough to see who was wanted.
    nearestFirst: (_view, near, items, nodeOf) =>
      near === "" ? items : [...items].sort((a, b) => Number(nodeOf(b) === near) - Number(nodeOf(a) === near)),
    elsewhere: () => undefined,
    ...more,
  });
}

beforeEach(async () => {
  here = await world();
  prepared = await preparedWith();
  await here.directory.write([
    nodeChange("n1", "192.0.2.1", { external: true }),
    nodeChange("n2", "192.0.2.2", { external: true }),
    nodeChange("n3", "192.0.2.3", { external: true }),
    serviceChange("n1", "w1", "web", { tags: ["v1", "Blue"], labels: { env: "prod" }, port: 1 }),
    serviceChange("n2", "w2", "web", { tags: ["v1", "old"], port: 2 }),
    serviceChange("n3", "w3", "web", { tags: ["v2"], port: 3 }),
    checkChange("n2", "c2", "warning", { serviceId: "w2" }),
    checkChange("n3", "c3", "critical", { serviceId: "w3" }),
  ]);
});

const idsOf = (answer: PreparedAnswer | undefined): string[] | undefined =>
  answer?.endpoints.map(({ resident }) => resident.instance.id).sort();
const run = async (service: Partial<PreparedService>, options = {}): Promise<string[] | undefined> => {
  const id = await prepared.create(request(`q${Math.random()}`, service));
  return idsOf(await prepared.execute(id, options));
};
const resolved = (name: string) => prepared.resolve(here.directory.view(), name);

describe("keeping queries", () => {
  test("by ID, changed and removed, waking who waits", async () => {
    const { directory } = here;
    const id = await prepared.create(request("One", { tags: [] }));
    const kept = prepared.get(directory.view(), id.toUpperCase());
    expect(kept).toMatchObject({ id, name: "One", service: { tags: [] } });
    const waiting = directory.changed(
      prepared.scope,
      directory.view().at(prepared.scope),
      new AbortController().signal,
    );
    await prepared.update(id, request("Two"));
    await waiting;
    const changed = prepared.get(directory.view(), id);
    expect(changed?.name).toBe("Two");
    expect(changed?.createIndex).toBe(kept?.createIndex);
    expect(changed?.modifyIndex).toBeGreaterThan(kept?.modifyIndex ?? 0);
    // The name that was given up is free, the new one is not.
    await prepared.create(request("one"));
    await expect(prepared.create(request("TWO"))).rejects.toMatchObject({
      code: "conflict",
      message: "name 'TWO' aliases an existing query name",
    });
    await prepared.delete(id);
    expect(prepared.list(directory.view()).map(({ name }) => name)).toEqual(["one"]);
    await prepared.create(request("two"));
    for (const gone of [() => prepared.delete(id), () => prepared.update(id, request(""))])
      await expect(gone()).rejects.toMatchObject({
        code: "not-found",
        message: `Cannot modify non-existent prepared query: '${id}'`,
      });
    expect([...directory.view().list("kept", keyOf.ofKind("query-name"))]).toHaveLength(2);
  });

  test.each<[PreparedRequest, string]>([
    [request(""), "Must be bound to a session"],
    [request("x", { service: "" }), "Must provide a Service name to query"],
    [request("x", { failover: { nearest: -1 } }), "Bad NearestN '-1', must be >= 0"],
    [request("x", { failover: { nearest: 1, targets: [{ peer: "p" }] } }), "Targets cannot be populated with"],
    [request("x", { nodeLabels: { "a b": "c" } }), "Couldn't load metadata pair ('a b', 'c'): Key contains invalid"],
    [request("x", {}, { ttl: "long" }), "Bad DNS TTL 'long': time: invalid duration \"long\""],
    [request("x", {}, { ttl: "-1500ms" }), "DNS TTL '-1500000000', must be >=0"],
    [request("x", {}, { token: "<hidden>" }), "Bad Token '<hidden>'"],
  ])("refuses what makes no sense: %#", async (wrong, text) => {
    await expect(prepared.create(wrong)).rejects.toMatchObject({ code: "invalid" });
    await expect(prepared.create(wrong)).rejects.toThrow(text);
  });

  test.each<[PreparedRequest, string]>([
    [request("", {}, { session: "s9" }), 'invalid session "s9"'],
    [request("x", {}, { template: { type: "nope", pattern: "", removeEmptyTags: false } }), "Bad Template.Type 'nope'"],
    [request("x", {}, template("[")), "failed compiling template: Bad Regexp: error parsing regexp: missing closing ]"],
    [request("x", { tags: ["a", "${"] }, template()), "Bad format '${' in Service.Tags[1]: parse error at 1:3"],
    [request("x", { labels: { k: "${no}" } }, template()), "Bad evaluation for '${no}' in Service.ServiceMeta[k]: "],
    [request("x", { service: "${1}" }, template()), "Expected Service.Service field to be a string"],
  ])("refuses what does not fit to the rest: %#", async (wrong, text) => {
    await expect(prepared.create(wrong)).rejects.toMatchObject({ code: "conflict" });
    await expect(prepared.create(wrong)).rejects.toThrow(text);
  });

  test("with a session: they go together, their name as well", async () => {
    const { directory } = here;
    await directory.write([sessionChange("s1")]);
    await prepared.create(request("bound", {}, { session: "s1" }));
    await prepared.create(request("", {}, { session: "s1" }));
    expect(prepared.list(directory.view())).toHaveLength(2);
    await directory.write([{ op: "delete", table: "session", key: "s1" }]);
    expect(directory.view().count("kept")).toBe(0);
    expect(resolved("bound")).toBeUndefined();
  });
});

describe("which query a name means", () => {
  test("its ID, its own name, else the template with the longest beginning", async () => {
    const id = await prepared.create(request("static"));
    await prepared.create(request("geo-", { service: "geo" }, template()));
    await prepared.create(request("Geo-eu-", { service: "eu" }, template()));
    await prepared.create(request("geo-eu-x"));
    expect(resolved(id)?.name).toBe("static");
    expect(resolved("STATIC")?.name).toBe("static");
    expect(resolved("other")).toBeUndefined();
    expect(["geo-web", "geo-eu-web", "geo-eu-x", "GEO-EU-"].map((name) => resolved(name)?.service.service)).toEqual([
      "geo",
      "eu",
      "web",
      "eu",
    ]);
    await prepared.create(request("", { service: "any" }, template()));
    await expect(prepared.create(request("", {}, template()))).rejects.toThrow(
      "a query template with an empty name already exists",
    );
    expect(resolved("other")?.service.service).toBe("any");
    await expect(prepared.create(request(id))).rejects.toThrow(`name '${id}' aliases an existing query ID`);
    expect(() => resolved("")).toThrow("Missing Query ID");
  });

  test("templates are filled in, and are not there under their ID", async () => {
    const id = await prepared.create(
      request(
        "geo-",
        {
          service: "${match(1)}",
          tags: ["${match(2)}", "${match(3)}", "$${x}", "${name.prefix}|${name.suffix}|${name.full}${agent.segment}"],
          near: "${match(9)}_agent",
          labels: { "${kept}": "${match(2)}" },
          failover: { nearest: 0, datacenters: ["dc-${match(2)}"] },
        },
        template("^geo-(.*?)-([^\\-]+?)$", true),
      ),
    );
    expect(resolved("geo-web-api-v1")).toMatchObject({
      id,
      name: "geo-",
      service: {
        service: "web-api",
        tags: ["v1", "${x}", "geo-|web-api-v1|geo-web-api-v1"],
        near: "_agent",
        labels: { "${kept}": "v1" },
        failover: { datacenters: ["dc-v1"] },
      },
    });
    expect(resolved("GEO-web")?.service.service).toBe("");
    expect(() => resolved(id)).toThrow("prepared query templates can only be resolved up by name, not by ID");
  });

  test("patterns that would hang others, and names of any length, are answered", async () => {
    await prepared.create(request("a", { service: "x${match(1)}" }, template("^(a+)+(a|a)*(.*)(.*)(.*)b$")));
    expect(resolved("a".repeat(900))?.service.service).toBe("x");
    expect(resolved("a".repeat(60_000))?.service.service).toBe("x");
  });
});

describe("carrying out", () => {
  test("leaves out who does not fit", async () => {
    expect(await run({})).toEqual(["w1", "w2"]);
    expect(await run({ onlyPassing: true })).toEqual(["w1"]);
    expect(await run({ tags: ["V1", "!OLD"] })).toEqual(["w1"]);
    expect(await run({ tags: ["blue"] })).toEqual(["w1"]);
    expect(await run({ tags: [""] })).toEqual([]);
    expect(await run({ labels: { env: "prod" } })).toEqual(["w1"]);
    expect(await run({ labels: { toString: "x" } })).toEqual([]);
    expect(await run({ ignoreChecks: ["c3"] })).toEqual(["w1", "w2", "w3"]);
    expect(await run({ ignoreChecks: ["c3"], onlyPassing: true })).toEqual(["w1", "w3"]);
    expect(await run({ ignoreChecks: ["none"] })).toEqual(["w1", "w2"]);
    expect(await run({ connect: true })).toEqual([]);
    expect(await run({}, { connect: true })).toEqual([]);
    expect(await run({ service: "nobody" })).toEqual([]);
    expect(await run({}, { limit: 1 })).toHaveLength(1);
    expect(await prepared.execute("nobody's", {})).toBeUndefined();
    expect(prepared.executeNow("nobody's", {})).toBeUndefined();
  });

  test("leaves out who drains, also where checks are ignored", async () => {
    await here.directory.write([serviceChange("n1", "w1", "web", { draining: true })]);
    expect(await run({ ignoreChecks: ["x"] })).toEqual(["w2"]);
    expect(await run({})).toEqual(["w2"]);
  });

  test("begins near whom is wanted", async () => {
    const first = async (service: Partial<PreparedService>, options = {}) => {
      const id = await prepared.create(request(`n${Math.random()}`, service));
      return prepared.executeNow(id, options)?.endpoints[0]?.resident.node.name;
    };
    for (let i = 0; i < 8; i++) {
      expect(await first({ near: "n2" })).toBe("n2");
      expect(await first({ near: "n2" }, { near: "n1" })).toBe("n1");
      expect(await first({ near: "_agent" })).toBe("n2");
      expect(await first({ near: "_ip" }, { asker: "192.0.2.1" })).toBe("n1");
    }
    const anyhow = new Set<string | undefined>();
    for (let i = 0; i < 30; i++) anyhow.add(await first({ near: "_ip" }, { asker: "198.51.100.1" }));
    expect(anyhow).toEqual(new Set(["n1", "n2"]));
  });

  test("asks elsewhere where nobody here is there", async () => {
    const asked: string[] = [];
    const away: Answer = { endpoints: [], fresh: true, ageMs: 0, known: false, index: 1 };
    const lookup: Pick<Lookup, "resolve" | "resolveNow"> = {
      resolveNow: (query) => here.lookup.resolveNow(query),
      async resolve(query) {
        asked.push(`${query.datacenter}`);
        if (query.datacenter === "dead") throw new TrilithError("unavailable", "nobody there");
        return query.datacenter === "DC3" ? here.lookup.resolveNow({ service: "web", order: "stable" }) : away;
      },
    };
    prepared = await preparedWith({ lookup, datacenters: ["dc2", "dead", "DC3", "dc4"] });
    const tell = async (service: Partial<PreparedService>) => {
      asked.length = 0;
      const id = await prepared.create(request(`f${Math.random()}`, { service: "gone", ...service }));
      const { datacenter, peer, failovers, ...answer } = (await prepared.execute(id, {})) as PreparedAnswer;
      return { asked: asked.join(), datacenter, peer, failovers, ids: idsOf(answer as PreparedAnswer) };
    };
    const nobody = { asked: "", datacenter: "dc1", peer: "", failovers: 0, ids: [] };
    expect(await tell({})).toEqual(nobody);
    expect(await tell({ failover: { nearest: 0, datacenters: ["unknown", "dc1"] } })).toEqual(nobody);
    expect(await tell({ failover: { nearest: 2, datacenters: ["dc2", "dc3", "dc4"] } })).toEqual({
      asked: "dc2,dead,DC3",
      datacenter: "DC3",
      peer: "",
      failovers: 3,
      ids: ["w1", "w2"],
    });
    const targets = [{ peer: "p" }, { datacenter: "dc3" }];
    expect(await tell({ tags: ["!old"], failover: { nearest: 0, targets } })).toMatchObject({
      failovers: 2,
      ids: ["w1"],
    });
    expect(await tell({ failover: { nearest: 0, targets: [{ peer: "p" }] } })).toEqual({
      ...nobody,
      ...{ datacenter: "", peer: "p", failovers: 1 },
    });
    expect((await tell({ service: "web", failover: { nearest: 2 } })).asked).toBe("");
  });
});

test("no name is given away twice by processes that share a store", async () => {
  for (const seed of [1, 2, 3]) {
    const store = new SimulatedStore(seed, { turns: 5, repeat: 0.2, snapshot: 0.1, unavailable: 0.02 });
    const hosts = await Promise.all(
      [1, 2, 3].map(async () => {
        const directory = createDirectory(store.client(), {
          ...{ clock: systemClock, random: systemRandom, log: silentLog, metrics: createMetrics() },
        });
        await directory.start();
        await directory.ready();
        return { directory, own: await preparedWith({ directory, random: systemRandom }) };
      }),
    );
    const results = await Promise.allSettled(
      Array.from({ length: 10 }, (_, i) => `name${i}`).flatMap((name) =>
        hosts.map(({ own }) => own.create(request(name))),
      ),
    );
    store.heal();
    for (const { directory } of hosts) await directory.barrier();
    for (const { directory, own } of hosts) {
      const names = own.list(directory.view()).map(({ name }) => name);
      expect(new Set(names).size).toBe(names.length);
      expect(names.length).toBe(results.filter(({ status }) => status === "fulfilled").length);
    }
    for (const { directory } of hosts) await directory.stop();
  }
});
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: see above.
