// The address of this host that containers' published ports are registered at.
import type { Clock } from "../../base/clock.ts";
import { ipFamily, type Net } from "../../base/net.ts";

/** A hosts file answers at once and a resolver that is well soon; containers are not kept waiting for one that is not. */
const SOON_MS = 250;

/** What `hostAddress` finds out; where that takes longer, `meanwhile` is told what it would be if the name led nowhere. */
export async function hostAddressSoon(
  net: Pick<Net, "resolve">,
  clock: Pick<Clock, "after">,
  hostname: string,
  advertised: string,
  compat: boolean,
  meanwhile: (address: string) => void,
): Promise<string> {
  const timer = clock.after(SOON_MS, () => meanwhile(chosen([], advertised, compat)));
  try {
    return await hostAddress(net, hostname, advertised, compat);
  } finally {
    timer.cancel();
  }
}

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
  return chosen(await net.resolve(hostname).catch((): readonly string[] => []), advertised, compat);
}

function chosen(found: readonly string[], advertised: string, compat: boolean): string {
  const first = found.find((address) => ipFamily(address) === 4) ?? found[0] ?? "";
  if (compat || !isLoopback(first)) return first;
  return isLoopback(advertised) ? first : advertised;
}

function isLoopback(address: string): boolean {
  return address === "" || address === "::1" || address.startsWith("127.");
}
