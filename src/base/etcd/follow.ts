// Reading a range of etcd's keys: all of it at one revision, then every change in order, across disconnects, elections and compaction.
import type { Clock } from "../clock.ts";
import { messageOf, TrilithError } from "../error.ts";
import type { Log } from "../log.ts";
import { jitter, type Random } from "../random.ts";
import type { ClientTiming } from "./access.ts";
import type { EtcdClient } from "./client.ts";
import { EtcdError, isCompacted } from "./error.ts";
import type { KeyValue, RangeResponse, WatchEvent } from "./proto.ts";
import type { Stream } from "./watch-stream.ts";

/** What is read, and with what. */
export interface RangeReading {
  readonly client: EtcdClient;
  /** The first key, and the first one behind the last. */
  readonly from: Uint8Array;
  readonly to: Uint8Array;
  /** A key in the range by which the newest revision is asked for. */
  readonly probe: Uint8Array;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly timing: ClientTiming;
}

/** What of the range comes along: parts of everything there is, or what changed. */
export type RangeBatch =
  | {
      readonly kind: "whole";
      readonly revision: number;
      readonly kvs: readonly KeyValue[];
      readonly complete: boolean;
      /** True where etcd was set back, or is another one: what is missing was not necessarily removed. */
      readonly replaced?: true;
    }
  /** Events of whole revisions, in order. */
  | { readonly kind: "events"; readonly events: readonly WatchEvent[] }
  /** `why`: what came of the last try, where no member can be watched; told anew where that is something else. */
  | { readonly kind: "reachable"; readonly reachable: boolean; readonly atMs: number; readonly why?: string };

/** For a reader that has to reach revisions that bring no event in its range. */
export interface RangeHooks {
  /** A watch stands, and this is the newest revision. */
  readonly stands: (revision: number) => void;
  /** Whether what was read up to `revision` is as good as being there, with `newest` known when the watch began. */
  readonly isThere: (revision: number, newest: number) => boolean;
}

const FIRST_PAGE_KEYS = 256;
const MOST_PAGE_KEYS = 4_096;
const PAGE_BYTES = 2 << 20;
const NO_HOOKS: RangeHooks = { stands: () => {}, isThere: () => true };

/** The newest revision by a linearizable read, and which cluster said so. @throws EtcdError */
export async function newest(
  { client, probe }: Pick<RangeReading, "client" | "probe">,
  signal?: AbortSignal,
): Promise<{ readonly revision: number; readonly clusterId: number }> {
  const { header } = await client.call("range", { key: probe, countOnly: true }, { signal });
  return header;
}

/** The whole range at one revision, in parts. @throws EtcdError, TrilithError `unavailable` where that revision is compacted away meanwhile */
export async function* readRange(
  { client, from: first, to }: Pick<RangeReading, "client" | "from" | "to">,
  signal?: AbortSignal,
): AsyncGenerator<RangeBatch & { kind: "whole" }> {
  let revision: number | undefined;
  let from = first;
  let limit = FIRST_PAGE_KEYS;
  for (;;) {
    let page: RangeResponse;
    try {
      page = await client.call("range", { key: from, rangeEnd: to, limit, revision: revision ?? 0 }, { signal });
    } catch (error) {
      if (revision !== undefined && isCompacted(error))
        throw new TrilithError("unavailable", `etcd compacted revision ${revision} while it was being read`, error);
      throw error;
    }
    revision ??= page.header.revision;
    const { kvs } = page;
    const last = kvs.at(-1);
    const complete = !page.more || last === undefined;
    yield { kind: "whole", revision, kvs, complete };
    if (complete) return;
    from = Buffer.concat([last.key, Buffer.of(0)]);
    const perKey = Math.max(1, kvs.reduce((bytes, { value }) => bytes + value.length, 0) / kvs.length);
    limit = Math.max(16, Math.min(MOST_PAGE_KEYS, limit * 4, Math.floor(PAGE_BYTES / perKey)));
  }
}

