// What Consul's clients look for in every catalog: the service "consul" of each server, and two labels of each node.
import type { Settings } from "../../contracts/settings.ts";
import type { ServiceFacts } from "../../model/instance.ts";
import type { Labels } from "../../model/node.ts";
import { CONSUL_VERSION } from "./version.ts";

/** Of every node. */
export const NODE_LABELS: Labels = { "consul-network-segment": "", "consul-version": CONSUL_VERSION };

/** The service under which an agent that is a server stands in the catalog. */
export function serverService(settings: Settings): ServiceFacts {
  return { id: "consul", name: "consul", tags: [], labels: SERVER_LABELS, address: "", port: serverPort(settings) };
}

/** The port under which the agent calls itself a server, as the Consul dialect is told. */
function serverPort(settings: Settings): number {
  const told = (settings.protocols["consul"] as { readonly serverPort?: unknown } | undefined)?.serverPort;
  return typeof told === "number" && told >= 0 ? told : 8300;
}

/** What a Consul server tells of itself; no gRPC here. */
const SERVER_LABELS: Labels = {
  grpc_port: "-1",
  non_voter: "false",
  raft_version: "3",
  read_replica: "false",
  serf_protocol_current: "2",
  serf_protocol_max: "5",
  serf_protocol_min: "1",
  version: CONSUL_VERSION,
};
