// Writing to etcd: each commit all or nothing, at most once, several in one transaction where they do not touch each other.
import type { Clock } from "../../../base/clock.ts";
import { TrilithError } from "../../../base/error.ts";
import type { EtcdClient } from "../../../base/etcd/client.ts";
import { EtcdError, isCompacted, isLeaseGone } from "../../../base/etcd/error.ts";
import type { RangeResponse, RequestOp, TxnRequest } from "../../../base/etcd/proto.ts";
import type { Random } from "../../../base/random.ts";
import type { Written } from "../../../contracts/directory.ts";
import type { Commit } from "../../../contracts/storage.ts";
import { encodeRecord } from "../../../model/codec.ts";
import { grant, leaseId } from "./alive.ts";
import { absent, standsAt } from "./compares.ts";
import type { Layout } from "./keys.ts";
import type { Line } from "./line.ts";
import type { EtcdTiming } from "./timing.ts";
import { isKeyGone, isSingle, MOST_SINGLES, type WideCondition, wideReads, wideTransaction } from "./wide.ts";

/** etcd's default for operations (or conditions) of one transaction (`--max-txn-ops`). */
const MOST_OPERATIONS = 128;
/** Changes (and expectations) of one commit; one place is the marker's. */
export const MOST_CHANGES: number = MOST_OPERATIONS - 1;
/** Changes (and expectations) of a commit that goes alone, in a nested transaction (wide.ts). */
export const MOST_WIDE = 1024;
/** Commits share a transaction up to this size; etcd's default limit for a request is 1.5 MiB. */
const SHARED_BYTES = 512 << 10;

const WRITTEN = Buffer.from("written");
const VOID = Buffer.from("void");

/** A commit on its way. */
interface Pending {
  readonly id: string;
  readonly marker: Buffer;
  readonly operations: readonly RequestOp[];
  readonly conditions: readonly WideCondition[];
  /** Everything it reads or writes, as text. */
  readonly touches: ReadonlySet<string>;
  readonly bytes: number;
  readonly deadline: number;
  /** An attempt may have been done or may yet be done. */
  ambiguous: boolean;
  /** More than a flat transaction holds. */
  readonly wide: boolean;
  /** It shares no transaction. */
  alone: boolean;
  started: boolean;
  settled: boolean;
  settle(result: Written | TrilithError): void;
}

/** What writing needs. */
export interface Writing {
  readonly client: EtcdClient;
  readonly at: Layout;
  readonly line: Line;
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: EtcdTiming;
}

/**
 * Writes commits. Each leaves a marker `~commit/<id>` under a lease of some minutes: a transaction whose marker is there already was
 * written, and its marker's revision is its index. A commit that failed its expectations after an attempt of unknown outcome gets a void
 * marker, so that the lost attempt can never be done later.
 */
export class Writer {
  readonly #writing: Writing;
  #queue: Pending[] = [];
  #running = false;
  #lease: { readonly id: number; readonly since: number } | undefined;
  /** Commits told as unknown, whose lost attempts may still be done. */
  readonly #unknown = new Set<string>();
  #closed: TrilithError | undefined;

  constructor(writing: Writing) {
    this.#writing = writing;
  }

  /** See `Storage.commit`. */
  commit(commit: Commit, signal?: AbortSignal): Promise<Written> {
    return new Promise((resolve, reject) => {
      if (this.#closed !== undefined) throw this.#closed;
      signal?.throwIfAborted();
      const pending = this.#prepare(commit, (result) => {
        if (pending.settled) return;
        pending.settled = true;
        signal?.removeEventListener("abort", onAbort);
        if (result instanceof TrilithError) return reject(result);
        if (result.result === "unknown") this.#remember(commit.id);
        else this.#unknown.delete(commit.id);
        if (result.result === "written") this.#writing.line.want(result.index);
        resolve(result);
      });
      const onAbort = (): void => {
        if (pending.started || pending.ambiguous) {
          pending.settle({ result: "unknown", cause: signal?.reason as Error });
          return;
        }
        this.#queue = this.#queue.filter((other) => other !== pending);
        pending.settled = true;
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#queue.push(pending);
      void this.#run();
    });
  }

