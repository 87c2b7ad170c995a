// `trilith catalog datacenters|nodes|services`: the catalog in Consul's columns.
import type { Command as Commander } from "commander";
import { type Client, type ClientOptions, clientFlags, jsonFlag, segment, withClient } from "../client.ts";
import { type Command, collect, type Io, json, pairs, table } from "../io.ts";

interface Options extends ClientOptions {
  readonly service?: string;
  readonly node?: string;
  readonly tags?: boolean;
  readonly detailed?: boolean;
  readonly nodeMeta?: readonly string[];
  readonly near?: string;
  readonly filter?: string;
}

interface NodeRow {
  readonly ID: string;
  readonly Node: string;
  readonly Address: string;
  readonly Datacenter: string;
  readonly TaggedAddresses: Record<string, string> | null;
  readonly Meta?: Record<string, string> | null;
  readonly NodeMeta?: Record<string, string> | null;
}

/** What narrows a list, as its parameters. */
function narrowing({ nodeMeta = [], near, filter }: Options): string {
  const query = Object.entries(pairs(nodeMeta, "--node-meta")).map(
    ([key, value]) => `node-meta=${encodeURIComponent(`${key}:${value}`)}`,
  );
  if (near !== undefined) query.push(`near=${encodeURIComponent(near)}`);
  if (filter !== undefined) query.push(`filter=${encodeURIComponent(filter)}`);
  return query.length === 0 ? "" : `?${query.join("&")}`;
}

const none = (what: string): string => `No ${what} match the given query - try expanding your search.\n`;

function pairText(pairs: Record<string, string> | null | undefined): string {
  return Object.entries(pairs ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`)
    .join(", ");
}

async function datacenters(client: Client, options: Options, io: Io): Promise<number> {
  const names = await client.get<string[]>("/v1/catalog/datacenters");
  io.out(options.json ? json(names) : names.map((name) => `${name}\n`).join(""));
  return 0;
}

async function nodes(client: Client, options: Options, io: Io): Promise<number> {
  const path = options.service === undefined ? "nodes" : `service/${segment(options.service)}`;
  const rows = await client.get<NodeRow[]>(`/v1/catalog/${path}${narrowing(options)}`);
  if (options.json) io.out(json(rows));
  else if (rows.length > 0) {
    const unique = [...new Map(rows.map((row) => [row.Node, row])).values()];
    const detailed = options.detailed === true;
    const head = ["Node", "ID", "Address", "DC", ...(detailed ? ["TaggedAddresses", "Meta"] : [])];
    io.out(
      table(
        [
          head,
          ...unique.map((row) => [
            row.Node,
            detailed ? row.ID : row.ID.slice(0, 8),
            row.Address,
            row.Datacenter,
            ...(detailed ? [pairText(row.TaggedAddresses), pairText(row.Meta ?? row.NodeMeta)] : []),
          ]),
        ],
        { whole: true },
      ),
    );
  }
  // No rows are an answer, too.
  if (rows.length === 0) io.err(none("nodes"));
  return 0;
}

async function services(client: Client, options: Options, io: Io): Promise<number> {
  let found: Record<string, readonly string[]>;
  if (options.node === undefined)
    found = await client.get<Record<string, string[]>>(`/v1/catalog/services${narrowing(options)}`);
  else {
    const node = await client.get<{ Services: Record<string, { Service: string; Tags: string[] }> } | null>(
      `/v1/catalog/node/${segment(options.node)}`,
    );
    const byName = new Map<string, Set<string>>();
    for (const { Service, Tags } of Object.values(node?.Services ?? {}))
      byName.set(Service, new Set([...(byName.get(Service) ?? []), ...(Tags ?? [])]));
    found = Object.fromEntries([...byName].map(([name, tags]) => [name, [...tags]]));
  }
  const names = Object.keys(found).sort();
  const row = (name: string): string[] => (options.tags ? [name, (found[name] ?? []).toSorted().join(",")] : [name]);
  if (options.json) io.out(json(found));
  else io.out(table(names.map(row), { whole: true, gap: 6 }));
  if (names.length === 0) io.err(none("services"));
  return 0;
}

export const command: Command = {
  name: "catalog",
  summary: "datacenters | nodes | services",
  define(parser, io, done) {
    const sub = (
      name: string,
      summary: string,
      act: (client: Client, options: Options, io: Io) => Promise<number>,
    ): Commander =>
      jsonFlag(clientFlags(parser.command(name).description(summary))).action(async (options: Options) =>
        done(await withClient(options, io, (client) => act(client, options, io))),
      );
    sub("datacenters", "all datacenters known here", datacenters);
    sub("nodes", "all nodes, or those that run a service", nodes)
      .option("--service <name>", "only nodes that run it")
      .option("--detailed", "add tagged addresses and labels")
      .option("--node-meta <key=value>", "only nodes with this label (repeatable)", collect)
      .option("--near <node>", "nearest to this node first; _agent = the agent's own")
      .option("--filter <expression>", "only those that match, in Consul's filter language");
    sub("services", "all services, or those on a node", services)
      .option("--node <name>", "only those on this node")
      .option("--tags", "add their tags")
      .option("--node-meta <key=value>", "only on nodes with this label (repeatable)", collect)
      .option("--filter <expression>", "only those that match, in Consul's filter language");
  },
};
