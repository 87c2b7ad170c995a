// One way to ask "alive?".
import type { Outcome } from "../model/check.ts";

/** What is being asked: the service's address and port as far as the check's own detail does not name another. */
export interface Target {
  readonly address: string;
  readonly port: number;
}

/**
 * A way to ask. `run` never throws for a sick target (that is an outcome), obeys the signal at once, and leaves nothing behind.
 * Pushed health (TTL, container HEALTHCHECK) uses `Agent.report` instead.
 */
export interface Probe<D = unknown> {
  readonly kind: string;
  /** Used where a check names no time-out. */
  readonly defaultTimeoutMs: number;
  /** Checks and normalises a check's detail. @throws TrilithError `invalid` that says which key and what would be right */
  parse(raw: unknown): D;
  run(detail: D, target: Target, signal: AbortSignal): Promise<Outcome>;
}
