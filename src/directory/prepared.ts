// Prepared queries as records in the directory: unique names, the template that fits best, and how a query is carried out.
import { messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import type { Directory, View } from "../contracts/directory.ts";
import type { Lookup } from "../contracts/lookup.ts";
import type { Prepared, PreparedAnswer, PreparedEntry, PreparedOptions } from "../contracts/prepared.ts";
import type { Resident } from "../model/instance.ts";
import type { Labels } from "../model/node.ts";
import type { PreparedQuery, PreparedRequest, PreparedService } from "../model/prepared.ts";
import type { Answer, Endpoint, Query } from "../model/query.ts";
import { type Change, type Entry, type Expect, keyOf, scope } from "../model/record.ts";
import { metaFault } from "../wire/consul-definition/faults.ts";
import { parseGoDuration } from "../wire/duration.ts";
import { compileTemplate, type Template } from "./query-template.ts";

export interface PreparedBase {
  readonly directory: Directory;
  readonly lookup: Pick<Lookup, "resolve" | "resolveNow">;
  readonly random: Random;
  readonly log: Log;
  /** This agent's node and datacenter. */
  readonly node: string;
  readonly datacenter: string;
  /** The other datacenters that can be asked, the nearest first. */
  readonly datacenters: readonly string[];
  /** Who carries out the queries of a datacenter where this agent does not keep them itself. */
  readonly elsewhere: (
    datacenter: string,
  ) =>
    | ((idOrName: string, options: PreparedOptions, signal?: AbortSignal) => Promise<PreparedAnswer | undefined>)
    | undefined;
  /** Items with those of the closest nodes first, otherwise in their order; near "" = as they are. */
  readonly nearestFirst: <T>(
    view: View,
    near: string,
    items: readonly T[],
    nodeOf: (item: T) => string,
  ) => readonly T[];
}

const KIND = "query";
/** Names in use: a record of their own, so that no two processes give one name away at the same time. */
const NAME_KIND = "query-name";
const RETRIES = 20;

/** What stands for a name: lower case, and never empty as a record's ID must not be. */
const nameKey = (name: string): string => keyOf.kept(NAME_KIND, nameId(name));
const nameId = (name: string): string => `n:${name.toLowerCase()}`;

/** Queries of one state of the directory, found quickly. */
interface Shelf {
  readonly at: number;
  readonly byId: ReadonlyMap<string, PreparedEntry>;
  /** By lower-case name. */
  readonly byName: ReadonlyMap<string, PreparedEntry>;
  /** Those with the longest name first. */
  readonly templates: readonly { readonly prefix: string; readonly entry: PreparedEntry }[];
}

/** The directory's prepared queries. */
export function createPrepared(base: PreparedBase): Prepared {
  const { directory, lookup, random, datacenter } = base;
  const log = base.log.part("prepared");
  const scopeOfAll = scope.kept(KIND);
  const templates = new WeakMap<PreparedEntry, Template>();
  let shelf: Shelf | undefined;

  const shelfOf = (view: View): Shelf => {
    const at = view.at(scopeOfAll);
    if (shelf?.at === at) return shelf;
    const byId = new Map<string, PreparedEntry>();
    const byName = new Map<string, PreparedEntry>();
    const prefixes: { readonly prefix: string; readonly entry: PreparedEntry }[] = [];
    for (const record of view.list("kept", keyOf.ofKind(KIND))) {
      const entry = entryOf(record);
      if (entry === undefined) continue;
      byId.set(entry.id, entry);
      const name = entry.name.toLowerCase();
      if (name !== "") byName.set(name, entry);
      if (entry.template !== undefined) prefixes.push({ prefix: name, entry });
    }
    prefixes.sort((a, b) => b.prefix.length - a.prefix.length);
    shelf = { at, byId, byName, templates: prefixes };
    return shelf;
  };

  const rendered = (entry: PreparedEntry, name: string): PreparedEntry => {
    if (entry.template === undefined) return entry;
    let template = templates.get(entry);
    if (template === undefined) {
      template = compileTemplate({ ...entry, template: entry.template });
      templates.set(entry, template);
    }
    return { ...entry, service: template.render(name) };
  };

  const resolve = (view: View, idOrName: string): PreparedEntry | undefined => {
    if (idOrName === "") throw new TrilithError("invalid", "Missing Query ID");
    const { byId, byName, templates: ordered } = shelfOf(view);
    const lower = idOrName.toLowerCase();
    const own = byId.get(lower);
    if (own?.template !== undefined)
      throw new TrilithError("invalid", "prepared query templates can only be resolved up by name, not by ID");
    if (own !== undefined) return own;
    const named = byName.get(lower) ?? ordered.find(({ prefix }) => lower.startsWith(prefix))?.entry;
    return named === undefined ? undefined : rendered(named, idOrName);
  };

  /** What is to be written, on the strength of a view. @throws TrilithError `conflict`, `not-found` */
  type Plan = (view: View) => { readonly changes: readonly Change[]; readonly expect: readonly Expect[] };

  const planPut =
    (id: string, request: PreparedRequest): Plan =>
    (view) => {
      const { byId, byName, templates: ordered } = shelfOf(view);
      const before = byId.get(id);
      const conflict = (text: string): never => {
        throw new TrilithError("conflict", text);
      };
      const lower = request.name.toLowerCase();
      if (lower !== "") {
        const other = byName.get(lower);
        if (other !== undefined && other.id !== id) conflict(`name '${request.name}' aliases an existing query name`);
      } else if (request.template !== undefined) {
        const other = ordered.find(({ prefix }) => prefix === "")?.entry;
        if (other !== undefined && other.id !== id) conflict("a query template with an empty name already exists");
      }
      if (byId.has(lower)) conflict(`name '${request.name}' aliases an existing query ID`);
      const session = request.session === "" ? undefined : view.get("session", keyOf.session(request.session));
      if (request.session !== "" && (session === undefined || session.ended === true))
        conflict(`invalid session ${JSON.stringify(request.session)}`);
      if (request.template !== undefined)
        try {
          compileTemplate({ ...request, template: request.template });
        } catch (error) {
          conflict(`failed compiling template: ${messageOf(error)}`);
        }
      const bound = request.session === "" ? {} : { session: request.session };
      const key = keyOf.kept(KIND, id);
      const changes: Change[] = [
        { op: "put", table: "kept", key, value: { kind: KIND, id, value: request, ...bound } },
      ];
      const expect: Expect[] = [{ table: "kept", key, at: before?.modifyIndex ?? 0 }];
      const held = before === undefined ? undefined : heldName(before);
      const wanted = heldName(request);
      if (held !== undefined && held !== wanted) changes.push({ op: "delete", table: "kept", key: nameKey(held) });
      if (wanted !== undefined) {
        const value = { kind: NAME_KIND, id: nameId(wanted), value: { query: id }, ...bound };
        changes.push({ op: "put", table: "kept", key: nameKey(wanted), value });
        if (held !== wanted) expect.push({ table: "kept", key: nameKey(wanted), at: 0 });
      }
      return { changes, expect };
    };

  const planDelete =
    (id: string): Plan =>
    (view) => {
      const before = existing(view, id);
      const held = heldName(before);
      const keys = [keyOf.kept(KIND, id), ...(held === undefined ? [] : [nameKey(held)])];
      return {
        changes: keys.map((key) => ({ op: "delete", table: "kept", key })),
        expect: [{ table: "kept", key: keyOf.kept(KIND, id), at: before.modifyIndex }],
      };
    };

  const existing = (view: View, id: string): PreparedEntry => {
    const found = shelfOf(view).byId.get(id);
    if (found === undefined) throw new TrilithError("not-found", `Cannot modify non-existent prepared query: '${id}'`);
    return found;
  };

  const carryOut = async (plan: Plan): Promise<void> => {
    let caughtUp = false;
    for (let tries = 0; tries < RETRIES; tries++) {
      try {
        const { changes, expect } = plan(directory.view());
        const written = await directory.write(changes, expect);
        if (written.result === "written") return;
        if (written.result === "unknown")
          throw new TrilithError(
            "timeout",
            "whether the query was written is not known: the store did not answer",
            written.cause,
          );
      } catch (error) {
        // A refusal may be out of date where others write, too.
        if (caughtUp || !(error instanceof TrilithError) || !/^(conflict|not-found|invalid)$/.test(error.code))
          throw error;
      }
      await directory.barrier();
      caughtUp = true;
    }
    throw new TrilithError(
      "unavailable",
      `gave up after ${RETRIES} attempts: others write the same query all the time`,
    );
  };

  /** What is asked of the lookup, and which of its endpoints fit. */
  const begin = (entry: PreparedEntry, options: PreparedOptions) => {
    const { service, connect, onlyPassing, ignoreChecks = [] } = entry.service;
    const query: Query = {
      service,
      health: ignoreChecks.length > 0 ? "any" : onlyPassing ? "passing" : "routable",
      order: "random",
      ...(options.asker === undefined ? {} : { asker: options.asker }),
      ...(options.family === undefined ? {} : { family: options.family }),
    };
    const fits = filterOf(entry.service);
    // There is no service mesh here, and there are no peers.
    const nobody = connect || options.connect === true;
    return { query, pick: ({ endpoints }: Answer): Endpoint[] => (nobody ? [] : endpoints.filter(fits)) };
  };

  const local = (view: View, entry: PreparedEntry, options: PreparedOptions): PreparedAnswer => {
    const { query, pick } = begin(entry, options);
    const { peer } = entry.service;
    const found = peer === "" ? nearFirst(view, pick(lookup.resolveNow(query)), entry.service.near, options) : [];
    return {
      service: entry.service.service,
      ttl: entry.ttl,
      endpoints: limited(found, options.limit),
      datacenter: peer === "" ? datacenter : "",
      peer,
      failovers: 0,
      more: found.length === 0 && targetsOf(entry.service).length > 0,
    };
  };

  const nearFirst = (
    view: View,
    endpoints: readonly Endpoint[],
    own: string,
    options: PreparedOptions,
  ): readonly Endpoint[] => {
    let near = options.near === undefined || options.near === "" ? own : options.near;
    if (near === "_agent") near = base.node;
    else if (near === "_ip") near = view.atAddress(options.asker ?? "").nodes[0]?.name ?? "";
    return base.nearestFirst(view, near, endpoints, ({ resident }) => resident.node.name);
  };

  /** Where else to ask, in order: names of datacenters, or of peers. */
  const targetsOf = ({
    failover,
  }: PreparedService): readonly { readonly datacenter: string; readonly peer: string }[] => {
    const others = base.datacenters.filter((each) => each.toLowerCase() !== datacenter.toLowerCase());
    const known = new Map(others.map((each) => [each.toLowerCase(), each]));
    const nearest = others.slice(0, Math.max(0, failover.nearest));
    const targets = nearest.map((each) => ({ datacenter: each, peer: "" }));
    const asked = new Set(nearest.map((each) => each.toLowerCase()));
    const named = failover.targets ?? (failover.datacenters ?? []).map((each) => ({ datacenter: each }));
    for (const target of named as readonly { readonly datacenter?: string; readonly peer?: string }[]) {
      if (target.peer !== undefined && target.peer !== "") {
        targets.push({ datacenter: "", peer: target.peer });
        continue;
      }
      const lower = (target.datacenter ?? "").toLowerCase();
      const name = known.get(lower);
      if (name === undefined || asked.has(lower)) continue;
      asked.add(lower);
      targets.push({ datacenter: name, peer: "" });
    }
    return targets;
  };

  return {
    scope: scopeOfAll,
    list: (view) => [...shelfOf(view).byId.values()],
    get: (view, id) => shelfOf(view).byId.get(id.toLowerCase()),
    resolve,
    async create(request) {
      check(request);
      const id = random.uuid();
      await carryOut(planPut(id, request));
      return id;
    },
    async update(given, request) {
      const id = given.toLowerCase();
      await carryOut((view) => {
        existing(view, id);
        check(request);
        return planPut(id, request)(view);
      });
    },
    async delete(id) {
      await carryOut(planDelete(id.toLowerCase()));
    },
    executeNow(idOrName, options) {
      const view = directory.view();
      const entry = resolve(view, idOrName);
      return entry === undefined ? undefined : local(view, entry, options);
    },
    elsewhere: (where = datacenter) => base.elsewhere(where) !== undefined,
    async execute(idOrName, options, signal) {
      const where = options.datacenter ?? datacenter;
      const ask = base.elsewhere(where);
      if (ask !== undefined) return await ask(idOrName, options, signal);
      if (where.toLowerCase() !== datacenter.toLowerCase())
        throw new TrilithError("unavailable", `No path to datacenter "${where}"`);
      const view = directory.view();
      const entry = resolve(view, idOrName);
      if (entry === undefined) return undefined;
      let answer = local(view, entry, options);
      let failovers = 0;
      for (const target of targetsOf(entry.service)) {
        if (answer.endpoints.length > 0) break;
        failovers++;
        const { query, pick } = begin(entry, options);
        try {
          const found =
            target.peer === "" ? await lookup.resolve({ ...query, datacenter: target.datacenter }, signal) : undefined;
          const endpoints = found === undefined ? [] : limited(pick(found), options.limit);
          answer = { ...answer, ...target, endpoints };
        } catch (error) {
          if (signal?.aborted) throw signal.reason;
          log.warn(`datacenter ${target.datacenter} did not answer query ${idOrName}: the next one is asked`, {
            error: messageOf(error),
          });
        }
      }
      return { ...answer, failovers, more: false };
    },
  };
}

/** The name that a query holds for itself; anonymous queries have none, a template may hold "". */
function heldName({ name, template }: PreparedRequest): string | undefined {
  return name === "" && template === undefined ? undefined : name.toLowerCase();
}

/** The query in a record; undefined where another version put something else there. */
function entryOf(record: Entry<"kept">): PreparedEntry | undefined {
  const { id, createIndex, modifyIndex } = record;
  const value = record.value as Partial<PreparedQuery> | null;
  if (typeof value?.name !== "string" || typeof value.service?.service !== "string") return undefined;
  return { ...(value as PreparedRequest), id, createIndex, modifyIndex };
}

function limited(endpoints: readonly Endpoint[], limit: number | undefined): readonly Endpoint[] {
  return limit === undefined || limit <= 0 ? endpoints : endpoints.slice(0, limit);
}

/** Whether an endpoint is one that the query asks for. */
function filterOf(service: PreparedService): (endpoint: Endpoint) => boolean {
  const tags = (service.tags ?? []).map((tag) => tag.toLowerCase());
  const must = tags.filter((tag) => !tag.startsWith("!"));
  const not = tags.filter((tag) => tag.startsWith("!")).map((tag) => tag.slice(1));
  const ignored = new Set(service.ignoreChecks);
  const healthy = ({ instance, checks }: Resident): boolean =>
    instance.draining !== true &&
    checks.every(
      ({ id, status }) => ignored.has(id) || (service.onlyPassing ? status === "passing" : status !== "critical"),
    );
  return ({ resident }) => {
    if (ignored.size > 0 && !healthy(resident)) return false;
    if (!carries(resident.node.labels, service.nodeLabels)) return false;
    if (!carries(resident.instance.labels, service.labels)) return false;
    if (tags.length === 0) return true;
    const own = new Set(resident.instance.tags.map((tag) => tag.toLowerCase()));
    return must.every((tag) => own.has(tag)) && !not.some((tag) => own.has(tag));
  };
}

function carries(labels: Labels, wanted: Labels | undefined): boolean {
  return Object.entries(wanted ?? {}).every(([key, value]) => Object.hasOwn(labels, key) && labels[key] === value);
}

/** Consul's own rules for what a query may say. @throws TrilithError `invalid` in its words */
function check({ name, template, session, token, service, ttl }: PreparedRequest): void {
  const wrong = (text: string): never => {
    throw new TrilithError("invalid", text);
  };
  if (name === "" && template === undefined && session === "") wrong("Must be bound to a session");
  if (token === "<hidden>")
    wrong(`Bad Token '${token}', it looks like a query definition with a redacted token was submitted`);
  if (service.service === "") wrong("Must provide a Service name to query");
  const { nearest, datacenters = [], targets = [] } = service.failover;
  if (nearest < 0) wrong(`Bad NearestN '${nearest}', must be >= 0`);
  if ((nearest !== 0 || datacenters.length > 0) && targets.length > 0)
    wrong("Targets cannot be populated with NearestN or Datacenters");
  const fault = metaFault(service.nodeLabels ?? {}, true);
  if (fault !== undefined) wrong(fault);
  if (ttl === "") return;
  let ttlMs = 0;
  try {
    ttlMs = parseGoDuration(ttl);
  } catch (error) {
    wrong(`Bad DNS TTL '${ttl}': ${messageOf(error)}`);
  }
  if (ttlMs < 0) wrong(`DNS TTL '${BigInt(Math.round(ttlMs * 1e6))}', must be >=0`);
}
