// One Consul elsewhere followed by blocking queries: one for the list of services and one for each; where these are many, two for all that happens.
import { setMaxListeners } from "node:events";
import type { Clock } from "../../base/clock.ts";
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import { jitter, type Random } from "../../base/random.ts";
import type { Servers } from "../../base/servers.ts";
import { object } from "../../wire/consul-catalog.ts";
import type { UpstreamConfig } from "./config.ts";
import { type Told, toldFrom } from "./told.ts";

export interface UpstreamMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly servers: Servers;
  /**
   * A service is told anew (empty: there is none). `settling`: the upstream was away or set back, or this is the first that is heard of it, so that what
   * is missing was not necessarily removed.
   */
  readonly told: (service: string, settling: boolean) => void;
  /** Services that it told earlier, also in an earlier life. */
  readonly known: () => Iterable<string>;
  /** Something else about it has changed. */
  readonly changed: () => void;
}

/** A blocking query waits for so long; a server that does not answer for a while longer is away. */
const WAIT_S = 60;
const WAIT_HEAD_MS = (WAIT_S * 17 * 1000) / 16 + 5_000;
/** Consul's agents take 200 connections from one address. */
export const MOST_STREAMS = 64;
const READERS = 8;
const SPACING_MS = 20;
/** Something that answers at once although nothing has moved does not block: it is asked no more often than this. */
const IDLE = { tookMs: 100, waitMs: 1_000 } as const;
const RETRY = { firstMs: 500, lastMs: 30_000, share: 0.3 } as const;
/** After reading every service the next round waits for so many times as long as it took. */
const SWEEP = { times: 4, leastMs: 200, mostMs: 10_000 } as const;
const OWN_SERVICE = "consul";

export class Upstream {
  readonly config: UpstreamConfig;
  /** What was heard in this life, by the service's name there. */
  readonly services: Map<string, readonly Told[]> = new Map();
  readonly #machine: UpstreamMachine;
  /** What is not answered, by what was asked. */
  readonly #troubles = new Map<string, string>();
  /** Undefined: the list of services was not heard in this life. */
  #names: ReadonlySet<string> | undefined;
  readonly #streams = new Map<string, AbortController>();
  #sweep: AbortController | undefined;
  /** Everything that was begun and has not ended yet. */
  readonly #ending = new Set<Promise<void>>();
  #reading = 0;
  readonly #queue: (() => void)[] = [];

  constructor(config: UpstreamConfig, machine: UpstreamMachine) {
    this.config = config;
    this.#machine = machine;
    this.#names = config.services;
  }

  /** True where this service is not to be read, or does not exist there. */
  isOut(service: string): boolean {
    return this.#names !== undefined && !this.#names.has(service);
  }

  /** What was found where, for people. */
  get summary(): string {
    const found = [...this.services.values()].filter((told) => told.length > 0).length;
    return `${this.config.name} (${this.#machine.servers.current}): ${found} service${found === 1 ? "" : "s"}`;
  }

