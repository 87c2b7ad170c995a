// Consul's configuration keys that count here, and what each does to the settings.
import type { LogLevel } from "../../../base/log.ts";
import { networkFault } from "../../../base/networks.ts";
import type { Settings } from "../../../contracts/settings.ts";
import { LOG_LEVELS } from "../log-levels.ts";
import type { Setter } from "./draft.ts";
import { Value } from "./value.ts";

/** Hosts of the cluster to be found at the start: what a client host joins; a server has a directory of its own. */
export const cluster =
  (key: string): Setter =>
  (d, v) => {
    v.texts();
    d.cluster.push({ key, value: v });
    d.ignored.add(key);
  };

function logLevel(value: Value): LogLevel {
  return LOG_LEVELS.get(value.text().toLowerCase()) ?? value.fail("one of trace, debug, info, warn, err");
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

function seconds(value: Value): number {
  return typeof value.raw === "string" && !/^\d+$/.test(value.raw)
    ? Math.round(value.durationMs() / 1000)
    : value.integer(0, 0x7fff_ffff);
}

/** By dotted key, in lower case. */
export const CONSUL_KEYS: Readonly<Record<string, Setter>> = {
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
