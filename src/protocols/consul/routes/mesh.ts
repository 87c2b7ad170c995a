// What Consul answers where its service mesh is off: nobody is kept from anybody, and the rest needs the mesh.
import type { Scope } from "../../../model/record.ts";
import { answerQuery, type Manner } from "../blocking.ts";
import type { Call, Reply, Row } from "../call.ts";
import { Refusal } from "../errors.ts";
import { type Enterprise, ownDatacenterOnly, readOptions } from "../options.ts";

const NEEDS_MESH: readonly (readonly [pattern: string, ...methods: string[]])[] = [
  ["/v1/agent/connect/authorize", "POST"],
  ["/v1/agent/connect/ca/leaf/", "GET"],
  ["/v1/agent/connect/ca/roots", "GET"],
  ["/v1/connect/ca/configuration", "GET", "PUT"],
  ["/v1/connect/ca/roots", "GET"],
  ["/v1/discovery-chain/", "GET", "POST"],
  ["/v1/imported-services", "GET"],
  ["/v1/peering/establish", "POST"],
  ["/v1/peering/token", "POST"],
];

const MANNER: Manner = { tellConsistency: false };

function meshDisabled(): never {
  throw new Refusal(500, "Connect must be enabled in order to use this endpoint");
}

/** Nothing there, and nothing will be: a waiter waits for its time to pass. */
const NEVER: Scope = "kv:\u0000";

function always(call: Call, json: unknown, enterprise: Enterprise = "all"): Promise<Reply> {
  return answerQuery(call, { ...MANNER, enterprise }, () => ({ index: 1, waitOn: [NEVER], reply: { json } }));
}

/** The one value of a parameter. @throws Refusal 500 in Consul's words */
function required({ query }: Call, name: string): string {
  const values = query.all(name);
  if (values.length !== 1) throw new Refusal(500, `required query parameter '${name}' not set`);
  return values[0] as string;
}

/** Reads `service` or `namespace/service`. @throws Refusal 500 in Consul's words */
function checkName(what: string, name: string): void {
  const refuse = (why: string): never => {
    throw new Refusal(500, `${what} ${JSON.stringify(name)} is invalid: ${why}`);
  };
  if (name.startsWith("peer:")) refuse("cannot specify a peer here");
  if (name.split("/").length > 3) refuse("input can contain at most two '/'");
}

function match(call: Call): Promise<Reply> {
  readOptions(call);
  const by = required(call, "by");
  if (by !== "source" && by !== "destination")
    throw new Refusal(500, "'by' parameter must be one of 'source' or 'destination'");
  const names = call.query.all("name");
  if (names.length === 0) throw new Refusal(500, "required query parameter 'name' not set");
  for (const name of names) checkName("name", name);
  return always(call, Object.fromEntries(names.map((name) => [name, []])));
}

/** Without intentions everybody may ask everybody, as without access control. */
function check(call: Call): Reply {
  const { datacenter } = readOptions(call);
  checkName("source", required(call, "source"));
  checkName("destination", required(call, "destination"));
  ownDatacenterOnly(datacenter);
  return { json: { Allowed: true } };
}

function exact(call: Call): Reply {
  if (call.method !== "GET") meshDisabled();
  const { datacenter } = readOptions(call);
  required(call, "source");
  checkName("destination", required(call, "destination"));
  ownDatacenterOnly(datacenter);
  throw new Refusal(404, "Intention not found");
}

function one(call: Call): Reply {
  if (call.method !== "GET") meshDisabled();
  ownDatacenterOnly(readOptions(call).datacenter);
  throw new Refusal(404, "Intention not found");
}

function peering(call: Call): Reply {
  if (call.method !== "GET") meshDisabled();
  if (call.suffix === "") throw new Refusal(400, "Must specify a name to fetch.");
  throw new Refusal(404, `Peering not found for ${JSON.stringify(call.suffix)}`);
}

export const meshRows: readonly Row[] = [
  ...NEEDS_MESH.map(([pattern, ...methods]): Row => ({ pattern, methods, endpoint: meshDisabled })),
  {
    pattern: "/v1/connect/intentions",
    methods: ["GET", "POST"],
    endpoint: (call) => (call.method === "GET" ? always(call, []) : meshDisabled()),
  },
  { pattern: "/v1/connect/intentions/match", methods: ["GET"], endpoint: match },
  { pattern: "/v1/connect/intentions/check", methods: ["GET"], endpoint: check },
  { pattern: "/v1/connect/intentions/exact", methods: ["GET", "PUT", "DELETE"], endpoint: exact },
  { pattern: "/v1/connect/intentions/", methods: ["GET", "PUT", "DELETE"], endpoint: one },
  { pattern: "/v1/exported-services", methods: ["GET"], endpoint: (call) => always(call, [], "partition") },
  { pattern: "/v1/peerings", methods: ["GET"], endpoint: (call) => always(call, []) },
  { pattern: "/v1/peering/", methods: ["GET", "DELETE"], endpoint: peering },
];
