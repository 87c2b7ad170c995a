// `trilith event`: fires a user event, with Consul's flags.
import { InputError } from "../../base/error.ts";
import { type ClientOptions, clientFlags, clientFor, jsonFlag } from "../client.ts";
import type { Command } from "../io.ts";

interface Options extends ClientOptions {
  readonly name?: string;
  readonly node?: string;
  readonly service?: string;
  readonly tag?: string;
}

export const command: Command = {
  name: "event",
  summary: "tell all hosts, or some, that something happened: trilith event --name deploy [payload]",
  define(parser, io, done) {
    jsonFlag(clientFlags(parser))
      .argument("[payload]", "what comes with it, up to about 400 bytes")
      .option("--name <name>", "what the event is called")
      .option("--node <pattern>", "only hosts whose name it matches")
      .option("--service <pattern>", "only hosts with a service that it matches")
      .option("--tag <pattern>", "of these services only those with a tag that it matches")
      .action(async (payload: string | undefined, options: Options) => {
        if (options.name === undefined || options.name === "")
          throw new InputError("--name", "Event name must be specified");
        if (options.tag !== undefined && options.service === undefined)
          throw new InputError("--tag", "Cannot provide tag filter without service filter.");
        const query = new URLSearchParams();
        for (const filter of ["node", "service", "tag"] as const) {
          const pattern = options[filter];
          if (pattern !== undefined) query.set(filter, pattern);
        }
        const client = clientFor(options, io);
        try {
          const path = `/v1/event/fire/${encodeURIComponent(options.name)}${query.size === 0 ? "" : `?${query}`}`;
          const response = await client.request("PUT", path, payload === undefined ? {} : { body: payload });
          const fired = JSON.parse(await response.text()) as { readonly ID: string };
          io.out(options.json ? `${JSON.stringify(fired, null, 2)}\n` : `Event ID: ${fired.ID}\n`);
          done(0);
        } finally {
          await client.close();
        }
      });
  },
};
