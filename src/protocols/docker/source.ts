// The source "docker": events ring the bell, containers are looked at again, the whole list goes out.
import type { Clock, Timer } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { codeOf, messageOf } from "../../base/error.ts";
import type { Http } from "../../base/http.ts";
import type { Log } from "../../base/log.ts";
import { jitter, type Random } from "../../base/random.ts";
import type { Agent } from "../../contracts/agent.ts";
import type { Source, SourceList } from "../../contracts/source.ts";
import type { Outcome } from "../../model/check.ts";
import type { Registration } from "../../model/instance.ts";
import type { Reason } from "../../model/reason.ts";
import { createEngine, type Endpoint } from "./client.ts";
import type { Happening } from "./events.ts";
import { type Container, describe, isStopSignal, shortId } from "./inspect.ts";
import { type Complaint, healthCheckId, type TranslateOptions, type Translation, translate } from "./registrator.ts";
import { type Known, type Scan, startScan } from "./scan.ts";

export interface DockerOptions {
  /** Where to look, in order; the first socket that exists is used. */
  readonly endpoints: readonly Endpoint[];
  /** True where Docker may be absent without that being a fault. */
  readonly optional: boolean;
  /** How to translate, asked again for each connection (the host name may resolve to something else by then). */
  readonly translation: () => Promise<TranslateOptions>;
}

export interface DockerMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly http: Http;
  readonly log: Log;
  readonly agent: Pick<Agent, "report">;
}

const RECONNECT_MIN_MS = 100;
const RECONNECT_MAX_MS = 5_000;
/** A connection that held for so long was a good one: the next attempt comes quickly again. */
const GOOD_CONNECTION_MS = 10_000;
/** How often to look whether a socket appeared. */
const ABSENT_MS = 2_000;
/** How often the list is read without anything having happened. */
const RESYNC_MS = 60_000;
const JITTER = 0.2;
/** Longer than the stop time-out by this much: an instance is routable again if it still runs then. */
const STOP_MARGIN_MS = 2_000;
/** So often a container has to be unreadable before the first list goes out without it. */
const GIVE_UP_ATTEMPTS = 4;

/** A bell: however often it rang, the waiter comes once. */
class Bell {
  #rung = false;
  #wake: (() => void) | undefined;
  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }
  /** Resolves when it has rung since the last time. */
  async heard(): Promise<void> {
    if (!this.#rung)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    this.#wake = undefined;
    this.#rung = false;
  }
}

/** What one `watch` knows. */
class Watch {
  readonly #options: DockerOptions;
  readonly #machine: DockerMachine;
  readonly #bell = new Bell();
  readonly #known: Known = { running: new Map(), departed: new Map(), unread: new Map() };
  /** Stop-like signals seen, by container and signal number: when (monotonic). */
  readonly #signals = new Map<string, Map<number, number>>();
  readonly #translations = new Map<string, { readonly container: Container; readonly translation: Translation }>();
  readonly #drained = new WeakMap<Registration, Registration>();
  readonly #reported = new Map<string, string>();
  #translation: TranslateOptions | undefined;
  #listed = false;
  #wakeUp: Timer | undefined;
  #last: { readonly list: readonly Registration[]; readonly complaints: string } | undefined;
  #owners = new Map<string, string>();
  /** Set by the connection's part; read by `state`. */
  text = "not started";
  ok = true;

  constructor(options: DockerOptions, machine: DockerMachine) {
    this.#options = options;
    this.#machine = machine;
  }

