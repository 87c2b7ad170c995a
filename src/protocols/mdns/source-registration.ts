// A service that was resolved on the LAN as a registration on an external node, the same whoever sees it; and back from what the directory holds. Pure.
import { ipFamily } from "../../base/net.ts";
import { withinNetworks } from "../../base/networks.ts";
import type { Address, Registration } from "../../model/instance.ts";
import { fromTxt } from "../../model/txt.ts";
import type { Resolved } from "./engine.ts";

/** The key of the TXT string by which Triliths know each other's announcements: the announcing node's ID. */
export const MARK = "trilith";
/** Labels that say what mDNS calls it. */
const INSTANCE = "mdns-instance";
const TYPE = "mdns-type";
/** The label of the external node with the host's own name. */
const HOST = "mdns-host";

/** One service as it is seen on the LAN: resolved at one place or several, with one host and port. */
export type Sighting = readonly [Resolved, ...Resolved[]];

/** "_http._tcp" → "http" in lower case; undefined for what is no type of service. */
export function serviceOfType(type: string): string | undefined {
  return /^_([^.]+)\._(?:tcp|udp)$/i.exec(type)?.[1]?.toLowerCase();
}

/** What the announcing Trilith says its node's ID is; undefined where it is none. */
export function markOf(txt: readonly Uint8Array[]): string | undefined {
  for (const text of textsOf(txt)) if (text.startsWith(`${MARK}=`)) return text.slice(MARK.length + 1);
  return undefined;
}

function textsOf(txt: readonly Uint8Array[]): string[] {
  return txt.map((bytes) => Buffer.from(bytes).toString("utf8"));
}

/** What the instance is called on its node: "Living Room._ipp._tcp". */
export function idOf({ name, type, domain }: Pick<Resolved, "name" | "type" | "domain">): string {
  return `${name}.${type}${domain === "local" ? "" : `.${domain}`}`;
}

/** "printer.local" → "printer"; what no node may be called is made of hyphens. */
export function nodeOfHost(host: string): string {
  return host.replace(/\.local$/i, "").replace(/[\u0000-\u0020/]/g, "-");
}

/** Every address, the most useful first and always in the same order: IPv4, then IPv6, link-local ones last and, of IPv6, only where nothing else is there. */
export function addressesOf(seen: Sighting): readonly string[] {
  const all = new Map<string, number>();
  for (const place of seen)
    for (const { address, family } of place.addresses) {
      const linkLocal = family === 6 ? /^fe[89ab]/i.test(address) : address.startsWith("169.254.");
      // Without the interface nobody reaches it.
      const text = linkLocal && family === 6 ? `${address}%${place.interface}` : address;
      all.set(text, (family === 4 ? 0 : 1) + (linkLocal ? 2 : 0));
    }
  const ordered = [...all].sort(([a, x], [b, y]) => x - y || (a < b ? -1 : a > b ? 1 : 0));
  const others = ordered.filter(([, rank]) => rank < 3);
  return (others.length > 0 ? others : ordered).map(([address]) => address);
}

/**
 * The registration of a service of the LAN, on the external node that its host is. Undefined for what is no type of service.
 * @param nodeName what the host's node is called here: another name where an agent has it
 * @param networks this host's networks in CIDR notation, for the addresses that lie in them
 */
export function registrationOf(
  seen: Sighting,
  nodeName: string,
  networks: readonly string[],
): Registration | undefined {
  const [{ name, type, domain, host, port }] = seen;
  const service = serviceOfType(type);
  const [first, ...more] = addressesOf(seen);
  if (service === undefined || first === undefined) return undefined;
  // Heard at several places, the strings may differ while they change: one of them counts, always the same.
  const [{ txt }] = seen.toSorted((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1)) as unknown as Sighting;
  const { labels, tags } = fromTxt(textsOf(txt).filter((text) => text.split("=")[0]?.toLowerCase() !== MARK));
  const all: Record<string, string> = Object.assign(Object.create(null), labels);
  all[INSTANCE] = name;
  all[TYPE] = type;
  // Told by the address itself, so that every witness says the same.
  const networkOf = (address: string): string | undefined => {
    const bits = networks.find((network) => withinNetworks([network])(address))?.split("/")[1];
    return bits === undefined ? undefined : `${address}/${bits}`;
  };
  const lan = (address: string): Address => {
    const network = networkOf(address);
    return { host: address, port, reach: "lan", ...(network === undefined ? {} : { network }) };
  };
  const tagged = Object.fromEntries(
    ([4, 6] as const).flatMap((family) => {
      const address = [first, ...more].find((each) => ipFamily(each.split("%")[0] ?? "") === family);
      return address === undefined ? [] : [[`lan_ipv${family}`, { address, port }]];
    }),
  );
  return {
    id: idOf(seen[0]),
    name: service,
    tags,
    labels: all,
    address: "",
    port,
    ...(more.length === 0 ? {} : { addresses: [first, ...more].map(lan), taggedAddresses: tagged }),
    checks: [],
    foreignId: `${name}.${type}.${domain}`,
    text: `"${name}" (${type}) at ${host}, by mDNS`,
    external: { node: { name: nodeName, address: first, labels: { [HOST]: host } } },
  };
}

const placeOf = (place: Pick<Resolved, "interface" | "family">): string => `${place.interface} ${place.family}`;
