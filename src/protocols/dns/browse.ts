// DNS-SD below the domain [RFC 6763]: which names ask for domains, service types, instances of a type or one instance, and what instances are called.
import type { View } from "../../contracts/directory.ts";
import type { Resident } from "../../model/instance.ts";
import { labelFromText, lowerLabel, MAX_LABEL_BYTES, textFromLabel } from "../../wire/dns/index.ts";

/** A service type: what stands in `_type._tcp`, in lower case. */
export interface SdType {
  readonly type: string;
  readonly transport: "tcp" | "udp";
}

/** What a name asks for. `labels` of types and instances stand in `SdType`. */
export type Browsed =
  /** `b`, `db`, `lb` (domains to browse), `r`, `dr` (to register in: none) below `_dns-sd._udp` [§11]; `nothing`: names above those. */
  | { readonly what: "domains" | "nothing" }
  /** `_services._dns-sd._udp` [§9]. */
  | { readonly what: "types" }
  /** `_type._tcp`, with `_tag._sub` before it those with the tag [§4, §7.1]; `_sub` alone with an empty tag. */
  | { readonly what: "instances"; readonly of: SdType; readonly tag: string | undefined }
  /** `instance._type._tcp` [§4.1]. */
  | { readonly what: "instance"; readonly of: SdType; readonly label: string };

/** Reads the labels before the domain, in lower case; undefined for what is no name of DNS-SD. */
export function readBrowsed(parts: readonly string[]): Browsed | undefined {
  const transport = parts[parts.length - 1];
  const type = parts[parts.length - 2];
  if ((transport !== "_tcp" && transport !== "_udp") || type === undefined || type.length < 2 || !type.startsWith("_"))
    return undefined;
  const before = parts.slice(0, -2);
  const [first = "", second] = before;
  if (type === "_dns-sd" && transport === "_udp") {
    if (before.length === 0) return { what: "nothing" };
    if (before.length > 1) return undefined;
    if (first === "_services") return { what: "types" };
    if (["b", "db", "lb"].includes(first)) return { what: "domains" };
    return first === "r" || first === "dr" ? { what: "nothing" } : undefined;
  }
  const of: SdType = { type: type.slice(1), transport: transport === "_tcp" ? "tcp" : "udp" };
  if (before.length === 0) return { what: "instances", of, tag: undefined };
  if (before.length === 1)
    return first === "_sub" ? { what: "instances", of, tag: "" } : { what: "instance", of, label: first };
  if (before.length === 2 && second === "_sub" && first.startsWith("_") && first.length > 1)
    return { what: "instances", of, tag: first.slice(1) };
  return undefined;
}

/** The label of an instance that says what types it is of besides its service's name: `dns-sd=http` or `dns-sd=_http._tcp,_ipp._tcp`. */
const TYPES_LABEL = "dns-sd";
/** What Registrator marks ports with. */
const UDP_TAG = "udp";

/** The types an instance is of: its service's name over its transport, and what its label `dns-sd` says. Those that no name can hold are left out. */
export function typesOf({ name, tags, labels }: Resident["instance"]): SdType[] {
  const transport = tags.some((tag) => tag.toLowerCase() === UDP_TAG) ? "udp" : "tcp";
  const types: SdType[] = [{ type: name.toLowerCase(), transport }];
  for (const [key, value] of Object.entries(labels)) {
    if (key.toLowerCase() !== TYPES_LABEL) continue;
    for (const text of value.toLowerCase().split(",")) {
      const match = /^\s*_?([^\s.]+?)(?:\._(tcp|udp))?\s*$/.exec(text);
      if (match !== null)
        types.push({ type: match[1] as string, transport: (match[2] as "tcp" | "udp" | undefined) ?? transport });
    }
  }
  return types.filter(({ type }) => type !== "" && labelFromText(type).length < MAX_LABEL_BYTES);
}

export function sameType(a: SdType, b: SdType): boolean {
  return a.type === b.type && a.transport === b.transport;
}

/** Which types there are and which services have instances of them, worked out once per view. */
export interface SdIndex {
  /** Service names by `type transport`. */
  readonly types: ReadonlyMap<string, { readonly type: SdType; readonly services: ReadonlySet<string> }>;
}

/** Keeps the index of the last view asked about. */
export function createSdIndex(): (view: View) => SdIndex {
  let index = -1;
  let made: SdIndex | undefined;
  return (view) => {
    if (made === undefined || view.index !== index) {
      index = view.index;
      const types = new Map<string, { type: SdType; services: Set<string> }>();
      for (const instance of view.list("service"))
        for (const type of typesOf(instance)) {
          const key = `${type.type} ${type.transport}`;
          const entry = types.get(key) ?? { type, services: new Set() };
          types.set(key, entry);
          entry.services.add(instance.name.toLowerCase());
        }
      made = { types };
    }
    return made;
  };
}

/**
 * What an instance is called among those of its type: "web-1 on n1", as its ID and its node are [§4.1.1]. The same for as long as it lives, whoever else comes;
 * where a label cannot hold it, the beginning of it with a number that stands for the whole.
 */
export function instanceLabel({ instance, node }: Resident): string {
  const label = labelFromText(`${instance.id} on ${node.name}`);
  if (label.length <= MAX_LABEL_BYTES) return label;
  // FNV-1a: short, and good enough to tell instances of one type apart.
  let hash = 0x811c9dc5;
  for (let i = 0; i < label.length; i++) hash = Math.imul(hash ^ label.charCodeAt(i), 0x01000193) >>> 0;
  const end = `~${hash.toString(16).padStart(8, "0")}`;
  let cut = MAX_LABEL_BYTES - end.length;
  // A UTF-8 sequence is not cut in two.
  while (cut > 0 && (label.charCodeAt(cut) & 0xc0) === 0x80) cut--;
  return label.slice(0, cut) + end;
}

/** A label as names are compared: text in lower case. */
export function comparedLabel(label: string): string {
  return textFromLabel(lowerLabel(label));
}
