// Blocking queries: answer at once, or when the scope moved past the caller's index, or when the wait is over.
import type { View } from "../../contracts/directory.ts";
import type { Index, Scope } from "../../model/record.ts";
import { cacheHeaders } from "./cache.ts";
import type { Call, ConsulGround, Reply } from "./call.ts";
import { type Enterprise, type Options, ownDatacenterOnly, readOptions } from "./options.ts";

/** What a read found in a view. */
export interface Seen {
  /** The index the caller is told and may wait for. */
  readonly index: Index;
  /** A waiter is woken when one of these moves. */
  readonly waitOn: readonly Scope[];
  /** Nothing is there. From nothing to nothing is no change, however far the index moved. */
  readonly missing?: boolean;
  readonly reply: Reply;
}

/** How an endpoint presents itself in the headers. */
export interface Manner {
  /** Catalog and health tell the consistency; keys, sessions and events do not. */
  readonly tellConsistency: boolean;
  /** Health is streamed to waiters, which shows in the headers. */
  readonly streams?: boolean;
  /** `?cached` means something here. */
  readonly cacheable?: boolean;
  /** Errors carry the headers of a query, as those of the catalog do. */
  readonly headersOnError?: boolean;
  /** What of the Enterprise edition is refused; all of it unless told. */
  readonly enterprise?: Enterprise;
}

/** Whether Consul would take an answer from a stream of changes that its agent keeps, which shows in headers and words. */
export function isStreamed(manner: Manner, { minIndex, cached }: Options): boolean {
  return manner.streams === true && (minIndex > 0 || (cached && manner.cacheable === true));
}

/** Answers a read with Consul's query headers, after waiting where the caller asked to. */
export async function answerQuery(
  call: Call,
  manner: Manner,
  read: (view: View, options: Options) => Seen,
): Promise<Reply> {
  const options = readOptions(call, manner.enterprise);
  const streaming = isStreamed(manner, options);
  const cache = await begin(call, manner, options, streaming);
  const { directory } = call.ground;
  let view = directory.view();
  let seen = read(view, options);
  if (options.minIndex > 0) {
    const waiting = new Waiting(call, options.waitMs);
    try {
      let after = options.minIndex;
      let missed = false;
      for (;;) {
        if (seen.missing === true) {
          if (missed) after = Math.max(after, seen.index);
          missed = true;
        }
        if (seen.index > after || waiting.over) break;
        await waiting.until(seen.waitOn, view);
        view = directory.view();
        seen = read(view, options);
      }
    } finally {
      waiting.end();
    }
  }
  return told(call, manner, options, { view, index: seen.index, streaming, cache, reply: seen.reply });
}

/**
 * Answers what never waits for a change (carrying out a prepared query) with Consul's query headers. `work` is handed the view, and
 * what such answers repeat of the headers in their body.
 */
export async function answerOnce(
  call: Call,
  manner: Manner,
  work: (view: View, meta: (view: View) => object) => Promise<Reply>,
): Promise<Reply> {
  const options = readOptions(call);
  const cache = await begin(call, manner, options, false);
  const view = call.ground.directory.view();
  const meta = (seen: View): object => ({
    Index: 1,
    LastContact: contactMs(call, seen),
    KnownLeader: seen.fresh,
    ConsistencyLevel: options.consistency,
    NotModified: false,
    Backend: 0,
    ResultsFilteredByACLs: false,
  });
  const reply = await work(view, meta);
  return told(call, manner, options, { view, index: 1, streaming: false, cache, reply });
}

type CacheHeaders = (view: View) => Readonly<Record<string, string>>;

