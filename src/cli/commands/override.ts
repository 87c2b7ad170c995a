// `trilith override NAME word…`: what an operator says about a service in place of its source; --undo takes it back, --list shows all.
import { InputError } from "../../base/error.ts";
import type { OverrideJson } from "../../index.ts";
import { type Client, type ClientOptions, clientFlags, jsonFlag, segment, withClient } from "../client.ts";
import { type Command, type Io, json, printable, table } from "../io.ts";

interface Options extends ClientOptions {
  readonly undo?: boolean;
  readonly list?: boolean;
}

const WORDS = `
Words:
  name=shop                what it is called
  tags+=a,b  tags-=a       add or remove tags; tags=a,b sets all of them
  label.k=v                a label; label.k= removes it
  weight=5                 how often it is chosen compared with others
  port=8080  address=IP    where it is reached
  check=http:/health       how to check it; also check=tcp, check=URL and
                           check=none; with @30 behind it: every 30 s
  hidden                   it is not registered, and in no answer

NAME is an instance's ID, a service's name, or a container's name or ID. An
override of an ID wins over one of a container, and that over one of a service.
Overrides are kept until --undo, across restarts of the agent and the service.
In definition files: overrides = [{ for = "NAME", set = ["name=shop"] }]
`;

const when = (one: OverrideJson): string => (one.at === undefined ? "" : `, ${one.at}`);

function listText(overrides: readonly OverrideJson[]): string {
  if (overrides.length === 0) return "Nothing is overridden.\n";
  return table(
    overrides.map((one) => [
      one.for,
      one.set.join(" "),
      one.note === undefined ? `changes ${one.matches.map(({ id }) => id).join(", ")}` : "changes nothing at present",
      `${one.by}${when(one)}`,
    ]),
  );
}

function setText(one: OverrideJson): string {
  const lines = [`${one.for}: ${one.set.join(" ")}`];
  if (one.note !== undefined) lines.push(`Note: ${one.note}.`);
  for (const { id, service, from, hidden, text } of one.matches)
    lines.push(
      `  ${id}, which ${from} calls "${service}"${text === undefined ? "" : ` (${text})`}${hidden ? ": hidden" : ""}`,
    );
  return lines.map((line) => `${printable(line)}\n`).join("");
}

/** Without a name all overrides are shown. */
async function act(
  client: Client,
  name: string | undefined,
  words: readonly string[],
  options: Options,
  io: Io,
): Promise<void> {
  if (name === undefined) {
    const { overrides } = await client.get<{ readonly overrides: readonly OverrideJson[] }>("/v1/trilith/overrides");
    return io.out(options.json ? json(overrides) : listText(overrides));
  }
  const path = `/v1/trilith/override/${segment(name)}`;
  if (options.undo === true) {
    const text = await client.send("DELETE", path);
    return io.out(options.json ? text : `${name}: as its source says it again\n`);
  }
  const by = io.env("SUDO_USER") ?? io.env("USER") ?? "";
  const text = await client.send("PUT", path, { body: JSON.stringify({ set: words, by }) });
  io.out(options.json ? text : setText(JSON.parse(text) as OverrideJson));
}

export const command: Command = {
  name: "override",
  summary: "replace what a service's source says about it (name, tags, weight, check), or hide it",
  define(parser, io, done) {
    jsonFlag(clientFlags(parser))
      .argument("[name]", "an instance's ID, a service's name, or a container's name or ID")
      .argument("[words...]", "what to say instead")
      .option("--undo", "take the override back")
      .option("--list", "list all overrides")
      .addHelpText("after", WORDS)
      .action(async (name: string | undefined, words: readonly string[], options: Options) => {
        if (options.list !== true && name === undefined)
          throw new InputError("", "what about? trilith override NAME name=shop, or trilith override --list");
        if (options.list === true && (name !== undefined || options.undo === true))
          throw new InputError("--list", "shows everything; no name and no words belong to it");
        if (options.undo === true && words.length > 0)
          throw new InputError("--undo", "takes back everything that was said about the name; no words belong to it");

        await withClient(options, io, (client) => act(client, name, words, options, io));
        done(0);
      });
  },
};
