// Domain names: labels of arbitrary bytes, as text with \DDD escapes, in wire form, and compared ignoring ASCII case.
import { InputError, TrilithError } from "../../base/error.ts";
import { MAX_LABEL_BYTES, MAX_NAME_BYTES } from "./constants.ts";

/**
 * A domain name from its first label to its last, without the root's empty label. Each label holds one character per byte
 * (U+0000 to U+00FF), in the case it came with; `[]` is the root. Labels are bytes, not letters: UTF-8 text goes in and out
 * through `labelFromText` and `textFromLabel`.
 */
export type Name = readonly string[];

const BACKSLASH = 0x5c;
const DOT = 0x2e;

function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0x7f) return false;
  return true;
}

/** The label that carries a text as UTF-8 bytes. No length check. */
export function labelFromText(text: string): string {
  return isAscii(text) ? text : Buffer.from(text, "utf8").toString("latin1");
}

/** A label read as UTF-8; bytes that are not UTF-8 become U+FFFD. */
export function textFromLabel(label: string): string {
  return isAscii(label) ? label : Buffer.from(label, "latin1").toString("utf8");
}

/** A label with A–Z in lower case and every other byte untouched [RFC 4343]. */
export function lowerLabel(label: string): string {
  if (isAscii(label)) return label.toLowerCase();
  let lowered = "";
  for (let i = 0; i < label.length; i++) {
    const code = label.charCodeAt(i);
    lowered += code >= 0x41 && code <= 0x5a ? String.fromCharCode(code + 32) : label[i];
  }
  return lowered;
}

/** True for the same name, ignoring ASCII case. */
export function sameName(a: Name, b: Name): boolean {
  return a.length === b.length && endsWith(a, b);
}

/** True where `name` is `zone` or lies below it, ignoring ASCII case. */
export function endsWith(name: Name, zone: Name): boolean {
  const skip = name.length - zone.length;
  if (skip < 0) return false;
  for (let i = zone.length - 1; i >= 0; i--) {
    const a = name[skip + i] as string;
    const b = zone[i] as string;
    if (a !== b && lowerLabel(a) !== lowerLabel(b)) return false;
  }
  return true;
}

/** The bytes a name takes in wire form, uncompressed. */
export function nameBytes(name: Name): number {
  let bytes = 1;
  for (const label of name) bytes += 1 + label.length;
  return bytes;
}

/** @throws TrilithError `invalid` for an empty or too long label, a character that is no byte, or a name over 255 bytes */
export function checkName(name: Name): void {
  for (const label of name) {
    if (label.length === 0) throw new TrilithError("invalid", "a domain name holds an empty label");
    if (label.length > MAX_LABEL_BYTES)
      throw new TrilithError("invalid", `the label "${textOfLabel(label)}" has ${label.length} bytes; 63 are allowed`);
    for (let i = 0; i < label.length; i++)
      if (label.charCodeAt(i) > 0xff)
        throw new TrilithError("invalid", `the label "${label}" holds a character that is no byte`);
  }
  const bytes = nameBytes(name);
  if (bytes > MAX_NAME_BYTES)
    throw new TrilithError("invalid", `the name "${textOfName(name)}" takes ${bytes} bytes; 255 are allowed`);
}

function textOfLabel(label: string): string {
  let text = "";
  for (let i = 0; i < label.length; i++) {
    const code = label.charCodeAt(i);
    if (code === DOT || code === BACKSLASH) text += `\\${label[i]}`;
    else if (code < 0x21 || code > 0x7e) text += `\\${String(code).padStart(3, "0")}`;
    else text += label[i];
  }
  return text;
}

/** A name as text with a dot at its end: dots and backslashes within labels as `\.` and `\\`, what is not printable ASCII as `\DDD` [RFC 1035 §5.1]. */
export function textOfName(name: Name): string {
  if (name.length === 0) return ".";
  let text = "";
  for (const label of name) text += `${textOfLabel(label)}.`;
  return text;
}

/**
 * The name that a text spells: `\DDD` is a byte, `\x` the character x, other text UTF-8; a dot at the end is optional, "." and "" are the root.
 * @throws InputError for empty or too long labels, bad escapes, names over 255 bytes
 */
export function nameFromText(text: string): Name {
  if (text === "." || text === "") return [];
  const labels: string[] = [];
  let label = "";
  const source = labelFromText(text);
  for (let i = 0; i < source.length; i++) {
    const code = source.charCodeAt(i);
    if (code === DOT) {
      labels.push(label);
      label = "";
      continue;
    }
    if (code !== BACKSLASH) {
      label += source[i];
      continue;
    }
    const next = source.charCodeAt(++i);
    if (Number.isNaN(next)) throw new InputError("", `"${text}": nothing follows the last backslash`);
    if (next < 0x30 || next > 0x39) {
      label += source[i];
      continue;
    }
    const digits = source.slice(i, i + 3);
    const byte = Number(digits);
    if (digits.length < 3 || !(byte <= 255))
      throw new InputError("", `"${text}": "\\${digits}" is not a backslash with three digits up to 255`);
    label += String.fromCharCode(byte);
    i += 2;
  }
  if (label !== "") labels.push(label);
  checkName(labels);
  return labels;
}

/** A name in wire form, uncompressed. @throws TrilithError `invalid` as `checkName` */
export function nameToWire(name: Name): Uint8Array {
  checkName(name);
  const bytes = new Uint8Array(nameBytes(name));
  let at = 0;
  for (const label of name) {
    bytes[at++] = label.length;
    for (let i = 0; i < label.length; i++) bytes[at++] = label.charCodeAt(i);
  }
  return bytes;
}
