// How near an instance is to a host, and over what it is reached: facts for those who choose backends.
import type { Resident } from "./instance.ts";
import type { Node } from "./node.ts";

/** The label that names a zone, of an instance or its node. */
const ZONE_LABEL = "zone";

/** Where an instance is: by its own label `zone`, Consul's Locality, or its node's label; undefined = nobody says. */
function zoneOf({ instance, node }: Resident): string | undefined {
  const locality = instance.foreign?.["Locality"] as
    | { readonly Zone?: unknown; readonly zone?: unknown }
    | null
    | undefined;
  const zone = locality?.Zone ?? locality?.zone;
  const told = typeof zone === "string" && zone !== "" ? zone : undefined;
  return instance.labels[ZONE_LABEL] ?? told ?? node.labels[ZONE_LABEL];
}

/** 0 on the same host, 1 in the same zone (this host's is its node's label `zone`), 2 elsewhere. */
export function tierOf(resident: Resident, own: Pick<Node, "name" | "labels">): 0 | 1 | 2 {
  if (resident.instance.node.toLowerCase() === own.name.toLowerCase()) return 0;
  const zone = own.labels[ZONE_LABEL];
  return zone !== undefined && zone !== "" && zoneOf(resident) === zone ? 1 : 2;
}

/** What an instance says of its transport, by the tags that Registrator gives: only UDP, only TCP, or nothing. */
export function transportOf({ instance: { tags } }: Resident): "udp" | "tcp" | undefined {
  const udp = tags.includes("udp");
  const tcp = tags.includes("tcp");
  return udp === tcp ? undefined : udp ? "udp" : "tcp";
}
