// The lines of avahi-browse 0.8, byte for byte: parsable (-p) and for people.
import type { Place, Resolved } from "./engine.ts";

/** How lines are printed. */
export interface Style {
  /** -p */
  readonly parsable: boolean;
  /** The width of the terminal as COLUMNS has it (`columnsOf`). */
  readonly columns: number;
}

/** "+": is there; "-": is gone; "=": resolved. */
export type Sign = "+" | "-" | "=";

/** A service as a line shows it. */
export interface Line extends Place {
  readonly name: string;
  /** As shown: "Web Site" or "_http._tcp". */
  readonly type: string;
  readonly domain: string;
}

/** What takes up the columns besides the name. */
const OTHER_COLUMNS = 35;
const FEWEST_COLUMNS = 40;
const USUAL_COLUMNS = 80;

/** The width that COLUMNS asks for: a number at its start, at least 40; 80 where it is not set. */
export function columnsOf(variable: string | undefined): number {
  if (variable === undefined) return USUAL_COLUMNS;
  return Math.max(FEWEST_COLUMNS, Number(/^\s*[+-]?\d+/.exec(variable)?.[0] ?? 0));
}

const bytesOf = (text: string): Uint8Array => Buffer.from(text, "utf8");
const decimal = (byte: number): string => `\\${String(byte).padStart(3, "0")}`;
const isWord = (byte: number): boolean => /[A-Za-z0-9_-]/.test(String.fromCharCode(byte));

/** A label as Avahi escapes it: letters, digits, "-" and "_" as they are, "." and "\" behind a backslash, every other byte as \DDD. */
export function escapeLabel(label: string): string {
  let text = "";
  for (const byte of bytesOf(label)) {
    const character = String.fromCharCode(byte);
    text += isWord(byte) ? character : /[.\\]/.test(character) ? `\\${character}` : decimal(byte);
  }
  return text;
}

/** Labels with dots between them: "h\195\180te.local". */
export function escapeDomain(domain: string): string {
  return domain.split(".").map(escapeLabel).join(".");
}

/** A name for people: one "_" for each byte that is not printable ASCII. */
function printableName(name: string): string {
  let text = "";
  for (const byte of bytesOf(name)) text += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "_";
  return text;
}

/** The strings of a TXT record as Avahi prints them: in reverse, in quotes, control bytes and those above 127 as \DDD; empty ones are not there. */
function txtText(strings: readonly Uint8Array[]): string {
  return strings
    .filter(({ length }) => length > 0)
    .map((bytes) => {
      let text = "";
      for (const byte of bytes) {
        const character = String.fromCharCode(byte);
        if (character === '"' || character === "\\") text += `\\${character}`;
        else text += byte < 0x20 || byte >= 0x80 ? decimal(byte) : character;
      }
      return `"${text}"`;
    })
    .reverse()
    .join(" ");
}

/** The line of a service without its end. */
export function serviceLine(sign: Sign, line: Line, { parsable, columns }: Style): string {
  const domain = escapeDomain(line.domain);
  const protocol = `IPv${line.family}`;
  if (parsable) return [sign, line.interface, protocol, escapeLabel(line.name), line.type, domain].join(";");
  const name = printableName(line.name).padEnd(columns - OTHER_COLUMNS);
  return `${sign} ${line.interface.padStart(6)} ${protocol} ${name} ${line.type.padEnd(20)} ${domain}`;
}

/**
 * The line or lines of a resolved service, each with its end. Of several addresses one of the place's own family is printed where there is one: Avahi prints the first that
 * it comes upon.
 */
export function resolvedText(found: Resolved, type: string, style: Style): string {
  const address = (found.addresses.find(({ family }) => family === found.family) ?? found.addresses[0])?.address ?? "";
  const line = serviceLine("=", { ...found, type }, style);
  const [host, txt] = [escapeDomain(found.host), txtText(found.txt)];
  if (style.parsable) return `${line};${host};${address};${found.port};${txt}\n`;
  return `${line}\n   hostname = [${host}]\n   address = [${address}]\n   port = [${found.port}]\n   txt = [${txt}]\n`;
}

/** The line of a domain for browsing, with its end. */
export function domainLine(sign: Sign, at: Place, domain: string, { parsable }: Style): string {
  const protocol = `IPv${at.family}`;
  if (parsable) return `${sign};${at.interface};${protocol};${escapeDomain(domain)}\n`;
  return `${sign} ${at.interface.padStart(4)} ${protocol} ${escapeDomain(domain)}\n`;
}
