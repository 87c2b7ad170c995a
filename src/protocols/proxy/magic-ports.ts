// At which ports a service's magic address should listen: where its clients look for it.
import type { Resident } from "../../model/instance.ts";
import { transportOf } from "../../model/near.ts";
import type { MagicConfig } from "./config.ts";

/** What clients take for granted about a tag, or a label `protocol`. */
const WELL_KNOWN: ReadonlyMap<string, number> = new Map([
  ["http", 80],
  ["https", 443],
  ["postgres", 5432],
  ["postgresql", 5432],
  ["mysql", 3306],
  ["redis", 6379],
  ["mongodb", 27017],
  ["memcached", 11211],
  ["amqp", 5672],
  ["mqtt", 1883],
  ["nats", 4222],
  ["kafka", 9092],
  ["smtp", 25],
  ["ldap", 389],
]);

/** Where a service that has no other protocol's port may be spoken to over TLS. */
const TLS_PORTS: ReadonlySet<number> = new Set([443, 8443]);
const OTHER_PORTS: ReadonlySet<number> = new Set(
  [...WELL_KNOWN.values()].filter((port) => port !== 80 && port !== 443),
);

/** Said of ports that the configuration names. */
export const CONFIGURED = "configured";

export interface MagicPort {
  readonly port: number;
  readonly protocol: "tcp" | "udp";
  /** Why: "its instances' port", "tag http", "configured". */
  readonly why: string;
}

export interface MagicPorts {
  readonly wanted: readonly MagicPort[];
  /** Ports of instances on this host, left to them. */
  readonly left: readonly MagicPort[];
}

/**
 * The ports of a service, each once. Where it was asked for by name (`all` is false) its name counts as a tag does, and 80 is tried unless
 * it speaks something else. `taken`: ports of instances on this host, which belong to them: who listens on all addresses could not be
 * started again while a magic address holds the port.
 */
export function magicPorts(
  service: string,
  residents: readonly Resident[],
  { ports, all }: Pick<MagicConfig, "ports" | "all">,
  taken: ReadonlySet<number>,
): MagicPorts {
  const wanted = new Map<string, MagicPort>();
  const left = new Map<string, MagicPort>();
  const add = (port: number, protocol: "tcp" | "udp", why: string): void => {
    const key = `${port}/${protocol}`;
    if (port === 0 || wanted.has(key) || (left.has(key) && why !== CONFIGURED)) return;
    (taken.has(port) && why !== CONFIGURED ? left : wanted).set(key, { port, protocol, why });
  };
  const udpOnly = residents.length > 0 && residents.every((each) => transportOf(each) === "udp");
  const configured = [...(ports.get(service.toLowerCase()) ?? []), ...(ports.get("*") ?? [])];
  for (const port of configured) add(port, udpOnly ? "udp" : "tcp", CONFIGURED);
  const known = new Set<number>();
  const byWord = (word: string): void => {
    const port = WELL_KNOWN.get(word.toLowerCase());
    if (port === undefined) return;
    known.add(port);
    add(port, "tcp", `"${word}" is at ${port}`);
  };
  for (const resident of residents) {
    const { instance } = resident;
    for (const word of instance.tags) byWord(word);
    const own = instance.labels["protocol"];
    if (own !== undefined) byWord(own);
    add(instance.port, transportOf(resident) ?? "tcp", "its instances' port");
    if (OTHER_PORTS.has(instance.port)) known.add(instance.port);
    if (TLS_PORTS.has(instance.port)) known.add(443);
  }
  if (!all && !udpOnly && residents.length > 0) {
    byWord(service);
    if (known.has(443)) add(443, "tcp", "its instances' port says TLS");
    if (known.size === 0 || known.has(80)) add(80, "tcp", "where HTTP is spoken");
  }
  return { wanted: [...wanted.values()], left: [...left.values()] };
}
