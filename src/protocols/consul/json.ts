// JSON as Go's encoding/json reads and writes it: the first value of a body, `<`, `>` and `&` escaped, numbers of 64 bits.
import { TrilithError } from "../../base/error.ts";

const ESCAPED: Readonly<Record<string, string>> = {
  "<": "\\u003c",
  ">": "\\u003e",
  "&": "\\u0026",
  "\u2028": "\\u2028",
  "\u2029": "\\u2029",
};
const TO_ESCAPE = /[<>&\u2028\u2029]/g;

/** Text of a value without bigints; `indent` spaces per level, 0 = one line. */
export function encodeJson(value: unknown, indent: number): string {
  return escapeHtml(JSON.stringify(value, null, indent));
}

/** Like `encodeJson` for values that hold bigints, which become plain numbers. Slower: for the few answers that need it. */
export function encodeExactJson(value: unknown, indent: number): string {
  return escapeHtml(write(value, indent, "\n"));
}

// Outside of strings none of these characters occurs in JSON, so that the text can be searched as a whole.
function escapeHtml(text: string): string {
  return text.search(TO_ESCAPE) === -1 ? text : text.replace(TO_ESCAPE, (char) => ESCAPED[char] as string);
}

function write(value: unknown, indent: number, line: string): string {
  if (typeof value === "bigint") return value.toString();
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const inner = line + " ".repeat(indent);
  const list = Array.isArray(value);
  const parts = list
    ? value.map((item) => write(item, indent, inner))
    : Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => `${JSON.stringify(key)}:${indent > 0 ? " " : ""}${write(item, indent, inner)}`);
  if (parts.length === 0) return list ? "[]" : "{}";
  const joined = indent > 0 ? `${inner}${parts.join(`,${inner}`)}${line}` : parts.join(",");
  return list ? `[${joined}]` : `{${joined}}`;
}

/**
 * The first JSON value of a body; what follows it is ignored, as Go's decoder does.
 * @throws TrilithError `invalid` for an empty body, other text than JSON, and bytes that are not UTF-8
 */
export function decodeJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new TrilithError("invalid", "the body is not UTF-8 text");
  }
  if (/^[ \t\r\n]*$/.test(text)) throw new TrilithError("invalid", "EOF");
  try {
    return JSON.parse(text.slice(0, endOfFirstValue(text)));
  } catch (error) {
    throw new TrilithError("invalid", error instanceof Error ? error.message : String(error));
  }
}

/** The place behind the first value; the end of the text where the value has no end. */
function endOfFirstValue(text: string): number {
  let depth = 0;
  let quoted = false;
  let begun = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (quoted) {
      if (char === 0x5c) i++;
      else if (char === 0x22) {
        quoted = false;
        if (depth === 0) return i + 1;
      }
      continue;
    }
    if (char === 0x22) {
      // A text right behind a bare word ("true"x") begins the junk.
      if (begun && depth === 0) return i;
      quoted = true;
      begun = true;
    } else if (char === 0x7b || char === 0x5b) {
      if (begun && depth === 0) return i;
      depth++;
      begun = true;
    } else if (char === 0x7d || char === 0x5d) {
      depth--;
      if (depth <= 0) return i + 1;
    } else if (char === 0x20 || char === 0x0a || char === 0x0d || char === 0x09) {
      if (begun && depth === 0) return i;
    } else begun = true;
  }
  return text.length;
}
