// What Consul answers where access control is off.
import type { Row } from "../call.ts";
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
  ["/v1/internal/acl/authorize", "POST"],
];

function aclDisabled(): never {
  throw new Refusal(401, "ACL support disabled");
}

export const absentRows: readonly Row[] = ACL.map(
  ([pattern, ...methods]): Row => ({ pattern, methods, endpoint: aclDisabled }),
);
