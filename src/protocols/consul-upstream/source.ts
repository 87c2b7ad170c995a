// The source "consul-upstream": what Consuls elsewhere tell, on external nodes; what is known stays while they are away.
import type { Clock, Timer } from "../../base/clock.ts";
import { messageOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Servers } from "../../base/servers.ts";
import type { Directory, View } from "../../contracts/directory.ts";
import { lastKnown } from "../../contracts/second-hand.ts";
import type { Source, SourceEntry, SourceHealth, SourceList } from "../../contracts/source.ts";
import { healthOf, keysOf, toldBy } from "../../contracts/source-health.ts";
import { byPlace, reasonsFor, wholeLists } from "../../contracts/whole-list.ts";
import { goneKeyOf, type Registration } from "../../model/instance.ts";
import type { ConsulUpstreamConfig, UpstreamConfig } from "./config.ts";
import { isNews, originOf, placeOfTold, registrationOf, SOURCE, withChecks } from "./told.ts";
import { Upstream } from "./upstream.ts";

export interface ConsulUpstreamMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly directory: Pick<Directory, "view" | "ready" | "changed">;
  /** This host's node. */
  readonly node: string;
  readonly serversOf: (upstream: UpstreamConfig) => Promise<Servers>;
}

const RETRY_MS = 5_000;

export class ConsulUpstreamSource implements Source {
  readonly name: string = SOURCE;
  readonly #config: ConsulUpstreamConfig;
  readonly #machine: ConsulUpstreamMachine;
  readonly #log: Log;
  #upstreams: readonly Upstream[] = [];
  /** Of an earlier life, until their service is heard of. */
  #restored: readonly Registration[] = [];
  /** Not told any more by an upstream that was away, by foreign ID: known for a while yet. */
  readonly #held = new Map<string, Registration>();
  readonly #timers = new Set<Timer>();
  /** Upstreams that cannot even be asked. */
  readonly #faults = new Map<string, string>();
  #last: ReadonlyMap<string, Registration> = new Map();
  #leftOut = 0;
  #running = 0;

  constructor(config: ConsulUpstreamConfig, machine: ConsulUpstreamMachine) {
    this.#config = config;
    this.#machine = machine;
    this.#log = machine.log.part(SOURCE);
  }

