// Endpoints, nodes and labels as resource records.
import type { Node } from "../../model/node.ts";
import type { Endpoint } from "../../model/query.ts";
import {
  CLASS,
  type DnsRecord,
  hexOf,
  ipBytes,
  ipText,
  labelFromText,
  lowerLabel,
  MAX_NAME_BYTES,
  type Name,
  nameBytes,
  nameFromText,
  type RecordData,
  TYPE,
} from "../../wire/dns/index.ts";

/** A record of class IN. */
export function record(name: Name, ttlS: number, data: RecordData): DnsRecord {
  return { name, class: CLASS.IN, ttlS, data };
}

/** The A or AAAA record of an address of four or sixteen bytes. */
export function addressRecord(name: Name, ttlS: number, bytes: Uint8Array): DnsRecord {
  return record(name, ttlS, { kind: bytes.length === 4 ? "A" : "AAAA", address: ipText(bytes) });
}

/** True where an address of so many bytes answers a question for this type. */
export function wantsAddress(type: number, bytes: Uint8Array): boolean {
  return type === TYPE.ANY || type === (bytes.length === 4 ? TYPE.A : TYPE.AAAA);
}

/** A host name from the directory as a name; undefined where no DNS name can say it. */
export function hostName(text: string): Name | undefined {
  try {
    const name = nameFromText(text);
    return name.length === 0 ? undefined : name;
  } catch {
    // What a registration calls an address may be anything; what is no name is in no answer.
    return undefined;
  }
}

/** `node.node.dc.domain`; undefined where the node's name does not fit into a DNS name. */
export function nodeName(node: string, datacenter: string, domain: Name): Name | undefined {
  return joined([...node.split("."), "node", ...datacenter.split(".")], domain);
}

/** `service.service.dc.domain`; undefined where the service's name does not fit into a DNS name. */
export function serviceName(service: string, datacenter: string, domain: Name): Name | undefined {
  return joined([service, "service", ...datacenter.split(".")], domain);
}

/** `c0000201.addr.dc.domain`: a name that spells its address. */
function addressName(bytes: Uint8Array, datacenter: string, domain: Name): Name {
  return [hexOf(bytes), "addr", ...datacenter.split(".").map(labelFromText), ...domain];
}

function joined(texts: readonly string[], domain: Name): Name | undefined {
  const name = [...texts.map(labelFromText), ...domain];
  return name.every((label) => label.length > 0 && label.length <= 63) && nameBytes(name) <= MAX_NAME_BYTES
    ? name
    : undefined;
}

/** Where an endpoint is, in DNS terms. */
export interface Spot {
  readonly endpoint: Endpoint;
  /** Four or sixteen bytes; undefined where the address is a host name. */
  readonly ip: Uint8Array | undefined;
  /** The host name that is the address. */
  readonly alias: Name | undefined;
  /** What an SRV record points to. */
  readonly target: Name;
}

/**
 * The spot of an endpoint; undefined where its address is neither an IP address nor a name. SRV targets: the node's name where the node's
 * address is the instance's, a name that spells the address where the instance has its own, the host name itself where that is the address.
 */
export function spotOf(endpoint: Endpoint, owner: Name, datacenter: string, domain: Name): Spot | undefined {
  const { instance, node } = endpoint.resident;
  const ip = ipBytes(endpoint.address);
  const byNode = instance.address === "" && endpoint.address === node.address;
  if (ip !== undefined) {
    const target =
      (byNode ? nodeName(node.name, datacenter, domain) : undefined) ?? addressName(ip, datacenter, domain);
    return { endpoint, ip, alias: undefined, target };
  }
  const alias = hostName(endpoint.address);
  if (alias === undefined) return undefined;
  // A service whose address is its own name would lead to itself: its node's address is meant [Consul].
  const nodeIp = ipBytes(node.address);
  if (nodeIp !== undefined && alias.length === owner.length && alias.every((label, i) => label === owner[i])) {
    const target = nodeName(node.name, datacenter, domain) ?? addressName(nodeIp, datacenter, domain);
    return { endpoint, ip: nodeIp, alias: undefined, target };
  }
  return { endpoint, ip: undefined, alias, target: alias };
}

/** What two SRV records must not share: target and port; to Consul node, service address and port are the same question. */
export function srvKey({ endpoint, target }: Spot, compat: boolean): string {
  const { instance, node } = endpoint.resident;
  return compat
    ? `${node.name} ${instance.address === "" ? "" : endpoint.address} ${endpoint.port}`
    : `${target.map(lowerLabel).join(".")} ${endpoint.port}`;
}

/**
 * A node's labels as TXT records: `key=value` [RFC 1464], or the bare value where the key begins with `rfc1035-`. Consul's library takes a backslash for the
 * beginning of an escape (`compat`).
 */
export function labelRecords(owner: Name, node: Node, ttlS: number, compat: boolean): DnsRecord[] {
  return Object.entries(node.labels).map(([key, value]) => {
    const text = key.toLowerCase().startsWith("rfc1035-") ? value : `${quotedKey(key)}=${value.replaceAll("`", "``")}`;
    return record(owner, ttlS, { kind: "TXT", strings: stringsOf(compat ? unescaped(text) : text) });
  });
}

/** A key with what would end or blur it quoted by a backquote [RFC 1464 §2]. */
function quotedKey(key: string): string {
  const quoted = key.replaceAll("`", "``").replaceAll("=", "`=");
  return quoted
    .replace(/^ +/, (blanks) => "` ".repeat(blanks.length))
    .replace(/ +$/, (blanks) => "` ".repeat(blanks.length));
}

/** The bytes of a text in which `\\DDD` is a byte and a backslash before anything else is dropped [RFC 1035 §5.1]. */
function unescaped(text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  if (!text.includes("\\")) return bytes;
  const out: number[] = [];
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] !== 0x5c) out.push(bytes[i] as number);
    else if (/^\d{3}$/.test(bytes.toString("latin1", i + 1, i + 4))) {
      out.push(Number(bytes.toString("latin1", i + 1, i + 4)) & 255);
      i += 3;
    } else if (++i < bytes.length) out.push(bytes[i] as number);
  }
  return Buffer.from(out);
}

/** A text cut into strings of at most 255 bytes. */
function stringsOf(text: string | Buffer): Uint8Array[] {
  const bytes = Uint8Array.from(Buffer.from(text as string, "utf8"));
  if (bytes.length <= 255) return [bytes];
  const strings: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += 255) strings.push(bytes.slice(at, at + 255));
  return strings;
}
