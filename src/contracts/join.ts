// What a client host and the agent it joined say to each other: lines of JSON that carry batches of the directory, and commits.
import { TrilithError } from "../base/error.ts";
import { recordFrom, recordText } from "../model/codec.ts";
import type { Change, Expect, Index, Table, Tables } from "../model/record.ts";
import type { Batch, Commit, Row } from "./storage.ts";

/** The paths of the conversation lie below this one on the agent's HTTP listener. */
export const JOIN_PREFIX = "/v1/trilith/join/";
/** Named in the first answer; a server that speaks another one is used as a plain Consul. */
export const JOIN_VERSION = 1;
/** The tables of the directory that a client host has a copy of. */
export const JOINED_TABLES = ["node", "service", "check", "alive"] as const;
/** The tables that a client host may write. Signs of life have a verb of their own. */
const WRITABLE_TABLES: ReadonlySet<string> = new Set(["node", "service", "check"]);

/** What a stream carries: the copy, and why something of it went. */
const STREAMED: ReadonlySet<string> = new Set([...JOINED_TABLES, "grave"]);

/** The first line of a stream. `line` names the server's memory of changes: positions in it mean something only there. */
export interface Hello {
  readonly kind: "hello";
  /** The server's JOIN_VERSION. */
  readonly version: number;
  readonly line: string;
  readonly datacenter: string;
  readonly node: string;
  /** On a client host: the nodes that its own directory comes from, the nearest first. */
  readonly via?: readonly string[];
}

/** What the lines of a stream hold. `still` says that nothing has happened; with an age that the server itself is cut off since then. */
export type JoinLine =
  | Hello
  | Exclude<Batch, { kind: "reachable" }>
  | { readonly kind: "still"; readonly ageMs?: number };

interface RowJson {
  readonly table: Table;
  readonly key: string;
  readonly createIndex: number;
  readonly modifyIndex: number;
  readonly value?: unknown;
}

function rowText({ table, key, value, createIndex, modifyIndex }: Row): string {
  const head = JSON.stringify({ table, key, createIndex, modifyIndex });
  return value === undefined ? head : `${head.slice(0, -1)},"value":${recordText(table, value)}}`;
}

/** A batch as one line, with the line's end. */
export function batchLine(batch: Exclude<Batch, { kind: "reachable" }>): string {
  const { rows, ...head } = batch;
  return `${JSON.stringify(head).slice(0, -1)},"rows":[${rows.map(rowText).join(",")}]}\n`;
}

/** @throws TrilithError `damaged` for what is no line of this conversation */
export function readLine(text: string): JoinLine {
  const damaged = (what: string): never => {
    throw new TrilithError("damaged", `${what}: ${JSON.stringify(text.slice(0, 120))}`);
  };
  let parsed: { readonly kind?: unknown; readonly rows?: unknown; readonly index?: unknown };
  try {
    parsed = JSON.parse(text) as typeof parsed;
  } catch {
    return damaged("a line that is not JSON");
  }
  if (typeof parsed !== "object" || parsed === null) return damaged("a line that is not an object");
  if (parsed.kind === "still") return parsed as JoinLine;
  if (parsed.kind === "hello") {
    const { line, datacenter, node, via } = parsed as Partial<Hello>;
    if (typeof line !== "string" || typeof datacenter !== "string" || typeof node !== "string")
      return damaged("a greeting without a name");
    if (via !== undefined && !(Array.isArray(via) && via.every((one) => typeof one === "string")))
      return damaged("a greeting from nowhere");
    return parsed as JoinLine;
  }
  if ((parsed.kind !== "snapshot" && parsed.kind !== "delta") || !Array.isArray(parsed.rows))
    return damaged("a line of an unknown kind");
  if (!Number.isSafeInteger(parsed.index)) return damaged("a line without an index");
  const rows = (parsed.rows as readonly (Partial<RowJson> | null)[]).map((raw): Row => {
    const { table, key, createIndex, modifyIndex, value } = raw ?? {};
    if (typeof table !== "string" || !STREAMED.has(table) || typeof key !== "string")
      return damaged("a row of no table");
    if (!Number.isSafeInteger(createIndex) || !Number.isSafeInteger(modifyIndex))
      return damaged("a row without indexes");
    return {
      table,
      key,
      createIndex: createIndex as Index,
      modifyIndex: modifyIndex as Index,
      value: value === undefined ? undefined : recordFrom(table, value),
    };
  });
  return { ...parsed, rows } as JoinLine;
}

