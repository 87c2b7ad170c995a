// `trilith members`: the agents that share this directory, in Consul's columns.
import { InputError, messageOf } from "../../base/error.ts";
import { type ClientOptions, clientFlags, withClient, withQuery } from "../client.ts";
import { type Command, json, table } from "../io.ts";

interface Options extends ClientOptions {
  readonly wan?: boolean;
  readonly detailed?: boolean;
  readonly status: string;
  readonly segment?: string;
  readonly filter?: string;
}

interface Member {
  readonly Name: string;
  readonly Addr: string;
  readonly Port: number;
  readonly Status: number;
  readonly Tags: Readonly<Record<string, string>>;
}

const STATUS = ["none", "alive", "leaving", "left", "failed"];

const address = ({ Addr, Port }: Member): string => (Addr.includes(":") ? `[${Addr}]:${Port}` : `${Addr}:${Port}`);

/** @throws InputError in Consul's words */
function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new InputError("", `Failed to compile status regexp: ${messageOf(error)}`);
  }
}

function row(member: Member): string[] {
  const { Name, Status, Tags } = member;
  const server = Tags["role"] === "consul";
  return [
    Name,
    address(member),
    STATUS[Status] ?? "none",
    server ? "server" : "client",
    (Tags["build"] ?? "").split(":")[0] || "< 0.3",
    Tags["vsn"] ?? "",
    Tags["dc"] ?? "",
    Tags["ap"] ?? "default",
    server ? "<all>" : Tags["segment"] || "<default>",
  ];
}

function detailedRow(member: Member): string[] {
  const tags = Object.entries(member.Tags)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`);
  return [member.Name, address(member), STATUS[member.Status] ?? "none", tags.join(",")];
}

function membersText(members: readonly Member[], detailed: boolean): string {
  const rows = detailed
    ? [["Node", "Address", "Status", "Tags"], ...members.map(detailedRow)]
    : [["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Partition", "Segment"], ...members.map(row)];
  return table(rows, { whole: true });
}

export const command: Command = {
  name: "members",
  summary: "the agents that share this directory",
  define(parser, io, done) {
    clientFlags(parser)
      .option("--detailed", "add all tags of each")
      .option("--status <pattern>", "only those whose status matches this regular expression", ".*")
      .option("--filter <expression>", "only those that match, in Consul's filter language")
      .option("--segment <name>", "accepted as Consul's flag")
      .option("--wan", "as known beyond this datacenter")
      .action(async (options: Options) => {
        const wanted = pattern(options.status);

        const query = new URLSearchParams();
        if (options.wan) query.set("wan", "1");
        if (options.filter !== undefined) query.set("filter", options.filter);
        const path = withQuery("/v1/agent/members", query);
        const all = await withClient(options, io, (client) => client.get<readonly Member[]>(path));
        const found = all
          .filter(({ Status }) => wanted.test(STATUS[Status] ?? "none"))
          .sort((a, b) => (a.Name < b.Name ? -1 : 1));
        if (options.json) io.out(json(found));
        if (found.length === 0) {
          io.err("No members match\n");
          return done(2);
        }
        if (!options.json) io.out(membersText(found, options.detailed === true));
        done(0);
      });
  },
};
