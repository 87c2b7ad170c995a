// Labels and tags as the key=value pairs of DNS TXT records, and back: one mapping for every dialect that carries them so.
import type { Labels } from "./node.ts";

/** One string of a TXT record holds so many bytes [RFC 1035 §3.3.14]. */
const MOST_BYTES = 255;
/** The key under which tags stand; labels that are called so get an underscore more. */
const TAGS = "tags";
const TAGS_LIKE = /^_*tags$/i;
/** Printable ASCII without "=" [RFC 6763 §6.4]. */
const KEY = /^[\x20-\x3c\x3e-\x7e]+$/;

const bytesOf = (text: string): number => Buffer.byteLength(text, "utf8");

/**
 * Labels as `key=value` in their order, then tags as one `tags=a,b` (a comma within a tag as `\,`, a backslash as `\\`). Left out, because no TXT record can
 * carry them: labels whose key is not printable ASCII or holds "=", or is there already in another case; pairs of more than 255 bytes; tags that do not fit any more.
 */
export function txtOf(labels: Labels, tags: readonly string[]): string[] {
  const texts: string[] = [];
  const seen = new Set<string>();
  for (const [key, value] of Object.entries(labels)) {
    const text = `${TAGS_LIKE.test(key) ? "_" : ""}${key}=${value}`;
    if (!KEY.test(key) || seen.has(key.toLowerCase()) || bytesOf(text) > MOST_BYTES) continue;
    seen.add(key.toLowerCase());
    texts.push(text);
  }
  let all = "";
  for (const tag of tags) {
    const more = `${all}${all === "" ? "" : ","}${tag.replace(/[\\,]/g, "\\$&")}`;
    if (tag !== "" && bytesOf(`${TAGS}=${more}`) <= MOST_BYTES) all = more;
  }
  if (all !== "") texts.push(`${TAGS}=${all}`);
  return texts;
}

/** The inverse of `txtOf`. Of a key that comes twice the first counts; a key without "=" becomes "true" [RFC 6763 §6.4]. */
export function fromTxt(texts: readonly string[]): { readonly labels: Labels; readonly tags: readonly string[] } {
  const labels: Record<string, string> = Object.create(null) as Record<string, string>;
  let tags: string[] | undefined;
  const seen = new Set<string>();
  for (const text of texts) {
    const at = text.indexOf("=");
    const key = at < 0 ? text : text.slice(0, at);
    const value = at < 0 ? "true" : text.slice(at + 1);
    if (key === "" || seen.has(key.toLowerCase())) continue;
    seen.add(key.toLowerCase());
    if (key.toLowerCase() === TAGS) tags = tagsOf(value);
    else labels[TAGS_LIKE.test(key) ? key.slice(1) : key] = value;
  }
  return { labels, tags: tags ?? [] };
}

function tagsOf(text: string): string[] {
  const tags: string[] = [];
  let tag = "";
  for (let i = 0; i < text.length; i++) {
    if (text[i] === ",") {
      tags.push(tag);
      tag = "";
    } else if (text[i] === "\\" && i + 1 < text.length) tag += text[++i];
    else tag += text[i];
  }
  return [...tags, tag].filter((one) => one !== "");
}
