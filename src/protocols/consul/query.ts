// Query parameters as Go's url.Values has them, and the ways in which Consul reads them.

/** A value that Go's strconv refuses, with its message. */
export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly text: string };

/** The parameters of one request. Names are case-sensitive; a name may occur several times. */
export class Query {
  readonly #values: ReadonlyMap<string, readonly string[]>;
  /** True where a pair has a semicolon or a broken escape: Go refuses to read such a text, and drops the pair. */
  readonly malformed: boolean;

  constructor(text: string) {
    const values = new Map<string, string[]>();
    let malformed = false;
    if (text !== "")
      for (const pair of text.split("&")) {
        if (pair === "") continue;
        const at = pair.indexOf("=");
        const name = unescapePart(at === -1 ? pair : pair.slice(0, at));
        const value = at === -1 ? "" : unescapePart(pair.slice(at + 1));
        if (name === undefined || value === undefined || pair.includes(";")) {
          malformed = true;
          continue;
        }
        const list = values.get(name);
        if (list === undefined) values.set(name, [value]);
        else list.push(value);
      }
    this.#values = values;
    this.malformed = malformed;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }
  /** The first value; "" where the name is missing or has no value. */
  get(name: string): string {
    return this.#values.get(name)?.[0] ?? "";
  }
  all(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }
  /** All parameters, sorted by name, as Go's Values.Encode writes them. */
  encode(): string {
    return [...this.#values]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([name, list]) => list.map((value) => `${escapePart(name)}=${escapePart(value)}`))
      .join("&");
  }
}

/** Undefined for a broken escape. Bytes that are not UTF-8 become U+FFFD, as Go's JSON shows them. */
function unescapePart(text: string): string | undefined {
  if (!/[%+]/.test(text)) return text;
  if (/%(?![0-9a-fA-F]{2})/.test(text)) return undefined;
  const spaced = text.replaceAll("+", " ");
  try {
    return decodeURIComponent(spaced);
  } catch {
    return spaced.replace(/(?:%[0-9a-fA-F]{2})+/g, (escapes) =>
      Buffer.from(escapes.replaceAll("%", ""), "hex").toString(),
    );
  }
}

function escapePart(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll("%20", "+");
}

const TRUE: ReadonlySet<string> = new Set(["1", "t", "T", "TRUE", "true", "True"]);
const FALSE: ReadonlySet<string> = new Set(["0", "f", "F", "FALSE", "false", "False"]);

/** Go's strconv.ParseBool; undefined for everything it refuses. */
export function parseBool(text: string): boolean | undefined {
  return TRUE.has(text) ? true : FALSE.has(text) ? false : undefined;
}

const MAX_UINT64 = (1n << 64n) - 1n;

/** Go's strconv.ParseUint with 64 bits, with its error texts. */
export function parseUint(text: string): Parsed<bigint> {
  if (!/^\d+$/.test(text))
    return { ok: false, text: `strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax` };
  const value = text.length > 40 ? MAX_UINT64 + 1n : BigInt(text);
  if (value > MAX_UINT64)
    return { ok: false, text: `strconv.ParseUint: parsing ${JSON.stringify(text)}: value out of range` };
  return { ok: true, value };
}
