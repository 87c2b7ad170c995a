// Addresses: which of an instance's addresses an asker can reach, worked out from IP addresses and networks alone.
import { type Interface, ipFamily } from "../base/net.ts";
import type { Address, Reach, Resident } from "../model/instance.ts";
import { addressOf } from "../model/instance.ts";

/** An IP address as 16 bytes; IPv4 in its IPv4-mapped form [RFC4291-2.5.5.2]. */
export type IpBytes = Uint8Array;

/** A network: an address and how many of the 128 bits count (IPv4's /24 is 120 here). */
export interface Network {
  readonly bytes: IpBytes;
  readonly bits: number;
}

/** Reads an IP address, with or without a zone (`fe80::1%eth0`). Undefined for anything else. */
export function parseIp(text: string): IpBytes | undefined {
  const zone = text.indexOf("%");
  const plain = zone === -1 ? text : text.slice(0, zone);
  const family = ipFamily(plain);
  if (family === 0) return undefined;
  const bytes = new Uint8Array(16);
  if (family === 4) {
    bytes[10] = bytes[11] = 0xff;
    writeIpv4(bytes, 12, plain);
    return bytes;
  }
  // `ipFamily` has made sure of the form: at most one "::", IPv4 only at the end.
  const gap = plain.indexOf("::");
  const head = writeGroups(bytes, 0, gap === -1 ? plain : plain.slice(0, gap));
  if (gap !== -1 && head < 16) {
    const tail = new Uint8Array(16);
    const length = writeGroups(tail, 0, plain.slice(gap + 2));
    bytes.set(tail.subarray(0, length), 16 - length);
  }
  return bytes;
}

function writeIpv4(bytes: Uint8Array, at: number, text: string): void {
  for (const [i, part] of text.split(".").entries()) bytes[at + i] = Number(part);
}

function writeGroups(bytes: Uint8Array, start: number, text: string): number {
  let at = start;
  if (text === "") return at;
  for (const group of text.split(":")) {
    if (group.includes(".")) {
      writeIpv4(bytes, at, group);
      at += 4;
    } else {
      const value = Number.parseInt(group, 16);
      bytes[at] = value >> 8;
      bytes[at + 1] = value & 0xff;
      at += 2;
    }
  }
  return at;
}

/** Reads `10.0.0.0/8`; a bare address is a network of one. Undefined for anything else (a Docker network's name). */
export function parseNetwork(text: string): Network | undefined {
  const slash = text.indexOf("/");
  const bytes = parseIp(slash === -1 ? text : text.slice(0, slash));
  if (bytes === undefined) return undefined;
  const whole = isIpv4(bytes) ? 32 : 128;
  const given = slash === -1 ? String(whole) : text.slice(slash + 1);
  const bits = /^\d{1,3}$/.test(given) ? Number(given) : Number.NaN;
  return bits <= whole ? { bytes, bits: bits + 128 - whole } : undefined;
}

function isIpv4(bytes: IpBytes): boolean {
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return false;
  return bytes[10] === 0xff && bytes[11] === 0xff;
}

/** How many leading bits two addresses share (0..128); 0 where the families differ. */
export function commonBits(a: IpBytes, b: IpBytes): number {
  if (isIpv4(a) !== isIpv4(b)) return 0;
  for (let i = 0; i < 16; i++) {
    const differ = (a[i] as number) ^ (b[i] as number);
    if (differ !== 0) return i * 8 + Math.clz32(differ) - 24;
  }
  return 128;
}

/** True where the address lies in the network. */
export function inNetwork(ip: IpBytes, network: Network): boolean {
  return commonBits(ip, network.bytes) >= network.bits;
}

/** 127.0.0.0/8 and ::1. */
export function isLoopback(ip: IpBytes): boolean {
  if (isIpv4(ip)) return ip[12] === 127;
  for (let i = 0; i < 15; i++) if (ip[i] !== 0) return false;
  return ip[15] === 1;
}

const TAILNETS = [parseNetwork("100.64.0.0/10"), parseNetwork("fd7a:115c:a1e0::/48")] as readonly Network[];

/** The addresses that Tailscale hands out: 100.64.0.0/10 and fd7a:115c:a1e0::/48. */
export function isTailnet(ip: IpBytes): boolean {
  return TAILNETS.some((network) => inNetwork(ip, network));
}

/** What is known about this host's place in the network. */
export interface Here {
  /** This host's node name. */
  readonly node: string;
  /** True where the IP address is one of this host's own (loopback included). */
  isOwn(ip: IpBytes): boolean;
  /** The networks this host is connected to, loopback left out. */
  networks(): readonly Network[];
  /** True where one of this host's interfaces, loopback left out, is in networks that hold both: an IPv4 and an IPv6 address on one link. */
  onOneLink(a: IpBytes, b: IpBytes): boolean;
}

