// What sources of the second hand have in common: the node of a host of which only the address is known, and what was last known good.
import { hostPort } from "../base/net.ts";
import { addressOf, type ExternalNode, type Instance, type Registration } from "../model/instance.ts";
import type { Labels, Node } from "../model/node.ts";
import { keyOf } from "../model/record.ts";
import type { View } from "./directory.ts";

/**
 * The external node of a host that is known by its address or name only, the same whoever sees it: "10.0.0.1" is called "10-0-0-1", a name
 * stays as it is. A name that a host with an agent has gets the source's behind it: that host is its agent's to describe.
 */
export function nodeAt(host: string, source: string, view: Pick<View, "get">): ExternalNode {
  const address = host.toLowerCase().replace(/\.$/, "");
  const isIp = /^[\d.]+$/.test(address) || address.includes(":");
  return { name: nodeNameFor(isIp ? address.replace(/[.:%]/g, "-") : address, source, view), address };
}

/** What an external node may be called: without what no name may hold, and another name where a host with an agent has this one. */
export function nodeNameFor(wanted: string, source: string, view: Pick<View, "get">): string {
  const name = wanted.replace(/[\u0000-\u0020/]/g, "-");
  const known = view.get("node", keyOf.node(name));
  return known === undefined || known.external === true ? name : `${name}-${source}`;
}

/** What this host's source stated in an earlier life, out of the directory: its last known good, without checks. */
export function lastKnown(view: View, source: string, self: string): readonly Registration[] {
  const found: Registration[] = [];
  for (const node of view.list("node"))
    for (const { service, source: by, by: witnesses } of node.witnessed ?? []) {
      if (by !== source || !witnesses.some((name) => name.toLowerCase() === self.toLowerCase())) continue;
      const instance = view.get("service", keyOf.service(node.name, service));
      if (instance === undefined) continue;
      const { createIndex: _c, modifyIndex: _m, ...facts } = instance;
      found.push(registrationFrom(facts, node));
    }
  return found;
}

/** What a source listed on an external node, out of the directory. */
export function registrationFrom(instance: Instance, node: Node): Registration {
  const { node: _node, origin, ...facts } = instance;
  const labels: Labels = Object.fromEntries(Object.entries(node.labels).filter(([key]) => key !== "external-node"));
  return {
    ...facts,
    checks: [],
    ...(origin.foreignId === undefined ? {} : { foreignId: origin.foreignId }),
    ...(origin.text === undefined ? {} : { text: origin.text }),
    external: {
      node: {
        name: node.name,
        address: node.address,
        ...(Object.keys(labels).length === 0 ? {} : { labels }),
      },
    },
  };
}

/** Where those who have a service at first hand hold instances of it, as "host:port" in lower case: these need no hearsay. */
export function firstHandPlaces(view: Pick<View, "residents">, service: string): ReadonlySet<string> {
  const places = new Set<string>();
  for (const resident of view.residents(service))
    if (resident.instance.origin.authority === "first-hand")
      places.add(placeOf(addressOf(resident), resident.instance.port));
  return places;
}

/** How `firstHandPlaces` writes a place. */
export function placeOf(host: string, port: number): string {
  return hostPort(host.toLowerCase(), port);
}

/** IDs of all nodes with an agent: what these tell of themselves is in the directory at first hand. */
export function agentIds(view: Pick<View, "list">): ReadonlySet<string> {
  const ids = new Set<string>();
  for (const { id, external } of view.list("node")) if (external !== true && id !== "") ids.add(id);
  return ids;
}
