// The near order: the asker's own host first, then its own network, then by how much of the address is shared; equals are shuffled by weight.
import { isElsewhere } from "../../model/near.ts";
import type { Endpoint } from "../../model/query.ts";
import { commonBits, type IpBytes, inNetwork, isLoopback, parseIp, parseNetwork, sharesHost } from "../address.ts";
import type { PickContext, Picker } from "./picker.ts";
import { weightedShuffle } from "./random.ts";

const SAME_HOST = -2;
const SAME_NETWORK = -1;
/** Behind every distance between addresses of one family. */
const UNKNOWN = 129;

/** See the first line. An asker that is not known, or is on this host, is measured from this host's networks. */
export const near: Picker = (endpoints, limit, context) => {
  if (endpoints.length < 2) return limit === 0 ? [] : endpoints;
  const groups = new Map<number, Endpoint[]>();
  for (const endpoint of endpoints) {
    const distance = distanceTo(endpoint, context);
    const group = groups.get(distance);
    if (group === undefined) groups.set(distance, [endpoint]);
    else group.push(endpoint);
  }
  const ordered: Endpoint[] = [];
  for (const distance of [...groups.keys()].sort((a, b) => a - b)) {
    const room = limit - ordered.length;
    if (room <= 0) break;
    for (const endpoint of weightedShuffle(groups.get(distance) ?? [], room, context.random)) ordered.push(endpoint);
  }
  return ordered;
};

/** How far an endpoint is from the asker: `SAME_HOST`, `SAME_NETWORK`, else 128 less the bits that the addresses share. */
function distanceTo(endpoint: Endpoint, context: PickContext): number {
  const { asker, here } = context;
  if (sharesHost(endpoint.resident, asker, here) && !isAway(endpoint, context)) return SAME_HOST;
  const ip = parseIp(endpoint.address) ?? parseIp(endpoint.resident.node.address);
  if (ip === undefined) return UNKNOWN;
  if (asker === undefined || asker.here) {
    if (here.networks().some((network) => inNetwork(ip, network))) return SAME_NETWORK;
    return Math.min(UNKNOWN, ...here.networks().map((network) => bitsApart(network.bytes, ip)));
  }
  const network = endpoint.resident.instance.addresses?.find(({ host }) => host === endpoint.address)?.network;
  const parsed = network === undefined ? undefined : parseNetwork(network);
  if (parsed !== undefined && inNetwork(asker.ip, parsed)) return SAME_NETWORK;
  if (here.networks().some((own) => inNetwork(ip, own) && inNetwork(asker.ip, own))) return SAME_NETWORK;
  return bitsApart(asker.ip, ip);
}

/** What is only registered on the asker's host. Which addresses other hosts have nobody here knows: for their askers the node decides. */
function isAway({ resident, address }: Endpoint, { asker, here }: PickContext): boolean {
  if (asker !== undefined && !asker.here) return false;
  return isElsewhere(resident, address, (text) => {
    if (text === "0.0.0.0" || text === "::") return true;
    const ip = parseIp(text);
    return ip !== undefined && here.isOwn(ip);
  });
}

function bitsApart(a: IpBytes, b: IpBytes): number {
  const shared = commonBits(a, b);
  return shared === 0 || isLoopback(b) ? UNKNOWN : 128 - shared;
}
