// Reading etcd: the whole content at one revision, then every change in order, across disconnects, elections and compaction.
import type { Clock } from "../../../base/clock.ts";
import { messageOf, TrilithError } from "../../../base/error.ts";
import type { Log } from "../../../base/log.ts";
import type { Random } from "../../../base/random.ts";
import { jitter } from "../../../base/random.ts";
import type { Batch, Row } from "../../../contracts/storage.ts";
import { decodeRecord } from "../../../model/codec.ts";
import type { Index, Table } from "../../../model/record.ts";
import { type EtcdClient, EtcdError, type EtcdTiming, isCompacted, type Stream } from "./client.ts";
import type { Layout } from "./keys.ts";
import type { Line } from "./line.ts";
import { EventType, type KeyValue, type RangeResponse, type WatchEvent } from "./proto.ts";

/** What reading needs. */
export interface Reading {
  readonly client: EtcdClient;
  readonly at: Layout;
  readonly line: Line;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly timing: EtcdTiming;
  /** Told of every sign of life that went, by its record's key. */
  readonly deceased: (key: string) => void;
}

const FIRST_PAGE_KEYS = 256;
const MOST_PAGE_KEYS = 4_096;
const PAGE_BYTES = 2 << 20;

/** A record as it came; undefined for keys that are none and for content that cannot be read (which is logged). */
function rowOf(kv: KeyValue, gone: boolean, reading: Pick<Reading, "at" | "log">): Row | undefined {
  const found = reading.at.parse(kv.key);
  if (found === undefined) return undefined;
  const { table, key } = found;
  if (gone) return { table, key, value: undefined, createIndex: 0, modifyIndex: kv.modRevision };
  try {
    const value = decodeRecord(table, kv.value);
    return { table, key, value, createIndex: kv.createRevision, modifyIndex: kv.modRevision } as Row<Table>;
  } catch (error) {
    // Somebody wrote it by hand; what was known before stays until a readable record comes.
    reading.log.warn(`the record at etcd key "${kv.key.toString()}" is ignored`, { error: messageOf(error) });
    return undefined;
  }
}

/** The newest revision by a linearizable read, and which cluster said so. @throws EtcdError */
export async function newest(
  { client, at }: Pick<Reading, "client" | "at">,
  signal?: AbortSignal,
): Promise<{ readonly revision: Index; readonly clusterId: number }> {
  const { header } = await client.call("range", { key: at.tick, countOnly: true }, { signal });
  return header;
}

/** The whole content at one revision, in parts. @throws EtcdError, TrilithError `unavailable` where that revision is compacted away meanwhile */
export async function* snapshot(reading: Reading, signal?: AbortSignal): AsyncGenerator<Batch & { kind: "snapshot" }> {
  const { client, at } = reading;
  let index: Index | undefined;
  let from = at.from;
  let limit = FIRST_PAGE_KEYS;
  for (;;) {
    let page: RangeResponse;
    try {
      page = await client.call("range", { key: from, rangeEnd: at.to, limit, revision: index ?? 0 }, { signal });
    } catch (error) {
      if (index !== undefined && isCompacted(error))
        throw new TrilithError("unavailable", `etcd compacted revision ${index} while it was being read`, error);
      throw error;
    }
    index ??= page.header.revision;
    const rows: Row[] = [];
    let bytes = 0;
    for (const kv of page.kvs) {
      bytes += kv.value.length;
      const row = rowOf(kv, false, reading);
      if (row !== undefined) rows.push(row);
    }
    const last = page.kvs.at(-1);
    const complete = !page.more || last === undefined;
    yield { kind: "snapshot", index, rows, complete };
    if (complete) return;
    from = Buffer.concat([last.key, Buffer.of(0)]);
    const perKey = Math.max(1, bytes / page.kvs.length);
    limit = Math.max(16, Math.min(MOST_PAGE_KEYS, limit * 4, Math.floor(PAGE_BYTES / perKey)));
  }
}

