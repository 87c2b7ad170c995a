// The networks of this host's containers: which interfaces they are, and the addresses that containers reach this host at.
import type { Disk } from "../../base/disk.ts";
import type { Interface, Net } from "../../base/net.ts";
import { CONTAINER_BRIDGE } from "../../base/networks.ts";
import { bytesOfHex, ipBytes, ipText } from "../../wire/dns/index.ts";
import { isIn, type Network, networkOf } from "./networks.ts";

/** An address of this host on an interface, with the network it is in. */
export interface LocalAddress {
  readonly name: string;
  readonly address: string;
  readonly network: Network;
}

/** Which bridges are served: all that look like containers' (`true`), or those of these names and addresses. */
export type WantedBridges = true | readonly string[];

/** Those of the addresses that are wanted, link-local ones left out: nobody is told of them. */
export function bridgesAmong(found: readonly LocalAddress[], wanted: WantedBridges): LocalAddress[] {
  return found.filter(
    ({ name, address }) =>
      !address.toLowerCase().startsWith("fe80:") &&
      (wanted === true ? CONTAINER_BRIDGE.test(name) : wanted.includes(name) || wanted.includes(address)),
  );
}

/**
 * This host's addresses. The system's own list leaves interfaces out that nothing is plugged into, such as a bridge before its first container: Linux's tables
 * know them all. `procNet` is /proc/net.
 */
export async function localAddresses(
  net: Pick<Net, "interfaces">,
  disk: Pick<Disk, "readText">,
  procNet: string,
): Promise<LocalAddress[]> {
  const read = (name: string): Promise<string> => disk.readText(`${procNet}/${name}`).catch(() => "");
  const [routes, trie, six] = await Promise.all([read("route"), read("fib_trie"), read("if_inet6")]);
  const found = new Map<string, LocalAddress>();
  for (const one of [...net.interfaces().flatMap(fromInterface), ...ipv4From(routes, trie), ...ipv6From(six)])
    if (!found.has(one.address)) found.set(one.address, one);
  return [...found.values()];
}

function fromInterface({ name, address, cidr, internal }: Interface): LocalAddress[] {
  const network = networkOf(cidr);
  return network === undefined || internal ? [] : [{ name, address, network }];
}

/** IPv4 addresses by interface: `route` knows the networks of interfaces, `fib_trie` this host's addresses. */
export function ipv4From(route: string, fibTrie: string): LocalAddress[] {
  const own = new Set<string>();
  let last = "";
  for (const line of fibTrie.split("\n")) {
    last = /\|-- (\S+)/.exec(line)?.[1] ?? last;
    if (line.includes("/32 host LOCAL")) own.add(last);
  }
  const found: LocalAddress[] = [];
  for (const line of route.split("\n").slice(1)) {
    const [name = "", destination = "", gateway = "", , , , , mask = ""] = line.split(/\s+/);
    const bytes = littleEndian(destination);
    const maskBytes = littleEndian(mask);
    if (bytes === undefined || maskBytes === undefined || gateway !== "00000000" || mask === "00000000") continue;
    const bits = [...maskBytes].reduce((sum, byte) => sum + byte.toString(2).replaceAll("0", "").length, 0);
    const network = { bytes, bits };
    for (const address of own) {
      const ip = ipBytes(address);
      if (ip !== undefined && isIn(ip, network)) found.push({ name, address, network });
    }
  }
  return found;
}

function littleEndian(hex: string): Uint8Array | undefined {
  const bytes = hex.length === 8 ? bytesOfHex(hex.toLowerCase()) : undefined;
  return bytes?.reverse();
}

/** IPv6 addresses by interface, from `if_inet6`; tentative ones, which cannot be bound to yet, are left out. */
export function ipv6From(ifInet6: string): LocalAddress[] {
  return ifInet6.split("\n").flatMap((line) => {
    const [hex = "", , bits = "", , flags = "", name = ""] = line.trim().split(/\s+/);
    const bytes = hex.length === 32 ? bytesOfHex(hex) : undefined;
    if (bytes === undefined || name === "lo" || (Number.parseInt(flags, 16) & 0x40) !== 0) return [];
    return [{ name, address: ipText(bytes), network: { bytes, bits: Number.parseInt(bits, 16) } }];
  });
}
