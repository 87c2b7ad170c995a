// How near an instance is to a host, and over what it is reached: facts for those who choose backends.
import type { Resident } from "./instance.ts";
import type { Node } from "./node.ts";

/** The label of a node that names its zone. */
const ZONE_LABEL = "zone";

/** 0 on the same host, 1 in the same zone (the nodes' label `zone`), 2 elsewhere. */
export function tierOf({ instance, node }: Resident, own: Pick<Node, "name" | "labels">): 0 | 1 | 2 {
  if (instance.node.toLowerCase() === own.name.toLowerCase()) return 0;
  const zone = own.labels[ZONE_LABEL];
  return zone !== undefined && zone !== "" && node.labels[ZONE_LABEL] === zone ? 1 : 2;
}

/** What an instance says of its transport, by the tags that Registrator gives: only UDP, only TCP, or nothing. */
export function transportOf({ instance: { tags } }: Resident): "udp" | "tcp" | undefined {
  const udp = tags.includes("udp");
  const tcp = tags.includes("tcp");
  return udp === tcp ? undefined : udp ? "udp" : "tcp";
}
