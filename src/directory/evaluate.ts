// What a write comes to: its net effect on the tables, with what follows from it (cascades, graves), or that it may not happen.
import { InputError, TrilithError } from "../base/error.ts";
import { frozenCopy, sameValue } from "../model/codec.ts";
import type { Reason } from "../model/reason.ts";
import {
  type Change,
  type Entry,
  type Expect,
  keyOf,
  type Scope,
  scope,
  type Table,
  type Tables as TableTypes,
} from "../model/record.ts";
import type { Tables } from "./tables.ts";

/** The outcome of looking at a write. */
export type Evaluated =
  | { readonly kind: "failed" }
  /** Nothing to be written; `assumed` are the records of users' own tables whose state was taken for granted. */
  | { readonly kind: "nothing"; readonly assumed: readonly Expect[] }
  | {
      readonly kind: "write";
      readonly changes: readonly Change[];
      /** Deletes that follow from the given ones. */
      readonly cascaded: readonly Change[];
      /** What must still hold for the changes to be right, where somebody else may write meanwhile. */
      readonly assumed: readonly Expect[];
    };

type Slot = {
  readonly table: Table;
  readonly key: string;
  readonly value: TableTypes[Table] | undefined;
  why?: Reason | undefined;
};

/** How many scopes one grave holds at most, so that no record grows without bound. */
const SCOPES_PER_GRAVE = 500;
/** Of a node's services only so many are held fast while one of the node's own checks goes: beyond, a wake too many is the lesser evil. */
const SERVICES_ASSUMED = 30;
/** Tables whose records anybody may write: a dropped change to them takes somebody's word for how they stand. */
const ANYBODYS: ReadonlySet<Table> = new Set(["kv", "session", "kept"]);
const SURROGATE = /\p{Surrogate}/u;

function checkKey(change: Change): void {
  const { table, key } = change;
  const where = `a change to table "${table}"`;
  if (SURROGATE.test(key)) throw new InputError(where, `the key ${JSON.stringify(key)} is no well-formed Unicode text`);
  if (change.op === "delete") return;
  const right = keyOfValue(change);
  if (right !== undefined && right !== key)
    throw new InputError(where, `the key is ${JSON.stringify(key)}, but the record's own is ${JSON.stringify(right)}`);
  const names = namesIn(change);
  for (const name of names)
    if (name === "" || name.includes("\u0000"))
      throw new InputError(where, `a name must be text without NUL and not empty, but is ${JSON.stringify(name)}`);
}

function keyOfValue(change: Extract<Change, { op: "put" }>): string | undefined {
  switch (change.table) {
    case "node":
      return keyOf.node(change.value.name);
    case "service":
      return keyOf.service(change.value.node, change.value.id);
    case "check":
      return keyOf.check(change.value.node, change.value.id);
    case "kv":
      return keyOf.kv(change.value.key);
    case "session":
      return keyOf.session(change.value.id);
    case "alive":
      return keyOf.alive(change.value.node);
    case "kept":
      return keyOf.kept(change.value.kind, change.value.id);
    default:
      return undefined;
  }
}

function namesIn(change: Extract<Change, { op: "put" }>): string[] {
  switch (change.table) {
    case "node":
      return [change.value.name];
    case "service":
      return [change.value.node, change.value.id, change.value.name];
    case "check":
      return [change.value.node, change.value.id];
    case "kept":
      return [change.value.kind, change.value.id];
    default:
      return [];
  }
}

/** Without the indexes that an entry carries. */
function bare(value: TableTypes[Table]): TableTypes[Table] {
  const { createIndex: _, modifyIndex: __, ...rest } = value as Entry<Table>;
  return rest as TableTypes[Table];
}

/** Makes the keys of graves: in the order of time, so that the oldest are found first. */
function graveKey(nowMs: number, id: string, part: number): string {
  return `${String(Math.max(0, Math.floor(nowMs))).padStart(15, "0")}.${id}.${part}`;
}

/** When a grave was dug, from its key. */
export function graveTimeMs(key: string): number {
  return Number(key.slice(0, 15));
}

/**
 * Works out what `changes` come to on `tables`. `others`: other processes write as well. What is taken for granted is then named in
 * `assumed`; and as they may have put a check on a service that this one is about to remove, that check's scopes count as left, too.
 * @throws TrilithError `invalid`: keys that do not fit, services without their node, checks without their service
 */
