// Keys and values of both layouts as entries: what each says about one instance, or what is wrong with it. Pure.
import { ipFamily } from "../../base/net.ts";
import type { Layout } from "./config.ts";

/** One instance as a key of etcd says it. */
export interface Entry {
  readonly key: string;
  readonly service: string;
  /** Unique on its node. */
  readonly id: string;
  /** IP address or host name. */
  readonly host: string;
  readonly port: number;
  /** What the thing's host is called. */
  readonly node: string;
  readonly priority: number;
  /** Undefined: none is told. */
  readonly weight: number | undefined;
  readonly labels: Readonly<Record<string, string>>;
}

/** What is wrong with a key, for people. */
export interface Fault {
  readonly key: string;
  readonly fault: string;
}

/** Registrator's IDs: host, container, port. */
const REGISTRATOR_ID = /^(.+?):[a-zA-Z0-9][a-zA-Z0-9_.-]+:[0-9]+(?::udp)?$/;
/** Subtrees of a domain that say something about SkyDNS itself. */
const APEX = new Set(["apex", "ns", "stub"]);
const USUAL_PRIORITY = 10;

/** "10.0.0.1:80", "[::1]:80", "host:80", and IPv6 without brackets as some write it. */
function placeOf(value: string): { readonly host: string; readonly port: number } | undefined {
  const [, bracketed, plain, port = ""] = /^(?:\[([^\]]+)\]|([^[\]\s]+)):(\d{1,5})$/.exec(value.trim()) ?? [];
  const host = bracketed ?? plain ?? "";
  if (port === "" || Number(port) > 65_535) return undefined;
  const right = ipFamily(host) !== 0 || (bracketed === undefined && /^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(host));
  return right ? { host, port: Number(port) } : undefined;
}

/** `<service>/<id>` = "host:port". Undefined: nothing of this layout lies there. */
function registratorEntry(rest: string, key: string, value: string): Entry | Fault | undefined {
  const slash = rest.indexOf("/");
  const [service, id] = [rest.slice(0, slash), rest.slice(slash + 1)];
  // Other trees may lie below the same prefix.
  if (slash <= 0 || id === "" || id.includes("/")) return undefined;
  const place = placeOf(value);
  if (place === undefined)
    return { key, fault: `expected "host:port", but its value is ${JSON.stringify(value.slice(0, 100))}` };
  const node = REGISTRATOR_ID.exec(id)?.[1] ?? place.host;
  return { key, service, id, ...place, node, priority: 0, weight: undefined, labels: {} };
}

const whole = (value: unknown, most: number): number | undefined =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= most ? value : undefined;

/** Labels in reverse = {"host", "port", "priority", "weight", "text", "group", "targetstrip" …}. */
function skydnsEntry(rest: string, key: string, value: string, domain: string): Entry | Fault | undefined {
  const parts = rest.split("/").filter((part) => part !== "");
  if (parts.length === 0 || parts.some((part, i) => part === "dns" && APEX.has(parts[i + 1] ?? ""))) return undefined;
  let said: unknown;
  try {
    said = JSON.parse(value);
  } catch {
    return {
      key,
      fault: `expected JSON such as {"host": "10.0.0.1", "port": 80}, but its value is ${JSON.stringify(value.slice(0, 100))}`,
    };
  }
  if (typeof said !== "object" || said === null || Array.isArray(said)) return { key, fault: "expected a JSON object" };
  const {
    host,
    port = 0,
    priority = 0,
    weight = 0,
    text,
    mail,
    group,
    targetstrip = 0,
  } = said as Record<string, unknown>;
  // A mail exchanger, or text alone: no service.
  if (host === undefined || host === "" || (mail === true && port === 0)) return undefined;
  if (typeof host !== "string" || (ipFamily(host) === 0 && !/^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(host)))
    return { key, fault: `"host": expected an IP address or a name, but got ${JSON.stringify(host)}` };
  const numbers = { port: whole(port, 65_535), priority: whole(priority, 65_535), weight: whole(weight, 65_535) };
  for (const [name, read] of Object.entries(numbers))
    if (read === undefined) return { key, fault: `"${name}": expected a whole number from 0 to 65535` };
  const strip = whole(targetstrip, 127) ?? 0;
  const labels = parts.toReversed();
  const leaf = parts.at(-1) ?? "";
  const name = [...labels, domain].join(".");
  const isIp = ipFamily(host) !== 0;
  // A host by name is the target of its SRV record; one by address gets a target made of its own name.
  const target = isIp ? [...labels.slice(strip), domain].join(".") : host.replace(/\.$/, "");
  return {
    ...{
      key,
      service: parts.length === 1 ? leaf : (parts.at(-2) as string),
      id: labels.join("."),
      host: host.replace(/\.$/, ""),
    },
    port: numbers.port as number,
    node: REGISTRATOR_ID.exec(leaf)?.[1] ?? target,
    priority: numbers.priority === 0 ? USUAL_PRIORITY : (numbers.priority as number),
    weight: numbers.weight === 0 ? undefined : numbers.weight,
    labels: {
      "skydns-name": name,
      ...(typeof text === "string" && text !== "" ? { text } : {}),
      ...(typeof group === "string" && group !== "" ? { group } : {}),
    },
  };
}

/** What a key says; undefined where nothing of the layout lies there. */
export function readEntry(layout: Layout, key: string, value: string): Entry | Fault | undefined {
  const rest = key.slice(layout.prefix.length);
  return layout.kind === "registrator"
    ? registratorEntry(rest, key, value)
    : skydnsEntry(rest, key, value, layout.domain);
}

/**
 * SkyDNS' groups: of the entries of one service those with the shortest keys decide; where these agree on a group, only entries of it (or of none) are
 * told [CoreDNS msg.Group].
 */
export function groupOf(entries: readonly Entry[]): readonly Entry[] {
  const depth = ({ key }: Entry): number => key.split("/").length;
  const shallowest = Math.min(...entries.map(depth));
  const groups = new Set(
    entries.filter((each) => depth(each) === shallowest).map(({ labels }) => labels["group"] ?? ""),
  );
  groups.delete("");
  const [group] = groups;
  if (groups.size !== 1 || group === undefined) return entries;
  return entries.filter(({ labels }) => (labels["group"] ?? group) === group);
}
