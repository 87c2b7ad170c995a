// Locks and semaphores over an agent's HTTP API, by the algorithms of Consul's own clients, so that holders of both kinds respect each other.
import { type Clock, systemClock } from "../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../base/error.ts";
import type { HttpResponse } from "../base/http.ts";
import { type Client, keyPath } from "./client.ts";
import { type ClientWith, Session } from "./session.ts";

/** What is written into `Flags`, so that a lock is not taken for a semaphore (Consul's api/lock.go, api/semaphore.go). */
const LOCK_FLAGS = 0x2ddccbc058a50c18n;
const SEMAPHORE_FLAGS = 0xe0f69a2baa414de0n;
const COORDINATION_KEY = ".lock";
const WAIT_MS = 15_000;
/** After a refusal for the sake of the lock delay. */
const DELAYED_RETRY_MS = 5_000;
const MONITOR_RETRY_MS = 1_000;

/** What is to be held. */
export interface Wish {
  readonly prefix: string;
  /** How many may hold at once: 1 = a lock, more = a semaphore. */
  readonly limit: number;
  readonly sessionName: string;
  /** Give up waiting after so long; 0 = never. */
  readonly timeoutMs: number;
  /** How many failures in a row are put up with while holding. */
  readonly monitorRetries: number;
}

/** Somebody else's key is in the way, or others count to another limit. */
class LockConflict extends TrilithError {
  constructor(text: string) {
    super("conflict", text);
    this.name = "LockConflict";
  }
}

/** What is held. */
export interface Holding {
  readonly session: string;
  /** Aborted, with the reason, as soon as it is known to be lost. */
  readonly lost: AbortSignal;
  /** Gives it back and ends the session. @throws TrilithError */
  release(): Promise<void>;
  /** Removes the key unless somebody uses it. False: somebody does. @throws TrilithError */
  cleanUp(): Promise<boolean>;
}

interface Pair {
  readonly Key: string;
  readonly Value: string | null;
  readonly Session?: string;
  readonly ModifyIndex: number;
}
interface Found {
  readonly pairs: readonly Pair[];
  readonly index: number;
  /** Flags by key: 64 bits, which JSON numbers do not keep. */
  readonly flags: ReadonlyMap<string, bigint>;
}

const joined = (...parts: readonly string[]): string => parts.join("/").replace(/\/{2,}/g, "/");

/** Waits for a lock or a place. Undefined: given up, because of the time or because `stop` was aborted. @throws LockConflict; TrilithError of the agent */
export async function hold(
  wish: Wish,
  clientWith: ClientWith,
  stop: AbortSignal,
  clock: Clock = systemClock,
): Promise<Holding | undefined> {
  const session = await Session.create(
    "the lock",
    // A semaphore's contenders are keys of their own, which go with them.
    { Name: wish.sessionName, ...(wish.limit > 1 ? { Behavior: "delete" } : {}) },
    clientWith,
    clock,
  );
  try {
    const holder = wish.limit === 1 ? new Lock(wish, session) : new Semaphore(wish, session);
    const limit = new AbortController();
    const giveUp = (): void => limit.abort(new TrilithError("timeout", "gave up waiting"));
    const timer = wish.timeoutMs > 0 ? clock.after(wish.timeoutMs, giveUp, true) : undefined;
    stop.addEventListener("abort", giveUp, { once: true });
    if (stop.aborted) giveUp();
    try {
      const patience = AbortSignal.any([limit.signal, session.lost.signal]);
      const client = clientWith(patience);
      try {
        await holder.acquire(client, patience);
      } catch (error) {
        // An acquisition under way may have been granted: the session's end takes it back.
        if (limit.signal.aborted) {
          await session.end();
          return undefined;
        }
        if (session.lost.signal.aborted) throw session.lost.signal.reason;
        throw error;
      } finally {
        await client.close();
      }
    } finally {
      timer?.cancel();
      stop.removeEventListener("abort", giveUp);
    }
    const monitoring = monitor(holder, wish, session, clientWith, clock);
    return {
      session: session.id,
      lost: session.lost.signal,
      async release() {
        session.stopWatching();
        await monitoring;
        try {
          await holder.release(session.client);
        } finally {
          await session.end();
        }
      },
      cleanUp: async () => {
        const client = clientWith(new AbortController().signal);
        try {
          return await holder.cleanUp(client);
        } finally {
          await client.close();
        }
      },
    };
  } catch (error) {
    await session.end();
    throw error;
  }
}