export function evaluate(
  tables: Tables,
  changes: readonly Change[],
  expect: readonly Expect[],
  id: string,
  nowMs: number,
  others = false,
): Evaluated {
  for (const { table, key, at } of expect)
    if ((tables.get(table, key)?.modifyIndex ?? 0) !== at) return { kind: "failed" };

  // The net effect: the last word per key, in the order of the words.
  const net = new Map<string, Slot>();
  const cascaded = new Set<string>();
  const name = (table: Table, key: string): string => `${table}\u0000${key}`;
  const now = <T extends Table>(table: T, key: string): TableTypes[T] | undefined => {
    const slot = net.get(name(table, key));
    return (slot === undefined ? tables.get(table, key) : slot.value) as TableTypes[T] | undefined;
  };
  const remove = (table: Table, key: string, why: Reason | undefined, follows: boolean): void => {
    if (follows && now(table, key) === undefined) return;
    net.set(name(table, key), { table, key, value: undefined, why });
    if (follows) cascaded.add(name(table, key));
    else cascaded.delete(name(table, key));
  };
  /** Keys of the children that this write itself puts, which no table knows yet. */
  const put: { readonly service: Set<string>; readonly check: Set<string> } = { service: new Set(), check: new Set() };
  const removeChecks = (
    known: Iterable<Entry<"check">>,
    prefix: string,
    serviceId: string | undefined,
    why: Reason | undefined,
  ): void => {
    const keys = new Set<string>(put.check);
    for (const check of known) keys.add(keyOf.check(check.node, check.id));
    for (const key of keys) {
      const check = now("check", key);
      if (check !== undefined && key.startsWith(prefix) && (serviceId === undefined || check.serviceId === serviceId))
        remove("check", key, why, true);
    }
  };

  for (const change of changes) {
    checkKey(change);
    const { table, key } = change;
    if (change.op === "put") {
      net.set(name(table, key), { table, key, value: bare(change.value) });
      cascaded.delete(name(table, key));
      if (table === "service" || table === "check") put[table].add(key);
      continue;
    }
    const service = table === "service" ? now("service", key) : undefined;
    if (service !== undefined) {
      const nodeKey = keyOf.node(service.node);
      removeChecks(tables.checksAbout(nodeKey, service.id), `${nodeKey}\u0000`, service.id, change.why);
    } else if (table === "node") {
      const prefix = `${key}\u0000`;
      removeChecks(tables.list("check", prefix), prefix, undefined, change.why);
      const keys = new Set<string>([...put.service].filter((each) => each.startsWith(prefix)));
      for (const each of tables.list("service", prefix)) keys.add(keyOf.service(each.node, each.id));
      for (const each of keys) remove("service", each, change.why, true);
    }
    if (table === "session")
      for (const bound of tables.boundTo(key)) {
        // This very write may have tied it to another one.
        const record = now("kept", bound);
        if (record?.session === key) remove("kept", bound, change.why, true);
      }
    remove(table, key, change.why, false);
  }

  const result: Change[] = [];
  const following: Change[] = [];
  const assumed = new Map<string, Expect>();
  const assume = (table: Table, key: string): void => {
    // Where nobody else writes there is nothing that could have changed meanwhile.
    if (!others) return;
    assumed.set(name(table, key), { table, key, at: tables.get(table, key)?.modifyIndex ?? 0 });
  };
  const graves = new Map<
    string,
    { why: Reason | undefined; scopes: Set<Scope>; gone: { table: Table; key: string }[] }
  >();
  const bury = (why: Reason | undefined, scopes: Iterable<Scope>, gone?: { table: Table; key: string }): void => {
    const group = why === undefined ? "" : JSON.stringify(why);
    let grave = graves.get(group);
    if (grave === undefined) {
      grave = { why, scopes: new Set(), gone: [] };
      graves.set(group, grave);
    }
    for (const each of scopes) grave.scopes.add(each);
    if (gone !== undefined) grave.gone.push(gone);
  };

  const unchanged = (
    { table, key, value }: Slot,
    before: TableTypes[Table] | undefined = tables.get(table, key),
  ): boolean => {
    return before !== undefined && value !== undefined && sameValue(bare(before), value);
  };
  /** A record that another one needs, and that this write leaves as it is: somebody else may be about to remove it. */
  const need = (table: "node" | "service" | "session", key: string, what: () => string): void => {
    if (now(table, key) === undefined) throw new TrilithError("invalid", `${what()}, which is not registered`);
    if (!others) return;
    const slot = net.get(name(table, key));
    if (slot === undefined || unchanged(slot)) assume(table, key);
  };

  /** What a check was about decides which scopes it leaves. */
  const assumeOwner = ({ node, serviceId }: TableTypes["check"]): void => {
    if (!others) return;
    if (serviceId !== "") assume("service", keyOf.service(node, serviceId));
    let left = serviceId === "" ? SERVICES_ASSUMED : 0;
    for (const service of tables.list("service", keyOf.ofNode(node)))
      if (left-- > 0) assume("service", keyOf.service(service.node, service.id));
  };

  for (const [slotName, { table, key, value, why }] of net) {
    const before = tables.get(table, key);
    if (value === undefined) {
      if (before === undefined) {
        if (ANYBODYS.has(table)) assume(table, key);
        continue;
      }
      const change: Change = why === undefined ? { op: "delete", table, key } : { op: "delete", table, key, why };
      (cascaded.has(slotName) ? following : result).push(change);
      if (table === "grave" || table === "alive") continue;
      assume(table, key);
      if (table === "check") assumeOwner(before as Entry<"check">);
      if (others && table === "service") bury(why, ["checks", scope.checksOf((before as Entry<"service">).name)]);
      bury(
        why,
        tables.scopesOf<Table>(table, key, before as TableTypes[Table]),
        table === "service" || table === "node" ? { table, key } : undefined,
      );
      continue;
    }
    if (unchanged({ table, key, value }, before)) {
      if (ANYBODYS.has(table)) assume(table, key);
      continue;
    }
    // What a service or check was before decides which scopes it leaves.
    if (table === "service" || table === "check") assume(table, key);
    if (table === "service") {
      const { node, id: serviceId, name: serviceName } = value as TableTypes["service"];
      need("node", keyOf.node(node), () => `service "${serviceId}" names node "${node}"`);
      const was = before as Entry<"service"> | undefined;
      const old = was?.name;
      // What drains no longer is gone from among the checks, and of what has none no record would tell when.
      if (was?.draining === true && (value as TableTypes["service"]).draining !== true)
        bury(undefined, ["checks", scope.checksOf(was.name)]);
      if (old !== undefined && old.toLowerCase() !== serviceName.toLowerCase()) {
        if (others)
          for (const check of tables.checksAbout(keyOf.node(node), serviceId))
            assume("check", keyOf.check(check.node, check.id));
        const left = new Set<Scope>([scope.service(old), scope.instances(old), scope.checksOf(old)]);
        bury(
          { code: "replaced", text: `registered anew as ${serviceName}`, confirmed: true, atMs: nowMs },
          others ? left : tables.scopesOf("service", key, before as Entry<"service">).filter((each) => left.has(each)),
        );
      }
    } else if (table === "check") {
      const check = value as TableTypes["check"];
      need("node", keyOf.node(check.node), () => `check "${check.id}" names node "${check.node}"`);
      if (check.serviceId !== "")
        need(
          "service",
          keyOf.service(check.node, check.serviceId),
          () => `check "${check.id}" is about service "${check.serviceId}" on node "${check.node}"`,
        );
      const old = before as Entry<"check"> | undefined;
      if (old !== undefined && old.serviceId !== check.serviceId) {
        assumeOwner(old);
        bury(undefined, tables.scopesOfOwner(old.node, old.serviceId));
      }
    } else if (table === "kept") {
      const { kind, id: keptId, session } = value as TableTypes["kept"];
      if (session !== undefined)
        need("session", keyOf.session(session), () => `${kind} "${keptId}" names session "${session}"`);
    }
    result.push({ op: "put", table, key, value: frozenCopy(value) } as Change);
  }

  if (result.length === 0 && following.length === 0) return { kind: "nothing", assumed: [...assumed.values()] };

  let part = 0;
  for (const { why, scopes, gone } of graves.values()) {
    const all = [...scopes];
    for (let at = 0; at === 0 || at < Math.max(all.length, gone.length); at += SCOPES_PER_GRAVE) {
      const goneHere = gone.slice(at, at + SCOPES_PER_GRAVE);
      result.push({
        op: "put",
        table: "grave",
        key: graveKey(nowMs, id, part++),
        value: {
          scopes: all.slice(at, at + SCOPES_PER_GRAVE),
          ...(goneHere.length === 0 ? {} : { gone: goneHere }),
          ...(why === undefined ? {} : { why }),
        },
      });
    }
  }
  return { kind: "write", changes: [...result, ...following], cascaded: following, assumed: [...assumed.values()] };
}
