// Names of records in etcd: readable with etcdctl, and reversible for every text.
import { TrilithError } from "../../../base/error.ts";
import type { Table } from "../../../model/record.ts";

const TABLES: readonly Table[] = ["alive", "check", "grave", "kept", "kv", "node", "service", "session"];
const KNOWN: ReadonlySet<string> = new Set(TABLES);

const hex = (code: number): string => `%${code.toString(16).toUpperCase().padStart(2, "0")}`;
// A surrogate without its partner has no UTF-8 form.
const LONE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/**
 * A record's key as text below its table. Parts that are joined by NUL are joined by "/" instead, and a "/" inside a part is written %2F;
 * keys of the table kv have no parts and keep their "/". "%", control characters and lone surrogates are written %XX or %uXXXX.
 */
export function escapeKey(table: Table, key: string): string {
  const special = table === "kv" ? /[%\u0000-\u001f\u007f]/g : /[%/\u0000-\u001f\u007f]/g;
  return key
    .replace(special, (c) => (c === "\u0000" && table !== "kv" ? "/" : hex(c.charCodeAt(0))))
    .replace(LONE, (c) => `%u${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** The inverse of `escapeKey`. Undefined for text that `escapeKey` never makes. */
export function unescapeKey(table: Table, text: string): string | undefined {
  const joined = table === "kv" ? text : text.replaceAll("/", "\u0000");
  const key = joined.replace(/%(?:u([0-9A-F]{4})|([0-9A-F]{2}))/g, (_, wide: string | undefined, byte: string) =>
    String.fromCharCode(Number.parseInt(wide ?? byte, 16)),
  );
  return escapeKey(table, key) === text ? key : undefined;
}

/** Where everything lies: `<prefix><table>/<escaped key>` for records, `<prefix>.tick` and `<prefix>~commit/<id>` for the storage itself. */
export interface Layout {
  readonly prefix: string;
  /** The range that is watched: all tables and the tick, not the commits. */
  readonly from: Buffer;
  readonly to: Buffer;
  /** Written where an event is needed although no record changes. */
  readonly tick: Buffer;
  record(table: Table, key: string): Buffer;
  commit(id: string): Buffer;
  /** Undefined for keys that are no records. */
  parse(key: Buffer): { readonly table: Table; readonly key: string } | undefined;
}

/** @throws TrilithError `invalid` for an empty prefix */
export function layout(prefix: string): Layout {
  if (prefix === "") throw new TrilithError("invalid", 'etcd: the prefix is empty; give one such as "/trilith/"');
  const base = prefix.endsWith("/") ? prefix : `${prefix}/`;
  const start = Buffer.from(base);
  return {
    prefix: base,
    from: start,
    // Table names are lower-case letters and sort before "~".
    to: Buffer.from(`${base}~`),
    tick: Buffer.from(`${base}.tick`),
    record: (table, key) => Buffer.from(`${base}${table}/${escapeKey(table, key)}`),
    commit: (id) => Buffer.from(`${base}~commit/${id}`),
    parse(key) {
      if (key.length <= start.length || !key.subarray(0, start.length).equals(start)) return undefined;
      const rest = key.toString("utf8", start.length);
      // Bytes that are not UTF-8 would come back as another key.
      if (rest.includes("\ufffd") && !Buffer.from(rest).equals(key.subarray(start.length))) return undefined;
      const slash = rest.indexOf("/");
      const table = rest.slice(0, slash);
      if (slash < 0 || !KNOWN.has(table)) return undefined;
      const found = unescapeKey(table as Table, rest.slice(slash + 1));
      return found === undefined ? undefined : { table: table as Table, key: found };
    },
  };
}
