// Snapshots in Trilith's own format: gzip over lines of JSON - a head, one line per record, and a foot that counts and hashes it all.
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { createGunzip, createGzip } from "node:zlib";
import { messageOf, TrilithError } from "../../base/error.ts";
import type { View } from "../../contracts/directory.ts";
import { NODE_ALIVE_CHECK, NODE_DEAD_OUTPUT } from "../../model/check.ts";
import { decodeRecord, encodeRecord } from "../../model/codec.ts";
import { EVENT_KIND } from "../../model/event.ts";
import { type Change, type Index, keyOf, type Table, type Tables } from "../../model/record.ts";

const FORMAT = "trilith-snapshot";
const VERSION = 1;
/** What a snapshot holds. Signs of life and graves belong to a running directory, not to its content. */
const TABLES: readonly Table[] = ["node", "service", "check", "session", "kv", "kept"];
/** Lines are gathered up to this before they are compressed. */
const CHUNK_CHARS = 64 << 10;
/** A line beyond this is no record. */
const LINE_MAX_BYTES = 64 << 20;
/** Everything unpacked. */
const UNPACKED_MAX_BYTES = 4 * 2 ** 30;
const HASH = "sha256";

/** The first line. */
export interface SnapshotHead {
  readonly format: string;
  readonly version: number;
  /** The directory's index when it was taken. */
  readonly index: Index;
  readonly datacenter: string;
  readonly node: string;
  /** Which Trilith wrote it. */
  readonly trilith: string;
  readonly takenAtMs: number;
}

/** A whole snapshot, checked. */
export interface Snapshot {
  readonly head: SnapshotHead;
  readonly records: readonly {
    readonly table: Table;
    readonly key: string;
    readonly value: Tables[Table];
    /** Before compression. */
    readonly bytes: number;
  }[];
  /** The checksum of everything but the foot, in hexadecimal: the snapshot's identity. */
  readonly checksum: string;
  /** By table: how many records, and how many bytes before compression. */
  readonly sizes: ReadonlyMap<Table, { readonly count: number; readonly bytes: number }>;
}

/** Writes a view as a snapshot, piece by piece: as much is in memory as the reader has not taken yet. */
export function writeSnapshot(view: View, head: Omit<SnapshotHead, "format" | "version" | "index">): Readable {
  const source = Readable.from(pieces(view, head), { objectMode: false });
  const zipped = createGzip();
  source.once("error", (error) => zipped.destroy(error));
  zipped.once("close", () => source.destroy());
  return source.pipe(zipped);
}

function* pieces(view: View, head: Omit<SnapshotHead, "format" | "version" | "index">): Generator<Buffer> {
  const hash = createHash(HASH);
  let records = 0;
  let text = `${JSON.stringify({ format: FORMAT, version: VERSION, index: view.index, ...head })}\n`;
  const flush = (): Buffer => {
    const bytes = Buffer.from(text);
    hash.update(bytes);
    text = "";
    return bytes;
  };
  for (const table of TABLES)
    for (const entry of view.list(table)) {
      if (isPassing(table, entry)) continue;
      const { createIndex: _, modifyIndex: __, ...value } = entry;
      const record = Buffer.from(encodeRecord(table, value as Tables[Table])).toString("utf8");
      text += `{"table":${JSON.stringify(table)},"key":${JSON.stringify(keyIn(table, value as Tables[Table]))},"value":${record}}\n`;
      records++;
      if (text.length >= CHUNK_CHARS) yield flush();
    }
  yield flush();
  yield Buffer.from(`${JSON.stringify({ records, [HASH]: hash.digest("hex") })}\n`);
}

/** Events are for those who hear them when they are fired: nobody is to hear them again. */
function isPassing(table: Table, value: Tables[Table]): boolean {
  return table === "kept" && (value as Tables["kept"]).kind === EVENT_KIND;
}

