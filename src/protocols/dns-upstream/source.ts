// The source "dns-upstream": each name asked for by its TTL, what is known kept while nobody answers.
import type { Clock } from "../../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import { jitter, type Random } from "../../base/random.ts";
import type { Directory, View } from "../../contracts/directory.ts";
import { byPriority, type Prioritised } from "../../contracts/priorities.ts";
import type { Probe } from "../../contracts/probe.ts";
import { lastKnown } from "../../contracts/second-hand.ts";
import type { Source, SourceHealth, SourceList } from "../../contracts/source.ts";
import { healthOf, toldBy } from "../../contracts/source-health.ts";
import { byPlace, reasonsFor, wholeLists } from "../../contracts/whole-list.ts";
import type { Registration } from "../../model/instance.ts";
import type { Reason } from "../../model/reason.ts";
import type { Nameserver, Nameservers } from "../../wire/dns/index.ts";
import type { DnsUpstreamConfig, Entry } from "./config.ts";
import { entryOf, isOf, nameOfEntry, priorityOf, registrationsOf, SOURCE } from "./registrations.ts";
import { type Place, resolve } from "./resolve.ts";

export interface DnsUpstreamMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly directory: Pick<Directory, "view" | "ready" | "changed">;
  /** This host's node. */
  readonly node: string;
  readonly tcp: Probe | undefined;
  /** Name servers for a list of them, not asked yet. */
  readonly nameservers: (servers: readonly Nameserver[]) => Nameservers;
}

/** After the TTL, so that a cache on the way has dropped its answer, too. */
const LATER_SHARE = 0.1;
const RETRY = { firstMs: 1_000, lastMs: 60_000, share: 0.2 } as const;

/** One entry as it stands. */
interface Standing {
  readonly entry: Entry;
  /** Undefined: nothing was heard in this life. */
  places: readonly Place[] | undefined;
  /** From an earlier life, until something is heard. */
  restored: readonly Registration[];
  /** Since when DNS says that there is nothing (monotonic), while what was known is held. */
  nothingSinceMs: number | undefined;
  /** What is wrong; "" = nothing. */
  trouble: string;
  faults: readonly string[];
  /** Why there is nothing, where that is so. */
  why: Pick<Reason, "code" | "text" | "confirmed"> | undefined;
}

/** Why what is known of an entry may no longer be so; "" where it is what DNS says. */
function troubleOf({ trouble, places, restored }: Standing): string {
  if (trouble !== "" || places !== undefined || restored.length === 0) return trouble;
  return "not answered yet since the start: what was known stays";
}

export class DnsUpstreamSource implements Source {
  readonly name: string = SOURCE;
  readonly #config: DnsUpstreamConfig;
  readonly #machine: DnsUpstreamMachine;
  readonly #log: Log;
  readonly #standing: readonly Standing[];
  #last: ReadonlyMap<string, Registration> = new Map();
  #running = 0;

