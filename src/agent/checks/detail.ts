// Reading a check's raw detail: which keys there may be, of which type, and errors that say what would be right.
import { InputError } from "../../base/error.ts";
import type { TlsClient } from "../../base/tls.ts";

/** A raw detail under the reader's hands; every `where` names the check's kind and key. */
export interface Fields {
  text(key: string, fallback: string): string;
  flag(key: string): boolean;
  texts(key: string): string[];
  /** Header names with one or several values each. */
  headers(key: string): Record<string, string[]>;
  fail(key: string, right: string): never;
}

/**
 * Opens a raw detail of a check of `kind`. Absent, null and undefined values count as not given.
 * @throws InputError for anything but an object, and for keys not in `known`
 */
export function fieldsOf(kind: string, raw: unknown, known: readonly string[]): Fields {
  const given = raw ?? {};
  if (typeof given !== "object" || Array.isArray(given))
    throw new InputError(
      `${kind} check`,
      `${JSON.stringify(raw)}: expected an object with ${known.map((key) => `"${key}"`).join(", ")}`,
    );
  const values = new Map<string, unknown>(
    Object.entries(given).filter(([, value]) => value !== undefined && value !== null),
  );
  const fail = (key: string, right: string): never => {
    const value = values.get(key);
    throw new InputError(
      `${kind} check: ${key}`,
      value === undefined ? `is missing: expected ${right}` : `${JSON.stringify(value)}: expected ${right}`,
    );
  };
  for (const key of values.keys())
    if (!known.includes(key))
      throw new InputError(`${kind} check`, `unknown key "${key}": known are ${known.map((k) => `"${k}"`).join(", ")}`);
  const isTexts = (value: unknown): value is string[] =>
    Array.isArray(value) && value.every((item) => typeof item === "string");
  return {
    text(key, fallback) {
      const value = values.get(key);
      if (value === undefined) return fallback;
      return typeof value === "string" ? value : fail(key, "a text");
    },
    flag(key) {
      const value = values.get(key) ?? false;
      return typeof value === "boolean" ? value : fail(key, "true or false");
    },
    texts(key) {
      const value = values.get(key) ?? [];
      return isTexts(value) ? [...value] : fail(key, "a list of texts");
    },
    headers(key) {
      const value = values.get(key) ?? {};
      if (typeof value !== "object" || Array.isArray(value)) return fail(key, "an object of header names and texts");
      const headers: Record<string, string[]> = Object.create(null);
      for (const [name, of] of Object.entries(value as object)) {
        const list: unknown = typeof of === "string" ? [of] : of;
        if (!isTexts(list) || !/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) || list.some((text) => /[\r\n\0]/.test(text)))
          return fail(key, "an object of header names, each with a text or a list of texts without line ends");
        headers[name] = list;
      }
      return headers;
    },
    fail,
  };
}

/** Splits `host:port` (IPv6 in brackets); undefined where it is neither. */
export function splitHostPort(text: string): { readonly host: string; readonly port: number } | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  if (match === null) return undefined;
  const port = Number(match[3]);
  return port > 65_535 ? undefined : { host: (match[1] ?? match[2]) as string, port };
}

/** What a check that takes an address is told; "" = the service's own. Consul takes any text here and lets the check fail. */
export interface AddressDetail {
  readonly address: string;
  readonly useTls: boolean;
  /** "" = the address's host. */
  readonly tlsServerName: string;
  readonly tlsSkipVerify: boolean;
}

/** Reads the detail of a check that connects to an address, with TLS or without. */
export function addressDetail(kind: string, raw: unknown): AddressDetail {
  const fields = fieldsOf(kind, raw, ["address", "useTls", "tlsServerName", "tlsSkipVerify"]);
  return {
    address: fields.text("address", ""),
    useTls: fields.flag("useTls"),
    tlsServerName: fields.text("tlsServerName", ""),
    tlsSkipVerify: fields.flag("tlsSkipVerify"),
  };
}

/** What is wrong with an address that `splitHostPort` does not take, in Go's words. */
export function addressFault(network: "tcp" | "udp", address: string): string {
  const why = /:\d*$/.test(address) ? "invalid port" : "missing port in address";
  return `dial ${network}: address ${address}: ${why}`;
}

/** The agent's own part in TLS connections of checks (Consul: enable_agent_tls_for_checks): PEM texts. */
export interface CheckTls {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** For checks that name none. */
  readonly serverName?: string;
}

/** How a check connects with TLS, given what it says itself and what the agent brings. */
export function tlsOf(
  detail: { readonly tlsServerName: string; readonly tlsSkipVerify: boolean },
  agent: CheckTls,
): Omit<TlsClient, "alpn"> {
  const { serverName = "", ...own } = agent;
  const name = detail.tlsServerName === "" ? serverName : detail.tlsServerName;
  return {
    ...own,
    ...(detail.tlsSkipVerify ? { skipVerify: true } : {}),
    ...(name === "" ? {} : { serverName: name }),
  };
}
