// The history checker: given what was asked of a store, what it answered and what it holds, says whether one order of whole writes explains it all.
import type { Written } from "../../../src/contracts/directory.ts";
import type { Batch, Commit, Row } from "../../../src/contracts/storage.ts";
import { sameValue } from "../../../src/model/codec.ts";
import type { Index } from "../../../src/model/record.ts";

/** One commit as a caller saw it. `start` and `end` count the events of the whole run: an end before a start = happened before. */
export interface Attempt {
  readonly commit: Commit;
  readonly start: number;
  readonly end: number;
  /** An error that was thrown counts as unknown, too. */
  readonly outcome: Written["result"];
  readonly index?: Index;
}

/** Records attempts. */
export class History {
  readonly attempts: Attempt[] = [];
  #events = 0;

  async attempt(commit: Commit, make: () => Promise<Written>): Promise<Written | undefined> {
    const start = this.#events++;
    let written: Written | undefined;
    try {
      written = await make();
    } catch {
      // Whether it was written is not known to the caller.
    }
    const outcome = written?.result ?? "unknown";
    this.attempts.push({
      commit,
      start,
      end: this.#events++,
      outcome,
      ...(written?.result === "written" ? { index: written.index } : {}),
    });
    return written;
  }
}

type State = Map<string, Row>;
const nameOf = ({ table, key }: { readonly table: string; readonly key: string }): string => `${table}\u0000${key}`;

/** The key that each commit of a checked run puts once, so that the content tells which commits happened, and when. */
export const markOf = (id: string): string => `mark/${id}`;

/**
 * Checks a run in which every commit puts its own mark. Returns the transactions in order, with the rows of each.
 * @throws Error that says which law was broken
 */
export function checkHistory(history: readonly Attempt[], rows: readonly Row[], first: Index): Map<Index, Row[]> {
  const content: State = new Map(rows.map((row) => [nameOf(row), row]));
  if (content.size !== rows.length) throw new Error("a snapshot holds a record twice");
  /** Several at one index: a store may put commits that do not touch each other into one transaction. */
  const applied = new Map<Index, Attempt[]>();
  for (const attempt of history) {
    const mark = content.get(nameOf({ table: "kv", key: markOf(attempt.commit.id) }));
    const what = `commit ${attempt.commit.id} (${attempt.outcome})`;
    if (mark === undefined) {
      if (attempt.outcome === "written") throw new Error(`${what} was acknowledged and is missing`);
      continue;
    }
    if (attempt.outcome === "expectation-failed") throw new Error(`${what} was refused and is there`);
    if (mark.createIndex !== mark.modifyIndex) throw new Error(`${what} was written twice`);
    if (attempt.index !== undefined && attempt.index !== mark.modifyIndex)
      throw new Error(`${what} was told index ${attempt.index} but stands at ${mark.modifyIndex}`);
    const others = applied.get(mark.modifyIndex) ?? [];
    for (const other of others)
      if (touch(attempt.commit, other.commit))
        throw new Error(
          `${what} shares index ${mark.modifyIndex} with ${other.commit.id}, though one touches the other`,
        );
    applied.set(mark.modifyIndex, [...others, attempt]);
  }
  const order = [...applied.keys()].sort((a, b) => a - b);

  // In real time: what was over before something else began stands before it.
  const byStart = order.flatMap((index) => (applied.get(index) ?? []).map((attempt) => ({ index, attempt })));
  for (const later of byStart)
    for (const earlier of byStart)
      if (
        earlier.index > later.index &&
        earlier.attempt.end < later.attempt.start &&
        earlier.attempt.outcome === "written"
      )
        throw new Error(
          `${earlier.attempt.commit.id} ended before ${later.attempt.commit.id} began, but stands after it`,
        );

  // One after the other they give the content; each found what it expected.
  const state: State = new Map();
  const transactions = new Map<Index, Row[]>();
  const refused = history.filter(({ outcome }) => outcome === "expectation-failed");
  /** Refusals that some state within their time explains. */
  const explained = new Set<Attempt>();
  const holds = (attempt: Attempt): boolean =>
    attempt.commit.expect.every((each) => (state.get(nameOf(each))?.modifyIndex ?? 0) === each.at);
  const explain = (from: Index, until: Index): void => {
    for (const attempt of refused) {
      if (explained.has(attempt) || holds(attempt)) continue;
      // The state from `from` to `until` may have been met: nothing that is later was over before the attempt, nothing that is in it began after.
      const tooOld = byStart.some(
        ({ index, attempt: other }) => index >= until && other.outcome === "written" && other.end < attempt.start,
      );
      const tooNew = byStart.some(({ index, attempt: other }) => index <= from && other.start > attempt.end);
      if (!tooOld && !tooNew) explained.add(attempt);
    }
  };
  explain(first, order[0] ?? Number.POSITIVE_INFINITY);
  order.forEach((index, i) => {
    const together = applied.get(index) as Attempt[];
    for (const attempt of together) {
      if (index <= first) throw new Error(`${attempt.commit.id} stands at ${index}, not after the beginning ${first}`);
      if (!holds(attempt))
        throw new Error(`${attempt.commit.id} was written at ${index} though its expectation did not hold`);
    }
    const changed: Row[] = [];
    for (const change of together.flatMap(({ commit }) => commit.changes)) {
      const name = nameOf(change);
      const before = state.get(name);
      if (change.op === "put") {
        const row: Row = {
          table: change.table,
          key: change.key,
          value: change.value,
          createIndex: before?.createIndex ?? index,
          modifyIndex: index,
        };
        state.set(name, row);
        changed.push(row);
      } else if (before !== undefined) {
        state.delete(name);
        changed.push({ ...before, value: undefined, modifyIndex: index });
      }
    }
    transactions.set(index, changed);
    explain(index, order[i + 1] ?? Number.POSITIVE_INFINITY);
  });
  for (const attempt of refused)
    if (!explained.has(attempt))
      throw new Error(`${attempt.commit.id} was refused though its expectation held all the time`);
  sameState(state, content, "the content");
  return transactions;
}

