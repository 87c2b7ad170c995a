// Asking an agent from a program: find and list over this API; what the package's `find` and `list` are.
import { agentAddress } from "../../base/agent-address.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import { createHttp, type Http, type HttpRequest, type HttpResponse } from "../../base/http.ts";
import { environment } from "../../base/terminal.ts";
import type { Labels } from "../../model/node.ts";
import type { FindJson, ListedJson, ListJson } from "./shapes.ts";

export interface ClientOptions {
  /** The agent: host:port, http://…, unix:///path; default TRILITH_HTTP_ADDR, CONSUL_HTTP_ADDR, then 127.0.0.1:8500. */
  readonly agent?: string;
  readonly token?: string;
  readonly signal?: AbortSignal;
  /** What requests go through; the package's own unless given. */
  readonly http?: Pick<Http, "request">;
}

const ownHttp = createHttp();

/** Sends a question; the answer's status may be anything. */
async function send(path: string, options: ClientOptions, how: Partial<HttpRequest> = {}): Promise<HttpResponse> {
  const { text, base, socketPath } = agentAddress(options.agent);
  const token = options.token ?? environment("TRILITH_HTTP_TOKEN");
  try {
    return await (options.http ?? ownHttp).request({
      url: `${base}/v1/trilith/${path}`,
      ...how,
      ...(socketPath === undefined ? {} : { socketPath }),
      ...(token === undefined ? {} : { headers: { "x-trilith-token": token } }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new TrilithError(codeOf(error), `${NO_AGENT} ${text}: start one with "trilith agent"`, error);
  }
}

const NO_AGENT = "no agent answers at";

/** Whether it was thrown here because nobody answers, rather than by an agent. */
export function isNoAgent(error: unknown): error is TrilithError {
  return error instanceof TrilithError && error.message.startsWith(NO_AGENT);
}

async function ask<T>(path: string, options: ClientOptions): Promise<T> {
  return read<T>(await send(path, options), options);
}

async function read<T>(response: HttpResponse, options: ClientOptions): Promise<T> {
  const { text } = agentAddress(options.agent);
  const body = await response.text();
  let answer: { readonly error?: { readonly code: TrilithError["code"]; readonly message: string } };
  try {
    answer = JSON.parse(body);
  } catch (error) {
    throw new TrilithError(
      "unsupported",
      `what answers at ${text} is not a Trilith agent: status ${response.status} and ${JSON.stringify(body.slice(0, 80))}, expected JSON`,
      error,
    );
  }
  if (response.status !== 200)
    throw new TrilithError(answer.error?.code ?? "internal", answer.error?.message ?? `status ${response.status}`);
  return answer as T;
}

/** Which of a service's instances are meant, besides by their labels. */
interface Narrowed {
  readonly tags?: readonly string[];
  /** Another datacenter than the agent's own. */
  readonly datacenter?: string;
  /** Those with all checks passing; with warnings, too, unless told. */
  readonly health?: "passing" | "routable";
}

/**
 * The endpoints of a service that can be used now, in random order by weight; those with all of `labels`.
 * An unknown service has no endpoints (`known: false`). @throws TrilithError `unavailable` where no agent answers
 */
export function find(service: string, labels: Labels = {}, options: ClientOptions & Narrowed = {}): Promise<FindJson> {
  return ask(`find/${pathOf(service, labels, options)}`, options);
}

/**
 * What `find` answers, at once and again whenever the endpoints change; ends when aborted. @throws TrilithError `unavailable` where no agent answers,
 * and when it goes away
 */
export async function* follow(
  service: string,
  labels: Labels = {},
  options: ClientOptions & Narrowed = {},
): AsyncIterable<FindJson> {
  const response = await send(`follow/${pathOf(service, labels, options)}`, options, { bodyTimeoutMs: 0 });
  if (response.status !== 200) {
    await read(response, options);
    return;
  }
  let rest = "";
  response.body.setEncoding("utf8");
  try {
    for await (const chunk of response.body as AsyncIterable<string>) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) yield JSON.parse(line) as FindJson;
    }
  } catch (error) {
    if (options.signal?.aborted) return;
    throw new TrilithError("unavailable", `${gone(options)}: ${messageOf(error)}`, error);
  } finally {
    response.body.on("error", () => {}).destroy();
  }
  if (!options.signal?.aborted) throw new TrilithError("unavailable", gone(options));
}

const gone = (options: ClientOptions): string => `the agent at ${agentAddress(options.agent).text} went away`;

function pathOf(service: string, labels: Labels, { tags = [], datacenter, health }: Narrowed): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(labels)) query.append("label", `${key}=${value}`);
  for (const tag of tags) query.append("tag", tag);
  if (datacenter !== undefined) query.append("dc", datacenter);
  if (health !== undefined) query.append("health", health);
  return `${encodeURIComponent(service)}${query.size === 0 ? "" : `?${query}`}`;
}

/** All services with counts of their instances by health. @throws TrilithError `unavailable` where no agent answers */
export async function list(options: ClientOptions = {}): Promise<readonly ListedJson[]> {
  return (await ask<ListJson>("list", options)).services;
}

/** Where the agent keeps the table of the hook, which it writes at once if it has not yet. @throws TrilithError `unavailable` where no agent answers */
export async function hookTable(options: ClientOptions = {}): Promise<string> {
  return (await ask<{ readonly table: string }>("hook", options)).table;
}
