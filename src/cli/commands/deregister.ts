// `trilith deregister ID`: takes services out that were registered on this agent.
import { InputError } from "../../base/error.ts";
import { type ClientOptions, clientFlags, clientFor, segment } from "../client.ts";
import { type Command, collect } from "../io.ts";

export const command: Command = {
  name: "deregister",
  summary: "take a service out",
  define(parser, io, done) {
    clientFlags(parser)
      .argument("[ids...]", "the services' IDs")
      .option("--id <id>", "a service's ID (repeatable)", collect)
      .action(async (ids: readonly string[], options: ClientOptions & { readonly id?: readonly string[] }) => {
        const all = [...ids, ...(options.id ?? [])];
        if (all.length === 0) throw new InputError("", "which service? trilith deregister ID");
        const client = clientFor(options, io);
        try {
          for (const id of all) {
            await (await client.request("PUT", `/v1/agent/service/deregister/${segment(id)}`)).text();
            io.out(`Deregistered service: ${id}\n`);
          }
          done(0);
        } finally {
          await client.close();
        }
      });
  },
};
