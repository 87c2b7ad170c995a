// IP networks in CIDR notation, and whether an address lies in one of them.
import { BlockList, isIP } from "node:net";

/** How Docker's and Podman's bridges are called, unless told otherwise. */
export const CONTAINER_BRIDGE: RegExp = /^(docker\d+|br-[0-9a-f]{12}|podman\d+|cni-podman\d+)$/;

/** What is wrong with a network in CIDR notation; undefined where nothing is. */
export function networkFault(text: string): string | undefined {
  const [address = "", bits, ...rest] = text.split("/");
  const family = isIP(address);
  const most = family === 4 ? 32 : 128;
  if (family === 0 || rest.length > 0 || bits === undefined || !/^\d{1,3}$/.test(bits) || Number(bits) > most)
    return `"${text}" is no network: expected CIDR notation such as "10.0.0.0/8"`;
  return undefined;
}

/** Tells whether an address lies in one of the networks (which have no fault); IPv4 within IPv6 counts as IPv4. */
export function withinNetworks(networks: readonly string[]): (address: string) => boolean {
  const list = new BlockList();
  for (const text of networks) {
    const [address = "", bits = ""] = text.split("/");
    list.addSubnet(address, Number(bits), isIP(address) === 6 ? "ipv6" : "ipv4");
  }
  return (given) => {
    const address = given.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*$/, "");
    const family = isIP(address);
    return family !== 0 && list.check(address, family === 6 ? "ipv6" : "ipv4");
  };
}

/** What programs on this host alone are reached at, and what those listen at that listen everywhere. */
const EVERY_HOST = ["127.0.0.0/8", "::1/128", "0.0.0.0/32", "::/128"];

/**
 * Tells whether an IP address is this host's own by its interfaces (loopback and "everywhere" included), or one of its containers' on a bridge.
 * The interfaces are looked at with the first question, since most who might ask never do.
 */
export function ownAddresses(
  interfaces: () => readonly { readonly name: string; readonly address: string; readonly cidr: string }[],
): (address: string) => boolean {
  let within: ((address: string) => boolean) | undefined;
  return (address) => {
    within ??= withinNetworks([
      ...EVERY_HOST,
      ...interfaces().map(({ name, address: own, cidr }) =>
        CONTAINER_BRIDGE.test(name) && !cidr.startsWith("fe80:") ? cidr : `${own}/${isIP(own) === 6 ? 128 : 32}`,
      ),
    ]);
    return within(address);
  };
}

/** Interfaces of containers and virtual machines on this host. */
const VIRTUAL = /^(docker|br-|veth|virbr|cni|podman|flannel|cali)/;

/**
 * The addresses at which other hosts may reach this one, the likeliest first: neither loopback nor link-local, those of containers' and virtual
 * machines' interfaces only where there is no other, IPv4 before IPv6, otherwise in the order given.
 */
export function outwardAddresses<
  T extends { readonly name: string; readonly address: string; readonly family: number; readonly internal: boolean },
>(interfaces: readonly T[]): readonly T[] {
  const outside = interfaces.filter(({ internal, address }) => !internal && !/^(fe80:|169\.254\.)/i.test(address));
  const own = outside.filter(({ name }) => !VIRTUAL.test(name));
  return (own.length > 0 ? own : outside).toSorted((a, b) => a.family - b.family);
}
