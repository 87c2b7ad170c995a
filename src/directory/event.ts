// User events as a ring of records in the directory: every host sees them in one order, and the store never holds more than the last 256.
import type { Clock } from "../base/clock.ts";
import { messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { jitter, type Random } from "../base/random.ts";
import type { Agent } from "../contracts/agent.ts";
import type { Directory, View } from "../contracts/directory.ts";
import type { Events } from "../contracts/event.ts";
import { EVENT_KIND, type EventCall, type UserEvent } from "../model/event.ts";
import { type Change, type Entry, type Expect, keyOf, type Scope, scope } from "../model/record.ts";
import { compile } from "../wire/regexp.ts";

/** Events with their life. */
export interface RunningEvents extends Events {
  /** Begins to take events in; what was fired before is past. Starting twice = once. */
  start(): void;
  /** Ends taking in; events that wait to be written are refused with `stopped`. */
  stop(): Promise<void>;
}

export interface EventsBase {
  readonly directory: Directory;
  readonly agent: Pick<Agent, "node" | "services">;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** So many records there are at most, and so many events are remembered. */
const KEPT = 256;
/** So many events that wait are written at once. */
const BATCH = 32;
/** Others fired in between so often: give up. */
const CONTENTION_RETRIES = 50;
/** Consul's limit (Serf's user_event_size_limit): what is taken here is taken there. */
const SIZE_MAX_BYTES = 512;

interface Waiting {
  readonly event: EventCall;
  resolve(fired: UserEvent): void;
  reject(error: unknown): void;
}

/** The directory's events as this host sees them. */
export function createEvents(base: EventsBase): RunningEvents {
  return new Ring(base);
}

class Ring implements RunningEvents {
  readonly scope: Scope = scope.kept(EVENT_KIND);
  readonly #base: EventsBase;
  readonly #log: Log;
  readonly #life = new AbortController();
  readonly #queue: Waiting[] = [];
  #writing: Promise<void> = Promise.resolve();
  #isWriting = false;
  #following: Promise<void> | undefined;
  /** IDs of all events in the directory that have been looked at; undefined before the first look. */
  #known: ReadonlySet<string> | undefined;
  #seenAt = 0;
  #list: readonly UserEvent[] = [];

  constructor(base: EventsBase) {
    this.#base = base;
    this.#log = base.log.part("events");
  }

  start(): void {
    this.#following ??= this.#follow(this.#life.signal).catch((error: unknown) => {
      if (!this.#life.signal.aborted) this.#log.error("events are not taken in any more", { error: messageOf(error) });
    });
  }

  async stop(): Promise<void> {
    this.#life.abort(stopped());
    for (const { reject } of this.#queue.splice(0)) reject(stopped());
    await this.#writing;
    await this.#following;
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { directory } = this.#base;
    await directory.ready(signal);
    for (;;) {
      const view = directory.view();
      this.#take(view);
      await directory.changed(this.scope, view.at(this.scope), signal);
    }
  }

  list(): readonly UserEvent[] {
    this.#take(this.#base.directory.view());
    return this.#list;
  }

  /** Looks for events that were not there before. The first look only remembers what there is: it was not meant for this life of the agent. */
  #take(view: View): void {
    if (this.#following === undefined || this.#life.signal.aborted) return;
    const at = view.at(this.scope);
    if (this.#known !== undefined && at === this.#seenAt) return;
    // A directory that has not been heard yet knows nothing; what it then tells is past as well.
    if (this.#known === undefined && !view.fresh && view.index <= 1) return;
    const all = eventsIn(view);
    const known = this.#known;
    this.#seenAt = at;
    this.#known = new Set(all.map(({ id }) => id));
    if (known === undefined) return;
    const fresh = all.filter((event) => !known.has(event.id) && this.#concerns(event));
    if (fresh.length > 0) this.#list = [...this.#list, ...fresh].slice(-KEPT);
  }

  /** Whether this host is among those that the filters name. */
  #concerns(event: UserEvent): boolean {
    const { agent } = this.#base;
    try {
      if (event.nodeFilter !== "" && !compile(event.nodeFilter).found(agent.node.name)) return false;
      if (event.serviceFilter === "") return true;
      const service = compile(event.serviceFilter);
      const tag = event.tagFilter === "" ? undefined : compile(event.tagFilter);
      for (const { instance } of agent.services().values())
        if (service.found(instance.id) || service.found(instance.name))
          if (tag === undefined || instance.tags.some((each) => tag.found(each))) return true;
      return false;
    } catch (error) {
      // Another version may know patterns that this one does not.
      this.#log.warn(`event ${event.name} (${event.id}) has a filter that is not understood: it is left out`, {
        error: messageOf(error),
      });
      return false;
    }
  }

  fire(event: EventCall): Promise<UserEvent> {
    try {
      check(event);
    } catch (error) {
      return Promise.reject(error);
    }
    if (this.#life.signal.aborted) return Promise.reject(stopped());
    return new Promise((resolve, reject) => {
      this.#queue.push({ event, resolve, reject });
      if (!this.#isWriting) this.#writing = this.#writeAll();
    });
  }

  /** One write at a time, so that events of one host keep their order. */
  async #writeAll(): Promise<void> {
    this.#isWriting = true;
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, BATCH);
      try {
        const fired = await this.#write(batch.map(({ event }) => event));
        this.#take(this.#base.directory.view());
        for (const [i, { resolve }] of batch.entries()) resolve(fired[i] as UserEvent);
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#isWriting = false;
  }

  async #write(calls: readonly EventCall[]): Promise<readonly UserEvent[]> {
    const { directory, random, clock } = this.#base;
    const { signal } = this.#life;
    const ids = calls.map(() => random.uuid());
    for (let tries = 0; tries < CONTENTION_RETRIES; tries++) {
      const slots = slotsOf(directory.view());
      const last = slots.reduce((most, { time }) => Math.max(most, time), 0);
      // Whoever fired in between has taken the same places: the expectations see to it that there is one order.
      const fired: UserEvent[] = [];
      const changes: Change[] = [];
      const expect: Expect[] = [];
      for (const [i, call] of calls.entries()) {
        const { key, id, at } = slots[i] as Slot;
        const event: UserEvent = { ...call, id: ids[i] as string, time: last + 1 + i };
        fired.push(event);
        changes.push({ op: "put", table: "kept", key, value: { kind: EVENT_KIND, id, value: event } });
        expect.push({ table: "kept", key, at });
      }
      const written = await directory.write(changes, expect, signal);
      if (written.result === "written") return fired;
      if (written.result === "unknown")
        throw new TrilithError(
          "timeout",
          "whether the event was fired is not known: the store did not answer",
          written.cause,
        );
      await directory.barrier(signal);
      if (tries > 2) await clock.sleep(jitter(5 * tries, 0.9, random), signal);
    }
    throw new TrilithError("unavailable", `gave up after ${CONTENTION_RETRIES} attempts: others fire all the time`);
  }
}

/** A place for an event: where, what stands there (0 = nothing), and the time of that. */
interface Slot {
  readonly key: string;
  readonly id: string;
  readonly at: number;
  readonly time: number;
}

/** All places: empty ones first, then those of the oldest events. */
function slotsOf(view: View): readonly Slot[] {
  const slots: Slot[] = [];
  for (let i = 0; i < KEPT; i++) {
    const id = String(i).padStart(3, "0");
    const key = keyOf.kept(EVENT_KIND, id);
    const entry = view.get("kept", key);
    slots.push({ key, id, at: entry?.modifyIndex ?? 0, time: eventOf(entry)?.time ?? 0 });
  }
  return slots.sort((a, b) => a.time - b.time);
}

/** All events of a view, oldest first. */
function eventsIn(view: View): readonly UserEvent[] {
  const events: UserEvent[] = [];
  for (const entry of view.list("kept", keyOf.ofKind(EVENT_KIND))) {
    const event = eventOf(entry);
    if (event !== undefined) events.push(event);
  }
  return events.sort((a, b) => a.time - b.time);
}

/** The event in a record; undefined where another version put something else there. */
function eventOf(entry: Entry<"kept"> | undefined): UserEvent | undefined {
  const event = entry?.value as Partial<UserEvent> | undefined;
  return typeof event?.id === "string" && typeof event.time === "number" && event.payload instanceof Uint8Array
    ? (event as UserEvent)
    : undefined;
}

function stopped(): TrilithError {
  return new TrilithError("stopped", "the agent is stopping");
}

/** @throws TrilithError in Consul's words */
function check(event: EventCall): void {
  if (event.name === "") throw new TrilithError("invalid", "User event missing name");
  if (event.tagFilter !== "" && event.serviceFilter === "")
    throw new TrilithError("invalid", "Cannot provide tag filter without service filter");
  for (const what of ["node", "service", "tag"] as const) {
    const pattern = event[`${what}Filter`];
    try {
      if (pattern !== "") compile(pattern);
    } catch (error) {
      throw new TrilithError("invalid", `Invalid ${what} filter: ${messageOf(error)}`, error);
    }
  }
  const { before, after } = sizeOf(event);
  for (const [bytes, when] of [
    [before, "before"],
    [after, "after"],
  ] as const)
    if (bytes > SIZE_MAX_BYTES)
      throw new TrilithError(
        "too-large",
        `user event exceeds configured limit of ${SIZE_MAX_BYTES} bytes ${when} encoding`,
      );
}

/** The bytes that Consul's messages of an event have: what it hands to Serf, and what Serf sends. */
function sizeOf(event: EventCall): { readonly before: number; readonly after: number } {
  // MessagePack's old form: a raw of up to 31 bytes has one byte in front, a longer one three.
  const raw = (bytes: number): number => bytes + (bytes < 32 ? 1 : 3);
  const text = (value: string): number => raw(Buffer.byteLength(value));
  const optional = (key: string, bytes: number): number => (bytes === 0 ? 0 : text(key) + raw(bytes));
  const inner =
    1 +
    text("ID") +
    raw(36) +
    text("n") +
    text(event.name) +
    optional("p", event.payload.length) +
    optional("nf", Buffer.byteLength(event.nodeFilter)) +
    optional("sf", Buffer.byteLength(event.serviceFilter)) +
    optional("tf", Buffer.byteLength(event.tagFilter)) +
    text("v") +
    1;
  const name = Buffer.byteLength(`consul:event:${event.name}`);
  const outer = 2 + text("LTime") + 1 + text("Name") + raw(name) + text("Payload") + raw(inner) + text("CC") + 1;
  return { before: name + inner, after: outer };
}
