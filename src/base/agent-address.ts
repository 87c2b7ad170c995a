// Where an agent's HTTP API is, as people write it: host:port, http://…, unix:///path, or by the environment.
import { TrilithError } from "./error.ts";
import { environment } from "./terminal.ts";

/** Where an agent's HTTP API is. */
export interface AgentAddress {
  /** As it was given, for messages. */
  readonly text: string;
  /** `http://host:port`, without a slash at its end. */
  readonly base: string;
  readonly socketPath?: string;
}

/** Where this host's agent is unless it is told. */
export const DEFAULT_ADDRESS = "127.0.0.1:8500";

/** Reads an agent's address. @throws TrilithError `invalid` */
export function agentAddress(given: string | undefined): AgentAddress {
  const text = given ?? environment("TRILITH_HTTP_ADDR") ?? environment("CONSUL_HTTP_ADDR") ?? DEFAULT_ADDRESS;
  if (text.startsWith("unix://")) return { text, base: "http://localhost", socketPath: text.slice("unix://".length) };
  const base = /^https?:\/\//.test(text) ? text.replace(/\/+$/, "") : `http://${text}`;
  if (!URL.canParse(base))
    throw new TrilithError(
      "invalid",
      `"${text}" is not an HTTP address: expected host:port, http://host:port or unix:///path`,
    );
  return { text, base };
}
