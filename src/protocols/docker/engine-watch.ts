// One engine followed: a connection that is kept, events that ring the bell, and what its containers come to at present.
import type { Timer } from "../../base/clock.ts";
import { codeOf, messageOf } from "../../base/error.ts";
import { jitter } from "../../base/random.ts";
import type { Registration } from "../../model/instance.ts";
import type { Reason } from "../../model/reason.ts";
import { createEngine, type EngineInfo } from "./client.ts";
import { type Endpoint, farHost } from "./endpoint.ts";
import type { Happening } from "./events.ts";
import { byStart, type Container, describe, isStopSignal, shortId } from "./inspect.ts";
import { type Complaint, type TranslateOptions, type Translation, translate } from "./registrator.ts";
import { type Keeping, type Known, type Scan, startScan } from "./scan.ts";
import type { DockerMachine } from "./source.ts";

/** One engine, and how its containers are read. */
export interface EngineOptions {
  /** What it is called beside others; "" = the only or main one. */
  readonly name?: string;
  /** Where to look, in order; the first socket that exists is used. */
  readonly endpoints: readonly Endpoint[];
  /** True where the engine may be absent without that being a fault. */
  readonly optional: boolean;
  /**
   * How to translate, asked again for each connection (the host name may resolve to something else by then). `meanwhile` is told what to go by
   * where that takes long: containers are not kept waiting for a resolver.
   */
  readonly translation: (
    engine: EngineInfo,
    meanwhile: (options: TranslateOptions) => void,
  ) => Promise<TranslateOptions>;
  /**
   * What the end of a container means. "always" (default): it is gone. "on-success": what ended with a failure (exit codes 1 to 127, not
   * by a signal) stays registered until it is removed or runs again, and its checks tell.
   */
  readonly deregister?: "always" | "on-success";
  /** Another text where the engine is reached otherwise than before; where it is the same, its connection stays over `retell`. */
  readonly connection?: string;
  /** Told, before each list, which containers stay in it though they ended with a failure. */
  readonly failed?: (containerIds: ReadonlySet<string>) => void;
}

/** A container that runs. */
export interface RunningContainer {
  readonly container: Container;
  /** True where its engine is on another host. */
  readonly far: boolean;
}

/** A container that counts, with what it is registered as. */
export interface Present {
  readonly container: Container;
  readonly translation: Translation;
  /** Out of every lookup for now: on its way out, or paused. */
  readonly aside: boolean;
}

const RECONNECT_MIN_MS = 100;
const RECONNECT_MAX_MS = 5_000;
/** A connection that held for so long was a good one: the next attempt comes quickly again. */
const GOOD_CONNECTION_MS = 10_000;
/** How often to look whether a socket appeared. */
const ABSENT_MS = 2_000;
/** How often the list is read without anything having happened. */
const RESYNC_MS = 60_000;
/** How often where that is the only way to see that a container is being stopped, and at most so large a part of the time. */
const STOPPING_MS = 400;
const STOPPING_SHARE = 20;
const JITTER = 0.2;
/** Longer than the stop time-out by this much: an instance is routable again if it still runs then. */
const STOP_MARGIN_MS = 2_000;
/** So often a container has to be unreadable before the first list goes out without it. */
const GIVE_UP_ATTEMPTS = 4;

/** Follows one engine from `begin` to the signal. What was last known outlives connections. */
export class EngineWatch {
  #options: EngineOptions;
  readonly #machine: DockerMachine;
  readonly #ring: () => void;
  readonly #known: Known = { running: new Map(), departed: new Map(), unread: new Map(), failed: new Map() };
  /** Registrations of this engine's containers from before this process began, by container. */
  readonly #before: ReadonlyMap<string, readonly Registration[]>;
  /** Stop-like signals seen, by container and signal number: when (monotonic). */
  readonly #signals = new Map<string, Map<number, number>>();
  readonly #translations = new Map<string, { readonly container: Container; readonly translation: Translation }>();
  #translation: TranslateOptions | undefined;
  /** True while the translation is the one for the meantime. */
  #guessed = false;
  /** True while the translation is that of the options before, until the next one is found out. */
  #outdated = false;
  /** Ends the connection that is there; finds out the translation anew in it. */
  #reconnect: () => void = () => {};
  #resolve: () => void = () => {};
  #listed = false;
  #told = false;
  #absent = false;
  #wakeUp: Timer | undefined;
  /** Read by the source's `state`. */
  text = "not started";
  ok = true;

