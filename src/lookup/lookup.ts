// Stone 3, the lookup: query → view → filter → guard → picker → answer, cheap enough to stand behind every DNS packet.
import { isDeepStrictEqual } from "node:util";
import type { Clock, Timer } from "../base/clock.ts";
import type { Durable } from "../base/durable.ts";
import { messageOf } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Interface, Net } from "../base/net.ts";
import type { Random } from "../base/random.ts";
import type { Agent } from "../contracts/agent.ts";
import type { Directory, View } from "../contracts/directory.ts";
import type { SourceState } from "../contracts/ground.ts";
import type { Lookup } from "../contracts/lookup.ts";
import type { Settings } from "../contracts/settings.ts";
import { newestOutput } from "../model/check.ts";
import type { Resident } from "../model/instance.ts";
import type { Answer, Endpoint, Query, Verdict } from "../model/query.ts";
import { scope } from "../model/record.ts";
import { type Asker, askerOf, createHere, type Here } from "./address.ts";
import { explainOne, type Standing } from "./explain.ts";
import { admits, cached, createPicture, endpointOf, isMeant, kindOf, type ListCache, type Picture } from "./filter.ts";
import { createFollowing } from "./following.ts";
import { createGuard, type Hold } from "./guard.ts";
import { createHearsay } from "./hearsay.ts";
import { pickers } from "./pickers/index.ts";
import { createRemember, type Remember } from "./remember.ts";
import { createSecondOpinion } from "./second-opinion.ts";
import { keepWatching, type WatchingParts } from "./watching.ts";

/** What the lookup is built from. */
export interface LookupParts {
  readonly directory: Directory;
  /** For "draining since" the agent's history; for what a check says, its newest output, which the directory is told only now and then. */
  readonly agent?: Pick<Agent, "history" | "checks">;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Where the last known good is kept over a restart; absent = it is not. */
  readonly durable?: Durable;
  readonly guard: Settings["guard"];
  /** This host: its node's name, its datacenter, and the machine's network interfaces (`net.interfaces`). */
  readonly node: string;
  readonly datacenter: string;
  readonly interfaces: () => readonly Interface[];
  /** For a second opinion on what the guard holds; absent = none is asked for. */
  readonly net?: Pick<Net, "connect">;
  /** True where the directory sleeps in a shared store (or another server), so that it may be away at start. */
  readonly shared: boolean;
  /** True where other hosts' own instances are in the directory although it sleeps in this process: they hang on their being heard of. */
  readonly peers?: boolean;
  /** The states of this host's sources: answers from a second-hand source that is away are not fresh. */
  readonly sources?: () => readonly SourceState[];
  /** Who else may be asked for what is not known here, in order. */
  readonly upstreams?: () => readonly Pick<Lookup, "resolve">[];
  /** Nodes of other datacenters. */
  readonly nodeElsewhere?: NonNullable<Lookup["nodeElsewhere"]>;
}

/** The lookup with its life. It answers before `start` too, but then notices drops only when asked and remembers nothing. */
export interface RunningLookup extends Lookup {
  /** Reads what was remembered and begins to watch the directory. Resolves without waiting for the directory. Twice = once. */
  start(): Promise<void>;
  /** Other settings of the guard's from now on. */
  takeGuard(settings: Settings["guard"]): void;
  /** Ends watching, writes what is to be remembered. Afterwards no timer runs. */
  stop(): Promise<void>;
}

/** Between two looks at the states of sources. */
const SOURCES_TICK_MS = 15_000;
const CACHED_ASKERS = 1_024;
const MOST_COMPLAINTS = 256;

/** What is known of a service at a moment. */
interface Known {
  readonly view: View;
  readonly residents: readonly Resident[];
  readonly picture: Picture;
  readonly hold: Hold | undefined;
  readonly fresh: boolean;
  readonly ageMs: number;
}