  constructor(config: DnsUpstreamConfig, machine: DnsUpstreamMachine) {
    this.#config = config;
    this.#machine = machine;
    this.#log = machine.log.part(SOURCE);
    this.#standing = config.entries.map((entry) => ({
      ...{ entry, places: undefined, restored: [], nothingSinceMs: undefined, trouble: "", faults: [], why: undefined },
    }));
  }

  state(): SourceHealth {
    const found = `${this.#last.size} ${this.#last.size === 1 ? "instance" : "instances"}`;
    const counts = `${this.#standing.length} ${this.#standing.length === 1 ? "name" : "names"}, ${found}`;
    if (this.#running === 0) return { ok: true, begun: false, text: `not started; ${counts}` };
    const told = toldBy(this.#last, entryOf);
    return healthOf(
      counts,
      this.#standing.map((one) => ({
        name: nameOfEntry(one.entry),
        text: troubleOf(one),
        tells: () => told(nameOfEntry(one.entry)),
      })),
      this.#standing.flatMap(({ entry, faults }) => faults.map((text) => `${nameOfEntry(entry)}: ${text}`)),
    );
  }

  watch(signal: AbortSignal): AsyncIterable<SourceList> {
    const { clock, directory } = this.#machine;
    const begin = async (view: View, ring: () => void, until: AbortSignal): Promise<void> => {
      this.#running++;
      try {
        this.#restore(view);
        await Promise.all(this.#standing.map((one) => this.#ask(one, ring, until)));
      } finally {
        this.#running--;
      }
    };
    const compose = (view: View): SourceList => this.#compose(view);
    const earlier = {
      ...{ source: SOURCE, node: this.#machine.node },
      isConfigured: (each: Registration) => this.#standing.some(({ entry }) => isOf(entry, each)),
    };
    return wholeLists({ clock, directory, scopes: ["nodes", "services", "checks"], earlier, begin, compose }, signal);
  }

  /** What an earlier life of this agent knew stays until DNS says otherwise. */
  #restore(view: View): void {
    const known = lastKnown(view, SOURCE, this.#machine.node);
    for (const one of this.#standing)
      if (one.places === undefined) one.restored = known.filter((each) => isOf(one.entry, each));
  }

  #compose(view: View): SourceList {
    const { clock, tcp } = this.#machine;
    const services = new Map<string, Prioritised[]>();
    for (const { entry, places, restored } of this.#standing) {
      const now =
        places === undefined
          ? restored.map((registration) => ({ registration, priority: priorityOf(registration) }))
          : registrationsOf(entry, places, view);
      // By the name asked for: two names have nothing to say about each other's priorities.
      services.set(`${entry.service} ${entry.text}`, [
        ...(services.get(`${entry.service} ${entry.text}`) ?? []),
        ...now,
      ]);
    }
    const now = byPlace(
      [...services].flatMap(([key, service]) =>
        byPriority(view, service, {
          source: SOURCE,
          tcp: /\._udp\./.test(key) ? undefined : tcp,
          intervalMs: this.#config.checkMs,
        }),
      ),
    );
    const gone = reasonsFor(this.#last, now, (registration) => {
      const of = this.#standing.find(({ entry }) => isOf(entry, registration));
      const text = `${of?.entry.text ?? "DNS"} no longer names it`;
      return { ...(of?.why ?? { code: "missing", text, confirmed: false }), atMs: clock.now() };
    });
    this.#last = now;
    return {
      list: [...now.values()],
      authority: "second-hand",
      complaints: this.#standing.flatMap(({ entry, faults }) =>
        faults.map((text) => ({ about: nameOfEntry(entry), text })),
      ),
      ...(gone.size > 0 ? { gone } : {}),
    };
  }

  /** Asks for one entry again and again. */
  async #ask(one: Standing, changed: () => void, signal: AbortSignal): Promise<void> {
    const { clock, random, nameservers } = this.#machine;
    const servers = nameservers(one.entry.resolvers);
    const stop = (): void => servers.stop(new TrilithError("stopped", "nobody listens any more"));
    signal.addEventListener("abort", stop, { once: true });
    let failures = 0;
    try {
      while (!signal.aborted) {
        let waitMs: number;
        try {
          waitMs = await this.#round(one, servers);
          failures = 0;
        } catch (error) {
          if (signal.aborted) return;
          if (one.trouble === "")
            this.#log.warn(`${one.entry.text} is not answered: what is known stays`, { error: messageOf(error) });
          one.trouble = `no answer, what is known stays: ${messageOf(error)}`;
          waitMs = jitter(Math.min(RETRY.lastMs, RETRY.firstMs * 2 ** Math.min(failures++, 10)), RETRY.share, random);
        }
        changed();
        await clock.sleep(waitMs, signal);
      }
    } catch (error) {
      if (!signal.aborted && codeOf(error) !== "stopped") throw error;
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  /** One answer taken over; how long to wait for the next. */
  async #round(one: Standing, servers: Nameservers): Promise<number> {
    const { clock, random } = this.#machine;
    const { floorMs, capMs, holdMs } = this.#config;
    const found = await resolve(one.entry, servers, one.places);
    const nextMs = Math.min(capMs, Math.max(floorMs, found.ttlMs)) * (1 + random.fraction() * LATER_SHARE);
    if (one.trouble !== "") this.#log.info(`${one.entry.text} is answered again`);
    one.trouble = "";
    const knew = (one.places?.length ?? one.restored.length) > 0;
    if (found.kind === "nothing" && knew) {
      const now = clock.monotonic();
      const since = one.nothingSinceMs;
      one.nothingSinceMs ??= now;
      if (since === undefined || now - since < holdMs) {
        if (since === undefined) this.#log.warn(`${found.text}: what was known is held`, { heldMs: holdMs });
        one.trouble = `${found.text}: what was known is held for ${holdMs / 1000} s`;
        return Math.min(nextMs, Math.max(floorMs, holdMs - (now - one.nothingSinceMs)));
      }
    }
    one.nothingSinceMs = undefined;
    one.faults = found.kind === "places" ? found.faults : [];
    one.places = found.kind === "places" ? found.places : [];
    one.restored = [];
    one.why =
      found.kind === "places"
        ? undefined
        : found.kind === "unavailable"
          ? { code: "deregistered", text: found.text, confirmed: true }
          : { code: "missing", text: found.text, confirmed: false };
    return nextMs;
  }
}
