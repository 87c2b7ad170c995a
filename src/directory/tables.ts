// The tables of the directory in memory: what they hold, which scopes a change moves and since when, and the residents of every service.
import type { Row } from "../contracts/storage.ts";
import type { Resident } from "../model/instance.ts";
import {
  type Entry,
  GRAVE_FLOOR,
  type Index,
  keyOf,
  nodeOfKey,
  type Scope,
  scope,
  type Table,
  type Tables as TableTypes,
} from "../model/record.ts";
import { Indexes } from "./tables/indexes.ts";
import { emptyTree, type Tree, treeOf } from "./tables/tree.ts";

/** Which scopes moved, and to where. */
export type Touched = ReadonlyMap<Scope, Index>;

/** A service name in use. Replaced whenever something of the service changes, so that what is worked out from it may be kept. */
interface Slot {
  readonly name: string;
  residents: readonly Resident[] | undefined;
}

const NO_RESIDENTS: readonly Resident[] = Object.freeze([]);
const TABLES: readonly Table[] = ["kv", "session", "alive", "service", "check", "node", "kept", "grave"];

/** Tables whose records move each other's scopes, and those without stamps of their own. */
const SCOPED_TOGETHER: ReadonlySet<Table> = new Set(["node", "service", "check", "kv", "grave"]);

/** Puts an entry together. */
function entryOf<T extends Table>(value: TableTypes[T], createIndex: Index, modifyIndex: Index): Entry<T> {
  return Object.freeze({ ...value, createIndex, modifyIndex }) as unknown as Entry<T>;
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}

/** Everything the directory holds, at one point of the line. Changes only by `apply`; `clone` costs next to nothing. */
export class Tables {
  index: Index = 1;
  /** What was removed up to here is not remembered one by one any more. */
  floor: Index = 0;
  #trees: { readonly [T in Table]: Tree<Entry<T>> };
  #indexes: Indexes;
  #slots: Tree<Slot>;
  /** The last change per scope. Keys that exist speak for themselves and have no stamp. */
  #stamps: Tree<Index>;
  /** After `from`: the youngest service with checks, per scope of checks. */
  readonly #servicesOfChecks = new Map<Scope, Index>();
  /** What `at` found for tree scopes; belongs to this state of the keys. */
  #treeMemo = new Map<string, Index>();
  /** Residents by lower-case name as asked of this very state. */
  readonly #asked = new Map<string, readonly Resident[]>();

