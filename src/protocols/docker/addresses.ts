// Where a container is reached: at its host's address, or at its own in each of its networks.

import { ipFamily } from "../../base/net.ts";
import type { Address, Reach } from "../../model/instance.ts";
import type { Attachment, Container } from "./inspect.ts";

/** What decides about addresses. The first three are Registrator's flags. */
export interface AddressOptions {
  /** `-ip`: forced on every service; "" = not. */
  readonly ip: string;
  /** `-internal`: container address and exposed port. */
  readonly internal: boolean;
  /** `-useIpFromLabel`: the label that holds the address; "" = none. */
  readonly useIpFromLabel: string;
  /** What the host name resolves to: the address of ports bound to 0.0.0.0. "" = unknown, the node's address then. */
  readonly hostIp: string;
  /** True = the engine is another host's: its containers' own networks cannot be reached from here. */
  readonly remote?: boolean;
}

/** What a port is bound to where it is bound to all addresses of the host. */
export const EVERYWHERE: ReadonlySet<string> = new Set(["", "0.0.0.0", "::"]);

/** A port as it is registered. */
export interface Port {
  /** The number as text. */
  readonly exposed: string;
  readonly protocol: string;
  readonly hostIp: string;
  /** "" = not published. */
  readonly hostPort: string;
}

/** The primary address; "" = the node's. `other` finds the container whose network this one shares. */
export function addressOf(
  container: Container,
  port: Port,
  options: AddressOptions,
  other: (idOrName: string) => Container | undefined,
  complain: (text: string) => void,
): string {
  let address = options.internal ? containerAddress(container) : options.ip || hostAddress(port, options);
  if (options.useIpFromLabel !== "") {
    const label = container.labels[options.useIpFromLabel] ?? "";
    const slash = label.lastIndexOf("/");
    const fromLabel = slash < 0 ? label : label.slice(0, slash);
    // Consul refuses these two as a service's address.
    if (fromLabel === "0.0.0.0" || fromLabel === "::")
      complain(`label ${options.useIpFromLabel}="${label}" is no address one can connect to: not used`);
    else if (fromLabel !== "") address = fromLabel;
  }
  if (container.networkMode.startsWith("container:")) {
    const owner = other(container.networkMode.slice("container:".length));
    if (owner !== undefined) address = containerAddress(owner);
    else
      complain(
        `the container whose network it shares (${container.networkMode}) is not running: its address is not known`,
      );
  }
  return address;
}

function hostAddress(port: Port, options: AddressOptions): string {
  return port.hostIp === "0.0.0.0" ? options.hostIp : port.hostIp;
}

function containerAddress(container: Container): string {
  if (container.ipAddress !== "") return container.ipAddress;
  const own = container.networks.find(({ name, id }) => name === container.networkMode || id === container.networkMode);
  return own?.ipv4 || (container.networks.find(({ ipv4 }) => ipv4 !== "")?.ipv4 ?? "");
}

/** The primary address first, then the host's (if published) and the container's own on each of its networks. */
export function addressesOf(
  container: Container,
  port: Port,
  primary: string,
  primaryPort: number,
  options: AddressOptions,
): Address[] {
  const found = new Map<string, Address>();
  const add = (address: Address): void => {
    const key = `${address.host} ${address.port}`;
    if (address.host !== "" && !found.has(key)) found.set(key, address);
  };
  const inside: Address[] = [];
  const exposed = Number(port.exposed);
  for (const network of options.remote === true ? [] : container.networks) {
    const { ipv4, ipv6 } = network;
    inside.push({ host: ipv4, port: exposed, reach: reachOn(network, ipv4), network: networkOf(network, 4) });
    inside.push({ host: ipv6, port: exposed, reach: reachOn(network, ipv6), network: networkOf(network, 6) });
  }
  // The primary address is the operator's choice (-internal on a routed network): it is never bound to this host as a bridge address is.
  const network = inside.find(({ host }) => host !== "" && host === primary)?.network;
  add({ host: primary, port: primaryPort, reach: reachOf(primary), ...(network === undefined ? {} : { network }) });
  if (port.hostPort !== "" && container.networkMode !== "none") {
    const bindings = container.ports.get(`${port.exposed}/${port.protocol}`);
    const hosts = container.networkMode === "host" ? [""] : (bindings ?? []).map(({ hostIp }) => hostIp);
    for (const hostIp of hosts) {
      const host = EVERYWHERE.has(hostIp) ? options.ip || options.hostIp : hostIp;
      add({ host, port: Number(port.hostPort), reach: reachOf(host) });
    }
  }
  for (const address of inside) add(address);
  return [...found.values()];
}

/** A network in CIDR notation, so that an asker's address can be compared with it; its name where Docker tells no length. */
function networkOf(network: Attachment, family: 4 | 6): string {
  if (family === 6)
    return ipFamily(network.ipv6) === 6 && network.ipv6PrefixLength > 0
      ? `${network.ipv6}/${network.ipv6PrefixLength}`
      : network.name;
  const length = network.ipv4PrefixLength;
  if (ipFamily(network.ipv4) !== 4 || length < 1 || length > 32) return network.name;
  const masked = network.ipv4.split(".").map((part, i) => {
    const bits = Math.max(0, Math.min(8, length - 8 * i));
    return Number(part) & (0xff << (8 - bits)) & 0xff;
  });
  return `${masked.join(".")}/${length}`;
}

/** From where a container's own address can be reached, by its network's driver: macvlan and ipvlan put it onto the host's own network. */
function reachOn({ driver }: Attachment, host: string): Reach {
  if (driver === "overlay") return "overlay";
  return driver === "macvlan" || driver === "ipvlan" ? reachOf(host) : "bridge";
}

/** From where an address can be reached, judged by its range [RFC1918, RFC4193, RFC6598, RFC3927, RFC4291-2.5.6]. Host names count as LAN. */
function reachOf(host: string): Reach {
  if (ipFamily(host) === 4) {
    const [a = 0, b = 0] = host.split(".").map(Number);
    if (a === 127) return "loopback";
    if (a === 10 || (a === 172 && b >= 16 && b < 32) || (a === 192 && b === 168) || (a === 169 && b === 254))
      return "lan";
    return a === 100 && b >= 64 && b < 128 ? "tailnet" : "public";
  }
  if (ipFamily(host) === 6) {
    if (host === "::1") return "loopback";
    if (/^fd7a:115c:a1e0:/i.test(host)) return "tailnet";
    return /^(f[cd]|fe[89ab])/i.test(host) ? "lan" : "public";
  }
  return "lan";
}
