// Consul's agent configuration (an object as JSON or HCL gives it) and Consul's command-line flags as Trilith's settings.
import { InputError } from "../../base/error.ts";
import type { LogLevel } from "../../base/log.ts";
import { hostPort, ipFamily } from "../../base/net.ts";
import { networkFault } from "../../base/networks.ts";
import type { Settings } from "../../contracts/settings.ts";
import { nearestName } from "../../wire/consul-definition.ts";
import { parseDurationValue } from "../../wire/duration.ts";
import { readWatches, type WatchConfig } from "./watch-config.ts";

/** Keys (and places in lists) from the file's root to a value. */
export type KeyPath = readonly (string | number)[];

/** One configuration file. */
export interface ConsulFile {
  readonly value: Readonly<Record<string, unknown>>;
  /** Where a key stands, for error messages: "agent.hcl:3: ports.http". */
  readonly at: (path: KeyPath) => string;
  /** Given to the `file` protocol, which takes the services and checks. */
  readonly path: string;
}

/** Consul's and Trilith's flags by their names in camelCase; values as the command line gave them. */
export type Flags = Readonly<Record<string, unknown>>;

/** What is gathered while files and flags are read; later ones win. */
interface Draft {
  node?: string;
  nodeId?: string;
  datacenter?: string;
  domain?: string;
  dataDir?: string;
  dev?: boolean;
  compat?: Settings["compat"];
  storage?: Settings["storage"];
  etcd?: { endpoints: readonly string[]; prefix: string; livenessMs: number };
  /** Trilith's own `join` and `--join`: URLs. */
  join?: readonly string[];
  /** Consul's retry_join and start_join: hosts of the cluster; servers of a cluster name each other there, too. */
  readonly cluster: { readonly key: string; readonly value: Value }[];
  server?: boolean;
  joinLivenessMs?: number;
  joinToken?: string;
  /** Trilith's own `peers` and what belongs to it. */
  readonly peers: { -readonly [K in keyof NonNullable<Settings["peers"]>]?: NonNullable<Settings["peers"]>[K] };
  datacenters?: Record<string, readonly string[]>;
  client?: string;
  httpAddress?: string;
  dnsAddress?: string;
  bindAddress?: string;
  advertiseAddress?: string;
  readonly nodeLabels: Record<string, string>;
  httpPort?: number;
  scripts?: boolean;
  localScripts?: boolean;
  checkUpdateMs?: number;
  leaveOnTerm?: boolean;
  logLevel?: LogLevel;
  logFormat?: "text" | "json";
  readonly dns: Record<string, unknown>;
  readonly soa: Record<string, number>;
  readonly consul: Record<string, unknown>;
  readonly docker: Record<string, unknown>;
  readonly process: Record<string, unknown>;
  readonly magic: { v4?: string; v6?: string };
  readonly hook: { enabled: boolean; readonly keys: Record<string, unknown> };
  /** Trilith's own `protocols` and `--mdns`: raw configuration by protocol. */
  readonly told: Record<string, unknown>;
  readonly servicePaths: string[];
  /** True = checks speak TLS as the agent does. */
  tlsForChecks?: boolean;
  /** The agent's own TLS files and name, by the key they were given under. */
  readonly tls: Map<keyof NonNullable<Settings["checkTls"]>, { readonly key: string; readonly value: string }>;
  readonly ignored: Set<string>;
  readonly watches: WatchConfig[];
}

