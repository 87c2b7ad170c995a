// A prepared query: a question for a service that is kept under a name, or a template for such questions.
import type { Labels } from "./node.ts";

/** Where to ask when nobody here answers: another datacenter, or a peer. One of the two is set. */
export interface FailoverTarget {
  readonly datacenter?: string;
  readonly peer?: string;
}

/** What a prepared query asks for. Within templates all texts may hold expressions ("${name.suffix}"). */
export interface PreparedService {
  readonly service: string;
  /** All of these tags, and none of those with "!" in front; ignoring case. */
  readonly tags?: readonly string[];
  readonly onlyPassing: boolean;
  /** IDs of checks that do not count. */
  readonly ignoreChecks?: readonly string[];
  /** A node from which the nearest are wanted first; "_agent" = the asked agent's, "_ip" = the one at the asker's address; "" = at random. */
  readonly near: string;
  readonly nodeLabels?: Labels;
  readonly labels?: Labels;
  readonly failover: {
    /** So many other datacenters are asked, the nearest first. */
    readonly nearest: number;
    /** And then these. */
    readonly datacenters?: readonly string[];
    /** Instead of `nearest` and `datacenters`. */
    readonly targets?: readonly FailoverTarget[];
  };
  /** Only instances that speak for a service mesh. */
  readonly connect: boolean;
  /** A peer's service instead of ours; "" = ours. */
  readonly peer: string;
}

/** A query or template as it is given. */
export interface PreparedRequest {
  /** "" only for templates (all names that no other template takes) and for queries bound to a session. */
  readonly name: string;
  /** It is there as long as this session is; "" = for ever. */
  readonly session: string;
  readonly token: string;
  readonly template?: {
    /** "name_prefix_match": for all names that begin with the template's. */
    readonly type: string;
    /** RE2 syntax; its groups are there as `${match(1)}`. */
    readonly pattern: string;
    readonly removeEmptyTags: boolean;
  };
  readonly service: PreparedService;
  /** How long DNS answers may be kept, as a Go duration; "" = as for the service. */
  readonly ttl: string;
}

/** A query in the directory. */
export interface PreparedQuery extends PreparedRequest {
  /** UUID. */
  readonly id: string;
}
