// Transactions: what each operation does to a draft of the directory, and in which words it refuses. After Consul's state store.
import { InputError } from "../../base/error.ts";
import type { KvPlan } from "../../contracts/kv.ts";
import { type Change, type Entry, type Index, keyOf } from "../../model/record.ts";
import type { TxnKvBody, TxnNodeBody, TxnOpBody } from "./bodies.ts";
import type { Call } from "./call.ts";
import { checkOf, checkService, checkUuid, instanceOf, nodeOf, renamedFrom } from "./catalog-write.ts";
import type { Draft } from "./draft.ts";
import { Refusal } from "./errors.ts";

/** A record that an operation answers with. */
export type TxnRecord =
  | { readonly kind: "KV"; readonly entry: Entry<"kv">; readonly value: boolean; readonly missing?: true }
  | { readonly kind: "Node"; readonly entry: Entry<"node"> }
  | { readonly kind: "Service"; readonly entry: Entry<"service"> }
  | { readonly kind: "Check"; readonly entry: Entry<"check"> };

export interface TxnFault {
  readonly OpIndex: number;
  readonly What: string;
}

/** What a transaction comes to on a draft. */
export type TxnOutcome =
  | { readonly ok: true; readonly records: readonly TxnRecord[] }
  | {
      readonly ok: false;
      readonly faults: readonly TxnFault[] /** Found before anything was looked at. */;
      readonly early: boolean;
    };

const KV_WRITES: ReadonlySet<string> = new Set(["set", "cas", "lock", "unlock", "delete", "delete-cas", "delete-tree"]);
const KV_READS: ReadonlySet<string> = new Set([
  "get",
  "get-or-empty",
  "get-tree",
  "check-index",
  "check-session",
  "check-not-exists",
]);
const CATALOG: ReadonlySet<string> = new Set(["get", "set", "cas", "delete", "delete-cas"]);
const WHY = { code: "deregistered", text: "taken out of the catalog by a transaction", confirmed: true } as const;

/** An operation that does not hold; ends nothing but itself. `early`: Consul finds it before it carries out anything. */
class Fault extends Error {
  readonly early: boolean;
  constructor(what: string, early = false) {
    super(what);
    this.early = early;
  }
}

const quoted = (text: string): string => JSON.stringify(text);

/** True where any operation is one that writes; the others are answered from a view. */
export function writes(ops: readonly TxnOpBody[]): boolean {
  return ops.some(({ KV, Node, Service, Check }) => {
    if (KV !== undefined) return KV_WRITES.has(KV.Verb ?? "");
    const other = Node ?? Service ?? Check;
    return other !== undefined && other.Verb !== "get";
  });
}

/** Does all operations to the draft, in order; every fault is told, and then nothing of the draft may be written. */
export function perform(call: Call, ops: readonly TxnOpBody[], draft: Draft): TxnOutcome {
  const early: TxnFault[] = [];
  ops.forEach((op, i) => {
    const what = beforehand(op);
    if (what !== undefined) early.push({ OpIndex: i, What: what });
  });
  if (early.length > 0) return { ok: false, faults: early, early: true };
  const records: TxnRecord[] = [];
  const faults: TxnFault[] = [];
  const delayed: TxnFault[] = [];
  ops.forEach((op, i) => {
    try {
      records.push(...carryOut(call, op, draft));
    } catch (error) {
      if (!(error instanceof Fault) && !(error instanceof Refusal) && !(error instanceof InputError)) throw error;
      (error instanceof Fault && error.early ? delayed : faults).push({ OpIndex: i, What: error.message });
    }
  });
  // Where a lock is delayed Consul does not look at the rest.
  if (delayed.length > 0) return { ok: false, faults: delayed, early: false };
  return faults.length > 0 ? { ok: false, faults, early: false } : { ok: true, records };
}

