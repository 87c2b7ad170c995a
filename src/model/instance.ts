// An instance: one held registration of a service on a node, and the registration that asked for it.
import type { CheckSpec } from "./check.ts";
import type { Labels, Node } from "./node.ts";
import type { Overridden } from "./override.ts";
import type { Authority } from "./reason.ts";
import type { Entry } from "./record.ts";

/** From where an address can be reached. "overlay": from members of its `network` alone, on whichever host they are. */
export type Reach = "loopback" | "bridge" | "overlay" | "lan" | "tailnet" | "public";

/** One of an instance's addresses. `network` names the network it belongs to (a CIDR or a Docker network's name). */
export interface Address {
  readonly host: string;
  readonly port: number;
  readonly reach: Reach;
  readonly network?: string;
}

/** Who brought an instance in. */
export interface Origin {
  /** The source's name: "api", "docker", "file", "process", "catalog" … */
  readonly source: string;
  readonly authority: Authority;
  /** What the source itself calls it (container ID and port, pid and start time, znode); with `source` the identity over restarts. */
  readonly foreignId?: string;
  /** A sentence for people: "container web-1 (3f2a…), port 80/tcp". */
  readonly text?: string;
  /** Set where an operator overrides what the source says. */
  readonly overridden?: Overridden;
}

/** How often an instance is chosen beside the others, by its health; 1 unless told. Consul's Weights, SRV's weight [RFC2782]. */
export interface Weights {
  readonly passing: number;
  readonly warning: number;
}

/** A host and port under a role name (`lan`, `wan`, `lan_ipv4`, `virtual` …). */
export interface TaggedAddress {
  readonly address: string;
  readonly port: number;
}

/** What a registration and an instance have in common. */
export interface ServiceFacts {
  /** Unique on its node. */
  readonly id: string;
  readonly name: string;
  readonly tags: readonly string[];
  readonly labels: Labels;
  /** IP address or host name; "" = the node's address. */
  readonly address: string;
  /** 0 = no port. */
  readonly port: number;
  /** Further addresses, one of which a lookup may pick for the asker's network. */
  readonly addresses?: readonly Address[];
  readonly taggedAddresses?: Readonly<Record<string, TaggedAddress>>;
  readonly weights?: Weights;
  readonly socketPath?: string;
  /** True = tags may be changed in the catalog by others; the agent then takes them over. */
  readonly enableTagOverride?: boolean;
  /** On its way out: in no lookup, still registered. */
  readonly draining?: boolean;
  /** What only one dialect understands and must get back unchanged (Consul's Kind, Proxy, Connect, Locality …). */
  readonly foreign?: Readonly<Record<string, unknown>>;
}

/** A host or thing without an agent, as a source describes it. */
export interface ExternalNode {
  /** Made from the thing itself, so that every agent that sees it says the same. */
  readonly name: string;
  /** IP address or host name under which it is reached. */
  readonly address: string;
  readonly labels?: Labels;
}

/** Asked for: what a source or a caller wants to be registered on this host, or on an external node. */
export interface Registration extends ServiceFacts {
  readonly checks: readonly CheckSpec[];
  readonly foreignId?: string;
  /** Who asked, for people. */
  readonly text?: string;
  /** What it was made from, as its author wrote it: "env SERVICE_NAME=web"; for `why`, kept on its own host. */
  readonly words?: readonly string[];
  /**
   * Other names under which people know the thing, for overrides: first the one that it keeps when it is made anew (a container's name),
   * then others (a container's ID).
   */
  readonly aka?: readonly string[];
  /** Where it is another than that of the rest of its source's list: what this host says itself beside what others do. */
  readonly authority?: Authority;
  /** Set by the agent where overrides changed it, with all of what it was before. */
  readonly overridden?: Overridden & { readonly registration: Registration };
  /** Set where it is not this host's own: it is held on that node (see `SourceList`). */
  readonly external?: { readonly node: ExternalNode };
}

/** Held: what stands in the directory. */
export interface Instance extends ServiceFacts {
  /** The node's name. */
  readonly node: string;
  readonly origin: Origin;
}

/** An instance with what decides about it: its node and all checks that count for it (its own and the node's). */
export interface Resident {
  readonly instance: Entry<"service">;
  readonly node: Entry<"node">;
  readonly checks: readonly Entry<"check">[];
}

/** The address at which a resident is reached when nothing is known about the asker. */
export function addressOf(resident: { readonly instance: ServiceFacts; readonly node: Node }): string {
  return resident.instance.address === "" ? resident.node.address : resident.instance.address;
}

/** What a source calls a registration in `SourceList.gone`: its id, for one on an external node with the node in front ("node/id"). */
export function goneKeyOf(r: Pick<Registration, "id" | "external">): string {
  return r.external === undefined ? r.id : `${r.external.node.name.toLowerCase()}/${r.id}`;
}
