// Prepared queries that are kept elsewhere: at the servers of a client host, or in another datacenter; carried out there by Consul's API.
import { TrilithError } from "../../base/error.ts";
import type { Servers } from "../../base/servers.ts";
import type { PreparedAnswer, PreparedOptions } from "../../contracts/prepared.ts";
import { endpointOf, residentsOf } from "./datacenters.ts";

/** Carries a query out at others; undefined = they have no such query. @throws TrilithError `unavailable` where nobody answers, `invalid` */
export type QueriesElsewhere = (
  idOrName: string,
  options: PreparedOptions,
  signal?: AbortSignal,
) => Promise<PreparedAnswer | undefined>;

interface ExecutedJson {
  readonly Service?: string;
  readonly Nodes?: unknown;
  readonly DNS?: { readonly TTL?: string };
  readonly Datacenter?: string;
  readonly PeerName?: string;
  readonly Failovers?: number;
}

/** Queries of these servers. `node`: this host, which "_agent" means also there. */
export function queriesOf(servers: Servers, node: string): QueriesElsewhere {
  return async (idOrName, { limit = 0, near = "", asker, connect }, signal) => {
    const query = new URLSearchParams({ near: near === "_agent" ? node : near });
    if (limit > 0) query.set("limit", String(limit));
    if (connect === true) query.set("connect", "true");
    const answer = await servers.ask({
      path: `/v1/query/${encodeURIComponent(idOrName)}/execute?${query}`,
      ...(asker === undefined ? {} : { headers: { "x-forwarded-for": asker } }),
      ...(signal === undefined ? {} : { signal }),
    });
    const text = await answer.text();
    if (answer.status === 404) return undefined;
    if (answer.status !== 200)
      throw new TrilithError(
        answer.status === 500 && !/leader/i.test(text) ? "invalid" : "unavailable",
        `query "${idOrName}" at ${servers.current}: ${text.slice(0, 200)}`,
      );
    let found: ExecutedJson;
    try {
      found = JSON.parse(text) as ExecutedJson;
    } catch (error) {
      throw new TrilithError("unavailable", `query "${idOrName}" at ${servers.current}: the answer is not JSON`, error);
    }
    return {
      service: found.Service ?? "",
      ttl: found.DNS?.TTL ?? "",
      endpoints: residentsOf(found.Nodes ?? []).map(endpointOf),
      datacenter: found.Datacenter ?? "",
      peer: found.PeerName ?? "",
      failovers: found.Failovers ?? 0,
      more: false,
    };
  };
}