/** What is wrong with an operation whatever the directory holds. */
function beforehand({ KV, Node, Service, Check }: TxnOpBody): string | undefined {
  try {
    if (KV !== undefined) {
      const verb = KV.Verb ?? "";
      if ((KV.Key ?? "") === "" && verb !== "delete-tree") return "Must provide key";
      if (!KV_WRITES.has(verb) && !KV_READS.has(verb)) return `unknown KV operation: ${verb}`;
    } else if (Node !== undefined) {
      if (!CATALOG.has(Node.Verb ?? "")) return `unknown node operation: ${Node.Verb ?? ""}`;
      if (Node.Verb === "get") return undefined;
      if ((Node.Node?.Node ?? "") === "") return "Must provide node";
      if ((Node.Node?.ID ?? "") !== "") checkUuid(Node.Node?.ID as string);
      checkNames(Node.Node?.Node);
    } else if (Service !== undefined) {
      if (!CATALOG.has(Service.Verb ?? "")) return `unknown service operation: ${Service.Verb ?? ""}`;
      if (Service.Verb === "get") return undefined;
      const { ID, Service: name } = checkService(Service.Service ?? {});
      checkNames(Service.Node, ID, name);
    } else if (Check !== undefined) {
      if (!CATALOG.has(Check.Verb ?? "")) return `unknown check operation: ${Check.Verb ?? ""}`;
      checkNames(Check.Check?.Node, Check.Check?.CheckID, Check.Check?.Name);
    }
    return undefined;
  } catch (error) {
    if (error instanceof Refusal || error instanceof Fault) return error.message;
    throw error;
  }
}

function checkNames(...names: readonly (string | undefined)[]): void {
  for (const name of names)
    if (name?.includes("\u0000") === true) throw new Fault(`${quoted(name)}: a name may not hold NUL`);
}

function carryOut(call: Call, { KV, Node, Service, Check }: TxnOpBody, draft: Draft): readonly TxnRecord[] {
  if (KV !== undefined) return onKey(call, KV, draft);
  if (Node !== undefined) return onNode(call, Node.Verb ?? "", Node.Node ?? {}, draft);
  if (Service !== undefined) return onService(call, Service, draft);
  if (Check !== undefined) return onCheck(call, Check, draft);
  return [];
}

/** Makes a plan part of the draft. */
function adopt(draft: Draft, plan: Extract<KvPlan, { ok: true }>): void {
  for (const { table, key, at } of plan.expect) draft.rely(table, key, at);
  for (const change of plan.changes) draft.make(change);
}

function onKey({ ground: { kv } }: Call, op: TxnKvBody, draft: Draft): readonly TxnRecord[] {
  const { Verb: verb = "", Key: key = "", Value: value = new Uint8Array(), Flags: flags = 0n, Index: index = 0 } = op;
  const session = op.Session ?? "";
  const found = draft.get("kv", key);
  const told = (): readonly TxnRecord[] => {
    const entry = draft.get("kv", key);
    return entry === undefined ? [] : [{ kind: "KV", entry, value: false }];
  };
  const set = (options: Parameters<typeof kv.planSet>[3], refusal: string): readonly TxnRecord[] => {
    const plan = kv.planSet(draft, key, value, { flags, ...options });
    if (!plan.ok && plan.delayed === true) throw new Fault(`failed to lock key ${quoted(key)} due to lock delay`, true);
    if (!plan.ok) throw new Fault(refusal);
    adopt(draft, plan);
    return told();
  };
  if (verb !== "delete-tree" && verb !== "get-tree") draft.rely("kv", key);
  switch (verb) {
    case "set":
      return set({}, "");
    case "cas":
      return set({ cas: index }, `failed to set key ${quoted(key)}, index is stale`);
    case "lock": {
      if (session === "") throw new Fault("missing session");
      try {
        return set({ acquire: session }, `failed to lock key ${quoted(key)}, lock is already held`);
      } catch (error) {
        if (error instanceof InputError && error.where === "acquire")
          throw new Fault(`invalid session ${quoted(session)}`);
        throw error;
      }
    }
    case "unlock":
      if (session === "") throw new Fault("missing session");
      return set(
        { release: session },
        `failed to unlock key ${quoted(key)}, lock isn't held, or is held by another session`,
      );
    case "delete":
    case "delete-cas": {
      const plan = kv.planDelete(draft, key, verb === "delete" ? {} : { cas: index });
      if (!plan.ok) throw new Fault(`failed to delete key ${quoted(key)}, index is stale`);
      adopt(draft, plan);
      return [];
    }
    case "delete-tree":
      for (const pair of [...draft.list("kv", key)]) {
        const plan = kv.planDelete(draft, pair.key);
        if (plan.ok) adopt(draft, plan);
      }
      return [];
    case "get-tree":
      return Array.from(draft.list("kv", key), (entry): TxnRecord => ({ kind: "KV", entry, value: true }));
    case "get":
      if (found === undefined) throw new Fault(`key ${quoted(key)} doesn't exist`);
      return [{ kind: "KV", entry: found, value: true }];
    case "get-or-empty": {
      // Consul hands back what it was asked with.
      const asked = { key, flags, lockIndex: 0, createIndex: 0, modifyIndex: index };
      const empty = { ...asked, value: new Uint8Array(), ...(session === "" ? {} : { session }) };
      return [{ kind: "KV", entry: found ?? empty, value: true }];
    }
    case "check-not-exists":
      if (found !== undefined) throw new Fault(`key ${quoted(key)} exists`);
      return [];
    case "check-index":
      if (found === undefined) throw new Fault(`failed to check index, key ${quoted(key)} doesn't exist`);
      if (found.modifyIndex !== index)
        throw new Fault(
          `failed index check for key ${quoted(key)}, current modify index ${found.modifyIndex} != ${index}`,
        );
      return told();
    default:
      if (found === undefined) throw new Fault(`failed to check session, key ${quoted(key)} doesn't exist`);
      if ((found.session ?? "") !== session)
        throw new Fault(
          `failed session check for key ${quoted(key)}, current session ${quoted(found.session ?? "")} != ${quoted(session)}`,
        );
      return told();
  }
}

