// The parts that the protocols put at the agent's disposal, taken together: their sources, their probes, what they tell of themselves.
import type { Clock } from "../base/clock.ts";
import { messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { SourceState } from "../contracts/ground.ts";
import type { Lookup } from "../contracts/lookup.ts";
import type { Probe } from "../contracts/probe.ts";
import type { Part, Told } from "../contracts/protocol.ts";
import type { Source } from "../contracts/source.ts";
import type { Undo } from "./undo.ts";

/** What a dialect would answer is waited for at most so long. */
const ANSWER_MS = 3_000;

export class Parts {
  /** Ways to ask "alive?", by kind: the built-in ones and those of the protocols. */
  readonly probes: Map<string, Probe> = new Map();
  readonly #all: Part[] = [];
  readonly #protocols = new Map<Part, string>();
  /** By protocol: the configuration that counts until a restart, where its part does not see to another one or there is none. */
  readonly #untilRestart = new Map<string, { readonly isOff: boolean; readonly text: string }>();

  /** `told`: the raw configuration that the part was made with; no part = it is off. */
  add(protocol: string, part: Part | undefined, told: unknown): void {
    if (part?.rereads !== true) this.#untilRestart.set(protocol, { isOff: part === undefined, text: textOf(told) });
    if (part === undefined) return;
    this.#all.push(part);
    this.#protocols.set(part, protocol);
    this.addProbes(part.probes ?? []);
  }

  addProbes(probes: Iterable<Probe>): void {
    for (const probe of probes) this.probes.set(probe.kind, probe);
  }

  get all(): readonly Part[] {
    return this.#all;
  }

  get sources(): readonly Source[] {
    return this.#all.flatMap(({ source }) => source ?? []);
  }

  get upstreams(): readonly Pick<Lookup, "resolve">[] {
    return this.#all.flatMap(({ upstream }) => upstream ?? []);
  }

  /** How it goes with every source. */
  states(): readonly SourceState[] {
    const states = this.sources.map((source) => ({ name: source.name, ...source.state() }));
    for (const part of this.#all) states.push(...(part.states?.() ?? []));
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
      this.#all.map(async (part) => {
        const protocol = this.#protocols.get(part) ?? "";
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

  /** Begins what goes on while the agent runs. */
  begin(undo: Undo): void {
    for (const { background } of this.#all) {
      if (background === undefined) continue;
      undo.push("what goes on in the background", () => background.stop());
      background.start();
    }
  }

  /**
   * Has every part read its files again, and its configuration where that is told anew; a part that cannot is logged, and whose configuration
   * only counts after a restart as well.
   * @throws what the first of them failed with, when all have been asked
   */
  async reload(log: Log, configurationOf?: (protocol: string) => unknown): Promise<void> {
    const failures: unknown[] = [];
    for (const part of this.#all) {
      const protocol = this.#protocols.get(part) ?? "";
      try {
        await part.reload?.(configurationOf === undefined ? undefined : { raw: configurationOf(protocol) });
      } catch (error) {
        failures.push(error);
        log.error(`${protocol}: could not read everything again`, { error: messageOf(error) });
      }
    }
    if (configurationOf !== undefined)
      for (const [protocol, { isOff, text }] of this.#untilRestart) {
        const now = textOf(configurationOf(protocol));
        if (now !== text && !(isOff && NOT_ON.has(now)))
          log.warn(`the configuration of ${protocol} is another one now: it counts after a restart`);
      }
    if (failures.length > 0) throw failures[0];
  }
}

/** What switches on nothing that is off. */
const NOT_ON: ReadonlySet<string> = new Set(["null", "false"]);

/** To see whether a configuration is another one. */
function textOf(raw: unknown): string {
  return JSON.stringify(raw ?? null);
}