  constructor(from?: Tables) {
    if (from === undefined) {
      this.#trees = {
        node: emptyTree(),
        service: emptyTree(),
        check: emptyTree(),
        kv: emptyTree(),
        session: emptyTree(),
        alive: emptyTree(),
        kept: emptyTree(),
        grave: emptyTree(),
      };
      this.#indexes = new Indexes();
      this.#slots = emptyTree();
      this.#stamps = emptyTree();
      return;
    }
    this.index = from.index;
    this.floor = from.floor;
    const trees = from.#trees;
    this.#trees = {
      node: trees.node.clone(),
      service: trees.service.clone(),
      check: trees.check.clone(),
      kv: trees.kv.clone(),
      session: trees.session.clone(),
      alive: trees.alive.clone(),
      kept: trees.kept.clone(),
      grave: trees.grave.clone(),
    };
    this.#indexes = from.#indexes.clone();
    this.#slots = from.#slots.clone();
    this.#stamps = from.#stamps.clone();
    this.#treeMemo = from.#treeMemo;
  }

  /** The state of this moment, untouched by what is applied to this one later. */
  clone(): Tables {
    return new Tables(this);
  }

  /** Tables made of a whole content. */
  static from(rows: Iterable<Row>, index: Index): Tables {
    const entries = new Map(TABLES.map((table) => [table, new Map<string, Entry<Table>>()]));
    for (const { table, key, value, createIndex, modifyIndex } of rows)
      if (value !== undefined) entries.get(table)?.set(key, entryOf(value, createIndex, modifyIndex));
    const of = <T extends Table>(table: T): Map<string, Entry<T>> =>
      entries.get(table) as unknown as Map<string, Entry<T>>;
    const tables = new Tables();
    tables.index = index;
    tables.floor = of("grave").get(GRAVE_FLOOR)?.floor ?? 0;
    const load = <T extends Table>(table: T): Tree<Entry<T>> => treeOf([...of(table)]);
    tables.#trees = {
      node: load("node"),
      service: load("service"),
      check: load("check"),
      kv: load("kv"),
      session: load("session"),
      alive: load("alive"),
      kept: load("kept"),
      grave: load("grave"),
    };
    tables.#indexes = Indexes.of(of);
    const slots = new Map<string, Slot>();
    for (const service of tables.#indexes.instances()) {
      const lower = service.name.toLowerCase();
      if (!slots.has(lower)) slots.set(lower, { name: service.name, residents: undefined });
    }
    tables.#slots = treeOf([...slots]);
    tables.#loadStamps(of);
    return tables;
  }

  /** What `scopesOf` says of each record, worked out for all at once. */
  #loadStamps(of: <T extends Table>(table: T) => Map<string, Entry<T>>): void {
    const stamps = new Map<Scope, Index>();
    const stamp = (name: Scope, at: Index): void => {
      if (at > this.floor && (stamps.get(name) ?? 0) < at) stamps.set(name, at);
    };
    const services = of("service");
    /** What moves all services of a node: the node itself, its own checks. */
    const nodeChecks = new Map<string, Index>();
    for (const check of of("check").values()) {
      stamp("checks", check.modifyIndex);
      stamp(scope.node(check.node), check.modifyIndex);
      const nodeKey = keyOf.node(check.node);
      if (check.serviceId === "") nodeChecks.set(nodeKey, Math.max(nodeChecks.get(nodeKey) ?? 0, check.modifyIndex));
      const service = check.serviceId === "" ? undefined : services.get(keyOf.service(check.node, check.serviceId));
      if (service === undefined) continue;
      stamp(scope.service(service.name), check.modifyIndex);
      stamp(scope.checksOf(service.name), check.modifyIndex);
      // Of a service its checks tell name and tags; when these last changed is not known any more, so the service's own index counts.
      for (const each of ["checks", scope.checksOf(service.name)] as const)
        if ((this.#servicesOfChecks.get(each) ?? 0) < service.modifyIndex)
          this.#servicesOfChecks.set(each, service.modifyIndex);
    }
    const nodes = of("node");
    for (const [key, { name, node, draining, modifyIndex }] of services) {
      const nodeKey = nodeOfKey(key);
      if (draining === true) {
        stamp("checks", modifyIndex);
        stamp(scope.checksOf(name), modifyIndex);
      }
      const nodeAt = Math.max(modifyIndex, nodes.get(nodeKey)?.modifyIndex ?? 0);
      stamp("services", modifyIndex);
      stamp(scope.node(node), modifyIndex);
      stamp(scope.instances(name), nodeAt);
      stamp(scope.service(name), Math.max(nodeAt, nodeChecks.get(nodeKey) ?? 0));
    }
    for (const [key, { modifyIndex }] of nodes) {
      stamp("nodes", modifyIndex);
      stamp(scope.node(key), modifyIndex);
    }
    for (const table of TABLES)
      if (!SCOPED_TOGETHER.has(table))
        for (const [key, entry] of of(table))
          for (const each of this.scopesOf(table, key, entry as TableTypes[Table])) stamp(each, entry.modifyIndex);
    const keys = of("kv");
    for (const { scopes, modifyIndex } of of("grave").values())
      for (const each of scopes)
        if (!each.startsWith("kv:") || !keys.has(each.slice("kv:".length))) stamp(each, modifyIndex);
    this.#stamps = treeOf([...stamps]);
  }

  /**
   * After `from`: what is told of checks may have moved whenever their services did, as a service's own index tells no better. Counts
   * for the scopes that moved, or for all in a state that follows on nothing known.
   */
  stampChecks(moved?: ReadonlySet<Scope>): void {
    for (const [each, at] of this.#servicesOfChecks) if (moved === undefined || moved.has(each)) this.#stamp(each, at);
    this.#servicesOfChecks.clear();
  }

  /**
   * Takes over rows, which stand in the order of their indexes, and tells which scopes moved. A put that is there already (same
   * modifyIndex) and a removal of what is not there touch nothing by themselves.
   */
  apply(rows: Iterable<Row>, index: Index): Touched {
    const touched = new Map<Scope, Index>();
    let kvMoved = false;
    for (const row of rows) {
      const before = this.get(row.table, row.key);
      if (row.value === undefined ? before === undefined : before?.modifyIndex === row.modifyIndex) continue;
      const scopes = new Set<Scope>();
      if (before !== undefined) {
        for (const each of this.scopesOf(row.table, row.key, before)) scopes.add(each);
        if (row.value === undefined) {
          this.#trees[row.table].delete(row.key);
          this.#indexes.unlink(row.table, row.key, before);
        }
      }
      if (row.value !== undefined) {
        const entry = entryOf(row.value, row.createIndex, row.modifyIndex);
        (this.#trees[row.table] as Tree<Entry<Table>>).set(row.key, entry);
        this.#indexes.link(row.table, row.key, entry, before);
        for (const each of this.scopesOf(row.table, row.key, entry)) scopes.add(each);
        if (row.table === "service")
          spareChecks(before as Entry<"service"> | undefined, entry as Entry<"service">, scopes);
      }
      if (row.table === "grave") this.#takeGrave(row, before as Entry<"grave"> | undefined, scopes);
      if (row.table === "kv" || row.table === "grave") kvMoved = true;
      for (const each of scopes) {
        if ((touched.get(each) ?? 0) < row.modifyIndex) touched.set(each, row.modifyIndex);
        if (each.startsWith("kv:") && this.#trees.kv.has(each.slice(3))) continue;
        this.#stamp(each, row.modifyIndex);
      }
    }
    for (const each of touched.keys()) if (each.startsWith("service:")) this.#renewSlot(each.slice("service:".length));
    if (kvMoved) this.#treeMemo = new Map();
    this.#asked.clear();
    if (index > this.index) this.index = index;
    return touched;
  }

  /** Takes over the stamps of an older state of the same line, so that no scope goes back. Tells which scopes moved since. */
  inherit(older: Tables): Touched {
    const moved = difference(older, this);
    // Also what came and went in between; what is below the floor was known, and forgotten.
    for (const [key, grave] of this.entries("grave"))
      if (grave.modifyIndex > older.floor && older.get("grave", key)?.modifyIndex !== grave.modifyIndex)
        for (const each of grave.scopes) moved.add(each);
    for (const [name, at] of older.#stamps.entries()) this.#stamp(name as Scope, at);
    if (older.floor > this.floor) this.floor = older.floor;
    this.stampChecks(moved);
    const touched = new Map<Scope, Index>();
    for (const each of moved) {
      // Whatever moved did so after the older state, even where nothing tells any more when.
      if (this.at(each) <= older.index) this.#stamp(each, this.index);
      touched.set(each, this.at(each));
    }
    this.#treeMemo = new Map();
    return touched;
  }

  /** The scopes for which a record speaks: those that move when it comes, changes or goes. */
  scopesOf<T extends Table>(table: T, key: string, entry: TableTypes[T]): Scope[] {
    switch (table) {
      case "node": {
        const scopes: Scope[] = ["nodes", scope.node(key)];
        for (const service of this.list("service", keyOf.ofNode(key)))
          scopes.push(scope.service(service.name), scope.instances(service.name));
        return scopes;
      }
      case "service": {
        const { name, node, id, draining } = entry as TableTypes["service"];
        const scopes: Scope[] = ["services", scope.node(node), scope.service(name), scope.instances(name)];
        // A drain is told among the checks, as a check.
        if (draining === true || this.#indexes.hasChecks(node, id)) scopes.push("checks", scope.checksOf(name));
        return scopes;
      }
      case "check": {
        const { node, serviceId } = entry as TableTypes["check"];
        return ["checks", scope.node(node), ...this.scopesOfOwner(node, serviceId)];
      }
      case "kv":
        return [scope.kv(key)];
      case "session":
        return ["sessions", scope.session(key)];
      case "alive":
        return ["alive"];
      case "kept":
        return [scope.kept((entry as TableTypes["kept"]).kind)];
      default:
        return [];
    }
  }

  /** The scopes that a check moves because of what it is about. */
  scopesOfOwner(node: string, serviceId: string): Scope[] {
    if (serviceId !== "") {
      const name = this.get("service", keyOf.service(node, serviceId))?.name;
      return name === undefined ? [] : [scope.service(name), scope.checksOf(name)];
    }
    return Array.from(this.list("service", keyOf.ofNode(node)), (service) => scope.service(service.name));
  }

  #takeGrave(row: Row, before: Entry<"grave"> | undefined, scopes: Set<Scope>): void {
    const grave = row.value as TableTypes["grave"] | undefined;
    if (grave === undefined) {
      // What the floor covers, or a living key, needs no stamp of its own.
      if (before === undefined) return;
      for (const each of before.scopes) {
        if (this.#stamps.get(each) !== before.modifyIndex) continue;
        if (before.modifyIndex <= this.floor || (each.startsWith("kv:") && this.#trees.kv.has(each.slice(3))))
          this.#stamps.delete(each);
      }
      return;
    }
    if (row.key !== GRAVE_FLOOR) {
      for (const each of grave.scopes) scopes.add(each);
      return;
    }
    if (grave.floor === undefined || grave.floor <= this.floor) return;
    this.floor = grave.floor;
    const covered: string[] = [];
    for (const [name, at] of this.#stamps.entries()) if (at <= this.floor) covered.push(name);
    for (const name of covered) this.#stamps.delete(name);
  }

  #stamp(name: Scope, at: Index): void {
    if (at > this.floor && (this.#stamps.get(name) ?? 0) < at) this.#stamps.set(name, at);
  }

  #renewSlot(lower: string): void {
    const first = this.#indexes.firstOf(lower);
    if (first === undefined) this.#slots.delete(lower);
    else this.#slots.set(lower, { name: first.name, residents: undefined });
  }

  /** Keys are taken as `keyOf` makes them. */
  get<T extends Table>(table: T, key: string): Entry<T> | undefined {
    return (this.#trees[table] as Tree<Entry<T>>).get(key);
  }

  *list<T extends Table>(table: T, prefix = ""): Generator<Entry<T>, void> {
    for (const [key, entry] of (this.#trees[table] as Tree<Entry<T>>).entries(prefix)) {
      if (!key.startsWith(prefix)) return;
      yield entry;
    }
  }

  /** Keys and records, in order. */
  entries<T extends Table>(table: T): IterableIterator<[string, Entry<T>]> {
    return (this.#trees[table] as Tree<Entry<T>>).entries();
  }

  count(table: Table): number {
    return this.#trees[table].size;
  }

  /** Of how many scopes it is known when they last moved. */
  get stamped(): number {
    return this.#stamps.size;
  }

  at(wanted: Scope): Index {
    let at = Math.max(1, this.floor);
    if (wanted.startsWith("tree:")) return Math.max(at, this.#treeAt(wanted.slice("tree:".length)));
    at = Math.max(at, this.#stamps.get(wanted) ?? 0);
    if (wanted.startsWith("kv:")) at = Math.max(at, this.#trees.kv.get(wanted.slice(3))?.modifyIndex ?? 0);
    return at;
  }

  #treeAt(prefix: string): Index {
    const known = this.#treeMemo.get(prefix);
    if (known !== undefined) return known;
    let at = 0;
    for (const { modifyIndex } of this.list("kv", prefix)) if (modifyIndex > at) at = modifyIndex;
    for (const [name, stamp] of this.#stamps.entries(`kv:${prefix}`)) {
      if (!name.startsWith(`kv:${prefix}`)) break;
      if (stamp > at) at = stamp;
    }
    this.#treeMemo.set(prefix, at);
    return at;
  }

  /** Whether `scope` would be known to have moved after `index` without what stands at `index` itself and without the floor. */
  movedAfter(wanted: Scope, index: Index): boolean {
    if (wanted.startsWith("kv:") && (this.#trees.kv.get(wanted.slice(3))?.modifyIndex ?? 0) > index) return true;
    return (this.#stamps.get(wanted) ?? 0) > index;
  }

  *serviceNames(): Generator<string, void> {
    for (const slot of this.#slots.values()) yield slot.name;
  }

  residents(service: string): readonly Resident[] {
    const lower = service.toLowerCase();
    const asked = this.#asked.get(lower);
    if (asked !== undefined) return asked;
    const slot = this.#slots.get(lower);
    if (slot === undefined) return NO_RESIDENTS;
    if (slot.residents === undefined) {
      const checksOfNode = new Map<string, readonly Entry<"check">[]>();
      const residents: Resident[] = [];
      for (const instance of this.#indexes.instancesOf(lower)) {
        const resident = this.#residentOf(instance, checksOfNode);
        if (resident !== undefined) residents.push(resident);
      }
      slot.residents = Object.freeze(residents);
    }
    this.#asked.set(lower, slot.residents);
    return slot.residents;
  }

  residentsOn(node: string): readonly Resident[] {
    const checksOfNode = new Map<string, readonly Entry<"check">[]>();
    const residents: Resident[] = [];
    for (const instance of this.list("service", keyOf.ofNode(node))) {
      const resident = this.#residentOf(instance, checksOfNode);
      if (resident !== undefined) residents.push(resident);
    }
    return residents;
  }

  atAddress(address: string): { nodes: readonly Entry<"node">[]; residents: readonly Resident[] } {
    const nodes: Entry<"node">[] = [];
    const residents: Resident[] = [];
    const found = this.#indexes.at(address);
    for (const key of found.nodes) {
      const node = this.get("node", key);
      if (node !== undefined) nodes.push(node);
    }
    for (const key of found.services) {
      const instance = this.get("service", key);
      const resident = instance && this.#residentOf(instance);
      if (resident !== undefined) residents.push(resident);
    }
    for (const node of nodes)
      for (const resident of this.residentsOn(node.name))
        if (resident.instance.address === "") residents.push(resident);
    return { nodes, residents };
  }

  /** Undefined for an instance whose node is missing: it cannot be reached and is nobody's. */
  #residentOf(
    instance: Entry<"service">,
    checksOfNode: Map<string, readonly Entry<"check">[]> = new Map(),
  ): Resident | undefined {
    const nodeKey = keyOf.node(instance.node);
    const node = this.get("node", nodeKey);
    if (node === undefined) return undefined;
    let shared = checksOfNode.get(nodeKey);
    if (shared === undefined) {
      shared = this.checksAbout(nodeKey, "");
      checksOfNode.set(nodeKey, shared);
    }
    const own = this.checksAbout(nodeKey, instance.id);
    const checks = own.length === 0 ? shared : Object.freeze([...shared, ...own]);
    return Object.freeze({ instance, node, checks });
  }

  /** The checks about one service of a node; "" = those about the node itself. */
  checksAbout(nodeKey: string, serviceId: string): readonly Entry<"check">[] {
    return this.#indexes.checksAbout(nodeKey, serviceId);
  }

  heldBy(session: string): readonly Entry<"kv">[] {
    return this.#indexes.heldBy(session);
  }

  /** The keys of the records in `kept` that go with a session. */
  boundTo(session: string): readonly string[] {
    return this.#indexes.boundTo(session);
  }
}

/** Of a service its checks tell only name and tags, and that it drains: other changes do not concern who waits for checks. */
function spareChecks(
  before: TableTypes["service"] | undefined,
  after: TableTypes["service"],
  scopes: Set<Scope>,
): void {
  if (before === undefined || before.name !== after.name || !sameList(before.tags, after.tags)) return;
  if (before.draining === true || after.draining === true) return;
  scopes.delete("checks");
  scopes.delete(scope.checksOf(after.name));
}

/** The scopes in which two states differ. */
export function difference(before: Tables, after: Tables): Set<Scope> {
  const moved = new Set<Scope>();
  for (const table of TABLES) {
    if (table === "grave") continue;
    for (const [key, old] of before.entries(table)) {
      const now = after.get(table, key);
      if (now?.modifyIndex === old.modifyIndex && now.createIndex === old.createIndex) continue;
      const scopes = new Set(before.scopesOf(table, key, old));
      if (now !== undefined) for (const each of after.scopesOf(table, key, now)) scopes.add(each);
      if (table === "service" && now !== undefined)
        spareChecks(old as Entry<"service">, now as Entry<"service">, scopes);
      for (const each of scopes) moved.add(each);
    }
    for (const [key, now] of after.entries(table))
      if (before.get(table, key) === undefined) for (const each of after.scopesOf(table, key, now)) moved.add(each);
  }
  return moved;
}