/** Everything after `after`, for ever; ends when the signal aborts. */
export async function* follow(reading: Reading, after: Index, signal: AbortSignal): AsyncGenerator<Batch> {
  const { client, line, clock, random, log, timing } = reading;
  let up = true;
  let lastSignMs = clock.now();
  let lastSign = clock.monotonic();
  let cluster: number | undefined;
  /** Sessions in a row that came to nothing, and since when. */
  let failures = 0;
  let brokenAt = 0;
  const sign = (): void => {
    lastSignMs = clock.now();
    lastSign = clock.monotonic();
  };
  async function* afresh(why: string): AsyncGenerator<Batch> {
    log.info(`reading everything from etcd again: ${why}`);
    // Handed on only when it is whole: half a snapshot would be left over where the rest cannot be read.
    const parts: (Batch & { kind: "snapshot" })[] = [];
    for await (const part of snapshot(reading, signal)) parts.push(part);
    for (const part of parts) {
      after = part.index;
      if (part.complete) line.reached(after, true);
      yield part;
    }
    sign();
  }

  line.reached(after, true);
  line.follow(signal);
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
        createRequest: { key: reading.at.from, rangeEnd: reading.at.to, startRevision: after + 1, fragment: true },
      });
      let head: Index | undefined;
      let events: WatchEvent[] = [];
      for (;;) {
        const message = await stream.next();
        patience.cancel();
        if (message === undefined) {
          if (late) throw lateError(stream.url, timing);
          break;
        }
        sign();
        if (message.canceled) {
          if (message.compactRevision > 0) {
            yield* afresh(`revision ${after + 1} is compacted away, the oldest kept is ${message.compactRevision}`);
            break;
          }
          // An expired token shows as a lack of permission.
          client.forgetToken();
          throw new TrilithError("unavailable", `etcd watch at ${stream.url}: cancelled: ${message.cancelReason}`);
        }
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
            yield* afresh(setBack ? "its history was set back" : "it is another cluster");
            break;
          }
          head = revision;
          line.want(head);
          createdAt = clock.monotonic();
        }
        events = events.length === 0 ? [...message.events] : events.concat(message.events);
        if (!message.fragment && events.length > 0) {
          const whole = events;
          events = [];
          for (const batch of deltas(whole, reading)) {
            if (batch.index <= after)
              throw new TrilithError("damaged", `etcd sent revision ${batch.index} after ${after}`);
            after = batch.index;
            line.reached(after);
            yield batch;
            if (signal.aborted) return;
          }
        }
        // Back means caught up. Where no event can be provoked, an open watch has to do.
        if (!up && head !== undefined && (after >= head || line.refused)) {
          up = true;
          log.info(`etcd is back: following ${stream.url} at revision ${after}`);
          yield { kind: "reachable", reachable: true, atMs: clock.now() };
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      log.debug("the watch on etcd broke", { error: messageOf(error), after });
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
    if (up && failures > 0 && clock.monotonic() - away >= timing.graceMs) {
      up = false;
      log.warn("etcd is away: no member can be watched; answers are the last ones known", { after });
      yield { kind: "reachable", reachable: false, atMs: lastSignMs };
    }
    if (failures >= client.size) {
      const pauseMs = jitter(Math.min(50 * 2 ** Math.min(failures - client.size, 5), 1_000), 0.3, random);
      await clock.sleep(pauseMs, signal).catch(() => {});
    }
  }
}

function lateError(url: string, timing: EtcdTiming): EtcdError {
  const details = `no answer within ${timing.attemptMs} ms`;
  return new EtcdError("unavailable", `etcd watch at ${url}: ${details}`, {
    done: "no",
    temporary: true,
    status: -1,
    details,
  });
}

/** Events as deltas, one for each revision. */
function* deltas(events: readonly WatchEvent[], reading: Reading): Generator<Batch & { kind: "delta" }> {
  let rows: Row[] = [];
  for (const [i, { type, kv }] of events.entries()) {
    const row = rowOf(kv, type === EventType.delete, reading);
    if (row !== undefined) {
      rows.push(row);
      if (row.table === "alive" && row.value === undefined) reading.deceased(row.key);
    }
    if (events[i + 1]?.kv.modRevision !== kv.modRevision) {
      yield { kind: "delta", index: kv.modRevision, rows };
      rows = [];
    }
  }
}
