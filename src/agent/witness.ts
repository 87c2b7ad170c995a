// Pure planning for one external node: what this host's statements, and what it hears of the other witnesses, change in the directory.
import type { View } from "../contracts/directory.ts";
import type { Check, CheckSpec } from "../model/check.ts";
import { NODE_ALIVE_CHECK } from "../model/check.ts";
import type { ExternalNode, Registration } from "../model/instance.ts";
import type { Node, Witnessed } from "../model/node.ts";
import { compareUtf8 } from "../model/order.ts";
import type { Authority, Reason } from "../model/reason.ts";
import { type Change, type Entry, type Expect, keyOf } from "../model/record.ts";
import { ownLabels, sameRecord, whoIs } from "./reconcile.ts";
import { checkOf, instanceOf } from "./records.ts";

/** What a source of this host says about one instance on an external node. Replaced whenever the source says something else. */
export interface Statement {
  readonly from: string;
  readonly authority: Authority;
  readonly registration: Registration & { readonly external: { readonly node: ExternalNode } };
  /** It says something new, which is to be written although others may have written something else. */
  news: boolean;
  /** This host was written down as a witness. */
  joined: boolean;
  /** It said goodbye to another witness: it stays away until it is listed anew or stands again. */
  away: boolean;
}

/** What is known about one external node here. */
export interface Plan {
  readonly view: View;
  /** This host's node. */
  readonly self: string;
  readonly datacenter: string;
  readonly nodeKey: string;
  /** By service id. */
  readonly statements: ReadonlyMap<string, Statement>;
  /** Services whose witness this host is no longer, and why. */
  readonly withdrawn: ReadonlyMap<string, Reason>;
  /** True where everything is to be compared, not only what is new. */
  readonly whole: boolean;
  readonly nowMs: number;
  /** How a check stands that this host asks. */
  readonly stands: (nodeKey: string, spec: CheckSpec) => Pick<Check, "status" | "output"> | undefined;
}

export interface Planned {
  readonly changes: readonly Change[];
  readonly expect: readonly Expect[];
  /** Statements that stand as they say once this is written. */
  readonly done: readonly Statement[];
  /** Why a statement cannot be held, by service id. */
  readonly conflicts: ReadonlyMap<string, string>;
  /** Services whose checks this host asks. */
  readonly mine: ReadonlySet<string>;
}

const same = (a: string, b: string): boolean => a.toLowerCase() === b.toLowerCase();

/** True where the agent of a node gives signs of life. */
function lives(view: View, node: string): boolean {
  if (view.get("alive", keyOf.alive(node)) !== undefined) return true;
  // A directory without signs of life tells by the node's check.
  const check = view.get("check", keyOf.check(node, NODE_ALIVE_CHECK));
  return view.count("alive") === 0 && check !== undefined && check.status !== "critical";
}

/** The living witness with the lowest name: it has the last word, and asks the checks. */
function firstOf(view: View, self: string, by: readonly string[]): string | undefined {
  return by.find((name) => same(name, self) || lives(view, name));
}

/** True where a service said goodbye, rather than having been removed otherwise. */
function saidGoodbye(view: View, key: string): boolean {
  let newest: { readonly at: number; readonly why: Reason | undefined } | undefined;
  for (const { gone, why, modifyIndex } of view.list("grave"))
    if (modifyIndex > (newest?.at ?? 0) && gone?.some((one) => one.table === "service" && one.key === key) === true)
      newest = { at: modifyIndex, why };
  return newest?.why?.code === "goodbye";
}

