// The directory as everybody reads it: a picture of the tables that nobody changes any more.
import type { View } from "../../contracts/directory.ts";
import type { Resident } from "../../model/instance.ts";
import { type Entry, type Index, keyIn, type Scope, type Table } from "../../model/record.ts";
import type { Tables } from "../tables.ts";

/** A frozen picture: tables that nobody changes any more, and how true they are. */
export class FrozenView implements View {
  readonly index: Index;
  readonly asOfMs: number;
  readonly fresh: boolean;
  readonly #tables: Tables;

  constructor(tables: Tables, fresh: boolean, asOfMs: number) {
    this.#tables = tables;
    this.index = tables.index;
    this.fresh = fresh;
    this.asOfMs = asOfMs;
  }

  at(wanted: Scope): Index {
    return this.#tables.at(wanted);
  }
  get<T extends Table>(table: T, key: string): Entry<T> | undefined {
    return this.#tables.get(table, keyIn(table, key));
  }
  list<T extends Table>(table: T, prefix = ""): Iterable<Entry<T>> {
    return this.#tables.list(table, keyIn(table, prefix));
  }
  count(table: Table): number {
    return this.#tables.count(table);
  }
  serviceNames(): Iterable<string> {
    return this.#tables.serviceNames();
  }
  residents(service: string): readonly Resident[] {
    return this.#tables.residents(service);
  }
  residentsOn(node: string): readonly Resident[] {
    return this.#tables.residentsOn(node);
  }
  atAddress(ip: string): { readonly nodes: readonly Entry<"node">[]; readonly residents: readonly Resident[] } {
    return this.#tables.atAddress(ip);
  }
  heldBy(session: string): readonly Entry<"kv">[] {
    return this.#tables.heldBy(session);
  }
}
