// What of this host is advertised on the tailnet: its own routable instances that can be reached there. Pure.
import { ipFamily } from "../../base/net.ts";
import type { HeldCheck, HeldService } from "../../contracts/agent.ts";
import { NODE_MAINTENANCE_CHECK, SERVICE_MAINTENANCE_CHECK, worst } from "../../model/check.ts";
import type { Instance } from "../../model/instance.ts";
import type { Node } from "../../model/node.ts";
import type { Offer } from "./peer.ts";

/** The name under which what comes in from the tailnet is held: it is never sent out again. */
export const SOURCE = "minidisc";
/** What the agent registers of itself. */
const AGENT = "agent";

export interface Announcing {
  readonly node: Pick<Node, "id" | "address">;
  readonly services: Iterable<HeldService>;
  readonly checks: Iterable<HeldCheck>;
  /** This host's addresses in the tailnet. */
  readonly own: readonly string[];
}

/** The offers, in the order of their names and addresses. */
export function offersOf({ node, services, checks, own }: Announcing): readonly Offer[] {
  const ofNode: HeldCheck[] = [];
  const byService = new Map<string, HeldCheck[]>();
  for (const held of checks) {
    const { serviceId } = held.check;
    if (serviceId === "") ofNode.push(held);
    else byService.set(serviceId, [...(byService.get(serviceId) ?? []), held]);
  }
  if (ofNode.some(({ check }) => check.id === NODE_MAINTENANCE_CHECK)) return [];
  const offers: Offer[] = [];
  for (const { instance } of services) {
    const { authority, source } = instance.origin;
    // Second-hand is another's to tell; a second copy of what came from the tailnet would never die.
    if (authority !== "first-hand" || source === SOURCE || source === AGENT) continue;
    const own_ = byService.get(instance.id) ?? [];
    if (instance.draining === true || instance.port === 0) continue;
    if (own_.some(({ check }) => check.id === `${SERVICE_MAINTENANCE_CHECK}${instance.id}`)) continue;
    const health = worst([...ofNode, ...own_].map(({ check }) => check));
    const at = health === "critical" ? undefined : reachedAt(instance, node.address, own);
    if (at === undefined || health === "critical") continue;
    const { name, labels, tags } = instance;
    offers.push({ name, labels, tags, health, owner: node.id, ...at });
  }
  const text = ({ name, address = "", port }: Offer): string => `${name} ${address} ${port}`;
  return offers.sort((a, b) => (text(a) < text(b) ? -1 : 1));
}

const EVERYWHERE = new Set(["", "0.0.0.0", "::"]);

/** Where an instance of this host is reached from the tailnet; undefined where it is not: what listens on loopback or one LAN address only stays there. */
function reachedAt(
  { address, port, addresses = [] }: Instance,
  nodeAddress: string,
  own: readonly string[],
): Pick<Offer, "address" | "port"> | undefined {
  const there = addresses.find(({ host, reach }) => reach === "tailnet" && own.includes(host));
  if (there !== undefined) return { address: there.host, port: there.port };
  if (own.includes(address)) return { address, port };
  // A host's usual address stands for all of its addresses, the tailnet's among them.
  if (EVERYWHERE.has(address) || (address === nodeAddress && !isLoopback(address))) return { port };
  return undefined;
}

const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || (ipFamily(host) === 4 && host.startsWith("127."));
