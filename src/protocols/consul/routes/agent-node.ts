// /v1/agent: the agent and its host: self, members, host, version, maintenance, reload, leave, join.

import { messageOf } from "../../../base/error.ts";
import { hostPort } from "../../../base/net.ts";
import { NODE_ALIVE_CHECK, NODE_MAINTENANCE_CHECK } from "../../../model/check.ts";
import type { Node } from "../../../model/node.ts";
import { keyOf } from "../../../model/record.ts";
import type { Call, Reply, Row } from "../call.ts";
import { coordinatesOf, ORIGIN } from "../coordinates.ts";
import { Refusal } from "../errors.ts";
import { refuseEnterprise } from "../options.ts";
import { memberShape } from "../shapes.ts";
import { CONSUL_VERSION } from "../version.ts";
import { readEnable } from "./agent-services.ts";
import { readFilter } from "./choose.ts";

const versionOf = (call: Call): string => call.ground.agent.node.labels["consul-version"] ?? CONSUL_VERSION;
const revisionOf = (call: Call): string => `trilith-${call.ground.self.version}`;
const buildDate = (call: Call): string => new Date(call.ground.self.startedAtMs).toISOString().replace(/\.\d+Z$/, "Z");

/** The service that servers enter for themselves; client hosts do not. */
const SERVERS = "consul";

/** Serf's words for a member; protocols as Consul 1.19 speaks them. Client hosts have no port for other servers and know no raft. */
function member(call: Call, node: Node, alive: boolean, suffix = ""): Record<string, unknown> {
  const { config } = call;
  const { self, directory } = call.ground;
  const isServer = directory.view().get("service", keyOf.service(node.name, SERVERS)) !== undefined;
  return {
    Name: node.name + suffix,
    Addr: node.address,
    Port: config.serfPort,
    Tags: {
      build: `${versionOf(call)}:${revisionOf(call)}`,
      dc: self.datacenter,
      id: node.id,
      ...(isServer ? { port: String(config.serverPort), raft_vsn: "3" } : {}),
      role: isServer ? "consul" : "node",
      segment: "",
      vsn: "2",
      vsn_max: "3",
      vsn_min: "2",
    },
    Status: alive ? 1 : 4,
    ProtocolMin: 1,
    ProtocolMax: 5,
    ProtocolCur: 2,
    DelegateMin: 2,
    DelegateMax: 5,
    DelegateCur: 4,
  };
}

function members(call: Call): Reply {
  refuseEnterprise(call, "partition");
  const segment = call.query.get("segment");
  const wan = call.query.get("wan") !== "";
  if (segment !== "" && segment !== "_all")
    throw wan
      ? new Refusal(400, "Cannot provide a segment with wan=true")
      : new Refusal(500, "Network segments are not supported in this version of Consul");
  const wanted = readFilter(call, memberShape);
  const view = call.ground.directory.view();
  const rows: unknown[] = [];
  for (const node of view.list("node")) {
    const check = view.get("check", keyOf.check(node.name, NODE_ALIVE_CHECK));
    // To a client host of a real Consul its members are known by the check that their gossip keeps.
    if (node.external === true && (call.ground.self.client !== true || check === undefined)) continue;
    const alive = check?.status !== "critical";
    rows.push(member(call, node, alive, wan ? `.${node.datacenter}` : ""));
  }
  return { json: rows.filter(wanted) };
}

function self(call: Call): Reply {
  const { agent, self: me, directory, clock } = call.ground;
  const view = directory.view();
  const client = (me.listening.get("http") ?? me.bindAddress).replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
  const meta: Record<string, string> = Object.create(null);
  for (const [key, value] of Object.entries(agent.node.labels)) if (!key.startsWith("consul-")) meta[key] = value;
  return {
    json: {
      Config: {
        Datacenter: me.datacenter,
        PrimaryDatacenter: me.datacenter,
        NodeName: me.node,
        NodeID: me.nodeId,
        Revision: revisionOf(call),
        Server: me.client !== true,
        Version: versionOf(call),
        BuildDate: buildDate(call),
      },
      DebugConfig: {
        AdvertiseAddrLAN: me.advertiseAddress,
        BindAddr: me.bindAddress,
        ClientAddrs: [client],
        Datacenter: me.datacenter,
        DevMode: me.dev,
        DNSDomain: `${me.domain}.`,
        EnableLocalScriptChecks: me.scripts.fromFiles,
        EnableRemoteScriptChecks: me.scripts.fromApi,
        KVMaxValueSize: call.config.kvMaxValueBytes,
        NodeID: me.nodeId,
        NodeMeta: meta,
        NodeName: me.node,
        ServerMode: me.client !== true,
        ServerPort: call.config.serverPort,
        Version: versionOf(call),
      },
      ...(call.config.coordinates ? { Coord: coordinatesOf(view, me.node)[0]?.coordinate ?? ORIGIN } : { Coord: null }),
      Member: member(call, agent.node, true),
      Stats: {
        agent: {
          check_monitors: String([...agent.checks().values()].filter(({ spec }) => spec.kind !== "ttl").length),
          check_ttls: String([...agent.checks().values()].filter(({ spec }) => spec.kind === "ttl").length),
          checks: String(agent.checks().size),
          services: String(agent.services().size),
        },
        build: { revision: revisionOf(call), version: versionOf(call) },
        ...(me.client === true
          ? { consul: { known_servers: String([...view.residents(SERVERS)].length), server: "false" } }
          : {
              consul: {
                known_datacenters: "1",
                leader: String(view.fresh),
                leader_addr: hostPort(me.advertiseAddress, call.config.serverPort),
                server: "true",
              },
              raft: { applied_index: String(view.index), state: "Leader" },
            }),
        runtime: { uptime_s: String(Math.round((clock.now() - me.startedAtMs) / 1000)) },
      },
      Meta: agent.node.labels,
      xDS: { Port: -1, Ports: { Plaintext: -1, TLS: -1 } },
    },
  };
}

