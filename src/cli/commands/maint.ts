// `trilith maint`: takes this host or one of its services out of routing for a while, and back; says what is out.
import { InputError } from "../../base/error.ts";
import { type ClientOptions, clientFlags, clientFor, segment } from "../client.ts";
import type { Command } from "../io.ts";

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

export const command: Command = {
  name: "maint",
  summary: "take this host or a service out of routing for a while, and back",
  define(parser, io, done) {
    clientFlags(parser)
      .option("--enable", "take it out")
      .option("--disable", "put it back")
      .option("--reason <text>", "why, for those who look")
      .option("--service <id>", "the service's ID; this host when absent")
      .action(async (options: Options) => {
        const { enable, disable, reason, service } = options;
        if (enable && disable) throw new InputError("", "Only one of -enable or -disable may be provided");
        if (!enable && !disable && reason !== undefined)
          throw new InputError("", "Reason may only be provided with -enable");
        if (!enable && !disable && service !== undefined)
          throw new InputError("", "Service requires either -enable or -disable");
        const client = clientFor(options, io);
        try {
          if (!enable && !disable) {
            const checks = await client.get<Record<string, Check>>("/v1/agent/checks");
            for (const { CheckID, Node, ServiceID, Notes } of Object.values(checks))
              if (CheckID === "_node_maintenance") io.out(`\nNode:\n  Name:   ${Node}\n  Reason: ${Notes}\n\n`);
              else if (CheckID.startsWith("_service_maintenance:"))
                io.out(`\nService:\n  ID:     ${ServiceID}\n  Reason: ${Notes}\n\n`);
            return done(0);
          }
          const query = new URLSearchParams({ enable: String(enable === true) });
          if (enable && reason !== undefined) query.set("reason", reason);
          const what =
            service === undefined ? "/v1/agent/maintenance" : `/v1/agent/service/maintenance/${segment(service)}`;
          await (await client.request("PUT", `${what}?${query}`)).text();
          const state = enable ? "enabled" : "disabled";
          io.out(
            service === undefined
              ? `Node maintenance is now ${state}\n`
              : `Service maintenance is now ${state} for ${JSON.stringify(service)}\n`,
          );
          done(0);
        } finally {
          await client.close();
        }
      });
  },
};