/** The key of a record, from the record. */
function keyIn(table: Table, value: Tables[Table]): string {
  switch (table) {
    case "node":
      return keyOf.node((value as Tables["node"]).name);
    case "service":
      return keyOf.service((value as Tables["service"]).node, (value as Tables["service"]).id);
    case "check":
      return keyOf.check((value as Tables["check"]).node, (value as Tables["check"]).id);
    case "session":
      return keyOf.session((value as Tables["session"]).id);
    case "kv":
      return keyOf.kv((value as Tables["kv"]).key);
    case "kept":
      return keyOf.kept((value as Tables["kept"]).kind, (value as Tables["kept"]).id);
    default:
      throw new TrilithError("internal", `snapshots hold no table ${table}`);
  }
}

function damaged(what: string): TrilithError {
  return new TrilithError("damaged", `this is not a snapshot that can be restored: ${what}. Nothing was changed`);
}

/**
 * Reads and checks a whole snapshot.
 * @throws TrilithError `damaged` (what and where), `newer-data` (a later version's format), `too-large`
 */
export async function readSnapshot(
  chunks: AsyncIterable<Uint8Array>,
  maxBytes: number = UNPACKED_MAX_BYTES,
): Promise<Snapshot> {
  const source = Readable.from(chunks, { objectMode: false });
  const unzipped = createGunzip();
  source.once("error", (error) => unzipped.destroy(error));
  unzipped.once("close", () => source.destroy());
  const reading = new Reading();
  let total = 0;
  let first = true;
  try {
    for await (const chunk of source.pipe(unzipped) as AsyncIterable<Buffer>) {
      if (first && isTar(chunk))
        throw damaged("it is one of Consul's own snapshots, whose inside is another; export the keys with `kv export`");
      first = false;
      total += chunk.length;
      if (total > maxBytes) throw new TrilithError("too-large", `the snapshot unpacks to more than ${maxBytes} bytes`);
      reading.take(chunk);
    }
  } catch (error) {
    if (error instanceof TrilithError) throw error;
    const { code } = error as { readonly code?: string };
    if (code === "Z_DATA_ERROR" || code === "Z_BUF_ERROR")
      throw damaged(
        total === 0
          ? "it is not compressed by gzip"
          : `it is cut short or damaged after ${total} bytes (${messageOf(error)})`,
      );
    throw error;
  } finally {
    unzipped.destroy();
  }
  return reading.end();
}

/** Consul's snapshots are tar archives. */
function isTar(chunk: Buffer): boolean {
  return chunk.length >= 263 && chunk.toString("latin1", 257, 262) === "ustar";
}

/** Takes bytes, makes records, checks the foot. */
class Reading {
  readonly #hash = createHash(HASH);
  readonly #records: { table: Table; key: string; value: Tables[Table]; bytes: number }[] = [];
  readonly #sizes = new Map<Table, { count: number; bytes: number }>();
  #rest: Buffer[] = [];
  #restBytes = 0;
  #line = 0;
  #head: SnapshotHead | undefined;
  #checksum: string | undefined;