  constructor(
    options: EngineOptions,
    machine: DockerMachine,
    before: ReadonlyMap<string, readonly Registration[]>,
    ring: () => void,
  ) {
    this.#options = options;
    this.#machine = machine;
    this.#before = before;
    this.#ring = ring;
  }

  /** What the engine is called beside others. */
  get name(): string {
    return this.#options.name ?? "";
  }

  /** True where nothing is, and nothing need be. */
  get absent(): boolean {
    return this.#absent && !this.#listed;
  }

  /** The containers that run; those of an engine on another host are `far`. None before the first list. */
  *running(): Generator<RunningContainer, void, void> {
    if (!this.#listed) return;
    const far = this.#options.endpoints.some((endpoint) => farHost(endpoint) !== undefined);
    for (const container of this.#known.running.values()) yield { container, far };
  }

  /** What its containers were registered as when this process began; for as long as the engine itself has not been heard. */
  get heldBefore(): Iterable<Registration> {
    return [...this.#before.values()].flat();
  }

  /** Containers that are known, running or kept. */
  *containers(): Generator<string, void, void> {
    yield* this.#before.keys();
    yield* this.#known.running.keys();
    yield* this.#known.failed.keys();
  }

  /** Takes other options: containers are read by them as soon as that can be done, and as before until then; the engine is asked for nothing again unless it is reached otherwise. */
  retell(options: EngineOptions): void {
    const before = this.#options;
    this.#options = options;
    const { failed, departed } = this.#known;
    if (options.deregister !== "on-success")
      for (const [id, container] of failed) {
        failed.delete(id);
        const text = `the configuration of docker no longer keeps containers that failed, as ${describe(container)} did`;
        departed.set(id, { code: "died", text, confirmed: true, atMs: this.#machine.clock.now() });
      }
    this.#outdated = true;
    if (options.connection !== before.connection) this.#reconnect();
    else this.#resolve();
  }

  /** Keeps a connection to the engine until the signal. */
  async follow(signal: AbortSignal): Promise<void> {
    const { clock, random, log } = this.#machine;
    let waitMs = RECONNECT_MIN_MS;
    try {
      while (!signal.aborted) {
        const { connection } = this.#options;
        const endpoint = await this.#find(signal);
        // What was found may be the place of before.
        if (this.#options.connection !== connection) continue;
        const startedMs = clock.monotonic();
        try {
          await this.#session(endpoint, signal);
        } catch (error) {
          if (signal.aborted) return;
          if (this.#options.connection !== connection) continue;
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
    } finally {
      this.#wakeUp?.cancel();
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
    const { clock, disk, random } = this.#machine;
    for (;;) {
      const { endpoints, optional } = this.#options;
      for (const endpoint of endpoints) {
        if (endpoint.socketPath === undefined) return endpoint;
        // Where even looking is forbidden, connecting tells why.
        const there = await disk.info(endpoint.socketPath).catch((error: unknown) => codeOf(error) === "not-allowed");
        if (there !== undefined && there !== false) {
          this.#absent = false;
          return endpoint;
        }
      }
      const places = endpoints.map(({ spelling }) => spelling).join(", ");
      this.ok = optional && !this.#listed;
      this.text = this.#listed
        ? `Docker's socket is gone (${places}); its ${this.#known.running.size} containers stay as last known`
        : `no Docker: nothing at ${places}; begins by itself when it appears`;
      if (!this.#absent && optional) {
        this.#absent = true;
        this.#ring();
      }
      await clock.sleep(jitter(ABSENT_MS, JITTER, random), signal);
    }
  }

  /** One connection: events first, so that nothing is missed, then everything is looked at. Ends by throwing. */
  async #session(endpoint: Endpoint, signal: AbortSignal): Promise<never> {
    const { clock, random, http } = this.#machine;
    const session = new AbortController();
    const onAbort = (): void => session.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#reconnect = () => session.abort(new Error("the engine is reached otherwise now"));
    try {
      const engine = createEngine(endpoint, http, clock, session.signal);
      const events = await engine.events();
      const changed = (): void => {
        this.#describe(endpoint, engine.name());
        this.#ring();
      };
      const scan = startScan(engine, this.#known, this.#machine, session.signal, changed, this.#keeping());
      // A resolver that takes its time holds up neither events nor, once there was a list, the next one.
      const resolve = async (): Promise<void> => {
        const options = this.#options;
        const take = (translation: TranslateOptions, guessed: boolean): void => {
          // What was found out before is better than a guess.
          if (session.signal.aborted || options !== this.#options || (guessed && this.#translation !== undefined))
            return;
          // Templates are functions, which no text tells apart.
          if (this.#outdated || this.#guessed || JSON.stringify(translation) !== JSON.stringify(this.#translation))
            this.#translations.clear();
          this.#translation = translation;
          this.#outdated = false;
          this.#guessed = guessed;
          changed();
        };
        take(await options.translation(await engine.info(), (meanwhile) => take(meanwhile, true)), false);
      };
      this.#resolve = () => void resolve().catch((error: unknown) => session.abort(error));
      const resolving = resolve();
      const reading = (async (): Promise<never> => {
        for await (const happening of events) this.#on(happening, scan);
        throw new Error("the event stream ended");
      })();
      const scanning = (async (): Promise<never> => {
        for (let all = true; ; all = false) {
          const beganMs = clock.monotonic();
          await scan.relist(all);
          this.#listed = true;
          changed();
          const tookMs = clock.monotonic() - beganMs;
          const pauseMs = engine.tellsSignals()
            ? RESYNC_MS
            : Math.min(RESYNC_MS, STOPPING_MS + tookMs * STOPPING_SHARE);
          await clock.sleep(jitter(pauseMs, JITTER, random), session.signal);
        }
      })();
      try {
        return await Promise.race([reading, scanning, resolving.then(() => reading)]);
      } finally {
        session.abort();
        await Promise.allSettled([reading, scanning]);
      }
    } finally {
      this.#reconnect = this.#resolve = () => {};
      session.abort();
      signal.removeEventListener("abort", onAbort);
    }
  }

  #keeping(): Keeping {
    const onSuccess = this.#options.deregister === "on-success";
    // Registrator 7.4.0, registrator.go: 0 and what a signal ended (128 and more) is a success.
    return {
      keeps: (exitCode) => this.#options.deregister === "on-success" && exitCode !== 0 && (exitCode & 128) === 0,
      before: new Set(onSuccess ? this.#before.keys() : []),
    };
  }

  #on(happening: Happening, scan: Scan): void {
    const { id } = happening;
    if (happening.what === "signalled") {
      const seen = this.#signals.get(id) ?? new Map<number, number>();
      this.#signals.set(id, seen.set(happening.signal, this.#machine.clock.monotonic()));
      if (this.#known.running.has(id)) this.#ring();
    } else if (happening.what === "died") {
      const container = this.#known.running.get(id);
      const stopped = container !== undefined && (container.stopping || this.#drainingUntil(container) !== undefined);
      this.#signals.delete(id);
      scan.died(id, happening.name, happening.exitCode, stopped);
    } else if (happening.what === "started") {
      this.#signals.delete(id);
      void scan.look(id);
    } else if (
      this.#known.running.has(id) ||
      this.#known.unread.has(id) ||
      this.#known.failed.has(id) ||
      scan.looking(id)
    ) {
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
    const remembered = cached === undefined && this.#known.failed.has(container.id) && this.#before.get(container.id);
    // It failed while nobody looked, and Docker forgets the ports of what does not run.
    if (remembered) {
      const translation = { registrations: remembered, complaints: [] };
      this.#translations.set(container.id, { container, translation });
      return translation;
    }
    const other = (idOrName: string): Container | undefined => {
      const { running } = this.#known;
      return running.get(idOrName) ?? [...running.values()].find(({ name }) => name === idOrName);
    };
    let fresh = translate(container, options, other);
    const hostIp = this.#guessed ? this.#hostIpBefore(container, fresh.registrations, options.hostIp) : undefined;
    if (hostIp !== undefined && hostIp !== options.hostIp) fresh = translate(container, { ...options, hostIp }, other);
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

  /** The host's address as this container was registered with it before this process began: a guess that differs would lead its callers astray. */
  #hostIpBefore(container: Container, registrations: readonly Registration[], guess: string): string | undefined {
    const held = new Map((this.#before.get(container.id) ?? []).map((one) => [one.foreignId, one]));
    return registrations
      .filter(({ address }) => address === guess)
      .map(({ foreignId }) => held.get(foreignId)?.address)
      .find((address) => address !== undefined);
  }

  /**
   * The containers that count, first started first, with what could not be taken over; undefined while the engine has not been heard.
   * A first answer that misses what could not be read would take it down: the engine is given time.
   */
  present(): { readonly containers: readonly Present[]; readonly complaints: readonly Complaint[] } | undefined {
    const { running, unread, failed } = this.#known;
    const options = this.#translation;
    if (!this.#listed || options === undefined) return undefined;
    if (!this.#told && unread.size > 0) {
      const patient = [...unread.values()].some(({ attempts }) => attempts < GIVE_UP_ATTEMPTS);
      if (patient || running.size === 0) return undefined;
    }
    this.#told = true;
    const complaints: Complaint[] = [];
    const containers: Present[] = [];
    let wakeMs = Number.POSITIVE_INFINITY;
    for (const [id, { text }] of unread)
      if (!running.has(id)) complaints.push({ about: `container ${shortId(id)}`, text: `could not be read: ${text}` });
    for (const container of [...running.values(), ...failed.values()].sort(byStart)) {
      const translation = this.#translate(container, options);
      complaints.push(...translation.complaints);
      const untilMs = this.#drainingUntil(container);
      wakeMs = Math.min(wakeMs, untilMs ?? wakeMs);
      containers.push({
        container,
        translation,
        aside: untilMs !== undefined || container.stopping || container.paused,
      });
    }
    for (const id of this.#translations.keys()) if (!running.has(id) && !failed.has(id)) this.#translations.delete(id);
    this.#wakeAt(wakeMs);
    this.#options.failed?.(new Set(failed.keys()));
    return { containers, complaints };
  }

  /** Why containers are not there any more, since this was asked last. */
  departed(): ReadonlyMap<string, Reason> {
    const reasons = new Map(this.#known.departed);
    this.#known.departed.clear();
    return reasons;
  }

  #wakeAt(atMs: number): void {
    this.#wakeUp?.cancel();
    this.#wakeUp = undefined;
    const { clock } = this.#machine;
    if (Number.isFinite(atMs)) this.#wakeUp = clock.after(Math.ceil(atMs - clock.monotonic()), () => this.#ring());
  }
}

/** All of a registration but its health of the moment, which is pushed by itself. */
function essence(registration: Registration): string {
  return JSON.stringify({
    ...registration,
    checks: registration.checks.map((check) => (check.kind === "none" ? { ...check, initial: "" } : check)),
  });
}
