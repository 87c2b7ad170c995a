// What every picker promises, and what each adds: weights respected, nobody starved, limits kept, lists left alone.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { askerOf, createHere } from "../../src/lookup/address.ts";
import { pickers } from "../../src/lookup/pickers/index.ts";
import type { PickContext } from "../../src/lookup/pickers/picker.ts";
import type { Instance } from "../../src/model/instance.ts";
import type { Endpoint } from "../../src/model/query.ts";
import { serviceChange } from "../support/directory.ts";
import { INTERFACES, seededRandom } from "../support/lookup.ts";

const here = createHere(
  "home",
  () => INTERFACES,
  () => 0,
);
const context = (seed: number, asker?: string): PickContext => ({
  random: seededRandom(seed),
  asker: askerOf(asker, here),
  here,
});

function endpoint(id: string, weight: number, address = "10.1.0.9", node = { name: "far", address }): Endpoint {
  const change = serviceChange(node.name, id, "web", { address });
  return {
    address,
    port: 80,
    weight,
    resident: {
      instance: { ...((change.op === "put" ? change.value : undefined) as Instance), createIndex: 1, modifyIndex: 1 },
      node: { id: "", datacenter: "dc1", taggedAddresses: {}, labels: {}, createIndex: 1, modifyIndex: 1, ...node },
      checks: [],
    },
  };
}
const idOf = ({ resident }: Endpoint): string => resident.instance.id;

/** How often each comes first in `rounds` answers. */
function firsts(endpoints: readonly Endpoint[], rounds: number, seed: number): Map<string, number> {
  const counts = new Map(endpoints.map((each) => [idOf(each), 0]));
  const one = context(seed);
  for (let i = 0; i < rounds; i++) {
    const first = pickers.random(endpoints, Number.POSITIVE_INFINITY, one)[0] as Endpoint;
    counts.set(idOf(first), (counts.get(idOf(first)) ?? 0) + 1);
  }
  return counts;
}

describe.each(Object.entries(pickers))("%s", (_name, pick) => {
  it("gives each endpoint at most once, as many as asked for, and leaves the list alone", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 10 }), { maxLength: 30 }),
        fc.oneof(fc.integer({ min: 0, max: 40 }), fc.constant(Number.POSITIVE_INFINITY)),
        fc.integer(),
        (weights, limit, seed) => {
          const list = Object.freeze(weights.map((weight, i) => endpoint(`e${i}`, weight)));
          const picked = pick(list, limit, context(seed));
          expect(picked).toHaveLength(Math.min(limit, list.length));
          expect(new Set(picked).size).toBe(picked.length);
          expect(picked.every((each) => list.includes(each))).toBe(true);
        },
      ),
    );
  });
});

describe("random", () => {
  it("puts each first as often as its weight says", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 2, maxLength: 6 }),
        fc.integer(),
        (weights, seed) => {
          const rounds = 4000;
          const total = weights.reduce((a, b) => a + b, 0);
          const counts = firsts(
            weights.map((weight, i) => endpoint(`e${i}`, weight)),
            rounds,
            seed,
          );
          for (const [i, weight] of weights.entries()) {
            const share = weight / total;
            // Six standard deviations: a false alarm once in half a billion.
            const deviation = Math.sqrt(rounds * share * (1 - share));
            expect(Math.abs((counts.get(`e${i}`) ?? 0) - rounds * share)).toBeLessThan(6 * deviation);
          }
        },
      ),
      { numRuns: 25 },
    );
  });

  it("puts each in every place equally often when weights are equal, with and without a limit", () => {
    const list = ["a", "b", "c", "d"].map((id) => endpoint(id, 1));
    const rounds = 8000;
    for (const limit of [2, Number.POSITIVE_INFINITY]) {
      const one = context(3);
      const places = new Map<string, number>();
      for (let i = 0; i < rounds; i++)
        for (const [place, each] of pickers.random(list, limit, one).entries())
          places.set(`${idOf(each)}${place}`, (places.get(`${idOf(each)}${place}`) ?? 0) + 1);
      expect(places.size).toBe(4 * Math.min(limit, 4));
      for (const count of places.values())
        expect(Math.abs(count - rounds / 4)).toBeLessThan(6 * Math.sqrt((rounds * 3) / 16));
    }
  });

  it("starves nobody: a weight of 1 beside one of 65535 comes up, and second at once", () => {
    const list = [endpoint("small", 1), endpoint("large", 65_535)];
    expect(firsts(list, 400_000, 11).get("small")).toBeGreaterThan(0);
    expect(pickers.random(list, 2, context(1)).map(idOf)).toContain("small");
  });

  it("gives weight 0 only after everything with a weight, and in turns when there is nothing else", () => {
    const list = [endpoint("zero", 0), endpoint("a", 1), endpoint("b", 5)];
    for (let seed = 0; seed < 200; seed++)
      expect(idOf(pickers.random(list, Number.POSITIVE_INFINITY, context(seed))[2] as Endpoint)).toBe("zero");
    const zeros = firsts([endpoint("x", 0), endpoint("y", 0)], 1000, 5);
    expect(zeros.get("x")).toBeGreaterThan(300);
    expect(zeros.get("y")).toBeGreaterThan(300);
  });
});

describe("stable", () => {
  it("keeps the order it is given", () => {
    const list = ["a", "b", "c"].map((id) => endpoint(id, 1));
    expect(pickers.stable(list, Number.POSITIVE_INFINITY, context(1)).map(idOf)).toEqual(["a", "b", "c"]);
    expect(pickers.stable(list, 2, context(2)).map(idOf)).toEqual(["a", "b"]);
  });
});

describe("near", () => {
  const list = [
    endpoint("world", 1, "203.0.113.5"),
    endpoint("name", 1, "web.example", { name: "x", address: "also.example" }),
    endpoint("lan", 1, "10.1.7.7"),
    endpoint("nearby", 1, "10.2.0.5"),
    endpoint("self", 1, "10.1.0.1", { name: "home", address: "10.1.0.1" }),
  ];
  it.each([
    [undefined, ["self", "lan", "nearby"]],
    ["127.0.0.1", ["self", "lan", "nearby"]],
    ["10.1.9.9", ["lan", "self"]],
    ["203.0.113.9", ["world"]],
  ])("for %s", (asker, expected) => {
    const order = pickers.near(list, Number.POSITIVE_INFINITY, context(4, asker)).map(idOf);
    expect(order.slice(0, expected.length).sort()).toEqual([...expected].sort());
    if (asker === undefined || asker === "127.0.0.1") expect(order.slice(0, 3)).toEqual(expected);
    expect(order.at(-1)).toBe("name");
  });

  it("does not hold what is only registered on this host for this host's", () => {
    const home = { name: "home", address: "10.1.0.1" };
    const mixed = [
      endpoint("database", 1, "203.0.113.5", home),
      endpoint("lan", 1, "10.1.7.7"),
      endpoint("any", 1, "0.0.0.0", home),
    ];
    for (const asker of [undefined, "127.0.0.1"])
      expect(pickers.near(mixed, 9, context(4, asker)).map(idOf)).toEqual(["any", "lan", "database"]);
  });

  it("shuffles what is equally near by weight", () => {
    const equal = ["a", "b"].map((id) => endpoint(id, 1, "10.1.0.9"));
    const seen = new Set<string>();
    const one = context(9);
    for (let i = 0; i < 50; i++) seen.add(idOf(pickers.near(equal, 1, one)[0] as Endpoint));
    expect([...seen].sort()).toEqual(["a", "b"]);
  });
});
