// How commands talk to an agent: its HTTP API at --http-addr, TRILITH_HTTP_ADDR, CONSUL_HTTP_ADDR or 127.0.0.1:8500.
import type { Readable } from "node:stream";
import type { Command as Commander } from "commander";
import { codeOf, messageOf, TrilithError } from "../base/error.ts";
import { createHttp, type HttpResponse } from "../base/http.ts";
import { type ClientOptions, connectionOf } from "./connection.ts";
import type { Io } from "./io.ts";

export { type ClientOptions, clientFlags } from "./connection.ts";

/** What goes with a request. */
export interface Asked {
  readonly body?: string | Uint8Array | Readable;
  /** A 404 is an answer, too. */
  readonly missing?: true;
  /** Milliseconds until the answer has to begin; 0 = no limit, 30 000 unless told. */
  readonly headTimeoutMs?: number;
}

/** An agent, as commands ask it. */
export interface Client {
  /** Where the agent is, for messages. */
  readonly address: string;
  /** Sends a request; throws a TrilithError with the agent's own words for statuses from 400 (but 404 where `missing` is set). */
  request(method: string, path: string, options?: Asked): Promise<HttpResponse>;
  /** Sends a request and reads the text of its answer. */
  send(method: string, path: string, options?: Asked): Promise<string>;
  /** The JSON of a GET. */
  get<T>(path: string): Promise<T>;
  close(): Promise<void>;
}

/** Adds --json to a command that has something to print. */
export function jsonFlag(command: Commander): Commander {
  return command.option("--json", "print JSON for programs instead of a table");
}

/** A name as one segment of a path; "." and ".." would otherwise mean the segments above. */
export function segment(name: string): string {
  return /^\.{1,2}$/.test(name) ? name.replaceAll(".", "%2E") : encodeURIComponent(name);
}

/** A path with its query, where there is one. */
export function withQuery(path: string, query: URLSearchParams): string {
  return query.size === 0 ? path : `${path}?${query}`;
}

/** A key as a path: slashes stay, everything else that a URL would read differently is escaped. */
export function keyPath(key: string): string {
  return `/v1/kv/${key.replace(/^\//, "").split("/").map(encodeURIComponent).join("/")}`;
}

/** The agent answered, and said no. */
export class Refused extends TrilithError {
  readonly status: number;
  constructor(status: number, message: string) {
    super(STATUS_CODES[status] ?? "unavailable", message);
    this.name = "Refused";
    this.status = status;
  }
}

/** A client for the agent that the flags and environment name. */
export function clientFor(options: ClientOptions, io: Pick<Io, "env" | "signal">): Client {
  const { text: given, base, socketPath, extras, query } = connectionOf(options, io.env);
  const http = createHttp();
  const client: Client = {
    address: given,
    async request(method, path, { body, missing, headTimeoutMs } = {}) {
      const more = query.map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
      if (options.stale === true && method === "GET" && !/[?&]stale\b/.test(path)) more.push("stale");
      const url = `${base}${path}${more.length === 0 ? "" : `${path.includes("?") ? "&" : "?"}${more.join("&")}`}`;
      const { headers, tls } = await extras();
      let response: HttpResponse;
      try {
        response = await http.request({
          url,
          method,
          signal: io.signal,
          bodyTimeoutMs: 0,
          ...(headTimeoutMs === undefined ? {} : { headTimeoutMs }),
          ...(socketPath === undefined ? {} : { socketPath }),
          ...(tls === undefined ? {} : { tls }),
          headers,
          ...(body === undefined ? {} : { body }),
        });
      } catch (error) {
        if (io.signal.aborted) throw error;
        throw new TrilithError("unavailable", unreachable(given, error), error);
      }
      if (response.status < 400 || (missing && response.status === 404)) return response;
      const text = await response.text();
      throw new Refused(response.status, messageIn(text, response.status, given));
    },
    send: async (method, path, options) => await (await client.request(method, path, options)).text(),
    async get<T>(path: string): Promise<T> {
      const text = await client.send("GET", path);
      try {
        return JSON.parse(text) as T;
      } catch (error) {
        throw new TrilithError("unavailable", `${given} answers, but not as an agent does${ANOTHER}`, error);
      }
    },
    close: () => http.close(),
  };
  return client;
}

/** Something done with a client, which is closed afterwards. */
export async function withClient<T>(
  options: ClientOptions,
  io: Pick<Io, "env" | "signal">,
  act: (client: Client) => Promise<T>,
): Promise<T> {
  const client = clientFor(options, io);
  try {
    return await act(client);
  } finally {
    await client.close();
  }
}

const ANOTHER = "; name the agent with --http-addr or TRILITH_HTTP_ADDR";
const STATUS_CODES: Readonly<Record<number, "invalid" | "not-found" | "not-allowed">> = {
  400: "invalid",
  403: "not-allowed",
  404: "not-found",
};

/** Why nobody could be asked: nothing listens, somebody else does, or nobody answers. */
function unreachable(given: string, error: unknown): string {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  const { code } = cause as { code?: unknown };
  if (code === "ECONNREFUSED" || code === "ENOENT")
    return `no agent answers at ${given}. Start one with "trilith agent", or name another with --http-addr`;
  if (code === "UND_ERR_HEADERS_TIMEOUT" || codeOf(error) === "timeout")
    return `what listens at ${given} takes connections but does not answer: is the agent stopped or overloaded?`;
  return `${given} cannot be asked (${messageOf(cause)})${ANOTHER}`;
}

/** The agent's own words in an error answer: `{error: {message}}` or plain text. */
function messageIn(text: string, status: number, given: string): string {
  try {
    const { error } = JSON.parse(text) as { error?: { message?: string } };
    if (error?.message !== undefined) return error.message;
  } catch {
    // Plain text, as Consul's dialect answers.
  }
  if (/^\s*<(!doctype|html|\?xml)/i.test(text))
    return `${given} answers with a page and status ${status}, not as an agent does${ANOTHER}`;
  return text.trim() === "" ? `the agent answered with status ${status}` : text.trim();
}
