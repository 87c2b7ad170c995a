// Who this agent is: its name, its ID (kept in the data folder) and the address others reach it at.
import type { Clock } from "../base/clock.ts";
import type { Durable } from "../base/durable.ts";
import type { Net } from "../base/net.ts";
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
  const nodeId = settings.nodeId ?? (kept === undefined ? random.uuid() : Buffer.from(kept).toString("utf8"));
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
    advertiseAddress: settings.advertiseAddress ?? ownAddress(settings, net),
    bindAddress: settings.bindAddress,
    startedAtMs: clock.now(),
    dev: settings.dev,
    compat: settings.compat,
    ...(settings.join === undefined ? {} : { client: true }),
    scripts: settings.scripts,
    listening,
  };
}

/** Addresses that mean every one of this host's. */
export const WILDCARD: RegExp = /^(0\.0\.0\.0|::)$/;
const LOOPBACK = /^(127\.|::1$|localhost$|unix:)/;

/** The address other hosts reach this one at: loopback while nothing here speaks to other hosts, else the first of this host's own. */
function ownAddress(settings: Settings, net: Net): string {
  const { bindAddress, clientAddress } = settings;
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
    LOOPBACK.test(clientAddress);
  if (!wildcard && (!LOOPBACK.test(bindAddress) || alone)) return bindAddress;
  const outside = net
    .interfaces()
    .filter(({ internal, address }) => !internal && !address.startsWith("fe80:") && !address.startsWith("169.254."));
  return (outside.find(({ family }) => family === 4) ?? outside[0])?.address ?? "127.0.0.1";
}
