// Labels and tags as labels alone, for dialects that know no tags (Minidisc), and back.
import type { Labels } from "./node.ts";

/** The value under which a plain tag stands among labels. */
const TAG = "true";

/**
 * Labels; then tags of the form `k=v` where no label is called `k`; then other tags as `tag: "true"`, where that key is free as well.
 * A tag whose key is taken has no place among labels and is left out. The result has no prototype.
 */
export function labelsOf(labels: Labels, tags: readonly string[]): Labels {
  const flat: Record<string, string> = Object.assign(Object.create(null) as Record<string, string>, labels);
  const plain: string[] = [];
  for (const tag of tags) {
    const at = tag.indexOf("=");
    if (at <= 0) plain.push(tag);
    else if (!(tag.slice(0, at) in flat)) flat[tag.slice(0, at)] = tag.slice(at + 1);
  }
  for (const tag of plain) if (tag !== "" && !(tag in flat)) flat[tag] = TAG;
  return flat;
}

/** The inverse, for labels that come from a Trilith: `x: "true"` is the tag x again, everything else a label. Both without a prototype. */
export function fromLabels(flat: Labels): { readonly labels: Labels; readonly tags: readonly string[] } {
  const labels: Record<string, string> = Object.create(null) as Record<string, string>;
  const tags: string[] = [];
  for (const [key, value] of Object.entries(flat)) {
    if (value === TAG) tags.push(key);
    else labels[key] = value;
  }
  return { labels, tags };
}
