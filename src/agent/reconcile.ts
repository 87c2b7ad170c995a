// Pure comparing: a registration brought into one shape, a source's whole list against its last one, records against records.

import { messageOf } from "../base/error.ts";
import type { SourceList } from "../contracts/source.ts";
import type { CheckSpec } from "../model/check.ts";
import type { Registration } from "../model/instance.ts";
import type { Labels } from "../model/node.ts";
import type { Reason } from "../model/reason.ts";
import { aliasDetail } from "./alias.ts";

/** True where two values of plain data are equal; a key with the value undefined counts as absent, the order of keys does not count. */
export function same(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null)
    return Number.isNaN(a) && Number.isNaN(b);
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
    return a.every((item, i) => same(item, b[i]));
  }
  const left = a as Record<string, unknown>;
  const right = b as Record<string, unknown>;
  let count = 0;
  for (const key of Object.keys(left)) {
    if (left[key] === undefined) continue;
    count++;
    if (!Object.hasOwn(right, key) || !same(left[key], right[key])) return false;
  }
  for (const key of Object.keys(right)) if (right[key] !== undefined) count--;
  return count === 0;
}

/** Like `same`, for an entry of the directory against the value it should have: the entry's place on the line does not count. */
export function sameRecord(entry: object | undefined, value: object | undefined): boolean {
  if (entry === undefined || value === undefined) return entry === value;
  const { createIndex: _c, modifyIndex: _m, ...rest } = entry as { createIndex?: unknown; modifyIndex?: unknown };
  return same(rest, value);
}

/** Labels without a prototype and without surprises. */
export function ownLabels(labels: Labels): Labels {
  const own: Record<string, string> = Object.create(null);
  for (const [key, value] of Object.entries(labels)) own[key] = value;
  return own;
}

/** Why a service's ID, name, port … cannot be held; undefined = nothing is wrong with it. Says what was given and what would be right. */
export function registrationFault(r: Registration): string | undefined {
  if (typeof r.name !== "string" || r.name === "") return `service "${String(r.id)}" has no name`;
  for (const [what, text] of [
    ["name", r.name],
    ["id", r.id],
    ["address", r.address],
  ] as const) {
    if (typeof text !== "string") return `service "${r.name}": ${what} ${JSON.stringify(text)}: expected a text`;
    if (text.includes("\0")) return `service ${JSON.stringify(r.name)}: ${what} must not contain NUL`;
  }
  if (!Number.isInteger(r.port) || r.port < 0 || r.port > 65_535)
    return `service "${r.name}": port ${JSON.stringify(r.port)}: expected a whole number from 0 to 65535`;
  if (!r.tags.every((tag) => typeof tag === "string")) return `service "${r.name}": tags: expected texts`;
  for (const [key, value] of Object.entries(r.labels))
    if (typeof value !== "string") return `service "${r.name}": label "${key}": expected a text`;
  return undefined;
}

/** Why a check cannot be held; undefined = nothing. `known` are the kinds that can be asked, besides "alias", "ttl" and "none". */
export function checkFault(
  spec: CheckSpec,
  known: { has(kind: string): boolean; keys(): Iterable<string> },
): string | undefined {
  const name = spec.name === "" ? spec.id : spec.name;
  if (spec.id.includes("\0")) return `check ${JSON.stringify(name)}: id must not contain NUL`;
  if (spec.kind === "alias") {
    try {
      aliasDetail(spec.detail);
    } catch (error) {
      return `check "${name}": ${messageOf(error)}`;
    }
    return undefined;
  }
  if (spec.kind !== "ttl" && spec.kind !== "none" && !known.has(spec.kind))
    return `check "${name}": unknown kind "${spec.kind}": known are ${[...known.keys(), "alias", "ttl", "none"].sort().join(", ")}`;
  if (known.has(spec.kind) && !(spec.intervalMs > 0))
    return `check "${name}" of kind "${spec.kind}": interval ${spec.intervalMs} ms: expected more than 0`;
  return undefined;
}