  state(): SourceHealth {
    if (this.#running === 0) return { ok: true, begun: false, text: "not started" };
    const words = [
      `${this.#last.size} instance${this.#last.size === 1 ? "" : "s"}`,
      ...(this.#leftOut === 0
        ? []
        : [`${this.#leftOut} left out that this directory has itself or that came from elsewhere there`]),
    ];
    return healthOf(
      [words.join(", "), ...this.#upstreams.map(({ summary }) => summary)].join("; "),
      this.#config.upstreams.flatMap((config) => this.#entriesOf(config)),
    );
  }

  #entriesOf(config: UpstreamConfig): readonly Omit<SourceEntry, "ok">[] {
    const { name } = config;
    const upstream = this.#upstreams.find((each) => each.config === config);
    const entry = (what: string, text: string, isTold: (service: string, id: string) => boolean) => ({
      ...{ name: what, text },
      tells: () =>
        keysOf(this.#last, (each) => {
          const { service } = originOf(name, each) ?? {};
          return service !== undefined && isTold(service, each.foreignId ?? "");
        }),
    });
    const ofService = toldBy(this.#last, (each) => originOf(name, each)?.service ?? "");
    const held = [...this.#held.values()].filter((each) => originOf(name, each) !== undefined).length;
    return [
      ...(upstream?.entries() ?? [{ text: this.#faults.get(name) ?? "not asked yet" }]).map(({ service, text }) =>
        service === undefined
          ? entry(name, text, (of) => upstream?.isFollowed(of) !== true)
          : { name: `${name}: ${service}`, text, tells: () => ofService(service) },
      ),
      entry(
        `${name} as it was before`,
        held === 0 ? "" : `${held} held that it does not tell any more since it was away`,
        (_, id) => this.#held.has(id),
      ),
    ];
  }

  watch(signal: AbortSignal): AsyncIterable<SourceList> {
    const { clock, directory } = this.#machine;
    const begin = async (view: View, ring: () => void, until: AbortSignal): Promise<void> => {
      this.#running++;
      try {
        // Where it is begun once more, what was told before counts as of an earlier life.
        this.#restored = lastKnown(view, SOURCE, this.#machine.node).map((each) => withChecks(view, each));
        this.#upstreams = [];
        await Promise.all(this.#config.upstreams.map((one) => this.#follow(one, ring, until)));
      } finally {
        this.#running--;
        for (const timer of this.#timers) timer.cancel();
        this.#timers.clear();
        this.#held.clear();
      }
    };
    const compose = (view: View): SourceList => this.#compose(view);
    const earlier = {
      ...{ source: SOURCE, node: this.#machine.node },
      isConfigured: (each: Registration) => this.#upstreamOf(each) !== undefined,
    };
    return wholeLists({ clock, directory, scopes: ["nodes", "services"], earlier, begin, compose }, signal);
  }

  /** The upstream that a registration is still asked of. */
  #upstreamOf(registration: Registration): UpstreamConfig | undefined {
    return this.#config.upstreams.find(({ name, services }) => {
      const origin = originOf(name, registration);
      return origin !== undefined && services?.has(origin.service) !== false;
    });
  }

  async #follow(config: UpstreamConfig, changed: () => void, signal: AbortSignal): Promise<void> {
    const { clock, random, serversOf } = this.#machine;
    while (!signal.aborted)
      try {
        const servers = await serversOf(config);
        this.#faults.delete(config.name);
        const upstream = new Upstream(config, {
          ...{ clock, random, log: this.#log, servers, changed },
          known: () => [...this.#last.values()].flatMap((each) => originOf(config.name, each)?.service ?? []),
          told: (service, settling) => {
            this.#take(upstream, service, settling, changed);
            changed();
          },
        });
        this.#upstreams = [...this.#upstreams, upstream];
        return await upstream.run(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#faults.set(config.name, `cannot be asked, what is known stays: ${messageOf(error)}`);
        changed();
        await clock.sleep(RETRY_MS, signal).catch(() => {});
      }
  }

  /** Where most of a service is missing it is held, if it was not necessarily removed. */
  #take(upstream: Upstream, service: string, settling: boolean, changed: () => void): void {
    const { name } = upstream.config;
    const told = new Set((upstream.services.get(service) ?? []).map(placeOfTold));
    const isOfIt = (each: Registration): boolean => originOf(name, each)?.service === service;
    const isTold = (each: Registration): boolean => told.has(originOf(name, each)?.place ?? "");
    const known = [...this.#last.values()].filter(isOfIt);
    this.#restored = this.#restored.filter((each) => !isOfIt(each));
    for (const [id, each] of this.#held) if (isOfIt(each) && isTold(each)) this.#held.delete(id);
    const missing = settling ? known.filter((each) => !isTold(each)) : [];
    // Where most are there the others have gone meanwhile.
    if (missing.length * 2 <= known.length) return;
    this.#log.warn(`"${service}" of "${name}" has fewer instances since it was away: they are held`, {
      missing: missing.length,
    });
    for (const each of missing) this.#held.set(each.foreignId ?? "", each);
    const timer = this.#machine.clock.after(this.#config.holdMs, () => {
      this.#timers.delete(timer);
      for (const each of missing)
        if (this.#held.get(each.foreignId ?? "") === each) this.#held.delete(each.foreignId ?? "");
      changed();
    });
    this.#timers.add(timer);
  }

  #compose(view: View): SourceList {
    const list: Registration[] = [];
    this.#leftOut = 0;
    for (const { config, services } of this.#upstreams) {
      const wanted = isNews(view, config);
      for (const told of services.values())
        for (const each of told)
          if (wanted(each)) list.push(registrationOf(each, config, view));
          else this.#leftOut++;
    }
    for (const each of this.#restored) {
      // Of upstreams that are not configured any more nothing stays.
      const of = this.#upstreamOf(each);
      const upstream = this.#upstreams.find(({ config }) => config === of);
      if (of !== undefined && upstream?.isOut(originOf(of.name, each)?.service ?? "") !== true) list.push(each);
    }
    list.push(...this.#held.values());
    const now = byPlace(list);
    const complaints = list.flatMap((each) => {
      const first = now.get(goneKeyOf(each));
      if (first === undefined || first.foreignId === each.foreignId) return [];
      const node = each.external?.node.name;
      const text = `"${each.id}" on the node "${node}" is told by two upstreams: ${each.text} is left out; give one of them a prefix`;
      return [{ about: each.id, text }];
    });
    const gone = reasonsFor(this.#last, now, ({ text = "" }) => ({
      ...{ code: "missing", text: `is not told any more: ${text}`, confirmed: false, atMs: this.#machine.clock.now() },
    }));
    this.#last = now;
    return { list: [...now.values()], authority: "second-hand", complaints, ...(gone.size > 0 ? { gone } : {}) };
  }
}