/** Whether one commit writes what the other writes or expects. */
function touch(a: Commit, b: Commit): boolean {
  const written = ({ changes }: Commit): string[] => changes.map(nameOf);
  const all = (commit: Commit): Set<string> => new Set([...written(commit), ...commit.expect.map(nameOf)]);
  const [ofA, ofB] = [all(a), all(b)];
  return written(a).some((name) => ofB.has(name)) || written(b).some((name) => ofA.has(name));
}

function sameState(expected: State, found: State, what: string): void {
  for (const [name, row] of expected) {
    const other = found.get(name);
    if (other === undefined) throw new Error(`${what} lacks ${JSON.stringify(name)}`);
    if (other.createIndex !== row.createIndex || other.modifyIndex !== row.modifyIndex)
      throw new Error(
        `${what} has ${JSON.stringify(name)} at ${other.createIndex}/${other.modifyIndex} instead of ${row.createIndex}/${row.modifyIndex}`,
      );
    if (!sameValue(other.value, row.value)) throw new Error(`${what} has another ${JSON.stringify(name)}`);
  }
  for (const name of found.keys())
    if (!expected.has(name)) throw new Error(`${what} has ${JSON.stringify(name)} too much`);
}

/**
 * Checks what a follower was given: every transaction whole and in order, nothing left out, repeated rows harmless, snapshots true.
 * @throws Error that says what is wrong
 */
export function checkFollower(
  batches: readonly Batch[],
  transactions: ReadonlyMap<Index, readonly Row[]>,
  start: Index,
  end: Index,
): void {
  const order = [...transactions.keys()].sort((a, b) => a - b);
  let position = start;
  let parts: Row[] = [];
  for (const batch of batches) {
    if (batch.kind === "reachable") continue;
    if (batch.kind === "snapshot") {
      parts.push(...batch.rows);
      if (!batch.complete) continue;
      const state: State = new Map();
      for (const index of order.filter((each) => each <= batch.index))
        for (const row of transactions.get(index) ?? [])
          if (row.value === undefined) state.delete(nameOf(row));
          else state.set(nameOf(row), row);
      sameState(state, new Map(parts.map((row) => [nameOf(row), row])), `the snapshot at ${batch.index}`);
      parts = [];
      position = batch.index;
      continue;
    }
    const byIndex = new Map<Index, Row[]>();
    let last = 0;
    for (const row of batch.rows) {
      if (row.modifyIndex < last) throw new Error(`a delta goes back from ${last} to ${row.modifyIndex}`);
      last = row.modifyIndex;
      byIndex.set(last, [...(byIndex.get(last) ?? []), row]);
    }
    if (last > batch.index) throw new Error(`a delta up to ${batch.index} holds a row of ${last}`);
    if (batch.index <= position) continue;
    for (const index of order) {
      if (index <= position || index > batch.index) continue;
      const alive = (rows: readonly Row[]): State =>
        new Map(rows.flatMap((row) => (row.value === undefined ? [] : [[nameOf(row), row]])));
      const gone = (rows: readonly Row[]): string[] =>
        rows.flatMap((row) => (row.value === undefined ? [nameOf(row)] : [])).sort();
      const expected = transactions.get(index) ?? [];
      const found = byIndex.get(index) ?? [];
      sameState(alive(expected), alive(found), `transaction ${index}`);
      if (gone(expected).join() !== gone(found).join()) throw new Error(`transaction ${index} removes other records`);
    }
    for (const index of byIndex.keys())
      if (index > position && !transactions.has(index))
        throw new Error(`a delta holds a transaction ${index} that nobody wrote`);
    position = batch.index;
  }
  if (position < end) throw new Error(`the follower ended at ${position}, before ${end}`);
}
