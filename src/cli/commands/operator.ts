// `trilith operator`: what an operator of Consul asks: raft, autopilot, usage.
import type { Command as Commander } from "commander";
import { InputError, TrilithError } from "../../base/error.ts";
import { type Client, type ClientOptions, clientFlags, withClient } from "../client.ts";
import { type Command, formatOf, type Io, json, table } from "../io.ts";

interface Options extends ClientOptions {
  readonly allDatacenters?: boolean;
  readonly onlyBillable?: boolean;
  readonly onlyConnect?: boolean;
  readonly id?: string;
  readonly address?: string;
  readonly format?: string;
}

interface Server {
  readonly ID: string;
  readonly Node: string;
  readonly Address: string;
  readonly Leader: boolean;
  readonly ProtocolVersion: string;
  readonly Voter: boolean;
  readonly LastIndex: number;
}

async function listPeers(client: Client, options: Options, io: Io): Promise<void> {
  const { Servers } = await client.get<{ Servers: Server[] }>("/v1/operator/raft/configuration");
  if (options.json) return io.out(json(Servers));
  const last = Servers.find(({ Leader }) => Leader)?.LastIndex ?? 0;
  const behind = ({ Leader, LastIndex }: Server): string => {
    if (Leader) return "-";
    const by = last - LastIndex;
    return `${by} ${by === 1 ? "commit" : "commits"}`;
  };
  io.out(
    table([
      ["Node", "ID", "Address", "State", "Voter", "RaftProtocol", "Commit Index", "Trails Leader By"],
      ...Servers.map((server) => [
        server.Node,
        server.ID,
        server.Address,
        server.Leader ? "leader" : "follower",
        String(server.Voter),
        server.ProtocolVersion,
        String(server.LastIndex),
        behind(server),
      ]),
    ]),
  );
}

async function removePeer(client: Client, options: Options, io: Io): Promise<void> {
  const { id, address } = options;
  if ((id === undefined) === (address === undefined))
    throw new InputError("", "exactly one of -id and -address is required");
  const query = new URLSearchParams(id === undefined ? { address: address ?? "" } : { id });
  await client.send("DELETE", `/v1/operator/raft/peer?${query}`);
  io.out(`Removed peer with ${id === undefined ? "address" : "id"} ${JSON.stringify(id ?? address)}\n`);
}

async function transferLeader(client: Client, _: Options, io: Io): Promise<void> {
  await client.send("POST", "/v1/operator/raft/transfer-leader");
  io.out("Success\n");
}

async function getConfig(client: Client, options: Options, io: Io): Promise<void> {
  const config = await client.get<Record<string, unknown>>("/v1/operator/autopilot/configuration");
  if (options.json) return io.out(json(config));
  for (const name of [
    "CleanupDeadServers",
    "LastContactThreshold",
    "MaxTrailingLogs",
    "MinQuorum",
    "ServerStabilizationTime",
    "RedundancyZoneTag",
    "DisableUpgradeMigration",
    "UpgradeVersionTag",
  ])
    io.out(`${name} = ${typeof config[name] === "string" && config[name] === "" ? '""' : String(config[name])}\n`);
}

interface Config {
  readonly cleanupDeadServers?: string | true;
  readonly disableUpgradeMigration?: string | true;
  readonly lastContactThreshold?: string;
  readonly maxTrailingLogs?: string;
  readonly minQuorum?: string;
  readonly redundancyZoneTag?: string;
  readonly serverStabilizationTime?: string;
  readonly upgradeVersionTag?: string;
}

function flagOf(value: string | true, flag: string): boolean {
  if (value === true || /^(1|t|true)$/i.test(value)) return true;
  if (/^(0|f|false)$/i.test(value)) return false;
  throw new InputError(flag, `"${value}": expected true or false`);
}

function wholeOf(value: string, flag: string): number {
  if (/^\d{1,15}$/.test(value)) return Number(value);
  throw new InputError(flag, `"${value}": expected a whole number of 0 or more`);
}

async function durationOf(value: string, flag: string): Promise<string> {
  const { parseGoDuration } = await import("../../protocols/consul/cli.ts");
  parseGoDuration(value, flag);
  return value;
}

