// A node's place in the network, found by measuring round trips to others: Vivaldi with heights, adjustment and gravity, as Serf does it. Pure.
//
// Sources: Dabek et al., "Vivaldi: A Decentralized Network Coordinate System" (2004); Ledlie et al., "Network Coordinates in the Wild" (2007);
// Lee et al., "On Suitability of Euclidean Embedding for Host-based Network Coordinate Systems" (2010). Constants: Serf's coordinate package.
import type { Random } from "../../base/random.ts";
import { type Coordinate, DIMENSIONS, distanceS, ORIGIN } from "./coordinates.ts";

const ERROR_MAX = 1.5;
/** How much one observation may change the confidence, and the place. */
const CE = 0.25;
const CC = 0.25;
const ADJUSTMENT_WINDOW = 20;
const HEIGHT_MIN_S = 10e-6;
/** Of the last round trips to a peer the median counts: a blip alone moves nothing. */
const MEDIAN_OF = 3;
const GRAVITY_RHO = 150;
/** Below this two places are one, and a round trip counts as that long, in seconds. */
const ZERO_S = 1e-6;
/** Round trips beyond this say more about a host that hangs than about the network. */
const RTT_MAX_S = 10;

/** One node's own estimate. */
export interface Vivaldi {
  readonly coordinate: Coordinate;
  /** Starts over from a place that was told. */
  adopt(coordinate: Coordinate): void;
  /** A round trip to `peer`, which stands at `other`, took `rttS` seconds. What cannot be is not taken. */
  observe(peer: string, other: Coordinate, rttS: number): void;
  /** Forgets the peers that are not named. */
  keepOnly(peers: ReadonlySet<string>): void;
}

/** Starts at the origin. `random` decides the direction where two nodes stand in one place. */
export function createVivaldi(random: Pick<Random, "fraction">): Vivaldi {
  let own = ORIGIN;
  const latest = new Map<string, readonly number[]>();
  const offsets = new Array<number>(ADJUSTMENT_WINDOW).fill(0);
  let offsetAt = 0;

  const median = (peer: string, rttS: number): number => {
    const samples = [...(latest.get(peer) ?? []), rttS].slice(-MEDIAN_OF);
    latest.set(peer, samples);
    return samples.toSorted((a, b) => a - b)[samples.length >> 1] as number;
  };

  /** Pushed away from `other` by `force` (towards it when negative). */
  const pushed = (from: Coordinate, force: number, other: Coordinate): Coordinate => {
    const { unit, length } = direction(from.Vec, other.Vec, random);
    const Vec = from.Vec.map((x, i) => x + (unit[i] as number) * force);
    const Height =
      length > ZERO_S
        ? Math.max(HEIGHT_MIN_S, ((from.Height + other.Height) * force) / length + from.Height)
        : from.Height;
    return { ...from, Vec, Height };
  };

  return {
    get coordinate() {
      return own;
    },
    adopt(coordinate) {
      own = isValid(coordinate) ? coordinate : ORIGIN;
    },
    observe(peer, other, rttS) {
      if (!isValid(other) || !(rttS >= 0 && rttS <= RTT_MAX_S)) return;
      const rtt = Math.max(ZERO_S, median(peer, rttS));
      const distance = distanceS(own, other);
      const wrongness = Math.abs(distance - rtt) / rtt;
      const weight = own.Error / Math.max(ZERO_S, own.Error + other.Error);
      const confidence = CE * weight;
      const doubt = Math.min(ERROR_MAX, confidence * wrongness + own.Error * (1 - confidence));
      let next = pushed({ ...own, Error: doubt }, CC * weight * (rtt - distance), other);
      // What no place can explain: an access link that is slow in one way only, a detour.
      offsets[offsetAt] = rtt - rawS(next, other);
      offsetAt = (offsetAt + 1) % ADJUSTMENT_WINDOW;
      next = { ...next, Adjustment: offsets.reduce((sum, one) => sum + one, 0) / (2 * ADJUSTMENT_WINDOW) };
      // All of them together must not drift away from the origin.
      next = pushed(next, -((distanceS(ORIGIN, next) / GRAVITY_RHO) ** 2), ORIGIN);
      own = isValid(next) ? next : ORIGIN;
    },
    keepOnly(peers) {
      for (const peer of latest.keys()) if (!peers.has(peer)) latest.delete(peer);
    },
  };
}

/** How far a coordinate moved, in seconds: the way, and what its height and adjustment changed by. */
export function movedS(from: Coordinate, to: Coordinate): number {
  return (
    Math.hypot(...from.Vec.map((x, i) => x - (to.Vec[i] ?? 0))) +
    Math.abs(from.Height - to.Height) +
    Math.abs(from.Adjustment - to.Adjustment)
  );
}

/** Whether a coordinate can be reckoned with. */
export function isValid({ Vec, Error: doubt, Adjustment, Height }: Coordinate): boolean {
  return Vec.length === DIMENSIONS && [...Vec, doubt, Adjustment, Height].every(Number.isFinite);
}

/** The distance without adjustments. */
function rawS(a: Coordinate, b: Coordinate): number {
  return distanceS({ ...a, Adjustment: 0 }, { ...b, Adjustment: 0 });
}

/** From `b` to `a`; some direction, of length 0, where they stand in one place. */
function direction(
  a: readonly number[],
  b: readonly number[],
  random: Pick<Random, "fraction">,
): { readonly unit: readonly number[]; readonly length: number } {
  const difference = a.map((x, i) => x - (b[i] ?? 0));
  const length = Math.hypot(...difference);
  if (length > ZERO_S) return { unit: difference.map((x) => x / length), length };
  const chance = a.map(() => random.fraction() - 0.5);
  const size = Math.hypot(...chance);
  return { unit: size > ZERO_S ? chance.map((x) => x / size) : a.map((_, i) => (i === 0 ? 1 : 0)), length: 0 };
}
