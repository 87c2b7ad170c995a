// /v1/status: the leader and its peers. An agent speaks for its directory; there is no consensus of its own to elect anybody.
import { hostPort } from "../../../base/net.ts";
import type { Call, Reply, Row } from "../call.ts";
import { ownDatacenterOnly, readOptions } from "../options.ts";

function here(call: Call): string {
  ownDatacenterOnly(readOptions(call, "none").datacenter);
  return hostPort(call.ground.self.advertiseAddress, call.config.serverPort);
}

export const statusRows: readonly Row[] = [
  { pattern: "/v1/status/leader", methods: ["GET"], endpoint: (call): Reply => ({ json: here(call) }) },
  { pattern: "/v1/status/peers", methods: ["GET"], endpoint: (call): Reply => ({ json: [here(call)] }) },
];
