// A node: a host (or an outside thing treated like one) on which instances live.
import type { Origin } from "./instance.ts";
import type { Index } from "./record.ts";

/** Key=value pairs: Consul Meta, Minidisc labels, DNS-SD TXT pairs. Objects made from input have no prototype. */
export type Labels = Readonly<Record<string, string>>;

/** A host in the directory. Names are unique ignoring case; a clash of `id` or name is an error. */
export interface Node {
  /** UUID, or "" for an external node that never told one. */
  readonly id: string;
  readonly name: string;
  /** IP address or host name under which the node is reached. */
  readonly address: string;
  readonly datacenter: string;
  /** Further addresses by role: `lan`, `wan`, `lan_ipv4` … */
  readonly taggedAddresses: Labels;
  readonly labels: Labels;
  /** True where no Trilith agent lives on the node: nobody's liveness stands for it. */
  readonly external?: boolean;
  /** For an external node that a source's list brought in: it goes with its last instance. */
  readonly origin?: Origin;
  /** Of an external node's instances, those that agents see second-hand: each stands as long as one of its witnesses. Ordered by `service`. */
  readonly witnessed?: readonly Witnessed[];
  /** For a node that was renamed: where it stood on the line of changes when it was first entered, under its earlier name. */
  readonly enteredAt?: Index;
}

/** One instance on an external node and the agents whose source lists it. */
export interface Witnessed {
  /** The instance's id on the node. */
  readonly service: string;
  /** The source that lists it, the same at all witnesses. */
  readonly source: string;
  /** What the source calls it. */
  readonly foreignId?: string;
  /** The witnesses' node names, in order. */
  readonly by: readonly string[];
}
