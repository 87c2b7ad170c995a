// By what records are found besides their keys: service names, owners of checks, IP addresses, sessions.
import { type Entry, keyOf, SEPARATOR as NUL, type Table, type Tables } from "../../model/record.ts";
import { below, emptyTree, type Tree, treeOf } from "./tree.ts";

function ownerKey(check: Tables["check"]): string {
  return keyOf.ofNode(check.node) + check.serviceId + NUL + check.id;
}

/** One spelling per IP address; undefined for host names. */
function ipKey(host: string): string | undefined {
  if (host.includes(":")) {
    try {
      return new URL(`http://[${host.split("%", 1)[0]}]/`).hostname;
    } catch {
      return undefined;
    }
  }
  return /^\d{1,3}(\.\d{1,3}){3}$/.test(host) ? host : undefined;
}

function addressKeys(entry: Entry<"service">): Set<string> {
  const keys = new Set<string>();
  for (const host of [entry.address, ...(entry.addresses ?? []).map((address) => address.host)]) {
    const ip = host === "" ? undefined : ipKey(host);
    if (ip !== undefined) keys.add(ip);
  }
  return keys;
}

/** What is bound to a session, by its key in `kept`. */
function boundKey({ session = "" }: Tables["kept"], key: string): string {
  return session + NUL + key;
}

function holderKey({ session = "", key }: Entry<"kv">): string {
  return session + NUL + key;
}

/** All entries of a table, by key. */
export type Entries = <T extends Table>(table: T) => ReadonlyMap<string, Entry<T>>;

/** Grows and shrinks with the tables; `clone` costs next to nothing. */
export class Indexes {
  /** service name, service key → instance. */
  #byService: Tree<Entry<"service">>;
  /** node, service id ("" for the node itself), check id → check. */
  #byOwner: Tree<Entry<"check">>;
  /** IP address, "n" or "s", key of the node or service. */
  #byAddress: Tree<true>;
  /** session, key → key-value pair that it holds. */
  #byHolder: Tree<Entry<"kv">>;
  /** session, key of the record in `kept` that goes with it → that key. */
  #bySession: Tree<string>;

  constructor(from?: Indexes) {
    this.#byService = from === undefined ? emptyTree() : from.#byService.clone();
    this.#byOwner = from === undefined ? emptyTree() : from.#byOwner.clone();
    this.#byAddress = from === undefined ? emptyTree() : from.#byAddress.clone();
    this.#byHolder = from === undefined ? emptyTree() : from.#byHolder.clone();
    this.#bySession = from === undefined ? emptyTree() : from.#bySession.clone();
  }

  clone(): Indexes {
    return new Indexes(this);
  }

  /** Those of a whole content. */
  static of(entries: Entries): Indexes {
    const byService: [string, Entry<"service">][] = [];
    const byAddress: [string, true][] = [];
    for (const [key, service] of entries("service")) {
      byService.push([service.name.toLowerCase() + NUL + key, service]);
      for (const ip of addressKeys(service)) byAddress.push([`${ip}${NUL}s${NUL}${key}`, true]);
    }
    for (const [key, { address }] of entries("node")) {
      const ip = ipKey(address);
      if (ip !== undefined) byAddress.push([`${ip}${NUL}n${NUL}${key}`, true]);
    }
    const byHolder: [string, Entry<"kv">][] = [];
    for (const pair of entries("kv").values()) if (pair.session !== undefined) byHolder.push([holderKey(pair), pair]);
    const bySession: [string, string][] = [];
    for (const [key, record] of entries("kept"))
      if (record.session !== undefined) bySession.push([boundKey(record, key), key]);
    const indexes = new Indexes();
    indexes.#byService = treeOf(byService);
    indexes.#byAddress = treeOf(byAddress);
    indexes.#byHolder = treeOf(byHolder);
    indexes.#bySession = treeOf(bySession);
    indexes.#byOwner = treeOf(Array.from(entries("check").values(), (check) => [ownerKey(check), check] as const));
    return indexes;
  }

