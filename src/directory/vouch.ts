// Signs of life in a directory whose store leases nothing: kept as ordinary records by this process, for itself and for the client hosts that joined it.
import { setMaxListeners } from "node:events";
import type { Clock } from "../base/clock.ts";
import { codeOf, messageOf } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Directory } from "../contracts/directory.ts";
import { keyOf } from "../model/record.ts";

export interface VouchingOptions {
  readonly directory: Directory;
  readonly clock: Clock;
  readonly log: Log;
  /** Called once, when the first sign of another node is to be kept. */
  readonly first: () => void;
}

/** What `Storage.alive` is for shared stores, for an embedded one. */
export interface Vouching {
  /** As `Storage.alive`: keeps the sign until aborted, then lets it run out. */
  alive(node: string, life: string, ttlMs: number, signal: AbortSignal): Promise<void>;
  /** The same for another node than this one. */
  vouch(node: string, life: string, ttlMs: number, signal: AbortSignal): Promise<void>;
  /** Signs left over from this agent's last life run out after `ttlMs` unless they are given again. True where there are any. */
  inherit(own: string, ttlMs: number): boolean;
  /** No timer runs afterwards; signs stay as they are, so that an upgrade is seen by nobody. */
  stop(): void;
}

/** See `Vouching`. */
export function createVouching({ directory, clock, log, first }: VouchingOptions): Vouching {
  /** How many keep a node's sign at this moment, and what lets it run out. */
  const kept = new Map<string, number>();
  const endings = new Map<string, { cancel(): void }>();
  const ending = new AbortController();
  // One for each client host.
  setMaxListeners(0, ending.signal);
  let stopped = false;
  let started = false;

  const runOut = (node: string, ttlMs: number): void => {
    const key = keyOf.alive(node);
    if (stopped || (kept.get(key) ?? 0) > 0) return;
    endings.get(key)?.cancel();
    endings.set(
      key,
      clock.after(ttlMs, () => {
        endings.delete(key);
        directory.write([{ op: "delete", table: "alive", key }]).catch((error: unknown) => {
          if (stopped || codeOf(error) === "stopped") return;
          log.warn(`the sign of life of "${node}" could not be taken away, trying again`, { error: messageOf(error) });
          runOut(node, Math.max(1000, ttlMs));
        });
      }),
    );
  };

  const alive = async (node: string, life: string, ttlMs: number, signal: AbortSignal): Promise<void> => {
    if (signal.aborted || stopped) return;
    const key = keyOf.alive(node);
    kept.set(key, (kept.get(key) ?? 0) + 1);
    endings.get(key)?.cancel();
    endings.delete(key);
    try {
      await directory.write([{ op: "put", table: "alive", key, value: { node, life } }]);
      await new Promise<void>((resolve) => {
        if (signal.aborted || ending.signal.aborted) return resolve();
        const done = (): void => {
          signal.removeEventListener("abort", done);
          ending.signal.removeEventListener("abort", done);
          resolve();
        };
        signal.addEventListener("abort", done);
        ending.signal.addEventListener("abort", done);
      });
    } finally {
      const left = (kept.get(key) ?? 1) - 1;
      if (left > 0) kept.set(key, left);
      else {
        kept.delete(key);
        runOut(node, ttlMs);
      }
    }
  };

  return {
    alive,
    vouch(node, life, ttlMs, signal) {
      if (!started) {
        started = true;
        first();
      }
      return alive(node, life, ttlMs, signal);
    },
    inherit(own, ttlMs) {
      let any = false;
      for (const { node } of directory.view().list("alive")) {
        if (keyOf.alive(node) === keyOf.alive(own)) continue;
        any = true;
        runOut(node, ttlMs);
      }
      if (any && !started) {
        started = true;
        first();
      }
      return any;
    },
    stop() {
      stopped = true;
      ending.abort();
      for (const each of endings.values()) each.cancel();
      endings.clear();
    },
  };
}
