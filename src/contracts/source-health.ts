// How a source that reads several things puts its health together: a line for people, and which of the things are not well.
import { goneKeyOf, type Registration } from "../model/instance.ts";
import type { SourceEntry, SourceHealth } from "./source.ts";

/**
 * The health of a source by its entries. `counts` is what it found; behind it stands what is wrong: with the first entries that are not well
 * (`text` not ""), else with single things (`faults`), which take nothing from the others.
 */
export function healthOf(
  counts: string,
  entries: readonly Omit<SourceEntry, "ok">[],
  faults: readonly string[] = [],
): SourceHealth & { readonly entries: readonly SourceEntry[] } {
  const unwell = entries.filter(({ text }) => text !== "").map(({ name, text }) => `${name}: ${text}`);
  return {
    ok: unwell.length === 0,
    text: [counts, ...shortened(unwell.length > 0 ? unwell : faults)].join("; "),
    entries: entries.map((entry) => ({ ...entry, ok: entry.text === "" })),
  };
}

/** As many as a line takes. */
const TOLD = 2;

function shortened(texts: readonly string[]): readonly string[] {
  return texts.length <= TOLD + 1 ? texts : [...texts.slice(0, TOLD), `and ${texts.length - TOLD} more`];
}

/** The keys (`goneKeyOf`) of what somebody told. */
export function keysOf(
  list: ReadonlyMap<string, Registration>,
  isTold: (registration: Registration) => boolean,
): readonly string[] {
  return [...list.values()].filter(isTold).map(goneKeyOf);
}

/** The same for many entries at once: each registration is told by the entry that `entryOf` names. Looked through when first asked. */
export function toldBy(
  list: ReadonlyMap<string, Registration>,
  entryOf: (registration: Registration) => string,
): (entry: string) => readonly string[] {
  let groups: Map<string, string[]> | undefined;
  return (entry) => {
    if (groups === undefined) {
      groups = new Map();
      for (const each of list.values()) {
        const of = entryOf(each);
        const keys = groups.get(of);
        if (keys === undefined) groups.set(of, [goneKeyOf(each)]);
        else keys.push(goneKeyOf(each));
      }
    }
    return groups.get(entry) ?? [];
  };
}
