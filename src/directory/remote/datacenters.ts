// Services of other datacenters, asked for over Consul's HTTP API: a short cache, one question at a time, and the last known good.
import type { Clock } from "../../base/clock.ts";
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import { type Random, shuffle } from "../../base/random.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import { worst } from "../../model/check.ts";
import { addressOf, type Resident } from "../../model/instance.ts";
import type { Answer, Endpoint, Query } from "../../model/query.ts";
import type { Entry, Index, Table, Tables } from "../../model/record.ts";
import { checkFrom, instanceFrom, type Json, nodeFrom } from "./consul-wire.ts";
import type { Servers } from "./servers.ts";

export interface DatacentersOptions {
  /** This host's own datacenter, of which nothing is asked here. */
  readonly own: string;
  /** A client host's servers: they may know datacenters that this host does not. */
  readonly joined?: Servers;
  readonly datacenters: ReadonlyMap<string, Servers>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** An answer is used again for so long. */
const FRESH_MS = 1000;
/** A datacenter that did not answer is left alone for so long. */
const DEAD_MS = 2000;
/** So long a question may take. */
const ASK_MS = 3000;
/** Services whose last answer is remembered. */
const REMEMBERED = 4096;

interface Known {
  readonly residents: readonly Resident[];
  readonly index: Index;
  readonly atMs: number;
}

/** Answers queries that name one of the datacenters; everything else is unknown here. */
export function createDatacenters({
  own,
  joined,
  datacenters,
  clock,
  random,
  log: base,
}: DatacentersOptions): Pick<Lookup, "resolve"> {
  const log = base.part("datacenters");
  const known = new Map<string, Known>();
  const asking = new Map<string, Promise<Known>>();
  const dead = new Map<string, { readonly untilMs: number; readonly error: unknown }>();
  const unknown: Answer = { endpoints: [], fresh: true, ageMs: 0, known: false, index: 1 };

  async function ask(datacenter: string, servers: Servers, service: string, key: string): Promise<Known> {
    const silent = dead.get(datacenter);
    if (silent !== undefined && clock.monotonic() < silent.untilMs) throw silent.error;
    try {
      const found = await servers.json({
        path: `/v1/health/service/${encodeURIComponent(service)}${servers === joined ? `?dc=${encodeURIComponent(datacenter)}` : ""}`,
        headTimeoutMs: ASK_MS,
        bodyTimeoutMs: ASK_MS,
      });
      const result: Known = {
        residents: residentsOf(found.value),
        index: found.index,
        atMs: clock.monotonic(),
      };
      if (silent !== undefined) log.info(`datacenter "${datacenter}" answers again`);
      dead.delete(datacenter);
      known.delete(key);
      known.set(key, result);
      for (const oldest of known.keys()) {
        if (known.size <= REMEMBERED) break;
        known.delete(oldest);
      }
      return result;
    } catch (error) {
      const told = new TrilithError("unavailable", `No path to datacenter "${datacenter}": ${messageOf(error)}`, error);
      if (silent === undefined) log.warn(told.message);
      // Names come from whoever asks.
      if (dead.size >= REMEMBERED) dead.clear();
      dead.set(datacenter, { untilMs: clock.monotonic() + DEAD_MS, error: told });
      throw told;
    }
  }

  return {
    async resolve(query: Query, signal?: AbortSignal): Promise<Answer> {
      const datacenter = (query.datacenter ?? "").toLowerCase();
      if (datacenter === "" || datacenter === own.toLowerCase()) return unknown;
      const servers = datacenters.get(datacenter) ?? joined;
      if (servers === undefined) return unknown;
      const key = `${datacenter}\u0000${query.service.toLowerCase()}`;
      const last = known.get(key);
      if (last !== undefined && clock.monotonic() - last.atMs < FRESH_MS) return answerOf(query, last, 0, random);
      let question = asking.get(key);
      if (question === undefined) {
        question = ask(datacenter, servers, query.service, key).finally(() => asking.delete(key));
        asking.set(key, question);
        question.catch(() => {});
      }
      try {
        return answerOf(query, await unlessAborted(question, signal), 0, random);
      } catch (error) {
        if (last === undefined) throw error;
        return answerOf(query, last, Math.max(1, clock.monotonic() - last.atMs), random);
      }
    },
  };
}

function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

function entry<T extends Table>(value: Tables[T], raw: Json): Entry<T> {
  return {
    ...value,
    createIndex: Number(raw["CreateIndex"] ?? 0),
    modifyIndex: Number(raw["ModifyIndex"] ?? 0),
  } as Entry<T>;
}

/** Instances as Consul's health answers list them. @throws TrilithError `unavailable` for what is no such list */
export function residentsOf(value: unknown): readonly Resident[] {
  if (!Array.isArray(value)) throw new TrilithError("unavailable", "the answer is no list of instances");
  return (value as Json[]).map((raw) => {
    const node = raw["Node"] as Json;
    const service = raw["Service"] as Json;
    const named = nodeFrom(node);
    return {
      node: entry<"node">(named, node),
      instance: entry<"service">(instanceFrom(named.name, service), service),
      checks: ((raw["Checks"] as readonly Json[] | null) ?? []).map((check) => entry<"check">(checkFrom(check), check)),
    };
  });
}

/** Where to connect, for an instance that is told as usable. */
export function endpointOf(resident: Resident): Endpoint {
  const { weights, port } = resident.instance;
  const weight = (worst(resident.checks) === "warning" ? weights?.warning : weights?.passing) ?? 1;
  return { address: addressOf(resident), port, weight, resident };
}

function answerOf(query: Query, { residents, index }: Known, ageMs: number, random: Random): Answer {
  const tags = (query.tags ?? []).map((tag) => tag.toLowerCase());
  const endpoints: Endpoint[] = [];
  for (const resident of residents) {
    const { instance, checks } = resident;
    const own = instance.tags.map((tag) => tag.toLowerCase());
    if (!tags.every((tag) => own.includes(tag))) continue;
    if (!Object.entries(query.labels ?? {}).every(([key, value]) => instance.labels[key] === value)) continue;
    const status = worst(checks);
    if (query.health !== "any" && (status === "critical" || (query.health === "passing" && status !== "passing")))
      continue;
    endpoints.push(endpointOf(resident));
  }
  if (query.order !== "stable") shuffle(endpoints, random);
  return {
    endpoints: endpoints.slice(0, query.limit ?? endpoints.length),
    fresh: ageMs === 0,
    ageMs,
    known: residents.length > 0,
    index: Math.max(1, index),
  };
}
