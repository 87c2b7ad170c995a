// The address of this host that containers' published ports are registered at.
import { ipFamily, type Net } from "../../base/net.ts";

/**
 * The address of ports bound to all interfaces: what the host name resolves to (IPv4 first), as Registrator takes it; where that leads
 * to the machine itself only (Debian's 127.0.1.1), the address other hosts reach this node at. "" = the node's address.
 */
export async function hostAddress(
  net: Pick<Net, "resolve">,
  hostname: string,
  advertised: string,
  compat: boolean,
): Promise<string> {
  const found = await net.resolve(hostname).catch((): readonly string[] => []);
  const first = found.find((address) => ipFamily(address) === 4) ?? found[0] ?? "";
  if (compat || !isLoopback(first)) return first;
  return isLoopback(advertised) ? first : advertised;
}

function isLoopback(address: string): boolean {
  return address === "" || address === "::1" || address.startsWith("127.");
}
