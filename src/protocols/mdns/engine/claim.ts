// One claim at all its places: it stands where it stands everywhere, and what contradicts it at one place is answered at all.
import type { Clock } from "../../../base/clock.ts";
import type { Link } from "./link.ts";
import { type Spec, Standing } from "./standing.ts";

/** So many conflicts within so long mean that something is broken: slower from then on [RFC 6762 §8.1]. */
const CONFLICTS = 15;
const CONFLICTS_WITHIN_MS = 10_000;
const PATIENCE_MS = 5000;

export class Claim {
  readonly #clock: Clock;
  readonly #standings = new Map<Link, Standing>();
  readonly #spec: Spec;
  #conflicts: number[] = [];

  /** `spec` without `patienceMs`, which is counted here. */
  constructor(clock: Clock, spec: Omit<Spec, "patienceMs">) {
    this.#clock = clock;
    this.#spec = {
      sharedOnHost: spec.sharedOnHost,
      records: (link) => spec.records(link),
      changed: () => spec.changed(),
      conflict: (name) => {
        const now = this.#clock.monotonic();
        this.#conflicts = [...this.#conflicts.filter((at) => now - at < CONFLICTS_WITHIN_MS), now];
        spec.conflict(name);
      },
      patienceMs: () => {
        const now = this.#clock.monotonic();
        return this.#conflicts.filter((at) => now - at < CONFLICTS_WITHIN_MS).length >= CONFLICTS ? PATIENCE_MS : 0;
      },
    };
  }

  /** True where there are places, and it stands at all of them. */
  get settled(): boolean {
    for (const standing of this.#standings.values()) if (!standing.settled) return false;
    return this.#standings.size > 0;
  }

  at(link: Link): Standing | undefined {
    return this.#standings.get(link);
  }

  /** A place came. */
  add(link: Link): void {
    const standing = new Standing(link, this.#spec);
    this.#standings.set(link, standing);
    standing.sync();
  }

  /** A place went; nothing can be said there any more. */
  remove(link: Link): void {
    this.#standings.get(link)?.close(false);
    this.#standings.delete(link);
    this.#spec.changed();
  }

  /** The spec wants other records than before. */
  sync(): void {
    for (const standing of this.#standings.values()) standing.sync();
  }

  /** Over, with a goodbye. */
  close(): void {
    for (const standing of this.#standings.values()) standing.close(true);
    this.#standings.clear();
  }
}
