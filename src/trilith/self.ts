// Who this agent is: its name, its ID (kept in the data folder) and the address others reach it at.
import type { Clock } from "../base/clock.ts";
import type { Durable } from "../base/durable.ts";
import type { Net } from "../base/net.ts";
import { outwardAddresses } from "../base/networks.ts";
import type { Processes } from "../base/process.ts";
import type { Random } from "../base/random.ts";
import { packageVersion } from "../base/terminal.ts";
import type { Self } from "../contracts/ground.ts";
import type { Settings } from "../contracts/settings.ts";

interface Machine {
  readonly clock: Clock;
  readonly random: Random;
  readonly net: Net;
  readonly processes: Processes;
}

/** Who this agent is. `listening` is filled in by others later. The node's ID is made once and kept in the data folder. */
export async function selfOf(
  settings: Settings,
  durable: Durable,
  { clock, random, net, processes }: Machine,
  listening: ReadonlyMap<string, string>,
): Promise<Self> {
  const kept = durable.get("self", "node-id");
  const nodeId = settings.nodeId ?? (kept === undefined ? newNodeId(random) : Buffer.from(kept).toString("utf8"));
  if (kept === undefined || Buffer.from(kept).toString("utf8") !== nodeId)
    await durable.write([{ table: "self", key: "node-id", value: Buffer.from(nodeId) }]);
  const node = settings.node ?? (processes.hostname().split(".")[0] || "localhost");
  return {
    version: packageVersion(),
    node,
    nodeId,
    datacenter: settings.datacenter,
    datacenters: Object.keys(settings.datacenters ?? {}).map((name) => name.toLowerCase()),
    joined: settings.join !== undefined,
    domain: settings.domain.toLowerCase(),
    advertiseAddress: addressFor(settings, net),
    bindAddress: settings.bindAddress,
    startedAtMs: clock.now(),
    dev: settings.dev,
    compat: settings.compat,
    ...(settings.join === undefined ? {} : { client: true }),
    scripts: settings.scripts,
    listening,
  };
}

/** A UUID that begins with two digits: nodes are found by the beginning of their ID, too, and a name such as "db" or "bar" must not be that of another node's. */
function newNodeId(random: Random): string {
  const id = random.uuid();
  return String(Number.parseInt(id.slice(0, 2), 16) % 100).padStart(2, "0") + id.slice(2);
}

/** Addresses that mean every one of this host's. */
export const WILDCARD: RegExp = /^(0\.0\.0\.0|::)$/;
const LOOPBACK = /^(127\.|::1$|localhost$|unix:)/;

/**
 * The address other hosts reach this one at, unless the settings say one: loopback while nothing here speaks to other hosts; else one of this
 * host's where clients are listened to, else the likeliest of its own.
 */
export function addressFor(settings: Settings, net: Net): string {
  if (settings.advertiseAddress !== undefined) return settings.advertiseAddress;
  const { bindAddress } = settings;
  const clients = settings.clientAddress.split(/[\s,]+/);
  const wildcard = WILDCARD.test(bindAddress);
  const dns = settings.protocols["dns"] as { readonly bridge?: unknown } | false | undefined;
  // Containers that are answered by name must be able to reach this host.
  const bridged = dns !== undefined && dns !== false && dns.bridge !== undefined && dns.bridge !== false;
  const mdns = settings.protocols["mdns"];
  const onLan = mdns !== undefined && mdns !== false;
  const alone =
    settings.storage !== "etcd" &&
    settings.join === undefined &&
    settings.peers === undefined &&
    !bridged &&
    !onLan &&
    clients.every((address) => LOOPBACK.test(address));
  if (!wildcard && (!LOOPBACK.test(bindAddress) || alone)) return bindAddress;
  const outside = outwardAddresses(net.interfaces());
  return (outside.find(({ address }) => clients.includes(address)) ?? outside[0])?.address ?? "127.0.0.1";
}
