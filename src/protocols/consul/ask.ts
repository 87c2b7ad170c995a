// The HTTP API asked from within the agent, without a connection: for its own watches.
import type { IncomingMessage } from "../../base/http.ts";
import { AskedBefore } from "./cache.ts";
import type { ConsulGround, Row } from "./call.ts";
import type { ConsulConfig } from "./config.ts";
import { Refusal } from "./errors.ts";
import { decodePath, splitTarget } from "./path.ts";
import { Query } from "./query.ts";
import { RouteTable } from "./server.ts";
import type { Fetched } from "./watch-plan.ts";

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
