// This host's node as the directory has it: its addresses by role, its labels, and the check that says it lives.
import { ipFamily } from "../base/net.ts";
import type { Self } from "../contracts/ground.ts";
import type { Settings } from "../contracts/settings.ts";
import { type Check, NODE_ALIVE_CHECK } from "../model/check.ts";
import type { Origin } from "../model/instance.ts";
import type { Labels, Node } from "../model/node.ts";
import { OWN } from "./owners.ts";
import { ownLabels } from "./reconcile.ts";

/** Who says what the agent says of itself. */
export const OWN_ORIGIN: Origin = { source: OWN, authority: "first-hand" };

/** The node of an agent with these options. */
export function ownNode({
  self,
  settings,
  labels,
  taggedAddresses,
}: {
  readonly self: Pick<Self, "node" | "nodeId" | "datacenter" | "advertiseAddress">;
  readonly settings: Pick<Settings, "nodeLabels">;
  readonly labels?: Labels;
  readonly taggedAddresses?: Labels;
}): Node {
  const address = self.advertiseAddress;
  const family = ipFamily(address);
  return {
    id: self.nodeId,
    name: self.node,
    address,
    datacenter: self.datacenter,
    taggedAddresses: {
      lan: address,
      ...(family === 0 ? {} : { [`lan_ipv${family}`]: address }),
      wan: address,
      ...(family === 0 ? {} : { [`wan_ipv${family}`]: address }),
      ...taggedAddresses,
    },
    labels: ownLabels({ ...labels, ...settings.nodeLabels }),
  };
}

/** The check of a node that a running agent keeps, in Consul's words. */
export function aliveCheck(node: string): Check {
  return {
    id: NODE_ALIVE_CHECK,
    node,
    name: "Serf Health Status",
    status: "passing",
    notes: "",
    output: "Agent alive and reachable",
    serviceId: "",
    type: "",
    origin: OWN_ORIGIN,
  };
}