/** The asker of a query, worked out once. */
export interface Asker {
  readonly text: string;
  readonly ip: IpBytes;
  /** True where the asker is on this host. */
  readonly here: boolean;
}

const REFRESH_MS = 10_000;

/** This host's networks, read again at most every ten seconds and only when somebody needs them. */
export function createHere(node: string, interfaces: () => readonly Interface[], monotonic: () => number): Here {
  let readAt = Number.NEGATIVE_INFINITY;
  let own: readonly IpBytes[] = [];
  let networks: readonly Network[] = [];
  let links: readonly (readonly Network[])[] = [];
  const read = (): void => {
    const now = monotonic();
    if (now - readAt < REFRESH_MS) return;
    readAt = now;
    const found = interfaces();
    own = found.map(({ address }) => parseIp(address)).filter((ip) => ip !== undefined);
    const byName = new Map<string, Network[]>();
    for (const { name, cidr, internal } of found) {
      const network = internal ? undefined : parseNetwork(cidr);
      if (network !== undefined) byName.set(name, [...(byName.get(name) ?? []), network]);
    }
    links = [...byName.values()];
    networks = links.flat();
  };
  return {
    node,
    isOwn(ip) {
      if (isLoopback(ip)) return true;
      read();
      return own.some((mine) => commonBits(mine, ip) === 128);
    },
    networks() {
      read();
      return networks;
    },
    onOneLink(a, b) {
      read();
      const holds = (link: readonly Network[], ip: IpBytes): boolean => link.some((network) => inNetwork(ip, network));
      return links.some((link) => holds(link, a) && holds(link, b));
    },
  };
}

/** The asker behind an IP address in text; undefined where it is none. */
export function askerOf(text: string | undefined, here: Here): Asker | undefined {
  const ip = text === undefined ? undefined : parseIp(text);
  return text === undefined || ip === undefined ? undefined : { text, ip, here: here.isOwn(ip) };
}

/** True where the instance lives on this very host, also under another agent's name. */
function livesHere(resident: Resident, here: Here): boolean {
  if (resident.node.name.toLowerCase() === here.node.toLowerCase()) return true;
  const ip = parseIp(resident.node.address);
  return ip !== undefined && here.isOwn(ip);
}

/** True where asker and instance share a host. Who is not known asks from this host. */
export function sharesHost(resident: Resident, asker: Asker | undefined, here: Here): boolean {
  if (asker === undefined || asker.here) return livesHere(resident, here);
  const ip = parseIp(resident.node.address);
  return ip !== undefined && commonBits(ip, asker.ip) === 128;
}

/** True where the asker's network can make a difference to the address of the answer. */
export function isAddressed(resident: Resident): boolean {
  const { instance } = resident;
  if (instance.addresses !== undefined && instance.addresses.length > 0) return true;
  if (instance.address === "") return false;
  const ip = parseIp(instance.address);
  return ip !== undefined && isLoopback(ip);
}

/** A host (an IP address or a name) and port at which an instance is reached. */
export interface Place {
  readonly host: string;
  readonly port: number;
}

/**
 * Where the asker reaches the instance; undefined where it cannot (what listens on loopback only stays on its host). With `family`: where
 * it reaches it by that family; where it does not, the same as without.
 */
export function chooseAddress(
  resident: Resident,
  asker: Asker | undefined,
  here: Here,
  family?: 4 | 6,
): Place | undefined {
  const place = placeFor(resident, asker, here);
  if (family === undefined || place === undefined) return place;
  const ip = parseIp(place.host);
  // A link-local address means something with its zone only, which no record can hold.
  const fits = ip === undefined || (isIpv4(ip) === (family === 4) && !inNetwork(ip, LINK_LOCAL_6));
  return fits ? place : (placeOfFamily(resident, asker, here, family, place.port) ?? place);
}

