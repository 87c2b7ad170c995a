// Which keys of a configuration file a reload takes: more than Consul does ("Reloadable configuration" in its documentation). All others wait for a restart, and are told.

/** Taken while the agent runs. */
const KEYS: ReadonlySet<string> = new Set([
  // Reloadable in Consul, too (beside definitions and watches, which are no settings).
  "log_level",
  "node_meta",
  "enable_agent_tls_for_checks",
  "ca_file",
  "cert_file",
  "key_file",
  "server_name",
  "tls.defaults.ca_file",
  "tls.defaults.cert_file",
  "tls.defaults.key_file",
  // What Consul's HTTP API goes by (protocols/consul).
  "session_ttl_min",
  "disable_coordinates",
  "disable_remote_exec",
  "check_output_max_size",
  "ports.server",
  "ports.serf_lan",
  "limits.kv_max_value_size",
  "limits.txn_max_req_len",
  "max_query_time",
  "default_query_time",
  "http_config.use_cache",
  "http_config.response_headers",
  "http_config.block_endpoints",
  "http_config.allow_write_http_from",
  "ui",
  "ui_config.enabled",
  "telemetry.prometheus_retention_time",
  // What DNS answers by (protocols/dns).
  "alt_domain",
  "recursors",
  "dns_config.node_ttl",
  "dns_config.service_ttl",
  "dns_config.only_passing",
  "dns_config.enable_truncate",
  "dns_config.udp_answer_limit",
  "dns_config.a_record_limit",
  "dns_config.disable_compression",
  "dns_config.enable_additional_node_meta_txt",
  "dns_config.recursor_strategy",
  "dns_config.recursor_timeout",
  "dns_config.soa.refresh",
  "dns_config.soa.retry",
  "dns_config.soa.expire",
  "dns_config.soa.min_ttl",
  "dns_config.recursion_from",
  "process.environ",
  // What answers are guarded by (lookup/guard).
  "guard.drop_percent",
  "guard.min_instances",
  "guard.window",
  "guard.hold",
  "guard.panic_percent",
  "guard.services",
  // What hooked programs get (protocols/shim).
  "hook.enabled",
  "hook.balance",
  "hook.prefetch",
  "hook.prefetch_idle",
  "hook.try",
  "hook.locality",
  // Refused where they say anything.
  "acl.enabled",
  "acl_datacenter",
]);

/** Each protocol says itself what it takes and what waits. */
const OTHERS_TELL: ReadonlySet<string> = new Set([
  "protocols",
  "ports.dns",
  "dns_config.bridge",
  "addresses.dns",
  "hook.table",
  "peers",
  "peers_key",
  "peers_port",
  "peers_bind",
  "peers_tailscaled",
]);

/** True of a key that a reload takes, or that its protocol tells of. `key`: dotted, in lower case. */
export function isReloaded(key: string): boolean {
  return KEYS.has(key) || OTHERS_TELL.has(key);
}