/** See `LookupParts`. */
export function createLookup(parts: LookupParts): RunningLookup {
  const { directory, clock, random, metrics } = parts;
  const log = parts.log.part("lookup");
  const selfNode = parts.node.toLowerCase();
  const datacenter = parts.datacenter.toLowerCase();
  const here: Here = createHere(parts.node, parts.interfaces, () => clock.monotonic());
  const following = createFollowing({
    ...{ directory, clock },
    answer: (query) => answer(query),
    resolve: (query, signal) => resolve(query, signal),
    elsewhere: (query) => elsewhere(query),
  });
  let guarded = parts.guard;
  const guard = createGuard({
    settings: guarded,
    node: parts.node,
    clock,
    log,
    metrics,
    changed: following.ring,
    holding: () => opinion?.wanted(),
  });
  const opinion =
    parts.net === undefined
      ? undefined
      : createSecondOpinion({
          clock,
          random,
          net: parts.net,
          suspects: guard.suspects,
          confirmLost: guard.confirmLost,
        });
  const remember: Remember | undefined =
    parts.durable === undefined
      ? undefined
      : createRemember({ durable: parts.durable, clock, log, directory: parts.shared });
  const answered = metrics.counter("lookup_answers_total", "Lookups answered");
  const stale = metrics.counter("lookup_stale_answers_total", "Lookups answered from the last known good");

  const pictures = new WeakMap<readonly Resident[], Picture>();
  const hearsay =
    parts.sources === undefined
      ? undefined
      : createHearsay({ sources: parts.sources, clock, remember, startedAtMs: clock.now() });
  const askers = new Map<string, { readonly asker: Asker | undefined }>();
  const complaints = new Set<string>();
  let ready = !parts.shared;
  const others = parts.shared || parts.peers === true;
  let life: { readonly controller: AbortController; readonly done: Promise<unknown> } | undefined;
  let ticker: Timer | undefined;

  const pictureOf = (residents: readonly Resident[]): Picture => {
    let picture = pictures.get(residents);
    if (picture === undefined) {
      picture = createPicture(residents, selfNode, others);
      pictures.set(residents, picture);
      hearsay?.know(picture.hearsay);
    }
    return picture;
  };

  const knownOf = (service: string): Known => {
    const view = directory.view();
    if (!ready) {
      const last = remember?.get(service);
      if (last !== undefined)
        return {
          view,
          residents: last.residents,
          picture: pictureOf(last.residents),
          hold: undefined,
          fresh: false,
          ageMs: Math.max(0, clock.now() - last.asOfMs),
        };
    }
    const residents = view.residents(service);
    const picture = pictureOf(residents);
    const hold = guard.look(service, picture, view);
    if (view.fresh && picture.hearsay.length === 0) return { view, residents, picture, hold, fresh: ready, ageMs: 0 };
    const viewAgeMs = view.fresh ? 0 : Math.max(0, clock.now() - view.asOfMs);
    const sourceAgeMs = hearsay?.oldest(picture)?.ageMs ?? 0;
    return {
      view,
      residents,
      picture,
      hold,
      fresh: ready && view.fresh && sourceAgeMs === 0,
      ageMs: Math.max(viewAgeMs, sourceAgeMs),
    };
  };

  const asking = (query: Query, picture: Picture): Asker | undefined => {
    if (query.asker === undefined || (!picture.addressed && query.order !== "near")) return undefined;
    let entry = askers.get(query.asker);
    if (entry === undefined) {
      if (askers.size >= CACHED_ASKERS) askers.clear();
      entry = { asker: askerOf(query.asker, here) };
      askers.set(query.asker, entry);
    }
    return entry.asker;
  };

  /** A label that makes no sense is told once, whatever changes about the service besides. */
  const complain = (text: string): void => {
    if (!/^label trilith[._-]panic=/.test(text) || complaints.has(text)) return;
    if (complaints.size >= MOST_COMPLAINTS) complaints.clear();
    complaints.add(text);
    log.warn(text);
  };

  const inPanic = (service: string, { picture, hold }: Known): boolean => {
    const panicPercent = guard.panicPercent(service, picture.panicPercent(complain));
    if (panicPercent <= 0) return false;
    let healthy = picture.routable().size;
    let meant = picture.meant();
    for (const key of hold?.members.keys() ?? []) {
      healthy++;
      if (!picture.byKey().has(key)) meant++;
    }
    return meant > 0 && (healthy / meant) * 100 < panicPercent;
  };

  const build = (query: Query, known: Known, panic: boolean, asker: Asker | undefined): readonly Endpoint[] => {
    const { picture, hold } = known;
    const list: Endpoint[] = [];
    const push = (endpoint: Endpoint | undefined): void => {
      if (endpoint !== undefined) list.push(endpoint);
    };
    const listing = query.health === "any";
    for (const facts of picture.facts) {
      const last = listing ? undefined : hold?.members.get(facts.key);
      if (last !== undefined) {
        if (admits(query.health, last) || panic)
          push(endpointOf({ ...last, resident: facts.resident }, query, asker, here, { held: true }));
      } else if (admits(query.health, facts)) push(endpointOf(facts, query, asker, here));
      else if (panic && isMeant(facts)) push(endpointOf(facts, query, asker, here, { panic: true }));
    }
    if (hold === undefined || listing) return list;
    let added = false;
    for (const [key, last] of hold.members) {
      if (picture.byKey().has(key) || !(admits(query.health, last) || panic)) continue;
      push(endpointOf(last, query, asker, here, { held: true }));
      added = true;
    }
    if (added) list.sort(byNodeAndId);
    return list;
  };

  /** Everything that the query may have, in stable order. */
  const endpointsOf = (
    query: Query,
    known: Known,
  ): { list: readonly Endpoint[]; panic: boolean; asker: Asker | undefined } => {
    const asker = asking(query, known.picture);
    const panic = query.health !== "any" && inPanic(query.service, known);
    // Whether there is panic may change with the settings alone.
    const kind = `${kindOf(query, asker, known.picture.addressed)}${panic ? "\u0000p" : ""}`;
    const lists: ListCache = known.hold?.lists ?? known.picture.lists;
    return { list: cached(lists, kind, () => build(query, known, panic, asker)), panic, asker };
  };

  const elsewhere = (query: Query): boolean =>
    query.datacenter !== undefined && query.datacenter !== "" && query.datacenter.toLowerCase() !== datacenter;

  const answer = (query: Query): Answer => {
    answered.add();
    if (elsewhere(query)) return { endpoints: [], fresh: true, ageMs: 0, known: false, index: directory.view().index };
    const known = knownOf(query.service);
    const { list, panic, asker } = endpointsOf(query, known);
    if (!known.fresh) stale.add();
    const pick = pickers[query.order ?? "random"];
    const endpoints = pick(list, query.limit ?? Number.POSITIVE_INFINITY, { random, asker, here });
    const index = known.view.at(scope.service(query.service));
    const base = {
      endpoints,
      fresh: known.fresh,
      ageMs: known.ageMs,
      known: known.residents.length > 0 || known.hold !== undefined,
      index,
    };
    if (known.hold === undefined && !panic) return base;
    return {
      ...base,
      ...(known.hold === undefined || query.health === "any"
        ? {}
        : { held: { sinceMs: known.hold.sinceMs, text: known.hold.text } }),
      ...(panic ? { panic } : {}),
    };
  };

  async function resolve(query: Query, signal?: AbortSignal): Promise<Answer> {
    const now = answer(query);
    if (now.known) return now;
    if (!ready && signal?.aborted === false && !elsewhere(query)) {
      await directory.ready(signal).catch(() => undefined);
      const later = answer(query);
      if (later.known) return later;
    }
    let away = false;
    for (const upstream of parts.upstreams?.() ?? []) {
      if (signal?.aborted) break;
      try {
        const theirs = await upstream.resolve(query, signal);
        if (theirs.known) return theirs;
      } catch (error) {
        away = true;
        log.debug(`asking an upstream for "${query.service}": ${messageOf(error)}`);
      }
    }
    // Nobody said that there is no such service.
    return away ? { ...now, fresh: false } : now;
  }

  const watching: WatchingParts = {
    ...{ directory, clock, log, guard, remember, others, pictureOf },
    isReady: () => ready,
    nowReady() {
      ready = true;
      remember?.drop();
      following.ringAll();
    },
  };

  const tick = (): void => {
    ticker = clock.after(SOURCES_TICK_MS, () => {
      hearsay?.read();
      // This host's own addresses may have changed.
      askers.clear();
      if (ready && directory.view().fresh) remember?.stillTrue(clock.now());
      tick();
    });
  };

  return {
    resolveNow: answer,
    resolve,
    follow: following.follow,
    ...(parts.nodeElsewhere === undefined ? {} : { nodeElsewhere: parts.nodeElsewhere }),
    explain(query): readonly Verdict[] {
      if (elsewhere(query)) return [];
      const known = knownOf(query.service);
      const asker = asking({ ...query, order: "near" }, known.picture);
      const held = parts.agent?.checks();
      const standing: Standing = {
        query,
        asker,
        here,
        hold: known.hold,
        panic: query.health !== "any" && inPanic(query.service, known),
        history: parts.agent?.history(query.service) ?? [],
        outputOf: (check) => newestOutput(check, held?.get(check.id)?.check),
        staleAs: ({ instance }) =>
          !ready || !known.view.fresh
            ? { ageMs: known.ageMs, text: "the store behind the directory is away" }
            : known.picture.hearsay.includes(instance.origin.source)
              ? hearsay?.of(instance)
              : undefined,
      };
      const all = known.picture.facts.map((facts) => explainOne(facts, standing, false));
      // Listings show what is recorded, and those are not.
      if (query.health === "any") return all;
      for (const [key, last] of known.hold?.members ?? [])
        if (!known.picture.byKey().has(key)) all.push(explainOne(last, standing, true));
      return all;
    },
    release: guard.release,
    takeGuard(settings) {
      if (isDeepStrictEqual(settings, guarded)) return;
      guarded = settings;
      guard.take(settings);
      following.ringAll();
    },
    held: guard.held,
    confirmLost: (service, address, port) => void guard.confirmLost(service, address, port),
    async start() {
      if (life !== undefined) return;
      const controller = new AbortController();
      const begun = (async () => {
        try {
          await remember?.load();
        } catch (error) {
          log.error(`reading the last known endpoints: ${messageOf(error)}`);
        }
      })();
      const done = begun.then(() => keepWatching(watching, controller.signal));
      life = { controller, done };
      tick();
      await begun;
    },
    async stop() {
      if (life === undefined) return;
      const { controller, done } = life;
      controller.abort(new Error("the lookup has stopped"));
      await opinion?.stop();
      ticker?.cancel();
      await done;
      hearsay?.read();
      if (ready && directory.view().fresh) remember?.stillTrue(clock.now());
      guard.stop();
      await remember?.stop();
    },
  };
}

/** The order of `View.residents`. */
function byNodeAndId(a: Endpoint, b: Endpoint): number {
  const { instance: left } = a.resident;
  const { instance: right } = b.resident;
  if (left.node !== right.node) return left.node < right.node ? -1 : 1;
  return left.id < right.id ? -1 : left.id > right.id ? 1 : 0;
}
