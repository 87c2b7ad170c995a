// `trilith maint`: takes this host or one of its services out of routing for a while, and back; says what is out.
import { InputError } from "../../base/error.ts";
import { type Client, type ClientOptions, clientFlags, segment, withClient, withQuery } from "../client.ts";
import type { Command, Io } from "../io.ts";

interface Options extends ClientOptions {
  readonly enable?: boolean;
  readonly disable?: boolean;
  readonly reason?: string;
  readonly service?: string;
}

interface Check {
  readonly Node: string;
  readonly CheckID: string;
  readonly ServiceID: string;
  readonly Notes: string;
}

async function show(client: Client, io: Io): Promise<void> {
  const checks = await client.get<Record<string, Check>>("/v1/agent/checks");
  for (const { CheckID, Node, ServiceID, Notes } of Object.values(checks))
    if (CheckID === "_node_maintenance") io.out(`\nNode:\n  Name:   ${Node}\n  Reason: ${Notes}\n\n`);
    else if (CheckID.startsWith("_service_maintenance:"))
      io.out(`\nService:\n  ID:     ${ServiceID}\n  Reason: ${Notes}\n\n`);
}

async function set(client: Client, { enable, reason, service }: Options, io: Io): Promise<void> {
  const query = new URLSearchParams({ enable: String(enable === true) });
  if (enable && reason !== undefined) query.set("reason", reason);
  const path = service === undefined ? "/v1/agent/maintenance" : `/v1/agent/service/maintenance/${segment(service)}`;
  await client.send("PUT", withQuery(path, query));
  const what = service === undefined ? "Node" : "Service";
  const whose = service === undefined ? "" : ` for ${JSON.stringify(service)}`;
  io.out(`${what} maintenance is now ${enable ? "enabled" : "disabled"}${whose}\n`);
}

export const command: Command = {
  name: "maint",
  summary: "take this host or a service out of routing for a while, or put it back",
  define(parser, io, done) {
    clientFlags(parser)
      .option("--enable", "take it out")
      .option("--disable", "put it back")
      .option("--reason <text>", "why, for others to see")
      .option("--service <id>", "the service's ID (default: the whole host)")
      .action(async (options: Options) => {
        const { enable, disable, reason, service } = options;
        if (enable && disable) throw new InputError("", "Only one of -enable or -disable may be provided");
        if (!enable && !disable && reason !== undefined)
          throw new InputError("", "Reason may only be provided with -enable");
        if (!enable && !disable && service !== undefined)
          throw new InputError("", "Service requires either -enable or -disable");

        await withClient(options, io, (client) => (enable || disable ? set(client, options, io) : show(client, io)));
        done(0);
      });
  },
};
