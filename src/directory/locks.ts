// What keeps locks right beside keys and sessions: records of delays, times to live and signs of use; who still lives; what is due when.
import type { Clock } from "../base/clock.ts";
import type { View } from "../contracts/directory.ts";
import type { Records } from "../contracts/kv.ts";
import type { SessionFault } from "../contracts/session.ts";
import { type Change, type Entry, type Index, keyOf, type Scope, type Session, scope } from "../model/record.ts";

/** For so long at most a lock stays closed after its session ended (Consul's limit). */
export const LOCK_DELAY_MAX_MS = 60_000;

/**
 * The kinds of records this file keeps in the table `kept`:
 * `lock.delay` (id: a key) closes a key to locking, `key.ttl` (id: a key) ends a key, both after a time;
 * `session.used` (id: a session) is written anew with each lock the session takes, `session.renewed` with each renewal that other
 * processes have to know of. Written apart from the session itself, so that nobody who watches sessions is woken.
 */
export const KINDS = {
  delay: "lock.delay",
  ttl: "key.ttl",
  used: "session.used",
  renewed: "session.renewed",
} as const;
export type Kind = (typeof KINDS)[keyof typeof KINDS];

/** Something is due `ms` after `atMs` (milliseconds since the epoch, by the clock of who wrote it). */
export interface Due {
  readonly ms: number;
  readonly atMs: number;
}

/** The id of a record about a key: names in the table may not hold NUL, keys may. */
const idOf = (name: string): string => name.replace(/[%\u0000]/g, (char) => (char === "%" ? "%25" : "%00"));
const nameOf = (id: string): string => id.replace(/%(25|00)/g, (_, code) => (code === "25" ? "%" : "\u0000"));

/** The key of a record in the table `kept`. `name`: the key or session it is about. */
export function recordKey(kind: Kind, name: string): string {
  return keyOf.kept(kind, idOf(name));
}

/** The record of this kind about a key or session; undefined where there is none. */
export function recordOf(view: Records, kind: Kind, name: string): Entry<"kept"> | undefined {
  return view.get("kept", recordKey(kind, name));
}

/** The key or session that a record is about. */
export function aboutOf(record: Entry<"kept">): string {
  return nameOf(record.id);
}

/** The change that keeps `value` about a key or session. */
export function putRecord(kind: Kind, name: string, value: unknown): Change {
  const id = idOf(name);
  return { op: "put", table: "kept", key: keyOf.kept(kind, id), value: { kind, id, value } };
}

/** The change that forgets a record. */
export function dropRecord(record: Entry<"kept">): Change {
  return { op: "delete", table: "kept", key: keyOf.kept(record.kind, record.id) };
}

/** The scopes in whose changes something may end a session or become due. */
export const WATCHED: readonly Scope[] = [
  "sessions",
  "nodes",
  "checks",
  scope.kept(KINDS.delay),
  scope.kept(KINDS.ttl),
];

/** What ends a session on the strength of a view. `since`: the session's createIndex; what was removed and made anew after it is gone. */
export function faultOf(
  view: Records,
  session: Session,
  since: Index = Number.MAX_SAFE_INTEGER,
): SessionFault | undefined {
  const node = view.get("node", keyOf.node(session.node));
  if (node === undefined || node.createIndex > since) return { kind: "node-missing", node: session.node };
  for (const id of checksOf(session)) {
    const check = view.get("check", keyOf.check(session.node, id));
    if (check === undefined || check.createIndex > since) return { kind: "check-missing", check: id };
    if (check.status === "critical") return { kind: "check-critical", check: id };
  }
  return undefined;
}

/** The IDs of the checks that a session stands on, each once. */
export function checksOf(session: Session): ReadonlySet<string> {
  return new Set([...(session.checks ?? []), ...session.nodeChecks, ...session.serviceChecks.map((check) => check.id)]);
}

/** A session that may acquire locks. */
export function living(view: Records, id: string): Entry<"session"> | undefined {
  const session = view.get("session", id);
  if (session === undefined || session.ended === true) return undefined;
  return faultOf(view, session, session.createIndex) === undefined ? session : undefined;
}

/**
 * Says how long it is until a record is due, and is right about it without trusting other hosts' clocks: what came while this process
 * was watching counts from when it was first seen; only what was there before counts from when it says it was written.
 */
export class Dues {
  readonly #clock: Clock;
  readonly #dueAtMs = new Map<string, { readonly modifyIndex: Index; readonly atMs: number }>();
  #since: Index | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** From here on this process watches. */
  watchFrom(index: Index): void {
    this.#since ??= index;
  }

  /** Milliseconds; 0 or less: it is due. */
  remainingMs(record: Entry<"kept">): number {
    const name = keyOf.kept(record.kind, record.id);
    const now = this.#clock.monotonic();
    let due = this.#dueAtMs.get(name);
    if (due === undefined || due.modifyIndex !== record.modifyIndex) {
      const { ms, atMs } = record.value as Due;
      const old = this.#since === undefined || record.modifyIndex <= this.#since;
      const left = old ? Math.min(ms, Math.max(0, atMs + ms - this.#clock.now())) : ms;
      due = { modifyIndex: record.modifyIndex, atMs: now + left };
      this.#dueAtMs.set(name, due);
    }
    return due.atMs - now;
  }

  /** Forgets what is not there any more. */
  prune(view: View): void {
    for (const name of this.#dueAtMs.keys()) if (view.get("kept", name) === undefined) this.#dueAtMs.delete(name);
  }
}
