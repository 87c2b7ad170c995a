// The agent: this host's list of services and checks, who owns what, how the checks stand, and what of it goes to the directory.
import type { Clock } from "../base/clock.ts";
import type { Durable } from "../base/durable.ts";
import { messageOf, TrilithError, wrap } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Random } from "../base/random.ts";
import type {
  Agent,
  CheckRegistration,
  HeldCheck,
  HeldOutside,
  HeldOverride,
  HeldService,
} from "../contracts/agent.ts";
import type { Directory } from "../contracts/directory.ts";
import type { Self } from "../contracts/ground.ts";
import type { Probe } from "../contracts/probe.ts";
import type { Settings } from "../contracts/settings.ts";
import type { SourceList } from "../contracts/source.ts";
import type { CheckSpec, Outcome } from "../model/check.ts";
import type { Instance, Registration, ServiceFacts } from "../model/instance.ts";
import type { Labels, Node } from "../model/node.ts";
import type { Reason } from "../model/reason.ts";
import { type Index, keyOf } from "../model/record.ts";
import { Adoption } from "./adoption.ts";
import { Carrier } from "./carry.ts";
import { Health } from "./health.ts";
import { HostList } from "./host-list.ts";
import { Listing } from "./listing.ts";
import { OutOfRouting } from "./out-of-routing.ts";
import { Outside } from "./outside.ts";
import { Overrides } from "./overrides.ts";
import { Overriding } from "./overriding.ts";
import { aliveCheck, OWN_ORIGIN, ownNode } from "./own-node.ts";
import { askFaultOf, OWN } from "./owners.ts";
import { ownLabels, same } from "./reconcile.ts";
import { unaskable } from "./records.ts";
import { Registering } from "./registering.ts";
import { restore } from "./restore.ts";
import { Rivals } from "./rivals.ts";
import { Shortages } from "./shortages.ts";
import { HostTruth } from "./truth.ts";

export interface AgentOptions {
  readonly directory: Directory;
  /** Where this host's list is kept; the directory's own environment where it is embedded, so that both share a sync. */
  readonly durable: Durable;
  /**
   * True where other processes write to the directory's store, too. Otherwise registering waits for the directory as well as for this
   * host's list, and no other host can hold this name.
   */
  readonly shared: boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Ways to ask, by kind; looked at when they are needed, so that protocols may add theirs. */
  readonly probes: ReadonlyMap<string, Probe>;
  readonly settings: Pick<Settings, "nodeLabels" | "scripts" | "antiEntropyMs" | "checkUpdateMs">;
  readonly self: Pick<Self, "node" | "nodeId" | "datacenter" | "advertiseAddress"> & Partial<Pick<Self, "compat">>;
  /** The node's labels beside those of the settings, which win. */
  readonly labels?: Labels;
  /** The node's addresses by role beside lan and wan, which all nodes have. */
  readonly taggedAddresses?: Labels;
  /** The agent's own service in the catalog (Consul's servers list "consul"); not part of `services()`. */
  readonly selfService?: ServiceFacts;
  /** The `life` of this agent's own sign of life in a shared store. */
  readonly life?: string;
  /** How many checks run at once; default 256. */
  readonly maxRunningChecks?: number;
}

/** An agent with its beginning and its end. */
export interface RunningAgent extends Agent {
  /**
   * Reads the kept list, then keeps the directory in step with it. Starting twice = once. Resolves when the kept list is back and, with an
   * embedded store, in the directory; a shared store that is away does not hold it up. `open`: opens what this agent is asked on; called once
   * when there is something to answer, and with a shared store before others are told of this host. @throws TrilithError `conflict` where another
   * live host has this name or ID, or what `open` failed with: nobody was told of this host then
   */
  start(open?: () => Promise<void>): Promise<void>;
  /** Gives this host's node other labels of its own. Resolves as `register` does. */
  relabel(labels: Labels): Promise<void>;
  /** Ends checks and writes; what is registered stays registered. */
  stop(): Promise<void>;
  /** Stops and takes this node, with everything on it, out of the directory. */
  leave(): Promise<void>;
}

/** How long a start waits for a shared store's first picture. */
const READY_WAIT_MS = 3000;

