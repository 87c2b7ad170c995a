// Prepared queries: kept, found by ID, name or template, and carried out (the rules live in directory/prepared.ts).
import type { PreparedQuery, PreparedRequest } from "../model/prepared.ts";
import type { Endpoint } from "../model/query.ts";
import type { Index, Scope } from "../model/record.ts";
import type { View } from "./directory.ts";

/** A query with its place on the line of changes. */
export type PreparedEntry = PreparedQuery & { readonly createIndex: Index; readonly modifyIndex: Index };

/** Who asks, and how much is wanted. */
export interface PreparedOptions {
  /** At most so many endpoints; 0 or absent = all. */
  readonly limit?: number;
  /** A node, "_agent" or "_ip"; wins over the query's own. */
  readonly near?: string;
  /** The asker's IP address. */
  readonly asker?: string;
  /** As `Query.family`. */
  readonly family?: 4 | 6;
  /** Only instances of a service mesh, whatever the query says. */
  readonly connect?: boolean;
  /** Another datacenter's query; `unavailable` where it is not known. */
  readonly datacenter?: string;
}

/** What came of a query. */
export interface PreparedAnswer {
  /** The service that was asked for. */
  readonly service: string;
  /** How long DNS answers may be kept, as a Go duration; "" = as for the service. */
  readonly ttl: string;
  /** In the order in which they are to be tried. */
  readonly endpoints: readonly Endpoint[];
  /** Where the endpoints are; "" for a peer's. */
  readonly datacenter: string;
  readonly peer: string;
  /** How many other places were asked. */
  readonly failovers: number;
  /** True where nobody was found, and the query names others who have not been asked. */
  readonly more: boolean;
}

/** The prepared queries of the directory. */
export interface Prepared {
  /** Moves when a query comes, changes or goes. */
  readonly scope: Scope;
  /** In the order of their IDs. */
  list(view: View): readonly PreparedEntry[];
  /** By its ID; undefined where there is none. */
  get(view: View, id: string): PreparedEntry | undefined;
  /** Returns the new query's ID. @throws TrilithError `invalid`, `conflict` (the name is taken) in Consul's words, and as `Directory.write` */
  create(request: PreparedRequest): Promise<string>;
  /** @throws TrilithError `not-found`, and as `create` */
  update(id: string, request: PreparedRequest): Promise<void>;
  /** @throws TrilithError `not-found` */
  delete(id: string): Promise<void>;
  /**
   * The query of an ID or name, else what the template with the longest fitting name makes of it; undefined = none.
   * @throws TrilithError `invalid` for a template's ID, and where a template comes to nothing
   */
  resolve(view: View, idOrName: string): PreparedEntry | undefined;
  /** Resolves and carries out; elsewhere, too, where nobody here answers. Waits at most until the signal. @throws as `resolve` */
  execute(idOrName: string, options: PreparedOptions, signal?: AbortSignal): Promise<PreparedAnswer | undefined>;
  /** True where only others know the queries of a datacenter (our own unless told), and can be asked: `execute` asks them. */
  elsewhere(datacenter?: string): boolean;
  /** Like `execute`, from what is known here; never blocks. */
  executeNow(idOrName: string, options: PreparedOptions): PreparedAnswer | undefined;
}
