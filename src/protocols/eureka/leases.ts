// The source "eureka": every instance whose client keeps its lease by heartbeats, listed on the node where it says it runs.
import type { Clock, Timer } from "../../base/clock.ts";
import { codeOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Agent } from "../../contracts/agent.ts";
import type { Directory } from "../../contracts/directory.ts";
import type { Source, SourceList } from "../../contracts/source.ts";
import type { CheckSpec, Status } from "../../model/check.ts";
import { goneKeyOf, type Instance, type Registration } from "../../model/instance.ts";
import type { Reason } from "../../model/reason.ts";
import { keyOf } from "../../model/record.ts";
import { type EurekaStatus, type InstanceInfo, instanceFromJson } from "./instance.ts";

/** Under this name the instance stands in `Instance.foreign` as it was told. */
export const FOREIGN = "Eureka";
const SOURCE = "eureka";
/** The name of the check that carries the status. */
const CHECK_NAME = "Eureka status";

const OWN_ADDRESSES_MS = 1000;

/** One instance with its lease. */
export interface Lease {
  readonly info: InstanceInfo;
  /** A status that somebody set over the client's own. */
  readonly override: EurekaStatus | undefined;
  readonly registeredAtMs: number;
  readonly renewedAtMs: number;
  /** When the status or the facts changed last. */
  readonly changedAtMs: number;
}

/** What stands in `foreign`: enough to go on after a restart. */
export interface Kept {
  readonly instance: InstanceInfo["told"];
  readonly override?: EurekaStatus;
  readonly registeredAtMs: number;
  readonly changedAtMs: number;
}

export interface LeasesMachine {
  readonly clock: Clock;
  readonly log: Log;
  readonly directory: Pick<Directory, "view" | "ready">;
  readonly agent: Pick<Agent, "node" | "services" | "report">;
  /** The addresses of this host: what runs here is this host's own. */
  readonly ownAddresses: () => readonly string[];
}

const keyOfLease = (app: string, id: string): string => `${app.toUpperCase()}/${id}`;

/** What an instance is called on its node. */
const serviceIdOf = ({ app, id }: Pick<InstanceInfo, "app" | "id">): string => `${SOURCE}:${app.toLowerCase()}:${id}`;

const HEALTH: Readonly<Record<EurekaStatus, Status>> = {
  UP: "passing",
  // Taken out by hand, not ill: it drains.
  OUT_OF_SERVICE: "passing",
  STARTING: "critical",
  DOWN: "critical",
  UNKNOWN: "critical",
};

/** The status that counts. */
const effective = ({ override, info }: Pick<Lease, "override" | "info">): EurekaStatus => override ?? info.status;

export class Leases implements Source {
  readonly name: string = SOURCE;
  readonly #machine: LeasesMachine;
  readonly #leases = new Map<string, Lease & { readonly endsAt: number }>();
  readonly #gone = new Map<string, Reason>();
  #changed = false;
  #wake: (() => void) | undefined;
  /** What the checks of this host's own instances were last told, by service id. */
  readonly #reported = new Map<string, string>();
  #own: { readonly addresses: ReadonlySet<string>; readonly at: number } | undefined;
  #restored = false;

  constructor(machine: LeasesMachine) {
    this.#machine = machine;
  }

  state(): { readonly ok: boolean; readonly text: string } {
    const { size } = this.#leases;
    return {
      ok: true,
      text:
        size === 0 ? "nobody has registered" : `${size} ${size === 1 ? "instance sends" : "instances send"} heartbeats`,
    };
  }

  get(app: string, id: string): Lease | undefined {
    return this.#leases.get(keyOfLease(app, id));
  }

