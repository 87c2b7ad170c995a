// Which service an HTTP origin names: http://web.service.consul, https://primary.db.service.consul, trilith://web?env=prod.
import { InputError } from "../../base/error.ts";
import { queryFromText } from "../../model/service-name.ts";
import type { Sought } from "../grpc/names.ts";

/** A service, and the origin that its instances are spoken to as. */
export interface ServiceOrigin {
  readonly sought: Sought;
  /** "http://web.service.consul": what goes into the Host header and, with TLS, is compared with the certificate. */
  readonly origin: string;
}

/** Undefined for an origin that is no service's: its datacenters, too, which no agent follows for others. @throws InputError for a `trilith:` origin that names none */
export function readOrigin(origin: string | URL, domain: string): ServiceOrigin | undefined {
  const text = String(origin);
  const [, scheme, rest = ""] = /^([a-z][a-z0-9+.-]*):\/\/([^/#]*)/i.exec(text) ?? [];
  const spoken = { trilith: "http", "trilith+http": "http", "trilith+https": "https" }[scheme?.toLowerCase() ?? ""];
  if (spoken !== undefined) {
    const { service, tags = [], labels = {} } = queryFromText(decode(rest), domain, text);
    return { sought: { service, labels, tags }, origin: `${spoken}://${hostOf(service)}` };
  }
  if (scheme !== "http" && scheme !== "https") return undefined;
  const host = rest.replace(/:\d+$/, "").replace(/\.$/, "").toLowerCase();
  if (!host.endsWith(`.${domain}`)) return undefined;
  try {
    const { service, tags = [], labels = {}, datacenter } = queryFromText(host, domain);
    return datacenter === undefined ? { sought: { service, labels, tags }, origin: `${scheme}://${rest}` } : undefined;
  } catch (error) {
    if (error instanceof InputError) return undefined;
    throw error;
  }
}

/** Names before the question mark may be percent-encoded; the labels are read by others. */
function decode(text: string): string {
  const at = text.indexOf("?");
  try {
    return decodeURIComponent(at < 0 ? text : text.slice(0, at)) + (at < 0 ? "" : text.slice(at));
  } catch {
    return text;
  }
}

/** A service's name as a host, where it can be one. */
function hostOf(service: string): string {
  return URL.canParse(`http://${service}`) ? service : "localhost";
}
