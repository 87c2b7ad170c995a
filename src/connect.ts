// connect for any program: a socket to one instance of a service, which is followed through this host's agent, else on the tailnet.
import { systemClock } from "./base/clock.ts";
import { InputError } from "./base/error.ts";
import { createHttp, type Http } from "./base/http.ts";
import { systemNet } from "./base/net.ts";
import { ownNetworkNamespace } from "./base/network-namespace.ts";
import {
  labels as areLabels,
  milliseconds,
  mustBe,
  mustFit,
  oneOf,
  type Rules,
  signal,
  text,
  texts,
} from "./base/options.ts";
import { systemRandom } from "./base/random.ts";
import { openShared } from "./base/shared-file.ts";
import { type Socket, systemTcp, type Tcp } from "./base/tcp.ts";
import { environment } from "./base/terminal.ts";
import type { ConnectOptions } from "./contracts/connect.ts";
import type { Balancer } from "./lookup/balance/balancer.ts";
import { createBalancer } from "./lookup/balance/create.ts";
import { reachService } from "./lookup/connect/tries.ts";
import { type NameSource, preferring } from "./lookup/grpc/names.ts";
import { backendsOf } from "./lookup/node/backends.ts";
import { createFollowed, type Followed } from "./lookup/node/followed.ts";
import { ownNeighbours } from "./lookup/node/own-neighbours.ts";
import { createCurrentTable, DEFAULT_TABLE } from "./lookup/node/table.ts";
import { tableSource } from "./lookup/node/table-source.ts";
import type { Labels } from "./model/node.ts";
import { agentSource, type SourceOptions, tailnetSource } from "./name-sources.ts";
import { POLICIES } from "./wire/hook-table.ts";

/** What `connect` is told besides the service's name. */
export interface ConnectServiceOptions extends Omit<ConnectOptions, "port"> {
  /** Only instances with all of these labels, and all of these tags. */
  readonly labels?: Labels;
  readonly tags?: readonly string[];
  /** The agent to ask, and its token; as for `find`. */
  readonly agent?: string;
  readonly token?: string;
  readonly signal?: AbortSignal;
}

const OPTIONS: Rules<ConnectServiceOptions> = {
  labels: areLabels,
  tags: texts,
  policy: oneOf(...POLICIES),
  caller: text,
  tryMs: milliseconds,
  limitMs: milliseconds,
  signal,
  agent: text,
  token: text,
};

/** Sockets as programs have them: read as soon as somebody listens. */
const ordinary: Tcp["connect"] = async (to, { signal, started } = {}) => {
  const over = new AbortController();
  const ended = started?.((reason) => over.abort(reason));
  try {
    return await systemNet.connect(to, signal === undefined ? over.signal : AbortSignal.any([over.signal, signal]));
  } finally {
    ended?.();
  }
};

/** One balancer for all connections of this program, so that each learns from the others. */
let balancer: Balancer | undefined;
const followed = new Map<string, Followed>();

/** Where this host's agent has the hook's table, as programs know it. */
const tablePath = (): string => environment("TRILITH_HOOK_TABLE") ?? DEFAULT_TABLE;

/** Who stands in for an agent that has never answered: the table that it left, then the tailnet. */
function elsewhere(http: Http): NameSource {
  const path = tablePath();
  const table = createCurrentTable({ open: openShared, clock: systemClock, path, network: ownNetworkNamespace });
  return preferring(tableSource(table, path, systemClock), tailnetSource({}, http), systemClock);
}

/** Services as this program follows them, by the agent that was named, else this host's agent, its table or the tailnet. */
export function followedServices({ agent, token }: Pick<SourceOptions, "agent" | "token"> = {}): Followed {
  const key = JSON.stringify([agent, token]);
  let found = followed.get(key);
  if (found === undefined) {
    const http = createHttp({ background: true });
    const to = { ...(agent === undefined ? {} : { agent }), ...(token === undefined ? {} : { token }) };
    const byAgent = agentSource(to, http);
    // An agent that is named is the only one who is asked.
    const source = agent === undefined ? preferring(byAgent, elsewhere(http), systemClock) : byAgent;
    found = createFollowed({ source, clock: systemClock, random: systemRandom });
    followed.set(key, found);
  }
  return found;
}

/** The balancer of this program: everything in it that connects learns from the same tries. */
export function ownBalancer(): Balancer {
  balancer ??= createBalancer({ clock: systemClock, random: systemRandom, neighbours: ownNeighbours(tablePath) });
  return balancer;
}

/**
 * A connection (an ordinary node:net socket) to one instance of a service that can be used now: the best one by what this program has seen, or the
 * next one where that refuses or is silent. Where they are comes from the agent of this host, without one (and unless `agent` names one) from the hook's table or the
 * tailnet, and is followed, so that the next connection asks nobody; where nobody answers any more the last answer stays. Policy and time of a try are those that
 * the instances ask for (`trilith.balance`, `trilith.try`) unless told.
 * @throws InputError without a name, for an option that there is not, and for a wrong value; TrilithError `not-found` (no such service or instance), `unavailable`, `timeout` (each was tried), or the signal's reason
 */
export async function connect(service: string, options: ConnectServiceOptions = {}): Promise<Socket> {
  mustBe("connect: the service's name", service, text);
  mustFit("connect", options, OPTIONS);
  const { labels = {}, tags = [], agent, token, ...how } = options;
  if (service === "") throw new InputError("", 'the service\'s name is missing: connect("web")');
  const names = followedServices({
    ...(agent === undefined ? {} : { agent }),
    ...(token === undefined ? {} : { token }),
  });
  const own = ownBalancer();
  const { socket, target } = await reachService(
    {
      find: async (query, signal) => backendsOf(await names.now({ service: query.service, labels, tags }, signal)),
      balancer: own,
      tcp: { ...systemTcp, connect: ordinary },
      clock: systemClock,
    },
    { service, labels, tags },
    how,
  );
  socket.once("close", () => own.closed(target));
  return socket;
}