/** Consul's rule for `cas`: 0 = only if it is not there. */
function mayCas(existing: { readonly modifyIndex: number } | undefined, index: number): boolean {
  return index === 0 ? existing === undefined : existing?.modifyIndex === index;
}

function removal(call: Call, table: "node" | "service" | "check", key: string): Change {
  return { op: "delete", table, key, why: { ...WHY, atMs: call.ground.clock.now() } };
}

function onNode(call: Call, verb: string, body: TxnNodeBody, draft: Draft): readonly TxnRecord[] {
  const { Node: name = "", ID: id = "", ModifyIndex: index = 0 } = body;
  const byId = (): Entry<"node"> | undefined => {
    for (const node of draft.list("node")) if (node.id.toLowerCase() === id.toLowerCase()) return node;
    return undefined;
  };
  const wanted = id === "" ? draft.get("node", keyOf.node(name)) : byId();
  const named = draft.get("node", keyOf.node(name));
  if (wanted !== undefined) draft.rely("node", keyOf.node(wanted.name));
  switch (verb) {
    case "get":
      if (wanted === undefined) throw new Fault(`node ${quoted(name)} doesn't exist`);
      return [{ kind: "Node", entry: wanted }];
    case "cas":
      if (!mayCas(named, index)) throw new Fault(`failed to set node ${quoted(name)}, index is stale`);
      break;
    case "set":
      break;
    case "delete-cas":
      if (named?.modifyIndex !== index) throw new Fault(`failed to delete node ${quoted(name)}, index is stale`);
      draft.rely("node", keyOf.node(name));
      draft.make(removal(call, "node", keyOf.node(name)));
      return [];
    default:
      draft.make(removal(call, "node", keyOf.node(name)));
      return [];
  }
  draft.rely("node", keyOf.node(name));
  const asked = {
    ...(id === "" ? {} : { ID: id }),
    Node: name,
    Address: body.Address ?? "",
    ...(body.TaggedAddresses === undefined ? {} : { TaggedAddresses: body.TaggedAddresses }),
    ...(body.Meta === undefined ? {} : { NodeMeta: body.Meta }),
  };
  let renamed: Entry<"node"> | undefined;
  try {
    renamed = renamedFrom(draft, asked, name);
  } catch (error) {
    if (error instanceof Refusal) throw new Fault(error.message.replace(/^failed inserting node: /, ""));
    throw error;
  }
  if (renamed !== undefined) draft.make(removal(call, "node", keyOf.node(renamed.name)));
  draft.make({ op: "put", table: "node", key: keyOf.node(name), value: nodeOf(call, asked, named, renamed) });
  return [{ kind: "Node", entry: draft.get("node", keyOf.node(name)) as Entry<"node"> }];
}

