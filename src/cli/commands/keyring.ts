// `trilith keyring`: Consul's verb for the keys of its gossip. Agents of Trilith do not gossip; the agent says so, as a Consul without encryption does.
import { InputError, messageOf } from "../../base/error.ts";
import { type ClientOptions, clientFlags, Refused, withClient } from "../client.ts";
import { type Command, table } from "../io.ts";

interface Options extends ClientOptions {
  readonly install?: string;
  readonly list?: boolean;
  readonly listPrimary?: boolean;
  readonly remove?: string;
  readonly use?: string;
  readonly localOnly?: boolean;
  readonly relayFactor?: string;
}

interface Answer {
  readonly WAN: boolean;
  readonly Datacenter: string;
  readonly Keys: Readonly<Record<string, number>>;
  readonly PrimaryKeys?: Readonly<Record<string, number>>;
  readonly NumNodes: number;
}

const ACTIONS = [
  ["install", "POST", "Installing new gossip encryption key..."],
  ["use", "PUT", "Changing primary gossip encryption key..."],
  ["remove", "DELETE", "Removing gossip encryption key..."],
] as const;

function keysText({ WAN, Datacenter, Keys, PrimaryKeys = {}, NumNodes }: Answer, primary: boolean): string {
  const rows = Object.entries(primary ? PrimaryKeys : Keys).map(([key, number]) => [
    `  ${key}`,
    `[${number}/${NumNodes}]`,
  ]);
  return `\n${WAN ? "WAN" : Datacenter}:\n${table(rows)}`;
}

export const command: Command = {
  name: "keyring",
  summary: "gossip encryption keys: Trilith agents have none, and say so",
  define(parser, io, done) {
    clientFlags(parser)
      .option("--install <key>", "add a key")
      .option("--list", "list the keys in use")
      .option("--list-primary", "list the keys used for sending")
      .option("--remove <key>", "remove a key")
      .option("--use <key>", "use a key for sending")
      .option("--local-only", "with --list: ask this agent only")
      .option("--relay-factor <number>", "accepted as Consul's flag")
      .action(async (options: Options) => {
        const actions = ACTIONS.filter(([name]) => options[name] !== undefined && options[name] !== "");
        const listing = options.list === true || options.listPrimary === true;
        const wanted = actions.length + (listing ? 1 : 0);
        if (wanted > 1) throw new InputError("", "Only a single action is allowed");
        if (wanted === 0) throw new InputError("", "expected one of -install, -list, -list-primary, -remove and -use");
        if (options.localOnly && !listing) throw new InputError("-local-only", "only with -list");
        const [action] = actions;
        const path = "/v1/operator/keyring";
        try {
          await withClient(options, io, async (client) => {
            if (action !== undefined) {
              const [name, method, doing] = action;
              io.out(`==> ${doing}\n`);
              await client.send(method, path, { body: JSON.stringify({ Key: options[name] }) });
              return;
            }
            io.out("==> Gathering installed encryption keys...\n");
            const answers = await client.get<Answer[]>(`${path}${options.localOnly ? "?local-only=true" : ""}`);
            for (const answer of answers) io.out(keysText(answer, options.listPrimary === true));
          });
          done(0);
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          io.err(`error: Unexpected response code: ${error.status} (${messageOf(error)})\n`);
          done(1);
        }
      });
  },
};
