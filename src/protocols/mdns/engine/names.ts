// The numbers of RFC 6762 and 6763, and names as keys, as text and after a conflict.
import { InputError } from "../../../base/error.ts";
import { labelFromText, lowerLabel, type Name, nameFromText, textFromLabel } from "../../../wire/dns/index.ts";

export const PORT = 5353;
export const GROUPS: Readonly<Record<4 | 6, string>> = { 4: "224.0.0.251", 6: "ff02::fb" };
export const HOPS = 255;
/** Ethernet's 1500 bytes less the headers of IPv6 and UDP, and a little for tunnels [RFC 6762 §17]. */
export const PACKET_BYTES = 1440;
/** One record that is larger goes alone, up to this [RFC 6762 §17]. */
export const LARGEST_PACKET_BYTES = 8952;
/** Records that hold a host's name or stand for its address [RFC 6762 §10]. */
export const HOST_TTL_S = 120;
export const OTHER_TTL_S = 4500;
export const LOCAL: Name = ["local"];

/** A name as a map's key: the same for names that differ in the case of ASCII letters only. */
export function nameKey(name: Name): string {
  let key = "";
  for (const label of name) key += String.fromCharCode(label.length) + lowerLabel(label);
  return key;
}

/** A name's labels as text with dots between, without one at the end: for host names and domains. */
export function plainText(name: Name): string {
  return name.map(textFromLabel).join(".");
}

/** The labels of a domain given as text. @throws InputError with `where` in front */
export function domainOf(text: string | undefined, where: string): Name {
  if (text === undefined) return LOCAL;
  try {
    return nameFromText(text);
  } catch (error) {
    throw new InputError(where, `"${text}" is no domain name`, error);
  }
}

/** `_http._tcp` as labels. @throws InputError */
export function typeLabels(type: string): Name {
  const labels = type.replace(/\.$/, "").split(".");
  const [service = "", transport = ""] = labels;
  if (labels.length !== 2 || !/^_(tcp|udp)$/i.test(transport) || !isServiceLabel(service))
    throw new InputError("", `"${type}" is no type of service: expected a form such as "_http._tcp" or "_sip._udp"`);
  return labels;
}

/** An underscore and a name; longer names than RFC 6763 §7 allows are out there, so only DNS's own limit holds. */
function isServiceLabel(label: string): boolean {
  return /^_[\x21-\x7e]{1,62}$/.test(label);
}

/** The name under which instances of a type or subtype are listed. @throws InputError */
export function listName(type: string, subtype: string | undefined, domain: Name): Name {
  const labels = typeLabels(type);
  return subtype === undefined ? [...labels, ...domain] : [subtypeLabel(subtype), "_sub", ...labels, ...domain];
}

function subtypeLabel(subtype: string): string {
  const label = labelFromText(subtype);
  if (label.length < 2 || label.length > 63)
    throw new InputError("", `"${subtype}" is no subtype: expected one label of 2 to 63 bytes such as "_printer"`);
  return label;
}

/** Control characters that no instance's name may hold [RFC 6763 §4.1.1]; tabs and line ends stand in service files that are in use, and Avahi publishes them. */
const CONTROL = /[\0-\x08\x0b\x0c\x0e-\x1f]/;

/** An instance's name as a label. @throws InputError for none, one that is too long, or one with control characters */
export function instanceLabel(name: string): string {
  const label = labelFromText(name);
  if (label.length === 0 || label.length > 63)
    throw new InputError("", `the name "${name}" has ${label.length} bytes in UTF-8; an instance's name has 1 to 63`);
  if (CONTROL.test(label))
    throw new InputError(
      "",
      `the name ${JSON.stringify(name)} holds a control character, which no instance's name may`,
    );
  return label;
}

/** The next name to try: "web" → "web #2" → "web #3", cut at a border of UTF-8 to stay within 63 bytes. */
export function nextInstanceName(name: string): string {
  const numbered = /^(.*) #([1-9]\d{0,8})$/s.exec(name);
  return numbered === null ? fitted(name, " #2") : fitted(numbered[1] as string, ` #${Number(numbered[2]) + 1}`);
}

/** The next host name to try: "host" → "host-2" → "host-3". */
export function nextHostName(name: string): string {
  const numbered = /^(.*)-([1-9]\d{0,8})$/s.exec(name);
  // "rack-1" is a name of its own: only numbers that we may have given are counted on.
  return numbered === null || Number(numbered[2]) < 2
    ? fitted(name, "-2")
    : fitted(numbered[1] as string, `-${Number(numbered[2]) + 1}`);
}

/** A name with something at its end, cut at a border of UTF-8 so that both fit into a label. */
export function fitted(name: string, suffix: string): string {
  let cut = name;
  while (labelFromText(cut).length + suffix.length > 63) cut = [...cut].slice(0, -1).join("");
  return cut + suffix;
}
