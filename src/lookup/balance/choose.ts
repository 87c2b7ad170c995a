// Chooses among backends by docs/balancing.md; pure but for the randomness it is given.
import { InputError } from "../../base/error.ts";
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
  // As a rule all are in one group.
  const groups: number[][] = [];
  for (let i = 0; i < candidates.length; i++) {
    const group = groupOf(candidates[i] as Candidate, choice);
    groups[group] ??= [];
    groups[group].push(i);
  }
  const order: number[] = [];
  for (let group = 0; group < groups.length && order.length < limit; group++) {
    const indices = groups[group];
    if (indices === undefined) continue;
    const members = indices.map((i) => candidates[i] as Candidate);
    const next = chooser(members, choice);
    while (members.length > 0 && order.length < limit) {
      const at = members.length === 1 ? 0 : next();
      order.push(indices[at] as number);
      members.splice(at, 1);
      indices.splice(at, 1);
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

/** Tells one place in `members` after the other; what was told is taken out of it between. */
function chooser(members: readonly Candidate[], choice: Choice): () => number {
  switch (choice.policy) {
    case "p2c":
      return byTwo(members, choice);
    case "random":
      return () => drawn(members, choice.random);
    case "round-robin":
      return () => inTurn(members, choice.turn);
    case "least":
      return byScore(members, leastLoad(choice));
    case "first":
      return () => 0;
    case "sticky":
      return byScore(members, rendezvous(choice.caller));
    default:
      // Programs without types say what they like.
      throw new InputError(
        "policy",
        `${JSON.stringify(choice.policy)}: expected one of p2c, round-robin, random, least, first, sticky`,
      );
  }
}

/** In a group of weight 0 each counts as 1. */
const weightOf = ({ weight }: Candidate): number => (weight === 0 ? 1 : weight);

function totalOf(members: readonly Candidate[]): number {
  let total = 0;
  for (const each of members) total += weightOf(each);
  return total;
}

/** The member at a place in [0, total) on the line of weights. */
function memberAt(members: readonly Candidate[], place: number): number {
  let rest = place;
  for (let i = 0; i < members.length; i++) {
    rest -= weightOf(members[i] as Candidate);
    if (rest < 0) return i;
  }
  return 0;
}

function drawn(members: readonly Candidate[], random: Pick<Random, "fraction">): number {
  return memberAt(members, random.fraction() * totalOf(members));
}

function byTwo(members: readonly Candidate[], { nowMs, random }: Choice): () => number {
  const time = (i: number): number => timeOf((members[i] as Candidate).memory, nowMs);
  return () => {
    const total = totalOf(members);
    const one = memberAt(members, random.fraction() * total);
    const other = memberAt(members, random.fraction() * total);
    if (one === other) return one;
    let [a, b] = [time(one), time(other)];
    if (a === 0 || b === 0) {
      const unknown = a === b ? 1 : medianOf(members, nowMs);
      a ||= unknown;
      b ||= unknown;
    }
    const failures = (i: number): number => (members[i] as Candidate).memory.consecutiveFailures;
    return b * (1 + failures(other)) < a * (1 + failures(one)) ? other : one;
  };
}

/** Smoothed connect time in milliseconds, not below the machine's noise; 0 = unknown, or too old to count. */
function timeOf({ connectMs, changedAtMs }: Memory, nowMs: number): number {
  return connectMs === 0 || changedAtMs + FRESH_MS <= nowMs ? 0 : Math.max(connectMs, NOISE_MS);
}

/** The lower median of the known times, of which there is one at least. */
function medianOf(members: readonly Candidate[], nowMs: number): number {
  const known = members.map(({ memory }) => timeOf(memory, nowMs)).filter((time) => time > 0);
  return known.sort((a, b) => a - b)[(known.length - 1) >> 1] as number;
}

function inTurn(members: readonly Candidate[], turn: number): number {
  let common = 0;
  for (const each of members) common = gcd(weightOf(each), common);
  const round = totalOf(members) / common;
  let stride = 1;
  if (round > members.length) {
    // Unequal weights: steps of the golden section of the round spread each one's turns out.
    stride = Math.max(1, Math.floor(round * GOLDEN));
    while (gcd(stride, round) !== 1) stride++;
  }
  return memberAt(members, (((turn % round) * stride) % round) * common);
}

function gcd(a: number, b: number): number {
  let x = a;
  let y = b;
  while (y !== 0) [x, y] = [y, x % y];
  return x;
}

/** The highest score first, of equal ones that with the higher second score. Both are asked for once. */
function byScore(
  members: readonly Candidate[],
  scoreOf: (member: Candidate) => readonly [number, number],
): () => number {
  const first: number[] = [];
  const second: number[] = [];
  for (const member of members) {
    const [score, another] = scoreOf(member);
    first.push(score);
    second.push(another);
  }
  return () => {
    let chosen = 0;
    for (let i = 1; i < first.length; i++) {
      const ahead = (first[i] as number) - (first[chosen] as number);
      if (ahead > 0 || (ahead === 0 && (second[i] as number) > (second[chosen] as number))) chosen = i;
    }
    first.splice(chosen, 1);
    second.splice(chosen, 1);
    return chosen;
  };
}

/** Fewest tries of late and open connections for its weight; equals in a race of exponential waiting times (Efraimidis and Spirakis 2006). */
function leastLoad({ nowMs, random }: Choice): (member: Candidate) => readonly [number, number] {
  return (member) => {
    const weight = weightOf(member);
    const load = (latelyOf(member.memory, nowMs) + member.memory.open) / weight;
    return [-load, Math.log(1 - random.fraction()) / weight];
  };
}

/** Rendezvous hashing with weights [Schindelhauer and Schomaker 2005]. */
function rendezvous(caller: number): (member: Candidate) => readonly [number, number] {
  return (member) => [-weightOf(member) / Math.log(fractionOf(caller, member.hash, 0)), 0];
}
