// /v1/operator: what a Consul operator asks of the consensus. There is none of its own here; each agent speaks for its directory.
import { hostPort } from "../../../base/net.ts";
import { NODE_ALIVE_CHECK } from "../../../model/check.ts";
import type { Node } from "../../../model/node.ts";
import { keyOf } from "../../../model/record.ts";
import { formatGoDuration } from "../../../wire/duration.ts";
import { answerQuery } from "../blocking.ts";
import { uint } from "../bodies.ts";
import type { Call, Reply, Row } from "../call.ts";
import { type Decoder, decodeBody, durationMs, flag, record, text } from "../decode.ts";
import { Refusal } from "../errors.ts";
import { ownDatacenterOnly, readDatacenter, readOptions } from "../options.ts";
import { parseBool, parseUint } from "../query.ts";
import { CONSUL_VERSION } from "../version.ts";

/** What an agent of Trilith is in Consul's terms: a server of the directory. */
interface Server {
  readonly id: string;
  readonly name: string;
  readonly address: string;
  readonly alive: boolean;
  readonly leader: boolean;
  readonly version: string;
  readonly meta: Node["labels"];
}

function servers(call: Call): readonly Server[] {
  const { directory, self, agent } = call.ground;
  const view = directory.view();
  const found: Server[] = [];
  for (const node of view.list("node")) {
    if (node.external === true && node.name !== agent.node.name) continue;
    found.push({
      id: node.id,
      name: node.name,
      address: hostPort(node.address, call.config.serverPort),
      alive: view.get("check", keyOf.check(node.name, NODE_ALIVE_CHECK))?.status !== "critical",
      leader: node.name === self.node,
      version: node.labels["consul-version"] ?? CONSUL_VERSION,
      meta: node.labels,
    });
  }
  return found;
}

function raftConfiguration(call: Call): Reply {
  ownDatacenterOnly(readOptions(call, "none").datacenter);
  const { index } = call.ground.directory.view();
  return {
    json: {
      Servers: servers(call).map(({ id, name, address, leader }) => ({
        ID: id,
        Node: name,
        Address: address,
        Leader: leader,
        ProtocolVersion: "3",
        Voter: true,
        LastIndex: index,
      })),
      Index: index,
    },
  };
}

function removePeer(call: Call): never {
  const { query } = call;
  const [id, address] = [query.get("id"), query.get("address")];
  if (id === "" && address === "")
    throw new Refusal(400, "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove");
  if (id !== "" && address !== "") throw new Refusal(400, "Must specify only one of ?id or ?address");
  const known = servers(call).some((server) => (id === "" ? server.address === address : server.id === id));
  const what = id === "" ? `address ${JSON.stringify(address)}` : `id ${JSON.stringify(id)}`;
  if (!known) throw new Refusal(500, `${what} was not found in the Raft configuration`);
  throw new Refusal(
    500,
    `${what} cannot be taken out of a consensus: agents of Trilith share a store instead. /v1/agent/force-leave takes a node out of the directory`,
  );
}

function transferLeader(): never {
  throw new Refusal(
    500,
    "cannot find peer: every agent of Trilith speaks for its directory, there is no leader to move",
  );
}

interface KeyringBody {
  readonly Key?: string;
  readonly Token?: string;
  readonly RelayFactor?: number;
  readonly LocalOnly?: boolean;
}
const keyringBody: Decoder<KeyringBody> = record<KeyringBody>("keyringArgs", {
  ...{ Key: text, Token: text, RelayFactor: uint, LocalOnly: flag },
});

async function keyring(call: Call): Promise<never> {
  const { method, query } = call;
  if (method !== "GET") decodeBody(await call.body(), keyringBody);
  const relay = query.get("relay-factor");
  if (relay !== "" && !/^[+-]?\d+$/.test(relay))
    throw new Refusal(
      400,
      `Error parsing relay factor: strconv.Atoi: parsing ${JSON.stringify(relay)}: invalid syntax`,
    );
  if (Number(relay) < 0 || Number(relay) > 5)
    throw new Refusal(400, "Invalid relay-factor: Value must be in range: [0, 5]");
  const local = query.get("local-only");
  const localOnly = local === "" ? false : parseBool(local);
  if (localOnly === undefined)
    throw new Refusal(
      400,
      `Error parsing local-only: strconv.ParseBool: parsing ${JSON.stringify(local)}: invalid syntax`,
    );
  if (localOnly && method !== "GET")
    throw new Refusal(400, "Invalid use of local-only: local-only can only be set for GET requests");
  throw new Refusal(500, "keyring is empty: agents of Trilith do not gossip, there is nothing to encrypt");
}

