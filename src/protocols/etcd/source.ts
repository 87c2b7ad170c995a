// The source "etcd": keys of both layouts, read once and then watched; what is known stays while etcd is away.
import type { Clock, Timer } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { messageOf } from "../../base/error.ts";
import { clientTiming } from "../../base/etcd/access.ts";
import { createClient, type EtcdClient } from "../../base/etcd/client.ts";
import { followRange, type RangeBatch, type RangeReading, readRange } from "../../base/etcd/follow.ts";
import { EventType, type KeyValue } from "../../base/etcd/proto.ts";
import type { Log } from "../../base/log.ts";
import { jitter, type Random } from "../../base/random.ts";
import type { Directory, View } from "../../contracts/directory.ts";
import { byPriority, type Prioritised } from "../../contracts/priorities.ts";
import type { Probe } from "../../contracts/probe.ts";
import { lastKnown } from "../../contracts/second-hand.ts";
import type { Source, SourceHealth, SourceList } from "../../contracts/source.ts";
import { healthOf, keysOf } from "../../contracts/source-health.ts";
import { byPlace, reasonsFor, wholeLists } from "../../contracts/whole-list.ts";
import type { Registration } from "../../model/instance.ts";
import type { Reason } from "../../model/reason.ts";
import type { EtcdConfig, Layout } from "./config.ts";
import { type Entry, type Fault, groupOf, readEntry } from "./entries.ts";
import { isOwn, priorityOf, registrationsOf, SOURCE } from "./registrations.ts";

export interface EtcdMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly disk: Pick<Disk, "readBytes">;
  readonly directory: Pick<Directory, "view" | "ready" | "changed">;
  /** This host's node. */
  readonly node: string;
  readonly tcp: Probe | undefined;
}

const RETRY = { firstMs: 500, lastMs: 30_000, share: 0.2 } as const;

/** A key as it stands in etcd. */
interface Standing {
  readonly entry: Entry | Fault;
  /** Another one when the key was removed and written anew. */
  readonly createRevision: number;
}

/** One layout as it stands. */
interface Reading {
  readonly layout: Layout;
  /** Undefined: not read in this life. */
  keys: Map<string, Standing> | undefined;
  /** Of an etcd that was set back or replaced: not in it, and known for a while yet. */
  readonly held: Map<string, Standing>;
  /** Of an earlier life: until it is read, or held for a while because most of it is missing then. */
  restored: readonly Registration[];
  /** "" = it is followed. */
  trouble: string;
}

/** Keys that are known although an etcd that was read does not have them. */
function heldOf({ held, keys, restored }: Reading): ReadonlySet<string> {
  const earlier = keys === undefined ? [] : restored.map(({ foreignId = "" }) => foreignId);
  return new Set([...held.keys(), ...earlier.filter((key) => keys?.has(key) !== true)]);
}

export class EtcdSource implements Source {
  readonly name: string = SOURCE;
  readonly #config: EtcdConfig;
  readonly #machine: EtcdMachine;
  readonly #log: Log;
  readonly #readings: readonly Reading[];
  /** Keys that agents of this directory wrote, with when they were made: theirs as long as they stand. */
  readonly #own = new Map<string, number>();
  /** Keys that stood under a lease, for the reason why they are gone. */
  readonly #leased = new Set<string>();
  #last: ReadonlyMap<string, Registration> = new Map();
  /** Keys that say nothing, in the last list. */
  #faults: readonly Fault[] = [];
  #running = 0;

