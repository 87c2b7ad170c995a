// Distances by Serf's formula, and what "near" makes of them.
import fc from "fast-check";
import { expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { testDirectory } from "../../../test/support/directory.ts";
import { type Change, keyOf } from "../../model/record.ts";
import { COORDINATES, type Coordinate, coordinateId, distanceS, nearestFirst, ORIGIN } from "./coordinates.ts";

const number = fc.double({ min: -10, max: 10, noNaN: true });
const coordinate: fc.Arbitrary<Coordinate> = fc.record({
  Vec: fc.array(number, { minLength: 8, maxLength: 8 }),
  Error: fc.constant(1.5),
  Adjustment: number,
  Height: fc.double({ min: 0, max: 1, noNaN: true }),
});

it("a distance is the same in both directions and never negative", () => {
  fc.assert(
    fc.property(coordinate, coordinate, (a, b) => {
      expect(distanceS(a, b)).toBe(distanceS(b, a));
      expect(distanceS(a, b)).toBeGreaterThanOrEqual(0);
    }),
  );
  const at = (Adjustment: number, x = 0): Coordinate => ({
    ...ORIGIN,
    Height: 0,
    Vec: [x, 0, 0, 0, 0, 0, 0, 0],
    Adjustment,
  });
  // 1.1 - 0.1 - 1 is 0, and 1.1 - 1 - 0.1 is 8e-17.
  expect(distanceS(at(-0.1), at(-1, 1.1))).toBe(distanceS(at(-1, 1.1), at(-0.1)));
});

it("as Serf computes it", () => {
  const at = (x: number, more: Partial<Coordinate> = {}): Coordinate => ({
    ...ORIGIN,
    Vec: [x, 0, 0, 0, 0, 0, 0, 0],
    ...more,
  });
  expect(distanceS(at(0), at(0.3))).toBeCloseTo(0.30002, 9);
  expect(distanceS(at(0, { Height: 0.1 }), at(0.3, { Height: 0.2 }))).toBeCloseTo(0.6, 9);
  expect(distanceS(at(0, { Adjustment: -0.1 }), at(0.3))).toBeCloseTo(0.20002, 9);
  // An adjustment beyond the distance itself does not count.
  expect(distanceS(at(0, { Adjustment: -1 }), at(0.3))).toBeCloseTo(0.30002, 9);
  expect(distanceS(at(0), undefined)).toBe(Number.POSITIVE_INFINITY);
  expect(distanceS(at(0), { ...ORIGIN, Vec: [1] })).toBe(Number.POSITIVE_INFINITY);
});

it("the node itself first, then by distance, those without coordinates last and in their order", async () => {
  const directory = testDirectory(fakeClock());
  const node = (name: string): Change => ({
    op: "put",
    table: "node",
    key: keyOf.node(name),
    value: { id: "", name, address: "10.0.0.1", datacenter: "dc1", taggedAddresses: {}, labels: {} },
  });
  const place = (name: string, x: number): Change => {
    const id = coordinateId(name, "");
    const value = { node: name, segment: "", coordinate: { ...ORIGIN, Vec: [x, 0, 0, 0, 0, 0, 0, 0] } };
    return { op: "put", table: "kept", key: keyOf.kept(COORDINATES, id), value: { kind: COORDINATES, id, value } };
  };
  await directory.write([
    ...["a", "A/b", "B", "c", "x", "y"].map(node),
    ...[place("a", 0), place("A/b", 9), place("B", 2), place("c", 1), place("gone", 0.1)],
  ]);
  const names = ["x", "B", "y", "A/b", "c", "a", "gone"];
  const near = (name: string): readonly string[] => nearestFirst(directory.view(), name, names, (one) => one);
  expect(near("")).toEqual(names);
  expect(near("A")).toEqual(["a", "c", "B", "A/b", "x", "y", "gone"]);
  expect(near("y")).toEqual(["y", "x", "B", "A/b", "c", "a", "gone"]);
  expect(near("nobody")).toEqual(names);
});
