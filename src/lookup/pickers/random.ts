// The random order: every endpoint comes first as often as its share of all weights says.
import type { Random } from "../../base/random.ts";
import type { Endpoint } from "../../model/query.ts";
import type { Picker } from "./picker.ts";

/** A weighted shuffle. Weight 0 comes after everything that has a weight, in random order among its like. */
export const random: Picker = (endpoints, limit, context) => weightedShuffle(endpoints, limit, context.random);

/** See `random`. */
export function weightedShuffle(endpoints: readonly Endpoint[], limit: number, source: Random): readonly Endpoint[] {
  const count = endpoints.length;
  const wanted = Math.min(limit, count);
  if (wanted === 0) return [];
  if (count === 1) return endpoints;
  const weight = (endpoints[0] as Endpoint).weight;
  return endpoints.every((endpoint) => endpoint.weight === weight)
    ? evenShuffle(endpoints, wanted, source)
    : unevenShuffle(endpoints, wanted, source);
}

/** Fisher-Yates, stopped when enough have been drawn. */
function evenShuffle(endpoints: readonly Endpoint[], wanted: number, source: Random): readonly Endpoint[] {
  const drawn = endpoints.slice();
  const last = drawn.length - 1;
  for (let i = 0; i < wanted && i < last; i++) {
    const j = i + source.below(drawn.length - i);
    const a = drawn[i] as Endpoint;
    drawn[i] = drawn[j] as Endpoint;
    drawn[j] = a;
  }
  drawn.length = wanted;
  return drawn;
}

/** Weights of 0 wait longer than any other: far above every exponential waiting time. */
const LAST = 1e300;

/** Weighted draws without replacement as a race of exponential waiting times (Efraimidis and Spirakis 2006). */
function unevenShuffle(endpoints: readonly Endpoint[], wanted: number, source: Random): readonly Endpoint[] {
  const waiting = new Float64Array(endpoints.length);
  const order: number[] = [];
  for (const [i, { weight }] of endpoints.entries()) {
    const fraction = source.fraction();
    waiting[i] = weight > 0 ? -Math.log(1 - fraction) / weight : LAST * (1 + fraction);
    order.push(i);
  }
  order.sort((a, b) => (waiting[a] as number) - (waiting[b] as number));
  order.length = wanted;
  return order.map((i) => endpoints[i] as Endpoint);
}