/** What the verbs of services and checks have in common. Undefined for the writes that are then to be done. */
function onRecord<T extends "service" | "check">(
  call: Call,
  draft: Draft,
  {
    verb,
    table,
    key,
    index,
    about,
  }: {
    readonly verb: string;
    readonly table: T;
    readonly key: string;
    readonly index: Index;
    /** How errors call it. */
    readonly about: string;
  },
): { readonly existing: Entry<T> | undefined; readonly done: boolean } {
  const existing = draft.get(table, key);
  draft.rely(table, key);
  const stale = (what: string): never => {
    throw new Fault(`failed to ${what} ${about}, index is stale`);
  };
  switch (verb) {
    case "get":
      if (existing === undefined) throw new Fault(`${about} doesn't exist`);
      return { existing, done: true };
    case "delete-cas":
      if (existing?.modifyIndex !== index) stale("delete");
      draft.make(removal(call, table, key));
      return { existing: undefined, done: true };
    case "delete":
      draft.make(removal(call, table, key));
      return { existing: undefined, done: true };
    case "cas":
      if (!mayCas(existing, index)) stale("set");
      return { existing, done: false };
    default:
      return { existing, done: false };
  }
}

function onService(
  call: Call,
  { Verb: verb = "", Node: node = "", Service: body = {} }: NonNullable<TxnOpBody["Service"]>,
  draft: Draft,
): readonly TxnRecord[] {
  const id = verb === "get" ? (body.ID ?? "") : checkService(body).ID;
  const key = keyOf.service(node, id);
  const about = `service ${quoted(id)} on node ${quoted(node)}`;
  const { existing, done } = onRecord(call, draft, {
    verb,
    table: "service",
    key,
    index: body.ModifyIndex ?? 0,
    about,
  });
  if (done) return existing === undefined ? [] : [{ kind: "Service", entry: existing }];
  const host = draft.get("node", keyOf.node(node));
  if (host === undefined) throw new Fault("Missing node registration");
  draft.make({ op: "put", table: "service", key, value: instanceOf(checkService(body), host.name, existing) });
  return [{ kind: "Service", entry: draft.get("service", key) as Entry<"service"> }];
}

function onCheck(
  call: Call,
  { Verb: verb = "", Check: body = {} }: NonNullable<TxnOpBody["Check"]>,
  draft: Draft,
): readonly TxnRecord[] {
  const node = body.Node ?? "";
  const id = (body.CheckID ?? "") === "" && verb !== "get" ? (body.Name ?? "") : (body.CheckID ?? "");
  const key = keyOf.check(node, id);
  const about = `check ${quoted(id)} on node ${quoted(node)}`;
  const { existing, done } = onRecord(call, draft, { verb, table: "check", key, index: body.ModifyIndex ?? 0, about });
  if (done) return existing === undefined ? [] : [{ kind: "Check", entry: existing }];
  if (id === "") throw new Fault("Must provide check ID or name");
  const host = draft.get("node", keyOf.node(node));
  if (host === undefined) throw new Fault("Missing node registration");
  const serviceId = body.ServiceID ?? "";
  const service = serviceId === "" ? undefined : draft.get("service", keyOf.service(node, serviceId));
  if (serviceId !== "" && service === undefined) throw new Fault("Missing service registration");
  const value = checkOf({ ...body, CheckID: id }, host.name, existing);
  // A check goes on telling the tags that its service had when the check was written [conformance txn-catalog, check-get].
  const foreign = { ...value.foreign, ServiceTags: service?.tags ?? [] };
  draft.make({ op: "put", table: "check", key, value: service === undefined ? value : { ...value, foreign } });
  return [{ kind: "Check", entry: draft.get("check", key) as Entry<"check"> }];
}
