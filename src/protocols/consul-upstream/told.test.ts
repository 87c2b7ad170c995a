// What a real Consul was recorded to tell of instances, and what nobody should: each becomes a registration that can be held, or nothing.
import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { testDirectory } from "../../../test/support/directory.ts";
import { systemClock } from "../../base/clock.ts";
import type { UpstreamConfig } from "./config.ts";
import { isNews, originOf, placeOfTold, registrationOf, type Told, toldFrom } from "./told.ts";

const folder = new URL("../../../test/conformance/consul/expected/", import.meta.url);
const UPSTREAM: UpstreamConfig = { name: "up", urls: ["http://x:1"], prefix: "", tags: [], labels: {} };
const view = testDirectory(systemClock).view();

interface Recorded {
  readonly Node: { readonly Node: string; readonly Address: string };
  readonly Service: { readonly ID: string; readonly Service: string; readonly Port?: number; readonly Address: string };
  readonly Checks: readonly { readonly CheckID: string; readonly ServiceID: string; readonly Status: string }[];
}

/** Every entry of /v1/health/service and its kin among the recorded answers. */
function* recorded(): Generator<Recorded> {
  for (const name of readdirSync(folder)) {
    if (!name.endsWith(".json")) continue;
    const { steps = {} } = JSON.parse(readFileSync(new URL(name, folder), "utf8")) as {
      steps?: Record<string, { json?: unknown }>;
    };
    for (const { json } of Object.values(steps))
      for (const entry of Array.isArray(json) ? json : [])
        if (
          typeof entry?.Service?.ID === "string" &&
          typeof entry.Node?.Node === "string" &&
          Array.isArray(entry.Checks)
        )
          yield entry as Recorded;
  }
}

describe("what Consul tells", () => {
  const all = [...recorded()];
  it("was recorded often enough to mean something", () => {
    expect(all.length).toBeGreaterThan(5);
  });
  it("becomes what it is, one registration each", () => {
    for (const entry of all) {
      const told = toldFrom(entry) as Told;
      const made = registrationOf(told, UPSTREAM, view);
      const { Node, Service, Checks } = entry;
      expect(made).toMatchObject({
        ...{ id: Service.ID, name: Service.Service, port: Service.Port ?? 0, address: Service.Address || Node.Address },
        external: { node: { name: Node.Node, address: Node.Address } },
      });
      const sick = Checks.filter(({ ServiceID, Status }) => ServiceID !== "" || Status !== "passing");
      expect(made.checks.map(({ initial }) => initial).sort()).toEqual(sick.map(({ Status }) => Status).sort());
      expect(new Set(made.checks.map(({ id }) => id)).size).toBe(made.checks.length);
      expect(originOf("up", made)).toEqual({ service: Service.Service, place: placeOfTold(told) });
      expect(originOf("other", made)).toBeUndefined();
      expect(isNews(view, UPSTREAM)(told)).toBe(true);
    }
  });
  it("whatever names are like, is known again by them", () => {
    const name = fc.oneof(fc.string({ minLength: 1 }), fc.constantFrom("\ud800", "%0020", "a b", "\u2028", "%"));
    fc.assert(
      fc.property(name, name, name, (node, id, service) => {
        const told = toldFrom({
          Node: { Node: node, Address: "192.0.2.1" },
          Service: { ID: id, Service: service },
        }) as Told;
        const made = registrationOf(told, UPSTREAM, view);
        expect(originOf("up", made)).toEqual({ service, place: placeOfTold(told) });
        expect(made.external?.node.name).not.toMatch(/[\u0000-\u0020/]/);
      }),
    );
  });
  it("that is garbage is nothing, and never an error", () => {
    const anything = fc.anything({ withNullPrototype: true });
    fc.assert(
      fc.property(anything, fc.record({ Node: anything, Service: anything, Checks: anything }), (odd, entry) => {
        expect(toldFrom(odd)).toBeUndefined();
        const told = toldFrom(entry);
        if (told !== undefined) registrationOf(told, UPSTREAM, view);
      }),
    );
  });
});
