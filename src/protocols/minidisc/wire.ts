// What Minidisc's processes tell each other: lists of services and addresses of delegates, decoded entry by entry and encoded as Go does.
import { isObject } from "../../base/is-object.ts";
import { hostPort, ipFamily } from "../../base/net.ts";
import type { Labels } from "../../model/node.ts";

/** The port at which the leader of a host answers. */
export const PORT = 28_004;
/** Told in the head of a Trilith's replies, unseen by the original implementations: this process's own mark. */
export const MARK = "X-Trilith-Minidisc";
/** A Trilith's own page: its list as one JSON line after every change, empty lines between as signs of life. */
export const STREAM = "/trilith/v1/services";

/** An IP address and a port. */
export interface AddrPort {
  readonly host: string;
  readonly port: number;
}

/** One advertised service as it goes over the wire. */
export interface WireService {
  readonly name: string;
  readonly labels: Labels;
  readonly at: AddrPort;
}

/** What a Trilith tells besides, to its own kind only. */
export interface StreamedService extends WireService {
  readonly tags: readonly string[];
  /** Further addresses, such as IPv6. */
  readonly also: readonly AddrPort[];
  readonly health: "passing" | "warning";
  /** The ID of the node whose agent advertises it; absent for what a program advertises itself. */
  readonly owner?: string;
}

/** One line of the stream. */
export interface Streamed {
  /** The process's mark. */
  readonly mark: string;
  readonly leads: boolean;
  readonly services: readonly StreamedService[];
  /** The delegates of a leader: who follows it knows them when it has to take over. */
  readonly delegates: readonly AddrPort[];
}

/** What was dropped from a list, and why. */
export interface Dropped {
  readonly about: string;
  readonly text: string;
}

const LONGEST_NAME = 1024;
const MOST_LABELS = 1024;

/** Reads `1.2.3.4:80` or `[2001:db8::1]:80` as Go's netip.ParseAddrPort does: no host names, no zones here. Undefined for anything else. */
export function parseAddrPort(text: string): AddrPort | undefined {
  const at = text.lastIndexOf(":");
  const portText = text.slice(at + 1);
  if (at < 0 || !/^\d+$/.test(portText) || Number(portText) > 65_535) return undefined;
  const left = text.slice(0, at);
  const bracketed = left.startsWith("[") && left.endsWith("]");
  const host = bracketed ? left.slice(1, -1) : left;
  if (ipFamily(host) !== (bracketed ? 6 : 4) || host.includes("%")) return undefined;
  return { host, port: Number(portText) };
}

export const addrPortText = ({ host, port }: AddrPort): string => hostPort(host, port);

const short = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
};

/** One entry, or why it is none. */
function readService(raw: unknown): WireService | string {
  if (!isObject(raw)) return "expected an object with name, labels and addrPort";
  const { name, addrPort } = raw;
  const labels = raw["labels"] ?? {};
  if (typeof name !== "string" || name === "" || name.length > LONGEST_NAME || name.includes("\0"))
    return `name: expected a text, but got ${short(name)}`;
  const at = typeof addrPort === "string" ? parseAddrPort(addrPort) : undefined;
  if (at === undefined || at.port === 0) return `addrPort: expected "ip:port", but got ${short(addrPort)}`;
  if (!isObject(labels) || Object.keys(labels).length > MOST_LABELS)
    return `labels: expected an object of texts, but got ${short(labels)}`;
  const read: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [key, value] of Object.entries(labels)) {
    if (typeof value !== "string") return `labels.${key}: expected a text, but got ${short(value)}`;
    read[key] = value;
  }
  return { name, labels: read, at };
}

/** Reads what `GET /services` answered; only bad entries are dropped. Undefined where it is no JSON list at all. */
export function decodeServices(
  text: string,
): { readonly services: readonly WireService[]; readonly dropped: readonly Dropped[] } | undefined {
  const raw = parseJson(text);
  if (!Array.isArray(raw)) return undefined;
  const services: WireService[] = [];
  const dropped: Dropped[] = [];
  for (const entry of raw) {
    const read = readService(entry);
    if (typeof read === "string") dropped.push({ about: short(entry), text: read });
    else services.push(read);
  }
  return { services, dropped };
}

