// Words before a service's name: tags and labels that an instance has to have.
import type { Resident } from "../../model/instance.ts";
import type { Labels } from "../../model/node.ts";

/** Several tags and labels that a name asks for at once; a label is written `key--value`, which every stub resolver lets through. */
export interface Words {
  readonly tags: readonly string[];
  readonly labels: readonly (readonly [key: string, value: string])[];
}

/** True for what may be several words. */
export const isSeveralWords = (tag: string): boolean => tag.includes(".") || tag.includes("--");

/**
 * The words of what stands before a service's name; undefined where it is one tag: it has no dots and no `--`, or some instance carries it as it is, be it
 * well or not. A word that some instance carries as a tag is a tag, even with `--` in it.
 */
export function wordsOf(tag: string, residents: readonly Resident[]): Words | undefined {
  if (!isSeveralWords(tag) || residents.some(({ instance }) => hasTag(instance.tags, tag))) return undefined;
  const tags: string[] = [];
  const labels: (readonly [string, string])[] = [];
  for (const word of tag.split(".")) {
    const at = word.indexOf("--");
    if (at <= 0 || residents.some(({ instance }) => hasTag(instance.tags, word))) tags.push(word);
    else labels.push([word.slice(0, at), word.slice(at + 2)]);
  }
  return { tags, labels };
}

/** True where the instance, else its node, has all the labels; keys and values are compared ignoring case, as names are. */
export function hasLabels({ instance, node }: Resident, wanted: Words["labels"]): boolean {
  return wanted.every(([key, value]) => {
    const own = labelOf(instance.labels, key) ?? labelOf(node.labels, key);
    return own?.toLowerCase() === value;
  });
}

function labelOf(labels: Labels, key: string): string | undefined {
  for (const [own, value] of Object.entries(labels)) if (own.toLowerCase() === key) return value;
  return undefined;
}

/** True where one of the tags is this one, in lower case. */
export function hasTag(tags: readonly string[], tag: string): boolean {
  return tags.some((one) => one.toLowerCase() === tag);
}