/** Builds the agent; nothing is read, run or written before `start`. */
export function createAgent(options: AgentOptions): RunningAgent {
  return new ListAgent(options);
}

class ListAgent implements RunningAgent {
  #node: Node;
  readonly #options: AgentOptions;
  readonly #log: Log;
  readonly #list: HostList;
  readonly #carrier: Carrier;
  readonly #outside: Outside;
  readonly #overrides: Overrides;
  readonly #overriding: Overriding;
  readonly #adoption: Adoption;
  readonly #registering: Registering;
  readonly #outOfRouting: OutOfRouting;
  readonly #health: Health;
  readonly #shortages: Shortages;
  readonly #listing: Listing;
  readonly #truth: HostTruth;
  readonly #rivals: Rivals;
  readonly #stopping = new AbortController();
  #starting: Promise<void> | undefined;
  #stopped: Promise<void> | undefined;
  /** Others may know this host by now. */
  #told = false;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#log = options.log.part("agent");
    const { self, settings, clock, random, metrics, directory } = options;
    this.#node = ownNode(options);
    const { address } = this.#node;
    const log = this.#log;
    const { signal } = this.#stopping;
    const alive = aliveCheck(self.node);
    const selfInstance: Instance | undefined =
      options.selfService === undefined ? undefined : { ...options.selfService, node: self.node, origin: OWN_ORIGIN };
    this.#list = new HostList(options.durable);
    const list = this.#list;
    const listing = new Listing({
      ...{ node: self.node, selfServiceId: selfInstance?.id, shared: options.shared, clock, log, list, signal },
      started: () => this.#starting !== undefined,
    });
    this.#listing = listing;
    this.#shortages = new Shortages(clock, log);
    const shortages = this.#shortages;
    this.#health = new Health({
      ...{ listing, shortages, directory, node: self.node, address, clock, random, metrics, log, signal },
      ...{ probes: options.probes, checkUpdateMs: settings.checkUpdateMs, maxRunning: options.maxRunningChecks },
      missingNodePasses: self.compat === "consul",
      freed: (ids) => this.#adoption.offerAgain(ids),
    });
    const { standing, aliases } = this.#health;
    this.#truth = new HostTruth({ listing, standing, node: () => this.#node, alive, selfInstance, log });
    this.#rivals = new Rivals({
      ...{ node: this.node, life: options.life, directory, shared: options.shared, clock, log, signal },
    });
    this.#carrier = new Carrier({
      directory,
      node: self.node,
      truth: {
        wanted: (ref, now) => this.#truth.wanted(ref, now),
        all: () => this.#truth.all(),
        forbidden: (view) => this.#rivals.rival(view),
        refused: (ref, error) => {
          this.#listing.ownComplaints.set(`refused\0${ref.table}\0${ref.id}`, {
            from: this.#truth.ownerOf(ref),
            about: ref.id,
            text: `the directory refuses ${ref.table} "${ref.id}": ${error.message}`,
          });
        },
        retrying: () => {
          for (const key of this.#listing.ownComplaints.keys())
            if (key.startsWith("refused\0")) this.#listing.ownComplaints.delete(key);
        },
      },
      clock,
      random,
      log: this.#log,
      metrics,
      embedded: !options.shared,
      antiEntropyMs: settings.antiEntropyMs,
    });
    this.#outside = new Outside({
      shortages,
      directory,
      node: self.node,
      datacenter: self.datacenter,
      clock,
      random,
      log: options.log,
      metrics,
      probes: options.probes,
      checkUpdateMs: settings.checkUpdateMs,
      maxRunning: options.maxRunningChecks,
      antiEntropyMs: settings.antiEntropyMs,
      embedded: !options.shared,
      askable: (from, spec) => {
        const fault = this.#askFault(from, spec);
        return fault === undefined ? spec : unaskable(spec, fault.message);
      },
      note: (name, id, text) => this.#listing.note(name, id, text),
      changed: () => this.#listing.version.grow(),
    });
    listing.join({ carrier: this.#carrier, standing, aliases });
    this.#overrides = new Overrides({ probes: options.probes, now: () => clock.now() });
    const overrides = this.#overrides;
    this.#overriding = new Overriding({
      ...{ listing, overrides, list },
      adopt: (from, whole) => this.#adoption.adopt(from, whole),
    });
    this.#adoption = new Adoption({
      ...{ listing, overrides, overriding: this.#overriding, outside: this.#outside, list, clock, log, signal },
      askFault: (from, spec) => this.#askFault(from, spec),
    });
    this.#registering = new Registering({
      ...{ listing, overriding: this.#overriding, clock },
      mustBeAskable: (from, spec) => {
        const fault = this.#askFault(from, spec);
        if (fault !== undefined) throw fault;
      },
      freed: (ids) => this.#adoption.offerAgain(ids),
    });
    this.#outOfRouting = new OutOfRouting({ listing, list, carrier: this.#carrier });
    metrics.gauge("agent_services", "Services in this host's list", () => this.#listing.services.size);
    metrics.gauge("agent_checks", "Checks in this host's list", () => this.#listing.checks.size);
  }

  // ---- beginning and end ----

  start(open: () => Promise<void> = async () => {}): Promise<void> {
    if (this.#stopping.signal.aborted) return Promise.reject(this.#stopError());
    this.#starting ??= this.#start(open).catch(async (error: unknown) => {
      // What started half stops whole.
      await this.#end();
      throw error;
    });
    return this.#starting;
  }

  async #start(open: () => Promise<void>): Promise<void> {
    const { directory, shared, clock } = this.#options;
    const stop = this.#stopping.signal;
    const kept = await this.#list.load();
    for (const { about, text } of kept.damaged) {
      this.#log.error(text);
      this.#listing.ownComplaints.set(`damaged\0${about}`, { from: OWN, about, text });
    }
    restore(kept, {
      ...{ listing: this.#listing, overrides: this.#overrides, list: this.#list, node: this.node.name, clock },
      ...{ askFault: (from, spec) => this.#askFault(from, spec), log: this.#log },
    });
    if (!shared) {
      await directory.ready(stop);
      await this.#rivals.outlive();
      await this.#rivals.removeFormerNames();
      this.#told = true;
      this.#carrier.start();
      await this.#carrier.settled();
      this.#outside.start();
      return await open();
    }
    const tellOthers = async (): Promise<void> => {
      await this.#rivals.removeFormerNames();
      this.#mustRun();
      this.#told = true;
      this.#carrier.start();
      this.#outside.start();
    };
    const ready = directory.ready(stop).then(() => true);
    const waiting = new AbortController();
    const first = await Promise.race([
      ready,
      clock.sleep(READY_WAIT_MS, waiting.signal).then(
        () => false,
        () => false,
      ),
    ]);
    waiting.abort();
    if (first) {
      await this.#rivals.outlive();
      await open();
      this.#mustRun();
      return await tellOthers();
    }
    this.#log.warn(
      "the directory's store is away: this host's list is served and will be carried over when it is back",
    );
    await open();
    // A rival found this late stops the carrying (see `forbidden`) and is complained about, but not the agent.
    ready.then(tellOthers).catch((error: unknown) => {
      if (!stop.aborted) this.#log.error("waiting for the directory failed", { error: messageOf(error) });
    });
  }

  stop(): Promise<void> {
    this.#stopped ??= (async () => {
      this.#stopping.abort(this.#stopError());
      await this.#starting?.catch(() => {});
      await this.#end();
    })();
    return this.#stopped;
  }

  async #end(): Promise<void> {
    this.#stopping.abort(this.#stopError());
    for (const id of this.#health.standing.unkept()) this.#listing.keepCheck(id);
    await this.#health.aliases.stop();
    await this.#health.standing.stop();
    await this.#outside.stop();
    await this.#carrier.stop();
    await this.#list.end().catch((error: unknown) => {
      this.#log.error("the last changes of this host's list could not be kept", { error: messageOf(error) });
    });
    this.#listing.version.end(this.#stopError());
  }

  async leave(): Promise<void> {
    await this.stop();
    const { directory, clock } = this.#options;
    // What stands there under this name is not this agent's.
    if (!this.#told || this.#carrier.forbidden !== undefined) return;
    await this.#outside.leave();
    const why: Reason = {
      code: "goodbye",
      text: `node ${this.node.name} left`,
      confirmed: true,
      atMs: clock.now(),
    };
    const written = await directory.write([{ op: "delete", table: "node", key: keyOf.node(this.node.name), why }]);
    if (written.result === "unknown") throw wrap(written.cause, `taking node ${this.node.name} out of the directory`);
  }

  #stopError(): TrilithError {
    return new TrilithError("stopped", "the agent is stopping");
  }

  #mustRun(): void {
    if (this.#stopping.signal.aborted) throw this.#stopError();
  }

  // ---- the node ----

  get node(): Node {
    return this.#node;
  }

  async relabel(labels: Labels): Promise<void> {
    this.#mustRun();
    const now = ownLabels({ ...this.#options.labels, ...labels });
    if (same(now, this.#node.labels)) return;
    this.#node = { ...this.#node, labels: now };
    this.#listing.version.grow();
    await this.#carrier.touch([{ table: "node", id: this.#node.name }]);
  }

  // ---- registering ----

  async register(from: string, r: Registration, options: { readonly replaceChecks?: boolean } = {}): Promise<void> {
    this.#mustRun();
    await this.#registering.register(from, r, options);
  }

  async deregister(from: string, id: string, why?: Reason): Promise<void> {
    this.#mustRun();
    await this.#registering.deregister(from, id, why);
  }

  async registerCheck(from: string, check: CheckRegistration): Promise<void> {
    this.#mustRun();
    await this.#registering.registerCheck(from, check);
  }

  async deregisterCheck(from: string, id: string): Promise<void> {
    this.#mustRun();
    await this.#registering.deregisterCheck(from, id);
  }

  async adopt(from: string, whole: SourceList): Promise<void> {
    this.#mustRun();
    await this.#adoption.adopt(from, whole);
  }

  async restate(from?: string): Promise<void> {
    this.#mustRun();
    await this.#adoption.restate(from);
  }

  async override(target: string, words: readonly string[], by: string): Promise<HeldOverride> {
    this.#mustRun();
    return await this.#overriding.override(target, words, by);
  }

  async undoOverride(target: string): Promise<boolean> {
    this.#mustRun();
    return await this.#overriding.undoOverride(target);
  }

  overrides(): readonly HeldOverride[] {
    return this.#overriding.overrides();
  }

  async report(checkId: string, outcome: Outcome): Promise<void> {
    this.#mustRun();
    await this.#health.report(checkId, outcome);
  }

  async maintenance(serviceId: string, on: boolean, reason = ""): Promise<void> {
    this.#mustRun();
    await this.#outOfRouting.maintenance(serviceId, on, reason);
  }

  async drain(serviceId: string, draining: boolean, why: Reason): Promise<void> {
    this.#mustRun();
    await this.#outOfRouting.drain(serviceId, draining, why);
  }

  // ---- what is held ----

  services(): ReadonlyMap<string, HeldService> {
    return this.#listing.services;
  }

  outside(): readonly HeldOutside[] {
    return this.#outside.held();
  }

  checks(): ReadonlyMap<string, HeldCheck> {
    return this.#listing.checks;
  }

  version(): Index {
    return this.#listing.version.now;
  }

  changed(after: Index, signal: AbortSignal): Promise<Index> {
    return this.#listing.version.past(after, signal);
  }

  async synced(signal?: AbortSignal): Promise<void> {
    if (this.#starting === undefined) throw new TrilithError("unavailable", "the agent has not been started");
    await this.#starting;
    await this.#carrier.synced(signal);
    await this.#outside.synced(signal);
  }

  history(service: string): readonly { readonly atMs: number; readonly id: string; readonly text: string }[] {
    return this.#listing.notes.of(service);
  }

  complaints(): readonly { readonly from: string; readonly about: string; readonly text: string }[] {
    const rival = this.#carrier.forbidden;
    return [
      ...(rival === undefined ? [] : [{ from: OWN, about: this.node.name, text: rival }]),
      ...this.#listing.ownComplaints.values(),
      ...this.#shortages.complaints(),
      ...this.#outside.complaints(),
      ...this.#overrides.complaints(),
      ...[...this.#listing.sources].flatMap(([from, { complaints }]) => complaints.map((one) => ({ from, ...one }))),
    ];
  }

  // ---- what may be asked ----

  #askFault(from: string, spec: CheckSpec): TrilithError | undefined {
    const { probes, settings } = this.#options;
    return askFaultOf(from, spec, probes, settings.scripts);
  }
}