const AUTOPILOT = "consul.autopilot";
const AUTOPILOT_ID = "configuration";

interface Autopilot {
  readonly CleanupDeadServers?: boolean;
  /** Milliseconds. */
  readonly LastContactThreshold?: number;
  readonly MaxTrailingLogs?: number;
  readonly MinQuorum?: number;
  /** Milliseconds. */
  readonly ServerStabilizationTime?: number;
  readonly RedundancyZoneTag?: string;
  readonly DisableUpgradeMigration?: boolean;
  readonly UpgradeVersionTag?: string;
  readonly CreateIndex?: number;
  readonly ModifyIndex?: number;
}
const autopilotBody: Decoder<Autopilot> = record<Autopilot>("AutopilotConfiguration", {
  CleanupDeadServers: flag,
  LastContactThreshold: durationMs,
  MaxTrailingLogs: uint,
  MinQuorum: uint,
  ServerStabilizationTime: durationMs,
  RedundancyZoneTag: text,
  DisableUpgradeMigration: flag,
  UpgradeVersionTag: text,
  CreateIndex: uint,
  ModifyIndex: uint,
});
const AUTOPILOT_DEFAULT: Required<Omit<Autopilot, "CreateIndex" | "ModifyIndex">> = {
  CleanupDeadServers: true,
  LastContactThreshold: 200,
  MaxTrailingLogs: 250,
  MinQuorum: 0,
  ServerStabilizationTime: 10_000,
  RedundancyZoneTag: "",
  DisableUpgradeMigration: false,
  UpgradeVersionTag: "",
};

/** What is not told is nothing, not the default. */
const AUTOPILOT_NOTHING: Autopilot = {
  ...AUTOPILOT_DEFAULT,
  CleanupDeadServers: false,
  LastContactThreshold: 0,
  MaxTrailingLogs: 0,
  ServerStabilizationTime: 0,
};

/** As shown: durations as Go writes them. */
function shownAutopilot(told: Autopilot | undefined): Record<string, unknown> {
  const all = { ...AUTOPILOT_DEFAULT, ...told };
  return {
    ...all,
    LastContactThreshold: formatGoDuration(all.LastContactThreshold),
    ServerStabilizationTime: formatGoDuration(all.ServerStabilizationTime),
  };
}

/** Kept and given back, so that tools that set it are content; nothing here goes by it. */
async function autopilotConfiguration(call: Call): Promise<Reply> {
  const datacenter = call.method === "GET" ? readOptions(call, "none").datacenter : readDatacenter(call, "none");
  ownDatacenterOnly(datacenter);
  const { directory } = call.ground;
  const key = keyOf.kept(AUTOPILOT, AUTOPILOT_ID);
  const held = directory.view().get("kept", key);
  if (call.method === "GET")
    return {
      json: {
        ...shownAutopilot(held?.value as Autopilot | undefined),
        CreateIndex: held?.createIndex ?? 1,
        ModifyIndex: held?.modifyIndex ?? 1,
      },
    };
  const {
    CreateIndex: _,
    ModifyIndex: __,
    ...told
  } = decodeBody(await call.body(), autopilotBody, "Error parsing autopilot config: ");
  const cas = call.query.has("cas") ? parseUint(call.query.get("cas")) : undefined;
  if (cas?.ok === false) throw new Refusal(400, `Error parsing cas value: ${cas.text}`);
  // The default has been there since the beginning: 1 is its index.
  const at = Number(cas?.value ?? 0);
  const expect =
    cas === undefined ? [] : [{ table: "kept" as const, key, at: held === undefined && at === 1 ? 0 : at }];
  const value = { kind: AUTOPILOT, id: AUTOPILOT_ID, value: { ...AUTOPILOT_NOTHING, ...told } };
  const written = await directory.write([{ op: "put", table: "kept", key, value }], expect, call.signal);
  if (written.result === "unknown") throw written.cause;
  return { json: written.result === "written" };
}

const since = (call: Call): string => new Date(call.ground.self.startedAtMs).toISOString();

