// The flags of `agent`, Consul's and Trilith's, by their names in camelCase, and what each does to the settings.
import { CONSUL_KEYS, cluster } from "./consul-keys.ts";
import type { Known, Setter } from "./draft.ts";
import { OWN_KEYS } from "./own-keys.ts";
import { inner } from "./value.ts";

/** Flags of `consul agent` 1.19 about its gossip, its Raft and its files: accepted as their keys are, without an effect. */
const IGNORED_FLAGS: readonly string[] = [
  "bootstrap",
  "bootstrapExpect",
  "advertiseWan",
  "autoReloadConfig",
  "disableHostNodeId",
  "disableKeyringFile",
  "encrypt",
  "grpcPort",
  "grpcTlsPort",
  "httpsPort",
  "joinWan",
  "logFile",
  "logRotateBytes",
  "logRotateDuration",
  "logRotateMaxFiles",
  "nonVotingServer",
  "pidFile",
  "primaryGateway",
  "protocol",
  "raftProtocol",
  "readReplica",
  "rejoin",
  "retryInterval",
  "retryIntervalWan",
  "retryJoinWan",
  "retryMax",
  "retryMaxWan",
  "segment",
  "serfLanAllowedCidrs",
  "serfLanBind",
  "serfWanAllowedCidrs",
  "serfWanBind",
  "serfWanPort",
  "syslog",
  "uiContentPath",
  "uiDir",
];

/** What the key of a file does. */
function asKey(key: string): Setter {
  const setter = CONSUL_KEYS[key] ?? OWN_KEYS[key];
  if (setter === undefined) throw new Error(`no configuration key "${key}"`);
  return setter;
}

/** By name in camelCase. */
export const FLAGS: Readonly<Record<string, Known>> = {
  dev: (d, v) => {
    d.dev = v.bool();
  },
  dataDir: asKey("data_dir"),
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
  node: asKey("node_name"),
  nodeId: asKey("node_id"),
  nodeMeta: (d, v) => {
    for (const pair of v.texts()) {
      const at = pair.indexOf(":");
      if (at <= 0) v.fail("key:value");
      d.nodeLabels[pair.slice(0, at)] = pair.slice(at + 1);
    }
  },
  datacenter: asKey("datacenter"),
  domain: asKey("domain"),
  altDomain: asKey("alt_domain"),
  client: asKey("client_addr"),
  bind: asKey("bind_addr"),
  advertise: asKey("advertise_addr"),
  httpPort: asKey("ports.http"),
  dnsPort: asKey("ports.dns"),
  recursor: asKey("recursors"),
  dnsBridge: asKey("dns_config.bridge"),
  hookTable: asKey("hook.table"),
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
  enableScriptChecks: asKey("enable_script_checks"),
  enableLocalScriptChecks: asKey("enable_local_script_checks"),
  compat: (d, v) => {
    const text = v.text();
    d.compat = text === "none" || text === "consul" ? text : v.fail("none or consul");
  },
  logLevel: asKey("log_level"),
  logJson: asKey("log_json"),
  ui: asKey("ui"),
  join: asKey("join"),
  joinToken: asKey("join_token"),
  peers: asKey("peers"),
  peersKey: asKey("peers_key"),
  peersPort: asKey("peers_port"),
  peersBind: asKey("peers_bind"),
  peersTailscaled: asKey("peers_tailscaled"),
  retryJoin: cluster("-retry-join"),
  server: (d, v) => {
    d.server = v.bool();
    d.ignored.add("-server");
  },
  // Those of Consul that say what a key says.
  allowWriteHttpFrom: asKey("http_config.allow_write_http_from"),
  check_output_max_size: asKey("check_output_max_size"),
  defaultQueryTime: asKey("default_query_time"),
  maxQueryTime: asKey("max_query_time"),
  serfLanPort: asKey("ports.serf_lan"),
  serverPort: asKey("ports.server"),
  ...Object.fromEntries(IGNORED_FLAGS.map((name) => [name, "ignored"] as const)),
};
