// This host's list in memory: services and checks, with what each change does to them, to their durable copy and to the directory.
import type { Clock } from "../base/clock.ts";
import { messageOf, TrilithError, wrap } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { SourceList } from "../contracts/source.ts";
import type { CheckSpec } from "../model/check.ts";
import type { Registration } from "../model/instance.ts";
import type { Authority, Reason } from "../model/reason.ts";
import { type Aliases, aliasDetail } from "./alias.ts";
import { type Carrier, type Ref, RefusedError } from "./carry.ts";
import type { HostList, KeptCheck, KeptService } from "./host-list.ts";
import { Notes } from "./notes.ts";
import { type Held, mayTake } from "./owners.ts";
import { same, whoIs } from "./reconcile.ts";
import { CheckRecord, checkOf, instanceOf, isMaintenance, isRefusal, ServiceRecord } from "./records.ts";
import type { Standing } from "./standing.ts";
import { Version } from "./version.ts";

export interface Complaint {
  readonly about: string;
  readonly text: string;
}

/** What is known of a source. */
export interface SourceState {
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
export interface Step {
  readonly services: Map<string, { before: ServiceRecord | undefined; after: ServiceRecord | undefined }>;
  readonly checks: Map<string, { before: CheckRecord | undefined; after: CheckRecord | undefined }>;
  readonly kept: Promise<void>[];
  readonly whys: Map<string, Reason>;
}

/** A step in which nothing has changed yet. */
export function newStep(): Step {
  return { services: new Map(), checks: new Map(), kept: [], whys: new Map() };
}

export interface ListingOptions {
  /** This host's node. */
  readonly node: string;
  /** The id of the agent's own service. */
  readonly selfServiceId: string | undefined;
  /** True where the directory's store is elsewhere. */
  readonly shared: boolean;
  readonly clock: Clock;
  readonly log: Log;
  readonly list: HostList;
  /** True once the agent carries the list to the directory. */
  readonly started: () => boolean;
  /** Aborted when the agent stops. */
  readonly signal: AbortSignal;
}

/** What a change of the list sets going. */
export interface Clockwork {
  readonly carrier: Pick<Carrier, "touch" | "settled">;
  readonly standing: Pick<Standing, "begin" | "end" | "kept" | "statusChanged" | "ttlLeftMs">;
  readonly aliases: Pick<Aliases, "begin" | "changed" | "end" | "outcome">;
}

/** Changes of services and checks are made in steps, and made to last by `commit`. */
export class Listing {
  readonly services: Map<string, ServiceRecord> = new Map();
  readonly checks: Map<string, CheckRecord> = new Map();
  /** Ids of the checks of each service; "" = of the node. */
  readonly checksOf: Map<string, Set<string>> = new Map();
  /** Why the services drain that were told to. */
  readonly draining: Map<string, Reason> = new Map();
  /** What callers registered and an override hides, by id. */
  readonly hidden: Map<string, KeptService> = new Map();
  readonly sources: Map<string, SourceState> = new Map();
  readonly ownComplaints: Map<string, { readonly from: string; readonly about: string; readonly text: string }> =
    new Map();
  readonly notes: Notes = new Notes();
  readonly version: Version = new Version();
  readonly #options: ListingOptions;
  #joined: Clockwork | undefined;
  /** Steps that are not yet durable. */
  readonly #underWay = new Set<Step>();
  /** Checks in steps that are not yet durable: how the last such step of each ends. */
  readonly #arriving = new Map<string, Promise<void>>();

  constructor(options: ListingOptions) {
    this.#options = options;
  }

  /** Says what changes set going; before the first change. */
  join(clockwork: Clockwork): void {
    this.#joined = clockwork;
  }

  get #clockwork(): Clockwork {
    if (this.#joined === undefined) throw new TrilithError("internal", "the list changes before it is joined");
    return this.#joined;
  }

  source(from: string): SourceState {
    let source = this.sources.get(from);
    if (source === undefined) {
      source = {
        last: new Map(),
        whole: undefined,
        blocked: new Set(),
        complaints: [],
        next: undefined,
        busy: false,
      };
      this.sources.set(from, source);
    }
    return source;
  }

  held(): Held {
    return {
      node: this.#options.node,
      selfServiceId: this.#options.selfServiceId,
      services: this.services,
      checks: this.checks,
    };
  }

  mustHold(checkId: string): CheckRecord {
    const held = this.checks.get(checkId);
    if (held === undefined)
      throw new TrilithError(
        "not-found",
        `Unknown check ID ${JSON.stringify(checkId)}. Ensure that the check ID is passed, not the check name.`,
      );
    return held;
  }

