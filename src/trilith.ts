// The only file that knows everybody: builds the ground, joins the parts, starts and stops them.
import { join, resolve } from "node:path";
import { createAgent, type RunningAgent } from "./agent/agent.ts";
import { builtInProbes, readCheckTls } from "./agent/checks/index.ts";
import { type Clock, systemClock } from "./base/clock.ts";
import { type Disk, systemDisk } from "./base/disk.ts";
import { type Durable, memoryDurable, openDurable } from "./base/durable.ts";
import { messageOf, TrilithError } from "./base/error.ts";
import { createHttp, type Handler, type Http } from "./base/http.ts";
import { type Log, silentLog, tappedLog } from "./base/log.ts";
import { createMetrics, processMetrics } from "./base/metrics.ts";
import { hostPort, type Net, systemNet } from "./base/net.ts";
import { type Processes, systemProcesses } from "./base/process.ts";
import { jitter, type Random, systemRandom } from "./base/random.ts";
import { openFilesLimit, systemTcp } from "./base/tcp.ts";
import { packageVersion } from "./base/terminal.ts";
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
import type { Probe } from "./contracts/probe.ts";
import type { Part, Route, Told } from "./contracts/protocol.ts";
import type { Sessions } from "./contracts/session.ts";
import { defaultSettings, type Settings } from "./contracts/settings.ts";
import type { Source } from "./contracts/source.ts";
import type { Storage } from "./contracts/storage.ts";
import { createEvents } from "./directory/event.ts";
import { createKv } from "./directory/kv.ts";
import { createLiveness } from "./directory/liveness.ts";
import { createDirectory, type LocalDirectory } from "./directory/local.ts";
import { Dues } from "./directory/locks.ts";
import { createPrepared } from "./directory/prepared.ts";
import { refusedAmongPeers } from "./directory/refused.ts";
import { createDistances } from "./directory/remote/distances.ts";
import { createOthers } from "./directory/remote/others.ts";
import { createSessions } from "./directory/session.ts";
import { lmdbStorage } from "./directory/storage/lmdb.ts";
import { memoryStorage } from "./directory/storage/memory.ts";
import { createVouching } from "./directory/vouch.ts";
import { createBalancer } from "./lookup/balance/create.ts";
import { backendsBy } from "./lookup/connect/backends.ts";
import { createConnector } from "./lookup/connect/connector.ts";
import { createMagic } from "./lookup/connect/magic.ts";
import { createLookup, type RunningLookup } from "./lookup/lookup.ts";
import type { Labels } from "./model/node.ts";
import { nearestFirst } from "./protocols/consul/coordinates.ts";
import { CONSUL_VERSION } from "./protocols/consul/version.ts";
import { protocols } from "./protocols/index.ts";

/** The machine an agent runs on; tests bring their own pieces. */
export interface TrilithOptions {
  readonly log?: Log;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly disk?: Disk;
  readonly net?: Net;
  readonly http?: Http & { close(): Promise<void> };
  readonly processes?: Processes;
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
  /** Has every part read its files again. */
  reload(): Promise<void>;
  /** Resolves when somebody asked the agent to stop (a leave over HTTP) or the signal is aborted. */
  stopped(signal?: AbortSignal): Promise<void>;
  /** Stops once; afterwards every port, timer, file and socket is released. */
  stop(): Promise<void>;
}

/** Among peers, signs of life that are left from an earlier life of this agent count for so long. */
const PEERS_LIVENESS_MS = 4_000;
/** What a dialect would answer is waited for at most so long. */
const ANSWER_MS = 3_000;

/** What has to be undone, in reverse order, when the agent stops or a start fails half-way. */
class Undo {
  readonly #steps: { readonly what: string; readonly run: () => Promise<void> | void }[] = [];

  push(what: string, run: () => Promise<void> | void): void {
    this.#steps.push({ what, run });
  }

  async all(log: Log): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step.run();
      } catch (error) {
        log.error(`could not stop ${step.what}`, { error: messageOf(error) });
      }
    }
  }
}