  /** Ends everything: what was not sent is refused, what was is unknown. */
  close(why: TrilithError): void {
    this.#closed = why;
    const queue = this.#queue;
    this.#queue = [];
    for (const pending of queue) pending.settle(pending.ambiguous ? { result: "unknown", cause: why } : why);
  }

  #remember(id: string): void {
    this.#unknown.add(id);
    for (const oldest of this.#unknown) {
      if (this.#unknown.size <= 10_000) break;
      this.#unknown.delete(oldest);
    }
  }

  #prepare(commit: Commit, settle: Pending["settle"]): Pending {
    const { at, clock, timing } = this.#writing;
    const touches = new Set<string>();
    let bytes = 0;
    const operations = commit.changes.map((change): RequestOp => {
      const key = at.record(change.table, change.key);
      const name = key.toString();
      if (touches.has(name))
        throw new TrilithError("invalid", `commit ${commit.id}: two changes of ${change.table} "${change.key}"`);
      touches.add(name);
      bytes += key.length + 16;
      if (change.op === "delete") return { requestDeleteRange: { key } };
      const value = encodeRecord(change.table, change.value);
      bytes += value.length;
      return { requestPut: { key, value } };
    });
    const changed = new Map(commit.changes.map(({ op, table, key }) => [at.record(table, key).toString(), op]));
    const conditions = commit.expect.map((expect): WideCondition => {
      const key = at.record(expect.table, expect.key);
      const name = key.toString();
      touches.add(name);
      bytes += key.length * 2 + 16;
      return { table: expect.table, key, at: expect.at, change: changed.get(name) };
    });
    if (operations.length > MOST_WIDE)
      throw new TrilithError("too-large", `${operations.length} changes in one write; etcd takes ${MOST_WIDE} at most`);
    if (conditions.length > MOST_WIDE)
      throw new TrilithError(
        "too-large",
        `${conditions.length} expectations in one write; etcd takes ${MOST_WIDE} at most`,
      );
    const wide = operations.length > MOST_CHANGES || conditions.length > MOST_CHANGES;
    const singles = conditions.filter(isSingle).length;
    if (wide && singles > MOST_SINGLES)
      throw new TrilithError(
        "too-large",
        `${operations.length} changes and ${conditions.length} expectations in one write, ${singles} of them of records that it does not change; in a write of more than ${MOST_CHANGES} etcd takes ${MOST_SINGLES} such at most`,
      );
    const marker = at.commit(commit.id);
    return {
      id: commit.id,
      marker,
      operations,
      conditions,
      touches,
      bytes: bytes + marker.length * 3,
      deadline: clock.monotonic() + timing.patienceMs,
      ambiguous: this.#unknown.has(commit.id),
      wide,
      alone: wide,
      started: false,
      settled: false,
      settle,
    };
  }

  /** Takes the next commits that may share a transaction: in order, and none that touches what an earlier one touches. */
  #take(): Pending[] {
    const taken: Pending[] = [];
    const left: Pending[] = [];
    const touched = new Set<string>();
    let operations = 0;
    let conditions = 0;
    let bytes = 0;
    for (const pending of this.#queue) {
      const apart = [...pending.touches].every((key) => !touched.has(key)) && !touched.has(pending.id);
      const fits =
        taken.length === 0 ||
        (apart &&
          !pending.alone &&
          !(taken[0] as Pending).alone &&
          operations + pending.operations.length + 1 <= MOST_OPERATIONS &&
          conditions + pending.conditions.length + 1 <= MOST_OPERATIONS &&
          bytes + pending.bytes <= SHARED_BYTES);
      (fits ? taken : left).push(pending);
      if (fits) {
        operations += pending.operations.length + 1;
        conditions += pending.conditions.length + 1;
        bytes += pending.bytes;
      }
      // Also what waits keeps its place before later commits that touch the same.
      touched.add(pending.id);
      for (const key of pending.touches) touched.add(key);
    }
    this.#queue = left;
    return taken;
  }

  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    // Commits of this turn go together.
    await Promise.resolve();
    while (this.#queue.length > 0 && this.#closed === undefined) {
      const batch = this.#take();
      const late = batch.filter((pending) => this.#writing.clock.monotonic() > pending.deadline);
      if (late.length > 0)
        this.#fail(
          late,
          new TrilithError("unavailable", "writing to etcd: earlier writes took all the time there was"),
        );
      const timely = batch.filter((pending) => !late.includes(pending));
      const [first] = timely;
      if (first === undefined) continue;
      for (const pending of timely) pending.started = true;
      if (first.wide) await this.#writeWide(first);
      else await this.#write(timely);
    }
    this.#running = false;
  }

  /** Does one transaction; what remains to be done goes back to the front of the queue. Never rejects. */
  async #write(batch: readonly Pending[]): Promise<void> {
    const { client, clock } = this.#writing;
    const deadline = Math.min(...batch.map((pending) => pending.deadline));
    const patienceMs = (): number => Math.max(1, deadline - clock.monotonic());
    const failed = (error: EtcdError): void => {
      if (error.done === "maybe") for (const pending of batch) pending.ambiguous = true;
    };
    let sent = false;
    try {
      const lease = await this.#markerLease(patienceMs());
      sent = true;
      const answer = await client.call("txn", transaction(batch, lease), { patienceMs: patienceMs(), failed });
      if (answer.succeeded) {
        for (const pending of batch) pending.settle({ result: "written", index: answer.header.revision });
        return;
      }
      const found = answer.responses.map(({ responseRange }) => responseRange?.kvs[0]);
      const again: Pending[] = [];
      let next = 0;
      for (const pending of batch) {
        const marker = found[next++];
        const met = pending.conditions.map(({ at }) => (found[next++]?.modRevision ?? 0) === at).every(Boolean);
        if (marker !== undefined) pending.settle(outcome(marker));
        else if (met) again.push(pending);
        else if (pending.ambiguous) await this.#fence(pending, lease);
        else pending.settle({ result: "expectation-failed" });
      }
      this.#queue.unshift(...again.filter((pending) => !pending.settled));
    } catch (error) {
      // Ended by `close`: nobody knows how far it came.
      if (sent && !(error instanceof EtcdError)) for (const pending of batch) pending.ambiguous = true;
      if (isLeaseGone(error)) {
        this.#lease = undefined;
        this.#queue.unshift(...batch.filter((pending) => !pending.settled));
      } else this.#fail(batch, error);
    }
  }

  /** Does one commit that no flat transaction holds: looks how things stand, and writes if nothing has changed since. Never rejects. */
  async #writeWide(pending: Pending): Promise<void> {
    const { client, clock } = this.#writing;
    const patienceMs = (): number => Math.max(1, pending.deadline - clock.monotonic());
    const failed = (error: EtcdError): void => {
      if (error.done === "maybe") pending.ambiguous = true;
    };
    let sent = false;
    try {
      const lease = await this.#markerLease(patienceMs());
      let revision = 0;
      const found: RangeResponse["kvs"][number][] = [];
      for (const reads of wideReads(pending.marker, pending.conditions, MOST_OPERATIONS)) {
        // All of it as of one moment.
        const success = reads.map((read) => ({ requestRange: revision === 0 ? read : { ...read, revision } }));
        const answer = await client.call("txn", { compare: [], success, failure: [] }, { patienceMs: patienceMs() });
        if (revision === 0) revision = answer.header.revision;
        for (const { responseRange } of answer.responses) found.push(...(responseRange?.kvs ?? []));
      }
      const standing = new Map(found.map((kv) => [kv.key.toString(), kv]));
      const marker = standing.get(pending.marker.toString());
      if (marker !== undefined) return pending.settle(outcome(marker));
      if (!pending.conditions.every(({ key, at }) => (standing.get(key.toString())?.modRevision ?? 0) === at)) {
        if (pending.ambiguous) await this.#fence(pending, lease);
        else pending.settle({ result: "expectation-failed" });
        return;
      }
      sent = true;
      const put: RequestOp = { requestPut: { key: pending.marker, value: WRITTEN, lease } };
      const request = wideTransaction(
        pending.marker,
        this.#writing.at.record("grave", ""),
        pending.conditions,
        [...pending.operations, put],
        revision,
      );
      const answer = await client.call("txn", request, { patienceMs: patienceMs(), failed });
      if (answer.succeeded) pending.settle({ result: "written", index: answer.header.revision });
      else if (!pending.settled) this.#queue.unshift(pending);
    } catch (error) {
      if (sent && !(error instanceof EtcdError)) pending.ambiguous = true;
      if (isLeaseGone(error)) this.#lease = undefined;
      const again = isLeaseGone(error) || isKeyGone(error) || isCompacted(error);
      if (!again) this.#fail([pending], error);
      else if (!pending.settled) this.#queue.unshift(pending);
    }
  }

  #fail(batch: readonly Pending[], error: unknown): void {
    const cause =
      this.#closed ?? (error instanceof TrilithError ? error : new TrilithError("internal", "writing to etcd", error));
    if (batch.length > 1 && error instanceof EtcdError && !error.temporary) {
      // What is wrong with one is not the fault of the others.
      for (const pending of batch) pending.alone = true;
      this.#queue.unshift(...batch.filter((pending) => !pending.settled));
      return;
    }
    for (const pending of batch) pending.settle(pending.ambiguous ? { result: "unknown", cause } : cause);
  }

  /** Makes sure that no lost attempt of a commit whose expectations failed is ever done. */
  async #fence(pending: Pending, lease: number): Promise<void> {
    const answer = await this.#writing.client.call("txn", {
      compare: [absent(pending.marker)],
      success: [{ requestPut: { key: pending.marker, value: VOID, lease } }],
      failure: [{ requestRange: { key: pending.marker } }],
    });
    const marker = answer.responses[0]?.responseRange?.kvs[0];
    if (answer.succeeded || marker === undefined) pending.settle({ result: "expectation-failed" });
    else pending.settle(outcome(marker));
  }

  /** The lease of the markers; another one from time to time, so that markers go some minutes after their commits. */
  async #markerLease(patienceMs: number): Promise<number> {
    const { client, clock, random, timing } = this.#writing;
    const now = clock.monotonic();
    if (this.#lease === undefined || now - this.#lease.since >= timing.repeatMs) {
      const { id } = await grant(client, leaseId(random), timing.repeatMs * 2, { patienceMs });
      this.#lease = { id, since: now };
    }
    return this.#lease.id;
  }
}

/** What an existing marker says about its commit. */
function outcome(marker: RangeResponse["kvs"][number]): Written {
  return marker.value.equals(VOID)
    ? { result: "expectation-failed" }
    : { result: "written", index: marker.modRevision };
}

/** One transaction for several commits: if any condition fails, everything that was looked at is read instead. */
function transaction(batch: readonly Pending[], lease: number): TxnRequest {
  const compare = batch.flatMap((pending) => [absent(pending.marker), ...pending.conditions.map(standsAt)]);
  const success = batch.flatMap((pending): RequestOp[] => [
    ...pending.operations,
    { requestPut: { key: pending.marker, value: WRITTEN, lease } },
  ]);
  const failure = batch.flatMap((pending): RequestOp[] => [
    { requestRange: { key: pending.marker } },
    ...pending.conditions.map(({ key }): RequestOp => ({ requestRange: { key, keysOnly: true } })),
  ]);
  return { compare, success, failure };
}
