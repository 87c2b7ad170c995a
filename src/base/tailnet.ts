// The tailnet as tailscaled's LocalAPI shows it: this host's addresses, its peers, and whether the address can be used here.
import { TrilithError } from "./error.ts";
import type { Http } from "./http.ts";
import { isObject } from "./is-object.ts";
import { ipFamily } from "./net.ts";

/** Where tailscaled listens unless told. */
export const DEFAULT_SOCKET = "/var/run/tailscale/tailscaled.sock";
const STATUS = "http://local-tailscaled.sock/localapi/v0/status";
const ANSWER_MS = 2_000;

/** A host of the tailnet. */
export interface TailnetHost {
  /** Its own name, which need not be unique. */
  readonly name: string;
  /** Its unique name in the tailnet, without a dot at the end; "" where there is none. */
  readonly dnsName: string;
  /** The first of each family. */
  readonly ipv4?: string;
  readonly ipv6?: string;
  readonly online: boolean;
}

/** What the LocalAPI tells at one moment. */
export interface Tailnet {
  /** "Running", "Stopped", "NeedsLogin", "Starting", "NoState" … */
  readonly state: string;
  /** True = an interface of this host carries the address; false = userspace networking. */
  readonly tun: boolean;
  readonly version: string;
  readonly own: TailnetHost;
  /** By their first address. */
  readonly peers: readonly TailnetHost[];
}

const textOf = (value: unknown): string => (typeof value === "string" ? value : "");

function hostOf(raw: unknown, ips: unknown): TailnetHost {
  const { HostName, DNSName, Online } = isObject(raw) ? raw : ({} as Record<string, unknown>);
  const addresses = Array.isArray(ips) ? ips.filter((each): each is string => typeof each === "string") : [];
  const ipv4 = addresses.find((each) => ipFamily(each) === 4);
  const ipv6 = addresses.find((each) => ipFamily(each) === 6);
  return {
    name: textOf(HostName),
    dnsName: textOf(DNSName).replace(/\.$/, ""),
    ...(ipv4 === undefined ? {} : { ipv4 }),
    ...(ipv6 === undefined ? {} : { ipv6 }),
    online: Online === true,
  };
}

/** Reads the reply of `/localapi/v0/status`. @throws TrilithError `unsupported` for what is no such reply */
export function readStatus(text: string): Tailnet {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new TrilithError(
      "unsupported",
      `tailscaled answered ${JSON.stringify(text.slice(0, 80))}, expected JSON`,
      error,
    );
  }
  if (!isObject(raw) || typeof raw["BackendState"] !== "string")
    throw new TrilithError("unsupported", "tailscaled answered without BackendState: is this its LocalAPI?");
  const self = isObject(raw["Self"]) ? raw["Self"] : {};
  const peers = isObject(raw["Peer"]) ? Object.values(raw["Peer"]) : [];
  return {
    state: raw["BackendState"],
    // Old versions do not tell; then the attempt to listen will.
    tun: raw["TUN"] !== false,
    version: textOf(raw["Version"]),
    own: hostOf(self, raw["TailscaleIPs"]),
    peers: peers
      .map((peer) => hostOf(peer, isObject(peer) ? peer["TailscaleIPs"] : undefined))
      .filter(({ ipv4, ipv6 }) => ipv4 !== undefined || ipv6 !== undefined)
      .sort((a, b) => ((a.ipv4 ?? a.ipv6 ?? "") < (b.ipv4 ?? b.ipv6 ?? "") ? -1 : 1)),
  };
}

/** The address of a host at which it is spoken to: IPv4, as Minidisc does; IPv6 where it has no other. */
export function speakingAddress({ ipv4, ipv6 }: TailnetHost): string | undefined {
  return ipv4 ?? ipv6;
}

/** tailscaled's LocalAPI. */
export interface LocalApi {
  /** The unix socket. */
  readonly path: string;
  /** @throws TrilithError `not-found` (no socket), `unavailable`, `timeout`, `not-allowed`, `unsupported` */
  status(signal?: AbortSignal): Promise<Tailnet>;
}

/** tailscaled's local API at its unix socket. Nothing is asked before `status`. */
export function createLocalApi(http: Pick<Http, "request">, path: string = DEFAULT_SOCKET): LocalApi {
  return {
    path,
    async status(signal) {
      const response = await http.request({
        url: STATUS,
        socketPath: path,
        headers: { connection: "close" },
        headTimeoutMs: ANSWER_MS,
        bodyTimeoutMs: ANSWER_MS,
        ...(signal === undefined ? {} : { signal }),
      });
      const text = await response.text();
      if (response.status !== 200)
        throw new TrilithError(
          response.status === 403 ? "not-allowed" : "unavailable",
          `tailscaled at ${path} refuses: status ${response.status}, ${text.trim().slice(0, 200)}`,
        );
      return readStatus(text);
    },
  };
}

/** What the state of the backend means for this host, for people; undefined where everything is well. */
export function troubleOf(tailnet: Tailnet, path: string): string | undefined {
  const at = `tailscaled at ${path}`;
  switch (tailnet.state) {
    case "Running":
      return speakingAddress(tailnet.own) === undefined ? `${at} has no address yet` : undefined;
    case "NeedsLogin":
    case "NeedsMachineAuth":
      return `${at} needs a login: "tailscale up"${tailnet.state === "NeedsLogin" ? "" : ", and an admin's approval"}`;
    case "Stopped":
      return `${at} is stopped: "tailscale up" starts it`;
    default:
      return `${at} is starting (${tailnet.state})`;
  }
}
