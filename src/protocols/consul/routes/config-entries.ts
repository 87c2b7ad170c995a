// /v1/config: configuration entries, kept and given back as they were told. Without a service mesh nothing here goes by them.
import { TrilithError } from "../../../base/error.ts";
import { type Entry, keyOf, type Scope, scope } from "../../../model/record.ts";
import { answerQuery } from "../blocking.ts";
import type { Call, Reply, Row } from "../call.ts";
import { decodeBody } from "../decode.ts";
import { Refusal } from "../errors.ts";
import { ownDatacenterOnly, readOptions, refuseEnterprise } from "../options.ts";
import { parseUint } from "../query.ts";

const KIND = "consul.config";
const SCOPE: Scope = scope.kept(KIND);
const KINDS: ReadonlySet<string> = new Set([
  "api-gateway",
  "bound-api-gateway",
  "control-plane-request-limit",
  "exported-services",
  "file-system-certificate",
  "http-route",
  "ingress-gateway",
  "inline-certificate",
  "jwt-provider",
  "mesh",
  "proxy-defaults",
  "sameness-group",
  "service-defaults",
  "service-intentions",
  "service-resolver",
  "service-router",
  "service-splitter",
  "tcp-route",
  "terminating-gateway",
]);
/** Kinds of which there is one only, with the name it has. */
const SINGLE: Readonly<Record<string, string>> = { "proxy-defaults": "global", mesh: "mesh" };

type Told = Readonly<Record<string, unknown>>;

const idOf = (kind: string, name: string): string => `${kind}/${name}`;
const encode = ({ value, createIndex, modifyIndex }: Entry<"kept">): Told => ({
  ...(value as Told),
  CreateIndex: createIndex,
  ModifyIndex: modifyIndex,
});

/** An entry's object with Kind and Name spelt so, whatever their case was. */
function entryIn(raw: unknown): Told {
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new TrilithError("invalid", "expected an object with Kind and Name");
  const told: Record<string, unknown> = Object.create(null);
  for (const [key, value] of Object.entries(raw)) {
    const known = ["Kind", "Name", "CreateIndex", "ModifyIndex"].find((one) => one.toLowerCase() === key.toLowerCase());
    if (known !== "CreateIndex" && known !== "ModifyIndex") told[known ?? key] = value;
  }
  const kind = told["Kind"];
  if (typeof kind !== "string" || kind === "")
    throw new TrilithError("invalid", "Payload does not contain a kind/Kind key at the top level");
  if (!KINDS.has(kind)) throw new TrilithError("invalid", `invalid config entry kind: ${kind}`);
  told["Name"] ??= SINGLE[kind] ?? "";
  // What Consul always shows of these.
  if (kind === "service-defaults" || kind === "proxy-defaults")
    for (const part of ["TransparentProxy", "MeshGateway", "Expose"]) told[part] ??= {};
  return told;
}

function casOf({ query }: Call): number | undefined {
  if (query.get("cas") === "") return undefined;
  const cas = parseUint(query.get("cas"));
  if (!cas.ok) throw new Refusal(500, cas.text);
  return Number(cas.value);
}

async function put(call: Call): Promise<Reply> {
  refuseEnterprise(call);
  ownDatacenterOnly(readOptions(call).datacenter);
  const cas = casOf(call);
  const told = decodeBody(await call.body(), entryIn, "Request decoding failed: ");
  const [kind, name] = [String(told["Kind"]), told["Name"]];
  if (typeof name !== "string" || name === "") throw new Refusal(500, "Name is required");
  const single = SINGLE[kind];
  if (single !== undefined && name !== single)
    throw new Refusal(500, `invalid name (${JSON.stringify(name)}), only ${JSON.stringify(single)} is supported`);
  const id = idOf(kind, name);
  const key = keyOf.kept(KIND, id);
  const written = await call.ground.directory.write(
    [{ op: "put", table: "kept", key, value: { kind: KIND, id, value: told } }],
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

function read(call: Call): Promise<Reply> {
  refuseEnterprise(call);
  const { kind, name } = named(call);
  if (name === undefined && kind !== "" && !KINDS.has(kind))
    throw new Refusal(500, `invalid config entry kind: ${kind}`);
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
  refuseEnterprise(call);
  ownDatacenterOnly(readOptions(call).datacenter);
  const { kind, name } = named(call);
  if (name === undefined) throw new Refusal(404, "Must provide both a kind and name to delete");
  if (!KINDS.has(kind)) throw new Refusal(400, `invalid config entry kind: ${kind}`);
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
