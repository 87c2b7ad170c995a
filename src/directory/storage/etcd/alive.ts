// The sign of life: one key under a lease that is renewed, and made again where it was lost.
import type { Clock } from "../../../base/clock.ts";
import { messageOf } from "../../../base/error.ts";
import type { EtcdClient } from "../../../base/etcd/client.ts";
import { EtcdError, isLeaseGone, isLeaseThere } from "../../../base/etcd/error.ts";
import type { Log } from "../../../base/log.ts";
import { jitter, type Random } from "../../../base/random.ts";
import { encodeRecord } from "../../../model/codec.ts";
import { keyOf } from "../../../model/record.ts";
import type { Layout } from "./keys.ts";

/** A lease ID of our own: positive and below 2^48. */
export function leaseId(random: Random): number {
  return Math.max(1, Buffer.from(random.bytes(6)).readUIntBE(0, 6));
}

/** Takes a lease. An attempt whose answer got lost may be repeated: the ID is ours. @throws EtcdError */
export async function grant(
  client: EtcdClient,
  id: number,
  ttlMs: number,
  options: { readonly signal?: AbortSignal; readonly patienceMs?: number } = {},
): Promise<{ readonly id: number; readonly ttlMs: number }> {
  const seconds = Math.max(1, Math.ceil(ttlMs / 1000));
  try {
    const { TTL } = await client.call("leaseGrant", { ID: id, TTL: seconds }, options);
    return { id, ttlMs: TTL * 1000 };
  } catch (error) {
    if (isLeaseThere(error)) return { id, ttlMs: seconds * 1000 };
    throw error;
  }
}

/** What keeping alive needs. */
export interface Living {
  readonly client: EtcdClient;
  readonly at: Layout;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Calls back when the watch saw a sign of life go; returns how to end that. */
  readonly onDeceased: (callback: (key: string) => void) => () => void;
}

/** Keeps `alive/<node>` present until aborted. Nothing is revoked then: whoever starts again in time takes the key over. */
export async function keepAlive(
  living: Living,
  node: string,
  life: string,
  ttlMs: number,
  signal: AbortSignal,
): Promise<void> {
  const { client, at, clock, random, log } = living;
  const record = keyOf.alive(node);
  const key = at.record("alive", record);
  const value = encodeRecord("alive", { node, life });
  let lease: { readonly id: number; readonly ttlMs: number } | undefined;
  let ring: (() => void) | undefined;
  let gone = false;
  const forget = living.onDeceased((deceased) => {
    if (deceased !== record) return;
    gone = true;
    ring?.();
  });
  const pause = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const end = (): void => {
        timer.cancel();
        ring = undefined;
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = clock.after(ms, end);
      ring = end;
      signal.addEventListener("abort", end, { once: true });
      if (signal.aborted || gone) end();
    });
  let complaint = "";
  let failures = 0;
  try {
    while (!signal.aborted) {
      const patienceMs = Math.max(1_000, ttlMs / 3);
      try {
        if (lease === undefined) {
          lease = await grant(client, leaseId(random), ttlMs, { signal, patienceMs });
          gone = true;
        } else {
          const { TTL } = await client.call("leaseKeepAlive", { ID: lease.id }, { signal, patienceMs });
          if (TTL <= 0) {
            log.warn(`etcd let the lease of node "${node}" run out; taking a new one`);
            lease = undefined;
            continue;
          }
        }
        if (gone) {
          gone = false;
          try {
            await client.call("put", { key, value, lease: lease.id }, { signal, patienceMs });
          } catch (error) {
            gone = true;
            throw error;
          }
        }
        if (complaint !== "") log.info(`the sign of life of node "${node}" is kept again`);
        complaint = "";
        failures = 0;
        await pause(jitter(Math.min(lease.ttlMs, ttlMs) / 3, 0.1, random));
      } catch (error) {
        if (signal.aborted) break;
        if (!(error instanceof EtcdError)) throw error;
        if (lease !== undefined && isLeaseGone(error)) {
          lease = undefined;
          continue;
        }
        const text = messageOf(error);
        if (text !== complaint) log.warn(`the sign of life of node "${node}" cannot be kept`, { error: text });
        complaint = text;
        failures++;
        await clock.sleep(jitter(Math.min(100 * 2 ** failures, ttlMs / 3), 0.2, random), signal).catch(() => {});
      }
    }
  } finally {
    forget();
  }
}
