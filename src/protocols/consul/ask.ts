// The HTTP API asked from within the agent, for its own watches: without a connection, or over its own listener where that hands requests on.
import { TrilithError } from "../../base/error.ts";
import type { IncomingMessage } from "../../base/http.ts";
import type { Ground } from "../../contracts/ground.ts";
import { AskedBefore } from "./cache.ts";
import type { ConsulGround, Row } from "./call.ts";
import type { ConsulConfig } from "./config.ts";
import { Refusal } from "./errors.ts";
import { decodePath, splitTarget } from "./path.ts";
import { Query } from "./query.ts";
import { RouteTable } from "./server.ts";
import { type Fetched, parseExact } from "./watch-plan.ts";

/** Answers GETs of a path with its query. @throws Refusal for what the API refuses */
export function createAsk(
  rows: readonly Row[],
  config: ConsulConfig,
  ground: ConsulGround,
): (target: string, signal: AbortSignal) => Promise<Fetched> {
  const table = new RouteTable(rows);
  const askedBefore = new AskedBefore(ground.clock);
  // No headers, nobody's address.
  const request = { headers: {}, socket: {} } as unknown as IncomingMessage;
  return async (target, signal) => {
    const { path: escaped, query } = splitTarget(target);
    const row = table.find(escaped);
    const path = decodePath(escaped);
    if (row === undefined || path === undefined) throw new Refusal(404, `there is nothing at ${target}`);
    signal.throwIfAborted();
    const reply = await row.endpoint({
      ...{ ground, config, request, method: "GET", path, suffix: path.slice(row.pattern.length) },
      ...{ query: new Query(query), signal, askedBefore },
      body: async () => new Uint8Array(),
    });
    const status = reply?.status ?? 200;
    if (status >= 400 && status !== 404) throw new Refusal(status, reply?.text ?? `status ${status}`);
    return { status, index: reply?.headers?.["X-Consul-Index"], json: reply?.json };
  };
}

/** A blocking query waits for 300 s and a little longer. */
const HEAD_TIMEOUT_MS = 340_000;

/** Like `createAsk` over the agent's own HTTP listener. */
export function createAskOverHttp({
  http,
  self,
}: Pick<Ground, "http" | "self">): (target: string, signal: AbortSignal) => Promise<Fetched> {
  return async (target, signal) => {
    const at = self.listening.get("http");
    if (at === undefined)
      throw new TrilithError("unavailable", "the agent does not listen for HTTP, which its watches need");
    const unix = at.startsWith("unix://");
    const response = await http.request({
      ...{ signal, headTimeoutMs: HEAD_TIMEOUT_MS, bodyTimeoutMs: 0 },
      ...(unix
        ? { url: `http://localhost${target}`, socketPath: at.slice("unix://".length) }
        : { url: `http://${at}${target}` }),
    });
    const text = await response.text();
    if (response.status >= 400 && response.status !== 404) throw new Refusal(response.status, text);
    const index = response.headers["x-consul-index"];
    return {
      status: response.status,
      index: typeof index === "string" ? index : undefined,
      json: response.status === 404 || text === "" ? undefined : parseExact(text),
    };
  };
}
