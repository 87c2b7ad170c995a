// Asking an agent from a program: find and list over this API; what the package's `find` and `list` are.
import { agentAddress } from "../../base/agent-address.ts";
import { codeOf, TrilithError } from "../../base/error.ts";
import { createHttp, type HttpResponse } from "../../base/http.ts";
import { environment } from "../../base/terminal.ts";
import type { Labels } from "../../model/node.ts";
import type { FindJson, ListedJson, ListJson } from "./shapes.ts";

export interface ClientOptions {
  /** The agent: host:port, http://…, unix:///path; default TRILITH_HTTP_ADDR, CONSUL_HTTP_ADDR, then 127.0.0.1:8500. */
  readonly agent?: string;
  readonly token?: string;
  readonly signal?: AbortSignal;
}

const http = createHttp();

async function ask<T>(path: string, options: ClientOptions): Promise<T> {
  const { text, base, socketPath } = agentAddress(options.agent);
  const token = options.token ?? environment("TRILITH_HTTP_TOKEN");
  let response: HttpResponse;
  try {
    response = await http.request({
      url: `${base}/v1/trilith/${path}`,
      ...(socketPath === undefined ? {} : { socketPath }),
      ...(token === undefined ? {} : { headers: { "x-trilith-token": token } }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new TrilithError(codeOf(error), `no agent answers at ${text}: start one with "trilith agent"`, error);
  }
  const body = await response.text();
  let answer: { readonly error?: { readonly code: TrilithError["code"]; readonly message: string } };
  try {
    answer = JSON.parse(body);
  } catch (error) {
    throw new TrilithError(
      "unsupported",
      `what answers at ${text} is no Trilith agent: status ${response.status} and ${JSON.stringify(body.slice(0, 80))}, expected JSON`,
      error,
    );
  }
  if (response.status !== 200)
    throw new TrilithError(answer.error?.code ?? "internal", answer.error?.message ?? `status ${response.status}`);
  return answer as T;
}

/**
 * The endpoints of a service that can be used now, in random order by weight; those with all of `labels`.
 * An unknown service has no endpoints (`known: false`). @throws TrilithError `unavailable` where no agent answers
 */
export function find(
  service: string,
  labels: Labels = {},
  options: ClientOptions & { readonly tags?: readonly string[] } = {},
): Promise<FindJson> {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(labels)) query.append("label", `${key}=${value}`);
  for (const tag of options.tags ?? []) query.append("tag", tag);
  return ask(`find/${encodeURIComponent(service)}${query.size === 0 ? "" : `?${query}`}`, options);
}

/** All services with counts of their instances by health. @throws TrilithError `unavailable` where no agent answers */
export async function list(options: ClientOptions = {}): Promise<readonly ListedJson[]> {
  return (await ask<ListJson>("list", options)).services;
}
