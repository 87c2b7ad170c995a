// Keeps the hook's table true: waits for what changes, looks at it, has it written; a burst is written once or twice, and what changed nothing is not.
import type { Clock, Timer } from "../../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Directory } from "../../contracts/directory.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import type { Index, Scope } from "../../model/record.ts";
import type { Composer } from "./composer.ts";
import { emptyText, type Place, troubleOf } from "./place.ts";
import type { TableWriter, Written } from "./writer.ts";

export interface KeeperParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly directory: Pick<Directory, "view" | "changed" | "ready">;
  readonly lookup: Pick<Lookup, "follow">;
  readonly composer: Composer;
  /** Opens the place; tried again where that fails. @throws TrilithError in plain words */
  readonly open: () => Promise<Place>;
  readonly writerFor: (place: Place) => TableWriter;
  /** True: a table is wanted from the start; false: from the first time that somebody asks. */
  readonly atOnce: boolean;
  /** Resolves when all sources have told their first lists; some never do. */
  readonly firstLists: () => Promise<unknown>;
  /** Another text when this host's addresses or zone are others. */
  readonly surroundings: () => string;
  /** Called once, with the open place. */
  readonly opened: (place: Place) => void;
}

/** How the table stands. */
export interface Standing {
  /** Undefined until there is a place. */
  readonly place: Place | undefined;
  readonly written: Written | undefined;
  /** How long the last round took that wrote something, from the first look to the last byte. */
  readonly tookMs: number;
  /** What keeps it from being written, in plain words. */
  readonly trouble: TrilithError | undefined;
  /** Why the table of an earlier life is still there although the directory says something else. */
  readonly waiting: string | undefined;
}

export interface Keeper {
  start(): void;
  /** Ends writing; the table stays, for it is right until somebody writes another. "off": there is to be none any more, so that it is emptied. */
  stop(off?: "off"): Promise<void>;
  /** These services may stand differently although the directory did not change. */
  ring(services: Iterable<string>): void;
  /**
   * Resolves when the table holds everything that was in the directory at the time of the call (or is that of an earlier life, while the directory is
   * not known yet); makes one where there is none. @throws TrilithError with the trouble, where it cannot be written; the signal's reason
   */
  current(signal: AbortSignal): Promise<void>;
  standing(): Standing;
}

/**
 * Changes are gathered for so long after a round: longer after rounds that take long, so that those take only a share of the time, but no longer than programs may be behind; of tables
 * that are very large at most half of the time.
 */
const pauseMs = (tookMs: number): number => Math.max(100, Math.min(tookMs * 20, Math.max(200, tookMs)));
/** Whoever waits for the table may have the next round so soon. */
const URGENT_MS = 20;
const AGAIN_FIRST_MS = 1_000;
const AGAIN_LATEST_MS = 15_000;
/** So often the file, this host's addresses and what was answered from the last known good are looked at without a reason. */
const TICK_MS = 5_000;
/** For so long the table of an earlier life is believed more than sources that have told nothing yet. */
const FIRST_LISTS_MS = 10_000;
const SCOPES: readonly Scope[] = ["services", "checks", "nodes"];

interface Waiter {
  resolve(): void;
  reject(error: unknown): void;
}

/** See `KeeperParts`. */
export function createKeeper(parts: KeeperParts): Keeper {
  return new Keeping(parts);
}

class Keeping implements Keeper {
  readonly #parts: KeeperParts;
  readonly #over = new AbortController();
  readonly #rung = new Set<string>();
  /** The services that the guard holds, each followed until it does no longer. */
  readonly #followed = new Map<string, AbortController>();
  readonly #following = new Set<Promise<void>>();
  #waiters: Waiter[] = [];
  /** Wakes whoever waits for something to do. */
  #bell: () => void = () => {};
  #wanted: boolean;
  #urgent = false;
  /** The next round writes also where nothing changed. */
  #again = true;
  #ready = false;
  #listed = false;
  #place: Place | undefined;
  #writer: TableWriter | undefined;
  #tookMs = 0;
  #trouble: TrilithError | undefined;
  #life: Promise<void> | undefined;

  constructor(parts: KeeperParts) {
    this.#parts = parts;
    this.#wanted = parts.atOnce;
  }

