// What a plain Consul answers where nothing is configured: access control is off, there is no service mesh.
import type { Scope } from "../../../model/record.ts";
import { answerQuery } from "../blocking.ts";
import type { Call, Reply, Row } from "../call.ts";
import { Refusal } from "../errors.ts";

const ACL: readonly (readonly [pattern: string, ...methods: string[]])[] = [
  ["/v1/acl/bootstrap", "PUT"],
  ["/v1/acl/login", "POST"],
  ["/v1/acl/logout", "POST"],
  ["/v1/acl/replication", "GET"],
  ["/v1/acl/policies", "GET"],
  ["/v1/acl/policy", "PUT"],
  ["/v1/acl/policy/", "GET", "PUT", "DELETE"],
  ["/v1/acl/policy/name/", "GET"],
  ["/v1/acl/roles", "GET"],
  ["/v1/acl/role", "PUT"],
  ["/v1/acl/role/", "GET", "PUT", "DELETE"],
  ["/v1/acl/role/name/", "GET"],
  ["/v1/acl/binding-rules", "GET"],
  ["/v1/acl/binding-rule", "PUT"],
  ["/v1/acl/binding-rule/", "GET", "PUT", "DELETE"],
  ["/v1/acl/auth-methods", "GET"],
  ["/v1/acl/auth-method", "PUT"],
  ["/v1/acl/auth-method/", "GET", "PUT", "DELETE"],
  ["/v1/acl/tokens", "GET"],
  ["/v1/acl/token", "PUT"],
  ["/v1/acl/token/", "GET", "PUT", "DELETE"],
  ["/v1/acl/token/self", "GET"],
  ["/v1/acl/templated-policies", "GET"],
  ["/v1/acl/templated-policy/name/", "GET"],
  ["/v1/acl/templated-policy/preview/", "POST"],
  ["/v1/agent/token/", "PUT"],
];

const MESH: readonly (readonly [pattern: string, ...methods: string[]])[] = [
  ["/v1/agent/connect/authorize", "POST"],
  ["/v1/agent/connect/ca/leaf/", "GET"],
  ["/v1/agent/connect/ca/roots", "GET"],
  ["/v1/connect/ca/configuration", "GET", "PUT"],
  ["/v1/connect/ca/roots", "GET"],
  ["/v1/connect/intentions/", "GET", "PUT", "DELETE"],
  ["/v1/connect/intentions/check", "GET"],
  ["/v1/connect/intentions/exact", "GET", "PUT", "DELETE"],
  ["/v1/connect/intentions/match", "GET"],
  ["/v1/discovery-chain/", "GET", "POST"],
  ["/v1/exported-services", "GET"],
  ["/v1/imported-services", "GET"],
  ["/v1/peering/", "GET", "DELETE"],
  ["/v1/peering/establish", "POST"],
  ["/v1/peering/token", "POST"],
];

function meshDisabled(): never {
  throw new Refusal(500, "Connect must be enabled in order to use this endpoint: Trilith has no service mesh");
}

function aclDisabled(): never {
  throw new Refusal(401, "ACL support disabled");
}

/** Nothing there, and nothing will be: a waiter waits for its time to pass. */
const NEVER: Scope = "kv:\u0000";

function nothing(call: Call): Promise<Reply> {
  return answerQuery(call, { tellConsistency: false }, () => ({ index: 1, waitOn: [NEVER], reply: { json: [] } }));
}

export const absentRows: readonly Row[] = [
  ...ACL.map(([pattern, ...methods]): Row => ({ pattern, methods, endpoint: aclDisabled })),
  ...MESH.map(([pattern, ...methods]): Row => ({ pattern, methods, endpoint: meshDisabled })),
  { pattern: "/v1/connect/intentions", methods: ["GET"], endpoint: nothing },
  { pattern: "/v1/peerings", methods: ["GET"], endpoint: nothing },
];
