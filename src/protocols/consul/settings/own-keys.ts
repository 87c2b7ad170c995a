// Trilith's own configuration keys beside Consul's: client hosts, peers, other datacenters, hooked programs, protocols.
import type { Settings } from "../../../contracts/settings.ts";
import type { Setter } from "./draft.ts";
import { inner, urlsOf, Value } from "./value.ts";

const DAY_MS = 86_400_000;

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

type GuardOf = { -readonly [K in keyof Omit<Settings["guard"], "perService">]?: number };

const GUARD_KEYS: Readonly<Record<string, (guard: GuardOf, value: Value) => void>> = {
  drop_percent: (guard, v) => {
    guard.dropShare = v.integer(0, 100) / 100;
  },
  min_instances: (guard, v) => {
    guard.minInstances = v.integer(0, 1_000_000);
  },
  window: (guard, v) => {
    guard.windowMs = v.durationWithin(1, DAY_MS, 'a time from 1ms to 24h, such as "1m"');
  },
  hold: (guard, v) => {
    guard.holdMs = v.durationWithin(1, DAY_MS, 'a time from 1ms to 24h, such as "10m"');
  },
  panic_percent: (guard, v) => {
    guard.panicPercent = v.integer(0, 100);
  },
};

/** Takes a key of the guard's, for all services or one of them. @throws InputError where there is no such key */
function guardKey(guard: GuardOf, key: string, value: Value): void {
  const set = Object.hasOwn(GUARD_KEYS, key) ? GUARD_KEYS[key] : undefined;
  if (set === undefined) value.fail(`one of the keys ${Object.keys(GUARD_KEYS).join(", ")}`);
  else set(guard, value);
}

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
  // When what many say is gone is not believed at once, and when the unhealthy are answered, too (lookup/guard).
  "guard.drop_percent": (d, v) => guardKey(d.guard, "drop_percent", v),
  "guard.min_instances": (d, v) => guardKey(d.guard, "min_instances", v),
  "guard.window": (d, v) => guardKey(d.guard, "window", v),
  "guard.hold": (d, v) => guardKey(d.guard, "hold", v),
  "guard.panic_percent": (d, v) => guardKey(d.guard, "panic_percent", v),
  "guard.services": (d, v) => {
    const object = inner(v.raw) ?? v.fail('an object such as {"web": {"panic_percent": 50}}');
    const services: Record<string, GuardOf> = Object.assign(Object.create(null), d.guard.perService);
    for (const [service, raw] of Object.entries(object)) {
      const keys = inner(raw) ?? v.fail(`an object for "${service}", such as {"panic_percent": 50}`);
      const own: GuardOf = { ...services[service] };
      for (const [key, value] of Object.entries(keys)) guardKey(own, key.toLowerCase(), v.within(value, service, key));
      services[service] = own;
    }
    d.guard.perService = services;
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
