// What is asked of the lookup, and what it answers.
import type { Resident } from "./instance.ts";
import type { Labels } from "./node.ts";
import type { Index } from "./record.ts";

/** A question for endpoints of one service. */
export interface Query {
  readonly service: string;
  /** All of these tags, compared ignoring case. */
  readonly tags?: readonly string[];
  /** All of these labels with these values. */
  readonly labels?: Labels;
  /** Only this datacenter; this one's own when absent. */
  readonly datacenter?: string;
  /** `routable` (default): passing or warning, not draining. `passing`: passing only. `any`: everything recorded, for listings. */
  readonly health?: "routable" | "passing" | "any";
  /** The asker's IP address, so that an address on its network can be picked. */
  readonly asker?: string;
  /**
   * The family of address asked for (4 = A, 6 = AAAA), whatever the asker's own is: an address of it where an instance has one that the
   * asker reaches at the same port; else the address that is given without it, which may be of the other family.
   */
  readonly family?: 4 | 6;
  /** The order of the answer: a picker's name; default "random". */
  readonly order?: "random" | "stable" | "near";
  /** At most so many endpoints; all unless told. */
  readonly limit?: number;
}

/** Given to a caller: where to connect. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
  /** Its share beside the others: the instance's weight for its health; 0 = only listed. */
  readonly weight: number;
  readonly resident: Resident;
  /** True while the guard keeps it in answers although its source no longer lists it. */
  readonly held?: boolean;
}

/** The answer to a query. */
export interface Answer {
  readonly endpoints: readonly Endpoint[];
  /** False = the last one known good: the source is away or restarting. */
  readonly fresh: boolean;
  /** Milliseconds since the answer was known to be true; 0 when fresh. */
  readonly ageMs: number;
  /** True where the name is known at all: NODATA against NXDOMAIN. */
  readonly known: boolean;
  readonly index: Index;
  /** Set while a guard keeps old endpoints in the answer. */
  readonly held?: { readonly sinceMs: number; readonly text: string };
  /** True where too few instances are healthy (the service's panic threshold), so that unhealthy ones are answered as well. */
  readonly panic?: boolean;
}

/** Why an instance is, or is not, in an answer. */
export interface Verdict {
  readonly resident: Resident;
  readonly included: boolean;
  /** For people: "critical: check 'service:web' says …", "held by the sharp-drop guard since …". */
  readonly text: string;
  /** Set where it is only the last known good: how old (milliseconds), and who does not answer, and why. */
  readonly stale?: { readonly ageMs: number; readonly text: string };
}
