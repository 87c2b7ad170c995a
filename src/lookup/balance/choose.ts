// Chooses among backends by docs/balancing.md; pure but for the randomness it is given.
import type { Random } from "../../base/random.ts";
import type { Policy } from "./balancer.ts";
import { fractionOf } from "./hash.ts";
import { latelyOf, type Memory, shareOf } from "./memory.ts";

const FRESH_MS = 30_000;
const NOISE_MS = 0.25;
const GOLDEN = 0.618033988749895;

/** A backend as the choice sees it. */
export interface Candidate {
  readonly weight: number;
  readonly tier: number;
  readonly suspect: boolean;
  /** Of address and port. */
  readonly hash: number;
  readonly memory: Memory;
}

/** One choice's circumstances. */
export interface Choice {
  readonly policy: Policy;
  /** Hash of the caller, for "sticky". */
  readonly caller: number;
  /** For "round-robin": one more with every order of the service; the fall-backs take none. */
  readonly turn: number;
  readonly nowMs: number;
  readonly random: Pick<Random, "fraction">;
}

/** Indices in the order in which they are to be tried, at most `limit`. */
export function chooseOrder(candidates: readonly Candidate[], choice: Choice, limit: number): number[] {
  const groups = new Map<number, number[]>();
  for (const [i, candidate] of candidates.entries()) {
    const group = groupOf(candidate, choice);
    const members = groups.get(group);
    if (members === undefined) groups.set(group, [i]);
    else members.push(i);
  }
  const order: number[] = [];
  for (const group of [...groups.keys()].sort((a, b) => a - b)) {
    const members = groups.get(group) as number[];
    while (members.length > 0 && order.length < limit) {
      const at = members.length === 1 ? 0 : chooseOne(candidates, members, choice);
      order.push(members[at] as number);
      members.splice(at, 1);
    }
  }
  return order;
}

/** Which group a candidate belongs to in this choice; lower ones come first. */
function groupOf(candidate: Candidate, { policy, caller, nowMs, random }: Choice): number {
  let out = candidate.suspect;
  if (!out) {
    const share = shareOf(candidate.memory, nowMs);
    if (share < 1) out = (policy === "sticky" ? fractionOf(caller, candidate.hash, 1) : random.fraction()) >= share;
  }
  return (out ? 6 : 0) + (candidate.weight === 0 ? 3 : 0) + Math.min(2, candidate.tier);
}

/** The place in `members` of the one chosen. */
function chooseOne(candidates: readonly Candidate[], members: readonly number[], choice: Choice): number {
  const group = members.map((i) => candidates[i] as Candidate);
  switch (choice.policy) {
    case "p2c":
      return byTwo(group, choice);
    case "random":
      return drawn(group, choice.random);
    case "round-robin":
      return inTurn(group, choice.turn);
    case "least":
      return leastLoaded(group, choice);
    case "first":
      return 0;
    case "sticky":
      return stuck(group, choice.caller);
  }
}

/** In a group of weight 0 each counts as 1. */
const weightOf = ({ weight }: Candidate): number => (weight === 0 ? 1 : weight);

const totalOf = (group: readonly Candidate[]): number => group.reduce((sum, each) => sum + weightOf(each), 0);

/** The member at a place in [0, total) on the line of weights. */
function memberAt(group: readonly Candidate[], place: number): number {
  let rest = place;
  for (let i = 0; i < group.length; i++) {
    rest -= weightOf(group[i] as Candidate);
    if (rest < 0) return i;
  }
  return 0;
}

function drawn(group: readonly Candidate[], random: Pick<Random, "fraction">): number {
  return memberAt(group, random.fraction() * totalOf(group));
}

function byTwo(group: readonly Candidate[], { nowMs, random }: Choice): number {
  const one = drawn(group, random);
  const other = drawn(group, random);
  if (one === other) return one;
  const time = (i: number): number => timeOf((group[i] as Candidate).memory, nowMs);
  const unknown = time(one) > 0 && time(other) > 0 ? 0 : medianOf(group, nowMs);
  const cost = (i: number): number => (time(i) || unknown) * (1 + (group[i] as Candidate).memory.consecutiveFailures);
  return cost(other) < cost(one) ? other : one;
}

/** Smoothed connect time in milliseconds, not below the machine's noise; 0 = unknown, or too old to count. */
function timeOf({ connectMs, changedAtMs }: Memory, nowMs: number): number {
  return connectMs === 0 || changedAtMs + FRESH_MS <= nowMs ? 0 : Math.max(connectMs, NOISE_MS);
}

/** The lower median of the known times; 1 where none is known. */
function medianOf(group: readonly Candidate[], nowMs: number): number {
  const known = group.map(({ memory }) => timeOf(memory, nowMs)).filter((time) => time > 0);
  return known.sort((a, b) => a - b)[(known.length - 1) >> 1] ?? 1;
}

function inTurn(group: readonly Candidate[], turn: number): number {
  const common = group.reduce((divisor, each) => gcd(weightOf(each), divisor), 0);
  const round = totalOf(group) / common;
  let stride = 1;
  if (round > group.length) {
    // Unequal weights: steps of the golden section of the round spread each one's turns out.
    stride = Math.max(1, Math.floor(round * GOLDEN));
    while (gcd(stride, round) !== 1) stride++;
  }
  return memberAt(group, (((turn % round) * stride) % round) * common);
}

function gcd(a: number, b: number): number {
  let x = a;
  let y = b;
  while (y !== 0) [x, y] = [y, x % y];
  return x;
}

function leastLoaded(group: readonly Candidate[], { nowMs, random }: Choice): number {
  let chosen = 0;
  let least = Number.POSITIVE_INFINITY;
  let equals = 0;
  for (const [i, each] of group.entries()) {
    const weight = weightOf(each);
    const load = (latelyOf(each.memory, nowMs) + each.memory.open) / weight;
    if (load > least) continue;
    equals = load < least ? weight : equals + weight;
    least = load;
    if (random.fraction() * equals < weight) chosen = i;
  }
  return chosen;
}

/** Rendezvous hashing with weights [Schindelhauer and Schomaker 2005]. */
function stuck(group: readonly Candidate[], caller: number): number {
  let chosen = 0;
  let highest = -1;
  for (const [i, each] of group.entries()) {
    const score = -weightOf(each) / Math.log(fractionOf(caller, each.hash, 0));
    if (score <= highest) continue;
    highest = score;
    chosen = i;
  }
  return chosen;
}