function version(call: Call): Reply {
  return {
    json: {
      SHA: revisionOf(call),
      BuildDate: buildDate(call),
      HumanVersion: versionOf(call),
      FIPS: "",
    },
  };
}

/** What /proc says about the host; what cannot be read is left out. */
async function host(call: Call): Promise<Reply> {
  const { processes, clock } = call.ground;
  const [meminfo = "", cpuinfo = "", uptime = "", release = ""] = await Promise.all(
    ["meminfo", "cpuinfo", "uptime", "sys/kernel/osrelease"].map((path) => processes.proc(path)),
  );
  const memory = new Map<string, number>();
  for (const line of meminfo.split("\n")) {
    const match = /^(\w+):\s+(\d+) kB/.exec(line);
    if (match !== null) memory.set(match[1] as string, Number(match[2]) * 1024);
  }
  const total = memory.get("MemTotal") ?? 0;
  const available = memory.get("MemAvailable") ?? 0;
  const cpus = cpuinfo
    .split("\n\n")
    .filter((block) => /^processor\s*:/m.test(block))
    .map((block, i) => {
      const read = (name: string): string => new RegExp(`^${name}\\s*:\\s*(.*)$`, "m").exec(block)?.[1] ?? "";
      return { cpu: i, vendorId: read("vendor_id"), modelName: read("model name"), mhz: Number(read("cpu MHz") || 0) };
    });
  const upSeconds = Math.floor(Number(uptime.split(" ")[0] ?? 0));
  return {
    json: {
      Memory: { total, available, used: total - available, free: memory.get("MemFree") ?? 0 },
      CPU: cpus,
      Host: {
        hostname: processes.hostname(),
        uptime: upSeconds,
        bootTime: Math.floor(clock.now() / 1000) - upSeconds,
        os: "linux",
        kernelVersion: release.trim(),
      },
      Disk: {},
      CollectionTime: clock.now() * 1e6,
      Errors: null,
    },
  };
}

async function maintenance(call: Call): Promise<undefined> {
  const enable = readEnable(call);
  const { agent } = call.ground;
  if (enable && agent.checks().has(NODE_MAINTENANCE_CHECK)) return undefined;
  const reason = call.query.get("reason");
  await agent.maintenance(
    "",
    enable,
    reason === ""
      ? "Maintenance mode is enabled for this node, but no reason was provided. This is a default message."
      : reason,
  );
  return undefined;
}

async function reload(call: Call): Promise<undefined> {
  try {
    await call.ground.control.reload();
  } catch (error) {
    // Wrong files are no fault of whoever asks.
    throw new Refusal(500, messageOf(error));
  }
  return undefined;
}

function leave(call: Call): undefined {
  // The answer has to be on its way before the listener goes.
  call.ground.clock.after(10, () => call.ground.control.stop(true), true);
  return undefined;
}

/** Agents of Trilith meet in the store they share; there is no gossip to join. Joining oneself is what scripts do and is done. */
function join(call: Call): undefined {
  refuseEnterprise(call, "partition");
  const { advertiseAddress, bindAddress } = call.ground.self;
  const own = [advertiseAddress, bindAddress].flatMap((address) => [address, hostPort(address, call.config.serfPort)]);
  if (own.includes(call.suffix)) return undefined;
  throw new Refusal(
    500,
    `cannot join ${call.suffix}: agents of Trilith share a store (--etcd) or follow another directory (--join) instead of gossip`,
  );
}

async function forceLeave(call: Call): Promise<undefined> {
  refuseEnterprise(call, "partition");
  const name = call.suffix;
  const { directory, clock } = call.ground;
  const node = directory.view().get("node", keyOf.node(name));
  if (node === undefined || node.external === true) throw new Refusal(500, `agent: No node found with name '${name}'`);
  // Whoever is alive and is told to have gone says no; Consul lets it be.
  if (node.name === call.ground.self.node && call.ground.self.compat === "consul") return undefined;
  if (node.name === call.ground.self.node) throw new Refusal(500, `agent: ${name} is this agent: use /v1/agent/leave`);
  const why = { code: "node-removed", text: "force-leave over HTTP", confirmed: true, atMs: clock.now() } as const;
  const written = await directory.write([{ op: "delete", table: "node", key: keyOf.node(name), why }], [], call.signal);
  if (written.result === "unknown") throw written.cause;
  return undefined;
}

const GET = ["GET"] as const;
const PUT = ["PUT"] as const;
export const agentNodeRows: readonly Row[] = [
  { pattern: "/v1/agent/self", methods: GET, endpoint: self },
  { pattern: "/v1/agent/host", methods: GET, endpoint: host },
  { pattern: "/v1/agent/version", methods: GET, endpoint: version },
  { pattern: "/v1/agent/members", methods: GET, endpoint: members },
  { pattern: "/v1/agent/maintenance", methods: PUT, endpoint: maintenance },
  { pattern: "/v1/agent/reload", methods: PUT, endpoint: reload },
  { pattern: "/v1/agent/leave", methods: PUT, endpoint: leave },
  { pattern: "/v1/agent/join/", methods: PUT, endpoint: join },
  { pattern: "/v1/agent/force-leave/", methods: PUT, endpoint: forceLeave },
];
