// The index that an answer of catalog and health tells: that of what waiters wait for, or with `compat: consul` Consul's own, which counts more.
import type { View } from "../../contracts/directory.ts";
import { type Index, type Scope, scope } from "../../model/record.ts";
import type { Call } from "./call.ts";

// Consul counts by tables where it wakes by records [agent/consul/state/catalog.go]: whoever comes back with an older index is answered
// at once. Here that is so where somebody asked for Consul's behaviour; otherwise a change elsewhere never costs an answer.
const asConsul = (call: Call): boolean => call.ground.self.compat === "consul";

const highest = (view: View, scopes: readonly Scope[]): Index => Math.max(...scopes.map((one) => view.at(one)));

/** Of the list of nodes: Consul's moves with services, too. */
export function nodes(call: Call, view: View): Index {
  return highest(view, asConsul(call) ? ["nodes", "services"] : ["nodes"]);
}

/** Of a service's instances: Consul's moves with their checks, too. */
export function instances(call: Call, view: View, service: string): Index {
  if (!asConsul(call)) return view.at(scope.instances(service));
  return health(call, view, [scope.service(service)], view.residents(service).length > 0, ["nodes", "services"]);
}

/** Of the checks in a scope: Consul has one for all checks. */
export function checks(call: Call, view: View, own: Scope): Index {
  return view.at(asConsul(call) ? "checks" : own);
}

/** Of a service's checks, chosen by their nodes or all of them. */
export function serviceChecks(call: Call, view: View, service: string, byNode: boolean): Index {
  if (!asConsul(call) || !byNode) return checks(call, view, scope.checksOf(service));
  return health(call, view, [scope.service(service)], view.residents(service).length > 0);
}

/** Of what is in `own`. Of a service that never was there Consul tells when anything last moved in `tables`. */
export function health(
  call: Call,
  view: View,
  own: readonly Scope[],
  exists: boolean,
  tables: readonly Scope[] = ["nodes", "services", "checks"],
): Index {
  const index = highest(view, own);
  return asConsul(call) && !exists && index <= 1 ? highest(view, tables) : index;
}
