// What the configuration says under `proxy`: ports of this host that stand for services, and listeners on magic addresses.
import { InputError } from "../../base/error.ts";
import { ipFamily } from "../../base/net.ts";
import type { ConnectPolicy, ProxyOptions } from "../../contracts/connect.ts";
import { hostFromText, mustDiffer, type ProxyRule, proxyPortFromText } from "../../model/proxy-rule.ts";
import { queryFromText } from "../../model/service-name.ts";
import { given } from "../../wire/given.ts";

/** One port with what is said about it. */
export interface ListenRule extends ProxyRule {
  readonly host: string;
  readonly options: ProxyOptions;
}

export interface MagicConfig {
  /** False: only services that somebody asked for are listened for. */
  readonly all: boolean;
  /** Further ports by the service's name in lower case, "*" for all. */
  readonly ports: ReadonlyMap<string, readonly number[]>;
  /** At most so many listeners. */
  readonly most: number;
}

export interface ProxyConfig {
  /** Names may carry the agent's domain. @throws InputError that names the key */
  readonly listen: (domain: string) => readonly ListenRule[];
  readonly magic: MagicConfig | undefined;
}

const KEYS = ["listen", "bind", "drain", "magic", "ports", "most"];
const RULE_KEYS = ["service", "policy", "proxy_protocol", "try", "wait", "idle", "drain"];
const POLICIES: readonly ConnectPolicy[] = ["p2c", "round-robin", "random", "least", "first", "sticky"];
const EXAMPLE = '{"listen": {"6379": "redis"}}';
const MOST = 1_024;

/** Without anything: no ports, and magic addresses for what is asked for. @throws InputError that names the key */
export function configureProxy(raw: unknown = {}): ProxyConfig {
  const own = given(raw, "proxy", KEYS, EXAMPLE);
  const bindText = own.text("bind", 'an IP address such as "127.0.0.1"') ?? "127.0.0.1";
  const bind = hostFromText(ipFamily(bindText) === 6 ? `[${bindText}]` : bindText);
  if (bind === undefined) throw own.wrong("bind", 'an IP address such as "127.0.0.1"');
  const drainMs = own.duration("drain", 0);
  const listen = own.raw("listen");
  if (listen !== undefined && (typeof listen !== "object" || listen === null || Array.isArray(listen)))
    throw own.wrong("listen", 'an object such as {"6379": "redis", "53/udp": "dns"}');
  const rules = (domain: string): readonly ListenRule[] => {
    const all = Object.entries(listen ?? {}).map(([port, value]) =>
      ruleOf(port, value, bind, { ...(drainMs === undefined ? {} : { drainMs }) }, domain),
    );
    mustDiffer(all, bind, "proxy.listen");
    return all;
  };
  const magic = own.flag("magic");
  if (magic === false && (own.raw("ports") !== undefined || own.raw("most") !== undefined))
    throw new InputError("proxy.ports", 'is about magic addresses: leave "magic": false out');
  return {
    listen: rules,
    magic:
      magic === false
        ? undefined
        : {
            all: magic === true,
            ports: portsOf(own.raw("ports")),
            most: own.number("most", 1, 65_535) ?? MOST,
          },
  };
}

function ruleOf(port: string, value: unknown, bind: string, shared: ProxyOptions, domain: string): ListenRule {
  const where = `proxy.listen.${port}`;
  const at = { host: bind, ...proxyPortFromText(port, where) };
  if (typeof value === "string") return { ...at, query: queryFromText(value, domain, where), options: shared };
  const own = given(value, where, RULE_KEYS, '{"service": "redis", "proxy_protocol": 2}');
  const service = own.text("service", 'a service such as "redis"');
  if (service === undefined) throw own.wrong("service", 'a service such as "redis"');
  const policyText = own.text("policy", `one of ${POLICIES.join(", ")}`);
  const policy = POLICIES.find((each) => each === policyText);
  if (policyText !== undefined && policy === undefined) throw own.wrong("policy", `one of ${POLICIES.join(", ")}`);
  const version = own.number("proxy_protocol", 1, 2);
  if (version !== undefined && at.protocol === "udp") throw own.wrong("proxy_protocol", "none for UDP: it is TCP's");
  const options: Record<string, unknown> = { ...shared };
  for (const [key, name] of [
    ["try", "tryMs"],
    ["wait", "limitMs"],
    ["idle", "idleMs"],
    ["drain", "drainMs"],
  ] as const) {
    const ms = own.duration(key, key === "drain" ? 0 : 1);
    if (ms !== undefined) options[name] = ms;
  }
  if (policy !== undefined) options["policy"] = policy;
  if (version !== undefined) options["proxyProtocol"] = version;
  return { ...at, query: queryFromText(service, domain, where), options: options as ProxyOptions };
}

function portsOf(raw: unknown): ReadonlyMap<string, readonly number[]> {
  const ports = new Map<string, readonly number[]>();
  if (raw === undefined) return ports;
  const example = '{"web": [80], "*": [443]}';
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new InputError("proxy.ports", `expected an object such as ${example}, but got ${JSON.stringify(raw)}`);
  for (const [name, value] of Object.entries(raw)) {
    const list: unknown[] = Array.isArray(value) ? value : [value];
    for (const port of list)
      if (!Number.isInteger(port) || Number(port) < 1 || Number(port) > 65_535)
        throw new InputError(`proxy.ports.${name}`, `expected ports from 1 to 65535, but got ${JSON.stringify(port)}`);
    ports.set(name.toLowerCase(), list as number[]);
  }
  return ports;
}