/** A commit as the body of a request; graves are made where the change is made. */
export function commitText({ id, changes, expect }: Commit): string {
  const parts = changes
    .filter(({ table }) => WRITABLE_TABLES.has(table))
    .map((change) => {
      if (change.op === "delete") return JSON.stringify(change);
      const head = JSON.stringify({ op: "put", table: change.table, key: change.key });
      return `${head.slice(0, -1)},"value":${recordText(change.table, change.value)}}`;
    });
  return `{"id":${JSON.stringify(id)},"changes":[${parts.join(",")}],"expect":${JSON.stringify(expect)}}`;
}

const TEXTS: Readonly<Record<string, readonly string[]>> = {
  node: ["id", "name", "address", "datacenter"],
  service: ["id", "name", "node", "address"],
  check: ["id", "node", "name", "status", "notes", "output", "serviceId", "type"],
};
const STATUSES: ReadonlySet<unknown> = new Set(["passing", "warning", "critical"]);

/** A node, instance or check as another host tells it. @throws TrilithError `invalid` that says what is wrong */
export function recordToldBy<T extends "node" | "service" | "check">(who: string, table: T, value: unknown): Tables[T] {
  const record = recordFrom(table, value);
  const wrong =
    typeof record === "object" && record !== null
      ? fault(table, record as unknown as Record<string, unknown>)
      : "it is not an object";
  if (wrong !== undefined) throw new TrilithError("invalid", `${who}: ${table}: ${wrong}`);
  return record;
}

function fault(table: string, value: Record<string, unknown>): string | undefined {
  for (const name of TEXTS[table] ?? []) if (typeof value[name] !== "string") return `${name} is not text`;
  const isMap = (name: string): boolean => typeof value[name] === "object" && value[name] !== null;
  if (table === "node" && !(isMap("labels") && isMap("taggedAddresses")))
    return "labels or taggedAddresses are missing";
  if (table === "check" && !STATUSES.has(value["status"])) return "the status is unknown";
  if (table !== "service") return undefined;
  const tags = value["tags"];
  if (!Array.isArray(tags) || !tags.every((tag) => typeof tag === "string")) return "tags is not a list of texts";
  if (!isMap("labels") || !isMap("origin")) return "labels or origin are missing";
  return Number.isInteger(value["port"]) ? undefined : "port is no whole number";
}

/** The commit in a request's body. @throws TrilithError `invalid` that says what is wrong */
export function readCommit(text: string): Commit {
  const invalid = (what: string): never => {
    throw new TrilithError("invalid", `a commit of a client host: ${what}`);
  };
  let parsed: { readonly id?: unknown; readonly changes?: unknown; readonly expect?: unknown };
  try {
    parsed = JSON.parse(text) as typeof parsed;
  } catch (error) {
    return invalid((error as Error).message);
  }
  if (typeof parsed?.id !== "string" || !Array.isArray(parsed.changes) || !Array.isArray(parsed.expect))
    return invalid("expected id, changes and expect");
  const changes = (parsed.changes as Record<string, unknown>[]).map((raw): Change => {
    const { op, table, key, value, why } = raw ?? {};
    if (typeof table !== "string" || !WRITABLE_TABLES.has(table))
      return invalid(`table ${JSON.stringify(table)} is not for clients`);
    if (typeof key !== "string") return invalid("a key is not text");
    if (op === "delete") return { op, table: table as Table, key, ...(why === undefined ? {} : { why }) } as Change;
    if (op !== "put") return invalid(`${JSON.stringify(op)}: expected put or delete`);
    const record = recordFrom(table as Table, value);
    const wrong = fault(table, record as unknown as Record<string, unknown>);
    if (wrong !== undefined) return invalid(`${table} ${JSON.stringify(key)}: ${wrong}`);
    return { op, table, key, value: record as Tables["node"] } as Change;
  });
  const expect = (parsed.expect as Record<string, unknown>[]).map((raw): Expect => {
    const { table, key, at } = raw ?? {};
    if (typeof table !== "string" || typeof key !== "string" || !Number.isSafeInteger(at))
      return invalid("an expectation needs table, key and at");
    return { table: table as Table, key, at: at as number };
  });
  return { id: parsed.id, changes, expect };
}
