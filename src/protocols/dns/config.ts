// The DNS listener's configuration: keys, what is allowed, and the defaults of the two behaviours.
import { InputError } from "../../base/error.ts";
import { ipFamily } from "../../base/net.ts";
import {
  ipBytes,
  ipText,
  lowerLabel,
  type Name,
  type Nameserver,
  nameFromText,
  nameserverOf,
} from "../../wire/dns/index.ts";
import type { WantedBridges } from "./bridges.ts";
import { LOOPBACK_NETWORKS, type Network, networkOf, PRIVATE_NETWORKS } from "./networks.ts";

/** Checked configuration. Undefined = the default of the behaviour in force (see `Policy`). */
export interface DnsConfig {
  /** IP addresses to listen on. */
  readonly hosts: readonly string[];
  /** For UDP and TCP alike; -1 = off, 0 = any free one. */
  readonly port: number;
  readonly nodeTtlMs: number;
  readonly serviceTtlMs: ServiceTtls;
  readonly onlyPassing: boolean;
  readonly enableTruncate: boolean | undefined;
  readonly udpAnswerLimit: number | undefined;
  /** 0 = none. */
  readonly aRecordLimit: number;
  readonly disableCompression: boolean;
  readonly soa: {
    readonly refreshS: number;
    readonly retryS: number;
    readonly expireS: number;
    readonly minTtlS: number | undefined;
  };
  readonly altDomain: Name | undefined;
  readonly enableAdditionalNodeMetaTxt: boolean;
  readonly nodeMetaTxt: boolean;
  readonly tcpIdleMs: number;
  /** Servers for names that are not ours, in their order; undefined = the system's where containers are served, else none. */
  readonly recursors: readonly Nameserver[] | undefined;
  readonly recursorStrategy: "sequential" | "random";
  /** One recursor has so long to answer. */
  readonly recursorTimeoutMs: number;
  readonly recursorCacheBytes: number;
  /** Who may have names resolved that are not ours, besides the containers served; undefined = the default of the behaviour in force. */
  readonly recursionFrom: readonly Network[] | undefined;
  /** Names at and below these are never asked of recursors; undefined = the default of the behaviour in force. */
  readonly neverForward: readonly Name[] | undefined;
  /** True = names of a single label are asked of recursors. */
  readonly forwardSingleLabels: boolean | undefined;
  /** Containers' bridges to listen on as well; undefined = none. */
  readonly bridge: WantedBridges | undefined;
  /** Containers ask port 53 and no other. */
  readonly bridgePort: number;
  /** Where Linux tells about interfaces. */
  readonly procNet: string;
  /** Where the system's nameservers stand. */
  readonly resolvConf: string;
  /** How long another datacenter may take to answer. */
  readonly upstreamTimeoutMs: number;
}

/** TTLs by service name: exact name, else the longest prefix, else for all. */
export interface ServiceTtls {
  readonly exact: ReadonlyMap<string, number>;
  /** Longest prefix first. */
  readonly prefixes: readonly (readonly [prefix: string, ttlMs: number])[];
}

/** The TTL of a service's answers in milliseconds; `service` in lower case. */
export function serviceTtlMs(ttls: ServiceTtls, service: string): number {
  const exact = ttls.exact.get(service);
  if (exact !== undefined) return exact;
  return ttls.prefixes.find(([prefix]) => service.startsWith(prefix))?.[1] ?? 0;
}

const LARGEST_TTL_MS = 0x7fff_ffff * 1000;

/** Reads one object of raw configuration key by key and refuses the keys that are left over. */
class Keys {
  readonly #raw: Readonly<Record<string, unknown>>;
  readonly #where: string;
  readonly #known = new Set<string>();

  constructor(raw: unknown, where: string) {
    if (raw !== undefined && raw !== null && (typeof raw !== "object" || Array.isArray(raw)))
      throw new InputError(where, `must be an object, not ${JSON.stringify(raw)}`);
    this.#raw = (raw ?? {}) as Record<string, unknown>;
    this.#where = where;
  }

