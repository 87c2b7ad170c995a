// An override: what an operator says about a service in place of what its source says, and what it was before.
import type { ServiceFacts } from "./instance.ts";

/** What is said about everything that is called so: an instance's id, a service's name, a container's name. */
export interface Override {
  readonly for: string;
  /** `name=shop`, `tags+=a,b`, `tags-=c`, `tags=d`, `weight=5`, `port=80`, `address=10.0.0.1`, `label.k=v`, `check=http:/health`, `hidden` … */
  readonly set: readonly string[];
  /** Who said so: a person and where from, or a file and line. */
  readonly by: string;
  /** When, in milliseconds since the epoch; absent for what a file says. */
  readonly atMs?: number;
}

/** What overrides did to a registration. */
export interface Overridden {
  /** Those that had a say, in the order in which they were applied. */
  readonly by: readonly Override[];
  /** What it was before, as far as it was changed. */
  readonly original: Partial<ServiceFacts>;
}
