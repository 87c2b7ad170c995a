// Which names exist without records of their own: a name above one that exists exists too, and must not be denied [RFC 8020].
import type { View } from "../../contracts/directory.ts";
import { meshNameOf } from "../../model/mesh.ts";
import { hexOf, ipBytes } from "../../wire/dns/index.ts";

/** What stands in the way of NXDOMAIN in one view: worked out when such a name is first asked for, and once per view. */
export interface Existence {
  /** True where some instance carries the tag, so that `_name._tag.service.D` exists and with it `_tag.service.D`. */
  tag(tag: string): boolean;
  /** The services among whose instances the mesh has some for this one: its proxies', or itself; in lower case. */
  meshed(service: string): Iterable<string>;
  /** True where some node's name ends in `.suffix`. */
  belowNode(suffix: string): boolean;
  /** True where an address of the directory lies below these reverse labels (`["2", "0", "192", "in-addr"]`). */
  belowReverse(labels: readonly string[]): boolean;
}

/** Keeps the picture of the last view asked about. */
export function createExistence(): (view: View) => Existence {
  let index = -1;
  let existence: Existence | undefined;
  return (view) => {
    if (existence === undefined || view.index !== index) {
      index = view.index;
      existence = look(view);
    }
    return existence;
  };
}

function look(view: View): Existence {
  let tags: Set<string> | undefined;
  let mesh: Map<string, Set<string>> | undefined;
  let suffixes: Set<string> | undefined;
  let reverse: Set<string> | undefined;
  return {
    tag(tag) {
      if (tags === undefined) {
        // Names of DNS-SD lie below both.
        tags = new Set(["tcp", "udp"]);
        for (const instance of view.list("service")) for (const one of instance.tags) tags.add(one.toLowerCase());
      }
      return tags.has(tag);
    },
    meshed(service) {
      if (mesh === undefined) {
        mesh = new Map();
        for (const instance of view.list("service")) {
          const name = meshNameOf(instance);
          if (name !== undefined) mesh.set(name, (mesh.get(name) ?? new Set()).add(instance.name.toLowerCase()));
        }
      }
      return mesh.get(service) ?? [];
    },
    belowNode(suffix) {
      if (suffixes === undefined) {
        suffixes = new Set();
        for (const { name } of view.list("node")) addTails(suffixes, name.toLowerCase().split("."));
      }
      return suffixes.has(suffix);
    },
    belowReverse(labels) {
      if (reverse === undefined) {
        reverse = new Set(["in-addr", "ip6"]);
        for (const { address } of view.list("node")) addReverse(reverse, address);
        for (const { address } of view.list("service")) if (address !== "") addReverse(reverse, address);
      }
      return reverse.has(labels.join("."));
    },
  };
}

/** Adds what is left of dotted labels when some are taken from the front. */
function addTails(to: Set<string>, labels: readonly string[]): void {
  for (let from = 1; from < labels.length; from++) to.add(labels.slice(from).join("."));
}

function addReverse(to: Set<string>, address: string): void {
  const bytes = ipBytes(address);
  if (bytes === undefined) return;
  if (bytes.length === 4) addTails(to, [...[...bytes].reverse().map(String), "in-addr"]);
  else addTails(to, [...[...hexOf(bytes)].reverse(), "ip6"]);
}
