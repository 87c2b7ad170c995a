// The source "docker": the containers of all its engines as one list, and what Docker's HEALTHCHECK says of them.
import { Bell } from "../../base/bells.ts";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { messageOf } from "../../base/error.ts";
import type { Http } from "../../base/http.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Agent } from "../../contracts/agent.ts";
import type { Source, SourceList } from "../../contracts/source.ts";
import type { Outcome } from "../../model/check.ts";
import type { Registration } from "../../model/instance.ts";
import type { Reason } from "../../model/reason.ts";
import { type EngineOptions, EngineWatch, type Present, type RunningContainer } from "./engine-watch.ts";
import { type Container, describe, shortId } from "./inspect.ts";
import { type Complaint, healthCheckId } from "./registrator.ts";

/** The main engine, and others besides. */
export interface DockerOptions extends EngineOptions {
  readonly others?: readonly EngineOptions[];
}

export interface DockerMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly http: Http;
  readonly log: Log;
  /** `services`: what is held from before, so that an engine that is away at the start hides nobody. */
  readonly agent: Pick<Agent, "report"> & Partial<Pick<Agent, "services">>;
  /** Told at once, before anybody is asked to adopt anything, which containers run; one twice where two sockets lead to its engine. */
  readonly running?: (containers: Iterable<RunningContainer>) => void;
}

const NAME = "docker";

/** What one `watch` knows. */
class Watch {
  readonly #machine: DockerMachine;
  readonly #bell = new Bell();
  engines: readonly EngineWatch[];
  readonly #ends = new Map<EngineWatch, AbortController>();
  readonly #following = new Set<Promise<void>>();
  /** Follows what there is until then; undefined before it began. */
  #until: AbortSignal | undefined;
  /** Containers of engines that nobody asks for any more, until that is told. */
  readonly #unasked = new Set<string>();
  readonly #drained = new WeakMap<Registration, Registration>();
  readonly #reported = new Map<string, string>();
  #last: { readonly list: readonly Registration[]; readonly complaints: string } | undefined;
  /** Service ID → container ID. */
  #owners = new Map<string, string>();
  #present: readonly Present[] = [];

  constructor(options: DockerOptions, machine: DockerMachine) {
    this.#machine = machine;
    this.engines = this.#enginesOf(options);
  }

