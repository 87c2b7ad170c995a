// Why something is as it is: carried from where it is known to where somebody asks.

/** How sure a source is about what it does not list: first-hand absence is proof, second-hand absence is hearsay. */
export type Authority = "first-hand" | "second-hand";

/** Why a registration went or stands aside. `confirmed` = no guard may hold what went for this reason. */
export interface Reason {
  readonly code:
    | "deregistered"
    | "stopped"
    | "died"
    | "goodbye"
    | "missing"
    | "expired"
    | "node-removed"
    | "reaped"
    | "refused"
    | "draining"
    | "maintenance"
    | "replaced";
  /** A sentence for people: "container 3f2a… died with exit code 0". */
  readonly text: string;
  readonly confirmed: boolean;
  /** Milliseconds since the epoch. */
  readonly atMs: number;
}
