// Trilith's own configuration keys beside Consul's: client hosts, peers, other datacenters, hooked programs, protocols.
import type { Setter } from "./draft.ts";
import { inner, urlsOf, Value } from "./value.ts";

/** Protocols that are configured by keys of Consul's or Trilith's instead. */
const BY_THEIR_OWN_KEYS: readonly string[] = ["file", "process", "peers", "shim", "consul", "dns"];

/** All others: who writes one of these beside Consul's keys is told where it belongs. */
export const BELOW_PROTOCOLS: readonly string[] = [
  "api",
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

/** By dotted key, in lower case. */
export const OWN_KEYS: Readonly<Record<string, Setter>> = {
  // This host is only a client of those agents.
  join: (d, v) => {
    d.join = [...(d.join ?? []), ...urlsOf(v)];
  },
  join_token: (d, v) => {
    d.joinToken = v.text();
  },
  join_liveness: (d, v) => {
    d.joinLivenessMs = v.durationMs() >= 1000 ? v.durationMs() : v.fail('a duration of at least "1s"');
  },
  // No server; agents that see each other show each other their own.
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
  // The agents of other datacenters, by name.
  datacenters: (d, v) => {
    const object = inner(v.raw) ?? v.fail('an object such as {"dc2": ["http://10.0.0.1:8500"]}');
    const found: Record<string, readonly string[]> = Object.create(null);
    for (const [name, urls] of Object.entries(object)) {
      if (!/^[A-Za-z0-9_-]+$/.test(name)) v.fail(`names of datacenters; "${name}" is none`);
      found[name.toLowerCase()] = urlsOf(new Value(urls, `datacenters.${name}`));
      if (found[name.toLowerCase()]?.length === 0) v.fail(`at least one URL for "${name}"`);
    }
    d.datacenters = found;
  },
  // Who may have foreign names resolved, and the bridges on which containers are answered.
  "dns_config.recursion_from": (d, v) => {
    d.dns["recursionFrom"] = [...v.texts()];
  },
  "dns_config.bridge": (d, v) => {
    if (v.raw === true || v.raw === false || v.raw === "true") d.dns["bridge"] = v.bool();
    else d.dns["bridge"] = [...v.texts()];
  },
  // Where magic addresses lie.
  "magic.v4": (d, v) => {
    d.magic.v4 = v.text();
  },
  "magic.v6": (d, v) => {
    d.magic.v6 = v.text();
  },
  // The table of hooked programs (protocols/shim).
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
  // Raw configuration by protocol, as each protocol's README has it.
  protocols: (d, v) => {
    for (const [name, raw] of Object.entries(inner(v.raw) ?? v.fail('an object such as {"mdns": true}')))
      if (BY_THEIR_OWN_KEYS.includes(name))
        v.fail(`protocols without keys of their own; ${name === "shim" ? '"shim" has "hook"' : `"${name}" has some`}`);
      else d.told[name] = inner(raw) ?? raw;
  },
  "process.environ": (d, v) => {
    d.process["environ"] = v.bool();
  },
};
