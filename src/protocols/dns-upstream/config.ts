// What `protocols["dns-upstream"]` may say: which names elsewhere are which services here, and whom to ask for them.
import { InputError, messageOf } from "../../base/error.ts";
import type { Labels } from "../../model/node.ts";
import { endsWith, type Name, type Nameserver, nameFromText, nameserverOf, textOfName } from "../../wire/dns/index.ts";
import { type Given, given } from "../../wire/given.ts";

/** One service that is found by DNS. */
export interface Entry {
  /** What it is called here. */
  readonly service: string;
  /** What is asked for. */
  readonly name: Name;
  /** The name as text, in lower case and without the dot at its end. */
  readonly text: string;
  /** Given: the addresses (A, AAAA) of the name are instances at this port. Absent: SRV records. */
  readonly port?: number;
  readonly resolvers: readonly Nameserver[];
  readonly tags: readonly string[];
  readonly labels: Labels;
}

export interface DnsUpstreamConfig {
  readonly entries: readonly Entry[];
  /** No name is asked for more often, whatever its TTL, and none less often than at the cap. */
  readonly floorMs: number;
  readonly capMs: number;
  /** An answer that there is nothing takes away what was known once it has stood for so long. */
  readonly holdMs: number;
  /** One resolver has so long to answer. */
  readonly timeoutMs: number;
  /** How often instances are asked by TCP where some stand by for others. */
  readonly checkMs: number;
}

const AT = "dns-upstream";
const KEYS = ["services", "resolvers", "floor", "cap", "hold", "timeout", "check_interval"];
const ENTRY_KEYS = ["service", "name", "port", "resolvers", "tags", "labels"];
const ENTRY = '{"service": "web", "name": "_http._tcp.example.com"}';
const LABELS = 'an object of texts such as {"env": "prod"}';

function nameserverAt(value: unknown, where: string): Nameserver {
  const read = typeof value === "string" ? nameserverOf(value) : undefined;
  if (read === undefined)
    throw new InputError(
      where,
      `expected an address such as "192.0.2.1", "192.0.2.1:5353" or "system", but got ${JSON.stringify(value)}`,
    );
  return read;
}

function missing(told: Given, key: string, what: string): InputError {
  return new InputError(`${told.where}.${key}`, `is missing: expected ${what}`);
}

function entryAt(value: unknown, where: string, usual: readonly Nameserver[]): Entry {
  const told = given(value, where, ENTRY_KEYS, ENTRY);
  const service = told.text("service", "a service's name");
  const spelled = told.text("name", 'a name such as "_http._tcp.example.com"');
  if (service === undefined) throw missing(told, "service", 'what the service is called here, such as "web"');
  if (spelled === undefined) throw missing(told, "name", 'a name such as "_http._tcp.example.com"');
  let name: Name;
  try {
    name = nameFromText(spelled);
  } catch (error) {
    throw new InputError(`${where}.name`, messageOf(error), error);
  }
  if (name.length === 0) throw told.wrong("name", "a name below the root");
  const port = told.number("port", 1, 65_535);
  if (port !== undefined && name[0]?.startsWith("_") === true)
    throw new InputError(
      `${where}.port`,
      `"${spelled}" has SRV records, which say the port: leave "port" out, or name a host`,
    );
  const resolvers = told.list("resolvers", nameserverAt);
  return {
    ...{ service, name, text: textOfName(name).replace(/\.$/, "").toLowerCase() },
    ...(port === undefined ? {} : { port }),
    resolvers: resolvers.length > 0 ? resolvers : usual,
    tags: told.texts("tags", "a tag"),
    labels: told.words("labels", LABELS),
  };
}

/** Undefined = off. @throws InputError that names the key */
export function configureDnsUpstream(raw: unknown): DnsUpstreamConfig | undefined {
  if (raw === undefined || raw === null || raw === false) return undefined;
  const told = given(raw, AT, KEYS, `{"services": [${ENTRY}]}`);
  const named = told.list("resolvers", nameserverAt);
  const usual = named.length > 0 ? named : (["system"] as const);
  const entries = told.list("services", (one, where) => entryAt(one, where, usual));
  if (entries.length === 0) throw missing(told, "services", `a list such as [${ENTRY}]`);
  const floorMs = told.duration("floor", 100) ?? 5_000;
  const capMs = told.duration("cap", 100) ?? Math.max(floorMs, 300_000);
  if (capMs < floorMs) throw told.wrong("cap", "no less than the floor");
  return {
    ...{ entries, floorMs, capMs },
    holdMs: told.duration("hold", 0) ?? 60_000,
    timeoutMs: told.duration("timeout", 10) ?? 2_000,
    checkMs: told.duration("check_interval", 1_000) ?? 10_000,
  };
}

/** What the system's resolvers may ask this very agent for would keep itself alive. @throws InputError */
export function refuseOwnDomain({ entries }: DnsUpstreamConfig, domain: string): void {
  const own = nameFromText(domain);
  for (const [i, { name, text, resolvers }] of entries.entries())
    if (resolvers.includes("system") && endsWith(name, own))
      throw new InputError(
        `${AT}.services[${i}].resolvers`,
        `"${text}" lies in this agent's own domain "${domain}", and the system's resolvers may ask this agent for it: name the resolvers that know it`,
      );
}
