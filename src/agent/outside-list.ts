// Reading what a source lists on external nodes: what can be held, and what is complained about. Pure.
import type { SourceList } from "../contracts/source.ts";
import type { CheckSpec } from "../model/check.ts";
import type { Registration } from "../model/instance.ts";
import { keyOf } from "../model/record.ts";
import { normalize, registrationFault, whoIs } from "./reconcile.ts";

export interface Complaint {
  readonly from: string;
  readonly about: string;
  readonly text: string;
}

/** Kinds that something outside reports to, which nobody can for an instance that several agents hold. */
const PUSHED: ReadonlySet<string> = new Set(["ttl", "alias"]);
interface Circumstances {
  /** The check as it can be asked here, or in its place one that says why it cannot. */
  readonly askable: (from: string, spec: CheckSpec) => CheckSpec;
  /** Which source of this host lists the same already. */
  readonly ownerOf: (nodeKey: string, id: string) => string | undefined;
}

/** What of a source's list lies outside this host, by node and id. */
export function readOutside(
  from: string,
  whole: SourceList,
  { askable, ownerOf }: Circumstances,
): { readonly listed: ReadonlyMap<string, Registration>; readonly faults: readonly Complaint[] } {
  const faults: Complaint[] = [];
  const listed = new Map<string, Registration>();
  for (const given of whole.list) {
    if (given.external === undefined) continue;
    const fault = registrationFault(given) ?? faultOf(given);
    if (fault !== undefined) {
      faults.push({ from, about: String(given.id), text: fault });
      continue;
    }
    const r = normalize(given);
    const twice = listed.has(nameOf(r));
    const owner = ownerOf(nodeKeyOf(r), r.id) ?? from;
    if (twice || owner !== from)
      faults.push({
        from,
        about: r.id,
        text: `the id "${r.id}" on the external node "${r.external?.node.name}" is listed ${twice ? "twice" : `by ${owner}, too`}: ${whoIs(r)} is left out`,
      });
    else listed.set(nameOf(r), { ...r, checks: checksOf(from, r, askable, faults) });
  }
  return { listed, faults };
}

function checksOf(
  from: string,
  r: Registration,
  askable: Circumstances["askable"],
  faults: Complaint[],
): readonly CheckSpec[] {
  return r.checks.flatMap((spec) => {
    if (!PUSHED.has(spec.kind)) return [askable(from, spec)];
    const text = `check "${spec.id}" of kind "${spec.kind}" is left out: an instance on an external node is asked for its health, or its source knows it (kind "none")`;
    faults.push({ from, about: r.id, text });
    return [];
  });
}

/** The key of the external node. */
export function nodeKeyOf(r: Registration): string {
  return keyOf.node(r.external?.node.name ?? "");
}

/** Node and id: unique among everything outside. */
export function nameOf(r: Registration): string {
  return `${nodeKeyOf(r)}\u0000${r.id}`;
}

/** What is wrong with an external node; undefined = nothing. */
function faultOf({ name, external }: Registration): string | undefined {
  const node = external?.node;
  if (typeof node?.name !== "string" || node.name === "" || /[\u0000-\u0020/]/.test(node.name))
    return `service "${name}": external node ${JSON.stringify(node?.name)}: expected a name without blanks, slashes and control characters`;
  if (typeof node.address !== "string" || node.address === "")
    return `service "${name}": the external node "${node.name}" has no address`;
  for (const [key, value] of Object.entries(node.labels ?? {}))
    if (typeof value !== "string")
      return `service "${name}": external node "${node.name}", label "${key}": expected a text`;
  return undefined;
}
