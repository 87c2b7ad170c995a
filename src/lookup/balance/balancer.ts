// What a balancer is: the interface by which everything that dials chooses a backend and tells how it went.
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { ConnectPolicy, Backend as Listed } from "../../contracts/connect.ts";
import type { Neighbours } from "./neighbours.ts";

/** How a backend is chosen; docs/balancing.md. */
export type Policy = ConnectPolicy;

/** What the balancer needs of a backend. Weights are whole numbers from 0. */
export interface Backend extends Listed {
  /** True where the agent itself found it refusing: only when nothing else is left. */
  readonly suspect?: boolean;
}

/** A backend in the order in which it is to be tried. */
export interface Target<B extends Backend = Backend> {
  readonly service: string;
  readonly backend: B;
  /** The backend's port, or the caller's own where it has none. */
  readonly port: number;
}

export interface OrderOptions {
  /** Default "p2c". */
  readonly policy?: Policy;
  /** Who connects, for "sticky"; without it all callers are the same one. */
  readonly caller?: string;
  /** The port of backends that tell none. */
  readonly port?: number;
  /** Most targets wanted, at least 1; default 16. Each costs time in proportion to the list. */
  readonly limit?: number;
}

/** How one try went: connected after so many milliseconds, or the system's error code ("ECONNREFUSED" …). */
export type Outcome = { readonly ok: true; readonly tookMs: number } | { readonly ok: false; readonly code: string };

/** Chooses backends by what was seen of them. One per agent or program; everything is synchronous, nothing is started. */
export interface Balancer {
  /**
   * The backends in the order in which they are to be tried: first the chosen one, then the fall-backs. Empty only for no backends.
   * `service` names the list: round-robin turns are counted by it, and what it no longer lists is forgotten. Quick where the list is the
   * same object as before; such a list must not be changed.
   */
  order<B extends Backend>(service: string, backends: readonly B[], options?: OrderOptions): readonly Target<B>[];
  /** Tells how a try went. Codes that say nothing about the backend (EMFILE, EADDRNOTAVAIL …) change nothing. */
  report(target: Target, outcome: Outcome): void;
  /** A connection to it is open from now on; to be followed by one `closed`. */
  opened(target: Target): void;
  closed(target: Target): void;
  /** What is remembered, for statistics. */
  seen(): readonly Seen[];
}

/** What is remembered of one backend. */
export interface Seen {
  readonly address: string;
  readonly port: number;
  readonly connects: number;
  readonly failures: number;
  readonly consecutiveFailures: number;
  /** Smoothed time to connect; undefined = never connected. */
  readonly connectMs: number | undefined;
  /** Unix time; 0 = never ejected. */
  readonly ejectedUntilMs: number;
  readonly open: number;
  /** 1 unless it is ejected (0) or on its way back. */
  readonly share: number;
}

export interface BalancerGround {
  readonly clock: Pick<Clock, "now">;
  readonly random: Pick<Random, "fraction">;
  /** The user's other programs: what they see counts where this one has not looked of late, and they hear of what it sees. */
  readonly neighbours?: Neighbours;
}