  start(): void {
    this.#life ??= this.#run().catch((error: unknown) => {
      if (!this.#over.signal.aborted && codeOf(error) !== "stopped")
        this.#parts.log.error(`the hook's table is no longer kept: ${messageOf(error)}`);
    });
  }

  async stop(off?: "off"): Promise<void> {
    this.#over.abort(new TrilithError("stopped", "the agent is stopping"));
    this.#bell();
    await this.#life;
    await Promise.all(this.#following);
    this.#settle(this.#waiters, this.#over.signal.reason);
    const place = this.#place;
    this.#place = undefined;
    if (place === undefined) return;
    try {
      if (off !== undefined) await place.empty(this.#parts.clock.now());
    } catch (error) {
      this.#parts.log.error(emptyText(place.file.path, error));
    }
    await place.close();
  }

  ring(services: Iterable<string>): void {
    for (const name of services) this.#rung.add(name);
    this.#bell();
  }

  current(signal: AbortSignal): Promise<void> {
    if (this.#over.signal.aborted) return Promise.reject(this.#over.signal.reason);
    if (this.#place?.adopted !== undefined && !this.#ready) return Promise.resolve();
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const onAbort = (): void => {
        this.#waiters = this.#waiters.filter((each) => each !== waiter);
        reject(signal.reason);
      };
      const waiter: Waiter = {
        resolve() {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
        reject(error) {
          signal.removeEventListener("abort", onAbort);
          reject(error);
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.push(waiter);
      this.#wanted = true;
      this.#urgent = true;
      this.#bell();
    });
  }

  standing(): Standing {
    return {
      place: this.#place,
      written: this.#writer?.written,
      tookMs: this.#tookMs,
      trouble: this.#trouble,
      waiting: this.#writer?.waiting,
    };
  }

  #settle(waiters: readonly Waiter[], trouble: unknown): void {
    if (waiters === this.#waiters) this.#waiters = [];
    for (const { resolve, reject } of waiters)
      if (trouble === undefined) resolve();
      else reject(trouble);
  }

  #note(error: unknown): void {
    const told = error instanceof TrilithError ? error : new TrilithError(codeOf(error), messageOf(error), error);
    if (this.#trouble?.message !== told.message) this.#parts.log.error(told.message);
    this.#trouble = told;
  }

  async #run(): Promise<void> {
    const { clock, directory, firstLists, opened, surroundings, writerFor } = this.#parts;
    const signal = this.#over.signal;
    while (!this.#wanted && !signal.aborted) await this.#rest(Number.POSITIVE_INFINITY, 0);
    const place = await this.#open();
    if (place === undefined) return;
    this.#place = place;
    const writer = writerFor(place);
    this.#writer = writer;
    opened(place);
    if (place.adopted !== undefined) this.#settle(this.#waiters, undefined);
    await directory.ready(signal);
    // The lookup hears of it at the same moment.
    await clock.yield();
    this.#ready = true;
    const patience = clock.after(FIRST_LISTS_MS, () => this.#believe());
    void firstLists().then(() => this.#believe());
    try {
      let after: Index = 0;
      let around = surroundings();
      let againMs = AGAIN_FIRST_MS;
      let blind = false;
      while (!signal.aborted) {
        const beganMs = clock.monotonic();
        const waiters = this.#waiters;
        this.#waiters = [];
        this.#urgent = false;
        let failed = false;
        try {
          after = await this.#round(writer, after);
          if (!blind) this.#trouble = undefined;
          againMs = AGAIN_FIRST_MS;
        } catch (error) {
          // Whatever was to be written still is.
          failed = true;
          if (!signal.aborted) this.#note(error instanceof TrilithError ? error : troubleOf(place.file.path, error));
        }
        this.#settle(waiters, signal.aborted ? signal.reason : failed ? this.#trouble : undefined);
        const tookMs = clock.monotonic() - beganMs;
        await this.#rest(failed ? againMs : pauseMs(tookMs), URGENT_MS);
        if (failed) {
          againMs = Math.min(againMs * 2, AGAIN_LATEST_MS);
          continue;
        }
        try {
          await this.#stirred(after);
          const now = surroundings();
          if (now !== around) {
            around = now;
            this.ring(this.#parts.composer.names());
          }
          this.ring(this.#parts.composer.stale());
          if (await writer.isOutdated()) this.#again = true;
          if (blind) this.#trouble = undefined;
          blind = false;
        } catch (error) {
          // A host that is out of descriptors cannot even look; until it can again that stands, told once, and the table is kept as before.
          if (signal.aborted) throw error;
          blind = true;
          this.#note(error);
          await this.#rest(AGAIN_FIRST_MS, URGENT_MS);
        }
      }
    } finally {
      patience.cancel();
    }
  }

  /** One round: looks at what may have changed, and has it written if it did. */
  async #round(writer: TableWriter, after: Index): Promise<Index> {
    const { clock, composer, directory } = this.#parts;
    const beganMs = clock.monotonic();
    const view = directory.view();
    const names = composer.moved(view, after);
    for (const name of this.#rung) names.add(name);
    this.#rung.clear();
    if (names.size > 0 && (await composer.look(names, () => directory.view(), this.#over.signal))) this.#again = true;
    this.#over.signal.throwIfAborted();
    this.#followHeld();
    if (this.#again) {
      await writer.write(this.#listed);
      // What waits for the sources is tried again when they have told.
      this.#again = writer.waiting !== undefined;
      this.#tookMs = clock.monotonic() - beganMs;
    }
    return view.index;
  }

  /** From now on a service without backends has none. */
  #believe(): void {
    this.#listed = true;
    if (this.#writer?.waiting !== undefined) {
      this.#urgent = true;
      this.#bell();
    }
  }

  async #open(): Promise<Place | undefined> {
    for (let againMs = AGAIN_FIRST_MS; !this.#over.signal.aborted; againMs = Math.min(againMs * 2, AGAIN_LATEST_MS)) {
      try {
        const place = await this.#parts.open();
        this.#trouble = undefined;
        return place;
      } catch (error) {
        this.#note(error);
        this.#settle(this.#waiters, this.#trouble);
      }
      this.#urgent = false;
      await this.#rest(againMs, URGENT_MS);
    }
    return undefined;
  }

  /** Waits for so long; for whoever is in a hurry, only `leastMs`. */
  async #rest(ms: number, leastMs: number): Promise<void> {
    const { clock } = this.#parts;
    const signal = this.#over.signal;
    if (leastMs > 0) await clock.sleep(Math.min(ms, leastMs), signal).catch(() => undefined);
    const until = clock.monotonic() + ms - leastMs;
    while (!this.#urgent && !signal.aborted) {
      const leftMs = until - clock.monotonic();
      if (leftMs <= 0) return;
      await this.#woken(leftMs);
    }
  }

  /** Resolves when the bell rings, or after so long. */
  async #woken(ms: number, also?: (resolve: () => void, reject: (error: unknown) => void) => void): Promise<void> {
    let timer: Timer | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#bell = resolve;
        if (ms !== Number.POSITIVE_INFINITY) timer = this.#parts.clock.after(ms, resolve);
        also?.(resolve, reject);
      });
    } finally {
      this.#bell = () => {};
      timer?.cancel();
    }
  }

  /** Resolves when the directory moved past `after`, something rang, or it is time to look all the same. */
  async #stirred(after: Index): Promise<void> {
    if (this.#rung.size > 0 || this.#urgent || this.#over.signal.aborted) return;
    const round = new AbortController();
    try {
      await this.#woken(TICK_MS, (resolve, reject) => {
        for (const each of SCOPES) this.#parts.directory.changed(each, after, round.signal).then(resolve, reject);
      });
    } finally {
      round.abort(new TrilithError("stopped", "no longer waited for"));
    }
  }

  /** What the guard holds changes without the directory, when the hold ends. */
  #followHeld(): void {
    const { composer, lookup, log } = this.#parts;
    const now = new Set(composer.held());
    for (const [name, stop] of this.#followed)
      if (!now.has(name)) stop.abort(new TrilithError("stopped", "no longer held"));
    for (const name of now) {
      if (this.#followed.has(name)) continue;
      const stop = new AbortController();
      this.#followed.set(name, stop);
      const signal = AbortSignal.any([stop.signal, this.#over.signal]);
      const follow = async (): Promise<void> => {
        try {
          for await (const _ of lookup.follow({ service: name }, signal)) this.ring([name]);
        } catch (error) {
          if (!signal.aborted) log.warn(`following ${name}: ${messageOf(error)}`);
        }
      };
      const following = follow().finally(() => {
        this.#followed.delete(name);
        this.#following.delete(following);
      });
      this.#following.add(following);
    }
  }
}
