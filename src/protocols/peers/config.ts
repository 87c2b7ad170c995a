// The configuration of agents without a server: how others are found, where this host shows its own, and the key of a LAN.
import { InputError } from "../../base/error.ts";
import { hostPort, ipFamily } from "../../base/net.ts";
import { withinNetworks } from "../../base/networks.ts";

/** What `peers` of the settings is read into. */
export interface PeersConfig {
  readonly find: "tailnet" | "lan" | "list";
  /** `host:port` of others that were named. */
  readonly hosts: readonly string[];
  readonly port: number;
  readonly bind?: string;
  /** Absent on a tailnet and on loopback, whose addresses are the right to ask. */
  readonly key?: string;
  /** tailscaled's unix socket, where it is elsewhere. */
  readonly tailscaled?: string;
}

/** Where agents show their own unless told. */
const PEERS_PORT = 8504;
const LEAST_KEY = 16;

/** Addresses that nobody has but this host and the hosts of its tailnet (Tailscale's ranges). */
export const isPrivileged: (address: string) => boolean = withinNetworks([
  "127.0.0.0/8",
  "::1/128",
  "100.64.0.0/10",
  "fd7a:115c:a1e0::/48",
]);

/** An address of this host itself, whoever says it. */
export const isLoopback: (address: string) => boolean = withinNetworks(["127.0.0.0/8", "::1/128"]);

/** `host`, `host:port`, `[v6]:port` or an IPv6 address as `host:port`. @throws InputError */
export function placeOf(text: string, port: number): string {
  const given = text.trim();
  if (ipFamily(given) === 6) return hostPort(given, port);
  const [, bracketed, plain, told] = /^(?:\[([^\]\s]+)\]|([^:[\]\s/]+))(?::(\d{1,5}))?$/.exec(given) ?? [];
  const host = bracketed ?? plain;
  const at = told === undefined ? port : Number(told);
  if (host === undefined || (bracketed !== undefined && ipFamily(bracketed) !== 6) || at < 1 || at > 65_535)
    throw new InputError(
      "peers",
      `"${text}": expected tailnet, lan, or hosts such as "10.0.0.2" or "10.0.0.2:${PEERS_PORT}"`,
    );
  return hostPort(host, at);
}

/** The host of `host:port`, without brackets. */
export function hostOf(place: string): string {
  return place.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
}

/** @throws InputError that names the key and says what would be right */
export function configurePeers(raw: unknown): PeersConfig | undefined {
  if (raw === undefined || raw === false) return undefined;
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new InputError(
      "peers",
      `expected an object such as {"find": "lan", "key": "…"}, but got ${JSON.stringify(raw)}`,
    );
  const { find, hosts, port, bind, key, tailscaled, ...unknown } = raw as Record<string, unknown>;
  const [strange] = Object.keys(unknown);
  if (strange !== undefined)
    throw new InputError(`peers.${strange}`, "unknown key; known are find, hosts, port, bind, key and tailscaled");
  if (find !== "tailnet" && find !== "lan" && find !== "list")
    throw new InputError("peers.find", `expected "tailnet", "lan" or "list", but got ${JSON.stringify(find)}`);
  if (port !== undefined && (!Number.isInteger(port) || Number(port) < 1 || Number(port) > 65_535))
    throw new InputError("peers.port", `expected a port from 1 to 65535, but got ${JSON.stringify(port)}`);
  if (bind !== undefined && (typeof bind !== "string" || ipFamily(bind) === 0))
    throw new InputError("peers.bind", `expected an IP address, but got ${JSON.stringify(bind)}`);
  if (tailscaled !== undefined && (typeof tailscaled !== "string" || tailscaled === ""))
    throw new InputError("peers.tailscaled", `expected the path of a socket, but got ${JSON.stringify(tailscaled)}`);
  if (hosts !== undefined && !(Array.isArray(hosts) && hosts.every((one) => typeof one === "string")))
    throw new InputError("peers.hosts", `expected a list of hosts, but got ${JSON.stringify(hosts)}`);
  const at = typeof port === "number" ? port : PEERS_PORT;
  const places = [...new Set(((hosts ?? []) as readonly string[]).map((one) => placeOf(one, at)))];
  if (find === "list" && places.length === 0)
    throw new InputError("peers.hosts", 'expected at least one host such as "10.0.0.2"');
  if (key !== undefined && (typeof key !== "string" || key.length < LEAST_KEY))
    throw new InputError(
      "peers_key",
      `expected a secret of at least ${LEAST_KEY} characters that all hosts share; "trilith keygen" makes one`,
    );
  const open = find === "lan" || !places.every((place) => isPrivileged(hostOf(place)));
  if (key === undefined && (open || (bind !== undefined && !isPrivileged(bind))))
    throw new InputError(
      "peers_key",
      'a LAN is open to everybody on it: give all hosts the same secret (peers_key in the configuration, or --peers-key); "trilith keygen" makes one',
    );
  return {
    find,
    hosts: places,
    port: at,
    ...(bind === undefined ? {} : { bind }),
    ...(key === undefined ? {} : { key: key as string }),
    ...(tailscaled === undefined ? {} : { tailscaled }),
  };
}