/** A value with its place. */
class Value {
  readonly raw: unknown;
  readonly #at: string;
  constructor(raw: unknown, at: string) {
    this.raw = raw;
    this.#at = at;
  }
  fail(right: string): never {
    throw new InputError(this.#at, `${JSON.stringify(this.raw) ?? String(this.raw)}: expected ${right}`);
  }
  text(): string {
    return typeof this.raw === "string" ? this.raw : this.fail("a text");
  }
  bool(): boolean {
    if (this.raw === "true" || this.raw === "false") return this.raw === "true";
    return typeof this.raw === "boolean" ? this.raw : this.fail("true or false");
  }
  integer(least: number, most: number): number {
    const value = typeof this.raw === "string" && /^-?\d+$/.test(this.raw) ? Number(this.raw) : this.raw;
    if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most) return value;
    return this.fail(`a whole number from ${least} to ${most}`);
  }
  port(): number {
    return this.integer(-1, 65_535);
  }
  durationMs(): number {
    const ms = parseDurationValue(this.raw, this.#at);
    return ms >= 0 ? ms : this.fail('a duration that is not negative, such as "10s"');
  }
  /** Whole milliseconds, from `least` to `most`. */
  durationWithin(least: number, most: number, expected: string): number {
    const ms = Math.round(this.durationMs());
    return ms >= least && ms <= most ? ms : this.fail(expected);
  }
  texts(): readonly string[] {
    if (typeof this.raw === "string") return [this.raw];
    if (Array.isArray(this.raw) && this.raw.every((item) => typeof item === "string")) return this.raw as string[];
    return this.fail("a list of texts");
  }
  map(): readonly (readonly [key: string, value: string])[] {
    const object = Array.isArray(this.raw) && this.raw.length === 1 ? (this.raw[0] as unknown) : this.raw;
    if (typeof object !== "object" || object === null || Array.isArray(object)) return this.fail("an object of texts");
    return Object.entries(object).map(([key, value]) => {
      if (typeof value === "string") return [key, value] as const;
      if (typeof value === "number" || typeof value === "boolean") return [key, String(value)] as const;
      return this.fail(`an object of texts ("${key}" is none)`);
    });
  }
  /** An IP address; names and go-sockaddr templates are refused with what would be right. */
  address(): string {
    const text = this.text().trim();
    if (text.includes("{{")) return this.fail("an IP address (go-sockaddr templates are not understood)");
    if (text === "localhost") return "127.0.0.1";
    return ipFamily(text) === 0 ? this.fail("an IP address") : text;
  }
  /** Addresses to listen on, separated by blanks; unix sockets for HTTP are `unix://path`. */
  addresses(): string {
    const text = this.text().trim();
    if (text.includes("{{")) return this.fail("IP addresses (go-sockaddr templates are not understood)");
    for (const one of text.split(/\s+/))
      if (!one.startsWith("unix://") && one !== "localhost" && ipFamily(one) === 0)
        return this.fail(`IP addresses separated by blanks; "${one}" is none`);
    return text;
  }
}

/** The URL of an agent's HTTP API from `host`, `host:port` or a URL; the ports of Consul's gossip and servers mean its host. */
function agentUrl(text: string, value: Value): string {
  const given = text.trim();
  if (/^provider\s*=/.test(given) || given.includes("{{"))
    return value.fail(`a host or the URL of an agent; cloud auto-join ("${given}") is not understood`);
  if (/^[a-z]+:\/\//i.test(given)) {
    if (!/^https?:\/\/[^/?#]+\/?$/i.test(given) || !URL.canParse(given))
      return value.fail('a URL such as "http://10.0.0.1:8500"');
    return given.replace(/\/+$/, "");
  }
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d+))?$/.exec(given) ?? [];
  const host = bracketed ?? plain ?? (ipFamily(given) === 6 ? given : undefined);
  if (host === undefined || /[\s/]/.test(host))
    return value.fail('a host such as "10.0.0.1", or a URL such as "http://10.0.0.1:8500"');
  const http = port === undefined || port === "8300" || port === "8301" || port === "8302" ? 8500 : Number(port);
  return `http://${hostPort(host, http)}`;
}

const urlsOf = (value: Value): readonly string[] =>
  value
    .texts()
    .flatMap((text) => (text.includes("provider=") ? [text] : text.split(",")))
    .map((text) => agentUrl(text, value));

/** Hosts of the cluster to be found at the start: what a client host joins; a server has a directory of its own. */
const cluster =
  (key: string): Setter =>
  (d, v) => {
    v.texts();
    d.cluster.push({ key, value: v });
    d.ignored.add(key);
  };

type Setter = (draft: Draft, value: Value) => void;
/** Taken over, or accepted without an effect. A name with `*` covers everything below it. */
type Known = Setter | "ignored";

const LOG_LEVELS: Readonly<Record<string, LogLevel>> = {
  trace: "trace",
  debug: "debug",
  info: "info",
  warn: "warn",
  warning: "warn",
  err: "error",
  error: "error",
};

function logLevel(value: Value): LogLevel {
  return LOG_LEVELS[value.text().toLowerCase()] ?? value.fail("one of trace, debug, info, warn, err");
}

const domainOf = (value: Value): string => {
  const text = value.text().replace(/^\.+|\.+$/g, "");
  return text === "" ? value.fail('a DNS name such as "consul"') : text;
};

/** A TLS file or name of the agent's own: of use where checks take part in it, otherwise without an effect. */
const ownTls =
  (name: keyof NonNullable<Settings["checkTls"]>, key: string): Setter =>
  (d, v) => {
    if (v.text() !== "") d.tls.set(name, { key, value: v.text() });
  };

/** An operator must not believe in protection that is not there. */
const NO_ACLS =
  "false: Trilith has no access control lists; to restrict who may write, use http_config.allow_write_http_from and bind to loopback or a private network";

const TAKEN: Readonly<Record<string, Setter>> = {
  // Ours: this host is only a client of those agents.
  join: (d, v) => {
    d.join = [...(d.join ?? []), ...urlsOf(v)];
  },
  join_token: (d, v) => {
    d.joinToken = v.text();
  },
  join_liveness: (d, v) => {
    d.joinLivenessMs = v.durationMs() >= 1000 ? v.durationMs() : v.fail('a duration of at least "1s"');
  },
  // Ours: no server; agents that see each other show each other their own.
  peers: (d, v) => {
    const texts = v.texts().flatMap((text) => text.split(",").map((one) => one.trim()));
    if (texts.length === 0 || texts.includes("")) v.fail('tailnet, lan, or hosts such as "10.0.0.2"');
    const ways = texts.filter((text) => text === "tailnet" || text === "lan");
    if (ways.length > 1) v.fail("one of tailnet and lan");
    d.peers.find = ways.length === 0 ? "list" : ways[0] === "lan" ? "lan" : "tailnet";
    d.peers.hosts = texts.filter((text) => text !== ways[0]);
  },
  peers_key: (d, v) => {
    d.peers.key = v.text();
  },
  peers_port: (d, v) => {
    d.peers.port = v.port();
  },
  peers_bind: (d, v) => {
    d.peers.bind = v.text();
  },
  peers_tailscaled: (d, v) => {
    d.peers.tailscaled = v.text();
  },
  // Ours: the agents of other datacenters, by name.
  datacenters: (d, v) => {
    const object = Array.isArray(v.raw) && v.raw.length === 1 ? (v.raw[0] as unknown) : v.raw;
    if (typeof object !== "object" || object === null || Array.isArray(object))
      v.fail('an object such as {"dc2": ["http://10.0.0.1:8500"]}');
    const found: Record<string, readonly string[]> = Object.create(null);
    for (const [name, urls] of Object.entries(object as object)) {
      if (!/^[A-Za-z0-9_-]+$/.test(name)) v.fail(`names of datacenters; "${name}" is none`);
      found[name.toLowerCase()] = urlsOf(new Value(urls, `datacenters.${name}`));
      if (found[name.toLowerCase()]?.length === 0) v.fail(`at least one URL for "${name}"`);
    }
    d.datacenters = found;
  },
  retry_join: cluster("retry_join"),
  start_join: cluster("start_join"),
  server: (d, v) => {
    d.server = v.bool();
    d.ignored.add("server");
  },
  node_name: (d, v) => {
    d.node = v.text();
  },
  node_id: (d, v) => {
    d.nodeId = /^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/.test(v.text())
      ? v.text().toLowerCase()
      : v.fail("a UUID");
  },
  datacenter: (d, v) => {
    d.datacenter = /^[A-Za-z0-9_-]+$/.test(v.text())
      ? v.text().toLowerCase()
      : v.fail("letters, digits, hyphens and underscores");
  },
  domain: (d, v) => {
    d.domain = domainOf(v);
  },
  alt_domain: (d, v) => {
    if (v.text() !== "") d.dns["altDomain"] = domainOf(v);
  },
  client_addr: (d, v) => {
    d.client = v.addresses();
  },
  bind_addr: (d, v) => {
    d.bindAddress = v.address();
  },
  advertise_addr: (d, v) => {
    d.advertiseAddress = v.address();
  },
  "addresses.http": (d, v) => {
    d.httpAddress = v.addresses();
  },
  "addresses.dns": (d, v) => {
    d.dnsAddress = v.addresses();
  },
  data_dir: (d, v) => {
    d.dataDir = v.text();
  },
  log_level: (d, v) => {
    d.logLevel = logLevel(v);
  },
  log_json: (d, v) => {
    d.logFormat = v.bool() ? "json" : "text";
  },
  enable_script_checks: (d, v) => {
    d.scripts = v.bool();
  },
  enable_local_script_checks: (d, v) => {
    d.localScripts = v.bool();
  },
  session_ttl_min: (d, v) => {
    const ms = v.durationMs();
    // 0 is Consul's way to say that nothing was told.
    if (ms > 0) d.consul["sessionTtlMinMs"] = ms;
  },
  disable_coordinates: (d, v) => {
    d.consul["coordinates"] = !v.bool();
  },
  disable_remote_exec: (d, v) => {
    d.consul["remoteExec"] = !v.bool();
  },
  enable_agent_tls_for_checks: (d, v) => {
    d.tlsForChecks = v.bool();
  },
  ca_file: ownTls("caFile", "ca_file"),
  cert_file: ownTls("certFile", "cert_file"),
  key_file: ownTls("keyFile", "key_file"),
  server_name: ownTls("serverName", "server_name"),
  "tls.defaults.ca_file": ownTls("caFile", "tls.defaults.ca_file"),
  "tls.defaults.cert_file": ownTls("certFile", "tls.defaults.cert_file"),
  "tls.defaults.key_file": ownTls("keyFile", "tls.defaults.key_file"),
  node_meta: (d, v) => {
    for (const [key, value] of v.map()) d.nodeLabels[key] = value;
  },
  check_update_interval: (d, v) => {
    d.checkUpdateMs = v.durationMs();
  },
  check_output_max_size: (d, v) => {
    d.consul["checkOutputMaxBytes"] = v.integer(1, 1 << 20);
  },
  leave_on_terminate: (d, v) => {
    d.leaveOnTerm = v.bool();
  },
  "ports.http": (d, v) => {
    d.httpPort = v.port();
  },
  "ports.dns": (d, v) => {
    d.dns["port"] = v.port();
  },
  "ports.server": (d, v) => {
    d.consul["serverPort"] = v.port();
  },
  "ports.serf_lan": (d, v) => {
    d.consul["serfPort"] = v.port();
  },
  "dns_config.node_ttl": (d, v) => {
    d.dns["nodeTtlMs"] = Math.round(v.durationMs());
  },
  "dns_config.service_ttl": (d, v) => {
    const ttls: Record<string, number> = Object.create(null);
    for (const [name, text] of v.map()) ttls[name] = Math.round(new Value(text, name).durationMs());
    d.dns["serviceTtlMs"] = ttls;
  },
  "dns_config.only_passing": (d, v) => {
    d.dns["onlyPassing"] = v.bool();
  },
  "dns_config.enable_truncate": (d, v) => {
    d.dns["enableTruncate"] = v.bool();
  },
  "dns_config.udp_answer_limit": (d, v) => {
    d.dns["udpAnswerLimit"] = v.integer(0, 65_535);
  },
  "dns_config.a_record_limit": (d, v) => {
    d.dns["aRecordLimit"] = v.integer(0, 65_535);
  },
  "dns_config.disable_compression": (d, v) => {
    d.dns["disableCompression"] = v.bool();
  },
  "dns_config.enable_additional_node_meta_txt": (d, v) => {
    d.dns["enableAdditionalNodeMetaTxt"] = v.bool();
  },
  recursors: (d, v) => {
    d.dns["recursors"] = [...((d.dns["recursors"] as readonly string[] | undefined) ?? []), ...v.texts()];
  },
  "dns_config.recursor_strategy": (d, v) => {
    const text = v.text();
    d.dns["recursorStrategy"] = text === "sequential" || text === "random" ? text : v.fail("sequential or random");
  },
  "dns_config.recursor_timeout": (d, v) => {
    d.dns["recursorTimeoutMs"] = Math.max(1, Math.round(v.durationMs()));
  },
  // Ours: who may have foreign names resolved, and the bridges on which containers are answered.
  "dns_config.recursion_from": (d, v) => {
    d.dns["recursionFrom"] = [...v.texts()];
  },
  "dns_config.bridge": (d, v) => {
    if (v.raw === true || v.raw === false || v.raw === "true") d.dns["bridge"] = v.bool();
    else d.dns["bridge"] = [...v.texts()];
  },
  // Ours: where magic addresses lie.
  "magic.v4": (d, v) => {
    d.magic.v4 = v.text();
  },
  "magic.v6": (d, v) => {
    d.magic.v6 = v.text();
  },
  // Ours: the table of hooked programs (protocols/shim).
  "hook.enabled": (d, v) => {
    d.hook.enabled = v.bool();
  },
  "hook.table": (d, v) => {
    d.hook.keys["table"] = v.text();
  },
  "hook.balance": (d, v) => {
    d.hook.keys["balance"] = v.text();
  },
  "hook.prefetch": (d, v) => {
    d.hook.keys["prefetch"] = v.integer(0, 999);
  },
  "hook.prefetch_idle": (d, v) => {
    d.hook.keys["prefetchIdleMs"] = v.durationWithin(100, 3_600_000, 'a time from 100ms to 1h, such as "10s"');
  },
  "hook.try": (d, v) => {
    d.hook.keys["tryMs"] = v.durationWithin(10, 60_000, 'a time from 10ms to 1m, such as "1s"');
  },
  "hook.locality": (d, v) => {
    d.hook.keys["locality"] = v.bool();
  },
  // Ours: raw configuration by protocol, as each protocol's README has it.
  protocols: (d, v) => {
    for (const [name, raw] of Object.entries(inner(v.raw) ?? v.fail('an object such as {"mdns": true}')))
      if (BY_THEIR_OWN_KEYS.includes(name))
        v.fail(`protocols without keys of their own; ${name === "shim" ? '"shim" has "hook"' : `"${name}" has some`}`);
      else d.told[name] = inner(raw) ?? raw;
  },
  "process.environ": (d, v) => {
    d.process["environ"] = v.bool();
  },
  "dns_config.soa.refresh": (d, v) => {
    d.soa["refreshS"] = seconds(v);
  },
  "dns_config.soa.retry": (d, v) => {
    d.soa["retryS"] = seconds(v);
  },
  "dns_config.soa.expire": (d, v) => {
    d.soa["expireS"] = seconds(v);
  },
  "dns_config.soa.min_ttl": (d, v) => {
    d.soa["minTtlS"] = seconds(v);
  },
  "limits.kv_max_value_size": (d, v) => {
    d.consul["kvMaxValueBytes"] = v.integer(1, 1 << 20);
  },
  "limits.txn_max_req_len": (d, v) => {
    d.consul["txnMaxBytes"] = v.integer(1, 64 << 20);
  },
  max_query_time: (d, v) => {
    d.consul["maxWaitMs"] = Math.max(1, Math.round(v.durationMs()));
  },
  default_query_time: (d, v) => {
    d.consul["defaultWaitMs"] = Math.max(1, Math.round(v.durationMs()));
  },
  "http_config.use_cache": (d, v) => {
    d.consul["cache"] = v.bool();
  },
  "http_config.response_headers": (d, v) => {
    d.consul["responseHeaders"] = Object.fromEntries(v.map());
  },
  "http_config.block_endpoints": (d, v) => {
    d.consul["blockEndpoints"] = [...v.texts()];
  },
  "http_config.allow_write_http_from": (d, v) => {
    const fault = v
      .texts()
      .map(networkFault)
      .find((text) => text !== undefined);
    if (fault !== undefined) v.fail(`networks (${fault})`);
    d.consul["allowWriteFrom"] = [...v.texts()];
  },
  "acl.enabled": (_, v) => {
    if (v.bool()) v.fail(NO_ACLS);
  },
  acl_datacenter: (_, v) => {
    if (v.text() !== "") v.fail(NO_ACLS);
  },
  ui: (d, v) => {
    d.consul["ui"] = v.bool();
  },
  "ui_config.enabled": (d, v) => {
    d.consul["ui"] = v.bool();
  },
  "telemetry.prometheus_retention_time": (d, v) => {
    d.consul["prometheus"] = v.durationMs() > 0;
  },
};

/** Protocols that are configured by keys of Consul's or Trilith's instead. */
const BY_THEIR_OWN_KEYS: readonly string[] = ["file", "process", "peers", "shim", "api", "consul", "dns"];

/** All others: who writes one of these beside Consul's keys is told where it belongs. */
const BELOW_PROTOCOLS: readonly string[] = [
  "docker",
  "eureka",
  "backends",
  "mdns",
  "etcd",
  "consul-upstream",
  "dns-upstream",
  "minidisc",
  "flat",
  "zookeeper",
  "proxy",
  "hosts",
];

/** An object; in HCL a block is one in a list. */
function inner(raw: unknown): object | undefined {
  const object = Array.isArray(raw) && raw.length === 1 ? (raw[0] as unknown) : raw;
  return typeof object === "object" && object !== null && !Array.isArray(object) ? object : undefined;
}

function seconds(value: Value): number {
  return typeof value.raw === "string" && !/^\d+$/.test(value.raw)
    ? Math.round(value.durationMs() / 1000)
    : value.integer(0, 0x7fff_ffff);
}

/** Read by the `file` protocol from the same files. */
const DEFINITIONS = ["service", "services", "check", "checks"];
/** Read by it, too, and no part of Consul's configuration. */
const OWN_DEFINITIONS = ["override", "overrides"];

/** Understood as Consul's, without an effect here. */
const IGNORED = [
  "acl.*",
  "acl_*",
  "addresses.grpc",
  "addresses.grpc_tls",
  "addresses.https",
  "advertise_addr_ipv4",
  "advertise_addr_ipv6",
  "advertise_addr_wan",
  "advertise_addr_wan_ipv4",
  "advertise_addr_wan_ipv6",
  "advertise_reconnect_timeout",
  "audit.*",
  "auto_config.*",
  "auto_encrypt.*",
  "auto_reload_config",
  "autopilot.*",
  "bootstrap",
  "bootstrap_expect",
  "ca_path",
  "cache.*",
  "cloud.*",
  "config_entries.*",
  "connect.*",
  "default_intention_policy",
  "disable_anonymous_signature",
  "disable_host_node_id",
  "disable_http_unprintable_char_filter",
  "disable_keyring_file",
  "disable_update_check",
  "discard_check_output",
  "discovery_max_stale",
  "dns_config.allow_stale",
  "dns_config.cache_max_age",
  "dns_config.max_stale",
  "dns_config.prefer_namespace",
  "dns_config.use_cache",
  "enable_acl_replication",
  "enable_central_service_config",
  "enable_debug",
  "enable_syslog",
  "encrypt",
  "encrypt_verify_incoming",
  "encrypt_verify_outgoing",
  "experiments",
  "gossip_lan.*",
  "gossip_wan.*",
  "http_config.max_header_bytes",
  "leave_on_terminate_wan",
  "license_path",
  "limits.http_max_conns_per_client",
  "limits.https_handshake_timeout",
  "limits.request_limits.*",
  "limits.rpc_client_timeout",
  "limits.rpc_handshake_timeout",
  "limits.rpc_max_burst",
  "limits.rpc_max_conns_per_client",
  "limits.rpc_rate",
  "locality.*",
  "log_file",
  "log_rotate_bytes",
  "log_rotate_duration",
  "log_rotate_max_files",
  "partition",
  "peering.*",
  "performance.grpc_keepalive_interval",
  "performance.grpc_keepalive_timeout",
  "performance.leave_drain_time",
  "performance.raft_multiplier",
  "performance.rpc_hold_timeout",
  "pid_file",
  "ports.expose_max_port",
  "ports.expose_min_port",
  "ports.grpc",
  "ports.grpc_tls",
  "ports.https",
  "ports.serf_wan",
  "ports.sidecar_max_port",
  "ports.sidecar_min_port",
  "primary_datacenter",
  "primary_gateways",
  "primary_gateways_interval",
  "protocol",
  "raft_logstore.*",
  "raft_protocol",
  "raft_snapshot_interval",
  "raft_snapshot_threshold",
  "raft_trailing_logs",
  "read_replica",
  "reap",
  "reconnect_timeout",
  "reconnect_timeout_wan",
  "rejoin_after_leave",
  "reporting.*",
  "retry_interval",
  "retry_interval_wan",
  "retry_join_wan",
  "retry_max",
  "retry_max_wan",
  "rpc.*",
  "segment",
  "segments.*",
  "serf_allowed_cidrs_lan",
  "serf_allowed_cidrs_wan",
  "serf_lan",
  "serf_wan",
  "server_rejoin_age_max",
  "skip_leave_on_interrupt",
  "start_join_wan",
  "syslog_facility",
  "telemetry.*",
  "tls.*",
  "tls_*",
  "token.*",
  "translate_wan_addrs",
  "ui_config.content_path",
  "ui_config.dashboard_url_templates.*",
  "ui_config.dir",
  "ui_config.metrics_provider",
  "ui_config.metrics_provider_files",
  "ui_config.metrics_provider_options_json",
  "ui_config.metrics_proxy.*",
  "ui_content_path",
  "ui_dir",
  "unix_sockets.*",
  "use_streaming_backend",
  "verify_incoming",
  "verify_incoming_https",
  "verify_incoming_rpc",
  "verify_outgoing",
  "verify_server_hostname",
  "xds.*",
] as const;

const EXACT: ReadonlyMap<string, Known> = new Map<string, Known>([
  ...IGNORED.filter((key) => !key.includes("*")).map((key) => [key, "ignored"] as const),
  ...Object.entries(TAKEN),
]);
/** Groups whose keys are all accepted: "telemetry." of "telemetry.*", "acl_" of "acl_*". */
const GROUPS: readonly string[] = IGNORED.filter((key) => key.endsWith("*")).map((key) => key.slice(0, -1));
/** Keys that hold further keys: "ports", "dns_config", "dns_config.soa". */
const PARENTS: ReadonlySet<string> = new Set(
  [...Object.keys(TAKEN), ...IGNORED].flatMap((key) => {
    const parts = key.split(".");
    return parts.slice(0, -1).map((_, i) => parts.slice(0, i + 1).join("."));
  }),
);

function newDraft(): Draft {
  return {
    nodeLabels: Object.create(null) as Record<string, string>,
    cluster: [],
    peers: {},
    magic: {},
    hook: { enabled: true, keys: {} },
    dns: {},
    soa: {},
    consul: {},
    docker: {},
    process: {},
    told: Object.create(null) as Record<string, unknown>,
    servicePaths: [],
    tls: new Map(),
    ignored: new Set(),
    watches: [],
  };
}

/** Reads one level of a file. `prefix` is the dotted name of the level, with a dot at its end. */
function readLevel(
  draft: Draft,
  file: ConsulFile,
  level: Readonly<Record<string, unknown>>,
  path: KeyPath,
  prefix: string,
): void {
  for (const [key, raw] of Object.entries(level)) {
    const dotted = prefix + key.toLowerCase();
    const here = [...path, key];
    if (raw === null) continue;
    if (prefix === "" && [...DEFINITIONS, ...OWN_DEFINITIONS].includes(dotted)) continue;
    if (dotted === "watches") {
      draft.watches.push(...readWatches(raw, here, file.at));
      continue;
    }
    const known = EXACT.get(dotted);
    const inner = Array.isArray(raw) && raw.length === 1 ? (raw[0] as unknown) : raw;
    if (known === undefined && PARENTS.has(dotted)) {
      if (typeof inner !== "object" || inner === null || Array.isArray(inner))
        throw new InputError(file.at(here), `${JSON.stringify(raw)}: expected an object`);
      const below = inner === raw ? here : [...here, 0];
      readLevel(draft, file, inner as Readonly<Record<string, unknown>>, below, `${dotted}.`);
    } else if (typeof known === "function") known(draft, new Value(raw, file.at(here)));
    else if (known === "ignored" || GROUPS.some((group) => dotted.startsWith(group))) draft.ignored.add(dotted);
    else throw new InputError(file.at(here), unknownKey(key, prefix));
  }
}

function unknownKey(key: string, prefix: string): string {
  if (prefix === "" && BELOW_PROTOCOLS.includes(key))
    return `unknown key "${key}": protocols stand below "protocols": {"protocols": {"${key}": …}}`;
  const names = new Set<string>(prefix === "" ? [...DEFINITIONS, ...OWN_DEFINITIONS, "watches"] : []);
  for (const known of [...EXACT.keys(), ...PARENTS])
    if (known.startsWith(prefix)) names.add(known.slice(prefix.length).split(".")[0] as string);
  const nearest = nearestName(key, names);
  return `unknown key "${prefix}${key}"${nearest === undefined ? "" : `: did you mean "${prefix}${nearest}"?`}`;
}

const FLAGS: Readonly<Record<string, Known | ((draft: Draft, value: Value) => void)>> = {
  dev: (d, v) => {
    d.dev = v.bool();
  },
  dataDir: TAKEN["data_dir"] as Setter,
  storage: (d, v) => {
    const text = v.text();
    d.storage = text === "memory" || text === "lmdb" || text === "etcd" ? text : v.fail("memory, lmdb or etcd");
  },
  etcd: (d, v) => {
    const endpoints = v.texts().flatMap((text) => text.split(",").map((url) => url.trim()));
    for (const url of endpoints) if (!/^https?:\/\/./.test(url)) v.fail('URLs such as "http://127.0.0.1:2379"');
    d.etcd = { prefix: "/trilith/", livenessMs: 15_000, ...d.etcd, endpoints };
    d.storage = "etcd";
  },
  etcdPrefix: (d, v) => {
    d.etcd = { endpoints: [], livenessMs: 15_000, ...d.etcd, prefix: v.text() };
  },
  node: TAKEN["node_name"] as Setter,
  nodeId: TAKEN["node_id"] as Setter,
  nodeMeta: (d, v) => {
    for (const pair of v.texts()) {
      const at = pair.indexOf(":");
      if (at <= 0) v.fail("key:value");
      d.nodeLabels[pair.slice(0, at)] = pair.slice(at + 1);
    }
  },
  datacenter: TAKEN["datacenter"] as Setter,
  domain: TAKEN["domain"] as Setter,
  altDomain: TAKEN["alt_domain"] as Setter,
  client: TAKEN["client_addr"] as Setter,
  bind: TAKEN["bind_addr"] as Setter,
  advertise: TAKEN["advertise_addr"] as Setter,
  httpPort: TAKEN["ports.http"] as Setter,
  dnsPort: TAKEN["ports.dns"] as Setter,
  recursor: TAKEN["recursors"] as Setter,
  dnsBridge: TAKEN["dns_config.bridge"] as Setter,
  hookTable: TAKEN["hook.table"] as Setter,
  services: (d, v) => {
    d.servicePaths.push(...v.texts());
  },
  dockerHost: (d, v) => {
    if (v.text() === "off") d.docker["enabled"] = false;
    else d.docker["host"] = v.text();
  },
  mdns: (d, v) => {
    // What a file says more of it stays.
    if (!v.bool()) d.told["mdns"] = false;
    else if (inner(d.told["mdns"]) === undefined) d.told["mdns"] = true;
  },
  environ: (d, v) => {
    const text = v.text();
    d.process["environ"] = text === "on" || text === "off" ? text === "on" : v.fail("on or off");
  },
  enableScriptChecks: TAKEN["enable_script_checks"] as Setter,
  enableLocalScriptChecks: TAKEN["enable_local_script_checks"] as Setter,
  compat: (d, v) => {
    const text = v.text();
    d.compat = text === "none" || text === "consul" ? text : v.fail("none or consul");
  },
  logLevel: TAKEN["log_level"] as Setter,
  logJson: TAKEN["log_json"] as Setter,
  ui: TAKEN["ui"] as Setter,
  join: TAKEN["join"] as Setter,
  joinToken: TAKEN["join_token"] as Setter,
  peers: TAKEN["peers"] as Setter,
  peersKey: TAKEN["peers_key"] as Setter,
  peersPort: TAKEN["peers_port"] as Setter,
  peersBind: TAKEN["peers_bind"] as Setter,
  peersTailscaled: TAKEN["peers_tailscaled"] as Setter,
  retryJoin: cluster("-retry-join"),
  server: (d, v) => {
    d.server = v.bool();
    d.ignored.add("-server");
  },
  bootstrap: "ignored",
  bootstrapExpect: "ignored",
};

/** What is understood, for documents and their test: keys and flags that count, and those without an effect (`*` = everything below). */
export const KNOWN: {
  readonly keys: readonly string[];
  readonly definitions: readonly string[];
  readonly ignoredKeys: readonly string[];
  readonly flags: readonly string[];
  readonly ignoredFlags: readonly string[];
} = {
  keys: Object.keys(TAKEN),
  definitions: [...DEFINITIONS, "watches"],
  ignoredKeys: IGNORED,
  flags: Object.keys(FLAGS).filter((name) => FLAGS[name] !== "ignored"),
  ignoredFlags: Object.keys(FLAGS).filter((name) => FLAGS[name] === "ignored"),
};

/**
 * Settings from Consul configuration files, in their order, then flags; what is not mentioned stays out. `paths` are the files and
 * folders to look for services and checks in, also later: the files themselves unless told.
 * @throws InputError for wrong values and unknown keys, with file, line, key and the nearest known name
 */
export function settingsFrom(
  files: readonly ConsulFile[],
  flags: Flags = {},
  paths: readonly string[] = files.map(({ path }) => path),
): Partial<Settings> {
  const draft = newDraft();
  for (const file of files) readLevel(draft, file, file.value, [], "");
  for (const [name, raw] of Object.entries(flags)) {
    if (raw === undefined) continue;
    const flag = `-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    const known = FLAGS[name];
    if (known === "ignored") draft.ignored.add(flag);
    else if (known !== undefined) known(draft, new Value(raw, flag));
    else throw new InputError(flag, "unknown flag");
  }
  return finish(draft, paths);
}

function finish(draft: Draft, consulPaths: readonly string[]): Partial<Settings> {
  if (draft.etcd !== undefined && draft.etcd.endpoints.length === 0)
    throw new InputError("-etcd-prefix", "needs the members' URLs (-etcd)");
  const join = joinOf(draft);
  const client = draft.client;
  const dnsHosts = (draft.dnsAddress ?? client)
    ?.split(/\s+/)
    .filter((host) => !host.startsWith("unix://"))
    .map((host) => (host === "localhost" ? "127.0.0.1" : host));
  if (dnsHosts !== undefined && dnsHosts.length > 0) draft.dns["host"] = dnsHosts;
  if (Object.keys(draft.soa).length > 0) draft.dns["soa"] = draft.soa;
  const clientAddress = draft.httpAddress ?? client;
  const protocols: Record<string, unknown> = { ...draft.told };
  if (!draft.hook.enabled) protocols["shim"] = false;
  else if (Object.keys(draft.hook.keys).length > 0) protocols["shim"] = draft.hook.keys;
  if (draft.watches.length > 0) draft.consul["watches"] = draft.watches;
  for (const name of ["dns", "consul", "docker", "process"] as const)
    if (Object.keys(draft[name]).length > 0) protocols[name] = { ...(inner(draft.told[name]) ?? {}), ...draft[name] };
  if (consulPaths.length + draft.servicePaths.length > 0)
    protocols["file"] = { paths: draft.servicePaths, consulPaths: [...consulPaths] };
  if (draft.tlsForChecks !== true) for (const { key } of draft.tls.values()) draft.ignored.add(key);
  return {
    ...given("node", draft.node),
    ...given("nodeId", draft.nodeId),
    ...given("datacenter", draft.datacenter),
    ...given("domain", draft.domain),
    ...given("dataDir", draft.dataDir),
    ...given("dev", draft.dev),
    ...given("compat", draft.compat),
    ...given("storage", draft.storage),
    ...given("etcd", draft.etcd),
    ...given("join", join),
    ...given("peers", peersOf(draft)),
    ...(Object.keys(draft.magic).length > 0 ? { magic: draft.magic } : {}),
    ...given("datacenters", draft.datacenters),
    ...given("clientAddress", clientAddress),
    ...given("bindAddress", draft.bindAddress),
    ...given("advertiseAddress", draft.advertiseAddress),
    ...(Object.keys(draft.nodeLabels).length > 0 ? { nodeLabels: draft.nodeLabels } : {}),
    ...given("httpPort", draft.httpPort),
    ...(draft.tlsForChecks === true
      ? { checkTls: Object.fromEntries([...draft.tls].map(([name, { value }]) => [name, value])) }
      : {}),
    ...(draft.scripts === undefined && draft.localScripts === undefined
      ? {}
      : {
          scripts: {
            fromApi: draft.scripts === true,
            fromFiles: draft.scripts === true || draft.localScripts === true,
          },
        }),
    ...given("checkUpdateMs", draft.checkUpdateMs),
    ...given("leaveOnTerm", draft.leaveOnTerm),
    ...(draft.logLevel === undefined && draft.logFormat === undefined
      ? {}
      : { log: { level: draft.logLevel ?? "info", format: draft.logFormat ?? "text" } }),
    ...(Object.keys(protocols).length > 0 ? { protocols } : {}),
    ...(draft.ignored.size > 0 ? { ignored: [...draft.ignored] } : {}),
  };
}

/** Whom this host joins: those named by ours, else the cluster's hosts where this host is no server and has no store of its own. */
function joinOf(draft: Draft): Settings["join"] | undefined {
  const own = draft.server === true || draft.storage !== undefined || draft.dev === true;
  const urls = draft.join ?? (own ? [] : draft.cluster.flatMap(({ value }) => urlsOf(value)));
  if (draft.join === undefined && !own) for (const { key } of draft.cluster) draft.ignored.delete(key);
  if (urls.length === 0) return undefined;
  return {
    servers: [...new Set(urls)],
    livenessMs: draft.joinLivenessMs ?? 15_000,
    ...(draft.joinToken === undefined ? {} : { token: draft.joinToken }),
  };
}

/** How agents without a server find each other. */
function peersOf({ peers }: Draft): Settings["peers"] | undefined {
  const { find, ...rest } = peers;
  if (find !== undefined) return { find, ...rest };
  const [stray] = Object.keys(rest);
  if (stray !== undefined)
    throw new InputError(`peers_${stray}`, "is of use only with peers (--peers tailnet, lan or hosts)");
  return undefined;
}

function given<K extends keyof Settings>(key: K, value: Settings[K] | undefined): Partial<Pick<Settings, K>> {
  return value === undefined ? {} : ({ [key]: value } as Partial<Pick<Settings, K>>);
}
