// What may stand in a service file's elements: types, subtypes, hosts, domains, ports and the strings of a TXT record.
import { ipFamily } from "../../base/net.ts";
import { nameFromText } from "../../wire/dns/index.ts";

/** "…" of "_name._tcp" holds these; Avahi takes nearly everything, DNS-SD only these [RFC 6763 §7, RFC 6335 §5.1], and "_" is in daily use. */
const TYPE = /^_[A-Za-z0-9_-]{2,62}\._(?:tcp|udp)\.?$/i;
const SUBTYPE = /^(_[^.]{2,62})\._sub\.(_[^.]+\._(?:tcp|udp))\.?$/i;
const MOST_LABEL_BYTES = 63;
const MOST_TXT_BYTES = 255;
/** A packet holds 9000 bytes with its headers [RFC 6762 §17]; what is longer could never be announced, and never is by Avahi. */
const MOST_RECORD_BYTES = 8900;

/** Undefined for what is no name of an instance: empty, longer than 63 bytes. */
export function instanceName(text: string): string | undefined {
  const bytes = Buffer.byteLength(text, "utf8");
  return bytes > 0 && bytes <= MOST_LABEL_BYTES ? text : undefined;
}

/** "_http._tcp" as it was written, without a dot at its end; undefined for what is none. */
export function serviceType(text: string): string | undefined {
  return TYPE.test(text) ? text.replace(/\.$/, "") : undefined;
}

/** "_printer" of "_printer._sub._http._tcp" where that is a subtype of `type`; undefined where it is none [RFC 6763 §7.1]. */
export function subtypeOf(text: string, type: string): string | undefined {
  const [, subtype, ofType] = SUBTYPE.exec(text) ?? [];
  return ofType !== undefined && ofType.toLowerCase() === type.toLowerCase() ? subtype : undefined;
}

/** A host that records can name: at least two labels, no address; without a dot at its end. Undefined for others. */
export function hostName(text: string): string | undefined {
  const domain = domainName(text);
  return domain === undefined || ipFamily(domain) !== 0 || nameFromText(domain).length < 2 ? undefined : domain;
}

/** A domain without a dot at its end; undefined for what is none. */
export function domainName(text: string): string | undefined {
  try {
    nameFromText(text);
  } catch {
    return undefined;
  }
  return text.replace(/\.$/, "");
}

/** The number that C's atoi reads: blanks, a sign and digits at the start count, else 0; too large ones wrap as they do there. */
export function atoi(text: string): number {
  const digits = /^[\t-\r ]*([+-]?[0-9]+)/.exec(text)?.[1];
  if (digits === undefined) return 0;
  const wide = BigInt(digits.replace("+", ""));
  const most = 2n ** 63n;
  return Number(BigInt.asIntN(32, wide >= most ? most - 1n : wide < -most ? -most : wide));
}

/** The value formats of a TXT string. */
export type ValueFormat = "text" | "binary-hex" | "binary-base64";

/** One string of a TXT record from what stands in its element, or a sentence that says why it is none. */
export function txtString(written: string, format: ValueFormat): Uint8Array | { readonly fault: string } {
  // Before the first "=" is the key; where nothing is before it, Avahi drops the sign and takes the rest as it is.
  const at = written.indexOf("=");
  let bytes: Uint8Array = Buffer.from(at === 0 ? written.slice(1) : written, "utf8");
  if (at > 0 && format !== "text") {
    const value = format === "binary-hex" ? fromHex(written.slice(at + 1)) : fromBase64(written.slice(at + 1));
    if (typeof value === "string") return { fault: value };
    bytes = Buffer.concat([Buffer.from(written.slice(0, at + 1), "utf8"), value]);
  }
  const fault = stringFault(bytes);
  return fault === undefined ? bytes : { fault };
}

/** Why bytes are no string of a TXT record that says something; undefined where they are one. */
export function stringFault({ length }: Uint8Array): string | undefined {
  if (length === 0) return "an empty TXT string";
  return length > MOST_TXT_BYTES ? `a TXT string of ${length} bytes; ${MOST_TXT_BYTES} are allowed` : undefined;
}

function fromHex(text: string): Uint8Array | string {
  if (Buffer.byteLength(text) % 2 !== 0) return "a hex value of odd length";
  return /^[0-9A-Fa-f]*$/.test(text) ? Buffer.from(text, "hex") : `"${text}" is no hex value (no 0x, no blanks)`;
}

function fromBase64(text: string): Uint8Array | string {
  if (Buffer.byteLength(text) % 4 !== 0) return "a base64 value whose length is no multiple of 4";
  return /^[A-Za-z0-9+/]*={0,2}$/.test(text) ? Buffer.from(text, "base64") : `"${text}" is no base64 value`;
}

/** Why the strings of a TXT record are too many together; undefined where they are not. */
export function tooMuchTxt(strings: readonly Uint8Array[]): string | undefined {
  const bytes = strings.reduce((sum, each) => sum + 1 + each.length, 0);
  return bytes > MOST_RECORD_BYTES ? `a TXT record of ${bytes} bytes; ${MOST_RECORD_BYTES} fit a packet` : undefined;
}
