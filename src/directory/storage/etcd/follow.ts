// Reading the directory in etcd: the whole content at one revision, then every change in order, as batches of records.
import type { Clock } from "../../../base/clock.ts";
import { messageOf } from "../../../base/error.ts";
import type { EtcdClient } from "../../../base/etcd/client.ts";
import {
  followRange,
  newest as newestOf,
  type RangeBatch,
  type RangeReading,
  readRange,
} from "../../../base/etcd/follow.ts";
import { EventType, type KeyValue, type WatchEvent } from "../../../base/etcd/proto.ts";
import type { Log } from "../../../base/log.ts";
import type { Random } from "../../../base/random.ts";
import type { Batch, Row } from "../../../contracts/storage.ts";
import { decodeRecord } from "../../../model/codec.ts";
import type { Index, Table } from "../../../model/record.ts";
import type { Layout } from "./keys.ts";
import type { Line } from "./line.ts";
import type { EtcdTiming } from "./timing.ts";

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

const rangeOf = (reading: Reading): RangeReading => ({
  ...reading,
  ...{ from: reading.at.from, to: reading.at.to, probe: reading.at.tick },
});

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

/** The newest revision by a linearizable read. @throws EtcdError */
export async function newest({ client, at }: Reading, signal?: AbortSignal): Promise<Index> {
  return (await newestOf({ client, probe: at.tick }, signal)).revision;
}

/** The whole content at one revision, in parts. @throws EtcdError, TrilithError `unavailable` where that revision is compacted away meanwhile */
export async function* snapshot(reading: Reading, signal?: AbortSignal): AsyncGenerator<Batch & { kind: "snapshot" }> {
  for await (const part of readRange(rangeOf(reading), signal)) yield snapshotOf(part, reading);
}

function snapshotOf(
  { revision, kvs, complete }: RangeBatch & { kind: "whole" },
  reading: Reading,
): Batch & { kind: "snapshot" } {
  return { kind: "snapshot", index: revision, rows: kvs.flatMap((kv) => rowOf(kv, false, reading) ?? []), complete };
}

/** Everything after `after`, for ever; ends when the signal aborts. */
export async function* follow(reading: Reading, after: Index, signal: AbortSignal): AsyncGenerator<Batch> {
  const { line } = reading;
  line.reached(after, true);
  line.follow(signal);
  const batches = followRange(rangeOf(reading), after, signal, {
    stands: (revision) => line.want(revision),
    // Back means caught up. Where no event can be provoked, an open watch has to do.
    isThere: (revision, head) => revision >= head || line.refused,
  });
  for await (const batch of batches) {
    if (batch.kind === "reachable") yield batch;
    else if (batch.kind === "whole") {
      if (batch.complete) line.reached(batch.revision, true);
      yield snapshotOf(batch, reading);
    } else
      for (const delta of deltas(batch.events, reading)) {
        line.reached(delta.index);
        yield delta;
        if (signal.aborted) return;
      }
  }
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