  serviceRecord(from: string, authority: Authority, r: Registration, tags: readonly string[] = r.tags): ServiceRecord {
    const now = { tags, draining: this.draining.has(r.id) };
    return new ServiceRecord(from, r, instanceOf(this.#options.node, from, authority, r, now), []);
  }

  withChecks(record: ServiceRecord): ServiceRecord {
    const ids = this.checksOf.get(record.instance.id) ?? [];
    const specs = [...ids].flatMap((id) => this.checks.get(id)?.spec ?? []);
    return new ServiceRecord(record.from, record.registration, record.instance, specs);
  }

  /** Holds a service in its new form. Nothing happens where nothing differs. */
  putService(
    step: Step,
    from: string,
    authority: Authority,
    r: Registration,
    replaceChecks: boolean,
    stood: readonly CheckRecord[] = [],
  ): void {
    const held = this.services.get(r.id);
    if (held !== undefined && held.from !== from) {
      this.note(held.instance.name, r.id, `is taken over by ${from} (${whoIs(r)}) from ${held.from}`);
      const loser = this.sources.get(held.from);
      loser?.last.delete(r.id);
      loser?.blocked.add(r.id);
    }
    // Another container or process under the same id is not on its way out because the one before was.
    const was = held?.registration.foreignId;
    if (was !== undefined && r.foreignId !== undefined && was !== r.foreignId) this.draining.delete(r.id);
    const before = [...(this.checksOf.get(r.id) ?? [])].join("\0");
    const named = new Set(r.checks.map((spec) => spec.id));
    for (const id of [...(this.checksOf.get(r.id) ?? [])]) {
      const owner = this.checks.get(id)?.from ?? "";
      // Who takes a service over does not take over how its former owner had it checked.
      const goes = (owner !== from && owner === held?.from) || (replaceChecks && mayTake(from, owner));
      if (!named.has(id) && goes && !isMaintenance(id)) this.setCheck(step, id, undefined);
    }
    const unchanged =
      held !== undefined && held.from === from && held.authority === authority && same(held.registration, r);
    if (!unchanged) {
      const tags = held?.registration.enableTagOverride === true ? held.instance.tags : r.tags;
      this.setService(step, r.id, this.serviceRecord(from, authority, r, tags));
      if (held === undefined) this.note(r.name, r.id, `was registered by ${from}: ${whoIs(r)}`);
      else if ((held.registration.draining ?? false) !== (r.draining ?? false))
        this.note(r.name, r.id, r.draining === true ? `is draining, says ${from}` : `is routable again, says ${from}`);
      else if (held.instance.name !== r.name) {
        this.note(held.instance.name, r.id, `is now called "${r.name}"`);
        this.note(r.name, r.id, `was called "${held.instance.name}" before`);
      } else if (held.from === from) this.note(r.name, r.id, `was changed by ${from}: ${whoIs(r)}`);
    }
    r.checks.forEach((spec, i) => {
      const like = stood[i];
      const state =
        like !== undefined && like.spec.kind === spec.kind && same(like.spec.detail, spec.detail) ? like : undefined;
      this.putCheck(step, from, authority, spec, r.id, state);
    });
    const after = this.services.get(r.id);
    if (after !== undefined && (!unchanged || before !== [...(this.checksOf.get(r.id) ?? [])].join("\0")))
      this.services.set(r.id, this.withChecks(after));
    const entry = step.services.get(r.id);
    if (entry !== undefined) entry.after = this.services.get(r.id);
  }

  removeService(step: Step, id: string, why: Reason): void {
    const held = this.services.get(id);
    if (held === undefined) return;
    for (const checkId of [...(this.checksOf.get(id) ?? [])]) this.setCheck(step, checkId, undefined);
    step.whys.set(id, why);
    this.draining.delete(id);
    this.setService(step, id, undefined);
    this.note(held.instance.name, id, `went (${why.code}): ${why.text}`);
  }

  /** Holds a check in its new form; how it stood stays, so that registering again does not flap. */
  putCheck(
    step: Step,
    from: string,
    authority: Authority,
    spec: CheckSpec,
    serviceId: string,
    stood?: CheckRecord,
  ): void {
    const held = this.checks.get(spec.id);
    if (held !== undefined && held.from === from && held.serviceId === serviceId && same(held.spec, spec)) return;
    const state = held ?? stood;
    // What the agent itself set up stands as it says; everything else stands as it stood.
    const fixed = isMaintenance(spec.id) || isRefusal(spec);
    const stands =
      spec.kind === "alias"
        ? this.#clockwork.aliases.outcome(spec.id, aliasDetail(spec.detail))
        : {
            status: fixed ? "critical" : (state?.check.status ?? spec.initial ?? "critical"),
            output: isRefusal(spec) ? spec.notes : (state?.check.output ?? ""),
          };
    const check = checkOf(this.#options.node, from, authority, spec, serviceId, stands);
    this.setCheck(step, spec.id, new CheckRecord(from, check, spec, held));
  }

  setService(step: Step, id: string, after: ServiceRecord | undefined): void {
    const before = this.services.get(id);
    const known = step.services.get(id);
    if (known === undefined) step.services.set(id, { before, after });
    else known.after = after;
    if (after === undefined) this.services.delete(id);
    else this.services.set(id, after);
    if ((before === undefined) !== (after === undefined)) this.#clockwork.aliases.changed(id);
    this.ownComplaints.delete(`refused\0service\0${id}`);
    step.kept.push(this.#options.list.service(id, after === undefined ? undefined : this.keptService(after)));
  }

  keptService({ from, authority, registration, instance }: ServiceRecord): KeptService {
    const why = this.draining.get(instance.id);
    return {
      from,
      authority,
      registration,
      ...(registration.enableTagOverride === true ? { tags: instance.tags } : {}),
      // Who sees a stop signal or the like tells it afresh after each start; what somebody asked for nobody says again.
      ...(why !== undefined && (why.code === "draining" || why.code === "maintenance") ? { draining: why } : {}),
    };
  }

  keptCheck({ from, serviceId, spec, check }: CheckRecord): KeptCheck {
    const leftMs = this.#clockwork.standing.ttlLeftMs(spec.id);
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
  keepCheck(id: string): void {
    this.#clockwork.standing.kept(id);
    const held = this.checks.get(id);
    if (held === undefined) return;
    this.#options.list.check(id, this.keptCheck(held)).catch((error: unknown) => {
      this.#options.log.error(`the time of check "${id}" could not be kept`, { error: messageOf(error) });
    });
  }

  setCheck(step: Step, id: string, after: CheckRecord | undefined): void {
    const before = this.checks.get(id);
    const known = step.checks.get(id);
    if (known === undefined) step.checks.set(id, { before, after });
    else known.after = after;
    if (before?.spec !== after?.spec)
      for (const kind of ["refused\0check", "unaskable"]) this.ownComplaints.delete(`${kind}\0${id}`);
    if (after === undefined) {
      this.checks.delete(id);
      this.unindex(id, before?.serviceId ?? "");
      this.#clockwork.standing.end(id);
      this.#clockwork.aliases.end(id);
    } else {
      if (before !== undefined && before.serviceId !== after.serviceId) this.unindex(id, before.serviceId);
      this.checks.set(id, after);
      this.index(id, after.serviceId);
      if (before === undefined || before.spec !== after.spec) this.begin(after);
      else if (before.check.status !== after.check.status) this.#clockwork.standing.statusChanged(after);
    }
    for (const owner of new Set([before?.serviceId, after?.serviceId]))
      if (owner !== undefined) this.#clockwork.aliases.changed(owner);
    // An output that changed alone is not worth a write to the disk.
    const worthKeeping =
      before === undefined ||
      after === undefined ||
      before.spec !== after.spec ||
      before.from !== after.from ||
      before.check.status !== after.check.status ||
      before.serviceId !== after.serviceId;
    if (worthKeeping) {
      this.#clockwork.standing.kept(id);
      step.kept.push(this.#options.list.check(id, after === undefined ? undefined : this.keptCheck(after)));
    }
    const owners = new Set([before?.serviceId, after?.serviceId]);
    for (const owner of owners) {
      const service = owner === undefined ? undefined : this.services.get(owner);
      if (service !== undefined && before?.spec !== after?.spec)
        this.services.set(service.instance.id, this.withChecks(service));
    }
  }

  /** Starts the clockwork of a check, anew where it ran in another form. */
  begin(record: CheckRecord, ttlLeftMs?: number): void {
    this.#clockwork.standing.begin(record, ttlLeftMs);
    if (record.spec.kind === "alias") this.#clockwork.aliases.begin(record);
    else this.#clockwork.aliases.end(record.spec.id);
  }

  index(id: string, serviceId: string): void {
    const ids = this.checksOf.get(serviceId);
    if (ids === undefined) this.checksOf.set(serviceId, new Set([id]));
    else ids.add(id);
  }

  unindex(id: string, serviceId: string): void {
    const ids = this.checksOf.get(serviceId);
    ids?.delete(id);
    if (ids?.size === 0) this.checksOf.delete(serviceId);
  }

  /**
   * Makes a change last: resolves when this host's list is durable and an embedded directory has it. What fails is undone and thrown;
   * with `leaveOut`, services that the directory refuses for good are undone alone and told.
   */
  async commit(step: Step, doing: string, leaveOut?: (serviceId: string, text: string) => void): Promise<void> {
    const ended = this.#commit(step, doing, leaveOut);
    for (const id of step.checks.keys()) this.#arriving.set(id, ended);
    try {
      await ended;
    } finally {
      for (const id of step.checks.keys()) if (this.#arriving.get(id) === ended) this.#arriving.delete(id);
    }
  }

  /** As `commit` of the last change of this check; nothing where that is over. For who wanted the same and changed nothing. */
  arrived(checkId: string): Promise<void> | undefined {
    return this.#arriving.get(checkId);
  }

  async #commit(step: Step, doing: string, leaveOut?: (serviceId: string, text: string) => void): Promise<void> {
    if (step.services.size === 0 && step.checks.size === 0) {
      // The same may just be on its way for somebody else: what is acknowledged must be durable.
      await this.#options.list.settled();
      if (!this.#options.shared) await this.#clockwork.carrier.settled();
      return;
    }
    this.version.grow();
    const carried: Promise<void>[] = [];
    const plain: Ref[] = [...step.checks.keys()].map((id) => ({ table: "check", id }));
    for (const id of step.services.keys()) {
      const why = step.whys.get(id);
      if (why === undefined || this.services.has(id)) plain.push({ table: "service", id });
      else carried.push(this.#clockwork.carrier.touch([{ table: "service", id }], why));
    }
    carried.push(this.#clockwork.carrier.touch(plain));
    // Before the start nothing is carried; the start itself carries it.
    const waitFor = !this.#options.started() ? [] : carried;
    for (const promise of carried) promise.catch(() => {});
    this.#underWay.add(step);
    const outcomes = await Promise.allSettled([...step.kept, ...waitFor]);
    this.#underWay.delete(step);
    const failed = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reason as unknown);
    const worst = failed.find((reason) => !(reason instanceof RefusedError)) ?? failed[0];
    if (worst === undefined) return;
    if (this.#options.signal.aborted) throw this.#options.signal.reason;
    if (worst instanceof RefusedError && leaveOut !== undefined) {
      const ids = new Set<string>();
      for (const reason of failed)
        for (const ref of (reason as RefusedError).refs) {
          const serviceId =
            ref.table === "service"
              ? ref.id
              : (step.checks.get(ref.id)?.after?.serviceId ?? this.checks.get(ref.id)?.serviceId);
          if (serviceId !== undefined) ids.add(serviceId);
        }
      for (const id of ids) leaveOut(id, worst.message);
      this.undo(step, (serviceId) => ids.has(serviceId));
      return;
    }
    this.undo(step, () => true);
    throw wrap(worst, doing);
  }

  /** Puts back how services and their checks stood before a step, unless somebody changed them since. */
  undo(step: Step, concerned: (serviceId: string) => boolean): void {
    const back = newStep();
    for (const [id, { before, after }] of step.services) {
      if (!concerned(id)) continue;
      // Who built upon what is undone now would go back to it.
      for (const { services } of this.#underWay) {
        const later = services.get(id);
        if (later?.before !== undefined && later.before.registration === after?.registration) later.before = before;
      }
      if (this.services.get(id)?.registration !== after?.registration) continue;
      this.setService(back, id, before);
      if (before === undefined) this.draining.delete(id);
      else if (before.from !== "api") {
        // Its source has it again.
        const source = this.source(before.from);
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
      if (this.checks.get(id)?.spec === after?.spec) this.setCheck(back, id, before);
    }
    for (const id of back.services.keys()) {
      const service = this.services.get(id);
      if (service !== undefined) this.services.set(id, this.withChecks(service));
    }
    this.version.grow();
    for (const promise of back.kept)
      promise.catch((error: unknown) => {
        this.#options.log.error("this host's list on disk is behind", { error: messageOf(error) });
      });
    this.touch([
      ...[...back.services.keys()].map((id): Ref => ({ table: "service", id })),
      ...[...back.checks.keys()].map((id): Ref => ({ table: "check", id })),
    ]);
  }

  /** Has records carried without waiting; the carrier tries again and tells what fails. */
  touch(refs: readonly Ref[]): void {
    this.#clockwork.carrier.touch(refs).catch(() => {});
  }

  note(service: string, id: string, text: string): void {
    this.notes.add(service, { atMs: this.#options.clock.now(), id, text });
  }
}
