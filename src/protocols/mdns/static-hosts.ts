// Avahi's file of static hosts (avahi.hosts(5)): names that are announced for machines that cannot say them themselves.
import { ipFamily } from "../../base/net.ts";
import { hostName } from "./service-file-values.ts";

/** A name and an address of it. */
export interface StaticHost {
  /** With its domain, without a dot at its end: "router.local". */
  readonly name: string;
  /** IPv4 or IPv6. */
  readonly address: string;
}

/** What a file says. */
export interface StaticHosts {
  /** In the file's order, each once. */
  readonly hosts: readonly StaticHost[];
  /** Lines that say nothing, each with its number and what would be right; the others count all the same. */
  readonly faults: readonly string[];
}

/** Reads "ADDRESS NAME" lines; what follows a "#" is a comment. */
export function parseStaticHosts(text: string): StaticHosts {
  const hosts = new Map<string, StaticHost>();
  const faults: string[] = [];
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    const words = line.replace(/#.*$/, "").trim().split(/\s+/);
    const [address = "", name = ""] = words;
    if (address === "") continue;
    const wrong = (why: string): void => void faults.push(`line ${i + 1}: ${why}`);
    const host = hostName(name);
    if (ipFamily(address) === 0 || address.includes("%"))
      wrong(`"${address}" is no IP address: expected an address and a name, such as "192.168.0.1 router.local"`);
    else if (words.length !== 2)
      wrong(
        `${words.length === 1 ? "no name" : "more than one name"} behind ${address}: expected one, with a line each`,
      );
    else if (host === undefined || !host.toLowerCase().endsWith(".local"))
      wrong(`"${name}" is no name on the LAN: expected one such as "router.local"`);
    else hosts.set(`${host.toLowerCase()} ${address.toLowerCase()}`, { name: host, address });
  }
  return { hosts: [...hosts.values()], faults };
}
