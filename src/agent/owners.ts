// Who may hold an id, and who may have what asked: ranks, conflicts that name both sides, scripts.
import { InputError, TrilithError } from "../base/error.ts";
import type { Settings } from "../contracts/settings.ts";
import { type CheckSpec, NODE_ALIVE_CHECK } from "../model/check.ts";
import type { Registration } from "../model/instance.ts";
import { checkFault, whoIs } from "./reconcile.ts";
import { type CheckRecord, isMaintenance, type ServiceRecord } from "./records.ts";

/** Owner of what the agent itself sets up (maintenance). */
export const OWN = "agent";
const FILES = 1;

/** Who wins an id: the higher rank takes over from the lower one, equals do not take from each other. */
function rankOf(from: string): number {
  if (from === "api") return 3;
  if (from === OWN) return 0;
  return from === "file" || from.startsWith("file:") ? FILES : 2;
}

/** True where `from` may change or remove what `owner` holds. */
export function mayTake(from: string, owner: string): boolean {
  return from === owner || rankOf(from) > rankOf(owner);
}

/** What is held under the ids that somebody wants. */
export interface Held {
  readonly node: string;
  /** The id of the agent's own service. */
  readonly selfServiceId: string | undefined;
  readonly services: ReadonlyMap<string, ServiceRecord>;
  readonly checks: ReadonlyMap<string, CheckRecord>;
}

/** Why `from` cannot have what it wants because of who holds the service's id or one of its checks'; undefined = it can. */
export function conflictOf(held: Held, from: string, r: Registration): string | undefined {
  if (held.selfServiceId === r.id)
    return `the service id "${r.id}" belongs to the agent itself: ${from} (${whoIs(r)}) has to use another one`;
  const service = held.services.get(r.id);
  if (service !== undefined && !mayTake(from, service.from))
    return (
      `the service id "${r.id}" on node ${held.node} is held by ${service.from} (${whoIs(service.registration)}) and also ` +
      `wanted by ${from} (${whoIs(r)}): one of them has to use another id`
    );
  for (const spec of r.checks) {
    const text = checkConflictOf(held, from, spec.id, r.id);
    if (text !== undefined) return text;
  }
  return undefined;
}

/** Why `from` cannot have a check's id; undefined = it can. */
export function checkConflictOf(held: Held, from: string, id: string, serviceId: string): string | undefined {
  if (id === NODE_ALIVE_CHECK || isMaintenance(id))
    return `the check id "${id}" belongs to the agent itself: ${from} has to use another one`;
  const check = held.checks.get(id);
  if (check === undefined || mayTake(from, check.from)) return undefined;
  const about = (of: string): string => (of === "" ? "the node" : `service "${of}"`);
  return (
    `the check id "${id}" on node ${held.node} is held by ${check.from} (about ${about(check.serviceId)}) and also wanted by ` +
    `${from} (about ${about(serviceId)}): one of them has to use another id`
  );
}

/** Kinds that run commands, and so need to be allowed. */
const SCRIPT_KINDS: ReadonlySet<string> = new Set(["script", "docker"]);

/** Why a check cannot be asked: its kind is unknown, its interval missing, or scripts are not allowed for who wants it; undefined = it can. */
export function askFaultOf(
  from: string,
  spec: CheckSpec,
  kinds: { has(kind: string): boolean; keys(): Iterable<string> },
  scripts: Settings["scripts"],
): TrilithError | undefined {
  const fault = checkFault(spec, kinds);
  if (fault !== undefined) return new InputError("", fault);
  if (!SCRIPT_KINDS.has(spec.kind) || scripts.fromApi) return undefined;
  if (rankOf(from) !== FILES)
    return new TrilithError(
      "not-allowed",
      "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true",
    );
  if (scripts.fromFiles) return undefined;
  return new TrilithError(
    "not-allowed",
    "Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or 'enable_local_script_checks' to true",
  );
}