/** What the agent calls checks that have no id or name of their own. */
function nameChecks(serviceId: string, serviceName: string, checks: readonly CheckSpec[]): readonly CheckSpec[] {
  return checks.map((spec, i) => ({
    ...spec,
    id: spec.id !== "" ? spec.id : checks.length === 1 ? `service:${serviceId}` : `service:${serviceId}:${i + 1}`,
    name: spec.name !== "" ? spec.name : `Service '${serviceName}' check`,
  }));
}

/** A registration in the shape in which registrations are held and compared: own arrays and labels, all checks named. */
export function normalize(r: Registration): Registration {
  const id = r.id === "" ? r.name : r.id;
  return { ...r, id, tags: [...r.tags], labels: ownLabels(r.labels), checks: nameChecks(id, r.name, r.checks) };
}

/** What a new list changes. */
export interface Difference {
  /** New and changed registrations, normalised. */
  readonly put: readonly Registration[];
  readonly gone: readonly { readonly id: string; readonly why: Reason }[];
  /** New id → old id of what only changed its name: the source's own id for it stayed. */
  readonly renamed: ReadonlyMap<string, string>;
  /** The whole list as taken over, by id. */
  readonly list: ReadonlyMap<string, Registration>;
  readonly complaints: readonly { readonly about: string; readonly text: string }[];
}

/**
 * Compares a source's whole list with its last one. What cannot be held and what has an id that came before in the list is complained about
 * and counts as not listed; nothing throws. What is missing is gone, for the source's reason or as "missing", confirmed only at first hand.
 */
export function reconcile(
  from: string,
  before: ReadonlyMap<string, Registration>,
  whole: SourceList,
  atMs: number,
): Difference {
  const list = new Map<string, Registration>();
  const complaints = [...(whole.complaints ?? [])];
  for (const given of whole.list) {
    const fault = registrationFault(given);
    if (fault !== undefined) {
      complaints.push({ about: String(given.id === "" ? given.name : given.id), text: fault });
      continue;
    }
    const r = normalize(given);
    const first = list.get(r.id);
    if (first !== undefined)
      complaints.push({
        about: r.id,
        text: `the id "${r.id}" is in the list of ${from} twice: ${whoIs(first)} and ${whoIs(r)}; the first one counts`,
      });
    else list.set(r.id, r);
  }
  const oldIds = new Map<string, string>();
  for (const [id, r] of before) if (r.foreignId !== undefined && !list.has(id)) oldIds.set(r.foreignId, id);
  const put: Registration[] = [];
  const renamed = new Map<string, string>();
  for (const [id, r] of list) {
    const old = before.get(id);
    if (old !== undefined && same(old, r)) continue;
    put.push(r);
    if (old !== undefined || r.foreignId === undefined) continue;
    const oldId = oldIds.get(r.foreignId);
    if (oldId === undefined) continue;
    renamed.set(id, oldId);
    // One old id goes to one new one.
    oldIds.delete(r.foreignId);
  }
  const newIds = new Map([...renamed].map(([id, oldId]) => [oldId, id]));
  const gone: { id: string; why: Reason }[] = [];
  for (const [id, { authority = whole.authority }] of before) {
    if (list.has(id)) continue;
    const newId = newIds.get(id);
    const why: Reason =
      newId !== undefined
        ? { code: "replaced", text: `is called "${newId}" now`, confirmed: true, atMs }
        : (whole.gone?.get(id) ?? {
            code: "missing",
            text: `is no longer in the list of ${from}`,
            confirmed: authority === "first-hand",
            atMs,
          });
    gone.push({ id, why });
  }
  return { put, gone, renamed, list, complaints };
}

/** A registration for people. */
export function whoIs(r: { readonly name: string; readonly port: number; readonly text?: string }): string {
  return r.text ?? `"${r.name}" on port ${r.port}`;
}