  register(info: InstanceInfo): void {
    const known = this.get(info.app, info.id);
    const now = this.#machine.clock.now();
    // An older statement than the one that stands changes nothing but the lease [AbstractInstanceRegistry.register].
    if (known !== undefined && known.info.lastDirtyMs > info.lastDirtyMs && info.lastDirtyMs > 0) {
      this.#put(known, known);
      return;
    }
    const told = info.told["overriddenstatus"];
    // A client repeats the override that it was told last; an agent that lost its memory learns it so.
    const override =
      known?.override ?? (told === "OUT_OF_SERVICE" || told === "DOWN" || told === "UP" ? told : undefined);
    this.#put(
      { info, override, registeredAtMs: known?.registeredAtMs ?? now, renewedAtMs: now, changedAtMs: now },
      known,
    );
  }

  /** @throws TrilithError `not-found`: the client has to register */
  renew(app: string, id: string, status: EurekaStatus | undefined, lastDirtyMs: number): void {
    const lease = this.#find(app, id);
    // The client has news that were not told here [InstanceResource.validateDirtyTimestamp].
    if (lastDirtyMs > lease.info.lastDirtyMs && lease.info.lastDirtyMs > 0)
      throw new TrilithError("not-found", `${app}/${id} has changed since it was registered here: register it again`);
    const changed = status !== undefined && status !== "UNKNOWN" && status !== lease.info.status;
    this.#put(
      changed ? { ...lease, info: { ...lease.info, status }, changedAtMs: this.#machine.clock.now() } : lease,
      lease,
    );
  }

  /** Sets a status over the client's own; undefined takes it back, to `fallback`. @throws TrilithError `not-found` */
  setOverride(app: string, id: string, override: EurekaStatus | undefined, fallback?: EurekaStatus): void {
    const lease = this.#find(app, id);
    const info = override === undefined && fallback !== undefined ? { ...lease.info, status: fallback } : lease.info;
    this.#put({ ...lease, info, override, changedAtMs: this.#machine.clock.now() }, lease);
  }

  /** Adds pairs to the metadata. @throws TrilithError `not-found` */
  addMetadata(app: string, id: string, pairs: Readonly<Record<string, string>>): void {
    const lease = this.#find(app, id);
    const metadata = Object.assign(Object.create(null), lease.info.metadata, pairs) as Record<string, string>;
    const told = Object.assign(Object.create(null), lease.info.told, { metadata }) as InstanceInfo["told"];
    this.#put({ ...lease, info: { ...lease.info, metadata, told }, changedAtMs: this.#machine.clock.now() }, lease);
  }

  /** The client says that it goes. @throws TrilithError `not-found` */
  cancel(app: string, id: string): void {
    const lease = this.#find(app, id);
    this.#drop(lease, { code: "goodbye", text: `${lease.info.id} cancelled its lease`, confirmed: true });
  }

  async *watch(signal: AbortSignal): AsyncIterable<SourceList> {
    const stop = (): void => this.#wake?.();
    signal.addEventListener("abort", stop, { once: true });
    try {
      if (!this.#restored) {
        await this.#machine.directory.ready(signal);
        this.#restored = true;
        this.#restore();
      }
      this.#changed = true;
      while (!signal.aborted) {
        if (this.#changed) {
          this.#changed = false;
          const gone = new Map(this.#gone);
          const list = [...this.#leases.values()].map((lease) => this.#registrationOf(lease));
          yield { list, authority: "second-hand", ...(gone.size > 0 ? { gone } : {}) };
          // Who asks for more has taken it over; else it is told again.
          for (const [key, why] of gone) if (this.#gone.get(key) === why) this.#gone.delete(key);
          await this.#report();
          continue;
        }
        let timer: Timer | undefined;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          if (this.#changed || signal.aborted) return resolve();
          const next = this.#nextEnd();
          if (next !== undefined)
            timer = this.#machine.clock.after(Math.max(0, next - this.#machine.clock.monotonic()), resolve);
        });
        this.#wake = undefined;
        timer?.cancel();
        if (!signal.aborted) this.#expire();
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  #find(app: string, id: string): Lease {
    const lease = this.get(app, id);
    if (lease === undefined) throw new TrilithError("not-found", `no instance ${id} of ${app} is registered here`);
    return lease;
  }

  /** A heartbeat alone rings no bell. */
  #put(lease: Lease, known: Lease | undefined): void {
    const { clock } = this.#machine;
    const fresh = { ...lease, renewedAtMs: clock.now(), endsAt: clock.monotonic() + lease.info.leaseMs };
    this.#leases.set(keyOfLease(lease.info.app, lease.info.id), fresh);
    const registration = this.#registrationOf(fresh);
    const before = known === undefined ? undefined : this.#registrationOf(known);
    this.#gone.delete(goneKeyOf(registration));
    if (before !== undefined && goneKeyOf(before) !== goneKeyOf(registration))
      this.#gone.set(goneKeyOf(before), {
        code: "replaced",
        text: `${lease.info.id} is at another host now`,
        confirmed: true,
        atMs: clock.now(),
      });
    if (lease !== known) this.#ring();
  }

  #drop({ info, ...rest }: Lease, why: Omit<Reason, "atMs">): void {
    this.#leases.delete(keyOfLease(info.app, info.id));
    this.#reported.delete(serviceIdOf(info));
    this.#gone.set(goneKeyOf(this.#registrationOf({ info, ...rest })), { ...why, atMs: this.#machine.clock.now() });
    this.#ring();
  }

  #ring(): void {
    this.#changed = true;
    this.#wake?.();
  }

  #nextEnd(): number | undefined {
    let next: number | undefined;
    for (const { endsAt } of this.#leases.values()) if (next === undefined || endsAt < next) next = endsAt;
    return next;
  }

  #expire(): void {
    const now = this.#machine.clock.monotonic();
    for (const lease of this.#leases.values())
      if (lease.endsAt <= now) {
        const text = `${lease.info.id} of ${lease.info.app} sent no heartbeat for ${lease.info.leaseMs / 1000} s`;
        this.#machine.log.info(text);
        // Silence: with many at once it is rather the network, and the guard decides.
        this.#drop(lease, { code: "expired", text, confirmed: false });
      }
  }

  /** Looked at anew once a second: a list of thousands asks for each. */
  #ownAddresses(): ReadonlySet<string> {
    const { clock, ownAddresses } = this.#machine;
    const at = clock.monotonic();
    if (this.#own === undefined || at - this.#own.at > OWN_ADDRESSES_MS)
      this.#own = { addresses: new Set(ownAddresses()), at };
    return this.#own.addresses;
  }

  /** Where it runs: on this host, or on a node of its own that every agent names alike. */
  #external({ hostName, ipAddr }: InstanceInfo): Registration["external"] {
    const { agent, directory } = this.#machine;
    const own = hostName.toLowerCase() === agent.node.name.toLowerCase();
    if (own || ipAddr === agent.node.address || this.#ownAddresses().has(ipAddr)) return undefined;
    const known = directory.view().get("node", keyOf.node(hostName));
    // An agent lives on that host; its node is not ours to write.
    const name = known === undefined || known.external === true ? hostName : `${hostName}-${SOURCE}`;
    return { node: { name, address: ipAddr } };
  }

  #registrationOf(lease: Lease): Registration {
    const { info, override } = lease;
    const external = this.#external(info);
    const status = effective(lease);
    const kept: Kept = {
      instance: info.status === info.told["status"] ? info.told : { ...info.told, status: info.status },
      ...(override === undefined ? {} : { override }),
      registeredAtMs: lease.registeredAtMs,
      changedAtMs: lease.changedAtMs,
    };
    const id = serviceIdOf(info);
    const check: CheckSpec = {
      id: `${SOURCE}-status:${id}`,
      name: CHECK_NAME,
      notes: `status ${status}${override === undefined ? "" : `, set over the client's ${info.status}`}`,
      kind: "none",
      detail: {},
      intervalMs: 0,
      timeoutMs: 0,
      initial: HEALTH[status],
    };
    return {
      id,
      name: info.app.toLowerCase(),
      tags: info.secure ? ["secure"] : [],
      labels: info.metadata,
      address: external === undefined && info.ipAddr !== this.#machine.agent.node.address ? info.ipAddr : "",
      port: info.port,
      ...(status === "OUT_OF_SERVICE" ? { draining: true } : {}),
      foreign: { [FOREIGN]: kept },
      checks: [check],
      foreignId: keyOfLease(info.app, info.id),
      text: `${info.app} ${info.id}, by heartbeats as in Eureka`,
      // What runs here says itself whether it is there, and is this host's to tell others.
      ...(external === undefined ? { authority: "first-hand" as const } : { external }),
    };
  }

  /** Of instances on external nodes the directory takes the status from the list; this host's own checks are told. */
  async #report(): Promise<void> {
    for (const lease of this.#leases.values()) {
      const { id, checks, external } = this.#registrationOf(lease);
      const [check] = checks;
      if (external !== undefined || check === undefined || this.#reported.get(id) === check.notes) continue;
      this.#reported.set(id, check.notes);
      try {
        await this.#machine.agent.report(check.id, { status: check.initial ?? "critical", output: check.notes });
      } catch (error) {
        // Refused or taken by somebody else; the agent's complaints say why.
        if (codeOf(error) !== "not-found") throw error;
        this.#reported.delete(id);
      }
    }
  }

  /** What an earlier life of this agent held: its clients go on with heartbeats, and have a whole lease for the first one. */
  #restore(): void {
    const { directory, agent, log } = this.#machine;
    const view = directory.view();
    const own = agent.node.name.toLowerCase();
    const restore = (instance: Instance | undefined): void => {
      const kept = instance?.foreign?.[FOREIGN] as Kept | undefined;
      if (instance === undefined || kept === undefined) return;
      try {
        const app = String(kept.instance["app"] ?? instance.name);
        const info = instanceFromJson(JSON.stringify({ instance: kept.instance }), app);
        if (this.get(info.app, info.id) !== undefined) return;
        const { registeredAtMs, changedAtMs, override } = kept;
        const lease = { info, override, registeredAtMs, changedAtMs, renewedAtMs: 0 };
        this.#put(lease, lease);
      } catch (error) {
        if (codeOf(error) !== "invalid") throw error;
        log.warn(`instance ${instance.id} cannot be read any more and is dropped`, { error: String(error) });
      }
    };
    for (const { instance } of agent.services().values()) if (instance.origin.source === SOURCE) restore(instance);
    for (const node of view.list("node"))
      for (const { service, source, by } of node.witnessed ?? [])
        if (source === SOURCE && by.some((name) => name.toLowerCase() === own))
          restore(view.get("service", keyOf.service(node.name, service)));
  }
}
