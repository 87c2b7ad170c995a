// The agent: this host's list of services and checks, who owns what, how the checks stand, and what of it goes to the directory.
import type { Clock } from "../base/clock.ts";
import type { Durable } from "../base/durable.ts";
import { InputError, messageOf, TrilithError, wrap } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { ipFamily } from "../base/net.ts";
import type { Random } from "../base/random.ts";
import type {
  Agent,
  CheckRegistration,
  HeldCheck,
  HeldOutside,
  HeldOverride,
  HeldService,
} from "../contracts/agent.ts";
import type { Directory, View } from "../contracts/directory.ts";
import type { Self } from "../contracts/ground.ts";
import type { Probe } from "../contracts/probe.ts";
import type { Settings } from "../contracts/settings.ts";
import type { SourceList } from "../contracts/source.ts";
import { type Check, type CheckSpec, NODE_ALIVE_CHECK, type Outcome, type Status } from "../model/check.ts";
import type { Instance, Origin, Registration, ServiceFacts } from "../model/instance.ts";
import type { Labels, Node } from "../model/node.ts";
import type { Authority, Reason } from "../model/reason.ts";
import { type Entry, type Index, keyOf, type Tables } from "../model/record.ts";
import { head } from "../wire/check-output.ts";
import { Aliases, aliasDetail } from "./alias.ts";
import { Carrier, type HostTable, type Ref, RefusedError } from "./carry.ts";
import { expiredOutput } from "./checks/ttl.ts";
import { HostList, type Kept, type KeptCheck, type KeptService, keepAfterMs } from "./host-list.ts";
import { Notes } from "./notes.ts";
import { Outside } from "./outside.ts";
import { type Original, Overrides } from "./overrides.ts";
import { askFaultOf, checkConflictOf, conflictOf, type Held, mayTake, OWN } from "./owners.ts";
import { normalize, ownLabels, reconcile, registrationFault, same, whoIs } from "./reconcile.ts";
import {
  CheckRecord,
  checkOf,
  instanceOf,
  isMaintenance,
  isRefusal,
  maintenanceSpec,
  ServiceRecord,
  unaskable,
} from "./records.ts";
import { OUTPUT_MAX_BYTES, Standing } from "./standing.ts";
import { Version } from "./version.ts";

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
   * embedded store, in the directory; a shared store that is away does not hold it up. @throws TrilithError `conflict` where another live
   * host has this name or ID
   */
  start(): Promise<void>;
  /** Ends checks and writes; what is registered stays registered. */
  stop(): Promise<void>;
  /** Stops and takes this node, with everything on it, out of the directory. */
  leave(): Promise<void>;
}

interface Complaint {
  readonly about: string;
  readonly text: string;
}

/** How long a start waits for a shared store's first picture. */
const READY_WAIT_MS = 3000;
interface SourceState {
  /** What was taken over from the last list. */
  last: Map<string, Registration>;
  whole: SourceList | undefined;
  /** Ids it wants and another one holds. */
  readonly blocked: Set<string>;
  complaints: readonly Complaint[];
  next:
    | {
        readonly whole: SourceList;
        /** Also what others deregistered meanwhile. */
        readonly again: boolean;
        readonly waiting: { resolve(): void; reject(error: unknown): void }[];
      }
    | undefined;
  busy: boolean;
}

/** One change of the list, with what it takes to undo it. */
interface Step {
  readonly services: Map<string, { before: ServiceRecord | undefined; after: ServiceRecord | undefined }>;
  readonly checks: Map<string, { before: CheckRecord | undefined; after: CheckRecord | undefined }>;
  readonly kept: Promise<void>[];
  readonly whys: Map<string, Reason>;
}

/** Builds the agent; nothing is read, run or written before `start`. */
export function createAgent(options: AgentOptions): RunningAgent {
  return new ListAgent(options);
}