/** Reads one line of a Trilith's stream; only bad entries are dropped. Undefined where it is no such line. */
export function decodeLine(line: string): (Streamed & { readonly dropped: readonly Dropped[] }) | undefined {
  const raw = parseJson(line);
  if (!isObject(raw) || typeof raw["mark"] !== "string" || !Array.isArray(raw["services"])) return undefined;
  const services: StreamedService[] = [];
  const dropped: Dropped[] = [];
  for (const entry of raw["services"] as readonly unknown[]) {
    const read = readService(entry);
    if (typeof read === "string") {
      dropped.push({ about: short(entry), text: read });
      continue;
    }
    const { tags, also, health, owner } = entry as Record<string, unknown>;
    services.push({
      ...read,
      tags: texts(tags),
      also: texts(also).flatMap((text) => parseAddrPort(text) ?? []),
      health: health === "warning" ? "warning" : "passing",
      ...(typeof owner === "string" ? { owner } : {}),
    });
  }
  const delegates = texts(raw["delegates"]).flatMap((text) => parseAddrPort(text) ?? []);
  return { mark: raw["mark"], leads: raw["leads"] === true, services, delegates, dropped };
}

/** One line of the stream that delegates and followers read. */
export function encodeLine({ mark, leads, services, delegates }: Streamed): string {
  const entries = services.map(({ name, labels, at, tags, also, health, owner }) => ({
    name,
    labels,
    addrPort: addrPortText(at),
    tags,
    also: also.map(addrPortText),
    health,
    owner,
  }));
  return `${JSON.stringify({ mark, leads, services: entries, delegates: delegates.map(addrPortText) })}\n`;
}

const texts = (raw: unknown): readonly string[] =>
  Array.isArray(raw) ? raw.filter((each): each is string => typeof each === "string") : [];

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // What it is no JSON for is the caller's to say.
    return undefined;
  }
}

/** A text in JSON as Go's encoder writes it: also `<`, `>`, `&` and the line separators escaped. */
const goText = (text: string): string =>
  JSON.stringify(text).replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

const byText = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));

/** The body of `/services` as the Go server writes it: labels always an object, ordered by key. */
export function encodeServices(services: readonly WireService[]): string {
  const entries = services.map(({ name, labels, at }) => {
    const pairs = Object.keys(labels)
      .sort(byText)
      .map((key) => `${goText(key)}:${goText(labels[key] ?? "")}`);
    return `{"name":${goText(name)},"labels":{${pairs.join(",")}},"addrPort":${goText(addrPortText(at))}}`;
  });
  return `[${entries.join(",")}]`;
}

/**
 * The body of `/add-delegate`: keys in any case, others ignored, as Go reads it. "bad" where Go says 400; undefined where no address is told (Go's
 * zero address, which is nobody's own).
 */
export function decodeDelegate(body: string): AddrPort | "bad" | undefined {
  const raw = parseJson(body);
  if (raw === null) return undefined;
  if (!isObject(raw)) return "bad";
  let told: unknown;
  for (const [key, value] of Object.entries(raw)) if (key.toLowerCase() === "addrport") told = value;
  if (told === undefined || told === null || told === "") return undefined;
  if (typeof told !== "string") return "bad";
  // With a zone it is an address all the same, and nobody's own.
  return parseAddrPort(told.replace(/^(\[[^%\]]+)%[^\]]+\]/, "$1]")) ?? "bad";
}

/** True where both are the same address and port, however IPv6 is written. */
export function sameAt(a: AddrPort, b: AddrPort): boolean {
  return a.port === b.port && plainIp(a.host) === plainIp(b.host);
}

/** An IP address in its one usual spelling. */
export function plainIp(host: string): string {
  return ipFamily(host) === 6 ? new URL(`http://[${host}]`).hostname.slice(1, -1) : host;
}
