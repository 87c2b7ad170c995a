// One way to ask "alive?".
import type { Outcome } from "../model/check.ts";

/** What is being asked: the service's address and port as far as the check's own detail does not name another. */
export interface Target {
  readonly address: string;
  readonly port: number;
}

/** What a check allows its probe; for probes whose output says what was cut or how long was waited. */
export interface Limits {
  /** Bytes of the target's own words that may be kept. */
  readonly outputMaxBytes: number;
  /** How long the probe may take; the signal fires then, with a TrilithError `timeout` as its reason. */
  readonly timeoutMs: number;
}

/** The limits of a check that names none. */
export const defaultLimits: Limits = { outputMaxBytes: 4096, timeoutMs: 10_000 };

/**
 * A way to ask. `run` never throws for a sick target (that is an outcome), obeys the signal at once, and leaves nothing behind.
 * It throws `Shortage` where this host lacks what asking takes (descriptors, memory, processes): nothing is known then, and the check stays as it is.
 * Pushed health (TTL, container HEALTHCHECK) uses `Agent.report` instead.
 */
export interface Probe<D = unknown> {
  readonly kind: string;
  /** True = asking is a datagram and a wait, so that thousands may be under way at once. */
  readonly light?: boolean;
  /** Used where a check names no time-out. */
  readonly defaultTimeoutMs: number;
  /** Checks and normalises a check's detail; what it returns survives JSON, so that it can be kept over restarts. @throws TrilithError `invalid` that says which key and what would be right */
  parse(raw: unknown): D;
  run(detail: D, target: Target, signal: AbortSignal, limits?: Limits): Promise<Outcome>;
}
