// Writes into a store of this process's own: evaluated one upon the other, made durable together, then shown together.
import type { Written } from "../contracts/directory.ts";
import type { Row } from "../contracts/storage.ts";
import type { Change, Expect, Index, Scope } from "../model/record.ts";
import { evaluate } from "./evaluate.ts";
import type { Shown } from "./shown.ts";
import type { Tables, Touched } from "./tables.ts";
import { mustFit, type WritingGround } from "./writing.ts";

interface Queued {
  readonly changes: readonly Change[];
  readonly expect: readonly Expect[];
  readonly signal: AbortSignal | undefined;
  resolve(written: Written): void;
  reject(error: unknown): void;
}

/** Writes that the store makes durable together. */
interface Round {
  readonly commits: { readonly rows: Row[]; readonly promise: Promise<Written>; readonly queued: Queued }[];
  /** Answers that stand on the commits of the round. */
  readonly settle: ((failure: unknown) => void)[];
  readonly touched: Map<Scope, Index>;
}

const newRound = (): Round => ({ commits: [], settle: [], touched: new Map() });

function rowsOf(tables: Tables, changes: readonly Change[], index: Index): Row[] {
  return changes.map((change) => {
    const createIndex = tables.get(change.table, change.key)?.createIndex;
    const place = { table: change.table, key: change.key, modifyIndex: index };
    return change.op === "put"
      ? { ...place, value: change.value, createIndex: createIndex ?? index }
      : { ...place, value: undefined, createIndex: createIndex ?? 0 };
  });
}

function merge(into: Map<Scope, Index>, touched: Touched): void {
  for (const [scope, at] of touched) if ((into.get(scope) ?? 0) < at) into.set(scope, at);
}

function toChange(row: Row): Change {
  return row.value === undefined
    ? { op: "delete", table: row.table, key: row.key }
    : ({ op: "put", table: row.table, key: row.key, value: row.value } as Change);
}

/** The writes of an embedded store. */
export class Rounds {
  readonly #ground: WritingGround;
  readonly #shown: Shown;
  #queue: Queued[] = [];
  /** The writes that share the next sync. */
  #round = newRound();
  /** The round before is on its way to the disk: writes wait in the queue. */
  #inFlight = false;
  #rolling = false;
  #rounds: Promise<void> = Promise.resolve();

  constructor(ground: WritingGround) {
    this.#ground = ground;
    this.#shown = ground.shown;
  }

  /** As `Directory.write`. */
  write(changes: readonly Change[], expect: readonly Expect[], signal?: AbortSignal): Promise<Written> {
    return new Promise((resolve, reject) => {
      const queued: Queued = { changes, expect, signal, resolve, reject };
      if (this.#inFlight) {
        this.#queue.push(queued);
        return;
      }
      // Goes to the store in this very turn, so that what others make durable in the same turn shares the sync.
      this.#accept(queued);
      if (!this.#rolling && this.#round.commits.length > 0) this.#rounds = this.#roll();
    });
  }

  /** Refuses what waits, and resolves when what is under way is done. */
  async end(reason: Error): Promise<void> {
    for (const queued of this.#queue.splice(0)) queued.reject(reason);
    await this.#rounds;
  }

  /** Evaluates a write upon those before it and hands it to the store, as part of the round that is open. */
  #accept(queued: Queued): void {
    if (queued.signal?.aborted) {
      queued.reject(queued.signal.reason);
      return;
    }
    const round = this.#round;
    try {
      const id = this.#ground.random.uuid();
      const found = evaluate(this.#shown.tables, queued.changes, queued.expect, id, this.#ground.clock.now());
      if (found.kind === "write") {
        mustFit(this.#ground.storage, found.changes);
        const index = this.#shown.tables.index + 1;
        const rows = rowsOf(this.#shown.tables, found.changes, index);
        const promise = this.#ground.storage.commit(
          { id, changes: found.changes, expect: queued.expect },
          queued.signal,
        );
        promise.catch(() => {});
        merge(round.touched, this.#shown.tables.apply(rows, index));
        round.commits.push({ rows, promise, queued });
        return;
      }
      const written: Written =
        found.kind === "failed"
          ? { result: "expectation-failed" }
          : { result: "written", index: this.#shown.tables.index };
      if (found.kind === "nothing") this.#ground.spared.add();
      // Said on the strength of what this round has accepted so far: true when that is.
      if (round.commits.length === 0) queued.resolve(written);
      else round.settle.push((failure) => (failure === undefined ? queued.resolve(written) : queued.reject(failure)));
    } catch (error) {
      queued.reject(error);
    }
  }

  /** Round after round while there is something to write: made durable together, then shown together. */
  async #roll(): Promise<void> {
    this.#rolling = true;
    while (this.#round.commits.length > 0) {
      // Whoever writes in this turn takes part.
      await this.#ground.clock.yield();
      const round = this.#round;
      this.#inFlight = true;
      const results = await Promise.allSettled(round.commits.map(({ promise }) => promise));
      this.#conclude(round, results);
      this.#inFlight = false;
      this.#round = newRound();
      for (const queued of this.#queue.splice(0)) this.#accept(queued);
    }
    this.#rolling = false;
  }

  #conclude({ commits, settle, touched }: Round, results: readonly PromiseSettledResult<Written>[]): void {
    const asForeseen = results.every(
      (result, i) =>
        result.status === "fulfilled" &&
        result.value.result === "written" &&
        result.value.index === commits[i]?.rows[0]?.modifyIndex,
    );
    let failure: unknown;
    if (asForeseen) this.#shown.publish(touched);
    else {
      // Back to what is durable, and from there only what the store took.
      this.#shown.tables = this.#shown.seen.clone();
      const again = new Map<Scope, Index>();
      results.forEach((result, i) => {
        if (result.status === "rejected") failure ??= result.reason;
        else if (result.value.result === "written") {
          const { index } = result.value;
          const changes = (commits[i]?.rows ?? []).map(toChange);
          merge(again, this.#shown.tables.apply(rowsOf(this.#shown.tables, changes, index), index));
        }
      });
      this.#shown.publish(again);
    }
    results.forEach((result, i) => {
      const queued = commits[i]?.queued;
      if (result.status === "rejected") queued?.reject(result.reason);
      else {
        if (result.value.result === "written") this.#ground.commits.add();
        queued?.resolve(result.value);
      }
    });
    for (const each of settle) each(failure);
  }
}
