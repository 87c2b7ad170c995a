// Which of this host's services are announced on the LAN, under which name and type, and why others are not. Pure.
import { InputError } from "../../base/error.ts";
import { ipFamily } from "../../base/net.ts";
import type { Instance } from "../../model/instance.ts";
import type { Labels } from "../../model/node.ts";
import { txtOf } from "../../model/txt.ts";
import type { Group, Service } from "./engine.ts";
import { MARK } from "./source-registration.ts";

/** Which services are announced without being told one by one. */
export type PublishMode = "labelled" | "all" | "none";

export interface PlanRules {
  readonly mode: PublishMode;
  /** "_http._tcp" by the service's name: these are announced, as that. */
  readonly types: Labels;
}

/** What is known about this host. */
export interface PlanHost {
  /** Its label on the LAN, without ".local". */
  readonly label: string;
  readonly nodeId: string;
  /** The node's own address: what an instance without one is reached at. */
  readonly nodeAddress: string;
  /** The interface that has the address; undefined where it is none of this host's, or loopback. */
  interfaceOf(address: string): string | undefined;
}

/** A service of this host with what is to become of it. */
export type Planned =
  | { readonly id: string; readonly service: string; readonly group: Group }
  /** Not announced. `meant`: somebody asked for it, so that it is worth a complaint. */
  | { readonly id: string; readonly service: string; readonly why: string; readonly meant: boolean };

/** Names of services as DNS-SD has them [RFC 6335 §5.1]. */
const SHORT = /^(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*$/i;
const MOST_NAME_BYTES = 63;
/** A TXT record beyond that does not fit into one packet with all that belongs to it [RFC 6763 §6.2]. */
const MOST_TXT_BYTES = 1200;
const CONTROL = /^mdns([._-](type|name|instance))?$/i;

/** "http", "_http" or "_http._tcp" → "_http._tcp". @throws InputError at `where` */
export function typeFrom(text: string, where: string, protocol: "tcp" | "udp" = "tcp"): string {
  const [, name = "", told] = /^_?([^.]*?)(?:\._(tcp|udp))?\.?$/i.exec(text.trim()) ?? [];
  if (!SHORT.test(name))
    throw new InputError(
      where,
      `"${text}" is no type of service: expected one such as "_http._tcp", its name of at most 15 letters, digits and hyphens`,
    );
  return `_${name}._${(told ?? protocol).toLowerCase()}`;
}

/** A label by any spelling of its name: "mdns-type", "mdns.type", "mdns_type" (as SERVICE_MDNS_TYPE comes). */
function told(labels: Labels, name: string): string | undefined {
  for (const [key, value] of Object.entries(labels)) if (key.toLowerCase().replace(/[._]/g, "-") === name) return value;
  return undefined;
}

/** Cut to what one label of a name holds, between characters. */
function cut(text: string): string {
  let short = text;
  while (Buffer.byteLength(short, "utf8") > MOST_NAME_BYTES) short = [...short].slice(0, -1).join("");
  return short;
}

/** What is to be announced of these services, which are routable, this host's own and known at first hand. */
export function planAnnouncements(
  instances: readonly Instance[],
  { mode, types }: PlanRules,
  host: PlanHost,
): readonly Planned[] {
  const taken = new Set<string>();
  return instances.map((instance): Planned => {
    const { id, name: service, labels, tags } = instance;
    const not = (why: string, meant = false): Planned => ({ id, service, why, meant });
    const wish = told(labels, "mdns")?.trim().toLowerCase();
    const [typeWish, nameWish] = [told(labels, "mdns-type"), told(labels, "mdns-name")];
    const ruled = Object.hasOwn(types, service) ? types[service] : undefined;
    if (mode === "none") return not('nothing is announced ("publish" is "none")');
    if (wish !== undefined && /^(false|no|off|0)$/.test(wish)) return not(`its label mdns is "${wish}"`);
    const asked =
      wish !== undefined || tags.includes("mdns") || (typeWish ?? nameWish) !== undefined || ruled !== undefined;
    if (!asked && mode !== "all") return not("neither its label mdns=true nor a rule asks for it");
    let type: string;
    try {
      const protocol = tags.includes("udp") ? "udp" : "tcp";
      type = ruled !== undefined && typeWish === undefined ? ruled : typeFrom(typeWish ?? service, "", protocol);
    } catch (error) {
      const how = typeWish === undefined ? 'say one with the label mdns-type, such as "_http._tcp"' : "";
      return not([(error as Error).message, how].filter((text) => text !== "").join("; "), asked);
    }
    if (instance.port === 0) return not("it has no port", asked);
    const at = reachOf(instance, host);
    if ("why" in at) return not(at.why, asked);
    const wanted = cut((nameWish ?? `${service} on %h`).replaceAll("%h", host.label)) || service;
    const names = [wanted, cut(`${wanted} (${at.port})`), cut(`${wanted} (${id})`)];
    const name = names.find((each) => !taken.has(keyOfName(each, type))) ?? wanted;
    taken.add(keyOfName(name, type));
    return { id, service, group: { name, services: [{ type, ...at, txt: txtBytes(instance, host.nodeId) }] } };
  });
}

/** Names and types compare ignoring ASCII case. */
export function keyOfName(name: string, type: string): string {
  return `${name}\u0000${type}`.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

type Reach = Pick<Service, "port" | "host" | "interface"> | { readonly why: string };

/** Where the LAN reaches it: at a port of this host, on one interface or all, or at a host of another name. */
function reachOf(instance: Instance, host: PlanHost): Reach {
  const stated = (instance.addresses ?? []).filter(
    ({ reach }) => reach === "lan" || reach === "tailnet" || reach === "public",
  );
  const usual = { host: instance.address, port: instance.port };
  let why = "";
  for (const at of [usual, ...stated]) {
    if (at.host === "" || at.host === host.nodeAddress) return { port: at.port };
    if (ipFamily(at.host) === 0) {
      if (/^localhost$/i.test(at.host)) why ||= "it is reached on this host only (localhost)";
      else if (at.host.includes(".")) return { port: at.port, host: at.host };
      else why ||= `"${at.host}" is no whole host name`;
      continue;
    }
    if (/^(0\.0\.0\.0|::)$/.test(at.host)) return { port: at.port };
    const on = host.interfaceOf(at.host);
    if (on !== undefined) return { port: at.port, interface: on };
    why ||= /^(127\.|::1$)/.test(at.host)
      ? `it is reached on this host only (${at.host})`
      : `its address ${at.host} is none of this host's on the LAN`;
  }
  return { why };
}

/** Labels and tags, and who says so. */
function txtBytes({ labels, tags }: Instance, nodeId: string): readonly Uint8Array[] {
  const mark = `${MARK}=${nodeId}`;
  const told = Object.entries(labels).filter(([key]) => !CONTROL.test(key) && key.toLowerCase() !== MARK);
  const all = txtOf(
    Object.fromEntries(told),
    tags.filter((tag) => tag !== "mdns"),
  );
  let bytes = Buffer.byteLength(mark) + 1;
  const fits = all.filter((text) => {
    const more = bytes + Buffer.byteLength(text) + 1;
    if (more > MOST_TXT_BYTES) return false;
    bytes = more;
    return true;
  });
  return [...fits, mark].map((text) => Buffer.from(text, "utf8"));
}
