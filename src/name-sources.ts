// Who knows where services are, for programs without an agent of their own inside: this host's agent, and the tailnet.
import { agentAddress } from "./base/agent-address.ts";
import { systemClock } from "./base/clock.ts";
import { messageOf, TrilithError } from "./base/error.ts";
import type { Http } from "./base/http.ts";
import { systemNet } from "./base/net.ts";
import { systemRandom } from "./base/random.ts";
import { createLocalApi, DEFAULT_SOCKET, troubleOf } from "./base/tailnet.ts";
import { environment } from "./base/terminal.ts";
import type { NameSource, Names, Sought } from "./lookup/grpc/names.ts";
import { labelsOf } from "./model/label-tags.ts";
import { find, follow } from "./protocols/api/client.ts";
import { type Found, isMatch } from "./protocols/minidisc/hosts.ts";
import type { Listing, Peer } from "./protocols/minidisc/peer.ts";

/** Who says where services are: the agent of this host, or the tailnet. */
export interface SourceOptions {
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

/** The agent, by its stream of changes. */
export function agentSource({ agent, token }: Pick<SourceOptions, "agent" | "token">, http: Http): NameSource {
  const to = { http, ...(agent === undefined ? {} : { agent }), ...(token === undefined ? {} : { token }) };
  // What is near to an agent elsewhere is not near to this program.
  const isHere = isOwnAgent(agent);
  return {
    name: `the agent at ${agentAddress(agent).text}`,
    async reach(signal) {
      await find("consul", {}, { ...to, signal });
    },
    async *follow({ service, labels, tags = [], datacenter }, signal) {
      const narrowed = { tags, ...(datacenter === undefined ? {} : { datacenter }) };
      for await (const { endpoints, fresh, known } of follow(service, labels, { ...to, ...narrowed, signal }))
        yield {
          fresh,
          known,
          endpoints: endpoints.map(({ address, port, weight, labels: own, tier }) => ({
            addresses: [{ host: address, port }],
            weight,
            labels: own,
            ...(isHere && tier !== undefined ? { tier } : {}),
          })),
        };
    },
  };
}

/** True where the agent runs on this host, as far as its address says. */
function isOwnAgent(agent: string | undefined): boolean {
  const { base, socketPath } = agentAddress(agent);
  if (socketPath !== undefined) return true;
  const host = new URL(base).hostname.replace(/^\[|\]$/g, "");
  return host === "localhost" || isOwnAddress(host);
}

function isOwnAddress(address: string): boolean {
  return (
    address.startsWith("127.") || address === "::1" || systemNet.interfaces().some((each) => each.address === address)
  );
}

/** Whether something advertised on the tailnet is what is looked for. */
export function isSought(
  found: Pick<Found, "name" | "labels" | "tags">,
  { service, labels, tags = [] }: Sought,
): boolean {
  if (!isMatch(found, service, labels)) return false;
  const all = labelsOf(found.labels, found.tags);
  return tags.every((tag) => found.tags.includes(tag) || all[tag] === "true");
}

/** The tailnet by one peer for all who follow it, which lives as long as one of them does. */
export function tailnetSource(
  { tailscaled, proxy }: Pick<SourceOptions, "tailscaled" | "proxy">,
  http: Http,
): NameSource {
  const path = tailscaled ?? environment("TS_SOCKET") ?? DEFAULT_SOCKET;
  const localApi = createLocalApi(http, path);
  let peer: Promise<Peer> | undefined;
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
    async *follow(sought, signal) {
      // A peer waits for its tailnet in silence; whoever follows wants to hear why.
      await source.reach(signal);
      peer ??= import("./protocols/minidisc/peer.ts").then(({ createPeer }) =>
        createPeer({
          clock: systemClock,
          random: systemRandom,
          net: systemNet,
          http,
          localApi,
          ...(proxy === undefined ? {} : { proxy }),
        }),
      );
      const own = peer;
      users++;
      try {
        for await (const listing of (await own).follow(signal)) yield namesIn(listing, sought);
      } finally {
        if (--users === 0) {
          peer = undefined;
          await (await own).stop();
        }
      }
    },
  };
  return source;
}

function namesIn({ services, hosts }: Listing, sought: Sought): Names {
  return {
    // Where a host does not answer, it may be the one that has it.
    fresh: hosts.every(({ followed }) => followed?.failing?.kind !== "silent"),
    known: services.some(({ name }) => name === sought.service),
    endpoints: services
      .filter((found) => isSought(found, sought))
      .map(({ address, port, also, labels }) => ({
        addresses: [{ host: address, port }, ...also.map((one) => ({ ...one }))],
        weight: 1,
        labels,
        tier: isOwnAddress(address) ? 0 : 2,
      })),
  };
}
