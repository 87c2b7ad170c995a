// `trilith list`: which services there are, and how well.
import type { ListedJson } from "../../index.ts";
import { type ClientOptions, clientFlags, jsonFlag, withClient } from "../client.ts";
import { ago, type Command, json, table } from "../io.ts";

const count = (number: number): string => (number === 0 ? "-" : String(number));

interface Answer {
  readonly services: readonly ListedJson[];
  readonly fresh: boolean;
  readonly ageMs: number;
}

function listText(services: readonly ListedJson[]): string {
  return table([
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
  ]);
}

export const command: Command = {
  name: "list",
  summary: "list all services, and how healthy they are",
  define(parser, io, done) {
    jsonFlag(clientFlags(parser)).action(async (options: ClientOptions) => {
      const answer = await withClient(options, io, (client) => client.get<Answer>("/v1/trilith/list"));
      const { services, fresh, ageMs } = answer;
      io.out(options.json ? json(services) : listText(services));
      if (!fresh) io.err(`This is the last list known good, ${ago(ageMs)} old: what is behind it does not answer.\n`);
      done(0);
    });
  },
};