  take(chunk: Buffer): void {
    let from = 0;
    for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, from)) {
      const end = chunk.subarray(from, at + 1);
      this.#row(this.#rest.length === 0 ? end : Buffer.concat([...this.#rest, end]));
      this.#rest = [];
      this.#restBytes = 0;
      from = at + 1;
    }
    if (from === chunk.length) return;
    this.#rest.push(chunk.subarray(from));
    this.#restBytes += chunk.length - from;
    if (this.#restBytes > LINE_MAX_BYTES) throw damaged(`line ${this.#line + 1} does not end`);
  }

  #row(bytes: Buffer): void {
    this.#line++;
    if (this.#checksum !== undefined) throw damaged(`something follows its end (line ${this.#line})`);
    let row: Record<string, unknown>;
    try {
      row = JSON.parse(bytes.toString("utf8")) as Record<string, unknown>;
    } catch {
      throw damaged(`line ${this.#line} is not JSON`);
    }
    if (typeof row !== "object" || row === null) throw damaged(`line ${this.#line} is not an object`);
    if (this.#head === undefined) this.#takeHead(row);
    else if (HASH in row) {
      this.#takeFoot(row);
      return;
    } else this.#takeRecord(row, bytes.length);
    this.#hash.update(bytes);
  }

  #takeHead(row: Record<string, unknown>): void {
    if (row["format"] !== FORMAT) throw damaged("its first line does not say that it is a snapshot of Trilith");
    if (typeof row["version"] !== "number" || row["version"] > VERSION)
      throw new TrilithError(
        "newer-data",
        `the snapshot was written in version ${String(row["version"])} of the format by a newer Trilith; this one reads up to ${VERSION}. Nothing was changed`,
      );
    this.#head = row as unknown as SnapshotHead;
  }

  #takeRecord(row: Record<string, unknown>, bytes: number): void {
    const { table, key } = row as { table: Table; key: unknown };
    if (!TABLES.includes(table) || typeof key !== "string")
      throw damaged(`line ${this.#line} names no table or key that this version knows`);
    let value: Tables[Table];
    let own: string;
    try {
      value = decodeRecord(table, Buffer.from(JSON.stringify(row["value"] ?? null)));
      own = keyIn(table, value);
    } catch (error) {
      throw damaged(`line ${this.#line} holds no record of table ${table} (${messageOf(error)})`);
    }
    if (own !== key) throw damaged(`line ${this.#line}: the key does not belong to the record`);
    this.#records.push({ table, key, value, bytes });
    const size = this.#sizes.get(table) ?? { count: 0, bytes: 0 };
    this.#sizes.set(table, { count: size.count + 1, bytes: size.bytes + bytes });
  }

  #takeFoot(row: Record<string, unknown>): void {
    const checksum = this.#hash.digest("hex");
    if (row["records"] !== this.#records.length)
      throw damaged(`it should hold ${String(row["records"])} records, but holds ${this.#records.length}`);
    if (row[HASH] !== checksum) throw damaged("its checksum does not fit its content");
    this.#checksum = checksum;
  }

  end(): Snapshot {
    if (this.#head === undefined) throw damaged("it is empty");
    if (this.#checksum === undefined || this.#restBytes > 0)
      throw damaged(`it ends too early, after line ${this.#line}`);
    return { head: this.#head, records: this.#records, checksum: this.#checksum, sizes: this.#sizes };
  }
}

/**
 * What makes a directory hold what the snapshot holds: first what is put, then what is deleted. What lies on the node `own`, and on the
 * nodes of other agents that give a sign of life, stays as it is: those agents' lists are the truth about it. Of the nodes of all other
 * agents nobody knows whether they live: they come back as gone until they are heard of.
 */
export function restoring(
  view: View,
  snapshot: Snapshot,
  own: string,
): { readonly puts: readonly Change[]; readonly deletes: readonly Change[] } {
  const puts: Change[] = [];
  const deletes: Change[] = [];
  const wanted = new Map<Table, Set<string>>(TABLES.map((table) => [table, new Set()]));
  const agents = new Set([keyOf.node(own), ...Array.from(view.list("alive"), ({ node }) => keyOf.node(node))]);
  const agentsOwn = (table: Table, value: Tables[Table]): boolean => {
    if (table === "node") return agents.has(keyOf.node((value as Tables["node"]).name));
    if (table !== "service" && table !== "check") return false;
    return agents.has(keyOf.node((value as Tables["service"]).node));
  };
  const external = new Set<string>();
  for (const { table, key, value } of snapshot.records) {
    wanted.get(table)?.add(key);
    if (agentsOwn(table, value) || isPassing(table, value)) continue;
    if (table === "node" && (value as Tables["node"]).external === true) external.add(key);
    const check = table === "check" ? (value as Tables["check"]) : undefined;
    if (check?.id === NODE_ALIVE_CHECK && !external.has(keyOf.node(check.node)))
      puts.push({ op: "put", table: "check", key, value: { ...check, status: "critical", output: NODE_DEAD_OUTPUT } });
    else puts.push({ op: "put", table, key, value } as Change);
  }
  for (const table of TABLES.toReversed())
    for (const entry of view.list(table)) {
      const key = keyIn(table, entry);
      if (!wanted.get(table)?.has(key) && !agentsOwn(table, entry) && !isPassing(table, entry))
        deletes.push({ op: "delete", table, key });
    }
  return { puts, deletes };
}