function autopilotHealth(call: Call): Reply {
  ownDatacenterOnly(readOptions(call, "none").datacenter);
  const view = call.ground.directory.view();
  const all = servers(call);
  const healthy = view.fresh && all.every(({ alive }) => alive);
  return {
    status: healthy ? 200 : 429,
    json: {
      Healthy: healthy,
      FailureTolerance: Math.max(0, all.filter(({ alive }) => alive).length - 1),
      Servers: all.map(({ id, name, address, alive, leader, version }) => ({
        ID: id,
        Name: name,
        Address: address,
        SerfStatus: alive ? "alive" : "failed",
        Version: version,
        Leader: leader,
        LastContact: "0s",
        LastTerm: 1,
        LastIndex: view.index,
        Healthy: alive,
        Voter: true,
        StableSince: since(call),
      })),
    },
  };
}

function autopilotState(call: Call): Reply {
  ownDatacenterOnly(readOptions(call, "none").datacenter);
  const view = call.ground.directory.view();
  const all = servers(call);
  const tolerance = Math.max(0, all.filter(({ alive }) => alive).length - 1);
  return {
    json: {
      Healthy: view.fresh && all.every(({ alive }) => alive),
      FailureTolerance: tolerance,
      OptimisticFailureTolerance: tolerance,
      Servers: Object.fromEntries(
        all.map(({ id, name, address, alive, leader, version, meta }) => [
          id,
          {
            ID: id,
            Name: name,
            Address: address,
            NodeStatus: alive ? "alive" : "failed",
            Version: version,
            LastContact: "0s",
            LastTerm: 1,
            LastIndex: view.index,
            Healthy: alive,
            StableSince: since(call),
            ReadReplica: false,
            Status: leader ? "leader" : "voter",
            Meta: meta,
            NodeType: "voter",
          },
        ]),
      ),
      Leader: call.ground.self.nodeId,
      Voters: all.map(({ id }) => id),
    },
  };
}

const MESH_KINDS = [
  "api-gateway",
  "connect-native",
  "connect-proxy",
  "ingress-gateway",
  "mesh-gateway",
  "terminating-gateway",
] as const;

function usage(call: Call): Promise<Reply> {
  return answerQuery(call, { tellConsistency: true }, (view, options) => {
    let billable = 0;
    const mesh: Record<string, number> = Object.fromEntries(MESH_KINDS.map((kind) => [kind, 0]));
    for (const { name, foreign } of view.list("service")) {
      const kind = foreign?.["Kind"];
      if (typeof kind === "string" && kind in mesh) mesh[kind] = (mesh[kind] as number) + 1;
      else if (name !== "consul") billable++;
    }
    const names = new Set(view.serviceNames());
    const index = Math.max(view.at("services"), view.at("nodes"));
    return {
      index,
      waitOn: ["services", "nodes"],
      reply: {
        json: {
          Usage: {
            [call.ground.self.datacenter]: {
              Nodes: view.count("node"),
              Services: names.size,
              ServiceInstances: view.count("service"),
              ConnectServiceInstances: mesh,
              BillableServiceInstances: billable,
            },
          },
          Index: index,
          LastContact: 0,
          KnownLeader: view.fresh,
          ConsistencyLevel: options.consistency,
          NotModified: false,
          Backend: 0,
          ResultsFilteredByACLs: false,
        },
      },
    };
  });
}

const GET = ["GET"] as const;
export const operatorRows: readonly Row[] = [
  { pattern: "/v1/operator/raft/configuration", methods: GET, endpoint: raftConfiguration },
  { pattern: "/v1/operator/raft/peer", methods: ["DELETE"], endpoint: removePeer },
  { pattern: "/v1/operator/raft/transfer-leader", methods: ["POST"], endpoint: transferLeader },
  { pattern: "/v1/operator/keyring", methods: ["GET", "POST", "PUT", "DELETE"], endpoint: keyring },
  {
    pattern: "/v1/operator/autopilot/configuration",
    methods: ["GET", "PUT"],
    endpoint: autopilotConfiguration,
  },
  { pattern: "/v1/operator/autopilot/health", methods: GET, endpoint: autopilotHealth },
  { pattern: "/v1/operator/autopilot/state", methods: GET, endpoint: autopilotState },
  { pattern: "/v1/operator/usage", methods: GET, endpoint: usage },
];