/** `chooseAddress` for the asker's own family. */
function placeFor(resident: Resident, asker: Asker | undefined, here: Here): Place | undefined {
  const { instance } = resident;
  const usual = { host: addressOf(resident), port: instance.port };
  const addresses = instance.addresses ?? [];
  if (addresses.length === 0) {
    // A bare loopback address says nothing about its host, so whoever asks on any agent's own host may have it.
    const ip = asker === undefined || asker.here || instance.address === "" ? undefined : parseIp(instance.address);
    return ip !== undefined && isLoopback(ip) && !sharesHost(resident, asker, here) ? undefined : usual;
  }
  const sameHost = sharesHost(resident, asker, here);
  const reachable = addresses.filter((address) => {
    if (address.reach === "loopback") return sameHost;
    // Every Docker host has the same bridge networks: their addresses mean something on their own host only, to it and its containers.
    if (address.reach === "bridge")
      return livesHere(resident, here) && (asker === undefined || asker.here || matchBits(address, asker) >= 0);
    if (address.reach === "overlay") return asker !== undefined && matchBits(address, asker) >= 0;
    return true;
  });
  const best = asker === undefined ? undefined : closest(reachable, asker, sameHost);
  if (best !== undefined) return { host: best.host, port: best.port };
  const stated = addresses.find(({ host, port }) => host === usual.host && port === usual.port);
  const usualIp = parseIp(usual.host);
  const usualStaysHome =
    stated === undefined
      ? usualIp !== undefined && isLoopback(usualIp)
      : stated.reach === "loopback" || stated.reach === "bridge" || stated.reach === "overlay";
  const allAtHome = addresses.every(({ reach }) => reach === "loopback");
  if (sameHost || (!usualStaysHome && !allAtHome)) return usual;
  const other = WIDEST.map((reach) => reachable.find((address) => address.reach === reach)).find(
    (address) => address !== undefined,
  );
  return other === undefined ? undefined : { host: other.host, port: other.port };
}

/** In which order addresses are tried for an asker whose network is none of the instance's. */
const WIDEST: readonly Reach[] = ["public", "lan", "tailnet", "bridge"];

/**
 * An address of a family that is not the one which the asker is given by its own network. Only at the same port, since A and AAAA records
 * tell none: what is published at 8080 and listens at 80 inside its container would be looked for at the wrong one.
 */
function placeOfFamily(
  resident: Resident,
  asker: Asker | undefined,
  here: Here,
  family: 4 | 6,
  port: number,
): Place | undefined {
  const local = asker === undefined || asker.here;
  let best: Address | undefined;
  let bestRank = Number.POSITIVE_INFINITY;
  for (const address of resident.instance.addresses ?? []) {
    const { host, reach } = address;
    const ip = ipFamily(host) === family && address.port === port ? parseIp(host) : undefined;
    if (ip === undefined || inNetwork(ip, LINK_LOCAL_6)) continue;
    const near = local ? here.networks().some((network) => inNetwork(ip, network)) : here.onOneLink(asker.ip, ip);
    let rank = near ? 0 : 1 + WIDEST.indexOf(reach);
    switch (reach) {
      case "loopback":
        if (asker === undefined || !isLoopback(asker.ip) || !sharesHost(resident, asker, here)) continue;
        rank = -1;
        break;
      case "bridge":
        if (!livesHere(resident, here) || !(local || near)) continue;
        break;
      case "overlay":
        if (!near) continue;
        break;
      case "tailnet":
        if (!(local ? here.networks().some(({ bytes }) => isTailnet(bytes)) : isTailnet(asker.ip))) continue;
        break;
      default:
        // Nobody routes these beyond their site; whether the asker is in it only a shared link tells.
        if (!near && UNROUTED.some((network) => inNetwork(ip, network))) continue;
    }
    if (rank < bestRank) {
      best = address;
      bestRank = rank;
    }
  }
  return best === undefined ? undefined : { host: best.host, port: best.port };
}

const LINK_LOCAL_6 = parseNetwork("fe80::/10") as Network;
/** Unique local addresses [RFC 4193] and IPv4's link-local ones [RFC 3927]. */
const UNROUTED = [parseNetwork("fc00::/7"), parseNetwork("169.254.0.0/16")] as readonly Network[];

/** The address on the asker's own network: loopback for loopback, else the longest network that holds the asker. */
function closest(addresses: readonly Address[], asker: Asker, sameHost: boolean): Address | undefined {
  if (sameHost && isLoopback(asker.ip)) {
    const loopback = addresses.find(({ reach, host }) => reach === "loopback" && sameFamily(host, asker.ip));
    if (loopback !== undefined) return loopback;
  }
  let best: Address | undefined;
  let bestBits = -1;
  for (const address of addresses) {
    if (address.reach === "loopback") continue;
    const bits = matchBits(address, asker);
    if (bits > bestBits) {
      best = address;
      bestBits = bits;
    }
  }
  return best;
}

/** How many bits of network asker and address share for certain; -1 = not on one network. */
function matchBits(address: Address, asker: Asker): number {
  const network = address.network === undefined ? undefined : parseNetwork(address.network);
  if (network !== undefined && inNetwork(asker.ip, network)) return network.bits;
  if (address.reach === "tailnet" && isTailnet(asker.ip) && sameFamily(address.host, asker.ip)) return 0;
  return -1;
}

/** A host name is of every family. */
function sameFamily(host: string, ip: IpBytes): boolean {
  const own = parseIp(host);
  return own === undefined || isIpv4(own) === isIpv4(ip);
}
