// What stands behind a query for somebody on this host who connects: the lookup's answer, with what the instances ask for.
import type { Log } from "../../base/log.ts";
import type { Backend, Backends } from "../../contracts/connect.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import { tierOf, transportOf } from "../../model/near.ts";
import type { Node } from "../../model/node.ts";
import type { Answer, Query } from "../../model/query.ts";
import { connectWishes } from "../../wire/connect-labels.ts";

/** Finds backends. A promise where others have to be asked. */
export type FindBackends = (query: Query, signal?: AbortSignal) => Backends | Promise<Backends>;

export interface BackendsParts {
  readonly lookup: Pick<Lookup, "resolve" | "resolveNow">;
  /** This host's node. */
  readonly own: () => Pick<Node, "name" | "labels">;
  /** Whether an IP address is this host's own (`ownAddresses`), as it is now. */
  readonly ownAddresses: () => (address: string) => boolean;
  readonly log: Log;
}

/** Backends by this agent's own lookup. What this host knows is never waited for. */
export function backendsBy({ lookup, own, ownAddresses, log }: BackendsParts): FindBackends {
  // The lookup gives the same list until something changes.
  const known = new WeakMap<Answer["endpoints"], Pick<Backends, "endpoints" | "policy" | "tryMs">>();
  const complained = new Set<string>();
  const complain = (service: string, text: string): void => {
    const line = `service ${service}: ${text}`;
    if (complained.has(line) || complained.size >= 1_000) return;
    complained.add(line);
    log.warn(line);
  };
  const backendsOf = ({ service }: Query, { endpoints, known: isKnown, fresh }: Answer): Backends => {
    let made = known.get(endpoints);
    if (made === undefined) {
      const wishes = connectWishes(
        endpoints.map(({ resident }) => resident.instance.labels),
        (text) => complain(service, text),
      );
      const host = own();
      const isOwn = ownAddresses();
      made = {
        endpoints: endpoints.map(({ address, port, weight, resident }): Backend => {
          const transport = transportOf(resident);
          return {
            address,
            port,
            weight,
            tier: wishes.locality === false ? 2 : tierOf(resident, host, address, isOwn),
            ...(transport === undefined ? {} : { transport }),
          };
        }),
        ...(wishes.policy === undefined ? {} : { policy: wishes.policy }),
        ...(wishes.tryMs === undefined ? {} : { tryMs: wishes.tryMs }),
      };
      known.set(endpoints, made);
    }
    return { ...made, known: isKnown, fresh };
  };
  return (query, signal) => {
    const asked: Query = { asker: "127.0.0.1", ...query, order: "stable" };
    const answer = lookup.resolveNow(asked);
    if (answer.known) return backendsOf(query, answer);
    return lookup.resolve(asked, signal).then((found) => backendsOf(query, found));
  };
}
