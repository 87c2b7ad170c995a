// /v1/config: configuration entries, checked and completed as Consul does, kept and given back. Without a service mesh nothing goes by them.
import { createHash } from "node:crypto";
import { type Entry, keyOf, type Scope, scope } from "../../../model/record.ts";
import { answerQuery } from "../blocking.ts";
import type { Call, Reply, Row } from "../call.ts";
import { type ConfigEntry, entryFault, isKind, readEntry } from "../config-kinds.ts";
import { decodeBody } from "../decode.ts";
import { Refusal } from "../errors.ts";
import { ownDatacenterOnly, readDatacenter, readOptions } from "../options.ts";
import { parseUint } from "../query.ts";

const KIND = "consul.config";
const SCOPE: Scope = scope.kept(KIND);
const idOf = (kind: string, name: string): string => `${kind}/${name}`;
/** An entry as it is shown: with a number that stands for what it says, and its place on the line of changes. */
const encode = ({ value, createIndex, modifyIndex }: Entry<"kept">): ConfigEntry => ({
  ...(value as ConfigEntry),
  Hash: hashOf(value),
  CreateIndex: createIndex,
  ModifyIndex: modifyIndex,
});

/** The same number for the same content; 48 bits, so that every reader of JSON keeps it whole. */
function hashOf(value: unknown): number {
  return Number.parseInt(createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 12), 16);
}

function casOf({ query }: Call): number | undefined {
  if (query.get("cas") === "") return undefined;
  const cas = parseUint(query.get("cas"));
  if (!cas.ok) throw new Refusal(500, cas.text);
  return Number(cas.value);
}

async function put(call: Call): Promise<Reply> {
  const entry = decodeBody(await call.body(), readEntry, "Request decoding failed: ");
  ownDatacenterOnly(readDatacenter(call));
  const cas = casOf(call);
  const fault = entryFault(entry);
  if (fault !== undefined) throw new Refusal(500, fault);
  const id = idOf(String(entry["Kind"]), String(entry["Name"]));
  const key = keyOf.kept(KIND, id);
  const written = await call.ground.directory.write(
    [{ op: "put", table: "kept", key, value: { kind: KIND, id, value: entry } }],
    cas === undefined ? [] : [{ table: "kept", key, at: cas }],
    call.signal,
  );
  if (written.result === "unknown") throw written.cause;
  return { json: written.result === "written" };
}

/** Kind, and name where the path goes on behind it. */
function named({ suffix }: Call): { readonly kind: string; readonly name: string | undefined } {
  const at = suffix.indexOf("/");
  return at === -1 ? { kind: suffix, name: undefined } : { kind: suffix.slice(0, at), name: suffix.slice(at + 1) };
}

/** @throws Refusal with `status` for a kind that there is not */
function checkKind(kind: string, status: number): void {
  if (!isKind(kind)) throw new Refusal(status, `invalid config entry kind: ${kind}`);
}

function read(call: Call): Promise<Reply> {
  const { kind, name } = named(call);
  const { datacenter } = readOptions(call);
  ownDatacenterOnly(datacenter);
  if (name !== undefined || kind !== "") checkKind(kind, 500);
  return answerQuery(call, { tellConsistency: false }, (view) => {
    const index = view.at(SCOPE);
    if (name === undefined) {
      const prefix = kind === "" ? keyOf.ofKind(KIND) : keyOf.kept(KIND, idOf(kind, ""));
      return { index, waitOn: [SCOPE], reply: { json: Array.from(view.list("kept", prefix), encode) } };
    }
    const found = view.get("kept", keyOf.kept(KIND, idOf(kind, name)));
    return {
      index,
      waitOn: [SCOPE],
      missing: found === undefined,
      reply:
        found === undefined
          ? { status: 404, text: `Config entry not found for ${JSON.stringify(kind)} / ${JSON.stringify(name)}` }
          : { json: encode(found) },
    };
  });
}

async function remove(call: Call): Promise<Reply> {
  const { kind, name } = named(call);
  if (name === undefined) throw new Refusal(404, "Must provide both a kind and name to delete");
  checkKind(kind, 400);
  ownDatacenterOnly(readDatacenter(call));
  const cas = casOf(call);
  const key = keyOf.kept(KIND, idOf(kind, name));
  const written = await call.ground.directory.write(
    [{ op: "delete", table: "kept", key }],
    cas === undefined ? [] : [{ table: "kept", key, at: cas }],
    call.signal,
  );
  if (written.result === "unknown") throw written.cause;
  return { json: cas === undefined ? {} : written.result === "written" };
}

export const configEntryRows: readonly Row[] = [
  { pattern: "/v1/config", methods: ["PUT"], endpoint: put },
  {
    pattern: "/v1/config/",
    methods: ["GET", "DELETE"],
    endpoint: (call) => (call.method === "GET" ? read(call) : remove(call)),
  },
];