/** Sees to it that the view is as fresh as the caller wants it. */
async function begin(call: Call, manner: Manner, options: Options, streaming: boolean): Promise<CacheHeaders> {
  ownDatacenterOnly(options.datacenter, manner.headersOnError ? headersOfNothing() : {});
  const { directory, clock } = call.ground;
  const cached = options.cached && manner.cacheable === true;
  const cache = cached ? await cacheHeaders(call, options.cacheControl, streaming) : () => ({});
  if (options.maxStaleMs !== undefined) {
    const { fresh, asOfMs } = directory.view();
    if (!fresh && clock.now() - asOfMs > options.maxStaleMs) await directory.barrier(call.signal);
  }
  if (options.consistency === "consistent") await directory.barrier(call.signal);
  return cache;
}

/** A reply with the headers of a query. */
function told(
  call: Call,
  manner: Manner,
  options: Options,
  {
    view,
    index,
    streaming,
    cache,
    reply,
  }: {
    readonly view: View;
    readonly index: Index;
    readonly streaming: boolean;
    readonly cache: CacheHeaders;
    readonly reply: Reply;
  },
): Reply {
  const headers: Record<string, string> = {
    "X-Consul-Index": String(Math.max(1, index)),
    "X-Consul-Knownleader": String(view.fresh && !streaming),
    "X-Consul-Lastcontact": String(contactMs(call, view)),
    "X-Consul-Query-Backend": streaming ? "streaming" : "blocking-query",
    ...(manner.tellConsistency ? { "X-Consul-Effective-Consistency": options.consistency } : {}),
    ...cache(view),
    ...reply.headers,
  };
  return { ...reply, headers };
}

/** Milliseconds since the view was known to be true. */
function contactMs(call: Call, view: View): number {
  return view.fresh ? 0 : Math.max(0, Math.round(call.ground.clock.now() - view.asOfMs));
}

/** The headers of a query that was refused before anything was looked at. */
export function headersOfNothing(): Readonly<Record<string, string>> {
  return {
    "X-Consul-Index": "1",
    "X-Consul-Knownleader": "false",
    "X-Consul-Lastcontact": "0",
    "X-Consul-Query-Backend": "blocking-query",
  };
}

/** One wait: ends by a change, by time, or because the client went away. Leaves no timer and no waiter behind. */
export class Waiting {
  readonly #directory: ConsulGround["directory"];
  readonly #stop = new AbortController();
  readonly #client: AbortSignal;
  readonly #timer: { cancel(): void };
  readonly #onClientGone = (): void => this.#stop.abort();

  constructor(call: Pick<Call, "ground" | "signal">, waitMs: number) {
    this.#directory = call.ground.directory;
    this.#client = call.signal;
    this.#timer = call.ground.clock.after(waitMs, () => this.#stop.abort());
    if (this.#client.aborted) this.#stop.abort();
    this.#client.addEventListener("abort", this.#onClientGone, { once: true });
  }

  get over(): boolean {
    return this.#stop.signal.aborted;
  }

  /** Resolves when one of the scopes moved since the view, or when the wait is over. Rejects when the client is gone. */
  async until(scopes: readonly Scope[], view: View): Promise<void> {
    await this.untilAny((signal) => scopes.map((scope) => this.#directory.changed(scope, view.at(scope), signal)));
  }

  /** Like `until` for any promises that take a signal; those that lost are let go. */
  async untilAny(begin: (signal: AbortSignal) => readonly Promise<unknown>[]): Promise<void> {
    const round = new AbortController();
    const pass = (): void => round.abort();
    if (this.#stop.signal.aborted) round.abort();
    this.#stop.signal.addEventListener("abort", pass, { once: true });
    const promises = begin(round.signal);
    try {
      await Promise.race(promises);
    } catch (error) {
      if (this.#client.aborted) throw this.#client.reason;
      if (!this.#stop.signal.aborted) throw error;
    } finally {
      this.#stop.signal.removeEventListener("abort", pass);
      round.abort();
      // The losers reject with the round's reason; that is their end, not an error.
      for (const promise of promises) promise.catch(() => {});
    }
  }

  end(): void {
    this.#timer.cancel();
    this.#client.removeEventListener("abort", this.#onClientGone);
  }
}
