// The public door `trilith/undici`: an undici Agent that reaches services by name, for fetch and everything else that takes a dispatcher.
import { Agent, type Dispatcher, Pool, setGlobalDispatcher } from "undici";
import { systemClock } from "./base/clock.ts";
import { anything, mustFit, oneOf, type Rules, text } from "./base/options.ts";
import { systemTcp } from "./base/tcp.ts";
import { followedServices, ownBalancer } from "./connect.ts";
import type { ConnectPolicy } from "./contracts/connect.ts";
import { readOrigin } from "./lookup/node/origin.ts";
import { ServiceDispatcher } from "./lookup/node/service-dispatcher.ts";
import { POLICIES } from "./wire/hook-table.ts";

/** As undici's own Agent, and where services are asked for. */
export interface TrilithAgentOptions extends Omit<Agent.Options, "factory"> {
  /** The agent to ask; as for `find`. */
  readonly agent?: string;
  readonly token?: string;
  /** Below which domain host names are services; default "consul". */
  readonly domain?: string;
  /** How one of several instances is chosen for a request; what the instances ask for unless told, else "p2c". */
  readonly policy?: ConnectPolicy;
  /** Who calls, for policy "sticky". */
  readonly caller?: string;
}

/** Undici looks at the values of its own options, but passes over names that it does not know. */
const OPTIONS: Rules<TrilithAgentOptions & { useH2c?: boolean }> = {
  agent: text,
  token: text,
  domain: text,
  policy: oneOf(...POLICIES),
  caller: text,
  interceptors: anything,
  maxOrigins: anything,
  connections: anything,
  clientTtl: anything,
  maxHeaderSize: anything,
  headersTimeout: anything,
  socketTimeout: anything,
  requestTimeout: anything,
  connectTimeout: anything,
  bodyTimeout: anything,
  idleTimeout: anything,
  keepAlive: anything,
  keepAliveTimeout: anything,
  maxKeepAliveTimeout: anything,
  keepAliveMaxTimeout: anything,
  keepAliveTimeoutThreshold: anything,
  socketPath: anything,
  pipelining: anything,
  tls: anything,
  strictContentLength: anything,
  maxCachedSessions: anything,
  connect: anything,
  maxRequestsPerClient: anything,
  localAddress: anything,
  maxResponseSize: anything,
  autoSelectFamily: anything,
  autoSelectFamilyAttemptTimeout: anything,
  allowH2: anything,
  useH2c: anything,
  maxConcurrentStreams: anything,
  initialWindowSize: anything,
  connectionWindowSize: anything,
  pingInterval: anything,
  webSocket: anything,
  eventSource: anything,
};

/**
 * An undici Agent for which `http(s)://NAME.service.consul`, `…/TAG.NAME.service.consul`, `trilith://NAME?label=value` (and `trilith+https://…`; for `dispatcher.request`, as
 * fetch takes http(s) alone) mean a service: each request goes to one of its instances, port included, and to the next one where a connection cannot be
 * made. Host header and TLS name stay the name. What goes is used for no new request, requests under way end. Every other origin is undici's own.
 * Where services are comes from this host's agent, without one from the tailnet; see `connect`.
 * @throws InputError for an option that there is not
 */
export function createAgent(options: TrilithAgentOptions = {}): Agent {
  mustFit("createAgent", options, OPTIONS);
  const { agent, token, domain = "consul", policy, caller, ...rest } = options;
  const followed = followedServices({
    ...(agent === undefined ? {} : { agent }),
    ...(token === undefined ? {} : { token }),
  });
  return new Agent({
    ...rest,
    factory(origin, given) {
      const service = readOrigin(origin, domain);
      if (service === undefined) return new Pool(origin, given as Pool.Options);
      return new ServiceDispatcher({
        ...service,
        followed,
        balancer: ownBalancer(),
        clock: systemClock,
        tcp: systemTcp,
        options: given as Pool.Options,
        ...(policy === undefined ? {} : { policy }),
        ...(caller === undefined ? {} : { caller }),
      });
    },
  });
}

/** Makes such an agent the one of `fetch`, Node's own included, in this thread. */
export function install(options: TrilithAgentOptions = {}): Dispatcher {
  mustFit("install", options, OPTIONS);
  const made = createAgent(options);
  setGlobalDispatcher(made);
  return made;
}
