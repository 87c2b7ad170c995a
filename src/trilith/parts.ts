// The parts that the protocols put at the agent's disposal, taken together: their sources, their probes, what they tell of themselves.
import type { Clock } from "../base/clock.ts";
import { messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { SourceState } from "../contracts/ground.ts";
import type { Lookup } from "../contracts/lookup.ts";
import type { Probe } from "../contracts/probe.ts";
import type { Part, Route, Told } from "../contracts/protocol.ts";
import type { Source } from "../contracts/source.ts";
import { bringerOf } from "./sources.ts";

/** What a dialect would answer is waited for at most so long. */
const ANSWER_MS = 3_000;

/** A protocol of the list, as it is needed here. */
export interface ListedProtocol {
  readonly name: string;
  /** Where its configuration stands in a file, for messages. */
  readonly key: string;
  /** Only checks its configuration; true where that switches it off. @throws TrilithError `invalid` with the key and what would be right */
  check(raw: unknown): Promise<boolean>;
  /** Undefined = it is off. @throws TrilithError as `check` */
  install(raw: unknown): Promise<Part | undefined>;
}

/** Brings what runs to what a protocol's part is now. @throws TrilithError where that is not possible: everything runs as it did */
export type Bring = (protocol: string, part: Part | undefined) => Promise<void>;

/** One protocol. */
interface Slot {
  readonly protocol: ListedProtocol;
  part: Part | undefined;
  /** The configuration that counts. */
  raw: unknown;
}

export class Parts {
  /** Ways to ask "alive?", by kind: the built-in ones and those of the protocols. */
  readonly probes: Map<string, Probe> = new Map();
  readonly #slots: Slot[] = [];
  #all: readonly (readonly [protocol: string, part: Part])[] = [];
  #routes: readonly Route[] = [];

  /** Makes the part of a protocol. @throws TrilithError `invalid` with the key and what would be right */
  async add(protocol: ListedProtocol, raw: unknown): Promise<void> {
    const slot: Slot = { protocol, part: await protocol.install(raw), raw };
    this.#slots.push(slot);
    this.#put(slot, slot.part);
  }

  addProbes(probes: Iterable<Probe>): void {
    for (const probe of probes) this.probes.set(probe.kind, probe);
  }

  /** In the order in which they start. */
  get all(): readonly (readonly [protocol: string, part: Part])[] {
    return this.#all;
  }

  /** What is answered over HTTP; another list after a change. */
  get routes(): readonly Route[] {
    return this.#routes;
  }

  get sources(): readonly Source[] {
    return this.#all.flatMap(([, { source }]) => source ?? []);
  }

  /** Under which names services are brought in. */
  get bringers(): ReadonlySet<string> {
    return new Set(this.#all.flatMap(([protocol, part]) => bringerOf(protocol, part) ?? []));
  }

  get upstreams(): readonly Pick<Lookup, "resolve">[] {
    return this.#all.flatMap(([, { upstream }]) => upstream ?? []);
  }

  /** How it goes with every source. */
  states(): readonly SourceState[] {
    const states = this.sources.map((source) => ({ name: source.name, ...source.state() }));
    for (const [, part] of this.#all) states.push(...(part.states?.() ?? []));
    return states;
  }

  /** What each dialect would answer about a service now; what fails in one is told in its place. */
  async answers(
    service: string,
    signal: AbortSignal,
    clock: Clock,
  ): Promise<readonly ({ readonly protocol: string } & Told)[]> {
    const limit = new AbortController();
    const timer = clock.after(ANSWER_MS, () =>
      limit.abort(new TrilithError("timeout", `it did not answer within ${ANSWER_MS} ms`)),
    );
    const either = AbortSignal.any([signal, limit.signal]);
    const told = await Promise.all(
      this.#all.map(async ([protocol, part]) => {
        try {
          return ((await part.answers?.(service, either)) ?? []).map((one) => ({ protocol, ...one }));
        } catch (error) {
          return [{ protocol, to: "everybody", text: `could not be asked: ${messageOf(error)}` }];
        }
      }),
    );
    timer.cancel();
    return told.flat();
  }

  /**
   * Has every part read its files again, and take its configuration where that is told anew: by itself, or by being made anew where it is another
   * one (a protocol that was off is switched on so, and the other way round). What still needs a restart is told; a part that cannot is logged, and
   * what stood goes on.
   * @throws what the first of them failed with, when all have been asked
   */
  async reload(log: Log, bring: Bring, configurationOf?: (protocol: string) => unknown): Promise<void> {
    const failures: unknown[] = [];
    for (const slot of this.#slots)
      try {
        const { name } = slot.protocol;
        if (configurationOf === undefined) await this.#again(slot, undefined, bring);
        else await this.#take(slot, configurationOf(name), bring, log);
      } catch (error) {
        failures.push(error);
        log.error(`${slot.protocol.name}: could not read everything again`, { error: messageOf(error) });
      }
    if (failures.length > 0) throw failures[0];
  }

  /** Lets a part read again; what it puts at the agent's disposal may be something else then. */
  async #again(slot: Slot, read: { readonly raw: unknown } | undefined, bring: Bring): Promise<void> {
    const { protocol, part } = slot;
    await part?.reload?.(read);
    try {
      await bring(protocol.name, part);
    } catch (error) {
      if (read !== undefined) await part?.reload?.({ raw: slot.raw });
      await bring(protocol.name, part);
      throw error;
    } finally {
      this.#put(slot, part);
    }
  }

  async #take(slot: Slot, raw: unknown, bring: Bring, log: Log): Promise<void> {
    const { protocol, part } = slot;
    const isSame = textOf(raw) === textOf(slot.raw);
    const isOff = !isSame && (await protocol.check(raw));
    if (part?.rereads === true && !isOff) {
      await this.#again(slot, { raw }, bring);
      slot.raw = raw;
      return;
    }
    if (isSame) return await this.#again(slot, undefined, bring);
    if (part !== undefined && !isOff && part.rereads === undefined) {
      log.warn(`${protocol.key} is another one now: it counts after a restart`);
      return await this.#again(slot, undefined, bring);
    }
    const next = isOff ? undefined : await protocol.install(raw);
    await bring(protocol.name, next);
    slot.raw = raw;
    this.#put(slot, next);
    if (part === undefined && next !== undefined) log.info(`${protocol.name} is switched on`);
    if (part !== undefined)
      log.info(`${protocol.name} ${next === undefined ? "is switched off" : "has another configuration"}`);
    // What it finds in its files belongs to the answer, as with one that stays.
    await next?.reload?.();
  }

  #put(slot: Slot, part: Part | undefined): void {
    if (slot.part !== part)
      for (const probe of slot.part?.probes ?? [])
        if (this.probes.get(probe.kind) === probe) this.probes.delete(probe.kind);
    slot.part = part;
    this.addProbes(part?.probes ?? []);
    this.#all = this.#slots.flatMap((each) =>
      each.part === undefined ? [] : [[each.protocol.name, each.part] as const],
    );
    this.#routes = this.#all.flatMap(([, { routes }]) => routes ?? []);
  }
}

/** To see whether a configuration is another one. */
function textOf(raw: unknown): string {
  return JSON.stringify(raw ?? null, (_key, value: unknown) => (value instanceof Set ? [...value] : value));
}