/** Builds an agent; nothing starts, no file is touched and no port opened before `start`. */
export function createTrilith(given: Partial<Settings> = {}, options: TrilithOptions = {}): Trilith {
  const { bindAddress } = given;
  // Whoever names the host's own address means it for others, too, as with Consul's -bind.
  const own = bindAddress === undefined || WILDCARD.test(bindAddress) ? {} : { advertiseAddress: bindAddress };
  const settings: Settings = { ...defaultSettings, ...own, ...given };
  checkSettings(settings);
  return new Joined(settings, options);
}

function checkSettings(settings: Settings): void {
  const wrong = (what: string): never => {
    throw new TrilithError("invalid", what);
  };
  if (!settings.dev && settings.storage !== "memory" && settings.dataDir === undefined)
    wrong("a data folder is needed (dataDir, --data-dir), or dev (--dev) to keep nothing");
  if (settings.storage === "etcd" && (settings.etcd?.endpoints.length ?? 0) === 0)
    wrong("storage etcd needs the members' URLs (etcd.endpoints, --etcd)");
  if (settings.join !== undefined && settings.storage === "etcd")
    wrong("a host either joins others (join, --join) or has a store of its own (storage etcd, --etcd), not both");
  if (settings.peers !== undefined && (settings.join !== undefined || settings.storage === "etcd"))
    wrong(
      "peers (peers, --peers) are agents without a server; with one (join, --join) or a shared store (storage etcd, --etcd) all have one directory already: choose one of them",
    );
  if (settings.join !== undefined && settings.join.servers.length === 0)
    wrong("join needs the URL of at least one agent (join.servers, --join http://host:8500)");
  for (const [what, text] of [
    ["node", settings.node ?? "x"],
    ["datacenter", settings.datacenter],
  ] as const)
    if (text === "" || /[\u0000-\u0020/]/.test(text))
      wrong(`${what} "${text}": expected a name without blanks, slashes and control characters`);
  if (!/^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/.test(settings.domain))
    wrong(`domain "${settings.domain}": expected a DNS name such as "consul"`);
  const known = protocols.map(({ name }) => name);
  const strange = Object.keys(settings.protocols).find((name) => !known.includes(name));
  if (strange !== undefined) wrong(`protocol "${strange}": there are ${known.join(", ")}`);
  if (!Number.isInteger(settings.httpPort) || settings.httpPort < -1 || settings.httpPort > 65_535)
    wrong(`HTTP port ${settings.httpPort}: expected a port from 0 to 65535, or -1 for none`);
}

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

/** The parts, joined. */
class Joined implements Trilith {
  readonly settings: Settings;
  readonly warnings: string[];
  readonly #machine: Required<TrilithOptions>;
  readonly #undo = new Undo();
  readonly #listening = new Map<string, string>();
  readonly #stop = new AbortController();
  readonly #parts: Part[] = [];
  readonly #names = new Map<Part, string>();
  readonly #probes = new Map<string, Probe>();
  readonly #firstLists: Promise<void>[] = [];
  #leaving: boolean;
  #building: Promise<void> | undefined;
  #started: Promise<void> | undefined;
  #stopped: Promise<void> | undefined;
  #built: Built | undefined;
  #joined: () => readonly SourceState[] = () => [];

