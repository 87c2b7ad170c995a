// `trilith acl`, `login` and `logout`: Consul's verbs for access control. An agent of Trilith has none and says so, as a Consul does that has it switched off.
import type { Command as Commander } from "commander";
import { messageOf, TrilithError } from "../../base/error.ts";
import { type ClientOptions, clientFlags, Refused, withClient } from "../client.ts";
import type { Command, Io } from "../io.ts";

/** What is asked of the agent, and what Consul's command says in front of a refusal. */
interface Question {
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  readonly path: string;
  readonly failed: string;
}

/** Things with verbs of their own: the name on the command line, in the path, its plural there, and in messages. */
const THINGS: readonly (readonly [name: string, path: string, plural: string, said: string])[] = [
  ["token", "token", "tokens", "token"],
  ["policy", "policy", "policies", "policy"],
  ["role", "role", "roles", "role"],
  ["auth-method", "auth-method", "auth-methods", "auth method"],
  ["binding-rule", "binding-rule", "binding-rules", "binding rule"],
];
const NOBODY = "00000000-0000-0000-0000-000000000000";

function questionsOf([name, path, plural, said]: (typeof THINGS)[number]): Readonly<Record<string, Question>> {
  const one = `/v1/acl/${path}/${name === "auth-method" ? "none" : NOBODY}`;
  return {
    create: { method: "PUT", path: `/v1/acl/${path}`, failed: `Failed to create new ${said}` },
    ...(name === "token" ? { clone: { method: "PUT", path: `${one}/clone`, failed: "Error cloning token" } } : {}),
    read: { method: "GET", path: one, failed: `Error reading ${said}` },
    update: { method: "GET", path: one, failed: `Error when retrieving current ${said}` },
    delete: { method: "DELETE", path: one, failed: `Error deleting ${said}` },
    list: { method: "GET", path: `/v1/acl/${plural}`, failed: `Failed to retrieve the ${said} list` },
  };
}

/** Asks, and passes the agent's refusal on. */
async function ask({ method, path, failed }: Question, options: ClientOptions, io: Io): Promise<number> {
  return await withClient(options, io, async (client) => {
    try {
      await client.send(method, path, method === "GET" ? {} : { body: "{}" });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      io.err(`${failed}: Unexpected response code: ${error.status} (${messageOf(error)})\n`);
      return 1;
    }
    throw new TrilithError(
      "unsupported",
      `${client.address} has access control: only Consul's own program can manage it`,
    );
  });
}

/** A verb with whatever flags and words Consul's has: nothing is done with them. */
function verb(
  parent: Commander,
  name: string,
  about: string,
  question: Question,
  io: Io,
  done: (code: number) => void,
): void {
  refusing(clientFlags(parent.command(name).description(about)), question, io, done);
}

function refusing(command: Commander, question: Question, io: Io, done: (code: number) => void): void {
  command
    .argument("[words...]")
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (_: readonly string[], options: ClientOptions) => done(await ask(question, options, io)));
}

export const command: Command = {
  name: "acl",
  summary: "access control: a Trilith agent has none, and says so",
  define(parser, io, done) {
    const bootstrap: Question = { method: "PUT", path: "/v1/acl/bootstrap", failed: "Failed ACL bootstrapping" };
    verb(parser, "bootstrap", "create the first token", bootstrap, io, done);
    const agentToken: Question = { method: "PUT", path: "/v1/agent/token/default", failed: "Failed to set ACL token" };
    verb(parser, "set-agent-token", "set a token of the agent", agentToken, io, done);
    for (const thing of THINGS) {
      const group = parser
        .command(thing[0])
        .description(`${Object.keys(questionsOf(thing)).join(" | ")} (of ${thing[2]})`);
      for (const [name, question] of Object.entries(questionsOf(thing)))
        verb(group, name, `${name} a ${thing[3]}`, question, io, done);
    }
  },
};

export const login: Command = {
  name: "login",
  summary: "get a token: a Trilith agent has no access control, and says so",
  define(parser, io, done) {
    refusing(clientFlags(parser), { method: "POST", path: "/v1/acl/login", failed: "Error logging in" }, io, done);
  },
};

export const logout: Command = {
  name: "logout",
  summary: "give a token back: a Trilith agent has no access control, and says so",
  define(parser, io, done) {
    refusing(
      clientFlags(parser),
      { method: "POST", path: "/v1/acl/logout", failed: "Error destroying token" },
      io,
      done,
    );
  },
};
