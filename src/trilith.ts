// Joins the parts: builds the ground, starts what stands on it, and stops it again, read from top to bottom.

import type { RunningAgent } from "./agent/agent.ts";
import { TrilithError } from "./base/error.ts";
import type { Agent } from "./contracts/agent.ts";
import type { Connector } from "./contracts/connect.ts";
import type { Directory } from "./contracts/directory.ts";
import type { Events } from "./contracts/event.ts";
import type { Self, SourceState } from "./contracts/ground.ts";
import type { Kv } from "./contracts/kv.ts";
import type { Lookup } from "./contracts/lookup.ts";
import type { Magic } from "./contracts/magic.ts";
import type { Prepared } from "./contracts/prepared.ts";
import type { Sessions } from "./contracts/session.ts";
import type { Settings } from "./contracts/settings.ts";
import type { Others } from "./directory/remote/others.ts";
import { type Base, type Frame, type Machine, machineOf, openBase } from "./joins/base.ts";
import { installParts, makeGround } from "./joins/ground.ts";
import { makeAgent, takeCheckTls } from "./joins/host.ts";
import { makeLookup, makeReach } from "./joins/reach.ts";
import { keepRecords, type Records } from "./joins/records.ts";
import { PROTOCOL_NAMES, settingsOf } from "./joins/settings.ts";
import { makeSigns, makeTruth, type Signs, type Truth } from "./joins/truth.ts";
import type { RunningLookup } from "./lookup/lookup.ts";
import { listenForHttp } from "./trilith/listen.ts";
import { Parts } from "./trilith/parts.ts";
import type { Trilith, TrilithOptions } from "./trilith/public.ts";
import { ignoredText, Reloads } from "./trilith/reload.ts";
import { Running } from "./trilith/running.ts";
import { mustFitMachine, toldOf } from "./trilith/settings-rules.ts";
import { dropLeftovers } from "./trilith/sources.ts";
import { Undo } from "./trilith/undo.ts";

export { settingsFaults } from "./joins/settings.ts";
export type { Trilith, TrilithOptions } from "./trilith/public.ts";

/** Builds an agent; nothing starts, no file is touched and no port opened before `start`. */
export function createTrilith(given: Partial<Settings> = {}, options: TrilithOptions = {}): Trilith {
  const settings = settingsOf(given);
  mustFitMachine(options);
  return new Joined(settings, toldOf(options));
}

/** What exists between start and stop. */
interface Built extends Records {
  readonly self: Self;
  readonly directory: Directory;
  readonly agent: RunningAgent;
  readonly lookup: RunningLookup;
  readonly magic: Magic;
  readonly connector: Connector;
}

/** The parts, joined. */
class Joined implements Trilith {
  readonly settings: Settings;
  readonly warnings: string[];
  readonly #machine: Machine;
  readonly #frame: Frame;
  readonly #undo = new Undo();
  readonly #parts = new Parts();
  readonly #stop = new AbortController();
  #leaving: boolean;
  #built: Built | undefined;
  #others: Others | undefined;
  #running: Running | undefined;
  #listenForHttp: (() => Promise<void>) | undefined;
  #reloads: Reloads | undefined;
  #building: Promise<void> | undefined;
  #started: Promise<void> | undefined;
  #stopped: Promise<void> | undefined;
  #reloading: Promise<void> = Promise.resolve();

  constructor(settings: Settings, options: TrilithOptions) {
    this.settings = settings;
    // Who keeps nothing cannot come back as the same host: what it registered elsewhere would be in its own way.
    this.#leaving =
      settings.leaveOnTerm || (settings.dev && (settings.join !== undefined || settings.peers !== undefined));
    this.warnings = settings.ignored.map(ignoredText);
    this.#machine = machineOf(options, this.#undo);
    this.#frame = {
      ...{ settings, undo: this.#undo, parts: this.#parts, listening: new Map() },
      mustGoOn: () => {
        if (this.#stopped !== undefined)
          throw new TrilithError("stopped", "the agent was stopped while it was starting");
      },
    };
  }

  // ---- the start ----

  start(): Promise<void> {
    if (this.#stopped !== undefined) return Promise.reject(new TrilithError("stopped", "the agent has been stopped"));
    this.#building ??= this.#build();
    this.#started ??= this.#building.catch(async (error: unknown) => {
      await this.stop();
      throw error;
    });
    return this.#started;
  }