/** Looks after what is held until it is released or lost. */
async function monitor(
  holder: Holder,
  wish: Wish,
  session: Session,
  clientWith: ClientWith,
  clock: Clock,
): Promise<void> {
  const client = clientWith(session.watching.signal);
  const { signal } = session.watching;
  let failures = 0;
  let index = 0;
  try {
    while (!signal.aborted) {
      try {
        const found = await find(client, holder.watched, `${holder.query}&consistent&wait=${WAIT_MS}ms&index=${index}`);
        failures = 0;
        index = found.index;
        if (!holder.isHolder(found)) {
          session.lose("the lock was lost: its session ended, or somebody else changed the key");
          return;
        }
      } catch (error) {
        if (signal.aborted) return;
        const passing = codeOf(error) === "unavailable" || codeOf(error) === "timeout";
        if (!passing || ++failures > wish.monitorRetries) {
          session.lose(`the lock is taken for lost: ${messageOf(error)}`);
          return;
        }
        index = 0;
        await clock.sleep(MONITOR_RETRY_MS, signal).catch(() => {});
      }
    }
  } finally {
    await client.close();
  }
}

async function jsonOf<T>(response: HttpResponse): Promise<T> {
  return JSON.parse(await response.text()) as T;
}

/** The pairs at a key or below a prefix, and the index to wait for the next state. */
async function find(client: Client, key: string, query: string): Promise<Found> {
  const response = await client.request("GET", `${keyPath(key)}?${query}`, { missing: true });
  const text = await response.text();
  const index = Number(response.headers["x-consul-index"] ?? 0);
  if (response.status === 404) return { pairs: [], index, flags: new Map() };
  const pairs = JSON.parse(text) as readonly Pair[];
  // In the order of the pairs: no other field of the answer is called so, and texts escape their quotes.
  const digits = [...text.matchAll(/"Flags":\s*(\d+)/g)].map(([, number]) => BigInt(number as string));
  return { pairs, index, flags: new Map(pairs.map(({ Key }, i) => [Key, digits[i] ?? 0n])) };
}

async function put(client: Client, key: string, query: string, body: string): Promise<boolean> {
  return await jsonOf<boolean>(await client.request("PUT", `${keyPath(key)}?${query}`, { body }));
}

/** How a lock or a semaphore is taken, watched and given back. */
interface Holder {
  /** What is watched while holding, and how it is asked for. */
  readonly watched: string;
  readonly query: string;
  acquire(client: Client, signal: AbortSignal): Promise<void>;
  isHolder(found: Found): boolean;
  release(client: Client): Promise<void>;
  cleanUp(client: Client): Promise<boolean>;
}

/** One key, held by one session. */
class Lock implements Holder {
  readonly watched: string;
  readonly query = "";
  readonly #session: Session;

  constructor(wish: Wish, session: Session) {
    this.watched = joined(wish.prefix, COORDINATION_KEY);
    this.#session = session;
  }

  async acquire(client: Client, signal: AbortSignal): Promise<void> {
    for (let index = 0; ; ) {
      const found = await find(client, this.watched, `wait=${WAIT_MS}ms&index=${index}`);
      const pair = found.pairs[0];
      if (pair !== undefined && found.flags.get(pair.Key) !== LOCK_FLAGS)
        throw new LockConflict(`the key ${this.watched} is there and is not a lock (its flags are another's)`);
      if (pair?.Session !== undefined) {
        index = found.index;
        continue;
      }
      if (await put(client, this.watched, `acquire=${this.#session.id}&flags=${LOCK_FLAGS}`, "")) return;
      const now = await find(client, this.watched, "");
      index = now.pairs[0]?.Session === undefined ? 0 : now.index;
      // Free and yet not to be had: its last holder's lock delay.
      if (index === 0) await systemClock.sleep(DELAYED_RETRY_MS, signal);
    }
  }

  isHolder({ pairs }: Found): boolean {
    return pairs[0]?.Session === this.#session.id;
  }

  async release(client: Client): Promise<void> {
    await put(client, this.watched, `release=${this.#session.id}&flags=${LOCK_FLAGS}`, "");
  }

