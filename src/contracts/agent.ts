// Stone 2, the agent: this host's list of registrations and checks.
import type { Check, CheckSpec, Outcome, Status } from "../model/check.ts";
import type { Instance, Registration } from "../model/instance.ts";
import type { Node } from "../model/node.ts";
import type { Override } from "../model/override.ts";
import type { Reason } from "../model/reason.ts";
import type { Index } from "../model/record.ts";
import type { SourceList } from "./source.ts";

/** A check registered on its own: about the node (`serviceId` "") or about a service of this host. */
export interface CheckRegistration extends CheckSpec {
  readonly serviceId: string;
}

/** A service of this host as the agent holds it. */
export interface HeldService {
  readonly instance: Instance;
  /** What was asked for, without what overrides made of it. */
  readonly asked?: Registration;
  readonly checks: readonly CheckSpec[];
}

/** A check of this host as the agent holds it; newer than the directory's by what has not been carried over yet. */
export interface HeldCheck {
  readonly check: Check;
  readonly spec: CheckSpec;
  /** The last results, newest first, at most 16. */
  readonly history: readonly { readonly atMs: number; readonly status: Status; readonly output: string }[];
}

/** An instance on an external node, as one of its witnesses holds it. */
export interface HeldOutside {
  readonly instance: Instance;
  /** What was asked for, without what overrides made of it. */
  readonly asked: Registration;
  /** The checks that this host asks; empty where another witness does. */
  readonly checks: readonly HeldCheck[];
  /** False where it said goodbye elsewhere, although this host's source still lists it. */
  readonly stands: boolean;
}

/** An override as the agent holds it, with what it changes at present. */
export interface HeldOverride extends Override {
  /** The source whose list states it; absent where somebody set it at run time. */
  readonly from?: string;
  readonly matches: readonly {
    readonly id: string;
    /** What the service is called by its source. */
    readonly service: string;
    readonly from: string;
    readonly hidden: boolean;
    readonly text?: string;
  }[];
}

/**
 * This host's list. Registering resolves when the host's list is durable (and, with an embedded store, the directory too);
 * carrying it to a shared directory is anti-entropy and never blocks a caller. Each registration belongs to the `from` that made it;
 * another `from` with the same id takes it over only from a lower rank (file < docker/process/other sources < api), else `conflict`.
 */
export interface Agent {
  /** This host's node record. */
  readonly node: Node;
  /**
   * Registers or replaces one service. `replaceChecks` (default false) drops checks that the registration does not name.
   * @throws TrilithError `invalid`, `conflict`, `not-allowed` (a check that may not be asked), and as `Durable.write`
   */
  register(from: string, r: Registration, options?: { readonly replaceChecks?: boolean }): Promise<void>;
  /**
   * What one `from` registered and a higher rank deregisters (a container's service, by the API) stays away although the source still lists
   * it: until the source lists it in another form, `restate`, or the next start of the agent. @throws TrilithError `not-found`
   */
  deregister(from: string, id: string, why?: Reason): Promise<void>;
  /** Takes a source's whole list: what is missing from it and was `from`'s is gone. Resolves when the host's list is durable. */
  adopt(from: string, whole: SourceList): Promise<void>;
  /** Takes the last list of a source (of all) as if nothing of it had been deregistered or taken away by others: a reload. */
  restate(from?: string): Promise<void>;
  /** Registers or replaces one check, of a service or ("") of the node. @throws TrilithError `not-found` (unknown service), `invalid`, `not-allowed`, `conflict` */
  registerCheck(from: string, check: CheckRegistration): Promise<void>;
  /** Takes a check away. @throws TrilithError `not-found`, `conflict` (somebody else's) */
  deregisterCheck(from: string, id: string): Promise<void>;
  /**
   * A pushed result. A check with a `ttlMs` runs out so long after its last result, also where the agent was away meanwhile.
   * @throws TrilithError `not-found` (unknown check), `invalid` (not a check that is pushed)
   */
  report(checkId: string, outcome: Outcome): Promise<void>;
  /** Puts a service ("" = the node) out of routing with a reason, or back. @throws TrilithError `not-found` */
  maintenance(serviceId: string, on: boolean, reason?: string): Promise<void>;
  /**
   * Marks a service as on its way out (or not after all): out of every routable lookup at once, until it is taken back, the service goes,
   * or another thing (`foreignId`) comes under its id. A drain somebody asked for (`why.code` "draining", "maintenance") is kept over
   * restarts; one that was seen ("stopped" …) is not: who sees it says it again.
   */
  drain(serviceId: string, draining: boolean, why: Reason): Promise<void>;
  /**
   * Says something about a service, by its instance's id, its name or its container's name or ID, in place of what its source says; added
   * to what was said about the same before. Kept until it is undone; resolves when it holds here. Whatever it is about need not be there.
   * @throws TrilithError `invalid`: a word that means nothing, or cannot hold for what is there
   */
  override(target: string, words: readonly string[], by: string): Promise<HeldOverride>;
  /** Undoes everything that was said about the target at run time. False if nothing was. */
  undoOverride(target: string): Promise<boolean>;
  /** What operators say at present, and of which instances it holds. */
  overrides(): readonly HeldOverride[];
  /** This host's list, by instance ID. */
  services(): ReadonlyMap<string, HeldService>;
  /** What this host's sources list on external nodes. */
  outside(): readonly HeldOutside[];
  /** The checks of this host's list and of its node, by check ID. */
  checks(): ReadonlyMap<string, HeldCheck>;
  /** Resolves when this host's list or the checks' statuses changed since `after`; the number counts from 1 and belongs to this process. */
  changed(after: Index, signal: AbortSignal): Promise<Index>;
  /** The number of the present state, for `changed`. */
  version(): Index;
  /** Resolves when everything held so far is in the directory. */
  synced(signal?: AbortSignal): Promise<void>;
  /** Reasons, newest first, at most 64 kept per service name: what came and went here and why. */
  history(service: string): readonly { readonly atMs: number; readonly id: string; readonly text: string }[];
  /** Complaints of the sources: what could not be taken over, and why. */
  complaints(): readonly { readonly from: string; readonly about: string; readonly text: string }[];
}
