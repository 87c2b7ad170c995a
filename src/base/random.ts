// Randomness: the only door to it, so that tests can repeat a run.
import type Crypto from "node:crypto";

export interface Random {
  /** A number in [0, 1). */
  fraction(): number;
  /** An integer in [0, below). */
  below(below: number): number;
  uuid(): string;
  bytes(count: number): Uint8Array;
}

/** Loaded when it is needed: programs that only connect do without. */
const crypto = (): typeof Crypto => process.getBuiltinModule("node:crypto");

/** The system's randomness. `fraction` is fast and not for secrets; `uuid` and `bytes` are fit for them. */
export const systemRandom: Random = {
  fraction: () => Math.random(),
  below: (below) => Math.floor(Math.random() * below),
  uuid: () => crypto().randomUUID(),
  bytes: (count) => crypto().randomBytes(count),
};

/** Shuffles in place (Fisher-Yates) and returns the same array. */
export function shuffle<T>(items: T[], random: Pick<Random, "below">): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const a = items[i] as T;
    items[i] = items[j] as T;
    items[j] = a;
  }
  return items;
}

/** `ms` varied by up to `share` (0..1) in both directions. */
export function jitter(ms: number, share: number, random: Pick<Random, "fraction">): number {
  return ms * (1 + (random.fraction() * 2 - 1) * share);
}
