// What else the directory keeps, each by its own rules: keys, sessions, events, prepared queries.
import type { Agent } from "../contracts/agent.ts";
import type { Events } from "../contracts/event.ts";
import type { Kv } from "../contracts/kv.ts";
import type { Lookup } from "../contracts/lookup.ts";
import type { Prepared } from "../contracts/prepared.ts";
import type { Sessions } from "../contracts/session.ts";
import { createEvents } from "../directory/event.ts";
import { createKv } from "../directory/kv.ts";
import { Dues } from "../directory/locks.ts";
import { createPrepared } from "../directory/prepared.ts";
import { refusedAmongPeers } from "../directory/refused.ts";
import { createDistances } from "../directory/remote/distances.ts";
import { createSessions } from "../directory/session.ts";
import { nearestFirst } from "../protocols/consul/coordinates.ts";
import type { Base } from "./base.ts";
import type { Truth } from "./truth.ts";

export interface Records {
  readonly kv: Kv;
  readonly sessions: Sessions;
  readonly events: Events;
  readonly prepared: Prepared;
}

/** Keeps them from now on. */
export function keepRecords(
  { settings, self, net, clock, random, log, undo }: Base,
  { directory, storage, others }: Truth,
  agent: Agent,
  lookup: Lookup,
): Records {
  const dues = new Dues(clock);
  const ownSessions = createSessions({ directory, shared: storage.shared, clock, random, log, dues });
  const { kv, sessions } =
    settings.peers === undefined
      ? {
          kv: others.kept?.kv ?? createKv({ directory, clock, random, dues }),
          sessions: others.kept?.sessions(ownSessions) ?? ownSessions,
        }
      : refusedAmongPeers(ownSessions);
  undo.push("the sessions", () => sessions.stop());
  sessions.start();
  const events = createEvents({ directory, agent, clock, random, log });
  undo.push("the events", () => events.stop());
  events.start();
  const distances = createDistances({ datacenters: settings.datacenters ?? {}, net, clock, random });
  undo.push("measuring other datacenters", () => distances.stop());
  distances.start();
  const prepared = createPrepared({
    directory,
    lookup,
    random,
    log,
    node: self.node,
    datacenter: self.datacenter,
    get datacenters() {
      return distances.nearestFirst();
    },
    nearestFirst,
    elsewhere: (datacenter) => others.queries(datacenter),
  });
  return { kv, sessions, events, prepared };
}