  /** Finds an entry from now on; by what `before` had and the entry has no more it is not found. */
  link(table: Table, key: string, entry: Entry<Table>, before: Entry<Table> | undefined): void {
    if (table === "service") {
      const service = entry as Entry<"service">;
      const old = before as Entry<"service"> | undefined;
      if (old !== undefined && old.name !== service.name) this.#byService.delete(old.name.toLowerCase() + NUL + key);
      this.#byService.set(service.name.toLowerCase() + NUL + key, service);
      if (
        old !== undefined &&
        old.address === service.address &&
        old.addresses === undefined &&
        service.addresses === undefined
      )
        return;
      if (old !== undefined) for (const ip of addressKeys(old)) this.#byAddress.delete(`${ip}${NUL}s${NUL}${key}`);
      for (const ip of addressKeys(service)) this.#byAddress.set(`${ip}${NUL}s${NUL}${key}`, true);
    } else if (table === "check") {
      const check = entry as Entry<"check">;
      const old = before as Entry<"check"> | undefined;
      if (old !== undefined && old.serviceId !== check.serviceId) this.#byOwner.delete(ownerKey(old));
      this.#byOwner.set(ownerKey(check), check);
    } else if (table === "node") {
      const { address } = entry as Entry<"node">;
      const old = (before as Entry<"node"> | undefined)?.address;
      if (old === address) return;
      const oldIp = old === undefined ? undefined : ipKey(old);
      if (oldIp !== undefined) this.#byAddress.delete(`${oldIp}${NUL}n${NUL}${key}`);
      const ip = ipKey(address);
      if (ip !== undefined) this.#byAddress.set(`${ip}${NUL}n${NUL}${key}`, true);
    } else if (table === "kv") {
      const pair = entry as Entry<"kv">;
      const old = before as Entry<"kv"> | undefined;
      if (old?.session !== undefined && old.session !== pair.session) this.#byHolder.delete(holderKey(old));
      if (pair.session !== undefined) this.#byHolder.set(holderKey(pair), pair);
    } else if (table === "kept") {
      const record = entry as Entry<"kept">;
      const old = before as Entry<"kept"> | undefined;
      if (old?.session !== undefined && old.session !== record.session) this.#bySession.delete(boundKey(old, key));
      if (record.session !== undefined) this.#bySession.set(boundKey(record, key), key);
    }
  }

  unlink(table: Table, key: string, entry: Entry<Table>): void {
    if (table === "service") {
      const service = entry as Entry<"service">;
      this.#byService.delete(service.name.toLowerCase() + NUL + key);
      for (const ip of addressKeys(service)) this.#byAddress.delete(`${ip}${NUL}s${NUL}${key}`);
    } else if (table === "check") this.#byOwner.delete(ownerKey(entry as Entry<"check">));
    else if (table === "node") {
      const ip = ipKey((entry as Entry<"node">).address);
      if (ip !== undefined) this.#byAddress.delete(`${ip}${NUL}n${NUL}${key}`);
    } else if (table === "kv" && (entry as Entry<"kv">).session !== undefined)
      this.#byHolder.delete(holderKey(entry as Entry<"kv">));
    else if (table === "kept" && (entry as Entry<"kept">).session !== undefined)
      this.#bySession.delete(boundKey(entry as Entry<"kept">, key));
  }

  /** Every instance, by service name. */
  instances(): Iterable<Entry<"service">> {
    return this.#byService.values();
  }

  /** The instances of a service, given in lower case, by key. */
  instancesOf(service: string): readonly Entry<"service">[] {
    return below(this.#byService, service + NUL);
  }

  /** The first of them. */
  firstOf(service: string): Entry<"service"> | undefined {
    const first = this.#byService.getPairOrNextHigher(service + NUL);
    return first?.[0].startsWith(service + NUL) ? first[1] : undefined;
  }

  /** The checks about one service of a node; "" = those about the node itself. */
  checksAbout(nodeKey: string, serviceId: string): readonly Entry<"check">[] {
    return Object.freeze(below(this.#byOwner, nodeKey + NUL + serviceId + NUL));
  }

  hasChecks(node: string, serviceId: string): boolean {
    const prefix = keyOf.ofNode(node) + serviceId + NUL;
    return this.#byOwner.getPairOrNextHigher(prefix)?.[0].startsWith(prefix) === true;
  }

  /** The keys of the nodes and services at an IP address; none for anything else. */
  at(address: string): { readonly nodes: readonly string[]; readonly services: readonly string[] } {
    const nodes: string[] = [];
    const services: string[] = [];
    const ip = ipKey(address);
    if (ip === undefined) return { nodes, services };
    for (const [found] of this.#byAddress.entries(ip + NUL)) {
      if (!found.startsWith(ip + NUL)) break;
      (found[ip.length + 1] === "n" ? nodes : services).push(found.slice(ip.length + 3));
    }
    return { nodes, services };
  }

  /** The key-value pairs that a session holds. */
  heldBy(session: string): readonly Entry<"kv">[] {
    return below(this.#byHolder, session + NUL);
  }

  /** The keys of the records in `kept` that go with a session. */
  boundTo(session: string): readonly string[] {
    return below(this.#bySession, session + NUL);
  }
}
