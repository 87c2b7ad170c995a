// Keys and values by Consul's rules: plain writes, check-and-set, locks held by sessions; and times to live.
import type { Clock } from "../base/clock.ts";
import { InputError, TrilithError } from "../base/error.ts";
import type { Random } from "../base/random.ts";
import type { Directory, View } from "../contracts/directory.ts";
import type { Kv, KvPlan, KvSet, Records } from "../contracts/kv.ts";
import type { KvPair } from "../model/kv.ts";
import type { Change, Entry, Expect, Index } from "../model/record.ts";
import { type Due, type Dues, dropRecord, KINDS, living, putRecord, recordKey, recordOf } from "./locks.ts";

/** No store takes more; the HTTP dialect's own limit (512 KiB) is below. */
const VALUE_MAX_BYTES = 1024 * 1024;
const KEY_MAX_BYTES = 32 * 1024;
/** How often a plan is made anew because somebody else wrote in between. */
const RETRIES = 100;
const UINT64_MAX = 0xffff_ffff_ffff_ffffn;
/** A hundred years. */
const TTL_MAX_MS = 100 * 365 * 24 * 3_600_000;

/** What the key-value store needs. */
export interface KvBase {
  /** `maxChanges`: how many changes it takes in one write. */
  readonly directory: Directory & { readonly maxChanges?: number };
  readonly clock: Clock;
  readonly random: Random;
  readonly dues: Dues;
}

/** The key-value store on a directory. */
export function createKv({ directory, clock, random, dues }: KvBase): Kv {
  function planSet(view: Records, key: string, value: Uint8Array, options: KvSet = {}): KvPlan {
    checkKey(key);
    if (value.byteLength > VALUE_MAX_BYTES)
      throw new TrilithError(
        "too-large",
        `the value of key ${JSON.stringify(key)} has ${value.byteLength} bytes; at most ${VALUE_MAX_BYTES} fit`,
      );
    const { flags = 0n, cas, acquire, release, ttlMs } = options;
    if (ttlMs !== undefined && !(ttlMs > 0 && ttlMs <= TTL_MAX_MS))
      throw new InputError("ttl", `must be more than 0 and at most ${TTL_MAX_MS} ms, but is ${ttlMs} ms`);
    if (flags < 0n || flags > UINT64_MAX)
      throw new InputError("flags", `must be a number from 0 to ${UINT64_MAX}, but is ${flags}`);
    if ([cas, acquire, release].filter((each) => each !== undefined).length > 1)
      throw new InputError(`key ${JSON.stringify(key)}`, "only one of cas, acquire and release may be given");
    const before = view.get("kv", key);
    const expect: Expect[] = [at(key, before)];
    const changes: Change[] = [];
    if (ttlMs !== undefined) {
      const due: Due = { ms: ttlMs, atMs: clock.now() };
      changes.push(putRecord(KINDS.ttl, key, due));
    } else changes.push(...endOfTtl(view, key));
    const put = (lock: Pick<KvPair, "lockIndex" | "session">): KvPlan => ({
      ok: true,
      changes: [{ op: "put", table: "kv", key, value: { key, value, flags, ...lock } }, ...changes],
      expect,
    });
    if (acquire !== undefined) {
      // Of a lock that is closed for a while nobody learns more, not even that the session is none.
      const delay = recordOf(view, KINDS.delay, key);
      if (before?.session === undefined && delay !== undefined && dues.remainingMs(delay) > 0)
        return { ok: false, delayed: true };
      const session = living(view, acquire);
      if (session === undefined) throw new InputError("acquire", `invalid session ${JSON.stringify(acquire)}`);
      if (before?.session !== undefined && before.session !== acquire) return { ok: false };
      expect.push({ table: "session", key: acquire, at: session.modifyIndex });
      if (before?.session === acquire) return put({ session: acquire, lockIndex: before.lockIndex });
      if (delay !== undefined) changes.push(dropRecord(delay));
      // Whoever ends the session at this moment must see that it holds one key more than it did.
      changes.push(putRecord(KINDS.used, acquire, random.uuid()));
      return put({ session: acquire, lockIndex: (before?.lockIndex ?? 0) + 1 });
    }
    if (release !== undefined) {
      if (before?.session === undefined || before.session !== release) return { ok: false };
      return put({ lockIndex: before.lockIndex });
    }
    if (cas !== undefined && (before?.modifyIndex ?? 0) !== cas) return { ok: false };
    // A write by somebody who does not hold the lock leaves the holder, but not the count of locks [conformance FACTS 7].
    return put({ lockIndex: 0, ...(before?.session === undefined ? {} : { session: before.session }) });
  }

  function planDelete(view: Records, key: string, options: { readonly cas?: Index } = {}): KvPlan {
    checkKey(key);
    const before = view.get("kv", key);
    // A missing key counts as deleted, whatever was expected of it [conformance FACTS 8].
    if (before !== undefined && options.cas !== undefined && options.cas !== before.modifyIndex) return { ok: false };
    return {
      ok: true,
      changes: [{ op: "delete", table: "kv", key }, ...endOfTtl(view, key)],
      expect: [at(key, before)],
    };
  }

  async function carryOut(plan: (view: View) => KvPlan): Promise<boolean> {
    let caughtUp = false;
    for (let tries = 0; tries < RETRIES; tries++) {
      let planned: KvPlan;
      try {
        planned = plan(directory.view());
      } catch (error) {
        // The session may be so new that this process has not seen it yet.
        if (caughtUp || !(error instanceof InputError) || error.where !== "acquire") throw error;
        await directory.barrier();
        caughtUp = true;
        continue;
      }
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
    async read(key, signal) {
      await directory.barrier(signal);
      return directory.view().get("kv", key);
    },
    set: (key, value, options) => carryOut((view) => planSet(view, key, value, options)),
    delete: (key, options) => carryOut((view) => planDelete(view, key, options)),
    planSet,
    planDelete,
    async deleteTree(prefix) {
      await directory.barrier();
      const view = directory.view();
      const changes: Change[] = Array.from(view.list("kv", prefix), ({ key }) => ({ op: "delete", table: "kv", key }));
      for (const ttl of view.list("kept", recordKey(KINDS.ttl, prefix))) changes.push(dropRecord(ttl));
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
  };
}

/** Takes back that a key goes by itself. */
function endOfTtl(view: Records, key: string): Change[] {
  const ttl = recordOf(view, KINDS.ttl, key);
  return ttl === undefined ? [] : [dropRecord(ttl)];
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