/** Works out what is to be written about one external node; no changes where all is as it should be. */
export function planNode(plan: Plan): Planned {
  const { view, self, nodeKey, statements, withdrawn, whole, nowMs } = plan;
  const node = view.get("node", nodeKey);
  const conflicts = new Map<string, string>();
  const done: Statement[] = [];
  const mine = new Set<string>();
  if (node !== undefined && node.external !== true) {
    for (const [id, { registration, from }] of statements)
      conflicts.set(
        id,
        `${from} has ${whoIs(registration)} on the external node "${node.name}", but a host with an agent is called so: one of them needs another name`,
      );
    return { changes: [], expect: [], done, conflicts, mine };
  }
  const kept = new Map<string, Witnessed>((node?.witnessed ?? []).map((one) => [one.service, one]));
  const changes: Change[] = [];
  const dropped = new Map<string, Reason>();
  let speaking = false;

  for (const [id, one] of kept) {
    const why = withdrawn.get(id);
    const silent = one.by.filter(
      (name) =>
        view.fresh &&
        !same(name, self) &&
        view.get("node", keyOf.node(name)) === undefined &&
        view.get("alive", keyOf.alive(name)) === undefined,
    );
    const left = why !== undefined && !statements.has(id) ? (name: string) => same(name, self) : () => false;
    const by = why?.code === "goodbye" ? [] : one.by.filter((name) => !silent.includes(name) && !left(name));
    if (by.length === one.by.length) continue;
    kept.set(id, { ...one, by });
    if (by.length > 0) continue;
    const text = `its last witness, node "${silent.join('", "')}", is gone`;
    dropped.set(id, why ?? { code: "reaped", text, confirmed: false, atMs: nowMs });
  }

  for (const [id, statement] of statements) {
    const { registration, from, authority } = statement;
    const key = keyOf.service(nodeKey, id);
    const now = view.get("service", key);
    const known = kept.get(id);
    const others = known?.by.filter((name) => !same(name, self)) ?? [];
    if (known !== undefined && known.source !== from && others.length > 0) {
      conflicts.set(
        id,
        `the service id "${id}" on the external node "${registration.external.node.name}" is held by ${known.source} and also wanted by ${from} (${whoIs(registration)})`,
      );
      continue;
    }
    if (known === undefined && now !== undefined && now.origin.source !== from) {
      conflicts.set(
        id,
        `the service id "${id}" on the external node "${now.node}" is held by ${now.origin.source} and also wanted by ${from} (${whoIs(registration)})`,
      );
      continue;
    }
    const standing = known !== undefined && known.by.length > 0;
    if (!standing && statement.joined && !statement.news && now === undefined && saidGoodbye(view, key))
      statement.away = true;
    if (standing) statement.away = false;
    if (statement.away) continue;
    const { foreignId } = registration;
    const by = known?.by.some((name) => same(name, self)) ? known.by : [...others, self].sort(compareUtf8);
    const speaks = !standing || others.length === 0 || statement.news;
    kept.set(
      id,
      speaks || known === undefined
        ? { service: id, source: from, ...(foreignId === undefined ? {} : { foreignId }), by }
        : { ...known, by },
    );
    dropped.delete(id);
    const first = firstOf(view, self, by);
    if (first !== undefined && same(first, self)) mine.add(id);
    done.push(statement);
    if (!speaks && now !== undefined && !(whole && mine.has(id))) {
      if (mine.has(id)) changes.push(...checkChanges(plan, statement, now.node));
      continue;
    }
    speaking = true;
    const nodeName = node?.name ?? registration.external.node.name;
    const value = instanceOf(nodeName, from, authority, registration, { tags: registration.tags, draining: false });
    if (!sameRecord(now, value)) changes.push({ op: "put", table: "service", key, value });
    changes.push(...checkChanges(plan, statement, nodeName));
    const named = new Set(registration.checks.map((spec) => spec.id));
    for (const check of checksAbout(view, nodeKey, id))
      if (!named.has(check.id) && check.origin?.source === from)
        changes.push({ op: "delete", table: "check", key: keyOf.check(nodeKey, check.id) });
  }

  for (const [id, why] of dropped) {
    const source = kept.get(id)?.source;
    kept.delete(id);
    const key = keyOf.service(nodeKey, id);
    const now = view.get("service", key);
    // Somebody else may have it by now.
    if (now !== undefined && (now.origin.source === source || now.origin.source === "catalog"))
      changes.push({ op: "delete", table: "service", key, why });
  }
  // One of the statements describes the node, always the same one.
  const facts = speaking ? done.toSorted((a, b) => compareUtf8(a.registration.id, b.registration.id))[0] : undefined;
  const nodeChange = nodeChangeOf(plan, node, [...kept.values()], facts, dropped);
  if (nodeChange !== undefined) changes.unshift(nodeChange);
  const expect: Expect[] = changes.length === 0 ? [] : [{ table: "node", key: nodeKey, at: node?.modifyIndex ?? 0 }];
  return { changes, expect, done, conflicts, mine };
}

function* checksAbout(view: View, nodeKey: string, serviceId: string): Iterable<Entry<"check">> {
  for (const check of view.list("check", keyOf.ofNode(nodeKey))) if (check.serviceId === serviceId) yield check;
}

/** The checks of a statement as they should stand. */
function* checkChanges({ view, nodeKey, stands }: Plan, statement: Statement, node: string): Iterable<Change> {
  const { from, authority, registration } = statement;
  for (const spec of registration.checks) {
    const key = keyOf.check(nodeKey, spec.id);
    const now = view.get("check", key);
    const initial = { status: spec.initial ?? "critical", output: spec.kind === "none" ? spec.notes : "" } as const;
    const state = stands(nodeKey, spec) ?? (spec.kind === "none" ? initial : (now ?? initial));
    const value = checkOf(node, from, authority, spec, registration.id, state);
    if (!sameRecord(now, value)) yield { op: "put", table: "check", key, value };
  }
}

/** How the node's own record is to change; it goes with its last instance where a source brought it in. */
function nodeChangeOf(
  { view, nodeKey, datacenter }: Plan,
  now: Entry<"node"> | undefined,
  kept: readonly Witnessed[],
  facts: Statement | undefined,
  dropped: ReadonlyMap<string, Reason>,
): Change | undefined {
  if (now === undefined && facts === undefined) return undefined;
  if (kept.length === 0 && now?.origin !== undefined && dropped.size > 0) {
    const more = [...view.list("service", keyOf.ofNode(nodeKey))].some(({ id }) => !dropped.has(id));
    const why = [...dropped.values()][0];
    if (!more) return { op: "delete", table: "node", key: nodeKey, ...(why === undefined ? {} : { why }) };
  }
  const witnessed = kept.toSorted((a, b) => compareUtf8(a.service, b.service));
  const { createIndex: _c, modifyIndex: _m, witnessed: _w, ...old } = now ?? ({} as Entry<"node">);
  const described = facts?.registration.external.node;
  const base: Node | undefined =
    described !== undefined && facts !== undefined && (now === undefined || now.origin !== undefined)
      ? {
          id: "",
          name: now?.name ?? described.name,
          address: described.address,
          datacenter,
          taggedAddresses: {},
          labels: ownLabels({ "external-node": "true", ...described.labels }),
          external: true,
          origin: now?.origin ?? { source: facts.from, authority: facts.authority },
        }
      : now === undefined
        ? undefined
        : old;
  if (base === undefined) return undefined;
  const value: Node = { ...base, ...(witnessed.length === 0 ? {} : { witnessed }) };
  return sameRecord(now, value) ? undefined : { op: "put", table: "node", key: nodeKey, value };
}
