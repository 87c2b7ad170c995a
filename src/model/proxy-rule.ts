// A port that stands for a service, as people write it: "6379=redis", "127.0.0.1:53/udp=dns", "[::1]:8080=web?env=prod".
import { InputError } from "../base/error.ts";
import { ipFamily } from "../base/net.ts";
import { type NamedQuery, queryFromText } from "./service-name.ts";

/** Where to listen. */
export interface ProxyPort {
  /** Absent: where the caller says. */
  readonly host?: string;
  readonly port: number;
  readonly protocol: "tcp" | "udp";
}

/** A port and the service behind it. */
export interface ProxyRule extends ProxyPort {
  readonly query: NamedQuery;
}

const RIGHT = 'expected [HOST:]PORT[/udp], such as "6379", "127.0.0.1:6379" or "53/udp"';

/** `[HOST:]PORT[/tcp|/udp]`; HOST is an IP address (IPv6 in brackets), "localhost", or "*" for all addresses. @throws InputError at `where` */
export function proxyPortFromText(text: string, where = ""): ProxyPort {
  const fault = (said: string): InputError => new InputError(where, `${JSON.stringify(text)}: ${said}; ${RIGHT}`);
  const [, rawHost, port = "", protocol = "tcp"] = /^(?:(.*):)?([^:/]*)(?:\/(.*))?$/.exec(text.trim()) ?? [];
  if (protocol !== "tcp" && protocol !== "udp") throw fault(`"/${protocol}" is neither /tcp nor /udp`);
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535) throw fault(`"${port}" is not a port from 0 to 65535`);
  const rule = { port: Number(port), protocol } as const;
  if (rawHost === undefined) return rule;
  const host = hostFromText(rawHost);
  if (host === undefined) throw fault(`"${rawHost}" is not an IP address of this host (IPv6 in brackets)`);
  return { host, ...rule };
}

/** An address to listen at; undefined where it is none. */
export function hostFromText(text: string): string | undefined {
  if (text === "*") return "::";
  if (text === "localhost") return "127.0.0.1";
  const bare = /^\[(.*)\]$/.exec(text)?.[1];
  if (bare !== undefined) return ipFamily(bare) === 6 ? bare : undefined;
  return ipFamily(text) === 4 ? text : undefined;
}

/** `[HOST:]PORT[/udp]=NAME`. @throws InputError at `where`, or naming the word itself */
export function proxyRuleFromText(text: string, domain: string, where = ""): ProxyRule {
  const at = text.indexOf("=");
  const mark = text.indexOf("?");
  if (at < 0 || (mark >= 0 && mark < at))
    throw new InputError(where, `${JSON.stringify(text)}: expected [HOST:]PORT[/udp]=NAME, such as "6379=redis"`);
  return {
    ...proxyPortFromText(text.slice(0, at), where),
    query: queryFromText(text.slice(at + 1), domain, where),
  };
}

/** @throws InputError where two rules want one port */
export function mustDiffer(rules: readonly ProxyRule[], defaultHost: string, where = ""): void {
  const seen = new Set<string>();
  for (const { host = defaultHost, port, protocol } of rules) {
    const text = `${ipFamily(host) === 6 ? `[${host}]` : host}:${port}/${protocol}`;
    if (port !== 0 && seen.has(text))
      throw new InputError(where, `${text} is given twice: a port stands for one service`);
    seen.add(text);
  }
}
