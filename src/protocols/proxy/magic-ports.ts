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

export interface MagicPort {
  readonly port: number;
  readonly protocol: "tcp" | "udp";
  /** Why: "its instances' port", "tag http", "configured". */
  readonly why: string;
}

/**
 * The ports of a service, each once. `taken`: ports of instances on this host, which belong to them: who listens on all addresses
 * could not be started again while a magic address holds the port.
 */
export function magicPorts(
  service: string,
  residents: readonly Resident[],
  { ports }: Pick<MagicConfig, "ports">,
  taken: ReadonlySet<number>,
): readonly MagicPort[] {
  const found = new Map<string, MagicPort>();
  const add = (port: number, protocol: "tcp" | "udp", why: string): void => {
    const key = `${port}/${protocol}`;
    if (port > 0 && !found.has(key)) found.set(key, { port, protocol, why });
  };
  const udpOnly = residents.length > 0 && residents.every((each) => transportOf(each) === "udp");
  const configured = [...(ports.get(service.toLowerCase()) ?? []), ...(ports.get("*") ?? [])];
  for (const port of configured) add(port, udpOnly ? "udp" : "tcp", "configured");
  for (const resident of residents) {
    const { instance } = resident;
    const protocol = transportOf(resident) ?? "tcp";
    const own = instance.labels["protocol"];
    for (const word of own === undefined ? instance.tags : [...instance.tags, own]) {
      const port = WELL_KNOWN.get(word.toLowerCase());
      if (port !== undefined && !taken.has(port)) add(port, "tcp", `"${word}" is at ${port}`);
    }
    if (!taken.has(instance.port)) add(instance.port, protocol, "its instances' port");
  }
  return [...found.values()];
}
