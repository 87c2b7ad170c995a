// Services and nodes of other datacenters, asked for over Consul's HTTP API: a short cache, one question at a time, and the last known good.
import type { Clock } from "../../base/clock.ts";
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import { type Random, shuffle } from "../../base/random.ts";
import { jsonOf, type Servers } from "../../base/servers.ts";
import { unlessAborted } from "../../base/unless-aborted.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import { worst } from "../../model/check.ts";
import { addressOf, type Resident } from "../../model/instance.ts";
import type { Node } from "../../model/node.ts";
import type { Answer, Endpoint, Query } from "../../model/query.ts";
import type { Entry, Index, Table, Tables } from "../../model/record.ts";
import type { Json } from "../../wire/consul-catalog.ts";
import { checkFrom, instanceFrom, nodeFrom } from "./consul-wire.ts";

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

/** What was asked and could not be, or not any more: a server's word that there is no such datacenter, nothing behind it. */
const NO_SUCH_DATACENTER = /^No path to datacenter\s*$/;

interface Known {
  /** As the answer says it; undefined = there is no such datacenter. */
  readonly value: unknown;
  readonly index: Index;
  readonly atMs: number;
}

/** What is known of other datacenters. */
export interface Datacenters extends Pick<Lookup, "resolve"> {
  /** A node there; undefined = it is not, or nobody knows the datacenter. @throws TrilithError `unavailable` where nobody answers */
  node(datacenter: string, name: string, signal?: AbortSignal): Promise<Node | undefined>;
}

/** Answers queries that name one of the datacenters; everything else is unknown here. */
export function createDatacenters({
  own,
  joined,
  datacenters,
  clock,
  random,
  log: base,
}: DatacentersOptions): Datacenters {
  const log = base.part("datacenters");
  const known = new Map<string, Known>();
  const asking = new Map<string, Promise<Known>>();
  const dead = new Map<string, { readonly untilMs: number; readonly error: unknown }>();
  const unknown: Answer = { endpoints: [], fresh: true, ageMs: 0, known: false, index: 1 };

  async function ask(datacenter: string, servers: Servers, path: string, key: string): Promise<Known> {
    const silent = dead.get(datacenter);
    if (silent !== undefined && clock.monotonic() < silent.untilMs) throw silent.error;
    try {
      const found = await toldBy(servers, datacenter, path);
      const result: Known = { ...found, atMs: clock.monotonic() };
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

  /** One question to a datacenter's own agents, or to joined servers that may know it. */
  async function toldBy(servers: Servers, datacenter: string, path: string): Promise<{ value: unknown; index: Index }> {
    const answer = await servers.ask({
      path: servers === joined ? `${path}?dc=${encodeURIComponent(datacenter)}` : path,
      headTimeoutMs: ASK_MS,
      bodyTimeoutMs: ASK_MS,
    });
    const text = await answer.text();
    // The server has answered: it knows of no such datacenter, which is not the same as not knowing.
    if (servers === joined && answer.status === 500 && NO_SUCH_DATACENTER.test(text))
      return { value: undefined, index: 1 };
    return jsonOf(answer.status, text, answer.headers, `${servers.current}${path}`);
  }

  /** The last answer where it is fresh, else a new one, else the last one; `ageMs` 0 = fresh. Undefined = nobody can be asked. */
  async function tell(
    datacenter: string,
    path: string,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly known: Known; readonly ageMs: number } | undefined> {
    const servers = datacenters.get(datacenter) ?? joined;
    if (servers === undefined || datacenter === "" || datacenter === own.toLowerCase()) return undefined;
    const key = `${datacenter}\u0000${path.toLowerCase()}`;
    const last = known.get(key);
    if (last !== undefined && clock.monotonic() - last.atMs < FRESH_MS) return { known: last, ageMs: 0 };
    let question = asking.get(key);
    if (question === undefined) {
      question = ask(datacenter, servers, path, key).finally(() => asking.delete(key));
      asking.set(key, question);
      question.catch(() => {});
    }
    try {
      return { known: await unlessAborted(question, signal), ageMs: 0 };
    } catch (error) {
      if (last === undefined) throw error;
      return { known: last, ageMs: Math.max(1, clock.monotonic() - last.atMs) };
    }
  }

  return {
    async resolve(query: Query, signal?: AbortSignal): Promise<Answer> {
      const datacenter = (query.datacenter ?? "").toLowerCase();
      const told = await tell(datacenter, `/v1/health/service/${encodeURIComponent(query.service)}`, signal);
      if (told === undefined || told.known.value === undefined) return unknown;
      const { value, index } = told.known;
      return answerOf(query, residentsOf(value), index, told.ageMs, random);
    },
    async node(datacenter: string, name: string, signal?: AbortSignal): Promise<Node | undefined> {
      const told = await tell(datacenter.toLowerCase(), `/v1/catalog/node/${encodeURIComponent(name)}`, signal);
      const found = told?.known.value as { readonly Node?: Json } | null | undefined;
      return found?.Node === undefined ? undefined : nodeFrom(found.Node);
    },
  };
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
  if (!Array.isArray(value)) throw new TrilithError("unavailable", "the answer is not a list of instances");
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

function answerOf(query: Query, residents: readonly Resident[], index: Index, ageMs: number, random: Random): Answer {
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