  /**
   * How it is: as a whole (`service` undefined), and each service that is followed by itself. Where it does not answer at all that is said once,
   * of the whole.
   */
  entries(): readonly { readonly service?: string; readonly text: string }[] {
    const followed = [...this.#streams.keys()];
    const failing = followed.filter((name) => this.#troubles.has(pathOf(name)));
    const [whole] = [...this.#troubles].filter(([path]) => !followed.some((name) => pathOf(name) === path));
    const [any] = this.#troubles.values();
    if (whole !== undefined || (any !== undefined && failing.length === followed.length))
      return [{ text: `does not answer, what is known stays: ${whole?.[1] ?? any}` }];
    return [
      { text: this.#names === undefined ? "has not answered yet since the start: what was known stays" : "" },
      ...followed.map((service) => {
        const trouble = this.#troubles.get(pathOf(service));
        return { service, text: trouble === undefined ? "" : `is not answered, what is known stays: ${trouble}` };
      }),
    ];
  }

  /** True where a service was told in this life, and what it has become since would be known. */
  isFollowed(service: string): boolean {
    if (!this.services.has(service)) return false;
    if (this.#streams.has(service)) return !this.#troubles.has(pathOf(service));
    return this.#troubles.size === 0;
  }

  /** Follows it until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    // So many streams end with it.
    setMaxListeners(0, signal);
    try {
      if (this.config.services === undefined)
        await this.#follow("/v1/catalog/services", signal, (value, settling) =>
          this.#tookNames(value, settling, signal),
        );
      else {
        this.#arrange(this.config.services, signal);
        if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      }
    } finally {
      for (const stop of [...this.#streams.values(), this.#sweep]) stop?.abort();
      await Promise.all(this.#ending);
      this.#streams.clear();
      this.#sweep = undefined;
      this.#troubles.clear();
    }
  }

  #tookNames(value: unknown, settling: boolean, signal: AbortSignal): void {
    // What is no text cannot be asked for.
    const names = new Set(
      Object.keys(object(value)).filter((name) => name !== OWN_SERVICE && !/\p{Surrogate}/u.test(name)),
    );
    const before = new Set([...this.#machine.known(), ...this.services.keys()]);
    this.#names = names;
    for (const name of before)
      if (!names.has(name)) {
        this.services.delete(name);
        this.#machine.told(name, settling);
      }
    this.#arrange(names, signal);
    this.#machine.changed();
  }

  /** A stream for each, or two for all. */
  #arrange(names: ReadonlySet<string>, signal: AbortSignal): void {
    const many = names.size > MOST_STREAMS;
    for (const [name, stop] of this.#streams)
      if (many || !names.has(name)) {
        stop.abort();
        this.#streams.delete(name);
      }
    if (!many && this.#sweep !== undefined) {
      this.#sweep.abort();
      this.#sweep = undefined;
    }
    if (many) {
      this.#sweep ??= this.#begin(signal, (until) => this.#sweepAll(until));
      this.#dirty?.();
      return;
    }
    for (const name of names)
      if (!this.#streams.has(name))
        this.#streams.set(
          name,
          this.#begin(signal, (until) =>
            this.#follow(pathOf(name), until, (value, settling) => this.#tookService(name, value, settling)),
          ),
        );
  }

  /** Work that ends with the signal, or earlier when it is told to. */
  #begin(signal: AbortSignal, work: (until: AbortSignal) => Promise<void>): AbortController {
    const stop = new AbortController();
    const pass = (): void => stop.abort(signal.reason);
    if (signal.aborted) pass();
    signal.addEventListener("abort", pass, { once: true });
    const ended = work(stop.signal).finally(() => {
      signal.removeEventListener("abort", pass);
      this.#ending.delete(ended);
    });
    this.#ending.add(ended);
    return stop;
  }

  #tookService(name: string, value: unknown, settling: boolean): void {
    if (!Array.isArray(value)) throw new TrilithError("unavailable", `${pathOf(name)}: expected a list`);
    this.services.set(
      name,
      value.flatMap((entry) => toldFrom(entry) ?? []),
    );
    this.#machine.told(name, settling);
  }

  /** Asks again and again, each time until something has moved. Ends with the signal alone. */
  async #follow(path: string, signal: AbortSignal, took: (value: unknown, settling: boolean) => void): Promise<void> {
    const { clock } = this.#machine;
    let index = 0;
    let settling = true;
    for (let failures = 0; !signal.aborted; )
      try {
        const began = clock.monotonic();
        const found = await (index === 0 ? this.#plainly(path, signal) : this.#ask(path, signal, index));
        // Set back: it belongs to another content, and the next question is asked as the first one.
        const back = found.index < index;
        if (found.index !== index) took(found.value, settling || back);
        const idle = found.index === index && clock.monotonic() - began < IDLE.tookMs;
        this.#well(path);
        failures = 0;
        settling = back;
        index = back ? 0 : found.index;
        await clock.sleep(idle ? IDLE.waitMs : SPACING_MS, signal);
      } catch (error) {
        if (signal.aborted) break;
        index = 0;
        settling = true;
        await this.#unwell(path, error, failures++, signal);
      }
    this.#troubles.delete(path);
  }

  async #ask(
    path: string,
    signal: AbortSignal,
    index = 0,
  ): Promise<{ readonly value: unknown; readonly index: number }> {
    const { servers } = this.#machine;
    const url = servers.current;
    const { datacenter } = this.config;
    const query = [
      ...(datacenter === undefined ? [] : [`dc=${encodeURIComponent(datacenter)}`]),
      ...(index === 0 ? [] : [`index=${index}`, `wait=${WAIT_S}s`]),
    ].join("&");
    try {
      return await servers.indexed(
        url,
        query === "" ? path : `${path}?${query}`,
        signal,
        index === 0 ? undefined : WAIT_HEAD_MS,
      );
    } catch (error) {
      if (!signal.aborted) servers.turnFrom(url);
      throw error;
    }
  }

  /** Without waiting for a change; a few at a time. */
  async #plainly(path: string, signal: AbortSignal): Promise<{ readonly value: unknown; readonly index: number }> {
    if (this.#reading >= READERS) await new Promise<void>((resolve) => this.#queue.push(resolve));
    else this.#reading++;
    try {
      signal.throwIfAborted();
      return await this.#ask(path, signal);
    } finally {
      const next = this.#queue.shift();
      if (next === undefined) this.#reading--;
      else next();
    }
  }

  #well(path: string): void {
    if (!this.#troubles.delete(path)) return;
    if (this.#troubles.size === 0) this.#machine.log.info(`the Consul "${this.config.name}" answers again`);
    this.#machine.changed();
  }

  async #unwell(path: string, error: unknown, failures: number, signal: AbortSignal): Promise<void> {
    const { clock, random, log, changed } = this.#machine;
    const text = messageOf(error);
    if (this.#troubles.size === 0)
      log.warn(`the Consul "${this.config.name}" does not answer: what is known stays`, { error: text });
    this.#troubles.set(path, text);
    changed();
    const waitMs = jitter(Math.min(RETRY.lastMs, RETRY.firstMs * 2 ** Math.min(failures, 10)), RETRY.share, random);
    await clock.sleep(waitMs, signal).catch(() => {});
  }

  #dirty: (() => void) | undefined;

  /** Reads every service when something happens anywhere. */
  async #sweepAll(signal: AbortSignal): Promise<void> {
    const { clock } = this.#machine;
    let due = true;
    let settling = true;
    let wake: (() => void) | undefined;
    const ring = (again: boolean): void => {
      due = true;
      settling ||= again;
      wake?.();
    };
    this.#dirty = () => ring(false);
    const wakeUp = (): void => wake?.();
    signal.addEventListener("abort", wakeUp, { once: true });
    const bells = ["/v1/health/state/any", "/v1/catalog/nodes"].map((path) =>
      this.#follow(path, signal, (_value, again) => ring(again)),
    );
    const path = "every service";
    let failures = 0;
    while (!signal.aborted) {
      if (!due)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      wake = undefined;
      if (signal.aborted) break;
      const again = settling;
      due = false;
      settling = false;
      const began = clock.monotonic();
      try {
        await Promise.all(
          [...(this.#names ?? [])].map(async (name) => {
            const { value } = await this.#plainly(pathOf(name), signal);
            if (!signal.aborted && !this.isOut(name)) this.#tookService(name, value, again);
          }),
        );
        this.#well(path);
        failures = 0;
        const pauseMs = Math.min(SWEEP.mostMs, Math.max(SWEEP.leastMs, (clock.monotonic() - began) * SWEEP.times));
        await clock.sleep(pauseMs, signal);
      } catch (error) {
        if (signal.aborted) break;
        due = true;
        settling = true;
        await this.#unwell(path, error, failures++, signal);
      }
    }
    this.#dirty = undefined;
    signal.removeEventListener("abort", wakeUp);
    await Promise.all(bells);
  }
}

const pathOf = (service: string): string => `/v1/health/service/${encodeURIComponent(service)}`;