  constructor(settings: Settings, options: TrilithOptions) {
    this.settings = settings;
    // Who keeps nothing cannot come back as the same host: what it registered elsewhere would be in its own way.
    this.#leaving =
      settings.leaveOnTerm || (settings.dev && (settings.join !== undefined || settings.peers !== undefined));
    this.warnings = settings.ignored.map((key) => `${key} is accepted and has no effect here`);
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
    const states = this.#parts.flatMap(({ source }) =>
      source === undefined ? [] : [{ name: source.name, ...source.state() }],
    );
    for (const part of this.#parts) states.push(...(part.states?.() ?? []));
    return [...states, ...this.#joined()];
  }

  async #answers(service: string, signal: AbortSignal): Promise<readonly ({ readonly protocol: string } & Told)[]> {
    const limit = new AbortController();
    const timer = this.#machine.clock.after(ANSWER_MS, () =>
      limit.abort(new TrilithError("timeout", `it did not answer within ${ANSWER_MS} ms`)),
    );
    const either = AbortSignal.any([signal, limit.signal]);
    const told = await Promise.all(
      this.#parts.map(async (part) => {
        const protocol = this.#names.get(part) ?? "";
        try {
          return ((await part.answers?.(service, either)) ?? []).map((one) => ({ protocol, ...one }));
        } catch (error) {
          return [{ protocol, to: "everybody", text: `could not be asked: ${messageOf(error)}` }];
        }
      }),
    );
    timer.cancel();
    return told.flat();
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
    const { settings } = this;
    const { log, clock, random, disk, net, http, processes } = this.#machine;
    const metrics = createMetrics();
    processMetrics(metrics);
    const durable =
      settings.dev || settings.dataDir === undefined ? memoryDurable() : await openDurable(settings.dataDir);
    this.#undo.push("the data folder", () => durable.close());
    this.#mustGoOn();
    const self = await this.#self(durable);

    const others = createOthers({ settings, node: self.node, durable, http, clock, random, log });
    this.#joined = () => others.state();
    const storage = others.storage ?? (await this.#storage(durable));
    const directory = createDirectory(storage, { clock, random, log, metrics });
    this.#undo.push("the directory", () => directory.stop());
    await directory.start();
    this.#mustGoOn();

    const tls = await readCheckTls(settings.checkTls, { disk, processes }, self.node);
    for (const probe of builtInProbes({ http, net, processes, tls })) this.#probes.set(probe.kind, probe);
    const life = random.uuid();
    const agent = createAgent({
      directory,
      durable,
      clock,
      random,
      log,
      metrics,
      probes: this.#probes,
      settings,
      self,
      shared: storage.shared,
      life,
      // What clients of Consul's API look for in every node and among the services.
      labels: { "consul-network-segment": "", "consul-version": CONSUL_VERSION },
      // Client hosts are no servers.
      ...(settings.join === undefined
        ? {
            selfService: {
              id: "consul",
              name: "consul",
              tags: [],
              labels: SELF_LABELS,
              address: "",
              port: serverPort(settings),
            },
          }
        : {}),
    });
    const lookup = createLookup({
      directory,
      agent,
      clock,
      random,
      log,
      metrics,
      durable,
      guard: settings.guard,
      node: self.node,
      datacenter: settings.datacenter,
      interfaces: () => net.interfaces(),
      net,
      shared: storage.shared,
      peers: settings.peers !== undefined,
      sources: () => this.sources(),
      upstreams: () => [others.upstream, ...this.#parts.flatMap(({ upstream }) => upstream ?? [])],
      nodeElsewhere: others.upstream.node,
    });
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
    const magic = await createMagic({
      durable,
      random,
      settings: settings.magic ?? {},
      interfaces: () => net.interfaces(),
    });
    const connector = createConnector({
      find: backendsBy({ lookup, own: () => agent.node, log: log.part("connect") }),
      balancer: createBalancer({ clock, random }),
      refused: (service, address, port) => lookup.confirmLost(service, address, port),
      tcp: systemTcp,
      udp: systemUdp,
      clock,
      log,
      metrics,
      filesLimit: openFilesLimit(),
      interfaces: () => net.interfaces(),
    });
    this.#undo.push("proxies", () => connector.stop());
    this.#built = { self, directory, agent, lookup, kv, sessions, events, prepared, magic, connector };

    const vouching = createVouching({ directory, clock, log, first: () => liveness.start() });
    this.#undo.push("signs of life of client hosts", () => vouching.stop());
    const livenessMs =
      settings.join?.livenessMs ??
      settings.etcd?.livenessMs ??
      (settings.peers === undefined ? 15_000 : PEERS_LIVENESS_MS);
    const signs = storage.alive === undefined ? vouching : (storage as Pick<Required<Storage>, "alive">);
    const liveness = createLiveness({
      directory,
      storage: signs,
      node: self.node,
      nodeId: self.nodeId,
      life,
      ttlMs: livenessMs,
      clock,
      random,
      log,
    });

    const ground: Ground = {
      clock,
      random,
      log,
      disk,
      net,
      http,
      processes,
      metrics,
      directory,
      kv,
      sessions,
      events,
      agent,
      lookup,
      prepared,
      magic,
      connector,
      self,
      probes: this.#probes,
      sources: () => this.sources(),
      firstLists: () => Promise.all(this.#firstLists),
      answers: (service, signal) => this.#answers(service, signal),
      dataTrouble: () => durable.trouble(),
      vouch: (node, life, ttlMs, signal) =>
        (signs === vouching ? vouching.vouch : signs.alive).call(signs, node, life, ttlMs, signal),
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
    for (const protocol of protocols) {
      const raw = this.#rawConfig(protocol.name);
      if (raw === false) continue;
      const part = await protocol.install(raw, ground);
      if (part === undefined) continue;
      this.#parts.push(part);
      this.#names.set(part, protocol.name);
      for (const probe of part.probes ?? []) this.#probes.set(probe.kind, probe);
    }

    this.#mustGoOn();
    this.#undo.push("the lookup", () => lookup.stop());
    await lookup.start();
    this.#mustGoOn();
    this.#undo.push("the agent", () => (this.#leaving ? agent.leave() : agent.stop()));
    await agent.start();
    this.#mustGoOn();
    this.#undo.push("the sign of life", () => liveness.stop());
    // An embedded store has nobody to look after until a client host joins.
    if (storage.alive !== undefined) liveness.start();
    else vouching.inherit(self.node, livenessMs);
    await this.#listen(http, (own) => others.inFrontOf(own, () => directory));
    await this.#dropLeftovers(agent);
    this.#mustGoOn();
    this.#watch(agent, log);
    for (const { background } of this.#parts) {
      if (background === undefined) continue;
      this.#undo.push("what goes on in the background", () => background.stop());
      background.start();
    }
    this.#mustGoOn();
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

  /** Who this agent is. The node's ID is made once and kept in the data folder. */
  async #self(durable: Durable): Promise<Self> {
    const { settings } = this;
    const { clock, random, net, processes } = this.#machine;
    const kept = durable.get("self", "node-id");
    const nodeId = settings.nodeId ?? (kept === undefined ? random.uuid() : Buffer.from(kept).toString("utf8"));
    if (kept === undefined || Buffer.from(kept).toString("utf8") !== nodeId)
      await durable.write([{ table: "self", key: "node-id", value: Buffer.from(nodeId) }]);
    const node = settings.node ?? (processes.hostname().split(".")[0] || "localhost");
    return {
      version: packageVersion(),
      node,
      nodeId,
      datacenter: settings.datacenter,
      datacenters: Object.keys(settings.datacenters ?? {}).map((name) => name.toLowerCase()),
      joined: settings.join !== undefined,
      domain: settings.domain.toLowerCase(),
      advertiseAddress: settings.advertiseAddress ?? ownAddress(settings, net),
      bindAddress: settings.bindAddress,
      startedAtMs: clock.now(),
      dev: settings.dev,
      compat: settings.compat,
      ...(settings.join === undefined ? {} : { client: true }),
      scripts: settings.scripts,
      listening: this.#listening,
    };
  }

  #rawConfig(name: string): unknown {
    if (name === "peers" && this.settings.peers !== undefined) return this.settings.peers;
    const raw = this.settings.protocols[name];
    if (name === "consul" && raw !== false) {
      // The same files that hold services and checks.
      const { consulPaths } = (this.settings.protocols["file"] ?? {}) as { readonly consulPaths?: readonly string[] };
      return consulPaths === undefined ? raw : { watchPaths: consulPaths, ...(raw ?? {}) };
    }
    if (name === "shim" && raw !== false) return this.#hookConfig(raw);
    if (name !== "file" || raw === false || this.settings.dataDir === undefined || this.settings.dev) return raw;
    // A folder to drop service files into is there without being asked for.
    const given = (raw ?? {}) as { readonly paths?: readonly string[] };
    return { ...given, paths: [join(this.settings.dataDir, "services.d"), ...(given.paths ?? [])] };
  }

  /** Every agent that keeps data keeps a table for hooked programs beside it; names lie in both domains that DNS answers for. */
  #hookConfig(raw: unknown): unknown {
    const { dataDir, dev, protocols: given } = this.settings;
    if (raw !== undefined && raw !== true && (typeof raw !== "object" || raw === null || Array.isArray(raw)))
      return raw;
    const { altDomain } = (given["dns"] || {}) as { readonly altDomain?: unknown };
    return {
      ...(dataDir === undefined || dev ? {} : { table: resolve(dataDir, "hook", "table") }),
      ...(altDomain === undefined ? {} : { altDomain }),
      ...(raw === undefined || raw === true ? {} : raw),
    };
  }

  async #listen(http: Http, front: (own: Handler) => Handler): Promise<void> {
    for (const listener of this.#parts.flatMap(({ listeners }) => listeners ?? [])) {
      this.#undo.push(listener.name, () => listener.stop());
      this.#listening.set(listener.name, await listener.start());
    }
    const routes = this.#parts.flatMap((part) => part.routes ?? []);
    if (this.settings.httpPort < 0 || routes.length === 0) return;
    const handle = front(mount(routes));
    for (const host of this.settings.clientAddress.split(/[\s,]+/)) {
      const at = host.startsWith("unix://")
        ? { path: host.slice("unix://".length) }
        : { host, port: this.settings.httpPort };
      const server = await http.serve(at, handle);
      this.#undo.push("HTTP", () => server.close());
      if (!this.#listening.has("http"))
        this.#listening.set("http", "path" in at ? host : hostPort(server.host, server.port));
    }
  }

  /** What a protocol's source brought in before it was switched off has nobody left to take it out. */
  async #dropLeftovers(agent: Agent): Promise<void> {
    const running = new Set(this.#parts.map(({ source }) => source?.name));
    const held = new Set([...agent.services().values()].map(({ instance }) => instance.origin.source));
    for (const { from } of agent.overrides()) if (from !== undefined) held.add(from);
    for (const { witnessed } of this.directory.view().list("node"))
      for (const { source, by } of witnessed ?? []) if (by.includes(agent.node.name)) held.add(source);
    for (const { name } of protocols)
      if (held.has(name) && !running.has(name)) await agent.adopt(name, { list: [], authority: "first-hand" });
  }

  async settled(limitMs: number): Promise<void> {
    const limit = new AbortController();
    await Promise.race([Promise.all(this.#firstLists), this.#machine.clock.sleep(limitMs, limit.signal)]);
    limit.abort();
  }

  /** Carries every source's lists to the agent, for ever. A source that breaks is started again, later and later. */
  #watch(agent: Agent, log: Log): void {
    const stop = new AbortController();
    const running: Promise<void>[] = [];
    for (const { source } of this.#parts) {
      if (source === undefined) continue;
      this.#firstLists.push(
        new Promise((told) => {
          running.push(this.#carry(source, agent, log, stop.signal, told));
        }),
      );
    }
    this.#undo.push("the sources", async () => {
      stop.abort(new TrilithError("stopped", "the agent is stopping"));
      await Promise.all(running);
    });
  }

  async #carry(source: Source, agent: Agent, log: Log, signal: AbortSignal, told: () => void): Promise<void> {
    const { clock, random } = this.#machine;
    for (let pauseMs = 100; !signal.aborted; pauseMs = Math.min(pauseMs * 2, 30_000)) {
      try {
        for await (const list of source.watch(signal)) {
          await agent.adopt(source.name, list);
          told();
          pauseMs = 100;
        }
      } catch (error) {
        if (signal.aborted) return;
        log.error(`source ${source.name} broke and is started again`, { error: messageOf(error) });
      }
      await clock.sleep(jitter(pauseMs, 0.2, random), signal).catch(() => {});
    }
  }

  async reload(): Promise<void> {
    const { log } = this.#machine;
    log.info("reading files again");
    for (const part of this.#parts) {
      try {
        await part.reload?.();
      } catch (error) {
        log.error("could not read everything again", { error: messageOf(error) });
      }
    }
    // What was deregistered by hand and is still stated comes back, as with Consul.
    await this.#whole.agent.restate();
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
    await this.#undo.all(log);
    // A start under way ends at its next step, for what it builds upon is gone; what it made meanwhile goes, too.
    await this.#building?.catch(() => {});
    await this.#undo.all(log);
  }
}

