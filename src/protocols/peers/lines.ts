// What a host says of itself: who it is, its own node, instances and checks whole and then what changes, signs of life, goodbye.
import { TrilithError } from "../../base/error.ts";
import type { View } from "../../contracts/directory.ts";
import { recordToldBy } from "../../contracts/join.ts";
import { recordText } from "../../model/codec.ts";
import type { Reason } from "../../model/reason.ts";
import { type Entry, keyOf, type Tables } from "../../model/record.ts";

/** Below this path a host shows its own. */
export const PEERS_PATH = "/v1/peers/";
export const PEERS_VERSION = 1;

/** The tables that a host shows of itself. */
export type OwnTable = "node" | "service" | "check";
const OWN_TABLES: readonly OwnTable[] = ["node", "service", "check"];

/** The first line. */
export interface Hello {
  readonly kind: "hello";
  readonly version: number;
  readonly datacenter: string;
  readonly node: string;
  readonly nodeId: string;
  /** Another text after each start. */
  readonly life: string;
}

/** One record of the host, or one that is gone with the reason for it. */
export type OwnRow =
  | { [T in OwnTable]: { readonly table: T; readonly id: string; readonly value: Tables[T] } }[OwnTable]
  | { readonly table: OwnTable; readonly id: string; readonly value: undefined; readonly why?: Reason };

export type PeerLine =
  | Hello
  /** `whole`: what is not among the rows is not there. */
  | { readonly kind: "own"; readonly whole: boolean; readonly rows: readonly OwnRow[] }
  | { readonly kind: "beat" }
  /** Where it hears others from now on, as `host:port`. */
  | { readonly kind: "peers"; readonly at: readonly string[] }
  /** The agent stops; with `leave` its node is to be forgotten. */
  | { readonly kind: "goodbye"; readonly leave: boolean };

/** A record's name among those of its host: `id` of `OwnRow`. */
const idOf = (table: OwnTable, value: Entry<OwnTable> | Tables[OwnTable]): string =>
  table === "node" ? "" : (value as Tables["service"] | Tables["check"]).id;

/** What a reader was told, to tell him only what is different. */
export type ToldRows = Map<string, { readonly table: OwnTable; readonly id: string; readonly at: number }>;

const text = JSON.stringify;

/** The line that leads from what was told to the view; undefined where it says nothing. Brings `told` up to date. */
export function ownLine(view: View, node: string, told: ToldRows): string | undefined {
  const whole = told.size === 0;
  const rows: string[] = [];
  const seen = new Set<string>();
  const own = view.get("node", keyOf.node(node));
  if (own === undefined) return undefined;
  const tell = (table: OwnTable, entry: Entry<OwnTable>): void => {
    const { createIndex: _, modifyIndex, ...value } = entry;
    const id = idOf(table, entry);
    const name = `${table}\u0000${id}`;
    seen.add(name);
    if (told.get(name)?.at === modifyIndex) return;
    told.set(name, { table, id, at: modifyIndex });
    rows.push(`{"table":"${table}","id":${text(id)},"value":${recordText(table, value as never)}}`);
  };
  // External nodes have witnesses; only what a node is itself is told.
  const { witnessed: _, ...plain } = own;
  tell("node", plain);
  for (const table of ["service", "check"] as const)
    for (const entry of view.list(table, keyOf.ofNode(node))) tell(table, entry);
  for (const [name, { table, id }] of [...told]) {
    if (seen.has(name)) continue;
    told.delete(name);
    const why = table === "service" ? whyGone(view, keyOf.service(node, id)) : undefined;
    rows.push(text({ table, id, ...(why === undefined ? {} : { why }) }));
  }
  return rows.length === 0 && !whole ? undefined : `{"kind":"own","whole":${whole},"rows":[${rows.join(",")}]}`;
}

/** The last word on why an instance went. */
function whyGone(view: View, key: string): Reason | undefined {
  let last: { readonly at: number; readonly why: Reason | undefined } | undefined;
  for (const { gone, why, modifyIndex } of view.list("grave"))
    if (modifyIndex >= (last?.at ?? 0) && gone?.some((one) => one.table === "service" && one.key === key) === true)
      last = { at: modifyIndex, why };
  return last?.why;
}

/** @throws TrilithError `damaged` for what is no line of this conversation, `invalid` for a record that is none */
export function readPeerLine(line: string): PeerLine {
  const damaged = (what: string): never => {
    throw new TrilithError("damaged", `${what}: ${text(line.slice(0, 120))}`);
  };
  let raw: Record<string, unknown>;
  try {
    raw = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return damaged("a line that is no JSON");
  }
  switch (raw === null || typeof raw !== "object" ? undefined : raw["kind"]) {
    case "beat":
      return { kind: "beat" };
    case "goodbye":
      return { kind: "goodbye", leave: raw["leave"] === true };
    case "hello": {
      const { version, datacenter, node, nodeId, life } = raw;
      if (typeof version !== "number") return damaged("a greeting without a version");
      for (const one of [datacenter, node, nodeId, life])
        if (typeof one !== "string" || one === "" || one.includes("\u0000"))
          return damaged("a greeting without a name");
      return { kind: "hello", version, datacenter, node, nodeId, life } as Hello;
    }
    case "peers": {
      const { at } = raw;
      if (!Array.isArray(at) || !at.every((one) => typeof one === "string" && /^\S+:\d{1,5}$/.test(one)))
        return damaged("peers that are no list of places");
      return { kind: "peers", at };
    }
    case "own": {
      if (!Array.isArray(raw["rows"])) return damaged("a list without rows");
      const rows = (raw["rows"] as readonly (Record<string, unknown> | null)[]).map((row): OwnRow => {
        const { table, id, value, why } = row ?? {};
        if (!OWN_TABLES.includes(table as OwnTable) || typeof id !== "string") return damaged("a row of no table");
        const known = table as OwnTable;
        if (value === undefined) return { table: known, id, value, ...(isReason(why) ? { why } : {}) } satisfies OwnRow;
        const record = recordToldBy("a peer", known, value);
        if (idOf(known, record) !== id) return damaged("a row under another name than its own");
        return { table: known, id, value: record } as OwnRow;
      });
      return { kind: "own", whole: raw["whole"] === true, rows };
    }
    default:
      return damaged("a line of an unknown kind");
  }
}

const CODES: Readonly<Record<Reason["code"], true>> = {
  deregistered: true,
  stopped: true,
  died: true,
  goodbye: true,
  missing: true,
  expired: true,
  "node-removed": true,
  reaped: true,
  refused: true,
  draining: true,
  maintenance: true,
  replaced: true,
};

function isReason(raw: unknown): raw is Reason {
  const { code, text: words, confirmed, atMs } = (raw ?? {}) as Record<string, unknown>;
  return (
    typeof code === "string" &&
    Object.hasOwn(CODES, code) &&
    typeof words === "string" &&
    typeof confirmed === "boolean" &&
    typeof atMs === "number"
  );
}
