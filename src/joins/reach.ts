// Stone 3: the lookup, and ways to services that a connection can take.
import type { Net } from "../base/net.ts";
import { ownAddresses } from "../base/networks.ts";
import { openFilesLimit, systemTcp } from "../base/tcp.ts";
import { systemUdp } from "../base/udp.ts";
import type { Agent } from "../contracts/agent.ts";
import type { Connector } from "../contracts/connect.ts";
import type { SourceState } from "../contracts/ground.ts";
import type { Lookup } from "../contracts/lookup.ts";
import type { Magic } from "../contracts/magic.ts";
import { createBalancer } from "../lookup/balance/create.ts";
import { backendsBy } from "../lookup/connect/backends.ts";
import { createConnector } from "../lookup/connect/connector.ts";
import { createMagic } from "../lookup/connect/magic.ts";
import { createLookup, type RunningLookup } from "../lookup/lookup.ts";
import type { Base } from "./base.ts";
import type { Truth } from "./truth.ts";

/** The lookup, not started yet: it starts when everything stands. */
export function makeLookup(
  { settings, parts, self, durable, net, clock, random, log, metrics }: Base,
  { directory, storage, others }: Truth,
  agent: Agent,
  sources: () => readonly SourceState[],
): RunningLookup {
  const { guard, datacenter, peers } = settings;
  return createLookup({
    directory,
    agent,
    clock,
    random,
    log,
    metrics,
    durable,
    guard,
    node: self.node,
    datacenter,
    interfaces: () => net.interfaces(),
    net,
    shared: storage.shared,
    peers: peers !== undefined,
    sources,
    upstreams: () => [others.upstream, ...parts.upstreams],
    nodeElsewhere: others.upstream.node,
  });
}

/** Addresses that stand for services, and who passes a connection on. */
export async function makeReach(
  { settings, durable, net, clock, random, log, metrics, undo }: Base,
  agent: Agent,
  lookup: Lookup,
): Promise<{ readonly magic: Magic; readonly connector: Connector }> {
  const interfaces: Net["interfaces"] = () => net.interfaces();
  const magic = await createMagic({ durable, random, settings: settings.magic ?? {}, interfaces });
  const connector = createConnector({
    find: backendsBy({
      lookup,
      own: () => agent.node,
      ownAddresses: () => ownAddresses(interfaces),
      log: log.part("connect"),
    }),
    balancer: createBalancer({ clock, random }),
    refused: (service, address, port) => lookup.confirmLost(service, address, port),
    tcp: systemTcp,
    udp: systemUdp,
    clock,
    log,
    metrics,
    filesLimit: openFilesLimit(),
    interfaces,
  });
  undo.push("proxies", () => connector.stop());
  return { magic, connector };
}
