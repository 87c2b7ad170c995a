// Which names stand for which addresses: templates filled in with instances and nodes. Pure.
import { ipFamily } from "../../base/net.ts";
import type { Instance } from "../../model/instance.ts";
import type { HostsRule } from "./config.ts";

/** An instance at the address that the readers of the file reach. */
export interface Placed {
  readonly instance: Instance;
  readonly address: string;
  /** The container's name, where it is one of this host. */
  readonly container?: string;
}

export interface PlacedNode {
  readonly name: string;
  readonly address: string;
}

/** Names in lower case with their addresses, in the order in which they came. */
export interface Names {
  readonly names: ReadonlyMap<string, ReadonlySet<string>>;
  /** What cannot be written, and why. */
  readonly not: readonly string[];
}

/** A host's name [RFC1123 2.1], with underscores, as service names have them. */
const NAME = /^(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/;
/** What every resolver takes to be its own host. */
const OWN = /^(localhost|.*\.localhost|localhost\..*|ip6-.*|broadcasthost)$/;

/** All names of the instances and nodes. `taken`: names that others' lines in the file have already; these are theirs. */
export function namesOf(
  placed: readonly Placed[],
  nodes: readonly PlacedNode[],
  rule: Pick<HostsRule, "names" | "nodes">,
  domain: string,
  taken: ReadonlySet<string> = new Set(),
): Names {
  const names = new Map<string, Set<string>>();
  const not = new Set<string>();
  const add = (name: string, address: string): void => {
    const lower = name.toLowerCase().replace(/\.$/, "");
    if (ipFamily(address.replace(/%.*$/, "")) === 0) not.add(`${lower}: "${address}" is not an IP address`);
    else if (!NAME.test(lower) || ipFamily(lower) !== 0) not.add(`"${lower}" is not a host's name`);
    else if (OWN.test(lower)) not.add(`${lower} is each host's own name`);
    else if (taken.has(lower)) not.add(`${lower} stands in others' lines already`);
    else names.set(lower, (names.get(lower) ?? new Set()).add(address));
  };
  for (const { instance, address, container } of placed)
    for (const template of rule.names)
      for (const tag of template.includes("{tag}") ? instance.tags : [""]) {
        const words = { name: instance.name, id: instance.id, node: instance.node, tag, container, domain };
        const name = fill(template, words);
        if (name !== undefined) add(name, address);
      }
  for (const { name: node, address } of nodes)
    for (const template of rule.nodes) {
      const name = fill(template, { node, domain });
      if (name !== undefined) add(name, address);
    }
  return { names, not: [...not] };
}

/** Undefined where a word has nothing to stand for (a container's name of what is none). */
function fill(template: string, words: Readonly<Record<string, string | undefined>>): string | undefined {
  let whole = true;
  const text = template.replace(/\{([^}]*)\}/g, (_, word: string) => {
    const value = words[word];
    if (value === undefined || value === "") whole = false;
    return value ?? "";
  });
  return whole ? text : undefined;
}

/** The lines of a hosts file: an address with all of its names each, in a lasting order. */
export function linesOf(names: ReadonlyMap<string, ReadonlySet<string>>): readonly string[] {
  const byAddress = new Map<string, string[]>();
  for (const [name, addresses] of names)
    for (const address of addresses) byAddress.set(address, [...(byAddress.get(address) ?? []), name]);
  return [...byAddress]
    .map(([address, all]) => ({ address, all: all.sort(byLength) }))
    .sort((a, b) => compare(a.all[0] ?? "", b.all[0] ?? "") || compare(a.address, b.address))
    .flatMap(({ address, all }) => inPieces(all).map((some) => `${address}\t${some.join(" ")}`));
}

/** Resolvers read lines up to a length, and some only so many aliases. */
function inPieces(names: readonly string[]): readonly (readonly string[])[] {
  const pieces: string[][] = [[]];
  for (const name of names) {
    const last = pieces.at(-1) as string[];
    if (last.length < 30 && last.join(" ").length + name.length < 900) last.push(name);
    else pieces.push([name]);
  }
  return pieces;
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
/** The shortest first: it is what an address is said to be called. */
const byLength = (a: string, b: string): number => a.length - b.length || compare(a, b);

/** What lines of a hosts file say: names in lower case with their addresses. */
export function namesIn(text: string): ReadonlyMap<string, ReadonlySet<string>> {
  const names = new Map<string, Set<string>>();
  for (const line of text.split(/\r?\n/)) {
    const [address = "", ...all] = line.replace(/#.*$/, "").trim().split(/\s+/);
    if (ipFamily(address.replace(/%.*$/, "")) === 0) continue;
    for (const name of all) names.set(name.toLowerCase(), (names.get(name.toLowerCase()) ?? new Set()).add(address));
  }
  return names;
}