class ListAgent implements RunningAgent {
  readonly node: Node;
  readonly #options: AgentOptions;
  readonly #log: Log;
  readonly #list: HostList;
  readonly #carrier: Carrier;
  readonly #outside: Outside;
  readonly #overrides: Overrides;
  /** What callers registered and an override hides, by id. */
  readonly #hidden = new Map<string, KeptService>();
  readonly #standing: Standing;
  readonly #aliases: Aliases;
  readonly #services = new Map<string, ServiceRecord>();
  readonly #checks = new Map<string, CheckRecord>();
  /** Ids of the checks of each service; "" = of the node. */
  readonly #checksOf = new Map<string, Set<string>>();
  /** Why the services drain that were told to. */
  readonly #draining = new Map<string, Reason>();
  readonly #sources = new Map<string, SourceState>();
  readonly #ownComplaints = new Map<string, { readonly from: string; readonly about: string; readonly text: string }>();
  readonly #notes = new Notes();
  readonly #selfInstance: Instance | undefined;
  readonly #alive: Check;
  readonly #stopping = new AbortController();
  readonly #version = new Version();
  /** Steps that are not yet durable. */
  readonly #underWay = new Set<Step>();
  #starting: Promise<void> | undefined;
  #stopped: Promise<void> | undefined;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#log = options.log.part("agent");
    const { self, settings, clock, random, metrics, directory } = options;
    const address = self.advertiseAddress;
    const family = ipFamily(address);
    this.node = {
      id: self.nodeId,
      name: self.node,
      address,
      datacenter: self.datacenter,
      taggedAddresses: {
        lan: address,
        ...(family === 0 ? {} : { [`lan_ipv${family}`]: address }),
        wan: address,
        ...(family === 0 ? {} : { [`wan_ipv${family}`]: address }),
        ...options.taggedAddresses,
      },
      labels: ownLabels({ ...options.labels, ...settings.nodeLabels }),
    };
    const origin: Origin = { source: OWN, authority: "first-hand" };
    this.#alive = {
      id: NODE_ALIVE_CHECK,
      node: self.node,
      name: "Serf Health Status",
      status: "passing",
      notes: "",
      output: "Agent alive and reachable",
      serviceId: "",
      type: "",
      origin,
    };
    this.#selfInstance =
      options.selfService === undefined ? undefined : { ...options.selfService, node: self.node, origin };
    this.#list = new HostList(options.durable);
    this.#standing = new Standing({
      clock,
      random,
      metrics,
      probes: options.probes,
      checkUpdateMs: settings.checkUpdateMs,
      maxRunning: options.maxRunningChecks,
      target: (checkId) => {
        const instance = this.#services.get(this.#checks.get(checkId)?.serviceId ?? "")?.instance;
        const { address = "", port = 0 } = instance ?? {};
        return { address: address === "" ? this.node.address : address, port };
      },
      happening: {
        answered: (spec, outcome) => {
          const held = this.#checks.get(spec.id);
          if (held === undefined || held.spec !== spec) return;
          const status = held.counter.count(outcome);
          if (status === undefined) held.remember(clock.now(), outcome.status, outcome.output);
          else this.#standAndTell(held, status, outcome.output);
        },
        ranOut: (id) => {
          const held = this.#checks.get(id);
          if (held !== undefined) this.#standAndTell(held, "critical", expiredOutput(held.check.output));
        },
        outlived: (id) => this.#reap(id),
        outputDue: (id) => this.#touch([{ table: "check", id }]),
        keepDue: (id) => this.#keepCheck(id),
      },
    });
    this.#aliases = new Aliases({
      directory,
      clock,
      log: this.#log,
      node: self.node,
      missingNodePasses: self.compat === "consul",
      checksOf: (serviceId) => [...(this.#checksOf.get(serviceId) ?? [])].flatMap((id) => this.#checks.get(id) ?? []),
      hasService: (id) => this.#services.has(id),
      stands: (id, { status, output }) => {
        const held = this.#checks.get(id);
        if (held !== undefined && (held.check.status !== status || held.check.output !== output))
          this.#standAndTell(held, status, output);
      },
    });
    this.#carrier = new Carrier({
      directory,
      node: self.node,
      truth: {
        wanted: (ref, now) => this.#wanted(ref, now),
        all: () => this.#all(),
        forbidden: (view) => this.#rival(view),
        refused: (ref, error) => {
          this.#ownComplaints.set(`refused\0${ref.table}\0${ref.id}`, {
            from: this.#ownerOf(ref),
            about: ref.id,
            text: `the directory refuses ${ref.table} "${ref.id}": ${error.message}`,
          });
        },
        retrying: () => {
          for (const key of this.#ownComplaints.keys())
            if (key.startsWith("refused\0")) this.#ownComplaints.delete(key);
        },
      },
      clock,
      random,
      log: this.#log,
      metrics,
      embedded: !options.shared,
      antiEntropyMs: settings.antiEntropyMs,
    });
    this.#overrides = new Overrides({ probes: options.probes, now: () => clock.now() });
    this.#outside = new Outside({
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
      note: (name, id, text) => this.#note(name, id, text),
      changed: () => this.#version.grow(),
    });
    metrics.gauge("agent_services", "Services in this host's list", () => this.#services.size);
    metrics.gauge("agent_checks", "Checks in this host's list", () => this.#checks.size);
  }

  // ---- beginning and end ----

  start(): Promise<void> {
    if (this.#stopping.signal.aborted) return Promise.reject(this.#stopError());
    this.#starting ??= this.#start().catch(async (error: unknown) => {
      // What started half stops whole.
      await this.#end();
      throw error;
    });
    return this.#starting;
  }

  async #start(): Promise<void> {
    const { directory, shared, clock } = this.#options;
    const stop = this.#stopping.signal;
    const kept = await this.#list.load();
    for (const { about, text } of kept.damaged) {
      this.#log.error(text);
      this.#ownComplaints.set(`damaged\0${about}`, { from: OWN, about, text });
    }
    this.#restore(kept);
    const go = async (): Promise<void> => {
      const rival = this.#rival(directory.view());
      if (rival !== undefined) throw new TrilithError("conflict", rival);
      await this.#removeFormerNames();
      this.#carrier.start();
      if (shared) this.#outside.start();
    };
    if (!shared) {
      await directory.ready(stop);
      await go();
      await this.#carrier.settled();
      this.#outside.start();
      return;
    }
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
    if (first) return await go();
    this.#log.warn(
      "the directory's store is away: this host's list is served and will be carried over when it is back",
    );
    // A rival found this late stops the carrying (see `forbidden`) and is complained about, but not the agent.
    ready
      .then(async () => {
        await this.#removeFormerNames();
        this.#carrier.start();
        this.#outside.start();
      })
      .catch((error: unknown) => {
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
    for (const id of this.#standing.unkept()) this.#keepCheck(id);
    await this.#aliases.stop();
    await this.#standing.stop();
    await this.#outside.stop();
    await this.#carrier.stop();
    await this.#list.end().catch((error: unknown) => {
      this.#log.error("the last changes of this host's list could not be kept", { error: messageOf(error) });
    });
    this.#version.end(this.#stopError());
  }

  async leave(): Promise<void> {
    await this.stop();
    const { directory, clock } = this.#options;
    if (this.#carrier.forbidden !== undefined) return;
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

  /** Puts back what was kept, as it stood. */
  #restore({ services, checks, overrides, hidden, complete }: Kept): void {
    this.#overrides.load(overrides);
    for (const [id, kept] of hidden) if (!this.#services.has(id)) this.#hidden.set(id, kept);
    for (const [id, kept] of services) {
      if (this.#services.has(id)) continue;
      const { registration } = kept;
      if (kept.draining !== undefined) this.#draining.set(id, kept.draining);
      this.#services.set(id, this.#serviceRecord(kept.from, kept.authority, registration, kept.tags));
      if (kept.from !== "api") this.#source(kept.from).last.set(id, registration);
    }
    for (const [id, kept] of checks) {
      if (this.#checks.has(id)) continue;
      if (kept.serviceId !== "" && !this.#services.has(kept.serviceId)) {
        // Its service went in a write that did not take it along: nobody owns it any more.
        this.#list.check(id, undefined).catch((error: unknown) => {
          this.#log.warn(`check "${id}" of a service that is gone could not be forgotten`, { error: messageOf(error) });
        });
        continue;
      }
      const authority = services.get(kept.serviceId)?.authority ?? "first-hand";
      // What was allowed when it was registered need not be allowed now. What is kept stays as it is: it may be allowed again.
      const fault = isMaintenance(id) || isRefusal(kept.spec) ? undefined : this.#askFault(kept.from, kept.spec);
      const spec = fault === undefined ? kept.spec : unaskable(kept.spec, fault.message);
      if (fault !== undefined)
        this.#ownComplaints.set(`unaskable\0${id}`, { from: kept.from, about: id, text: fault.message });
      const stands = fault === undefined ? kept : ({ status: "critical", output: fault.message } as const);
      const record = new CheckRecord(
        kept.from,
        checkOf(this.node.name, kept.from, authority, spec, kept.serviceId, stands),
        spec,
      );
      this.#checks.set(id, record);
      this.#index(id, kept.serviceId);
      this.#begin(record, this.#ttlLeft(kept, complete));
    }
    for (const [id, record] of this.#services) this.#services.set(id, this.#withChecks(record));
    if (services.size + checks.size > 0) this.#version.grow();
  }

  /** A pushed check goes on with the time that was left to it: that nobody could report to an agent that was away is no excuse. */
  #ttlLeft({ spec, expiresAtMs }: KeptCheck, complete: boolean): number | undefined {
    const { ttlMs } = spec;
    if (expiresAtMs === undefined || ttlMs === undefined) return undefined;
    const leftMs = expiresAtMs - this.#options.clock.now() + (complete ? 0 : keepAfterMs(ttlMs));
    return Math.min(Math.max(0, leftMs), ttlMs);
  }

  // ---- registering ----

  async register(from: string, r: Registration, options: { readonly replaceChecks?: boolean } = {}): Promise<void> {
    this.#mustRun();
    const fault = registrationFault(r);
    if (fault !== undefined) throw new InputError("", fault);
    const asked = normalize(r);
    for (const spec of asked.checks) this.#mustBeAskable(from, spec);
    const conflict = conflictOf(this.#held(), from, asked);
    if (conflict !== undefined) throw new TrilithError("conflict", conflict);
    const step = newStep();
    this.#putOverridden(step, from, "first-hand", asked, options.replaceChecks === true);
    await this.#commit(step, `registering service "${asked.id}"`);
  }

  async deregister(from: string, id: string, why?: Reason): Promise<void> {
    this.#mustRun();
    const held = this.#services.get(id);
    const hidden = this.#hidden.get(id);
    if (held === undefined && hidden !== undefined && mayTake(from, hidden.from)) {
      await this.#hide(id, undefined);
      return;
    }
    if (held === undefined)
      throw new TrilithError(
        "not-found",
        `Unknown service ID ${JSON.stringify(id)}. Ensure that the service ID is passed, not the service name.`,
      );
    if (!mayTake(from, held.from))
      throw new TrilithError(
        "conflict",
        `service "${id}" is held by ${held.from} (${whoIs(held.registration)}) and cannot be deregistered by ${from}`,
      );
    const step = newStep();
    this.#removeService(
      step,
      id,
      why ?? {
        code: "deregistered",
        text: `was deregistered by ${from}`,
        confirmed: true,
        atMs: this.#options.clock.now(),
      },
    );
    await this.#commit(step, `deregistering service "${id}"`);
    this.#offerAgain([id]);
  }

  adopt(from: string, whole: SourceList): Promise<void> {
    return this.#adopt(from, whole, false);
  }

  #adopt(from: string, whole: SourceList, again: boolean): Promise<void> {
    if (this.#stopping.signal.aborted) return Promise.reject(this.#stopError());
    const source = this.#source(from);
    return new Promise((resolve, reject) => {
      // A newer list speaks for the older one that still waits.
      const waiting = source.next?.waiting ?? [];
      waiting.push({ resolve, reject });
      source.next = { whole, again: again || source.next?.again === true, waiting };
      if (!source.busy) void this.#adoptAll(from, source);
    });
  }

  async #adoptAll(from: string, source: SourceState): Promise<void> {
    source.busy = true;
    for (let next = source.next; next !== undefined; next = source.next) {
      source.next = undefined;
      try {
        if (next.again)
          for (const [id, { checks }] of source.last)
            if (!this.#services.has(id) || checks.some((spec) => !this.#checks.has(spec.id))) source.last.delete(id);
        const { whole } = next;
        const restated = this.#overrides.state(from, whole.overrides ?? []);
        const told = this.#overrides.over(from, whole);
        await this.#adoptOne(from, source, { ...told, list: told.list.filter((r) => r.external === undefined) });
        source.whole = whole;
        await this.#outside.adopt(from, told, next.again);
        await Promise.all(
          [...this.#hidden].filter(([, kept]) => kept.from === from).map(([id]) => this.#hide(id, undefined)),
        );
        if (restated) await this.#reapply(from);
        for (const { resolve } of next.waiting) resolve();
      } catch (error) {
        for (const { reject } of next.waiting) reject(error);
      }
    }
    source.busy = false;
  }

  async #adoptOne(from: string, source: SourceState, whole: SourceList): Promise<void> {
    this.#mustRun();
    const difference = reconcile(from, source.last, whole, this.#options.clock.now());
    const last = new Map(difference.list);
    const complaints = [...difference.complaints];
    const step = newStep();
    source.blocked.clear();
    // A thing that only got another id keeps how its checks stood.
    const stood = new Map<string, readonly CheckRecord[]>();
    for (const [id, oldId] of difference.renamed)
      stood.set(
        id,
        (this.#services.get(oldId)?.registration.checks ?? []).flatMap((spec) => this.#checks.get(spec.id) ?? []),
      );
    const freed: string[] = [];
    for (const { id, why } of difference.gone) {
      if (this.#services.get(id)?.from !== from) continue;
      this.#removeService(step, id, why);
      freed.push(id);
    }
    for (const wanted of difference.put) {
      const conflict = conflictOf(this.#held(), from, wanted);
      if (conflict !== undefined) {
        complaints.push({ about: wanted.id, text: conflict });
        last.delete(wanted.id);
        source.blocked.add(wanted.id);
        // What it changed into is somebody else's: the old form must not stay either.
        if (this.#services.get(wanted.id)?.from === from)
          this.#removeService(step, wanted.id, {
            code: "refused",
            text: conflict,
            confirmed: true,
            atMs: this.#options.clock.now(),
          });
        continue;
      }
      const checks = wanted.checks.map((spec) => {
        const fault = this.#askFault(from, spec);
        if (fault === undefined) return spec;
        complaints.push({ about: wanted.id, text: fault.message });
        return unaskable(spec, fault.message);
      });
      this.#putService(step, from, whole.authority, { ...wanted, checks }, true, stood.get(wanted.id));
    }
    try {
      const refused: string[] = [];
      await this.#commit(step, `adopting the list of ${from}`, (id, text) => {
        complaints.push({ about: id, text });
        refused.push(id);
      });
      for (const id of refused) {
        // What was refused is as it was before: in its old form, or not there.
        const old = this.#services.get(id);
        if (old?.from === from) last.set(id, old.registration);
        else last.delete(id);
      }
    } finally {
      // Also after a failure: what was said about the list stays true.
      this.#tellNew(from, source.complaints, complaints);
      source.complaints = complaints;
    }
    source.last = last;
    this.#offerAgain(freed, from);
  }

  /** Each complaint is one line in the log when it comes up: whoever dropped a bad file looks there first. */
  #tellNew(from: string, before: readonly Complaint[], now: readonly Complaint[]): void {
    const known = new Set(before.map(({ about, text }) => `${about}\0${text}`));
    for (const { about, text } of now) {
      if (known.has(`${about}\0${text}`)) continue;
      known.add(`${about}\0${text}`);
      this.#log.warn(text.startsWith(about) ? `${from}: ${text}` : `${from}: ${about}: ${text}`);
    }
  }

  // ---- overrides ----

  async override(target: string, words: readonly string[], by: string): Promise<HeldOverride> {
    this.#mustRun();
    const override = this.#overrides.planned(target, words, by, this.#originals());
    await this.#list.override(override.for.toLowerCase(), override);
    this.#overrides.set(override.for, override);
    await this.#reapply();
    const held = this.overrides().find((one) => one.from === undefined && one.for === override.for);
    if (held === undefined) throw new TrilithError("internal", `the override for "${override.for}" was not kept`);
    for (const { service, id } of held.matches)
      for (const name of new Set([service, this.#services.get(id)?.instance.name ?? service]))
        this.#note(name, id, `override by ${by}: ${words.join(" ")}`);
    return held;
  }

  async undoOverride(target: string): Promise<boolean> {
    this.#mustRun();
    const held = this.overrides().find(
      (one) => one.from === undefined && one.for.toLowerCase() === this.#overrideKey(target),
    );
    if (held === undefined) return false;
    await this.#list.override(held.for.toLowerCase(), undefined);
    this.#overrides.set(held.for, undefined);
    await this.#reapply();
    for (const { service, id } of held.matches) this.#note(service, id, `override undone: ${held.set.join(" ")}`);
    return true;
  }

  overrides(): readonly HeldOverride[] {
    return this.#overrides.held(this.#originals());
  }

  /** The name under which an override is kept that was given for this target. */
  #overrideKey(target: string): string {
    const given = target.trim().toLowerCase();
    if (this.#overrides.get(given) !== undefined) return given;
    return this.#overrides.planned(target, ["hidden"], "", this.#originals()).for.toLowerCase();
  }

  /** Everything that is registered here, hidden or not, as its source says it. */
  #originals(): readonly Original[] {
    const known: Original[] = [];
    for (const [from, { whole }] of this.#sources)
      for (const registration of whole?.list ?? []) known.push({ from, registration });
    for (const { from, asked } of this.#services.values())
      if (this.#sources.get(from)?.whole === undefined) known.push({ from, registration: asked });
    for (const { from, registration } of this.#hidden.values()) known.push({ from, registration });
    return known;
  }

  /** Brings everything into line with the overrides as they are now. */
  async #reapply(except?: string): Promise<void> {
    const adopting: Promise<void>[] = [];
    for (const [from, source] of this.#sources) {
      const whole = source.next?.whole ?? source.whole;
      if (whole !== undefined && from !== except) adopting.push(this.#adopt(from, whole, false));
    }
    const step = newStep();
    for (const { from, asked, authority } of [...this.#services.values()])
      if (this.#sources.get(from)?.whole === undefined) this.#putOverridden(step, from, authority, asked, false);
    for (const [id, { from, registration, authority }] of [...this.#hidden])
      if (!this.#services.has(id) && conflictOf(this.#held(), from, registration) === undefined)
        this.#putOverridden(step, from, authority, registration, true);
    await this.#commit(step, "applying overrides");
    await Promise.all(adopting);
  }

  /** Holds a service as overrides want it, or hides it. */
  #putOverridden(step: Step, from: string, authority: Authority, asked: Registration, replaceChecks: boolean): void {
    const { id } = asked;
    const held = this.#services.get(id);
    const told = this.#overrides.apply(from, asked);
    if (told === undefined) {
      if (held !== undefined) this.#removeService(step, id, this.#overrides.hiding(asked));
      step.kept.push(this.#hide(id, { from, authority, registration: asked }));
      return;
    }
    if (this.#hidden.has(id)) step.kept.push(this.#hide(id, undefined));
    const registration = normalize(told);
    // What one override set up goes with it, and what another one replaced comes back.
    const named = new Set(registration.checks.map((spec) => spec.id));
    if (held?.from === from && (held.registration.overridden ?? registration.overridden) !== undefined)
      for (const spec of held.registration.checks)
        if (!named.has(spec.id) && this.#checks.get(spec.id)?.from === from) this.#setCheck(step, spec.id, undefined);
    this.#putService(step, from, authority, registration, replaceChecks);
    const source = this.#sources.get(from);
    if (source !== undefined && source.whole === undefined) source.last.set(id, registration);
  }

  /** Remembers what is hidden, or (undefined) forgets it. */
  #hide(id: string, kept: KeptService | undefined): Promise<void> {
    if (kept === undefined) this.#hidden.delete(id);
    else this.#hidden.set(id, kept);
    return this.#list.hidden(id, kept);
  }

  async restate(from?: string): Promise<void> {
    this.#mustRun();
    const adopting: Promise<void>[] = [];
    for (const [name, source] of this.#sources) {
      const whole = source.next?.whole ?? source.whole;
      if (whole !== undefined && (from === undefined || name === from)) adopting.push(this.#adopt(name, whole, true));
    }
    await Promise.all(adopting);
  }

  async registerCheck(from: string, check: CheckRegistration): Promise<void> {
    this.#mustRun();
    const { serviceId, ...given } = check;
    const id = given.id === "" ? given.name : given.id;
    if (id === "") throw new InputError("", "the check has neither an id nor a name: expected at least one of them");
    const spec: CheckSpec = { ...given, id, name: given.name === "" ? id : given.name };
    const service = this.#services.get(serviceId);
    if (serviceId !== "" && service === undefined)
      throw new TrilithError("not-found", `ServiceID ${JSON.stringify(serviceId)} does not exist`);
    this.#mustBeAskable(from, spec);
    const conflict = checkConflictOf(this.#held(), from, id, serviceId);
    if (conflict !== undefined) throw new TrilithError("conflict", conflict);
    const step = newStep();
    this.#putCheck(step, from, service?.authority ?? "first-hand", spec, serviceId);
    await this.#commit(step, `registering check "${id}"`);
  }

  async deregisterCheck(from: string, id: string): Promise<void> {
    this.#mustRun();
    const held = this.#mustHold(id);
    if (!mayTake(from, held.from))
      throw new TrilithError("conflict", `check "${id}" is held by ${held.from} and cannot be deregistered by ${from}`);
    const step = newStep();
    this.#setCheck(step, id, undefined);
    await this.#commit(step, `deregistering check "${id}"`);
  }

  async report(checkId: string, outcome: Outcome): Promise<void> {
    this.#mustRun();
    const held = this.#mustHold(checkId);
    const { spec } = held;
    if ((spec.kind !== "ttl" && spec.kind !== "none") || isMaintenance(checkId))
      throw new TrilithError("invalid", `CheckID ${JSON.stringify(checkId)} does not have associated TTL`);
    this.#standing.reported(spec);
    const step = newStep();
    this.#stand(step, held, outcome.status, head(outcome.output, spec.outputMaxBytes ?? OUTPUT_MAX_BYTES));
    if (step.kept.length === 0) this.#standing.keepLater(spec);
    if (step.checks.size > 0) await this.#commit(step, `keeping the state of check "${checkId}"`);
  }

  async maintenance(serviceId: string, on: boolean, reason = ""): Promise<void> {
    this.#mustRun();
    const service = this.#services.get(serviceId);
    if (serviceId !== "" && service === undefined)
      throw new TrilithError(
        "not-found",
        `Unknown service ID ${JSON.stringify(serviceId)}. Ensure that the service ID is passed, not the service name.`,
      );
    const spec = maintenanceSpec(serviceId, reason);
    if (on === this.#checks.has(spec.id)) return;
    const step = newStep();
    if (on) this.#putCheck(step, OWN, service?.authority ?? "first-hand", spec, serviceId);
    else this.#setCheck(step, spec.id, undefined);
    if (service !== undefined)
      this.#note(
        service.instance.name,
        serviceId,
        on ? `is in maintenance: ${spec.notes}` : "is no longer in maintenance",
      );
    await this.#commit(step, `setting the maintenance of ${serviceId === "" ? "the node" : `service "${serviceId}"`}`);
  }

  async drain(serviceId: string, draining: boolean, why: Reason): Promise<void> {
    this.#mustRun();
    const held = this.#services.get(serviceId);
    if (held === undefined)
      throw new TrilithError(
        "not-found",
        `there is no service ${JSON.stringify(serviceId)} on this host to be drained`,
      );
    if (draining === this.#draining.has(serviceId)) return;
    if (draining) this.#draining.set(serviceId, why);
    else this.#draining.delete(serviceId);
    this.#note(held.instance.name, serviceId, draining ? `is draining: ${why.text}` : `is routable again: ${why.text}`);
    const record = this.#withChecks(
      this.#serviceRecord(held.from, held.authority, held.registration, held.instance.tags),
    );
    this.#services.set(serviceId, record);
    this.#version.grow();
    const kept = this.#list.service(serviceId, this.#keptService(record));
    const carried = this.#carrier.touch([{ table: "service", id: serviceId }]);
    await Promise.all([kept, carried]).catch((error: unknown) => {
      throw wrap(error, `draining service "${serviceId}"`);
    });
  }

  // ---- what is held ----

  services(): ReadonlyMap<string, HeldService> {
    return this.#services;
  }

  outside(): readonly HeldOutside[] {
    return this.#outside.held();
  }

  checks(): ReadonlyMap<string, HeldCheck> {
    return this.#checks;
  }

  version(): Index {
    return this.#version.now;
  }

  changed(after: Index, signal: AbortSignal): Promise<Index> {
    return this.#version.past(after, signal);
  }

  async synced(signal?: AbortSignal): Promise<void> {
    if (this.#starting === undefined) throw new TrilithError("unavailable", "the agent has not been started");
    await this.#starting;
    await this.#carrier.synced(signal);
    await this.#outside.synced(signal);
  }

  history(service: string): readonly { readonly atMs: number; readonly id: string; readonly text: string }[] {
    return this.#notes.of(service);
  }

  complaints(): readonly { readonly from: string; readonly about: string; readonly text: string }[] {
    const rival = this.#carrier.forbidden;
    return [
      ...(rival === undefined ? [] : [{ from: OWN, about: this.node.name, text: rival }]),
      ...this.#ownComplaints.values(),
      ...this.#outside.complaints(),
      ...this.#overrides.complaints(),
      ...[...this.#sources].flatMap(([from, { complaints }]) => complaints.map((one) => ({ from, ...one }))),
    ];
  }

  // ---- the list's own mechanics ----

  #source(from: string): SourceState {
    let source = this.#sources.get(from);
    if (source === undefined) {
      source = {
        last: new Map(),
        whole: undefined,
        blocked: new Set(),
        complaints: [],
        next: undefined,
        busy: false,
      };
      this.#sources.set(from, source);
    }
    return source;
  }

  /** Lets sources that wanted freed ids have them. */
  #offerAgain(ids: readonly string[], except?: string): void {
    for (const [from, source] of this.#sources)
      if (from !== except && source.whole !== undefined && ids.some((id) => source.blocked.has(id)))
        this.adopt(from, source.next?.whole ?? source.whole).catch((error: unknown) => {
          if (!this.#stopping.signal.aborted)
            this.#log.warn(`the list of ${from} could not be adopted again`, { error: messageOf(error) });
        });
  }

  #held(): Held {
    return {
      node: this.node.name,
      selfServiceId: this.#selfInstance?.id,
      services: this.#services,
      checks: this.#checks,
    };
  }

  #askFault(from: string, spec: CheckSpec): TrilithError | undefined {
    const { probes, settings } = this.#options;
    return askFaultOf(from, spec, probes, settings.scripts);
  }

  #mustBeAskable(from: string, spec: CheckSpec): void {
    const fault = this.#askFault(from, spec);
    if (fault !== undefined) throw fault;
  }

  #mustHold(checkId: string): CheckRecord {
    const held = this.#checks.get(checkId);
    if (held === undefined)
      throw new TrilithError(
        "not-found",
        `Unknown check ID ${JSON.stringify(checkId)}. Ensure that the check ID is passed, not the check name.`,
      );
    return held;
  }

  #serviceRecord(from: string, authority: Authority, r: Registration, tags: readonly string[] = r.tags): ServiceRecord {
    const now = { tags, draining: this.#draining.has(r.id) };
    return new ServiceRecord(from, r, instanceOf(this.node.name, from, authority, r, now), []);
  }

  #withChecks(record: ServiceRecord): ServiceRecord {
    const ids = this.#checksOf.get(record.instance.id) ?? [];
    const specs = [...ids].flatMap((id) => this.#checks.get(id)?.spec ?? []);
    return new ServiceRecord(record.from, record.registration, record.instance, specs);
  }

  /** Holds a service in its new form. Nothing happens where nothing differs. */
  #putService(
    step: Step,
    from: string,
    authority: Authority,
    r: Registration,
    replaceChecks: boolean,
    stood: readonly CheckRecord[] = [],
  ): void {
    const held = this.#services.get(r.id);
    if (held !== undefined && held.from !== from) {
      this.#note(held.instance.name, r.id, `is taken over by ${from} (${whoIs(r)}) from ${held.from}`);
      const loser = this.#sources.get(held.from);
      loser?.last.delete(r.id);
      loser?.blocked.add(r.id);
    }
    // Another container or process under the same id is not on its way out because the one before was.
    const was = held?.registration.foreignId;
    if (was !== undefined && r.foreignId !== undefined && was !== r.foreignId) this.#draining.delete(r.id);
    const before = [...(this.#checksOf.get(r.id) ?? [])].join("\0");
    const named = new Set(r.checks.map((spec) => spec.id));
    for (const id of [...(this.#checksOf.get(r.id) ?? [])]) {
      const owner = this.#checks.get(id)?.from ?? "";
      // Who takes a service over does not take over how its former owner had it checked.
      const goes = (owner !== from && owner === held?.from) || (replaceChecks && mayTake(from, owner));
      if (!named.has(id) && goes && !isMaintenance(id)) this.#setCheck(step, id, undefined);
    }
    const unchanged =
      held !== undefined && held.from === from && held.authority === authority && same(held.registration, r);
    if (!unchanged) {
      const tags = held?.registration.enableTagOverride === true ? held.instance.tags : r.tags;
      this.#setService(step, r.id, this.#serviceRecord(from, authority, r, tags));
      if (held === undefined) this.#note(r.name, r.id, `was registered by ${from}: ${whoIs(r)}`);
      else if ((held.registration.draining ?? false) !== (r.draining ?? false))
        this.#note(r.name, r.id, r.draining === true ? `is draining, says ${from}` : `is routable again, says ${from}`);
      else if (held.instance.name !== r.name) {
        this.#note(held.instance.name, r.id, `is now called "${r.name}"`);
        this.#note(r.name, r.id, `was called "${held.instance.name}" before`);
      } else if (held.from === from) this.#note(r.name, r.id, `was changed by ${from}: ${whoIs(r)}`);
    }
    r.checks.forEach((spec, i) => {
      const like = stood[i];
      const state =
        like !== undefined && like.spec.kind === spec.kind && same(like.spec.detail, spec.detail) ? like : undefined;
      this.#putCheck(step, from, authority, spec, r.id, state);
    });
    const after = this.#services.get(r.id);
    if (after !== undefined && (!unchanged || before !== [...(this.#checksOf.get(r.id) ?? [])].join("\0")))
      this.#services.set(r.id, this.#withChecks(after));
    const entry = step.services.get(r.id);
    if (entry !== undefined) entry.after = this.#services.get(r.id);
  }

  #removeService(step: Step, id: string, why: Reason): void {
    const held = this.#services.get(id);
    if (held === undefined) return;
    for (const checkId of [...(this.#checksOf.get(id) ?? [])]) this.#setCheck(step, checkId, undefined);
    step.whys.set(id, why);
    this.#draining.delete(id);
    this.#setService(step, id, undefined);
    this.#note(held.instance.name, id, `went (${why.code}): ${why.text}`);
  }

  /** Holds a check in its new form; how it stood stays, so that registering again does not flap. */
  #putCheck(
    step: Step,
    from: string,
    authority: Authority,
    spec: CheckSpec,
    serviceId: string,
    stood?: CheckRecord,
  ): void {
    const held = this.#checks.get(spec.id);
    if (held !== undefined && held.from === from && held.serviceId === serviceId && same(held.spec, spec)) return;
    const state = held ?? stood;
    // What the agent itself set up stands as it says; everything else stands as it stood.
    const fixed = isMaintenance(spec.id) || isRefusal(spec);
    const stands =
      spec.kind === "alias"
        ? this.#aliases.outcome(spec.id, aliasDetail(spec.detail))
        : {
            status: fixed ? "critical" : (state?.check.status ?? spec.initial ?? "critical"),
            output: isRefusal(spec) ? spec.notes : (state?.check.output ?? ""),
          };
    const check = checkOf(this.node.name, from, authority, spec, serviceId, stands);
    this.#setCheck(step, spec.id, new CheckRecord(from, check, spec, held));
  }

  #setService(step: Step, id: string, after: ServiceRecord | undefined): void {
    const before = this.#services.get(id);
    const known = step.services.get(id);
    if (known === undefined) step.services.set(id, { before, after });
    else known.after = after;
    if (after === undefined) this.#services.delete(id);
    else this.#services.set(id, after);
    if ((before === undefined) !== (after === undefined)) this.#aliases.changed(id);
    this.#ownComplaints.delete(`refused\0service\0${id}`);
    step.kept.push(this.#list.service(id, after === undefined ? undefined : this.#keptService(after)));
  }

  #keptService({ from, authority, registration, instance }: ServiceRecord): KeptService {
    const why = this.#draining.get(instance.id);
    return {
      from,
      authority,
      registration,
      ...(registration.enableTagOverride === true ? { tags: instance.tags } : {}),
      // Who sees a stop signal or the like tells it afresh after each start; what somebody asked for nobody says again.
      ...(why !== undefined && (why.code === "draining" || why.code === "maintenance") ? { draining: why } : {}),
    };
  }

  #keptCheck({ from, serviceId, spec, check }: CheckRecord): KeptCheck {
    const leftMs = this.#standing.ttlLeftMs(spec.id);
    return {
      from,
      serviceId,
      spec,
      status: check.status,
      output: check.output,
      ...(leftMs === undefined ? {} : { expiresAtMs: this.#options.clock.now() + leftMs }),
    };
  }

  /** Keeps how a check stands, without anybody waiting for it. */
  #keepCheck(id: string): void {
    this.#standing.kept(id);
    const held = this.#checks.get(id);
    if (held === undefined) return;
    this.#list.check(id, this.#keptCheck(held)).catch((error: unknown) => {
      this.#log.error(`the time of check "${id}" could not be kept`, { error: messageOf(error) });
    });
  }

  #setCheck(step: Step, id: string, after: CheckRecord | undefined): void {
    const before = this.#checks.get(id);
    const known = step.checks.get(id);
    if (known === undefined) step.checks.set(id, { before, after });
    else known.after = after;
    if (before?.spec !== after?.spec)
      for (const kind of ["refused\0check", "unaskable"]) this.#ownComplaints.delete(`${kind}\0${id}`);
    if (after === undefined) {
      this.#checks.delete(id);
      this.#unindex(id, before?.serviceId ?? "");
      this.#standing.end(id);
      this.#aliases.end(id);
    } else {
      if (before !== undefined && before.serviceId !== after.serviceId) this.#unindex(id, before.serviceId);
      this.#checks.set(id, after);
      this.#index(id, after.serviceId);
      if (before === undefined || before.spec !== after.spec) this.#begin(after);
      else if (before.check.status !== after.check.status) this.#standing.statusChanged(after);
    }
    for (const owner of new Set([before?.serviceId, after?.serviceId]))
      if (owner !== undefined) this.#aliases.changed(owner);
    // An output that changed alone is not worth a write to the disk.
    const worthKeeping =
      before === undefined ||
      after === undefined ||
      before.spec !== after.spec ||
      before.from !== after.from ||
      before.check.status !== after.check.status ||
      before.serviceId !== after.serviceId;
    if (worthKeeping) {
      this.#standing.kept(id);
      step.kept.push(this.#list.check(id, after === undefined ? undefined : this.#keptCheck(after)));
    }
    const owners = new Set([before?.serviceId, after?.serviceId]);
    for (const owner of owners) {
      const service = owner === undefined ? undefined : this.#services.get(owner);
      if (service !== undefined && before?.spec !== after?.spec)
        this.#services.set(service.instance.id, this.#withChecks(service));
    }
  }

  /** Starts the clockwork of a check, anew where it ran in another form. */
  #begin(record: CheckRecord, ttlLeftMs?: number): void {
    this.#standing.begin(record, ttlLeftMs);
    if (record.spec.kind === "alias") this.#aliases.begin(record);
    else this.#aliases.end(record.spec.id);
  }

  #index(id: string, serviceId: string): void {
    const ids = this.#checksOf.get(serviceId);
    if (ids === undefined) this.#checksOf.set(serviceId, new Set([id]));
    else ids.add(id);
  }

  #unindex(id: string, serviceId: string): void {
    const ids = this.#checksOf.get(serviceId);
    ids?.delete(id);
    if (ids?.size === 0) this.#checksOf.delete(serviceId);
  }

  /**
   * Makes a change last: resolves when this host's list is durable and an embedded directory has it. What fails is undone and thrown;
   * with `leaveOut`, services that the directory refuses for good are undone alone and told.
   */
  async #commit(step: Step, doing: string, leaveOut?: (serviceId: string, text: string) => void): Promise<void> {
    if (step.services.size === 0 && step.checks.size === 0) {
      // The same may just be on its way for somebody else: what is acknowledged must be durable.
      await this.#list.settled();
      if (!this.#options.shared) await this.#carrier.settled();
      return;
    }
    this.#version.grow();
    const carried: Promise<void>[] = [];
    const plain: Ref[] = [...step.checks.keys()].map((id) => ({ table: "check", id }));
    for (const id of step.services.keys()) {
      const why = step.whys.get(id);
      if (why === undefined || this.#services.has(id)) plain.push({ table: "service", id });
      else carried.push(this.#carrier.touch([{ table: "service", id }], why));
    }
    carried.push(this.#carrier.touch(plain));
    // Before the start nothing is carried; the start itself carries it.
    const waitFor = this.#starting === undefined ? [] : carried;
    for (const promise of carried) promise.catch(() => {});
    this.#underWay.add(step);
    const outcomes = await Promise.allSettled([...step.kept, ...waitFor]);
    this.#underWay.delete(step);
    const failed = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reason as unknown);
    const worst = failed.find((reason) => !(reason instanceof RefusedError)) ?? failed[0];
    if (worst === undefined) return;
    if (this.#stopping.signal.aborted) throw this.#stopError();
    if (worst instanceof RefusedError && leaveOut !== undefined) {
      const ids = new Set<string>();
      for (const reason of failed)
        for (const ref of (reason as RefusedError).refs) {
          const serviceId =
            ref.table === "service"
              ? ref.id
              : (step.checks.get(ref.id)?.after?.serviceId ?? this.#checks.get(ref.id)?.serviceId);
          if (serviceId !== undefined) ids.add(serviceId);
        }
      for (const id of ids) leaveOut(id, worst.message);
      this.#undo(step, (serviceId) => ids.has(serviceId));
      return;
    }
    this.#undo(step, () => true);
    throw wrap(worst, doing);
  }

  /** Puts back how services and their checks stood before a step, unless somebody changed them since. */
  #undo(step: Step, concerned: (serviceId: string) => boolean): void {
    const back = newStep();
    for (const [id, { before, after }] of step.services) {
      if (!concerned(id)) continue;
      // Who built upon what is undone now would go back to it.
      for (const { services } of this.#underWay) {
        const later = services.get(id);
        if (later?.before !== undefined && later.before.registration === after?.registration) later.before = before;
      }
      if (this.#services.get(id)?.registration !== after?.registration) continue;
      this.#setService(back, id, before);
      if (before === undefined) this.#draining.delete(id);
      else if (before.from !== "api") {
        // Its source has it again.
        const source = this.#source(before.from);
        source.last.set(id, before.registration);
        source.blocked.delete(id);
      }
    }
    for (const [id, { before, after }] of step.checks) {
      if (!concerned((after ?? before)?.serviceId ?? "")) continue;
      for (const { checks } of this.#underWay) {
        const later = checks.get(id);
        if (later?.before !== undefined && later.before.spec === after?.spec) later.before = before;
      }
      if (this.#checks.get(id)?.spec === after?.spec) this.#setCheck(back, id, before);
    }
    for (const id of back.services.keys()) {
      const service = this.#services.get(id);
      if (service !== undefined) this.#services.set(id, this.#withChecks(service));
    }
    this.#version.grow();
    for (const promise of back.kept)
      promise.catch((error: unknown) => {
        this.#log.error("this host's list on disk is behind", { error: messageOf(error) });
      });
    this.#touch([
      ...[...back.services.keys()].map((id): Ref => ({ table: "service", id })),
      ...[...back.checks.keys()].map((id): Ref => ({ table: "check", id })),
    ]);
  }

  /** Has records carried without waiting; the carrier tries again and tells what fails. */
  #touch(refs: readonly Ref[]): void {
    this.#carrier.touch(refs).catch(() => {});
  }

  #note(service: string, id: string, text: string): void {
    this.#notes.add(service, { atMs: this.#options.clock.now(), id, text });
  }

  // ---- how checks stand ----

  #reap(checkId: string): void {
    const held = this.#checks.get(checkId);
    if (held === undefined || held.check.status !== "critical") return;
    const service = this.#services.get(held.serviceId);
    if (service === undefined) return;
    const step = newStep();
    const text = `check "${checkId}" was critical for longer than ${Math.round((held.spec.deregisterAfterMs ?? 0) / 1000)} s`;
    this.#log.info(`service "${held.serviceId}" is deregistered`, { why: text });
    this.#removeService(step, held.serviceId, {
      code: "reaped",
      text,
      confirmed: true,
      atMs: this.#options.clock.now(),
    });
    this.#commit(step, `deregistering service "${held.serviceId}"`).then(
      () => this.#offerAgain([held.serviceId]),
      (error: unknown) => {
        if (!this.#stopping.signal.aborted) this.#log.error(messageOf(error));
      },
    );
  }

  /** A result of the agent's own asking. */
  #standAndTell(held: CheckRecord, status: Status, output: string): void {
    const step = newStep();
    const before = held.check.status;
    this.#stand(step, held, status, output);
    if (step.checks.size === 0) return;
    if (before !== status)
      this.#log.debug(`check "${held.check.id}" is ${status}`, {
        before,
        output: output.slice(0, 200),
      });
    // A status that cannot be kept or carried now is still true: nothing is undone, the carrier tries again.
    this.#version.grow();
    for (const promise of step.kept)
      promise.catch((error: unknown) => {
        this.#log.error(`the status of check "${held.check.id}" could not be kept`, { error: messageOf(error) });
      });
    this.#touch([{ table: "check", id: held.check.id }]);
  }

  #stand(step: Step, held: CheckRecord, status: Status, output: string): void {
    const { check, spec, from } = held;
    held.remember(this.#options.clock.now(), status, output);
    if (check.status === status && check.output === output) return;
    this.#setCheck(step, spec.id, new CheckRecord(from, { ...check, status, output }, spec, held));
  }

  // ---- what should be in the directory ----

  #ownerOf(ref: Ref): string {
    if (ref.table === "service") return this.#services.get(ref.id)?.from ?? OWN;
    return this.#checks.get(ref.id)?.from ?? OWN;
  }

  *#all(): Iterable<Ref> {
    yield { table: "node", id: this.node.name };
    yield { table: "check", id: NODE_ALIVE_CHECK };
    if (this.#selfInstance !== undefined) yield { table: "service", id: this.#selfInstance.id };
    for (const id of this.#services.keys()) yield { table: "service", id };
    for (const id of this.#checks.keys()) yield { table: "check", id };
  }

  #wanted(ref: Ref, now: Entry<HostTable> | undefined): Tables[HostTable] | undefined {
    if (ref.table === "node") return this.node;
    if (ref.table === "service") {
      if (ref.id === this.#selfInstance?.id) return this.#selfInstance;
      return this.#wantedService(ref.id, now as Entry<"service"> | undefined);
    }
    if (ref.id === NODE_ALIVE_CHECK) return this.#alive;
    const check = this.#checks.get(ref.id)?.check;
    return check === undefined ? undefined : this.#standing.carried(check, now as Entry<"check"> | undefined);
  }

  #wantedService(id: string, now: Entry<"service"> | undefined): Instance | undefined {
    const held = this.#services.get(id);
    if (held === undefined || held.instance.enableTagOverride !== true || now === undefined) return held?.instance;
    if (same(now.tags, held.instance.tags)) return held.instance;
    // Others may set its tags in the catalog, and what they set wins here, too.
    const step = newStep();
    const taken = this.#serviceRecord(held.from, held.authority, held.registration, [...now.tags]);
    this.#setService(step, id, taken);
    this.#services.set(id, this.#withChecks(taken));
    this.#version.grow();
    for (const promise of step.kept)
      promise.catch((error: unknown) => {
        this.#log.error(`the tags of service "${id}" could not be kept`, { error: messageOf(error) });
      });
    return taken.instance;
  }

  // ---- other hosts ----

  /** Who else lives under this node's name or ID; undefined = nobody. */
  #rival(view: View): string | undefined {
    if (!this.#options.shared) return undefined;
    const { name, id } = this.node;
    const sameName = view.get("node", keyOf.node(name));
    if (sameName !== undefined && sameName.id !== "" && sameName.id !== id && this.#lives(view, sameName.name))
      return (
        `the node name "${name}" belongs to another live host: node ID ${sameName.id} at ${sameName.address}, this one has ${id} at ` +
        `${this.node.address}; give one of them another name`
      );
    for (const other of view.list("node"))
      if (other.id === id && other.name.toLowerCase() !== name.toLowerCase() && this.#lives(view, other.name))
        return (
          `the node ID ${id} belongs to the live host "${other.name}" at ${other.address}, too; was this host's data folder copied? ` +
          `Give "${name}" a node ID and a data folder of its own`
        );
    return undefined;
  }

  #lives(view: View, name: string): boolean {
    const sign = view.get("alive", keyOf.alive(name));
    if (sign !== undefined) return sign.life !== this.#options.life;
    // A directory without signs of life (a Consul's) tells by the node's check.
    return view.count("alive") === 0 && view.get("check", keyOf.check(name, NODE_ALIVE_CHECK))?.status === "passing";
  }

  /** A host that was renamed takes its records along: nothing stays under the old name. */
  async #removeFormerNames(): Promise<void> {
    const { directory, clock } = this.#options;
    const { id, name } = this.node;
    const view = directory.view();
    if (id === "" || this.#rival(view) !== undefined) return;
    const why: Reason = {
      code: "replaced",
      text: `the host is called "${name}" now`,
      confirmed: true,
      atMs: clock.now(),
    };
    const former = [...view.list("node")].filter(
      (node) => node.id === id && node.name.toLowerCase() !== name.toLowerCase(),
    );
    if (former.length === 0) return;
    try {
      await directory.write(
        former.map((node) => ({ op: "delete", table: "node", key: keyOf.node(node.name), why })),
        undefined,
        this.#stopping.signal,
      );
    } catch (error) {
      this.#log.warn("the records under this host's former name could not be removed", { error: messageOf(error) });
    }
  }
}

function newStep(): Step {
  return { services: new Map(), checks: new Map(), kept: [], whys: new Map() };
}
