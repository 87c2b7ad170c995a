// Blocking queries: answer at once, or when the scope moved past the caller's index, or when the wait is over.
import type { View } from "../../contracts/directory.ts";
import type { Index, Scope } from "../../model/record.ts";
import { cacheHeaders, readCacheControl } from "./cache.ts";
import type { Call, ConsulGround, Reply } from "./call.ts";
import { type Options, ownDatacenterOnly, readOptions } from "./options.ts";

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
}

/** Answers a read with Consul's query headers, after waiting where the caller asked to. */
export async function answerQuery(
  call: Call,
  manner: Manner,
  read: (view: View, options: Options) => Seen,
): Promise<Reply> {
  const options = readOptions(call);
  ownDatacenterOnly(options.datacenter, manner.headersOnError ? headersOfNothing() : {});
  const { directory, clock } = call.ground;
  const cached = options.cached && manner.cacheable === true;
  const streaming = manner.streams === true && (options.minIndex > 0 || cached);
  const cache = cached
    ? await cacheHeaders(call, readCacheControl(call.request.headers["cache-control"]), streaming)
    : () => ({});
  if (options.maxStaleMs !== undefined) {
    const { fresh, asOfMs } = directory.view();
    if (!fresh && clock.now() - asOfMs > options.maxStaleMs) await directory.barrier(call.signal);
  }
  if (options.consistency === "consistent") await directory.barrier(call.signal);
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
  const headers: Record<string, string> = {
    "X-Consul-Index": String(Math.max(1, seen.index)),
    "X-Consul-Knownleader": String(view.fresh && !streaming),
    "X-Consul-Lastcontact": String(view.fresh ? 0 : Math.max(0, Math.round(call.ground.clock.now() - view.asOfMs))),
    "X-Consul-Query-Backend": streaming ? "streaming" : "blocking-query",
    ...(manner.tellConsistency ? { "X-Consul-Effective-Consistency": options.consistency } : {}),
    ...cache(view),
    ...seen.reply.headers,
  };
  return { ...seen.reply, headers };
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