  async *lists(signal: AbortSignal): AsyncGenerator<SourceList, void, void> {
    const inner = new AbortController();
    const onAbort = (): void => {
      inner.abort(signal.reason);
      this.#bell.ring();
    };
    if (signal.aborted) return;
    signal.addEventListener("abort", onAbort, { once: true });
    const connecting = this.#connect(inner.signal);
    try {
      for (;;) {
        await this.#bell.heard();
        if (inner.signal.aborted) return;
        const next = this.#compose();
        if (next !== undefined) yield next;
        if (inner.signal.aborted) return;
        await this.#report();
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      inner.abort();
      this.#wakeUp?.cancel();
      await connecting;
    }
  }

  /** Keeps a connection to the engine until the signal. Never rejects. */
  async #connect(signal: AbortSignal): Promise<void> {
    const { clock, random, log } = this.#machine;
    let waitMs = RECONNECT_MIN_MS;
    try {
      while (!signal.aborted) {
        const endpoint = await this.#find(signal);
        const startedMs = clock.monotonic();
        try {
          await this.#follow(endpoint, signal);
        } catch (error) {
          if (signal.aborted) return;
          if (clock.monotonic() - startedMs > GOOD_CONNECTION_MS) waitMs = RECONNECT_MIN_MS;
          const text = this.#trouble(endpoint, error);
          if (this.ok || this.text !== text) log.warn(text);
          this.ok = false;
          this.text = text;
          await clock.sleep(jitter(waitMs, JITTER, random), signal);
          waitMs = Math.min(RECONNECT_MAX_MS, waitMs * 2);
        }
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  #trouble(endpoint: Endpoint, error: unknown): string {
    const kept = this.#listed ? `; its ${this.#known.running.size} containers stay as last known` : "";
    const permission =
      codeOf(error) === "not-allowed" ? " (may this user read the socket? members of the group docker may)" : "";
    return `Docker at ${endpoint.spelling} is away, trying again: ${messageOf(error)}${permission}${kept}`;
  }

  /** The endpoint to use: the only one, or the first socket that exists, waiting for one to appear. */
  async #find(signal: AbortSignal): Promise<Endpoint> {
    const { endpoints, optional } = this.#options;
    const { clock, disk, random } = this.#machine;
    for (;;) {
      for (const endpoint of endpoints) {
        if (endpoint.socketPath === undefined) return endpoint;
        // Where even looking is forbidden, connecting tells why.
        const there = await disk.info(endpoint.socketPath).catch((error: unknown) => codeOf(error) === "not-allowed");
        if (there !== undefined && there !== false) return endpoint;
      }
      const places = endpoints.map(({ spelling }) => spelling).join(", ");
      this.ok = optional && !this.#listed;
      this.text = this.#listed
        ? `Docker's socket is gone (${places}); its ${this.#known.running.size} containers stay as last known`
        : `no Docker: nothing at ${places}; begins by itself when it appears`;
      await clock.sleep(jitter(ABSENT_MS, JITTER, random), signal);
    }
  }

  /** One connection: events first, so that nothing is missed, then everything is looked at. Ends by throwing. */
  async #follow(endpoint: Endpoint, signal: AbortSignal): Promise<never> {
    const { clock, random, http } = this.#machine;
    const session = new AbortController();
    const onAbort = (): void => session.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      const engine = createEngine(endpoint, http, clock, session.signal);
      const events = await engine.events();
      const changed = (): void => {
        this.#describe(endpoint, engine.name());
        this.#bell.ring();
      };
      const scan = startScan(engine, this.#known, this.#machine, session.signal, changed);
      // A resolver that takes its time holds up neither events nor, once there was a list, the next one.
      const resolving = (async (): Promise<void> => {
        const translation = await this.#options.translation();
        if (session.signal.aborted) return;
        if (JSON.stringify(translation) !== JSON.stringify(this.#translation)) this.#translations.clear();
        this.#translation = translation;
        changed();
      })();
      const reading = (async (): Promise<never> => {
        for await (const happening of events) this.#on(happening, scan);
        throw new Error("the event stream ended");
      })();
      const scanning = (async (): Promise<never> => {
        for (let all = true; ; all = false) {
          await scan.relist(all);
          this.#listed = true;
          changed();
          await clock.sleep(jitter(RESYNC_MS, JITTER, random), session.signal);
        }
      })();
      try {
        return await Promise.race([reading, scanning, resolving.then(() => reading)]);
      } finally {
        session.abort();
        await Promise.allSettled([reading, scanning]);
      }
    } finally {
      session.abort();
      signal.removeEventListener("abort", onAbort);
    }
  }

  #on(happening: Happening, scan: Scan): void {
    const { id } = happening;
    if (happening.what === "signalled") {
      const seen = this.#signals.get(id) ?? new Map<number, number>();
      this.#signals.set(id, seen.set(happening.signal, this.#machine.clock.monotonic()));
      if (this.#known.running.has(id)) this.#bell.ring();
    } else if (happening.what === "died") {
      const container = this.#known.running.get(id);
      const stopped = container !== undefined && this.#drainingUntil(container) !== undefined;
      this.#signals.delete(id);
      scan.died(id, happening.name, happening.exitCode, stopped);
    } else if (happening.what === "started") {
      this.#signals.delete(id);
      void scan.look(id);
    } else if (this.#known.running.has(id) || this.#known.unread.has(id) || scan.looking(id)) {
      // A container that does not run is nobody's concern; a look at one that is about to start (its networks are connected
      // first) would only have to be repeated.
      void scan.look(id);
    }
  }

  #describe(endpoint: Endpoint, name: string): void {
    const { running, unread } = this.#known;
    if (!this.#listed) return;
    const trouble = [...unread].map(([id, { text }]) => `${shortId(id)}: ${text}`);
    this.ok = trouble.length === 0;
    this.text = `${name} at ${endpoint.spelling}, ${running.size} container${running.size === 1 ? "" : "s"}${
      trouble.length === 0 ? "" : `; ${trouble.length} cannot be read (${trouble[0]})`
    }`;
  }

  /** Until when (monotonic) a container counts as stopping; undefined = it does not. */
  #drainingUntil(container: Container): number | undefined {
    const seen = this.#signals.get(container.id);
    if (seen === undefined) return undefined;
    let untilMs = 0;
    for (const [signal, atMs] of seen)
      if (isStopSignal(container, signal)) untilMs = Math.max(untilMs, atMs + container.stopTimeoutMs + STOP_MARGIN_MS);
    if (untilMs > this.#machine.clock.monotonic()) return untilMs;
    this.#signals.delete(container.id);
    return undefined;
  }

  #translate(container: Container, options: TranslateOptions): Translation {
    const cached = this.#translations.get(container.id);
    const shares = container.networkMode.startsWith("container:");
    if (cached?.container === container && !shares) return cached.translation;
    const fresh = translate(container, options, (idOrName) => {
      const { running } = this.#known;
      return running.get(idOrName) ?? [...running.values()].find(({ name }) => name === idOrName);
    });
    // What did not change stays the same object, so that a health report or a resync is no change.
    const before = new Map(
      cached?.translation.registrations.map((registration) => [essence(registration), registration]),
    );
    const translation = {
      complaints: fresh.complaints,
      registrations: fresh.registrations.map((registration) => before.get(essence(registration)) ?? registration),
    };
    this.#translations.set(container.id, { container, translation });
    return translation;
  }

  /** The whole list, if it is different from the last one (and there is one at all). */
  #compose(): SourceList | undefined {
    const { running, departed, unread } = this.#known;
    const options = this.#translation;
    if (!this.#listed || options === undefined) return undefined;
    if (this.#last === undefined && unread.size > 0) {
      // A first list that misses what could not be read would take it down: give the engine time.
      const patient = [...unread.values()].some(({ attempts }) => attempts < GIVE_UP_ATTEMPTS);
      if (patient || running.size === 0) return undefined;
    }
    const list: Registration[] = [];
    const complaints: Complaint[] = [];
    const owners = new Map<string, string>();
    let wakeMs = Number.POSITIVE_INFINITY;
    for (const [id, { text }] of unread)
      if (!running.has(id)) complaints.push({ about: `container ${shortId(id)}`, text: `could not be read: ${text}` });
    for (const container of [...running.values()].sort(byStart)) {
      const translation = this.#translate(container, options);
      complaints.push(...translation.complaints);
      const untilMs = this.#drainingUntil(container);
      wakeMs = Math.min(wakeMs, untilMs ?? wakeMs);
      for (const registration of translation.registrations) {
        const owner = owners.get(registration.id);
        if (owner !== undefined) {
          complaints.push({
            about: registration.text ?? registration.id,
            text: `not registered: container ${shortId(owner)} has the ID "${registration.id}" already`,
          });
          continue;
        }
        owners.set(registration.id, container.id);
        list.push(untilMs === undefined && !container.paused ? registration : this.#drain(registration));
      }
    }
    for (const id of this.#translations.keys()) if (!running.has(id)) this.#translations.delete(id);
    this.#wakeAt(wakeMs);

    const gone = new Map<string, Reason>();
    for (const [id, containerId] of this.#owners)
      if (!owners.has(id)) gone.set(id, departed.get(containerId) ?? this.#replaced(containerId, id));
    departed.clear();
    this.#owners = owners;
    const complained = JSON.stringify(complaints);
    const last = this.#last;
    if (
      last !== undefined &&
      last.complaints === complained &&
      last.list.length === list.length &&
      list.every((registration, i) => registration === last.list[i])
    )
      return undefined;
    this.#last = { list, complaints: complained };
    return { list, authority: "first-hand", gone, complaints };
  }

  #replaced(containerId: string, id: string): Reason {
    const container = this.#known.running.get(containerId);
    const who = container === undefined ? shortId(containerId) : describe(container);
    return {
      code: "replaced",
      text: `container ${who} runs on, but not as "${id}" any more`,
      confirmed: true,
      atMs: this.#machine.clock.now(),
    };
  }

  #drain(registration: Registration): Registration {
    const drained = this.#drained.get(registration) ?? { ...registration, draining: true };
    this.#drained.set(registration, drained);
    return drained;
  }

  #wakeAt(atMs: number): void {
    this.#wakeUp?.cancel();
    this.#wakeUp = undefined;
    const { clock } = this.#machine;
    if (Number.isFinite(atMs)) this.#wakeUp = clock.after(Math.ceil(atMs - clock.monotonic()), () => this.#bell.ring());
  }

  /** Hands what Docker's HEALTHCHECK says to the agent, which has adopted the list by now. */
  async #report(): Promise<void> {
    const current = new Set<string>();
    for (const [id, { container, translation }] of this.#translations) {
      if (!this.#known.running.has(id)) continue;
      for (const registration of translation.registrations) {
        const checkId = healthCheckId(registration.id);
        if (!registration.checks.some((check) => check.id === checkId) || this.#owners.get(registration.id) !== id)
          continue;
        current.add(checkId);
        const outcome = outcomeOf(container);
        const said = JSON.stringify([container.id, outcome]);
        if (this.#reported.get(checkId) === said) continue;
        try {
          await this.#machine.agent.report(checkId, outcome);
          this.#reported.set(checkId, said);
        } catch (error) {
          // The agent refused the registration (a conflict it reported itself): there is no check to report to.
          this.#machine.log.debug(`health of ${registration.text} not taken: ${messageOf(error)}`);
        }
      }
    }
    for (const checkId of this.#reported.keys()) if (!current.has(checkId)) this.#reported.delete(checkId);
  }
}

/** All of a registration but its health of the moment, which is pushed by itself. */
function essence(registration: Registration): string {
  return JSON.stringify({
    ...registration,
    checks: registration.checks.map((check) => (check.kind === "none" ? { ...check, initial: "" } : check)),
  });
}

/** First started, first served. */
function byStart(a: Container, b: Container): number {
  return a.startedAt === b.startedAt ? (a.id < b.id ? -1 : 1) : a.startedAt < b.startedAt ? -1 : 1;
}

function outcomeOf({ health }: Container): Outcome {
  if (health.status === "healthy") return { status: "passing", output: health.output };
  const output =
    health.status === "starting" ? "Docker: starting, not healthy yet" : health.output || "Docker: unhealthy";
  return { status: "critical", output };
}

/** Makes the source. Each `watch` has a connection of its own; `state` tells of the last one. */
export function dockerSource(options: DockerOptions, machine: DockerMachine): Source {
  let watching: Watch | undefined;
  return {
    name: "docker",
    watch(signal) {
      watching = new Watch(options, machine);
      return watching.lists(signal);
    },
    state: () =>
      watching === undefined ? { ok: true, text: "not started" } : { ok: watching.ok, text: watching.text },
  };
}

/** A source that brings nothing in, and says why. */
export function absentSource(why: string): Source {
  return {
    name: "docker",
    async *watch(signal) {
      if (!signal.aborted)
        await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    },
    state: () => ({ ok: false, text: `off: ${why}` }),
  };
}
