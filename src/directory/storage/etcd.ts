// The directory in etcd: shared by many processes, numbered by etcd's revision, readable with etcdctl.
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { TrilithError } from "../../base/error.ts";
import { createClient } from "../../base/etcd/client.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Written } from "../../contracts/directory.ts";
import type { Batch, Commit, Storage } from "../../contracts/storage.ts";
import type { Index } from "../../model/record.ts";
import { keepAlive } from "./etcd/alive.ts";
import { MOST_CHANGES, MOST_WIDE, Writer } from "./etcd/commit.ts";
import { follow, newest, type Reading, snapshot } from "./etcd/follow.ts";
import { layout } from "./etcd/keys.ts";
import { Line } from "./etcd/line.ts";
import { defaultTiming, type EtcdSettings, type EtcdTiming } from "./etcd/timing.ts";

export type { EtcdSettings, EtcdTiming };

/** What the storage needs. */
export interface EtcdGround {
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Pick<Disk, "readBytes">;
  readonly log: Log;
}

/** A shared storage: what is optional in the contract is there. */
export type EtcdStorage = Storage & Required<Pick<Storage, "follow" | "latest" | "alive">>;

/**
 * Builds the storage; the gRPC library is loaded here, members are connected to on the first call. Every wait is bounded by `timing`.
 * @throws InputError for wrong settings, TrilithError for certificate files that cannot be read
 */
export async function createEtcdStorage(
  settings: EtcdSettings,
  ground: EtcdGround,
  timing: Partial<EtcdTiming> = {},
): Promise<EtcdStorage> {
  const patient = { ...defaultTiming, ...timing };
  const { clock, random, log } = ground;
  const at = layout(settings.prefix);
  const client = await createClient(settings, ground, patient);
  const line = new Line(client, at, clock, log, patient);
  const mourners = new Set<(key: string) => void>();
  const reading: Reading = {
    client,
    at,
    line,
    clock,
    random,
    log,
    timing: patient,
    deceased: (key) => {
      for (const callback of mourners) callback(key);
    },
  };
  const writer = new Writer({ client, at, line, clock, random, timing: patient });
  const closing = new AbortController();
  const running = new Set<Promise<unknown>>();
  const until = (signal: AbortSignal): AbortSignal => AbortSignal.any([signal, closing.signal]);

  return {
    name: "etcd",
    shared: true,
    maxChanges: MOST_CHANGES,
    maxWhole: MOST_WIDE,
    open: (signal?: AbortSignal): AsyncIterable<Batch> => snapshot(reading, signal),
    commit: (commit: Commit, signal?: AbortSignal): Promise<Written> => writer.commit(commit, signal),
    follow: (after: Index, signal: AbortSignal): AsyncIterable<Batch> => follow(reading, after, until(signal)),
    async latest(signal?: AbortSignal): Promise<Index> {
      const revision = await newest(reading, signal);
      line.want(revision);
      return revision;
    },
    async alive(node: string, life: string, ttlMs: number, signal: AbortSignal): Promise<void> {
      const onDeceased = (callback: (key: string) => void): (() => void) => {
        mourners.add(callback);
        return () => mourners.delete(callback);
      };
      const keeping = keepAlive({ client, at, clock, random, log, onDeceased }, node, life, ttlMs, until(signal));
      running.add(keeping);
      try {
        await keeping;
      } finally {
        running.delete(keeping);
      }
    },
    async close(): Promise<void> {
      if (closing.signal.aborted) return;
      const why = new TrilithError("stopped", "the etcd storage is closed");
      closing.abort(why);
      writer.close(why);
      client.close();
      await Promise.allSettled(running);
    },
  };
}
