// A check (the fact about health), the way to ask for it (spec), and one result (outcome).
import type { Origin } from "./instance.ts";

/** Health, from best to worst. */
export type Status = "passing" | "warning" | "critical";

/** Consecutive results needed before the status changes; 0 = the first one counts. */
export interface Thresholds {
  readonly successBeforePassing: number;
  readonly failuresBeforeWarning: number;
  readonly failuresBeforeCritical: number;
}

/** How to ask "alive?": what a source or caller wants to be checked. Times in milliseconds. */
export interface CheckSpec {
  /** Unique on its node. "" = named by the agent: `service:<id>`, with `:<n>` when there are several. */
  readonly id: string;
  /** "" = named by the agent: "Service '<name>' check". */
  readonly name: string;
  readonly notes: string;
  /** "http", "tcp", "ttl", "script", … the probe that understands `detail`; "ttl" is pushed, "none" never changes by itself. */
  readonly kind: string;
  /** What the probe's `parse` returned for this check. */
  readonly detail: unknown;
  /** Between two questions; 0 where nothing is asked. */
  readonly intervalMs: number;
  /** 0 = the probe's default. */
  readonly timeoutMs: number;
  /** For kind "ttl": without a report for so long the check turns critical. */
  readonly ttlMs?: number;
  readonly initial?: Status;
  readonly thresholds?: Partial<Thresholds>;
  /** Critical for so long: the service is deregistered. */
  readonly deregisterAfterMs?: number;
  /** Bytes of output kept; 4096 unless told. */
  readonly outputMaxBytes?: number;
  /** The dialect's own words for this check, handed back unchanged (Consul's check definition). */
  readonly foreign?: Readonly<Record<string, unknown>>;
}

/** A check as it stands in the directory. */
export interface Check {
  readonly id: string;
  /** The node's name. */
  readonly node: string;
  readonly name: string;
  readonly status: Status;
  readonly notes: string;
  readonly output: string;
  /** "" = the check is about the whole node. */
  readonly serviceId: string;
  /** Consul's type word: "http", "tcp", "ttl", "script" …; "" for serfHealth and external checks. */
  readonly type: string;
  /** How often it is asked and how long that may take; absent where nothing is asked. */
  readonly intervalMs?: number;
  readonly timeoutMs?: number;
  readonly origin?: Origin;
  readonly foreign?: Readonly<Record<string, unknown>>;
}

/** One result of one question. */
export interface Outcome {
  readonly status: Status;
  readonly output: string;
  /** True where thresholds must not soften it (a script that timed out or could not start). */
  readonly final?: boolean;
}

const RANK: Record<Status, number> = { passing: 0, warning: 1, critical: 2 };

/** The worse of two statuses. */
export function worse(a: Status, b: Status): Status {
  return RANK[a] >= RANK[b] ? a : b;
}

/**
 * What a check says: in the words of the agent that runs it, where it holds the check (`held`) with the same status. The directory is told
 * of an output that changed alone only now and then.
 */
export function newestOutput(check: Check, held: Check | undefined): string {
  return held !== undefined && held.status === check.status && held.node.toLowerCase() === check.node.toLowerCase()
    ? held.output
    : check.output;
}

/** The worst status of some checks; no checks = passing. */
export function worst(checks: Iterable<{ readonly status: Status }>): Status {
  let result: Status = "passing";
  for (const check of checks) result = worse(result, check.status);
  return result;
}

/** The check that says whether a node's agent lives (Consul's spelling). */
export const NODE_ALIVE_CHECK = "serfHealth";
/** What that check says of a node whose agent is not heard of (Consul's words). */
export const NODE_DEAD_OUTPUT = "Agent not live or unreachable";
/** The source of that check where the node did not write it itself; its `foreignId` is since when, in milliseconds since the epoch. */
export const NODE_DEAD_SOURCE = "liveness";
/** The check that puts a whole node into maintenance (Consul's spelling). */
export const NODE_MAINTENANCE_CHECK = "_node_maintenance";
/** The check that puts one service into maintenance, with the service's ID behind it (Consul's spelling). */
export const SERVICE_MAINTENANCE_CHECK = "_service_maintenance:";
