// What commands that run somebody's program have in common: the -- before it, and the agent that they talk to meanwhile.
import type { Command as Commander } from "commander";
import { agentAddress } from "../base/agent-address.ts";
import { InputError } from "../base/error.ts";
import type { Io } from "./io.ts";

export interface WrapOptions {
  readonly httpAddr?: string;
  readonly token?: string;
}

/** The agent as `protocols/process` and `protocols/shim` take it. */
export interface NamedAgent {
  readonly base: string;
  /** For messages. */
  readonly shown: string;
  readonly socketPath?: string;
  readonly token?: string;
}

/** Adds the flags that name the agent: few, as a program's own flags follow. */
export function wrapFlags(parser: Commander): Commander {
  return parser
    .option("--http-addr <address>", "the agent's HTTP address: host:port, http://…, unix:///path (TRILITH_HTTP_ADDR)")
    .option("--token <token>", "the agent's token (TRILITH_HTTP_TOKEN)");
}

/** Without it flags of the program would have been taken for ours, or rewritten. @throws InputError */
export function mustHaveDashes(parser: Commander, name: string, words: readonly string[]): void {
  if (!(parser as unknown as { readonly rawArgs: readonly string[] }).rawArgs.includes("--"))
    throw new InputError("", `put -- before the command: trilith ${name} -- ${words.join(" ")}`);
}

/** The agent that the flags and the environment name. @throws InputError for an address that is none */
export function agentOf(options: WrapOptions, io: Pick<Io, "env">): NamedAgent {
  const { text, base, socketPath } = agentAddress(options.httpAddr);
  const token = options.token ?? io.env("TRILITH_HTTP_TOKEN") ?? io.env("CONSUL_HTTP_TOKEN");
  return {
    base,
    shown: text,
    ...(socketPath === undefined ? {} : { socketPath }),
    ...(token === undefined ? {} : { token }),
  };
}
