// The only file that knows everybody: builds the ground, joins the parts, starts and stops them.
import { createAgent, type RunningAgent } from "./agent/agent.ts";
import { builtInProbes, readCheckTls } from "./agent/checks/index.ts";
import { type Clock, systemClock } from "./base/clock.ts";
import { type Disk, systemDisk } from "./base/disk.ts";
import { type Durable, memoryDurable, openDurable } from "./base/durable.ts";
import { codeOf, messageOf, TrilithError } from "./base/error.ts";
import { createHttp, type Http } from "./base/http.ts";
import { type Log, silentLog, tappedLog } from "./base/log.ts";
import { createMetrics, type Metrics, processMetrics } from "./base/metrics.ts";
import { type Net, systemNet } from "./base/net.ts";
import { ownAddresses } from "./base/networks.ts";
import { type Processes, systemProcesses } from "./base/process.ts";
import { type Random, systemRandom } from "./base/random.ts";
import { openFilesLimit, systemTcp } from "./base/tcp.ts";
import { systemUdp } from "./base/udp.ts";
import type { Agent } from "./contracts/agent.ts";
import type { Connector } from "./contracts/connect.ts";
import type { Directory } from "./contracts/directory.ts";
import type { Events } from "./contracts/event.ts";
import type { Ground, Self, SourceState } from "./contracts/ground.ts";
import type { Kv } from "./contracts/kv.ts";
import type { Lookup } from "./contracts/lookup.ts";
import type { Magic } from "./contracts/magic.ts";
import type { Prepared } from "./contracts/prepared.ts";
import type { Sessions } from "./contracts/session.ts";
import { defaultSettings, type Settings } from "./contracts/settings.ts";
import type { Storage } from "./contracts/storage.ts";
import { createEvents } from "./directory/event.ts";
import { createKv } from "./directory/kv.ts";
import { createLiveness } from "./directory/liveness.ts";
import { createDirectory, type LocalDirectory } from "./directory/local.ts";
import { Dues } from "./directory/locks.ts";
import { createPrepared } from "./directory/prepared.ts";
import { refusedAmongPeers } from "./directory/refused.ts";
import { createDistances } from "./directory/remote/distances.ts";
import { createOthers, type Others } from "./directory/remote/others.ts";
import { createSessions } from "./directory/session.ts";
import { lmdbStorage } from "./directory/storage/lmdb.ts";
import { memoryStorage } from "./directory/storage/memory.ts";
import { createVouching } from "./directory/vouch.ts";
import { createBalancer } from "./lookup/balance/create.ts";
import { backendsBy } from "./lookup/connect/backends.ts";
import { createConnector } from "./lookup/connect/connector.ts";
import { checkMagicRanges, createMagic } from "./lookup/connect/magic.ts";
import { createLookup, type RunningLookup } from "./lookup/lookup.ts";
import { nearestFirst } from "./protocols/consul/coordinates.ts";
import { NODE_LABELS, serverService } from "./protocols/consul/server-service.ts";
import { protocolFaults, protocols } from "./protocols/index.ts";
import { configurationOf } from "./trilith/configuration.ts";
import { checkNames, checkSettings } from "./trilith/fault.ts";
import { listenForHttp } from "./trilith/listen.ts";
import { Parts } from "./trilith/parts.ts";
import { reloaded, waiting } from "./trilith/restart.ts";
import { Running } from "./trilith/running.ts";
import { addressFor, selfOf, WILDCARD } from "./trilith/self.ts";
import { mustFitMachine, mustFitSettings, toldOf } from "./trilith/settings-rules.ts";
import { dropLeftovers } from "./trilith/sources.ts";
import { Undo } from "./trilith/undo.ts";

/** The machine an agent runs on; tests bring their own pieces. */
export interface TrilithOptions {
  readonly log?: Log;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly disk?: Disk;
  readonly net?: Net;
  readonly http?: Http & { close(): Promise<void> };
  readonly processes?: Processes;
  /** Reads the settings again, on a reload; absent = they are what they were. */
  readonly reread?: () => Promise<Partial<Settings>>;
}