/** The port under which the agent calls itself a server, as the Consul dialect is told. */
function serverPort(settings: Settings): number {
  const told = (settings.protocols["consul"] as { readonly serverPort?: unknown } | undefined)?.serverPort;
  return typeof told === "number" && told >= 0 ? told : 8300;
}

/** One handler for all routes; the longest prefix wins. */
function mount(routes: readonly Route[]): Handler {
  const ordered = routes.toSorted((a, b) => b.prefix.length - a.prefix.length);
  return (request, response) => {
    const path = pathOf(request.url ?? "/");
    request.url = path;
    const route = ordered.find(({ prefix }) => path.startsWith(prefix));
    if (route !== undefined) return route.handle(request, response);
    response.writeHead(404, { "content-type": "text/plain" }).end(`there is nothing at ${path}\n`);
  };
}

/** What a Consul server tells of itself; no gRPC here. */
const SELF_LABELS: Labels = {
  grpc_port: "-1",
  non_voter: "false",
  raft_version: "3",
  read_replica: "false",
  serf_protocol_current: "2",
  serf_protocol_max: "5",
  serf_protocol_min: "1",
  version: CONSUL_VERSION,
};

/** The path of a request target, which may be a whole URL [RFC9112-3.2.2]. */
function pathOf(target: string): string {
  const authority = /^https?:\/\/[^/?]*/i.exec(target)?.[0];
  if (authority === undefined) return target;
  const path = target.slice(authority.length);
  return path.startsWith("/") ? path : `/${path}`;
}

