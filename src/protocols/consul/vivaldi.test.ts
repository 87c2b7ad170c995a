// Vivaldi beside Serf's own implementation, step by step; and what measurements of a made-up network come to.
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../../test/support/lookup.ts";
import { type Coordinate, distanceS, ORIGIN } from "./coordinates.ts";
import { createVivaldi, isValid, movedS } from "./vivaldi.ts";

interface Golden {
  readonly others: Readonly<Record<string, Coordinate>>;
  readonly steps: readonly { readonly peer: string; readonly rttMs: number; readonly after: Coordinate }[];
}
const golden = JSON.parse(
  readFileSync(new URL("../../../test/golden/serf/coordinate.json", import.meta.url), "utf8"),
) as Golden;
const middle = { fraction: () => 0.75 };

it("goes where Serf goes, observation by observation", () => {
  const vivaldi = createVivaldi(middle);
  expect(golden.steps).toHaveLength(30);
  for (const [i, { peer, rttMs, after }] of golden.steps.entries()) {
    vivaldi.observe(peer, golden.others[peer] as Coordinate, rttMs / 1000);
    const { coordinate } = vivaldi;
    // Serf counts distances in whole nanoseconds.
    expect(movedS(coordinate, after), `step ${i}`).toBeLessThan(1e-7);
    expect(coordinate.Error, `step ${i}`).toBeCloseTo(after.Error, 5);
  }
});

describe("a network", () => {
  /** Seconds between the sites of a made-up network. */
  const sites = ["here", "near", "far"] as const;
  const RTT_S = { "here-near": 0.002, "here-far": 0.06, "near-far": 0.061 } as const;
  const rtt = (a: string, b: string): number =>
    RTT_S[`${a}-${b}` as keyof typeof RTT_S] ?? RTT_S[`${b}-${a}` as keyof typeof RTT_S];

  it("is found by its round trips, from nodes that all begin in one place", () => {
    const random = seededRandom(7);
    const nodes = new Map(sites.map((site) => [site, createVivaldi(random)]));
    for (let round = 0; round < 400; round++)
      for (const a of sites)
        for (const b of sites) {
          if (a === b) continue;
          const noise = 1 + (random.fraction() - 0.5) / 10;
          nodes.get(a)?.observe(b, nodes.get(b)?.coordinate ?? ORIGIN, rtt(a, b) * noise);
        }
    for (const a of sites)
      for (const b of sites) {
        if (a === b) continue;
        const found = distanceS(nodes.get(a)?.coordinate, nodes.get(b)?.coordinate);
        expect(Math.abs(found - rtt(a, b)), `${a} ${b}`).toBeLessThan(0.2 * rtt(a, b) + 0.001);
        expect(nodes.get(a)?.coordinate.Error).toBeLessThan(0.5);
      }
  });
});

it("takes a blip for what it is: the median of three counts", () => {
  const other: Coordinate = { ...ORIGIN, Vec: [0.01, 0, 0, 0, 0, 0, 0, 0] };
  const [calm, shaken] = [createVivaldi(middle), createVivaldi(middle)];
  for (const vivaldi of [calm, shaken]) for (let i = 0; i < 2; i++) vivaldi.observe("p", other, 0.01);
  calm.observe("p", other, 0.01);
  shaken.observe("p", other, 5);
  expect(shaken.coordinate).toEqual(calm.coordinate);
  shaken.keepOnly(new Set());
  shaken.observe("p", other, 5);
  expect(movedS(shaken.coordinate, calm.coordinate)).toBeGreaterThan(0.01);
});

it("stays somewhere, whatever it is told", () => {
  const wild = fc.oneof(fc.double(), fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, 0, -1, 1e308));
  const coordinate = fc.record({
    Vec: fc.array(wild, { minLength: 7, maxLength: 9 }),
    Error: wild,
    Adjustment: wild,
    Height: wild,
  });
  fc.assert(
    fc.property(fc.array(fc.tuple(coordinate, wild), { maxLength: 20 }), (observed) => {
      const vivaldi = createVivaldi(middle);
      for (const [other, rttS] of observed) {
        vivaldi.observe("p", other, rttS);
        expect(isValid(vivaldi.coordinate)).toBe(true);
      }
    }),
  );
});