/** An agent in this process. */
export interface Trilith {
  readonly self: Self;
  readonly settings: Settings;
  readonly directory: Directory;
  readonly agent: Agent;
  readonly lookup: Lookup;
  readonly kv: Kv;
  readonly sessions: Sessions;
  readonly events: Events;
  readonly prepared: Prepared;
  readonly magic: Magic;
  readonly connector: Connector;
  /** What was accepted at start without having an effect, and other things worth a look. */
  readonly warnings: readonly string[];
  sources(): readonly SourceState[];
  /** Resolves when every source has told its first list, or after `limitMs`: some have nothing to tell yet. */
  settled(limitMs: number): Promise<void>;
  /** Starts once. @throws TrilithError and leaves nothing behind when a part cannot start */
  start(): Promise<void>;
  /**
   * Has every part read its files and take its configuration again; what of it needs a restart is logged by name.
   * @throws TrilithError what the first that could not be taken failed with; it stays as it was, everything else is taken
   */
  reload(): Promise<void>;
  /** Resolves when somebody asked the agent to stop (a leave over HTTP) or the signal is aborted. */
  stopped(signal?: AbortSignal): Promise<void>;
  /** Stops once; afterwards every port, timer, file and socket is released. */
  stop(): Promise<void>;
}

/** Among peers, signs of life that are left from an earlier life of this agent count for so long. */
const PEERS_LIVENESS_MS = 4_000;

/** Builds an agent; nothing starts, no file is touched and no port opened before `start`. */
export function createTrilith(given: Partial<Settings> = {}, options: TrilithOptions = {}): Trilith {
  const settings = settingsOf(given);
  mustFitMachine(options);
  return new Joined(settings, toldOf(options));
}

/** What is not told is as usual. @throws TrilithError `invalid` with what is wrong and what would be right */
function settingsOf(given: Partial<Settings>): Settings {
  mustFitSettings(given);
  const { bindAddress } = given;
  // Whoever names the host's own address means it for others, too, as with Consul's -bind.
  const own = bindAddress === undefined || WILDCARD.test(bindAddress) ? {} : { advertiseAddress: bindAddress };
  const settings: Settings = { ...defaultSettings, ...own, ...toldOf(given) };
  checkSettings(
    settings,
    protocols.map(({ name }) => name),
  );
  return settings;
}

/**
 * What is wrong in each of the settings that a file tells, as an agent's start would say it; what only fits together with flags and other files
 * is not looked at.
 */
export async function settingsFaults(told: Partial<Settings>): Promise<readonly string[]> {
  const faults: string[] = [];
  for (const check of [() => checkNames(told), () => checkMagicRanges(told.magic ?? {})])
    try {
      check();
    } catch (error) {
      if (codeOf(error) !== "invalid") throw error;
      faults.push(messageOf(error));
    }
  return [...faults, ...(await protocolFaults(told.protocols ?? {}))];
}

const ignoredText = (key: string): string => `${key} is accepted and has no effect here`;

/** What exists between start and stop. */
interface Built {
  readonly self: Self;
  readonly directory: LocalDirectory;
  readonly agent: RunningAgent;
  readonly lookup: RunningLookup;
  readonly kv: Kv;
  readonly sessions: Sessions;
  readonly events: Events;
  readonly prepared: Prepared;
  readonly magic: Magic;
  readonly connector: Connector;
}

type Machine = Required<Omit<TrilithOptions, "reread">> & Pick<TrilithOptions, "reread">;

/** What every step of a start builds upon. */
interface Base extends Machine {
  readonly metrics: Metrics;
  readonly durable: Durable;
  readonly self: Self;
  /** Another text after each start: by it others tell this life of the agent from the one before. */
  readonly life: string;
}

/** Stone 1 with what stands behind it. */
interface Truth {
  readonly directory: LocalDirectory;
  readonly storage: Storage;
  readonly others: Others;
}

/** Signs of life: this node's own, and those of nodes that gave theirs to this agent. */
interface Signs {
  readonly vouch: Ground["vouch"];
  /** From now on this node lives. */
  begin(): void;
  end(): Promise<void>;
}

/** The parts, joined. */
class Joined implements Trilith {
  readonly settings: Settings;
  readonly warnings: string[];
  readonly #machine: Machine;
  readonly #undo = new Undo();
  readonly #listening = new Map<string, string>();
  readonly #stop = new AbortController();
  readonly #parts = new Parts();
  /** What was said to have no effect. */
  readonly #ignored: Set<string>;
  #running: Running | undefined;
  /** Checks ask with files that the settings name. */
  #hasCheckTls = false;
  #listenForHttp: (() => Promise<void>) | undefined;
  #leaving: boolean;
  #building: Promise<void> | undefined;
  #started: Promise<void> | undefined;
  #stopped: Promise<void> | undefined;
  #reloading: Promise<void> = Promise.resolve();
  #built: Built | undefined;
  #others: Others | undefined;