/** Everything after `after`, for ever; ends when the signal aborts. What cannot be told as changes is told as the whole. */
export async function* followRange(
  reading: RangeReading,
  after: number,
  signal: AbortSignal,
  hooks: RangeHooks = NO_HOOKS,
): AsyncGenerator<RangeBatch> {
  const { client, clock, random, log, timing } = reading;
  let up = true;
  let lastSignMs = clock.now();
  let lastSign = clock.monotonic();
  let cluster: number | undefined;
  /** Sessions in a row that came to nothing, and since when. */
  let failures = 0;
  let brokenAt = 0;
  let why = "";
  let told = "";
  const sign = (): void => {
    lastSignMs = clock.now();
    lastSign = clock.monotonic();
  };
  async function* afresh(why: string, replaced: boolean): AsyncGenerator<RangeBatch> {
    log.info(`reading everything from etcd again: ${why}`);
    // Handed on only when it is whole: half of it would be left over where the rest cannot be read.
    const parts: (RangeBatch & { kind: "whole" })[] = [];
    for await (const part of readRange(reading, signal)) parts.push(part);
    for (const part of parts) {
      after = part.revision;
      yield replaced ? { ...part, replaced } : part;
    }
    sign();
  }

  while (!signal.aborted) {
    let stream: Stream | undefined;
    let late = false;
    let createdAt: number | undefined;
    const cancel = (): void => stream?.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    // The time in which the first message has to come.
    const patience = clock.after(timing.attemptMs, () => {
      late = true;
      stream?.cancel();
    });
    try {
      stream = await client.stream();
      if (signal.aborted || late) stream.cancel();
      stream.send({
        createRequest: { key: reading.from, rangeEnd: reading.to, startRevision: after + 1, fragment: true },
      });
      let head: number | undefined;
      let events: WatchEvent[] = [];
      for (;;) {
        const message = await stream.next();
        patience.cancel();
        if (message === undefined) {
          if (late) throw lateError(stream.url, timing);
          break;
        }
        if (message.canceled) {
          if (message.compactRevision > 0) {
            yield* afresh(
              `revision ${after + 1} is compacted away, the oldest kept is ${message.compactRevision}`,
              false,
            );
            break;
          }
          // An expired token shows as a lack of permission.
          client.forgetToken();
          throw new TrilithError("unavailable", `etcd watch at ${stream.url}: cancelled: ${message.cancelReason}`);
        }
        // Somebody who only refuses is no sign that anything is known.
        sign();
        if (message.created) {
          const { revision, clusterId } = await newest(reading, signal);
          const setBack = revision < after;
          const other = cluster !== undefined && cluster !== clusterId;
          cluster = clusterId;
          if (setBack || other) {
            log.error(
              setBack
                ? `etcd was set back: its revision is ${revision}, but ${after} was seen`
                : "the etcd endpoints now belong to another cluster",
            );
            yield* afresh(setBack ? "its history was set back" : "it is another cluster", true);
            break;
          }
          head = revision;
          hooks.stands(head);
          createdAt = clock.monotonic();
        }
        events = events.length === 0 ? [...message.events] : events.concat(message.events);
        if (!message.fragment && events.length > 0) {
          const whole = events;
          events = [];
          let last = after + 1;
          for (const { kv } of whole) {
            if (kv.modRevision < last)
              throw new TrilithError("damaged", `etcd sent revision ${kv.modRevision} after ${Math.max(after, last)}`);
            last = kv.modRevision;
          }
          after = last;
          yield { kind: "events", events: whole };
          if (signal.aborted) return;
        }
        if (!up && head !== undefined && hooks.isThere(after, head)) {
          up = true;
          log.info(`etcd is back: following ${stream.url} at revision ${after}`);
          yield { kind: "reachable", reachable: true, atMs: clock.now() };
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      why = messageOf(error);
      log.debug("the watch on etcd broke", { error: why, after });
      if (stream !== undefined) client.distrust(stream.url);
      const now = clock.monotonic();
      const held = createdAt !== undefined && now - createdAt >= timing.graceMs;
      if (held || failures === 0) brokenAt = now;
      failures = held ? 1 : failures + 1;
    } finally {
      patience.cancel();
      signal.removeEventListener("abort", cancel);
      stream?.cancel();
    }
    if (signal.aborted) return;
    const away = failures >= client.size ? lastSign : brokenAt;
    // The same of each member is one reason.
    const reason = why.replaceAll(/https?:\/\/\S+/g, "");
    if (failures > 0 && (up ? clock.monotonic() - away >= timing.graceMs : reason !== told)) {
      if (up)
        log.warn("etcd is away: no member can be watched; answers are the last ones known", { after, error: why });
      up = false;
      told = reason;
      yield { kind: "reachable", reachable: false, atMs: lastSignMs, why };
    }
    if (failures >= client.size) {
      const pauseMs = jitter(Math.min(50 * 2 ** Math.min(failures - client.size, 5), 1_000), 0.3, random);
      await clock.sleep(pauseMs, signal).catch(() => {});
    }
  }
}

function lateError(url: string, timing: ClientTiming): EtcdError {
  const details = `no answer within ${timing.attemptMs} ms`;
  return new EtcdError("unavailable", `etcd watch at ${url}: ${details}`, {
    ...{ done: "no", temporary: true, status: -1, details },
  });
}
