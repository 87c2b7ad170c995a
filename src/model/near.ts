// How near an instance is to a host, and over what it is reached: facts for those who choose backends.
import { addressOf, type Resident } from "./instance.ts";
import type { Node } from "./node.ts";

/** The label that names a zone, of an instance or its node. */
const ZONE_LABEL = "zone";

/** Where an instance is by its own words: its label `zone`, or Consul's Locality; undefined = it does not say. */
function ownZoneOf({ instance }: Resident): string | undefined {
  const locality = instance.foreign?.["Locality"] as
    | { readonly Zone?: unknown; readonly zone?: unknown }
    | null
    | undefined;
  const zone = locality?.Zone ?? locality?.zone;
  const told = typeof zone === "string" && zone !== "" ? zone : undefined;
  return instance.labels[ZONE_LABEL] ?? told;
}

/**
 * True where an instance only stands on its node for somebody else, as an external database does that was registered there: its address is
 * neither its node's nor among those that its source found. `isOwn`: whether an IP address is the node's host's own, or a container's there.
 */
export function isElsewhere(resident: Resident, address: string, isOwn: (address: string) => boolean): boolean {
  const { instance, node } = resident;
  if (instance.address === "" || address === node.address) return false;
  if (instance.addresses?.some(({ host }) => host === address) === true) return false;
  const [name, host] = [node.name.toLowerCase(), addressOf(resident).toLowerCase()];
  if (host === "localhost" || host === name || host.startsWith(`${name}.`)) return false;
  return !isOwn(address);
}

/**
 * 0 on the same host, 1 in the same zone (this host's is its node's label `zone`), 2 elsewhere. `address`: where it is reached; `isOwn`: whether an
 * IP address is this host's own, or a container's here (`ownAddresses`).
 */
export function tierOf(
  resident: Resident,
  own: Pick<Node, "name" | "labels">,
  address: string,
  isOwn: (address: string) => boolean,
): 0 | 1 | 2 {
  const isHere = resident.instance.node.toLowerCase() === own.name.toLowerCase();
  const away = isHere && isElsewhere(resident, address, isOwn);
  if (isHere && !away) return 0;
  const zone = own.labels[ZONE_LABEL];
  // This host's own zone says nothing about what is elsewhere.
  const its = ownZoneOf(resident) ?? (away ? undefined : resident.node.labels[ZONE_LABEL]);
  return zone !== undefined && zone !== "" && its === zone ? 1 : 2;
}

/** What an instance says of its transport, by the tags that Registrator gives: only UDP, only TCP, or nothing. */
export function transportOf({ instance: { tags } }: Resident): "udp" | "tcp" | undefined {
  const udp = tags.includes("udp");
  const tcp = tags.includes("tcp");
  return udp === tcp ? undefined : udp ? "udp" : "tcp";
}
