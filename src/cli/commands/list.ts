// `trilith list`: which services there are, and how well.
import type { ListedJson } from "../../index.ts";
import { type ClientOptions, clientFlags, clientFor, jsonFlag } from "../client.ts";
import { ago, type Command, table } from "../io.ts";

const count = (number: number): string => (number === 0 ? "-" : String(number));

export const command: Command = {
  name: "list",
  summary: "which services are there?",
  define(parser, io, done) {
    jsonFlag(clientFlags(parser)).action(async (options: ClientOptions) => {
      const client = clientFor(options, io);
      try {
        const answer = await client.get<{ services: ListedJson[]; fresh: boolean; ageMs: number }>("/v1/trilith/list");
        const { services, fresh, ageMs } = answer;
        if (options.json) io.out(`${JSON.stringify(services, null, 2)}\n`);
        else
          io.out(
            table([
              ["SERVICE", "INSTANCES", "PASSING", "WARNING", "CRITICAL", "OUT", "TAGS"],
              ...services.map((service) => [
                service.name,
                String(service.instances),
                count(service.passing),
                count(service.warning),
                count(service.critical),
                count(service.draining + service.maintenance),
                service.tags.join(","),
              ]),
            ]),
          );
        if (!fresh) io.err(`This is the last list known good, ${ago(ageMs)} old: what is behind it does not answer.\n`);
        done(0);
      } finally {
        await client.close();
      }
    });
  },
};
