// From what the tailnet's hosts advertise to registrations on external nodes, and why those that are missing went. Pure.
import { hostPort, ipFamily } from "../../base/net.ts";
import type { SourceList } from "../../contracts/source.ts";
import { goneKeyOf, type Registration } from "../../model/instance.ts";
import type { Reason } from "../../model/reason.ts";
import type { Found, HostState, Listing } from "./hosts.ts";

/** What this host's directory knows already. */
export interface Known {
  /** Whether a node with this ID is in the directory by itself: what its agent advertises is there first-hand. */
  readonly hasNode: (id: string) => boolean;
  /** Whether a service stands on a node of that name, other than by Minidisc. */
  readonly hasService: (node: string, service: string, port: number) => boolean;
  /** Whether the name belongs to a node that is no host of the tailnet alone. */
  readonly isTaken: (node: string) => boolean;
}

/** The whole list as a source states it. `before`: the registrations of the last one, for the reasons. */
export function sourceListOf(
  { services, hosts }: Listing,
  known: Known,
  before: readonly Registration[],
  nowMs: number,
): SourceList {
  const nodes = namesOf(hosts, known);
  const list = new Map<string, Registration>();
  for (const found of services) {
    if (found.owner !== undefined && known.hasNode(found.owner)) continue;
    // Through an original implementation that leads nobody learns whose it is.
    if (found.owner === undefined && known.hasService(found.node, found.name, found.port)) continue;
    const r = registrationOf(found, nodes.get(found.nodeAddress) ?? found.node);
    const key = goneKeyOf(r);
    if (!list.has(key)) list.set(key, r);
  }
  const gone = new Map<string, Reason>();
  for (const r of before) {
    const key = goneKeyOf(r);
    if (!list.has(key)) gone.set(key, reasonOf(r, hosts, nowMs));
  }
  const complaints = hosts.flatMap(({ address, host, followed }) =>
    (followed?.dropped ?? []).map(({ about, text }) => ({
      about: `${host.name} (${address})`,
      text: `an entry of its list is dropped: ${text}: ${about}`,
    })),
  );
  return { list: [...list.values()], authority: "second-hand", gone, complaints };
}

/** The name of each host's node: its own, with its unique name in place of one that two hosts or another node have. */
function namesOf(hosts: readonly HostState[], { isTaken }: Known): ReadonlyMap<string, string> {
  const counts = new Map<string, number>();
  for (const { host } of hosts) counts.set(host.name.toLowerCase(), (counts.get(host.name.toLowerCase()) ?? 0) + 1);
  return new Map(
    hosts.map(({ host, address }) => {
      const { name, dnsName } = host;
      if (name !== "" && counts.get(name.toLowerCase()) === 1 && !isTaken(name)) return [address, name];
      const unique = dnsName.split(".")[0] ?? "";
      return [
        address,
        unique !== "" && !isTaken(unique) && unique !== name ? unique : `${unique || name || address}.tailnet`,
      ];
    }),
  );
}

function registrationOf(found: Found, node: string): Registration {
  const { name, labels, tags, address, port, also, health, nodeAddress, trilith } = found;
  const addresses = [{ host: address, port }, ...also.map((each) => ({ host: each.host, port: each.port }))];
  return {
    id: `${name}-${hostPort(address, port)}`,
    name,
    labels,
    tags,
    address,
    port,
    addresses: addresses.map((each) => ({ ...each, reach: "tailnet" as const, ...networkOf(each.host) })),
    foreignId: `${nodeAddress} ${hostPort(address, port)} ${name}`,
    text: `${hostPort(address, port)}, advertised by ${found.node} (${nodeAddress}) on the tailnet`,
    external: { node: { name: node, address: nodeAddress } },
    // An original implementation says nothing about health.
    checks: trilith
      ? [
          {
            id: "",
            name: "Advertised on the tailnet",
            notes: "",
            kind: "none",
            detail: undefined,
            intervalMs: 0,
            timeoutMs: 0,
            initial: health,
          },
        ]
      : [],
  };
}

const networkOf = (host: string): { readonly network?: string } =>
  ipFamily(host) === 4
    ? { network: "100.64.0.0/10" }
    : host.startsWith("fd7a:115c:a1e0:")
      ? { network: "fd7a:115c:a1e0::/48" }
      : {};

/** Who lists anew and leaves it out has said so itself; the silence of others is hearsay. */
function reasonOf({ external, name }: Registration, hosts: readonly HostState[], atMs: number): Reason {
  const address = external?.node.address;
  const host = hosts.find((each) => each.address === address);
  const who = `${external?.node.name} (${address})`;
  if (host === undefined)
    return { code: "missing", text: `${who} is not in the tailnet any more`, confirmed: false, atMs };
  const { followed } = host;
  if (followed?.services !== undefined && followed.failing === undefined)
    return { code: "goodbye", text: `${who} does not advertise "${name}" any more`, confirmed: true, atMs };
  const how = host.host.online || host.own ? (followed?.failing?.text ?? "it does not answer") : "it is offline";
  return { code: "missing", text: `${who} is not heard of: ${how}`, confirmed: false, atMs };
}
