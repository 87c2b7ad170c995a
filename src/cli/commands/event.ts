// `trilith event`: fires a user event, with Consul's flags.
import { InputError } from "../../base/error.ts";
import { type ClientOptions, clientFlags, jsonFlag, withClient } from "../client.ts";
import { type Command, json } from "../io.ts";
import { type Audience, audienceFlags, checkAudience, fire } from "../user-event.ts";

interface Options extends ClientOptions, Audience {
  readonly name?: string;
}

export const command: Command = {
  name: "event",
  summary: "tell all hosts, or some, that something happened: trilith event --name deploy [payload]",
  define(parser, io, done) {
    audienceFlags(
      jsonFlag(clientFlags(parser))
        .argument("[payload]", "data to send with it, up to about 400 bytes")
        .option("--name <name>", "the event's name"),
    ).action(async (payload: string | undefined, options: Options) => {
      const { name } = options;
      if (name === undefined || name === "") throw new InputError("--name", "Event name must be specified");
      checkAudience(options);

      const fired = await withClient(options, io, (client) => fire(client, name, options, payload));
      io.out(options.json ? json(fired) : `Event ID: ${fired.ID}\n`);
      done(0);
    });
  },
};
