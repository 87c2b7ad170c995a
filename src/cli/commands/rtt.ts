// `trilith rtt`: how long it takes between two nodes, estimated from their network coordinates.
import { InputError, TrilithError } from "../../base/error.ts";
import { type Client, type ClientOptions, clientFlags, withClient } from "../client.ts";
import type { Command } from "../io.ts";

interface Options extends ClientOptions {
  readonly wan?: boolean;
}

interface Kept {
  readonly Node: string;
  readonly Segment: string;
  readonly Coord: {
    readonly Vec: readonly number[];
    readonly Error: number;
    readonly Adjustment: number;
    readonly Height: number;
  };
}

/** All coordinates of each node, by lower-case name; beyond this datacenter a node is called name.datacenter. */
async function coordinates(client: Client, wan: boolean): Promise<ReadonlyMap<string, readonly Kept[]>> {
  const all = wan
    ? (await client.get<{ Coordinates: Kept[] }[]>("/v1/coordinate/datacenters")).flatMap((one) => one.Coordinates)
    : await client.get<Kept[]>("/v1/coordinate/nodes");
  const byNode = new Map<string, Kept[]>();
  for (const one of all) {
    const name = one.Node.toLowerCase();
    byNode.set(name, [...(byNode.get(name) ?? []), one]);
  }
  return byNode;
}

export const command: Command = {
  name: "rtt",
  summary: "estimate the round-trip time between two nodes from their network coordinates",
  define(parser, io, done) {
    clientFlags(parser)
      .argument("<node1>")
      .argument("[node2]", "the other node (default: this agent's)")
      .option("--wan", "between servers of datacenters, as node.datacenter")
      .action(async (first: string, second: string | undefined, options: Options) => {
        const wan = options.wan === true;
        if (wan && ![first, second ?? "x."].every((name) => name.includes(".")))
          throw new InputError("", "Node names must be specified as <node name>.<datacenter> with -wan");
        const { distanceS } = await import("../../protocols/consul/cli.ts");
        await withClient(options, io, async (client) => {
          const { Config } =
            second === undefined
              ? await client.get<{ Config: { NodeName: string; Datacenter: string } }>("/v1/agent/self")
              : { Config: undefined };
          const other = second ?? (wan ? `${Config?.NodeName}.${Config?.Datacenter}` : (Config?.NodeName ?? ""));
          const known = await coordinates(client, wan);
          const of = (name: string): readonly Kept[] => {
            const found = known.get(name.toLowerCase());
            if (found === undefined)
              throw new TrilithError("not-found", `Could not find a coordinate for node ${JSON.stringify(name)}`);
            return found;
          };
          const [a, b] = [of(first), of(other)];
          const pair = a.flatMap((x) => b.filter((y) => y.Segment === x.Segment).map((y) => [x, y] as const))[0];
          const [x, y] = pair ?? [a[0], b[0]];
          const ms = distanceS(x?.Coord, y?.Coord) * 1000;
          if (options.json) io.out(`${JSON.stringify({ nodes: [first, other], rttMs: ms })}\n`);
          else
            io.out(
              `Estimated ${first} <-> ${other} rtt: ${ms.toFixed(3)} ms (using ${wan ? "WAN" : "LAN"} coordinates)\n`,
            );
        });
        done(0);
      });
  },
};
