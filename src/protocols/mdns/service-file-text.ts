// The bytes of a service file as text, in the encodings that Avahi's XML parser reads, and the entities that its DOCTYPE declares.
import { InputError } from "../../base/error.ts";

/**
 * The text of an XML document: UTF-8 unless a byte order mark or its declaration says UTF-16, ISO-8859-1 or US-ASCII [XML 1.0 appendix F].
 * @throws InputError at `where:line` for other encodings and for bytes that are not of the encoding
 */
export function textOfXmlBytes(bytes: Uint8Array, where: string): string {
  const marked = (...mark: number[]): boolean => mark.every((byte, i) => bytes[i] === byte);
  if (marked(0xff, 0xfe) || marked(0x3c, 0)) return decoded(bytes, "utf-16le", where);
  if (marked(0xfe, 0xff) || marked(0, 0x3c)) return decoded(bytes, "utf-16be", where);
  const start = Buffer.from(bytes.subarray(0, 256)).toString("latin1");
  const declared = /^<\?xml\s[^>]*?\sencoding\s*=\s*["']([^"']*)["']/.exec(start)?.[1];
  const encoding = (declared ?? "utf-8").toLowerCase();
  if (encoding === "utf-8") return decoded(bytes, "utf-8", where);
  // TextDecoder would take ISO-8859-1 for windows-1252.
  const text = Buffer.from(bytes).toString("latin1");
  if (encoding === "iso-8859-1") return text;
  if (encoding === "us-ascii") {
    const at = bytes.findIndex((byte) => byte > 0x7f);
    if (at >= 0) throw new InputError(`${where}:${lineOf(bytes, at)}`, "a byte that is not US-ASCII");
    return text;
  }
  throw new InputError(
    `${where}:1`,
    `the encoding "${declared}" is not known; UTF-8, UTF-16, ISO-8859-1 and US-ASCII are`,
  );
}

function decoded(bytes: Uint8Array, encoding: "utf-8" | "utf-16le" | "utf-16be", where: string): string {
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    throw new InputError(`${where}:${badLine(bytes, encoding)}`, `bytes that are not ${encoding.toUpperCase()}`);
  }
}

/** The first line that cannot be decoded. */
function badLine(bytes: Uint8Array, encoding: "utf-8" | "utf-16le" | "utf-16be"): number {
  if (encoding !== "utf-8") return 1;
  let from = 0;
  for (let line = 1; ; line++) {
    const end = bytes.indexOf(0x0a, from);
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(from, end < 0 ? undefined : end));
    } catch {
      return line;
    }
    if (end < 0) return line;
    from = end + 1;
  }
}

function lineOf(bytes: Uint8Array, at: number): number {
  let line = 1;
  for (let i = 0; i < at; i++) if (bytes[i] === 0x0a) line++;
  return line;
}

const ENTITY = /<!ENTITY\s+([^\s%"'<>]+)\s+(?:"([^"]*)"|'([^']*)'|(?:SYSTEM|PUBLIC)\b[^>]*)\s*>/g;
/** Entities longer than all of this together are nobody's service file. */
const MOST_CHARACTERS = 4096;

/**
 * The entities of a document that names or declares some. Those declared within the document with a text are that text (references in it are to characters only);
 * those outside it are never read and are nothing, and so is every other one where the DOCTYPE names a file that might declare it, as with Avahi's parser.
 * @throws InputError for one that holds markup or is far too long
 */
export function entitiesOf(doctype: string, text: string, where: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  let characters = 0;
  for (const [, name = "", quoted, apostrophed] of doctype.matchAll(ENTITY)) {
    // The first declaration counts [XML 1.0 §4.2].
    if (found.has(name)) continue;
    const value = (quoted ?? apostrophed ?? "").replace(/&#(?:x([0-9a-fA-F]+)|([0-9]+));/g, (each, hex, decimal) => {
      const point = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
      return point > 0 && point <= 0x10_ffff ? String.fromCodePoint(point) : each;
    });
    if (/[<&]/.test(value))
      throw new InputError(where, `the entity "${name}" holds markup; only entities of plain text are taken`);
    characters += value.length;
    found.set(name, value);
  }
  if (characters > MOST_CHARACTERS) throw new InputError(where, "the entities it declares are too long");
  const outside = /^\s*[^\s[]+\s+(SYSTEM|PUBLIC)\s/.test(doctype) || /%[^\s;]+;/.test(doctype);
  const alone = /^\s*<\?xml\s[^>]*\sstandalone\s*=\s*["']yes["']/.test(text);
  if (outside && !alone)
    for (const [, name = ""] of text.matchAll(/&([^\s;&<>#]+);/g))
      if (!found.has(name) && !/^(lt|gt|amp|quot|apos)$/.test(name)) found.set(name, "");
  return found;
}