  get(key: string): unknown {
    this.#known.add(key);
    return Object.hasOwn(this.#raw, key) ? this.#raw[key] : undefined;
  }

  where(key: string): string {
    return `${this.#where}.${key}`;
  }

  integer(key: string, least: number, most: number): number | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most)
      throw new InputError(
        this.where(key),
        `must be a whole number from ${least} to ${most}, not ${JSON.stringify(value)}`,
      );
    return value;
  }

  boolean(key: string): boolean | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "boolean") return value;
    throw new InputError(this.where(key), `must be true or false, not ${JSON.stringify(value)}`);
  }

  text(key: string): string | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "string") return value;
    throw new InputError(this.where(key), `must be text, not ${JSON.stringify(value)}`);
  }

  oneOf<T extends string>(key: string, allowed: readonly T[]): T | undefined {
    const value = this.get(key);
    if (value === undefined || allowed.includes(value as T)) return value as T | undefined;
    throw new InputError(this.where(key), `must be ${allowed.join(" or ")}, not ${JSON.stringify(value)}`);
  }

  /** @throws InputError for keys nobody asked about */
  end(): void {
    for (const key of Object.keys(this.#raw))
      if (!this.#known.has(key))
        throw new InputError(this.where(key), `is unknown; known are ${[...this.#known].sort().join(", ")}`);
  }
}

/** Checks raw configuration. @throws InputError with the key and what would be right */
export function readConfig(raw: unknown): DnsConfig {
  const keys = new Keys(raw, "dns");
  const soaKeys = new Keys(keys.get("soa"), "dns.soa");
  const seconds = (key: string): number | undefined => soaKeys.integer(key, 0, 0x7fff_ffff);
  const soa = {
    refreshS: seconds("refreshS") ?? 3600,
    retryS: seconds("retryS") ?? 600,
    expireS: seconds("expireS") ?? 86_400,
    minTtlS: seconds("minTtlS"),
  };
  soaKeys.end();
  const altDomain = keys.text("altDomain");
  const config: DnsConfig = {
    hosts: readHosts(keys.get("host"), keys.where("host")),
    port: keys.integer("port", -1, 65535) ?? 8600,
    nodeTtlMs: keys.integer("nodeTtlMs", 0, LARGEST_TTL_MS) ?? 0,
    serviceTtlMs: readServiceTtls(keys.get("serviceTtlMs"), keys.where("serviceTtlMs")),
    onlyPassing: keys.boolean("onlyPassing") ?? false,
    enableTruncate: keys.boolean("enableTruncate"),
    udpAnswerLimit: keys.integer("udpAnswerLimit", 0, 65535),
    aRecordLimit: keys.integer("aRecordLimit", 0, 65535) ?? 0,
    disableCompression: keys.boolean("disableCompression") ?? false,
    soa,
    altDomain: altDomain === undefined ? undefined : readDomain(altDomain, keys.where("altDomain")),
    enableAdditionalNodeMetaTxt: keys.boolean("enableAdditionalNodeMetaTxt") ?? true,
    nodeMetaTxt: keys.boolean("nodeMetaTxt") ?? true,
    tcpIdleMs: keys.integer("tcpIdleMs", 1, 3_600_000) ?? 10_000,
    recursors: readList(
      keys,
      "recursors",
      'an address such as "192.0.2.1", "192.0.2.1:5353" or "system"',
      nameserverOf,
    ),
    recursorStrategy: keys.oneOf("recursorStrategy", ["sequential", "random"]) ?? "sequential",
    recursorTimeoutMs: keys.integer("recursorTimeoutMs", 1, 60_000) ?? 2_000,
    recursorCacheBytes: keys.integer("recursorCacheBytes", 0, 1 << 30) ?? 4 << 20,
    recursionFrom: readList(keys, "recursionFrom", 'a network such as "10.0.0.0/8"', networkOf),
    neverForward: readList(keys, "neverForward", "a domain", (text) => {
      const name = hostLabels(text);
      return name?.length === 0 ? undefined : name;
    }),
    forwardSingleLabels: keys.boolean("forwardSingleLabels"),
    bridge: readBridge(keys),
    bridgePort: keys.integer("bridgePort", 1, 65535) ?? 53,
    procNet: keys.text("procNet") ?? "/proc/net",
    resolvConf: keys.text("resolvConf") ?? "/etc/resolv.conf",
    upstreamTimeoutMs: keys.integer("upstreamTimeoutMs", 1, 60_000) ?? 2_000,
  };
  keys.end();
  return config;
}

function readHosts(raw: unknown, where: string): readonly string[] {
  if (raw === undefined) return ["127.0.0.1"];
  const given = typeof raw === "string" ? raw.split(/[\s,]+/).filter((host) => host !== "") : raw;
  if (!Array.isArray(given) || given.length === 0)
    throw new InputError(where, `must be an IP address or a list of them, not ${JSON.stringify(raw)}`);
  for (const host of given)
    if (typeof host !== "string" || ipFamily(host) === 0)
      throw new InputError(where, `${JSON.stringify(host)} is not an IP address to listen on`);
  const hosts = [...new Set(given as readonly string[])];
  // "::" takes IPv4 in too, and "0.0.0.0" every IPv4 address: the others would find their port taken.
  if (hosts.includes("::")) return ["::"];
  return hosts.includes("0.0.0.0") ? hosts.filter((host) => host === "0.0.0.0" || ipFamily(host) === 6) : hosts;
}

/** A list of texts, or one text; undefined where the key is absent. @throws InputError naming the item that is wrong */
function readList<T>(
  keys: Keys,
  key: string,
  right: string,
  read: (text: string) => T | undefined,
): readonly T[] | undefined {
  const raw = keys.get(key);
  if (raw === undefined || raw === null) return undefined;
  const items: readonly unknown[] = Array.isArray(raw) ? raw : [raw];
  return items.map((item, i) => {
    const value = typeof item === "string" ? read(item.trim()) : undefined;
    if (value !== undefined) return value;
    throw new InputError(
      Array.isArray(raw) ? `${keys.where(key)}[${i}]` : keys.where(key),
      `${JSON.stringify(item)} is not ${right}`,
    );
  });
}

/** `true`, an interface's name or an IP address of this host, or a list of those. @throws InputError */
function readBridge(keys: Keys): WantedBridges | undefined {
  const raw = keys.get("bridge");
  if (raw === undefined || raw === null || raw === false) return undefined;
  if (raw === true) return true;
  const items = readList(
    keys,
    "bridge",
    'true, an interface such as "docker0", or an IP address of this host',
    (text) => {
      const ip = ipBytes(text);
      if (ip !== undefined) return ipText(ip);
      return /^[^\s/]{1,15}$/.test(text) ? text : undefined;
    },
  );
  return items?.length === 0 ? undefined : items;
}

/** The labels of a name in lower case; undefined for what is no name. */
function hostLabels(text: string): Name | undefined {
  try {
    return nameFromText(text.replace(/^\.+/, "")).map(lowerLabel);
  } catch {
    return undefined;
  }
}

function readServiceTtls(raw: unknown, where: string): ServiceTtls {
  if (raw === undefined || raw === null) return { exact: new Map(), prefixes: [] };
  if (typeof raw !== "object" || Array.isArray(raw))
    throw new InputError(where, `must map service names to milliseconds, not ${JSON.stringify(raw)}`);
  const exact = new Map<string, number>();
  const prefixes: (readonly [string, number])[] = [];
  for (const [name, value] of Object.entries(raw)) {
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > LARGEST_TTL_MS)
      throw new InputError(`${where}.${name}`, `must be whole milliseconds from 0 up, not ${JSON.stringify(value)}`);
    if (name.endsWith("*")) prefixes.push([name.slice(0, -1).toLowerCase(), value]);
    else exact.set(name.toLowerCase(), value);
  }
  prefixes.sort(([a], [b]) => b.length - a.length);
  return { exact, prefixes };
}

/** A domain from configuration, dots at its ends allowed. @throws InputError */
function readDomain(text: string, where: string): Name {
  const trimmed = text.replace(/^\.+|\.+$/g, "");
  if (trimmed === "") throw new InputError(where, `"${text}" is no domain: it would hold every name there is`);
  try {
    return nameFromText(trimmed.toLowerCase());
  } catch (error) {
    throw new InputError(where, error instanceof Error ? error.message : String(error), error);
  }
}

/** Configuration with the defaults of the behaviour in force. */
export interface Policy extends DnsConfig {
  /** True: Consul's recorded behaviour wins over our own. */
  readonly compat: boolean;
  readonly domain: Name;
  readonly minTtlS: number;
  /** Answers in a UDP message without EDNS; Infinity = as many as fit. */
  readonly plainAnswers: number;
  /** Consul only: TC where answers were left out. Ours always tells, unless a configured limit left them out. */
  readonly truncate: boolean;
  readonly nodeTtlS: number;
  readonly recursionFrom: readonly Network[];
  readonly neverForward: readonly Name[];
  readonly forwardSingleLabels: boolean;
}

/** Names that mean something on one host or network only, or nothing at all [RFC 6761, RFC 6762 §22.1, RFC 7686]. */
const LOCAL_NAMES: readonly Name[] = [["localhost"], ["local"], ["invalid"], ["onion"]];

/** A UDP answer without EDNS holds at most so many records in Consul, whatever is configured. */
const CONSUL_MOST_PLAIN_ANSWERS = 8;
const CONSUL_PLAIN_ANSWERS = 3;

/** Fills in the defaults. `domain` without dots at its ends. @throws InputError where the domains cannot be */
export function policyOf(config: DnsConfig, compat: boolean, domain: string): Policy {
  return {
    ...config,
    compat,
    domain: readDomain(domain, "domain"),
    minTtlS: config.soa.minTtlS ?? (compat ? 0 : 1),
    plainAnswers: compat
      ? Math.min(CONSUL_MOST_PLAIN_ANSWERS, config.udpAnswerLimit ?? CONSUL_PLAIN_ANSWERS)
      : config.udpAnswerLimit === undefined || config.udpAnswerLimit === 0
        ? Number.POSITIVE_INFINITY
        : config.udpAnswerLimit,
    truncate: config.enableTruncate ?? !compat,
    nodeTtlS: Math.floor(config.nodeTtlMs / 1000),
    recursionFrom:
      config.recursionFrom ?? (compat ? PRIVATE_NETWORKS : LOOPBACK_NETWORKS).flatMap((text) => networkOf(text) ?? []),
    neverForward: config.neverForward ?? (compat ? [] : LOCAL_NAMES),
    forwardSingleLabels: config.forwardSingleLabels ?? compat,
  };
}
