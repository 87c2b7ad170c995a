// Sessions: made, renewed and ended by expectations, with their locks; lock delays and keys' times to live run out here.
import { setMaxListeners } from "node:events";
import type { Clock } from "../base/clock.ts";
import { Deadlines } from "../base/deadlines.ts";
import { codeOf, messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import type { Directory, View } from "../contracts/directory.ts";
import { SessionRefused, type SessionRequest, type Sessions, textOf } from "../contracts/session.ts";
import { type Change, type Entry, type Expect, type Index, keyOf, type Session } from "../model/record.ts";
import {
  aboutOf,
  checksOf,
  type Due,
  type Dues,
  dropRecord,
  faultOf,
  KINDS,
  LOCK_DELAY_MAX_MS,
  living,
  putRecord,
  recordKey,
  recordOf,
  WATCHED,
} from "./locks.ts";

/** What sessions need. */
export interface SessionBase {
  readonly directory: Directory & { readonly maxChanges: number };
  /** True where other processes write the same directory. */
  readonly shared: boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly dues: Dues;
}

/** Sessions with their life. Starting twice = once; stopping before starting = nothing. */
export interface RunningSessions extends Sessions {
  /** Begins to end what is over, as soon as the directory is ready. */
  start(): void;
  /** Ends all work. No session ends by it. */
  stop(): Promise<void>;
}

/** A session ends when it was not renewed for so many times its TTL (as in Consul). */
const GRACE = 2;
/** Shared directories: so many times within a TTL each process looks whether a session was renewed elsewhere. */
const LOOKS_PER_TTL = 4;
/** Shared directories: renewals closer together than this part of the TTL are told to the others only once. */
const TELL_PART = 8;
/** A deadline seen later than this part of the TTL tells of this process having slept; what is awake longer hears whoever renews in time. */
const OVERSLEPT_PART = 2;
/** After a look at many sessions nothing is looked at for so many times as long as that took. */
const REST_FACTOR = 4;
const LONGEST_REST_MS = 500;
const RETRY_MS = 1000;
/** How long a reader waits for a store that does not answer. */
const SETTLE_MS = 1000;
/** Somebody else wrote the same records in between so often: give up. */
const TRIES = 100;

/** What is known of a session's time to live. */
interface Track {
  readonly createIndex: Index;
  /** The sign of renewal last seen, by its modifyIndex. */
  renewedAt: Index;
  /** Monotonic milliseconds: the last renewal as known here, when to look next, when a renewal was last told to others. */
  seenAtMs: number;
  lookAtMs: number;
  toldAtMs: number;
}

/** Builds it; nothing runs before `start`. */
export function createSessions(base: SessionBase): RunningSessions {
  return new SessionKeeper(base);
}

class SessionKeeper implements RunningSessions {
  readonly #base: SessionBase;
  readonly #directory: SessionBase["directory"];
  readonly #log: Log;
  readonly #timers: Deadlines;
  readonly #tracks = new Map<string, Track>();
  /** Records that have a timer, with the state of theirs that it is for. */
  readonly #armed = new Map<string, Index>();
  readonly #life = new AbortController();
  /** Work begun by timers. */
  readonly #running = new Set<Promise<unknown>>();
  #loop: Promise<void> | undefined;
  /** Where each watched scope stood at the last look that was carried through. */
  #looked: readonly Index[] = WATCHED.map(() => 0);
  #waiting: (() => void)[] = [];
  /** Cuts a rest short. */
  #wake: (() => void) | undefined;

  constructor(base: SessionBase) {
    this.#base = base;
    this.#directory = base.directory;
    this.#log = base.log.part("sessions");
    this.#timers = new Deadlines(base.clock, (name) => this.#due(name));
    // Every end under way listens.
    setMaxListeners(0, this.#life.signal);
  }

  start(): void {
    if (this.#life.signal.aborted) return;
    this.#loop ??= this.#watch(this.#life.signal).catch((error: unknown) => {
      if (!this.#life.signal.aborted && codeOf(error) !== "stopped")
        this.#log.error(`sessions are not looked after any more: ${messageOf(error)}`);
    });
  }

  async stop(): Promise<void> {
    this.#life.abort(new TrilithError("stopped", "sessions are not looked after any more"));
    this.#timers.clear();
    await Promise.allSettled([this.#loop, ...this.#running]);
    this.#timers.clear();
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  living(view: View, id: string): Entry<"session"> | undefined {
    return living(view, id);
  }

  list(view: View, node?: string): readonly Entry<"session">[] {
    const of = node?.toLowerCase();
    const sessions: Entry<"session">[] = [];
    for (const session of view.list("session"))
      if (session.ended !== true && (of === undefined || session.node.toLowerCase() === of)) sessions.push(session);
    return sessions;
  }

  async create(request: SessionRequest): Promise<string> {
    const session: Session = { ...request, id: this.#base.random.uuid() };
    const change: Change = { op: "put", table: "session", key: keyOf.session(session.id), value: session };
    for (let caughtUp = false, tries = 0; tries < TRIES; tries++) {
      const view = this.#directory.view();
      const fault = faultOf(view, session);
      if (fault !== undefined && caughtUp) throw new SessionRefused(fault);
      if (fault === undefined) {
        const expect: Expect[] = [{ table: "node", key: keyOf.node(session.node), at: 0 }];
        for (const check of checksOf(session))
          expect.push({ table: "check", key: keyOf.check(session.node, check), at: 0 });
        const standing = expect.map(({ table, key }) => ({ table, key, at: view.get(table, key)?.modifyIndex ?? 0 }));
        if (await this.#write([change], standing)) {
          this.#track(this.#directory.view(), session.id);
          return session.id;
        }
      }
      await this.#directory.barrier();
      caughtUp = true;
    }
    throw new TrilithError(
      "unavailable",
      `others wrote the checks of node "${request.node}" ${TRIES} times in between`,
    );
  }

  async destroy(id: string): Promise<void> {
    // A session made elsewhere a moment ago may not be seen here yet.
    if (this.#directory.view().get("session", id) === undefined) await this.#directory.barrier();
    await this.#end(id, () => "it was destroyed");
  }

  async renew(id: string): Promise<Entry<"session"> | undefined> {
    const { clock, shared, random } = this.#base;
    for (let tries = 0; tries < TRIES; tries++) {
      let session = living(this.#directory.view(), id);
      if (session === undefined) {
        await this.#directory.barrier();
        session = living(this.#directory.view(), id);
      }
      if (session === undefined || session.ttlMs === undefined) return session;
      const now = clock.monotonic();
      const track = this.#track(this.#directory.view(), id);
      if (track === undefined) return session;
      if (shared && now - track.toldAtMs >= session.ttlMs / TELL_PART) {
        const told = await this.#write(
          [putRecord(KINDS.renewed, id, random.uuid())],
          [{ table: "session", key: keyOf.session(id), at: session.modifyIndex }],
        );
        if (!told) {
          await this.#directory.barrier();
          continue;
        }
        track.toldAtMs = now;
      }
      // It may have ended while this was written.
      const current = living(this.#directory.view(), id);
      if (current === undefined) continue;
      track.seenAtMs = now;
      track.renewedAt = recordOf(this.#directory.view(), KINDS.renewed, id)?.modifyIndex ?? 0;
      this.#arm(id, track, session.ttlMs);
      return current;
    }
    throw new TrilithError("unavailable", `others wrote session ${id} ${TRIES} times in between`);
  }

  async settled(signal?: AbortSignal): Promise<void> {
    const view = this.#directory.view();
    if (this.#loop === undefined || (view.count("session") === 0 && view.count("kept") === 0)) return;
    const wanted = WATCHED.map((scope) => view.at(scope));
    const done = (): boolean => this.#life.signal.aborted || wanted.every((at, i) => at <= (this.#looked[i] ?? 0));
    if (done()) return;
    let late = false;
    const timer = this.#base.clock.after(SETTLE_MS, () => {
      late = true;
      this.#tell();
    });
    try {
      while (!done() && !late && signal?.aborted !== true) {
        this.#wake?.();
        await new Promise<void>((resolve) => {
          this.#waiting.push(resolve);
        });
      }
    } finally {
      timer.cancel();
    }
  }

  #tell(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** True: written; false: somebody else was faster. @throws TrilithError `timeout` where nobody knows */
  async #write(changes: readonly Change[], expect: readonly Expect[]): Promise<boolean> {
    const written = await this.#directory.write(changes, expect, this.#life.signal);
    if (written.result === "unknown")
      throw new TrilithError("timeout", `whether it was written is not known: ${written.cause.message}`, written.cause);
    return written.result === "written";
  }

  /** Looks at everything whenever something that counts has moved, for ever. */
  async #watch(signal: AbortSignal): Promise<void> {
    const { clock, dues } = this.#base;
    await this.#directory.ready(signal);
    dues.watchFrom(this.#directory.view().index);
    while (!signal.aborted) {
      const view = this.#directory.view();
      const began = clock.monotonic();
      const carriedThrough = view.fresh && (await this.#look(view));
      const tookMs = clock.monotonic() - began;
      if (carriedThrough) {
        this.#looked = WATCHED.map((scope) => view.at(scope));
        this.#tell();
        // Hundreds of thousands of changes a minute must not mean as many looks at thousands of sessions.
        if (tookMs > 5) await this.#rest(Math.min(tookMs * REST_FACTOR, LONGEST_REST_MS), signal);
        await this.#moved(view, signal);
      } else await this.#rest(RETRY_MS, signal);
    }
  }

  #rest(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const end = (): void => {
        timer.cancel();
        this.#wake = undefined;
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = this.#base.clock.after(ms, end);
      this.#wake = end;
      signal.addEventListener("abort", end, { once: true });
    });
  }

  async #moved(view: View, signal: AbortSignal): Promise<void> {
    const round = new AbortController();
    const pass = (): void => round.abort(signal.reason);
    if (signal.aborted) pass();
    signal.addEventListener("abort", pass, { once: true });
    const waits = WATCHED.map((scope) => this.#directory.changed(scope, view.at(scope), round.signal));
    try {
      await Promise.race(waits);
    } finally {
      signal.removeEventListener("abort", pass);
      round.abort(new TrilithError("stopped", "another scope moved first"));
      for (const wait of waits) wait.catch(() => {});
    }
  }

  /** Ends what is over by the view, and sets the clock for the rest. False: not all could be ended. */
  async #look(view: View): Promise<boolean> {
    const over: string[] = [];
    for (const session of view.list("session")) {
      if (session.ended === true || faultOf(view, session, session.createIndex) !== undefined) over.push(session.id);
      else this.#track(view, session.id);
    }
    for (const id of this.#tracks.keys())
      if (view.get("session", id) === undefined) {
        this.#tracks.delete(id);
        this.#timers.delete(sessionTimer(id));
      }
    this.#base.dues.prune(view);
    for (const key of this.#armed.keys())
      if (view.get("kept", key) === undefined) {
        this.#armed.delete(key);
        this.#timers.delete(dueTimer(key));
      }
    for (const kind of [KINDS.delay, KINDS.ttl])
      for (const record of view.list("kept", keyOf.ofKind(kind))) this.#armDue(record);
    const results = await Promise.allSettled(
      over.map((id) =>
        this.#end(id, (now, session) => {
          const fault = faultOf(now, session, session.createIndex);
          return fault === undefined ? undefined : textOf(fault);
        }),
      ),
    );
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined && !this.#life.signal.aborted)
      this.#log.warn(`not all sessions that are over could be ended, trying again: ${messageOf(failed.reason)}`);
    return failed === undefined;
  }

  /** A session's time to live, counted from when it is first seen here. Undefined without one. */
  #track(view: View, id: string): Track | undefined {
    const session = view.get("session", id);
    if (session?.ttlMs === undefined) return undefined;
    let track = this.#tracks.get(id);
    if (track?.createIndex !== session.createIndex) {
      const now = this.#base.clock.monotonic();
      track = {
        createIndex: session.createIndex,
        renewedAt: recordOf(view, KINDS.renewed, id)?.modifyIndex ?? 0,
        seenAtMs: now,
        lookAtMs: now,
        toldAtMs: Number.NEGATIVE_INFINITY,
      };
      this.#tracks.set(id, track);
      this.#arm(id, track, session.ttlMs);
    }
    return track;
  }

  /** How long after its last renewal, as seen here, a session ends: where others renew, too, it is seen up to a look late. */
  #graceMs(ttlMs: number): number {
    return this.#base.shared ? ttlMs * (GRACE - 1 / LOOKS_PER_TTL) : ttlMs * GRACE;
  }

  #arm(id: string, track: Track, ttlMs: number): void {
    if (this.#life.signal.aborted) return;
    const now = this.#base.clock.monotonic();
    const leftMs = Math.max(0, track.seenAtMs + this.#graceMs(ttlMs) - now);
    const nextMs = this.#base.shared ? Math.min(leftMs, ttlMs / LOOKS_PER_TTL) : leftMs;
    track.lookAtMs = now + nextMs;
    this.#timers.set(sessionTimer(id), nextMs);
  }

  #armDue(record: Entry<"kept">): void {
    const key = keyOf.kept(record.kind, record.id);
    if (this.#armed.get(key) === record.modifyIndex) return;
    this.#armed.set(key, record.modifyIndex);
    this.#timers.set(dueTimer(key), Math.max(0, this.#base.dues.remainingMs(record)));
  }

  /** A timer has run out. */
  #due(name: string): void {
    if (this.#life.signal.aborted) return;
    const about = name.slice(2);
    const work = (name === sessionTimer(about) ? this.#lookAt(about) : this.#carryOutDue(about)).catch(
      (error: unknown) => {
        if (this.#life.signal.aborted || codeOf(error) === "stopped") return;
        this.#log.warn(`something that is due could not be done, trying again: ${messageOf(error)}`);
        this.#timers.set(name, RETRY_MS);
      },
    );
    this.#running.add(work);
    void work.finally(() => this.#running.delete(work));
  }

  /** Has a session been renewed, or is its time over? */
  async #lookAt(id: string): Promise<void> {
    const { clock } = this.#base;
    const track = this.#tracks.get(id);
    const view = this.#directory.view();
    const ttlMs = view.get("session", id)?.ttlMs;
    if (track === undefined || ttlMs === undefined) return;
    const now = clock.monotonic();
    const overslept = now - track.lookAtMs;
    // While this process slept nobody could renew with it, and it could see nothing.
    if (overslept > ttlMs / OVERSLEPT_PART)
      track.seenAtMs = Math.max(track.seenAtMs, now - this.#graceMs(ttlMs) + ttlMs);
    const renewedAt = recordOf(view, KINDS.renewed, id)?.modifyIndex ?? 0;
    if (renewedAt !== track.renewedAt) {
      track.renewedAt = renewedAt;
      track.seenAtMs = now;
    }
    if (now < track.seenAtMs + this.#graceMs(ttlMs) - 1) return this.#arm(id, track, ttlMs);
    await this.#directory.barrier(this.#life.signal);
    await this.#end(id, (latest) => {
      const at = recordOf(latest, KINDS.renewed, id)?.modifyIndex ?? 0;
      const renewed = at !== track.renewedAt || clock.monotonic() < track.seenAtMs + this.#graceMs(ttlMs) - 1;
      return renewed ? undefined : `it was not renewed for ${Math.round(clock.monotonic() - track.seenAtMs)} ms`;
    });
    if (this.#directory.view().get("session", id) === undefined || this.#tracks.get(id) !== track) return;
    // Renewed at the last moment.
    track.renewedAt = recordOf(this.#directory.view(), KINDS.renewed, id)?.modifyIndex ?? 0;
    if (clock.monotonic() >= track.seenAtMs + this.#graceMs(ttlMs) - 1) track.seenAtMs = clock.monotonic();
    this.#arm(id, track, ttlMs);
  }

  /**
   * Ends a session and its locks while `still` says why it has to. In one commit where the store takes it; else the session is marked as
   * ended first, so that it gets no further lock, its keys follow in pieces, and it goes last. Whoever finds such a session goes on with it.
   */
  async #end(id: string, still: (view: View, session: Entry<"session">) => string | undefined): Promise<void> {
    const most = this.#directory.maxChanges;
    for (let tries = 0; tries < TRIES; ) {
      const view = this.#directory.view();
      const session = view.get("session", id);
      if (session === undefined) return;
      const why = session.ended === true ? "it is over" : still(view, session);
      if (why === undefined) return;
      const key = keyOf.session(id);
      const expect: Expect[] = [{ table: "session", key, at: session.modifyIndex }];
      const held = view.heldBy(id);
      const changesEach = delayMs(session) > 0 ? 2 : 1;
      const last = held.length * changesEach + 3 <= most && held.length + 3 <= most;
      const changes: Change[] = [];
      if (last) {
        changes.push({ op: "delete", table: "session", key });
        for (const kind of [KINDS.used, KINDS.renewed]) {
          const record = recordOf(view, kind, id);
          if (record !== undefined) changes.push(dropRecord(record));
          expect.push({ table: "kept", key: recordKey(kind, id), at: record?.modifyIndex ?? 0 });
        }
      }
      if (last || session.ended === true) {
        for (const pair of last ? held : held.slice(0, Math.max(1, Math.floor((most - 2) / changesEach)))) {
          changes.push(...this.#release(session, pair));
          expect.push({ table: "kv", key: pair.key, at: pair.modifyIndex });
        }
      } else {
        const { createIndex: _, modifyIndex: __, ...value } = session;
        changes.push({ op: "put", table: "session", key, value: { ...value, ended: true } });
      }
      if (await this.#write(changes, expect)) {
        if (!last) continue;
        this.#log.debug(`session ${id} ("${session.name}") ended: ${why}`, { released: held.length });
        return;
      }
      tries++;
      await this.#directory.barrier(this.#life.signal);
    }
    throw new TrilithError("unavailable", `others wrote the keys of session ${id} ${TRIES} times in between`);
  }

  /** What becomes of a key whose holder's session ends. */
  #release(session: Session, { createIndex: _, modifyIndex: __, session: ___, ...pair }: Entry<"kv">): Change[] {
    const key = keyOf.kv(pair.key);
    const ms = delayMs(session);
    const due: Due = { ms, atMs: this.#base.clock.now() };
    return [
      session.behavior === "delete" ? { op: "delete", table: "kv", key } : { op: "put", table: "kv", key, value: pair },
      ...(ms > 0 ? [putRecord(KINDS.delay, pair.key, due)] : []),
    ];
  }

  /** A lock delay is over, or a key's time. */
  async #carryOutDue(key: string): Promise<void> {
    const { dues } = this.#base;
    for (let tries = 0; tries < TRIES; tries++) {
      const view = this.#directory.view();
      const record = view.get("kept", key);
      if (record === undefined) return;
      const leftMs = dues.remainingMs(record);
      if (leftMs > 1) {
        this.#timers.set(dueTimer(key), leftMs);
        return;
      }
      const changes: Change[] = [dropRecord(record)];
      const expect: Expect[] = [{ table: "kept", key, at: record.modifyIndex }];
      const pair = record.kind === KINDS.ttl ? view.get("kv", aboutOf(record)) : undefined;
      // A key that is younger than the time set for it is another one of the same name.
      if (pair !== undefined && pair.createIndex <= record.modifyIndex) {
        changes.push({ op: "delete", table: "kv", key: keyOf.kv(pair.key) });
        expect.push({ table: "kv", key: keyOf.kv(pair.key), at: pair.modifyIndex });
      }
      if (await this.#write(changes, expect)) return;
      await this.#directory.barrier(this.#life.signal);
    }
    throw new TrilithError("unavailable", `others wrote the same key ${TRIES} times in between`);
  }
}

const sessionTimer = (id: string): string => `s:${id}`;
const dueTimer = (key: string): string => `d:${key}`;

/** How long a lock of the session stays closed after the session ended. */
function delayMs(session: Session): number {
  return Math.min(session.lockDelayMs, LOCK_DELAY_MAX_MS);
}