  async cleanUp(client: Client): Promise<boolean> {
    const { pairs, flags } = await find(client, this.watched, "");
    const pair = pairs[0];
    if (pair === undefined) return true;
    if (flags.get(pair.Key) !== LOCK_FLAGS) throw new LockConflict(`the key ${this.watched} is no lock any more`);
    if (pair.Session !== undefined) return false;
    return await jsonOf<boolean>(await client.request("DELETE", `${keyPath(this.watched)}?cas=${pair.ModifyIndex}`));
  }
}

interface Places {
  readonly Limit: number;
  readonly Holders: Record<string, boolean>;
}

/** A key per contender, and one that says who of them has a place. */
class Semaphore implements Holder {
  readonly watched: string;
  readonly query = "recurse";
  readonly #key: string;
  readonly #contender: string;
  readonly #wish: Wish;
  readonly #session: Session;

  constructor(wish: Wish, session: Session) {
    this.watched = joined(`${wish.prefix}/`);
    this.#key = joined(wish.prefix, COORDINATION_KEY);
    this.#contender = joined(wish.prefix, session.id);
    this.#wish = wish;
    this.#session = session;
  }

  /** Who has a place, without those who are gone. */
  #places({ pairs, flags }: Found): { readonly places: Places; readonly index: number } {
    const pair = pairs.find(({ Key }) => Key === this.#key);
    if (pair !== undefined && flags.get(pair.Key) !== SEMAPHORE_FLAGS)
      throw new LockConflict(`the key ${this.#key} is there and is not a semaphore (its flags are another's)`);
    const text = Buffer.from(pair?.Value ?? "", "base64").toString();
    let kept: Places = { Limit: this.#wish.limit, Holders: {} };
    if (text !== "")
      try {
        kept = JSON.parse(text) as Places;
      } catch (error) {
        throw new LockConflict(`the value of ${this.#key} is not a semaphore's: ${messageOf(error)}`);
      }
    const alive = new Set(pairs.map(({ Session: id }) => id));
    const holders: Record<string, boolean> = Object.create(null);
    for (const id of Object.keys(kept.Holders ?? {})) if (alive.has(id)) holders[id] = true;
    return { places: { Limit: kept.Limit, Holders: holders }, index: pair?.ModifyIndex ?? 0 };
  }

  async acquire(client: Client): Promise<void> {
    const { id } = this.#session;
    if (!(await put(client, this.#contender, `acquire=${id}&flags=${SEMAPHORE_FLAGS}`, "")))
      throw new LockConflict(`the key ${this.#contender} could not be made`);
    for (let after = 0; ; ) {
      const found = await find(client, this.watched, `recurse&wait=${WAIT_MS}ms&index=${after}`);
      const { places, index } = this.#places(found);
      if (places.Limit !== this.#wish.limit)
        throw new LockConflict(
          `semaphore limit conflict at ${this.#key}: others count to ${places.Limit}, this one to ${this.#wish.limit}`,
        );
      if (Object.keys(places.Holders).length >= places.Limit) {
        after = found.index;
        continue;
      }
      places.Holders[id] = true;
      if (await this.#put(client, places, index)) return;
      after = 0;
    }
  }

  #put(client: Client, places: Places, index: number): Promise<boolean> {
    return put(client, this.#key, `cas=${index}&flags=${SEMAPHORE_FLAGS}`, JSON.stringify(places));
  }

  isHolder(found: Found): boolean {
    return this.#places(found).places.Holders[this.#session.id] === true;
  }

  async release(client: Client): Promise<void> {
    for (;;) {
      const { places, index } = this.#places(await find(client, this.watched, "recurse"));
      if (places.Holders[this.#session.id] !== true) break;
      delete places.Holders[this.#session.id];
      if (await this.#put(client, places, index)) break;
    }
    await client.send("DELETE", keyPath(this.#contender));
  }

  async cleanUp(client: Client): Promise<boolean> {
    const { places, index } = this.#places(await find(client, this.watched, "recurse"));
    if (index === 0) return true;
    if (Object.keys(places.Holders).length > 0) return false;
    return await jsonOf<boolean>(await client.request("DELETE", `${keyPath(this.#key)}?cas=${index}`));
  }
}
