// Records on their way through a Consul's catalog: what comes back is the same to Consul as what was sent, and nothing is sent that it refuses.
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Check, NODE_ALIVE_CHECK } from "../../model/check.ts";
import type { Instance } from "../../model/instance.ts";
import type { Node } from "../../model/node.ts";
import { type Change, keyOf } from "../../model/record.ts";
import type { Json } from "../../wire/consul-catalog.ts";
import { checkFrom, gist, instanceFrom, nodeFrom, operationOf } from "./consul-wire.ts";

const text = fc.string({ minLength: 1, maxLength: 10 }).filter((each) => !each.includes("\u0000"));
const labels = fc.dictionary(text, fc.string(), { maxKeys: 3, noNullPrototype: false });
const origin = { source: "api", authority: "first-hand" } as const;
const node: fc.Arbitrary<Node> = fc
  .record({ id: fc.uuid(), name: text, address: fc.ipV4(), taggedAddresses: labels, labels, external: fc.boolean() })
  .map(({ external, ...rest }) => ({ ...rest, datacenter: "dc1", ...(external ? { external } : {}) }));
const instance: fc.Arbitrary<Instance> = fc
  .record({
    id: text,
    name: text,
    node: text,
    tags: fc.array(text, { maxLength: 3 }),
    labels,
    address: fc.oneof(fc.ipV4(), fc.ipV6(), fc.constant("")),
    port: fc.integer({ min: 0, max: 65_535 }),
    weights: fc.option(fc.record({ passing: fc.nat(9), warning: fc.nat(9) }), { nil: undefined }),
    enableTagOverride: fc.boolean(),
  })
  .map(({ weights, enableTagOverride, ...rest }) => ({
    ...rest,
    ...(weights === undefined ? {} : { weights }),
    ...(enableTagOverride ? { enableTagOverride } : {}),
    origin,
  }));
const check: fc.Arbitrary<Check> = fc.record({
  id: fc.oneof(text, fc.constant(NODE_ALIVE_CHECK)),
  node: text,
  name: fc.string(),
  status: fc.constantFrom("passing", "warning", "critical"),
  notes: fc.string(),
  output: fc.string(),
  serviceId: fc.string(),
  type: fc.string(),
});
const inner = (operation: Json | undefined, kind: string): Json => {
  const wrapped = JSON.parse(JSON.stringify(operation)) as Record<string, Record<string, Json>>;
  return wrapped[kind]?.[kind] ?? {};
};
const put = (change: object): Json | undefined =>
  operationOf({ op: "put", ...change } as Change, undefined, undefined, () => true);

describe("what comes back from a Consul", () => {
  it("tells who brought an external node in and who sees what there, whatever it is called", () => {
    const witnessed = fc.array(
      fc.record({
        service: fc.string({ minLength: 1, maxLength: 300, unit: "grapheme" }),
        source: fc.string({ minLength: 1 }),
        by: fc.array(fc.string({ minLength: 1 }), { maxLength: 4 }),
      }),
      { minLength: 1, maxLength: 5 },
    );
    fc.assert(
      fc.property(witnessed, (given) => {
        const value = {
          ...{ id: "", name: "printer", address: "192.0.2.7", datacenter: "dc1", taggedAddresses: {} },
          ...{ labels: { "external-node": "true" }, external: true as const, witnessed: given },
          origin: { source: "mdns", authority: "second-hand" as const },
        };
        const sent = inner(put({ table: "node", key: "printer", value }), "Node");
        for (const text of Object.values(sent["Meta"] as Record<string, string>))
          expect(Buffer.byteLength(text)).toBeLessThanOrEqual(512);
        const back = nodeFrom(sent);
        expect(back.witnessed).toEqual(given);
        expect(back.origin).toEqual(value.origin);
        expect({ ...back.labels }).toEqual(value.labels);
      }),
    );
    const spoilt = nodeFrom({ Node: "p", Meta: { "trilith-origin": "{", "trilith-witnessed-0": '[{"by":1}]' } });
    expect([spoilt.origin, spoilt.witnessed, { ...spoilt.labels }]).toEqual([undefined, undefined, {}]);
  });

  it("is the same node, service and check to it", () => {
    fc.assert(
      fc.property(node, (value) => {
        const back = nodeFrom(inner(put({ table: "node", key: keyOf.node(value.name), value }), "Node"));
        expect(gist("node", back, true)).toBe(gist("node", value, true));
        expect(back.external).toBe(value.external);
      }),
    );
    fc.assert(
      fc.property(instance, (value) => {
        const change = { table: "service", key: keyOf.service(value.node, value.id), value };
        const back = instanceFrom(value.node, inner(put(change), "Service"));
        expect(gist("service", back, true)).toBe(gist("service", value, true));
      }),
    );
    fc.assert(
      fc.property(check, (value) => {
        const back = checkFrom(inner(put({ table: "check", key: keyOf.check(value.node, value.id), value }), "Check"));
        expect(back.id).toBe(value.id);
        expect(gist("check", back, true).replace(/^\["[^"]*"/, "")).toBe(
          gist("check", value, true).replace(/^\["[^"]*"/, ""),
        );
      }),
    );
  });

  it("reads the recorded answers of Consul 1.19.2", () => {
    const url = new URL("../../../test/conformance/consul/expected/health-query.json", import.meta.url);
    const { steps } = JSON.parse(readFileSync(url, "utf8")) as { steps: Record<string, { json: Json[] }> };
    const first = steps["service"]?.json[0] ?? {};
    expect(nodeFrom(first["Node"] as Json)).toMatchObject({ name: "n1", address: "192.0.2.1", external: true });
    expect(instanceFrom("n1", first["Service"] as Json)).toEqual({
      node: "n1",
      id: "web1",
      name: "web",
      tags: ["a", "b"],
      labels: Object.create(null) as object,
      address: "",
      port: 80,
      weights: { passing: 1, warning: 1 },
      origin: { source: "catalog", authority: "second-hand", text: "told by a Consul server" },
    });
    expect((first["Checks"] as Json[]).map(checkFrom)).toMatchObject([
      { id: "host", serviceId: "", status: "passing" },
      { id: "w1", serviceId: "web1", output: "fine" },
    ]);
  });
});

describe("operations", () => {
  it("never call a check of a client host's node serfHealth", () => {
    fc.assert(
      fc.property(check, (given) => {
        const value = { ...given, id: NODE_ALIVE_CHECK };
        expect(inner(put({ table: "check", key: keyOf.check(value.node, value.id), value }), "Check")["CheckID"]).toBe(
          "trilith-alive",
        );
      }),
    );
  });

  it("name what is deleted by its ID and its name, and delete nothing that is not known", () => {
    const key = keyOf.service("N", "s");
    const change: Change = { op: "delete", table: "service", key };
    const before: Instance = { ...(fc.sample(instance, 1)[0] as Instance), node: "N", id: "s", name: "web" };
    expect(operationOf(change, before, undefined, () => true)).toEqual({
      Service: { Verb: "delete", Node: "N", Service: { ID: "s", Service: "web" } },
    });
    expect(operationOf(change, before, 7, () => true)).toEqual({
      Service: { Verb: "delete-cas", Node: "N", Service: { ID: "s", Service: "web", ModifyIndex: 7 } },
    });
    expect(operationOf(change, undefined, undefined, () => true)).toBeUndefined();
  });
});