async function setConfig(client: Client, options: Options & Config, io: Io): Promise<void> {
  const path = "/v1/operator/autopilot/configuration";
  const { CreateIndex: _, ModifyIndex: at, ...held } = await client.get<Record<string, unknown>>(path);
  const {
    cleanupDeadServers: cleanup,
    disableUpgradeMigration: noMigration,
    lastContactThreshold: contact,
    maxTrailingLogs: logs,
    minQuorum: quorum,
    serverStabilizationTime: stabilization,
    redundancyZoneTag: zone,
    upgradeVersionTag: version,
  } = options;
  const set = {
    ...held,
    ...(cleanup === undefined ? {} : { CleanupDeadServers: flagOf(cleanup, "-cleanup-dead-servers") }),
    ...(noMigration === undefined
      ? {}
      : { DisableUpgradeMigration: flagOf(noMigration, "-disable-upgrade-migration") }),
    ...(contact === undefined ? {} : { LastContactThreshold: await durationOf(contact, "-last-contact-threshold") }),
    ...(logs === undefined ? {} : { MaxTrailingLogs: wholeOf(logs, "-max-trailing-logs") }),
    ...(quorum === undefined ? {} : { MinQuorum: wholeOf(quorum, "-min-quorum") }),
    ...(stabilization === undefined
      ? {}
      : { ServerStabilizationTime: await durationOf(stabilization, "-server-stabilization-time") }),
    ...(zone === undefined ? {} : { RedundancyZoneTag: zone }),
    ...(version === undefined ? {} : { UpgradeVersionTag: version }),
  };
  const answer = await client.send("PUT", `${path}?cas=${String(at)}`, { body: JSON.stringify(set) });
  if (answer.trim() !== "true")
    throw new TrilithError("conflict", "Configuration could not be atomically updated, please try again");
  io.out("Configuration updated!\n");
}

interface State {
  readonly Healthy: boolean;
  readonly FailureTolerance: number;
  readonly OptimisticFailureTolerance?: number;
  readonly Leader: string;
  readonly Voters: readonly string[];
  readonly Servers: Readonly<
    Record<
      string,
      {
        readonly Name: string;
        readonly Address: string;
        readonly Version: string;
        readonly Status: string;
        readonly NodeType: string;
        readonly NodeStatus: string;
        readonly Healthy: boolean;
        readonly LastContact: string;
        readonly LastTerm: number;
        readonly LastIndex: number;
        readonly Meta?: Readonly<Record<string, string>> | null;
      }
    >
  >;
}

const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1);

async function state(client: Client, options: Options, io: Io): Promise<void> {
  const form = formatOf(options.format ?? "pretty");
  const found = await client.get<State>("/v1/operator/autopilot/state");
  if (options.json) return io.out(json(found));
  if (form === "json") return io.out(`${JSON.stringify(found, null, 4)}\n`);
  io.out(`Healthy:                      ${found.Healthy}\n`);
  io.out(`Failure Tolerance:            ${found.FailureTolerance}\n`);
  io.out(`Optimistic Failure Tolerance: ${found.OptimisticFailureTolerance ?? 0}\n`);
  io.out(`Leader:                       ${found.Leader}\n`);
  io.out(`Voters:\n${found.Voters.map((id) => `   ${id}\n`).join("")}Servers:\n`);
  for (const [id, server] of Object.entries(found.Servers).sort(byName)) {
    io.out(`   ${id}\n`);
    for (const [what, value] of [
      ["Name:", server.Name],
      ["Address:", server.Address],
      ["Version:", server.Version],
      ["Status:", server.Status],
      ["Node Type:", server.NodeType],
      ["Node Status:", server.NodeStatus],
      ["Healthy:", server.Healthy],
      ["Last Contact:", server.LastContact],
      ["Last Term:", server.LastTerm],
      ["Last Index:", server.LastIndex],
    ] as const)
      io.out(`      ${what.padEnd(16)} ${value}\n`);
    const labels = Object.entries(server.Meta ?? {}).sort(byName);
    if (labels.length > 0) io.out("      Meta\n");
    for (const [name, value] of labels) io.out(`         ${JSON.stringify(name)}: ${JSON.stringify(value)}\n`);
  }
}

