// The public door `trilith/grpc`: resolvers of @grpc/grpc-js for minidisc://name?label=value and trilith://name?label=value.
import { agentAddress } from "./base/agent-address.ts";
import { systemClock } from "./base/clock.ts";
import { messageOf, TrilithError } from "./base/error.ts";
import { createHttp, type Http } from "./base/http.ts";
import { systemNet } from "./base/net.ts";
import { systemRandom } from "./base/random.ts";
import { createLocalApi, DEFAULT_SOCKET, troubleOf } from "./base/tailnet.ts";
import { environment } from "./base/terminal.ts";
import { type NameSource, type Names, preferring } from "./lookup/grpc/names.ts";
import { type GrpcModule, resolverClass } from "./lookup/grpc/resolver.ts";
import { find, follow } from "./protocols/api/client.ts";
import { isMatch } from "./protocols/minidisc/hosts.ts";
import { createPeer, type Found, type Listing, type Peer } from "./protocols/minidisc/peer.ts";

export type { GrpcModule } from "./lookup/grpc/resolver.ts";

export interface GrpcOptions {
  /** The agent: host:port, http://…, unix:///path; default TRILITH_HTTP_ADDR, CONSUL_HTTP_ADDR, then 127.0.0.1:8500. */
  readonly agent?: string;
  readonly token?: string;
  /** tailscaled's unix socket; default TS_SOCKET, then /var/run/tailscale/tailscaled.sock. */
  readonly tailscaled?: string;
  /**
   * tailscaled's SOCKS5 proxy, where it runs with userspace networking. Names are found through it; calls go through its HTTP proxy where
   * `http_proxy` says so, as @grpc/grpc-js knows no SOCKS.
   */
  readonly proxy?: { readonly host: string; readonly port: number };
}

/**
 * Registers both schemes with the caller's own @grpc/grpc-js (1.14 or newer): `registerResolvers(grpc)`, once, before channels are made.
 * `trilith://web?env=prod` asks this host's agent, and where none has ever answered the tailnet itself; `minidisc://…` asks the tailnet, and the agent
 * where there is no tailscaled. All endpoints are used in turn (round_robin) unless the channel has a service config, and changes are pushed.
 * Nothing found: calls fail with UNAVAILABLE and the reason, or wait where they are ready to. An agent or tailnet that is away leaves the last endpoints.
 * @throws TrilithError `unsupported` for a module that cannot take resolvers
 */
export function registerResolvers(grpc: GrpcModule, options: GrpcOptions = {}): void {
  const { registerResolver, statusOrFromError } = (grpc.experimental ?? {}) as Partial<GrpcModule["experimental"]>;
  if (registerResolver === undefined || statusOrFromError === undefined)
    throw new TrilithError(
      "unsupported",
      "registerResolvers: expected the module @grpc/grpc-js, version 1.14 or newer",
    );
  const machine = { clock: systemClock, random: systemRandom };
  // A program that is done ends, whether or not its channels were closed.
  const http = createHttp({ background: true });
  const agent = agentSource(options, http);
  const tailnet = tailnetSource(options, http);
  registerResolver(
    "trilith",
    resolverClass(grpc, machine, () => preferring(agent, tailnet, systemClock)),
  );
  registerResolver(
    "minidisc",
    resolverClass(grpc, machine, () => preferring(tailnet, agent, systemClock)),
  );
}

function agentSource({ agent, token }: GrpcOptions, http: Http): NameSource {
  const to = { http, ...(agent === undefined ? {} : { agent }), ...(token === undefined ? {} : { token }) };
  return {
    name: `the agent at ${agentAddress(agent).text}`,
    async reach(signal) {
      await find("consul", {}, { ...to, signal });
    },
    async *follow({ service, labels }, signal) {
      for await (const { endpoints, fresh } of follow(service, labels, { ...to, signal }))
        yield { fresh, endpoints: endpoints.map(({ address, port }) => [{ host: address, port }]) };
    },
  };
}

/** The tailnet by one peer for all channels, which lives as long as one of them asks. */
function tailnetSource({ tailscaled, proxy }: GrpcOptions, http: Http): NameSource {
  const path = tailscaled ?? environment("TS_SOCKET") ?? DEFAULT_SOCKET;
  const localApi = createLocalApi(http, path);
  let peer: Peer | undefined;
  let users = 0;
  const source: NameSource = {
    name: "the tailnet",
    async reach(signal) {
      const tailnet = await localApi.status(signal).catch((error: unknown) => {
        signal.throwIfAborted();
        throw new TrilithError("unavailable", `no tailscaled answers at ${path}: ${messageOf(error)}`, error);
      });
      const trouble = troubleOf(tailnet, path);
      if (trouble !== undefined) throw new TrilithError("unavailable", trouble);
    },
    async *follow({ service, labels }, signal) {
      // A peer waits for its tailnet in silence; a channel wants to hear why.
      await source.reach(signal);
      peer ??= createPeer({
        clock: systemClock,
        random: systemRandom,
        net: systemNet,
        http,
        localApi,
        ...(proxy === undefined ? {} : { proxy }),
      });
      const own = peer;
      users++;
      try {
        for await (const listing of own.follow(signal)) yield namesIn(listing, (one) => isMatch(one, service, labels));
      } finally {
        if (--users === 0) {
          peer = undefined;
          await own.stop();
        }
      }
    },
  };
  return source;
}

function namesIn({ services, hosts }: Listing, wanted: (found: Found) => boolean): Names {
  return {
    // Where a host does not answer, it may be the one that has it.
    fresh: hosts.every(({ followed }) => followed?.failing?.kind !== "silent"),
    endpoints: services
      .filter(wanted)
      .map(({ address, port, also }) => [{ host: address, port }, ...also.map((one) => ({ ...one }))]),
  };
}
