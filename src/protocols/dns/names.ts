// What a question's name asks for: service, node, address, the zone itself, a reverse lookup, or nothing of ours.
import { endsWith, lowerLabel, type Name, textFromLabel } from "../../wire/dns/index.ts";

/** The words that say what a name is about, between what is asked for and the datacenter. */
export type Kind = "service" | "node" | "addr" | "query" | "connect" | "virtual" | "ingress";

const KINDS: ReadonlySet<string> = new Set<Kind>(["service", "node", "addr", "query", "connect", "virtual", "ingress"]);

/** A name within one of our domains: `parts.kind.suffix.zone`. */
export interface InZone {
  readonly where: "zone";
  /** The domain as configured. */
  readonly zone: Name;
  /** The domain as the question spells it, for names that answers make up. */
  readonly spelled: Name;
  /** `apex`: the domain itself; `none`: no word says what the name is about. */
  readonly kind: Kind | "apex" | "none";
  /** What stands before the kind, in lower case, as text; for `none` all labels before the domain. */
  readonly parts: readonly string[];
  /** What stands between the kind and the domain, in lower case, as text. */
  readonly suffix: readonly string[];
  /** True for `_name._tag.D`, where the word "service" is left out; answered for SRV only. */
  readonly short: boolean;
}

export type Asked =
  | { readonly where: "outside" }
  /** Below `arpa`: all labels before it, in lower case. */
  | { readonly where: "reverse"; readonly labels: readonly string[] }
  | InZone;

/** Our domains. */
export interface Zones {
  readonly primary: Name;
  readonly alternative: Name | undefined;
}

const OUTSIDE: Asked = { where: "outside" };

/**
 * Reads a question's name. The word nearest to the domain decides, so that a service may be called "node". `short` false = labels that begin with "_" say
 * nothing by themselves.
 */
export function readName(name: Name, zones: Zones, short = true): Asked {
  const { primary, alternative } = zones;
  const first = alternative !== undefined && alternative.length > primary.length ? alternative : primary;
  const second = first === primary ? alternative : primary;
  const zone = endsWith(name, first) ? first : second !== undefined && endsWith(name, second) ? second : undefined;
  if (zone === undefined) {
    if (name.length === 0 || lowerLabel(name[name.length - 1] as string) !== "arpa") return OUTSIDE;
    return { where: "reverse", labels: name.slice(0, -1).map(lowerLabel) };
  }
  const cut = name.length - zone.length;
  const spelled = name.slice(cut);
  const labels: string[] = [];
  for (let i = 0; i < cut; i++) labels.push(textFromLabel(lowerLabel(name[i] as string)));
  const made = (kind: InZone["kind"], parts: string[], suffix: string[], isShort = false): InZone => ({
    where: "zone",
    zone,
    spelled,
    kind,
    parts,
    suffix,
    short: isShort,
  });
  if (cut === 0) return made("apex", [], []);
  for (let i = cut - 1; i >= 0; i--) {
    const label = labels[i] as string;
    if (KINDS.has(label)) return made(label as Kind, labels.slice(0, i), labels.slice(i + 1));
    if (short && label.startsWith("_")) return made("service", labels.slice(0, i + 1), labels.slice(i + 1), true);
  }
  return made("none", labels, []);
}

/** The datacenter that labels behind the kind name: undefined = ours; false = they mean nothing (or a peer, of which there are none). */
export function datacenterOf(suffix: readonly string[]): string | undefined | false {
  if (suffix.length === 0) return undefined;
  if (suffix.length === 1) return suffix[0];
  return suffix.length === 2 && suffix[1] === "dc" ? suffix[0] : false;
}

/** As `datacenterOf`, as Consul reads it: pairs with ".dc", of which the last one counts, and ".peer"; undefined = they mean nothing. */
export function consulLocality(
  suffix: readonly string[],
): { readonly datacenter: string | undefined; readonly peer: string | undefined } | undefined {
  if (suffix.length < 2) return { datacenter: suffix[0], peer: undefined };
  if (suffix.length !== 2 && suffix.length !== 4) return undefined;
  let datacenter: string | undefined;
  let peer: string | undefined;
  for (let i = 0; i < suffix.length; i += 2) {
    if (suffix[i + 1] === "dc") datacenter = suffix[i];
    else if (suffix[i + 1] === "peer") peer = suffix[i];
    else return undefined;
  }
  return datacenter !== undefined && peer !== undefined ? undefined : { datacenter, peer };
}

/** The service and tag that labels before "service" name. */
export interface AskedService {
  readonly service: string;
  /** Everything before the service's label, dots included; "" = no tag asked for. */
  readonly tag: string;
  /** `_name._tag` [RFC 2782]: one label is the tag, and `_tcp` means none. */
  readonly rfc2782: boolean;
}

/** Reads the labels before "service". Undefined where there are none. */
export function serviceOf(parts: readonly string[]): AskedService | undefined {
  const last = parts[parts.length - 1];
  if (last === undefined) return undefined;
  const first = parts[0] as string;
  if (parts.length === 2 && first.startsWith("_") && last.startsWith("_")) {
    const tag = last.slice(1);
    return { service: first.slice(1), tag: tag === "tcp" ? "" : tag, rfc2782: true };
  }
  return { service: last, tag: parts.slice(0, -1).join("."), rfc2782: false };
}

/** The address that a whole reverse name stands for: bytes, or undefined for partial and other names below `arpa`. */
export function reversed(labels: readonly string[]): Uint8Array | undefined {
  const tree = labels[labels.length - 1];
  if (tree === "in-addr" && labels.length === 5) {
    const bytes = new Uint8Array(4);
    for (let i = 0; i < 4; i++) {
      const label = labels[i] as string;
      const value = Number(label);
      if (!(value >= 0 && value <= 255) || String(value) !== label) return undefined;
      bytes[3 - i] = value;
    }
    return bytes;
  }
  if (tree === "ip6" && labels.length === 33) {
    const bytes = new Uint8Array(16);
    for (let i = 0; i < 32; i++) {
      const label = labels[i] as string;
      const value = label.length === 1 ? Number.parseInt(label, 16) : Number.NaN;
      if (Number.isNaN(value)) return undefined;
      const at = 15 - (i >> 1);
      bytes[at] = (bytes[at] as number) | (i % 2 === 0 ? value : value << 4);
    }
    return bytes;
  }
  return undefined;
}