  /** Those that are followed already go on under these options. */
  #enginesOf(options: DockerOptions, known: readonly EngineWatch[] = []): readonly EngineWatch[] {
    const before = heldByEngine(this.#machine);
    return [options, ...(options.others ?? [])].map((one) => {
      const name = one.name ?? "";
      const same = known.find((engine) => engine.name === name);
      same?.retell(one);
      return same ?? new EngineWatch(one, this.#machine, before.get(name) ?? new Map(), () => this.#ring());
    });
  }

  /** Follows other engines from now on, or reads their containers otherwise. */
  retell(options: DockerOptions): void {
    const before = this.engines;
    this.engines = this.#enginesOf(options, before);
    for (const engine of before)
      if (!this.engines.includes(engine)) {
        for (const id of engine.containers()) this.#unasked.add(id);
        this.#ends.get(engine)?.abort(new Error("the configuration no longer names this engine"));
        this.#ends.delete(engine);
      }
    if (this.#until !== undefined) this.#followAll(this.#until);
    this.#ring();
  }

  #followAll(signal: AbortSignal): void {
    for (const engine of this.engines) {
      if (this.#ends.has(engine)) continue;
      const end = new AbortController();
      this.#ends.set(engine, end);
      const following = engine
        .follow(AbortSignal.any([signal, end.signal]))
        .catch((error: unknown) => this.#machine.log.error(`an engine is followed no more: ${messageOf(error)}`))
        .finally(() => this.#following.delete(following));
      this.#following.add(following);
    }
  }

  #ring(): void {
    this.#bell.ring();
    this.#machine.running?.(this.running());
  }

  *running(): Generator<RunningContainer, void, void> {
    for (const engine of this.engines) yield* engine.running();
  }

  async *lists(signal: AbortSignal): AsyncGenerator<SourceList, void, void> {
    const inner = new AbortController();
    const onAbort = (): void => {
      inner.abort(signal.reason);
      this.#bell.ring();
    };
    if (signal.aborted) return;
    signal.addEventListener("abort", onAbort, { once: true });
    this.#until = inner.signal;
    this.#followAll(inner.signal);
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
      await Promise.all(this.#following);
    }
  }

  /** The whole list, if it is different from the last one (and there is one at all). */
  #compose(): SourceList | undefined {
    const heard = this.engines.map((engine) => ({ engine, now: engine.present() }));
    // An engine that may be absent and is has nothing to say; where all of them are, what stands stays.
    const isUnheard = heard.every(({ now }) => now === undefined);
    if (isUnheard && this.#unasked.size === 0) return undefined;
    const complaints: Complaint[] = [];
    const owners = new Map<string, string>();
    const present: Present[] = [];
    const list: Registration[] = [];
    const seen = new Set<string>();
    const add = (registration: Registration, containerId: string, aside: boolean): void => {
      const owner = owners.get(registration.id);
      if (owner === undefined) {
        owners.set(registration.id, containerId);
        list.push(aside ? this.#drain(registration) : registration);
      } else
        complaints.push({
          about: registration.text ?? registration.id,
          text: `not registered: container ${shortId(owner)} has the ID "${registration.id}" already`,
        });
    };
    for (const { engine, now } of heard) {
      if (now === undefined && (isUnheard || !engine.absent))
        for (const held of engine.heldBefore) add(held, containerOf(held.foreignId ?? ""), false);
      complaints.push(...(now?.complaints ?? []));
      for (const one of now?.containers ?? []) {
        // Two sockets may lead to one engine (podman-docker's does).
        if (seen.has(one.container.id)) continue;
        seen.add(one.container.id);
        present.push(one);
        for (const registration of one.translation.registrations) add(registration, one.container.id, one.aside);
      }
    }
    this.#present = present;

    const departed = new Map(this.engines.flatMap((engine) => [...engine.departed()]));
    const gone = new Map<string, Reason>();
    for (const [id, containerId] of this.#owners)
      if (!owners.has(id))
        gone.set(id, departed.get(containerId) ?? this.#unaskedFor(containerId) ?? this.#replaced(containerId, id));
    this.#owners = owners;
    this.#unasked.clear();
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

  #unaskedFor(containerId: string): Reason | undefined {
    if (!this.#unasked.has(containerId)) return undefined;
    const text = `the configuration of ${NAME} no longer asks for it`;
    return { code: "deregistered", text, confirmed: true, atMs: this.#machine.clock.now() };
  }

  #replaced(containerId: string, id: string): Reason {
    const container = this.#present.find((one) => one.container.id === containerId)?.container;
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

  /** Hands what Docker's HEALTHCHECK says to the agent, which has adopted the list by now. */
  async #report(): Promise<void> {
    const current = new Set<string>();
    for (const { container, translation } of this.#present) {
      for (const registration of translation.registrations) {
        const checkId = healthCheckId(registration.id);
        if (
          !registration.checks.some((check) => check.id === checkId) ||
          this.#owners.get(registration.id) !== container.id
        )
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

/** The container an identity speaks of: "<container>:80/tcp", with "@<engine>" behind it for all but the main one. */
function containerOf(foreignId: string): string {
  return foreignId.split(":", 1)[0] ?? "";
}

/** What the agent held of this source when it began, by engine and container. */
function heldByEngine({ agent }: DockerMachine): Map<string, Map<string, Registration[]>> {
  const engines = new Map<string, Map<string, Registration[]>>();
  for (const { instance, checks } of agent.services?.().values() ?? []) {
    const { origin, node: _, draining: __, ...facts } = instance;
    if (origin.source !== NAME || origin.foreignId === undefined) continue;
    const engine = engineNameOf(origin.foreignId);
    const containers = engines.get(engine) ?? new Map<string, Registration[]>();
    const container = containerOf(origin.foreignId);
    const held = {
      ...facts,
      checks,
      foreignId: origin.foreignId,
      ...(origin.text === undefined ? {} : { text: origin.text }),
    };
    engines.set(engine, containers.set(container, [...(containers.get(container) ?? []), held]));
  }
  return engines;
}

/** The name an engine has in the identities of its containers, with its own ID: "far/3f2a…". */
export function engineIdentity(name: string, id: string): string {
  return `${encodeURIComponent(name)}/${id}`;
}

function engineNameOf(foreignId: string): string {
  const [, name = ""] = /@([^@/]*)\/[^@]*$/.exec(foreignId) ?? [];
  return decodeURIComponent(name);
}

function outcomeOf({ health }: Container): Outcome {
  if (health.status === "healthy") return { status: "passing", output: health.output };
  const output =
    health.status === "starting" ? "Docker: starting, not healthy yet" : health.output || "Docker: unhealthy";
  return { status: "critical", output };
}

/** The source, with what a reload takes. */
export interface DockerSource extends Source {
  /**
   * Other options from now on: an engine of the same name is followed on over its connection, where it is reached as before; a container's registrations are
   * others only where the options say so, and go where its engine is no longer named.
   */
  retell(options: DockerOptions): void;
  /** The containers that run, as far as the engines were heard. */
  running(): Iterable<RunningContainer>;
}

/** Makes the source. Each `watch` has connections of its own; `state` tells of the last one. */
export function dockerSource(first: DockerOptions, machine: DockerMachine): DockerSource {
  let options = first;
  let watching: Watch | undefined;
  return {
    name: NAME,
    watch(signal) {
      watching = new Watch(options, machine);
      return watching.lists(signal);
    },
    retell(now) {
      options = now;
      watching?.retell(now);
    },
    running: () => watching?.running() ?? [],
    state() {
      const [main, ...others] = watching?.engines ?? [];
      if (main === undefined) return { ok: true, text: "not started" };
      // Of engines that need not be there and are not, nobody wants to hear beside one that is.
      const told = [main, ...others].filter((engine) => !engine.absent);
      const shown = told.length === 0 ? [main] : told;
      return {
        ok: shown.every(({ ok }) => ok),
        text: shown.map(({ name, text }) => (name === "" ? text : `${name}: ${text}`)).join("; "),
      };
    },
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