interface Usage {
  readonly Services: number;
  readonly ServiceInstances: number;
  readonly BillableServiceInstances: number;
  readonly ConnectServiceInstances?: Readonly<Record<string, number>>;
}

async function instances(client: Client, options: Options, io: Io): Promise<void> {
  const query = options.allDatacenters ? "?global" : "";
  const { Usage: all } = await client.get<{ Usage: Record<string, Usage> }>(`/v1/operator/usage${query}`);
  if (options.json) return io.out(json(all));
  const usages = Object.entries(all);
  const named = (dc: string, cells: readonly string[]): readonly string[] =>
    options.allDatacenters ? [dc, ...cells] : cells;
  if (options.onlyConnect !== true) {
    const total = usages.reduce((sum, [, usage]) => sum + usage.BillableServiceInstances, 0);
    io.out(`Billable Service Instances Total: ${total}\n`);
    for (const [dc, usage] of usages) io.out(`${dc} Billable Service Instances: ${usage.BillableServiceInstances}\n`);
    const rows = usages.map(([dc, usage]) =>
      named(dc, [String(usage.Services), String(usage.BillableServiceInstances)]),
    );
    io.out(
      `\nBillable Services\n${table([named("Datacenter", ["Services", "Service instances"]), ...rows], { gap: 6 })}`,
    );
  }
  if (options.onlyBillable === true) return;
  const rows = usages.flatMap(([dc, usage]) =>
    Object.entries(usage.ConnectServiceInstances ?? {})
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([kind, count]) => named(dc, [kind, String(count)])),
  );
  const head = named("Datacenter", ["Type", "Service instances"]);
  io.out(`${options.onlyConnect ? "" : "\n"}Connect Services\n${table([head, ...rows], { gap: 6 })}`);
}

export const command: Command = {
  name: "operator",
  summary: "raft list-peers | autopilot get-config, set-config, state | usage instances",
  define(parser, io, done) {
    const leaf = (
      group: Commander,
      name: string,
      summary: string,
      act: (client: Client, options: Options, io: Io) => Promise<void>,
    ): Commander =>
      clientFlags(group.command(name).description(summary)).action(async (options: Options) => {
        await withClient(options, io, (client) => act(client, options, io));
        done(0);
      });
    const raft = parser.command("raft").description("the agents that keep this directory");
    leaf(raft, "list-peers", "the agents that keep this directory", listPeers);
    leaf(raft, "remove-peer", "take an agent out", removePeer)
      .option("--id <id>", "the node's ID")
      .option("--address <address>", "the node's address and port");
    leaf(raft, "transfer-leader", "move the leadership", transferLeader);
    const autopilot = parser.command("autopilot").description("settings and health of the agents");
    leaf(autopilot, "get-config", "the settings that are kept", getConfig);
    leaf(autopilot, "set-config", "change the settings that are kept (without an effect here)", setConfig)
      .option("--cleanup-dead-servers [bool]", "true or false")
      .option("--last-contact-threshold <duration>", "such as 200ms")
      .option("--max-trailing-logs <number>", "how many")
      .option("--min-quorum <number>", "how many")
      .option("--server-stabilization-time <duration>", "such as 10s")
      .option("--redundancy-zone-tag <label>", "accepted as Consul's flag")
      .option("--disable-upgrade-migration [bool]", "accepted as Consul's flag")
      .option("--upgrade-version-tag <label>", "accepted as Consul's flag");
    leaf(autopilot, "state", "how the agents are", state).option("--format <form>", "pretty or json", "pretty");
    const usage = parser.command("usage").description("how much there is");
    leaf(usage, "instances", "services and instances", instances)
      .option("--all-datacenters", "of all datacenters, not only the agent's")
      .option("--only-billable", "without those of a mesh")
      .option("--only-connect", "only those of a mesh")
      .option("--json", "print JSON for programs");
  },
};
