// What is remembered of one backend, and what an outcome does to it (docs/balancing.md).
import type { Random } from "../../base/random.ts";

/** So long a backend takes to come back after an ejection. */
export const RETURN_MS = 10_000;
const LONGEST_EJECTION_MS = 30_000;
const HALF_LIFE_MS = 10_000;
const LEAST_SHARE = 1 / 16;

/** The errors that speak of the backend; all others speak of this host or of the caller. */
export const FAILURES: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EHOSTDOWN",
  "ENETDOWN",
]);

/** One backend's past. Times are Unix milliseconds. */
export interface Memory {
  readonly address: string;
  readonly port: number;
  connects: number;
  failures: number;
  consecutiveFailures: number;
  /** Smoothed; 0 = unknown. */
  connectMs: number;
  ejectedUntilMs: number;
  changedAtMs: number;
  /** Tries, faded to `latelyAtMs`. */
  lately: number;
  latelyAtMs: number;
  open: number;
  /** How many services list it. */
  listed: number;
}

/** A backend of which nothing is known yet. */
export function newMemory(address: string, port: number): Memory {
  return {
    address,
    port,
    connects: 0,
    failures: 0,
    consecutiveFailures: 0,
    connectMs: 0,
    ejectedUntilMs: 0,
    changedAtMs: 0,
    lately: 0,
    latelyAtMs: 0,
    open: 0,
    listed: 0,
  };
}

function isEjected(memory: Memory, nowMs: number): boolean {
  return memory.ejectedUntilMs > nowMs && memory.ejectedUntilMs - nowMs <= LONGEST_EJECTION_MS;
}

/** How often a backend takes part: 0 ejected, 1 whole, between while it comes back. */
export function shareOf(memory: Memory, nowMs: number): number {
  if (isEjected(memory, nowMs)) return 0;
  if (memory.ejectedUntilMs === 0 || memory.ejectedUntilMs > nowMs) return 1;
  return Math.min(1, Math.max(LEAST_SHARE, (nowMs - memory.ejectedUntilMs) / RETURN_MS));
}

/** A try reached it, in `tookMs`: its ejection ends. */
export function connected(memory: Memory, tookMs: number, nowMs: number): void {
  memory.connects++;
  memory.consecutiveFailures = 0;
  // Never 0, which is "unknown".
  const time = Math.max(tookMs, 0.001);
  memory.connectMs = memory.connectMs === 0 ? time : (memory.connectMs * 3 + time) / 4;
  if (isEjected(memory, nowMs)) memory.ejectedUntilMs = nowMs;
  memory.changedAtMs = nowMs;
}

/** A try failed with a system error code: it is ejected, twice as long each time. A code that says nothing about the backend changes nothing. */
export function failed(memory: Memory, code: string, nowMs: number, random: Pick<Random, "fraction">): void {
  if (!FAILURES.has(code)) return;
  memory.failures++;
  if (isEjected(memory, nowMs)) return;
  memory.consecutiveFailures++;
  const longest = Math.min(LONGEST_EJECTION_MS, 1000 * 2 ** (memory.consecutiveFailures - 1));
  memory.ejectedUntilMs = nowMs + Math.floor(longest * (1 - random.fraction() / 5));
  memory.changedAtMs = nowMs;
}

/** The tries of late, faded to now; what is left of one try after seven half-lives is nothing. */
export function latelyOf(memory: Memory, nowMs: number): number {
  if (memory.lately === 0) return 0;
  const faded = memory.lately * 2 ** (-Math.max(0, nowMs - memory.latelyAtMs) / HALF_LIFE_MS);
  return faded < 1 / 128 ? 0 : faded;
}

/** A try begins: it counts among those of late. */
export function tried(memory: Memory, nowMs: number): void {
  memory.lately = latelyOf(memory, nowMs) + 1;
  memory.latelyAtMs = nowMs;
}