  async #build(): Promise<void> {
    const base = await openBase(this.#frame, this.#machine);
    const truth = await makeTruth(base);
    const { directory, others } = truth;
    this.#others = others;
    await directory.start();
    base.mustGoOn();
    const agent = await makeAgent(base, truth);
    const lookup = makeLookup(base, truth, agent, () => this.sources());
    const records = keepRecords(base, truth, agent, lookup);
    const reach = await makeReach(base, agent, lookup);
    const built = { self: base.self, directory, agent, lookup, ...records, ...reach };
    this.#built = built;
    const signs = makeSigns(base, truth);
    const ground = makeGround(base, truth, {
      ...built,
      vouch: signs.vouch,
      sources: () => this.sources(),
      firstLists: async () => await this.#running?.firstLists(),
      leaving: () => this.#leaving,
      control: { reload: () => this.reload(), stop: (leave = false) => this.#end(leave) },
    });
    await installParts(base, ground);
    base.mustGoOn();
    await this.#begin(base, truth, built, signs);
  }

  /** Everything stands: the stones first, then what listens, then what comes in. */
  async #begin(base: Base, { others, directory }: Truth, { agent, lookup }: Built, signs: Signs): Promise<void> {
    const { settings, http, listening } = base;
    const [undo, parts] = [this.#undo, this.#parts];
    undo.push("the lookup", () => lookup.stop());
    await lookup.start();
    base.mustGoOn();
    undo.push("the agent", () => (this.#leaving ? agent.leave() : agent.stop()));
    undo.push("the sign of life", () => signs.end());
    const running = new Running({ directory, ...base, agent });
    this.#running = running;
    const front = (own: Parameters<Others["inFrontOf"]>[0]) => others.inFrontOf(own, () => directory);
    this.#listenForHttp = () => listenForHttp({ routes: () => parts.routes, settings, http, front, listening, undo });
    await agent.start(async () => {
      try {
        for (const [protocol, part] of parts.all) {
          base.mustGoOn();
          await running.listen(protocol, part);
        }
      } finally {
        undo.push("the listeners", () => running.closeAll());
      }
      await this.#openHttp();
    });
    base.mustGoOn();
    signs.begin();
    await dropLeftovers({ agent, clock: base.clock, directory }, parts.bringers, PROTOCOL_NAMES);
    base.mustGoOn();
    undo.push("the sources", () => running.silenceAll());
    for (const [protocol, part] of parts.all) await running.tell(protocol, part);
    undo.push("what goes on in the background", () => running.endAll());
    for (const [protocol, part] of parts.all) running.begin(protocol, part);
    base.mustGoOn();
    this.#reloads = new Reloads({
      ...{ settings, parts, agent, self: base.self, log: base.log, net: base.net },
      reread: async () => base.reread && settingsOf(await base.reread()),
      bring: (protocol, part) => running.bring(protocol, part),
      sweep: () => running.sweep(),
      openHttp: () => this.#openHttp(),
      takeGuard: (now) => lookup.takeGuard(now),
      takeCheckTls: (now) => takeCheckTls(now, base),
    });
  }

  /** Once there is something to answer. */
  async #openHttp(): Promise<void> {
    const listen = this.#listenForHttp;
    if (this.settings.httpPort < 0 || this.#parts.routes.length === 0 || listen === undefined) return;
    await listen();
    this.#listenForHttp = undefined;
  }

  // ---- while it runs ----

  reload(): Promise<void> {
    // One after the other: SIGHUP comes when it comes.
    const turn = this.#reloading.then(async () => {
      // What is being begun is not exchanged; whoever stops the agent meanwhile does not wait for that.
      if (this.#reloads === undefined) await Promise.race([this.#building, this.stopped()]);
      this.#frame.mustGoOn();
      if (this.#reloads === undefined) throw new TrilithError("stopped", "the agent has not been started");
      await this.#reloads.reload();
    });
    this.#reloading = turn.catch(() => {});
    return turn;
  }

  sources(): readonly SourceState[] {
    return [...this.#parts.states(), ...(this.#others?.state() ?? [])];
  }

  async settled(limitMs: number): Promise<void> {
    const limit = new AbortController();
    await Promise.race([this.#running?.firstLists(), this.#machine.clock.sleep(limitMs, limit.signal)]);
    limit.abort();
  }

  get self(): Self {
    return this.#whole.self;
  }
  get directory(): Directory {
    return this.#whole.directory;
  }
  get agent(): Agent {
    return this.#whole.agent;
  }
  get lookup(): Lookup {
    return this.#whole.lookup;
  }
  get kv(): Kv {
    return this.#whole.kv;
  }
  get sessions(): Sessions {
    return this.#whole.sessions;
  }
  get events(): Events {
    return this.#whole.events;
  }
  get prepared(): Prepared {
    return this.#whole.prepared;
  }
  get connector(): Connector {
    return this.#whole.connector;
  }
  get magic(): Magic {
    return this.#whole.magic;
  }
  get #whole(): Built {
    if (this.#built === undefined) throw new TrilithError("stopped", "the agent has not been started");
    return this.#built;
  }

  // ---- the end ----

  stopped(signal?: AbortSignal): Promise<void> {
    const either = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal]);
    if (either.aborted) return Promise.resolve();
    return new Promise((resolve) => either.addEventListener("abort", () => resolve(), { once: true }));
  }

  #end(leave: boolean): void {
    this.#leaving ||= leave;
    this.#stop.abort();
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#undoAll();
    this.#stop.abort();
    return this.#stopped;
  }

  async #undoAll(): Promise<void> {
    const { log } = this.#machine;
    await this.#reloading;
    await this.#undo.all(log);
    // A start under way ends at its next step, for what it builds upon is gone; what it made meanwhile goes, too.
    await this.#building?.catch(() => {});
    await this.#undo.all(log);
  }
}
