// `trilith find NAME`: where to connect.
import { hostPort } from "../../base/net.ts";
import type { FindJson } from "../../index.ts";
import { type ClientOptions, clientFlags, jsonFlag, segment, withClient, withQuery } from "../client.ts";
import { ago, type Command, collect, json, pairs, table } from "../io.ts";

interface Options extends ClientOptions {
  readonly tag?: readonly string[];
  readonly label?: readonly string[];
  readonly passing?: boolean;
  readonly one?: boolean;
}

function endpointsText(endpoints: FindJson["endpoints"]): string {
  return table([
    ["ADDRESS", "PORT", "NODE", "STATUS", "ID", "TAGS", "LABELS"],
    ...endpoints.map((found) => [
      found.address,
      String(found.port),
      found.node,
      found.held ? `${found.status} (held)` : found.status,
      found.id,
      found.tags.join(","),
      Object.entries(found.labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(","),
    ]),
  ]);
}

export const command: Command = {
  name: "find",
  summary: "where is a service? addresses and ports of its healthy instances",
  define(parser, io, done) {
    jsonFlag(clientFlags(parser))
      .argument("<service>", "the service's name")
      .option("-t, --tag <tag>", "only instances with this tag (repeatable)", collect)
      .option("-l, --label <key=value>", "only instances with this label (repeatable)", collect)
      .option("--passing", "leave out instances with warnings")
      .option("-1, --one", "print one address:port, for scripts")
      .addHelpText("after", "\nExit code 1 when nothing was found.")
      .action(async (service: string, options: Options) => {
        const query = new URLSearchParams();
        for (const tag of options.tag ?? []) query.append("tag", tag);
        for (const [key, value] of Object.entries(pairs(options.label ?? [], "--label")))
          query.append("label", `${key}=${value}`);
        if (options.passing) query.set("passing", "");
        if (options.one) query.set("limit", "1");

        const path = withQuery(`/v1/trilith/find/${segment(service)}`, query);
        const answer = await withClient(options, io, (client) => client.get<FindJson>(path));
        const { endpoints, known, fresh, ageMs, held } = answer;
        if (options.json) io.out(json(answer));
        else if (options.one) io.out(endpoints.map(({ address, port }) => `${hostPort(address, port)}\n`).join(""));
        else if (endpoints.length > 0) io.out(endpointsText(endpoints));
        if (!fresh)
          io.err(`This is the last answer known good, ${ago(ageMs)} old: what is behind it does not answer.\n`);
        if (held !== undefined) io.err(`The sharp-drop guard holds old instances: ${held.text}\n`);
        if (endpoints.length === 0)
          io.err(
            known
              ? `"${service}" is known, but no instance fits and is healthy. "trilith why ${service}" tells more.\n`
              : `There is no service "${service}". "trilith list" shows what there is.\n`,
          );
        done(endpoints.length === 0 ? 1 : 0);
      });
  },
};
