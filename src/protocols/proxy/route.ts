// GET /v1/trilith/proxies: the figures of everything in this agent that stands for a service, containers' ports included.
import type { Handler } from "../../base/http.ts";
import { sendJson } from "../../base/requests.ts";
import type { Connector, ProxyStatus } from "../../contracts/connect.ts";

export const PREFIX = "/v1/trilith/proxies";

/** The answer. */
export interface ProxiesJson {
  readonly proxies: readonly ProxyStatus[];
}

/** See the first line. */
export function createStatusHandler(connector: Pick<Connector, "proxies">): Handler {
  return (request, response) => {
    request.resume();
    const path = (request.url ?? "").replace(/\?.*$/, "");
    const error = (status: number, code: string, message: string): void =>
      sendJson(response, status, { error: { code, message } });
    if (path !== PREFIX && path !== `${PREFIX}/`) error(404, "not-found", `nothing is at ${path}: there is ${PREFIX}`);
    else if (request.method !== "GET") {
      response.setHeader("allow", "GET");
      error(405, "invalid", `${request.method} is not for ${path}: use GET`);
    } else {
      const json: ProxiesJson = { proxies: connector.proxies().map((each) => each.status()) };
      sendJson(response, 200, json);
    }
  };
}