  constructor(config: EtcdConfig, machine: EtcdMachine) {
    this.#config = config;
    this.#machine = machine;
    this.#log = machine.log.part(SOURCE);
    this.#readings = config.layouts.map((layout) => ({
      ...{ layout, keys: undefined, held: new Map(), restored: [], trouble: "not read yet" },
    }));
  }

  state(): SourceHealth {
    const where = this.#config.access.endpoints.join(", ");
    if (this.#running === 0) return { ok: true, begun: false, text: `${where}: not started` };
    const words = [
      `${this.#last.size} ${this.#last.size === 1 ? "instance" : "instances"}`,
      ...(this.#own.size === 0 ? [] : [`${this.#own.size} of this directory's own left out`]),
    ];
    const counts = `${where}: ${words.join(", ")}`;
    const troubles = new Set(this.#readings.map(({ trouble }) => trouble));
    const [all = ""] = troubles;
    // What is wrong with the whole is said once.
    if (all !== "" && troubles.size === 1 && this.#readings.length > 1) return { ok: false, text: `${counts}; ${all}` };
    return healthOf(
      counts,
      this.#readings.flatMap((one) => {
        const { prefix } = one.layout;
        const held = heldOf(one);
        return [
          {
            ...{ name: prefix, text: one.trouble },
            tells: () => keysOf(this.#last, ({ foreignId }) => foreignId?.startsWith(prefix) === true),
          },
          {
            name: `${prefix} as it was before`,
            text: held.size === 0 ? "" : `${held.size} held although etcd does not have them`,
            tells: () => keysOf(this.#last, ({ foreignId = "" }) => held.has(foreignId)),
          },
        ];
      }),
      this.#faults.map(({ key, fault }) => `${key}: ${fault}`),
    );
  }

  watch(signal: AbortSignal): AsyncIterable<SourceList> {
    const { clock, directory } = this.#machine;
    const begin = async (view: View, ring: () => void, until: AbortSignal): Promise<void> => {
      this.#running++;
      try {
        const known = lastKnown(view, SOURCE, this.#machine.node);
        for (const one of this.#readings)
          if (one.keys === undefined)
            one.restored = known.filter(({ foreignId }) => foreignId?.startsWith(one.layout.prefix));
        await this.#readAll(ring, until);
      } finally {
        this.#running--;
      }
    };
    const compose = (view: View): SourceList => this.#compose(view);
    const earlier = {
      ...{ source: SOURCE, node: this.#machine.node },
      isConfigured: ({ foreignId }: Registration) =>
        this.#readings.some(({ layout: { prefix } }) => foreignId?.startsWith(prefix) === true),
    };
    return wholeLists({ clock, directory, scopes: ["nodes", "services", "checks"], earlier, begin, compose }, signal);
  }

  #compose(view: View): SourceList {
    const { clock, tcp } = this.#machine;
    const list: Registration[] = [];
    const faults: Fault[] = [];
    const standing = new Set<string>();
    for (const { layout, keys, held, restored } of this.#readings) {
      const services = new Map<string, Prioritised[]>();
      const add = (service: string, more: readonly Prioritised[]): void =>
        void services.set(service, [...(services.get(service) ?? []), ...more]);
      for (const registration of restored)
        if (keys?.has(registration.foreignId ?? "") !== true)
          add(registration.name, [{ registration, priority: priorityOf(registration) }]);
      if (keys !== undefined) {
        const entries = new Map<string, Entry[]>();
        for (const [key, { entry, createRevision }] of [...held, ...keys]) {
          standing.add(key);
          if ("fault" in entry) {
            faults.push(entry);
            continue;
          }
          if (this.#own.get(key) === createRevision || isOwn(view, entry)) this.#own.set(key, createRevision);
          else entries.set(entry.service, [...(entries.get(entry.service) ?? []), entry]);
        }
        for (const [service, all] of entries)
          add(service, registrationsOf(layout.kind === "skydns" ? groupOf(all) : all, this.#config, view));
      }
      for (const service of services.values())
        list.push(...byPriority(view, service, { source: SOURCE, tcp, intervalMs: this.#config.checkMs }));
    }
    for (const key of this.#own.keys()) if (!standing.has(key)) this.#own.delete(key);
    const now = byPlace(list);
    const gone = reasonsFor(this.#last, now, ({ foreignId = "" }) => {
      const at = { atMs: clock.now() };
      if (standing.has(foreignId))
        return {
          ...at,
          code: "replaced",
          text: "is known by another way, or says something else now",
          confirmed: true,
        };
      const leased = this.#leased.has(foreignId);
      return {
        ...at,
        ...(leased
          ? { code: "expired", text: `etcd's key ${foreignId} was removed, or its lease ran out` }
          : { code: "missing", text: `etcd's key ${foreignId} was removed` }),
        confirmed: false,
      } satisfies Reason;
    });
    for (const key of this.#leased) if (!standing.has(key)) this.#leased.delete(key);
    this.#last = now;
    this.#faults = faults;
    return {
      list: [...now.values()],
      authority: "second-hand",
      complaints: faults.map(({ key, fault }) => ({ about: key, text: fault })),
      ...(gone.size > 0 ? { gone } : {}),
    };
  }

  async #readAll(changed: () => void, signal: AbortSignal): Promise<void> {
    const { clock, disk } = this.#machine;
    const client = await this.#again(
      "",
      signal,
      () => createClient(this.#config.access, { clock, disk }, clientTiming),
      changed,
    );
    if (client === undefined) return;
    try {
      await Promise.all(this.#readings.map((one) => this.#read(one, client, changed, signal)));
    } finally {
      client.close();
    }
  }

  /** Tries until it succeeds; undefined where the signal came first. `about`: the layout's prefix, "" = all. */
  async #again<T>(
    about: string,
    signal: AbortSignal,
    work: () => Promise<T>,
    changed: () => void,
  ): Promise<T | undefined> {
    const { clock, random } = this.#machine;
    for (let failures = 0; !signal.aborted; failures++)
      try {
        return await work();
      } catch (error) {
        if (signal.aborted) return undefined;
        const text = messageOf(error);
        if (failures === 0)
          this.#log.warn(`${about === "" ? "etcd" : about} cannot be read: what is known stays`, { error: text });
        for (const one of this.#readings)
          if (about === "" || one.layout.prefix === about) one.trouble = `cannot be read, what is known stays: ${text}`;
        changed();
        const waitMs = Math.min(RETRY.lastMs, RETRY.firstMs * 2 ** Math.min(failures, 10));
        await clock.sleep(jitter(waitMs, RETRY.share, random), signal).catch(() => {});
      }
    return undefined;
  }

  async #read(one: Reading, client: EtcdClient, changed: () => void, signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#machine;
    const { prefix } = one.layout;
    const from = Buffer.from(prefix);
    const to = Buffer.from(from);
    // The key behind the last one that begins with the prefix: "/" becomes "0".
    to[to.length - 1] = (to.at(-1) as number) + 1;
    const range: RangeReading = { client, from, to, probe: from, clock, random, log: this.#log, timing: clientTiming };
    const holding = new Set<Timer>();
    let whole = new Map<string, Standing>();
    const take = (batch: RangeBatch): void => {
      if (batch.kind === "reachable") {
        one.trouble = batch.reachable
          ? ""
          : `cannot be followed, what is known stays: ${batch.why ?? "no member can be watched"}`;
      } else if (batch.kind === "whole") {
        for (const kv of batch.kvs) put(whole, kv);
        if (!batch.complete) return;
        if (batch.replaced === true) this.#hold(one, whole, holding, changed);
        if (one.keys === undefined) this.#settle(one, whole, holding, changed);
        one.keys = whole;
        one.trouble = "";
        whole = new Map();
      } else
        for (const { type, kv } of batch.events) {
          // Everything was read before anything is watched.
          const keys = one.keys as Map<string, Standing>;
          if (type === EventType.put) put(keys, kv);
          else keys.delete(kv.key.toString());
        }
      changed();
    };
    const put = (keys: Map<string, Standing>, kv: KeyValue): void => {
      const key = kv.key.toString();
      one.held.delete(key);
      const entry = readEntry(one.layout, key, kv.value.toString());
      if (kv.lease !== 0) this.#leased.add(key);
      else this.#leased.delete(key);
      if (entry === undefined) keys.delete(key);
      else keys.set(key, { entry, createRevision: kv.createRevision });
    };
    // The timers of what is held since an earlier reading ended with that.
    if (one.held.size > 0) this.#holdFor(one, [...one.held], holding, changed);
    if (one.keys !== undefined && one.restored.length > 0) this.#holdFor(one, [], holding, changed);
    try {
      const revision = await this.#again(
        prefix,
        signal,
        async () => {
          whole = new Map();
          let at = 0;
          for await (const part of readRange(range, signal)) {
            at = part.revision;
            take(part);
          }
          return at;
        },
        changed,
      );
      if (revision === undefined) return;
      for await (const batch of followRange(range, revision, signal)) take(batch);
    } finally {
      for (const timer of holding) timer.cancel();
    }
  }

  /** What an earlier life knew and is not there now is gone; where that is most of it, this may be another etcd, or one that was emptied. */
  #settle(one: Reading, now: ReadonlyMap<string, Standing>, holding: Set<Timer>, changed: () => void): void {
    const missing = one.restored.filter(({ foreignId = "" }) => !now.has(foreignId));
    const most = missing.length * 2 > one.restored.length;
    one.restored = most ? missing : [];
    if (!most) return;
    this.#log.warn("etcd has little of what was known before: the rest is held", { keys: missing.length });
    this.#holdFor(one, [], holding, changed);
  }

  /** What another etcd in the place of the old one does not have may come again: its writers find out only after a while. */
  #hold(one: Reading, now: ReadonlyMap<string, Standing>, holding: Set<Timer>, changed: () => void): void {
    const missing = [...(one.keys ?? []), ...one.held].filter(([key]) => !now.has(key));
    if (missing.length === 0) return;
    this.#log.warn("etcd was set back or replaced: what it does not have is held", { keys: missing.length });
    for (const [key, standing] of missing) one.held.set(key, standing);
    this.#holdFor(one, missing, holding, changed);
  }

  /** Ends, after its time, the hold of these keys, or where there are none that of what an earlier life knew. */
  #holdFor(
    one: Reading,
    missing: readonly (readonly [string, Standing])[],
    holding: Set<Timer>,
    changed: () => void,
  ): void {
    const timer = this.#machine.clock.after(this.#config.holdMs, () => {
      holding.delete(timer);
      if (missing.length === 0) one.restored = [];
      // What came back since and went missing once more is held for its own time.
      for (const [key, standing] of missing) if (one.held.get(key) === standing) one.held.delete(key);
      changed();
    });
    holding.add(timer);
  }
}