const WILDCARD = /^(0\.0\.0\.0|::)$/;
const LOOPBACK = /^(127\.|::1$|localhost$|unix:)/;

/** The address other hosts reach this one at: loopback while nothing here speaks to other hosts, else the first of this host's own. */
function ownAddress(settings: Settings, net: Net): string {
  const { bindAddress, clientAddress } = settings;
  const wildcard = WILDCARD.test(bindAddress);
  const dns = settings.protocols["dns"] as { readonly bridge?: unknown } | false | undefined;
  // Containers that are answered by name must be able to reach this host.
  const bridged = dns !== undefined && dns !== false && dns.bridge !== undefined && dns.bridge !== false;
  const mdns = settings.protocols["mdns"];
  const onLan = mdns !== undefined && mdns !== false;
  const alone =
    settings.storage !== "etcd" &&
    settings.join === undefined &&
    settings.peers === undefined &&
    !bridged &&
    !onLan &&
    LOOPBACK.test(clientAddress);
  if (!wildcard && (!LOOPBACK.test(bindAddress) || alone)) return bindAddress;
  const outside = net
    .interfaces()
    .filter(({ internal, address }) => !internal && !address.startsWith("fe80:") && !address.startsWith("169.254."));
  return (outside.find(({ family }) => family === 4) ?? outside[0])?.address ?? "127.0.0.1";
}