  constructor(settings: Settings, options: TrilithOptions) {
    this.settings = settings;
    // Who keeps nothing cannot come back as the same host: what it registered elsewhere would be in its own way.
    this.#leaving =
      settings.leaveOnTerm || (settings.dev && (settings.join !== undefined || settings.peers !== undefined));
    this.#ignored = new Set(settings.ignored);
    this.warnings = settings.ignored.map(ignoredText);
    const http = createHttp();
    if (options.http === undefined) this.#undo.push("HTTP clients", () => http.close());
    this.#machine = {
      clock: systemClock,
      random: systemRandom,
      disk: systemDisk,
      net: systemNet,
      http,
      processes: systemProcesses,
      ...options,
      log: tappedLog(options.log ?? silentLog),
    };
  }

  get self(): Self {
    return this.#whole.self;
  }
  get directory(): Directory {
    return this.#whole.directory;
  }
  get agent(): Agent {
    return this.#whole.agent;
  }
  get lookup(): Lookup {
    return this.#whole.lookup;
  }
  get kv(): Kv {
    return this.#whole.kv;
  }
  get sessions(): Sessions {
    return this.#whole.sessions;
  }
  get events(): Events {
    return this.#whole.events;
  }
  get prepared(): Prepared {
    return this.#whole.prepared;
  }
  get connector(): Connector {
    return this.#whole.connector;
  }
  get magic(): Magic {
    return this.#whole.magic;
  }
  get #whole(): Built {
    if (this.#built === undefined) throw new TrilithError("stopped", "the agent has not been started");
    return this.#built;
  }

  sources(): readonly SourceState[] {
    return [...this.#parts.states(), ...(this.#others?.state() ?? [])];
  }

  async settled(limitMs: number): Promise<void> {
    const limit = new AbortController();
    await Promise.race([this.#running?.firstLists(), this.#machine.clock.sleep(limitMs, limit.signal)]);
    limit.abort();
  }

  start(): Promise<void> {
    if (this.#stopped !== undefined) return Promise.reject(new TrilithError("stopped", "the agent has been stopped"));
    this.#building ??= this.#build();
    this.#started ??= this.#building.catch(async (error: unknown) => {
      await this.stop();
      throw error;
    });
    return this.#started;
  }

  /** What was begun after somebody asked to stop is not carried on. */
  #mustGoOn(): void {
    if (this.#stopped !== undefined) throw new TrilithError("stopped", "the agent was stopped while it was starting");
  }

  async #build(): Promise<void> {
    const base = await this.#base();
    const truth = await this.#openDirectory(base);
    const agent = await this.#makeAgent(base, truth);
    const lookup = this.#makeLookup(base, truth, agent);
    const kept = this.#keepRecords(base, truth, agent, lookup);
    const reach = await this.#reach(base, agent, lookup);
    const { self } = base;
    const { directory } = truth;
    this.#built = { self, directory, agent, lookup, ...kept, ...reach };
    const signs = this.#signs(base, truth);
    await this.#install(this.#ground(base, truth, this.#built, signs));
    this.#mustGoOn();
    await this.#begin(base, truth, this.#built, signs);
  }

  /** The data folder, and who this agent is. */
  async #base(): Promise<Base> {
    const { settings } = this;
    const metrics = createMetrics();
    processMetrics(metrics);
    const durable =
      settings.dev || settings.dataDir === undefined ? memoryDurable() : await openDurable(settings.dataDir);
    this.#undo.push("the data folder", () => durable.close());
    this.#mustGoOn();
    const self = await selfOf(settings, durable, this.#machine, this.#listening);
    return { ...this.#machine, metrics, durable, self, life: this.#machine.random.uuid() };
  }

  /** Stone 1. */
  async #openDirectory({ self, durable, http, clock, random, log, metrics }: Base): Promise<Truth> {
    const others = createOthers({ settings: this.settings, node: self.node, durable, http, clock, random, log });
    this.#others = others;
    const storage = others.storage ?? (await this.#storage(durable));
    const directory = createDirectory(storage, { clock, random, log, metrics });
    this.#undo.push("the directory", () => directory.stop());
    await directory.start();
    this.#mustGoOn();
    return { directory, storage, others };
  }

  /** The store that the settings name; etcd's client is loaded only when it is meant. */
  async #storage(durable: Durable): Promise<Storage> {
    const { settings } = this;
    const { clock, random, disk, log } = this.#machine;
    if (settings.storage === "etcd" && settings.etcd !== undefined) {
      const { createEtcdStorage } = await import("./directory/storage/etcd.ts");
      return await createEtcdStorage(settings.etcd, { clock, random, disk, log: log.part("etcd") });
    }
    return settings.dev || settings.storage === "memory" ? memoryStorage() : lmdbStorage(durable);
  }

  /** Stone 2; it starts when everything stands. */
  async #makeAgent(
    { self, durable, life, clock, random, log, metrics }: Base,
    { directory, storage }: Truth,
  ): Promise<RunningAgent> {
    const { settings } = this;
    await this.#readCheckTls(settings, self.node);
    return createAgent({
      directory,
      durable,
      clock,
      random,
      log,
      metrics,
      probes: this.#parts.probes,
      settings,
      self,
      shared: storage.shared,
      life,
      labels: NODE_LABELS,
      // Client hosts are no servers.
      ...(settings.join === undefined ? { selfService: serverService(settings) } : {}),
    });
  }

  /** Checks ask from now on with what these files hold. */
  async #readCheckTls({ checkTls }: Settings, node: string): Promise<void> {
    const { disk, processes, http, net } = this.#machine;
    const tls = await readCheckTls(checkTls, { disk, processes }, node);
    this.#hasCheckTls = checkTls !== undefined;
    this.#parts.addProbes(builtInProbes({ http, net, processes, tls }));
  }

  /** Stone 3; it starts when everything stands. */
  #makeLookup(
    { self, durable, net, clock, random, log, metrics }: Base,
    { directory, storage, others }: Truth,
    agent: Agent,
  ): RunningLookup {
    const { guard, datacenter, peers } = this.settings;
    return createLookup({
      directory,
      agent,
      clock,
      random,
      log,
      metrics,
      durable,
      guard,
      node: self.node,
      datacenter,
      interfaces: () => net.interfaces(),
      net,
      shared: storage.shared,
      peers: peers !== undefined,
      sources: () => this.sources(),
      upstreams: () => [others.upstream, ...this.#parts.upstreams],
      nodeElsewhere: others.upstream.node,
    });
  }

  /** What else the directory keeps, each by its own rules: keys, sessions, events, prepared queries. */
  #keepRecords(
    { self, net, clock, random, log }: Base,
    { directory, storage, others }: Truth,
    agent: Agent,
    lookup: Lookup,
  ): Pick<Built, "kv" | "sessions" | "events" | "prepared"> {
    const { settings } = this;
    const dues = new Dues(clock);
    const ownSessions = createSessions({ directory, shared: storage.shared, clock, random, log, dues });
    const { kv, sessions } =
      settings.peers === undefined
        ? {
            kv: others.kept?.kv ?? createKv({ directory, clock, random, dues }),
            sessions: others.kept?.sessions(ownSessions) ?? ownSessions,
          }
        : refusedAmongPeers(ownSessions);
    this.#undo.push("the sessions", () => sessions.stop());
    sessions.start();
    const events = createEvents({ directory, agent, clock, random, log });
    this.#undo.push("the events", () => events.stop());
    events.start();
    const distances = createDistances({ datacenters: settings.datacenters ?? {}, net, clock, random });
    this.#undo.push("measuring other datacenters", () => distances.stop());
    distances.start();
    const prepared = createPrepared({
      directory,
      lookup,
      random,
      log,
      node: self.node,
      datacenter: self.datacenter,
      get datacenters() {
        return distances.nearestFirst();
      },
      nearestFirst,
      elsewhere: (datacenter) => others.queries(datacenter),
    });
    return { kv, sessions, events, prepared };
  }

  /** Ways to services that a connection can take: addresses that stand for them, and who passes it on. */
  async #reach(
    { durable, net, clock, random, log, metrics }: Base,
    agent: Agent,
    lookup: Lookup,
  ): Promise<Pick<Built, "magic" | "connector">> {
    const interfaces: Net["interfaces"] = () => net.interfaces();
    const magic = await createMagic({ durable, random, settings: this.settings.magic ?? {}, interfaces });
    const connector = createConnector({
      find: backendsBy({
        lookup,
        own: () => agent.node,
        ownAddresses: () => ownAddresses(interfaces),
        log: log.part("connect"),
      }),
      balancer: createBalancer({ clock, random }),
      refused: (service, address, port) => lookup.confirmLost(service, address, port),
      tcp: systemTcp,
      udp: systemUdp,
      clock,
      log,
      metrics,
      filesLimit: openFilesLimit(),
      interfaces,
    });
    this.#undo.push("proxies", () => connector.stop());
    return { magic, connector };
  }

  #signs({ self, life, clock, random, log }: Base, { directory, storage }: Truth): Signs {
    const { settings } = this;
    const vouching = createVouching({ directory, clock, log, first: () => liveness.start() });
    this.#undo.push("signs of life of client hosts", () => vouching.stop());
    const ttlMs =
      settings.join?.livenessMs ??
      settings.etcd?.livenessMs ??
      (settings.peers === undefined ? 15_000 : PEERS_LIVENESS_MS);
    const kept = storage.alive === undefined ? vouching : (storage as Pick<Required<Storage>, "alive">);
    const { node, nodeId } = self;
    const liveness = createLiveness({ directory, storage: kept, node, nodeId, life, ttlMs, clock, random, log });
    return {
      vouch: (of, itsLife, forMs, signal) =>
        (kept === vouching ? vouching.vouch : kept.alive).call(kept, of, itsLife, forMs, signal),
      end: () => liveness.stop(),
      begin: () => {
        // An embedded store has nobody to look after until a client host joins.
        if (storage.alive !== undefined) liveness.start();
        else vouching.inherit(node, ttlMs);
      },
    };
  }

  /** What protocols are handed from. */
  #ground(base: Base, { others }: Truth, built: Built, { vouch }: Signs): Ground {
    const { clock, random, log, disk, net, http, processes, metrics, durable } = base;
    return {
      clock,
      random,
      log,
      disk,
      net,
      http,
      processes,
      metrics,
      ...built,
      probes: this.#parts.probes,
      sources: () => this.sources(),
      firstLists: async () => await this.#running?.firstLists(),
      answers: (service, signal) => this.#parts.answers(service, signal, clock),
      dataTrouble: () => durable.trouble(),
      vouch,
      via: () => others.storage?.via() ?? [],
      leaving: () => this.#leaving,
      nearby: {
        // Loaded when somebody is to be met.
        async *meet(what, signal) {
          const { createNearby } = await import("./protocols/mdns/nearby.ts");
          yield* createNearby({ clock, random, log, net, processes }).meet(what, signal);
        },
      },
      control: { reload: () => this.reload(), stop: (leave = false) => this.#end(leave) },
    };
  }

  async #install(ground: Ground): Promise<void> {
    for (const protocol of protocols) {
      const told = configurationOf(protocol.name, this.settings);
      const { name, key } = protocol;
      await this.#parts.add(
        {
          ...{ name, key },
          check: async (raw) => raw === false || (await protocol.check(raw)),
          install: async (raw) => (raw === false ? undefined : await protocol.install(raw, ground)),
        },
        told,
      );
    }
  }

  /** Everything stands: the stones first, then what listens, then what comes in. */
  async #begin(base: Base, { others, directory }: Truth, { agent, lookup }: Built, signs: Signs): Promise<void> {
    const { settings } = this;
    const { http } = base;
    this.#undo.push("the lookup", () => lookup.stop());
    await lookup.start();
    this.#mustGoOn();
    this.#undo.push("the agent", () => (this.#leaving ? agent.leave() : agent.stop()));
    this.#undo.push("the sign of life", () => signs.end());
    const running = new Running({ agent, directory, listening: this.#listening, ...base });
    this.#running = running;
    this.#listenForHttp = () =>
      listenForHttp({
        routes: () => this.#parts.routes,
        settings,
        http,
        front: (own) => others.inFrontOf(own, () => directory),
        listening: this.#listening,
        undo: this.#undo,
      });
    await agent.start(async () => {
      try {
        for (const [protocol, part] of this.#parts.all) {
          this.#mustGoOn();
          await running.listen(protocol, part);
        }
      } finally {
        this.#undo.push("the listeners", () => running.closeAll());
      }
      await this.#openHttp();
    });
    this.#mustGoOn();
    signs.begin();
    const known = protocols.map(({ name }) => name);
    await dropLeftovers({ agent, clock: base.clock, directory }, this.#parts.bringers, known);
    this.#mustGoOn();
    this.#undo.push("the sources", () => running.silenceAll());
    for (const [protocol, part] of this.#parts.all) await running.tell(protocol, part);
    this.#undo.push("what goes on in the background", () => running.endAll());
    for (const [protocol, part] of this.#parts.all) running.begin(protocol, part);
    this.#mustGoOn();
  }

  /** Once there is something to answer. */
  async #openHttp(): Promise<void> {
    const listen = this.#listenForHttp;
    if (this.settings.httpPort < 0 || this.#parts.routes.length === 0 || listen === undefined) return;
    await listen();
    this.#listenForHttp = undefined;
  }

  async #reread(): Promise<Settings | undefined> {
    const { reread, log } = this.#machine;
    if (reread === undefined) return undefined;
    try {
      return settingsOf(await reread());
    } catch (error) {
      log.error("the configuration cannot be read again: it stays as it was", { error: messageOf(error) });
      throw error;
    }
  }

  reload(): Promise<void> {
    // One after the other: SIGHUP comes when it comes.
    const turn = this.#reloading.then(() => this.#reload());
    this.#reloading = turn.catch(() => {});
    return turn;
  }

  async #reload(): Promise<void> {
    this.#mustGoOn();
    const { log } = this.#machine;
    const { agent } = this.#whole;
    const running = this.#running;
    if (running === undefined) throw new TrilithError("stopped", "the agent has not been started");
    log.info("reading files again");
    const failures: unknown[] = [];
    const failed = (error: unknown): undefined => void failures.push(error);
    const now = await this.#reread().catch((error: unknown): undefined => failed(error));
    const told = now && reloaded(this.settings, now);
    const configured = told && ((protocol: string) => configurationOf(protocol, told));
    await this.#parts.reload(log, (protocol, part) => running.bring(protocol, part), configured).catch(failed);
    await this.#openHttp().catch(failed);
    if (now !== undefined)
      await this.#take(now).catch((error: unknown) => {
        log.error("not everything of the configuration could be taken", { error: messageOf(error) });
        failed(error);
      });
    // What was deregistered by hand and is still stated comes back, as with Consul.
    await agent.restate().catch((error: unknown) => {
      log.error("what is stated could not be taken in again", { error: messageOf(error) });
      failed(error);
    });
    if (failures.length > 0) throw failures[0];
  }

  /** Takes what of the settings does not need a restart, and says what does. */
  async #take(now: Settings): Promise<void> {
    const { log, net } = this.#machine;
    const { self, agent } = this.#whole;
    for (const name of waiting(this.settings, now)) log.warn(`${name} is another one now: it counts after a restart`);
    const address = addressFor({ ...this.settings, protocols: now.protocols }, net);
    if (address !== addressFor(this.settings, net))
      log.warn(`others are told ${self.advertiseAddress} as this host's address; after a restart it is ${address}`);
    for (const key of now.ignored)
      if (!this.#ignored.has(key)) {
        this.#ignored.add(key);
        log.warn(ignoredText(key));
      }
    await agent.relabel(now.nodeLabels);
    if (now.checkTls !== undefined || this.#hasCheckTls) await this.#readCheckTls(now, self.node);
  }

  stopped(signal?: AbortSignal): Promise<void> {
    const either = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal]);
    if (either.aborted) return Promise.resolve();
    return new Promise((resolve) => either.addEventListener("abort", () => resolve(), { once: true }));
  }

  #end(leave: boolean): void {
    this.#leaving ||= leave;
    this.#stop.abort();
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#undoAll();
    this.#stop.abort();
    return this.#stopped;
  }

  async #undoAll(): Promise<void> {
    const { log } = this.#machine;
    await this.#reloading;
    await this.#undo.all(log);
    // A start under way ends at its next step, for what it builds upon is gone; what it made meanwhile goes, too.
    await this.#building?.catch(() => {});
    await this.#undo.all(log);
  }
}
