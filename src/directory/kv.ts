// Keys and values by Consul's rules: plain writes, check-and-set, locks held by sessions.
import type { Clock } from "../base/clock.ts";
import { InputError, TrilithError } from "../base/error.ts";
import type { Directory, View } from "../contracts/directory.ts";
import type { Kv, KvPlan, KvSet } from "../contracts/kv.ts";
import type { KvPair } from "../model/kv.ts";
import type { Change, Entry, Expect, Index } from "../model/record.ts";

/** No store takes more; the HTTP dialect's own limit (512 KiB) is below. */
export const VALUE_MAX_BYTES: number = 1024 * 1024;
export const KEY_MAX_BYTES: number = 32 * 1024;
/** How often a plan is made anew because somebody else wrote in between. */
const RETRIES = 100;
const UINT64_MAX = 0xffff_ffff_ffff_ffffn;

/** The key-value store with what sessions need of it. */
export interface KvStore extends Kv {
  /** Nobody may acquire these keys for `delayMs`: their session ended without releasing them. Kept by this process, not written. */
  delayLocks(keys: Iterable<string>, delayMs: number): void;
}

/** The key-value store on a directory. `maxChanges`: how many changes the directory takes in one write. */
export function createKv(directory: Directory & { readonly maxChanges?: number }, clock: Clock): KvStore {
  /** When (monotonic ms) each delayed key is free again. */
  const delayed = new Map<string, number>();

  function isDelayed(key: string): boolean {
    const until = delayed.get(key);
    if (until === undefined) return false;
    if (until > clock.monotonic()) return true;
    delayed.delete(key);
    return false;
  }

  function planSet(view: View, key: string, value: Uint8Array, options: KvSet = {}): KvPlan {
    checkKey(key);
    if (value.byteLength > VALUE_MAX_BYTES)
      throw new TrilithError(
        "too-large",
        `the value of key ${JSON.stringify(key)} has ${value.byteLength} bytes; at most ${VALUE_MAX_BYTES} fit`,
      );
    const { flags = 0n, cas, acquire, release } = options;
    if (flags < 0n || flags > UINT64_MAX)
      throw new InputError("flags", `must be a number from 0 to ${UINT64_MAX}, but is ${flags}`);
    if ([cas, acquire, release].filter((each) => each !== undefined).length > 1)
      throw new InputError(`key ${JSON.stringify(key)}`, "only one of cas, acquire and release may be given");
    const before = view.get("kv", key);
    const expect: Expect[] = [at(key, before)];
    const put = (lock: Pick<KvPair, "lockIndex" | "session">): KvPlan => ({
      ok: true,
      changes: [{ op: "put", table: "kv", key, value: { key, value, flags, ...lock } }],
      expect,
    });
    if (acquire !== undefined) {
      const session = view.get("session", acquire);
      if (session === undefined) throw new InputError("acquire", `invalid session ${JSON.stringify(acquire)}`);
      if (before?.session !== undefined && before.session !== acquire) return { ok: false };
      const held = before?.session === acquire;
      if (!held && isDelayed(key)) return { ok: false };
      expect.push({ table: "session", key: acquire, at: session.modifyIndex });
      return put({ session: acquire, lockIndex: (before?.lockIndex ?? 0) + (held ? 0 : 1) });
    }
    if (release !== undefined) {
      if (before?.session === undefined || before.session !== release) return { ok: false };
      return put({ lockIndex: before.lockIndex });
    }
    if (cas !== undefined && (before?.modifyIndex ?? 0) !== cas) return { ok: false };
    // A write by somebody who does not hold the lock leaves the holder, but not the count of locks [conformance FACTS 7].
    return put({ lockIndex: 0, ...(before?.session === undefined ? {} : { session: before.session }) });
  }

  function planDelete(view: View, key: string, options: { readonly cas?: Index } = {}): KvPlan {
    checkKey(key);
    const before = view.get("kv", key);
    // A missing key counts as deleted, whatever was expected of it [conformance FACTS 8].
    if (before !== undefined && options.cas !== undefined && options.cas !== before.modifyIndex) return { ok: false };
    return { ok: true, changes: [{ op: "delete", table: "kv", key }], expect: [at(key, before)] };
  }

  async function carryOut(plan: (view: View) => KvPlan): Promise<boolean> {
    let caughtUp = false;
    for (let tries = 0; tries < RETRIES; tries++) {
      const planned = plan(directory.view());
      if (!planned.ok) {
        // "No" must be said of the present state, not of what this process has seen of it so far.
        if (caughtUp) return false;
        await directory.barrier();
        caughtUp = true;
        continue;
      }
      const written = await directory.write(planned.changes, planned.expect);
      if (written.result === "written") return true;
      if (written.result === "unknown")
        throw new TrilithError(
          "timeout",
          "whether the key was written is not known: the store did not answer",
          written.cause,
        );
      // Where the view already shows what another writer did, the plan is made anew from it.
      await directory.barrier();
      caughtUp = true;
    }
    throw new TrilithError("unavailable", `gave up after ${RETRIES} attempts: others write the same key all the time`);
  }

  return {
    get: (key) => directory.view().get("kv", key),
    set: (key, value, options) => carryOut((view) => planSet(view, key, value, options)),
    delete: (key, options) => carryOut((view) => planDelete(view, key, options)),
    planSet,
    planDelete,
    async deleteTree(prefix) {
      await directory.barrier();
      const changes: Change[] = Array.from(directory.view().list("kv", prefix), ({ key }) => ({
        op: "delete",
        table: "kv",
        key,
      }));
      const most = directory.maxChanges ?? changes.length;
      // In one piece where the store can.
      for (let from = 0; from < changes.length; from += most) {
        const written = await directory.write(changes.slice(from, from + most));
        if (written.result === "unknown")
          throw new TrilithError(
            "timeout",
            "whether the keys were deleted is not known: the store did not answer",
            written.cause,
          );
      }
    },
    delayLocks(keys, delayMs) {
      const now = clock.monotonic();
      for (const [key, until] of delayed) if (until <= now) delayed.delete(key);
      if (delayMs > 0) for (const key of keys) delayed.set(key, now + delayMs);
    },
  };
}

function at(key: string, before: Entry<"kv"> | undefined): Expect {
  return { table: "kv", key, at: before?.modifyIndex ?? 0 };
}

function checkKey(key: string): void {
  if (key === "") throw new InputError("key", "must not be empty");
  if (Buffer.byteLength(key) > KEY_MAX_BYTES)
    throw new TrilithError(
      "too-large",
      `a key has ${Buffer.byteLength(key)} bytes; at most ${KEY_MAX_BYTES} are taken`,
    );
}
