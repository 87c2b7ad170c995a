// The changes of this agent's directory as one line that many client hosts read: each change is worked out and written down once.
import { codeOf, messageOf } from "../../base/error.ts";
import type { View } from "../../contracts/directory.ts";
import type { Ground } from "../../contracts/ground.ts";
import { batchLine, JOINED_TABLES } from "../../contracts/join.ts";
import type { Row } from "../../contracts/storage.ts";
import { compareUtf8 } from "../../model/order.ts";
import { type Entry, type Index, keyOf, type Scope, type Table, type Tables } from "../../model/record.ts";

export type HubGround = Pick<Ground, "clock" | "random" | "log" | "directory">;

/** Deltas that are remembered, so that who was away for a moment need not read everything again. */
const REMEMBERED = { deltas: 512, bytes: 8 << 20 } as const;
const ROWS_PER_LINE = 500;
/** After working out a change the next one waits for so many times as long, so that a busy directory costs a share of the time only. */
const PAUSE = { times: 2, longestMs: 500 } as const;
const SCOPES: readonly Scope[] = ["nodes", "services", "checks", "alive"];

interface Delta {
  readonly after: Index;
  readonly index: Index;
  readonly text: string;
}

function keyOfEntry<T extends (typeof JOINED_TABLES)[number]>(table: T, entry: Tables[T]): string {
  switch (table) {
    case "node":
      return keyOf.node((entry as Tables["node"]).name);
    case "alive":
      return keyOf.alive((entry as Tables["alive"]).node);
    default: {
      const { node, id } = entry as Tables["service"] | Tables["check"];
      return keyOf.service(node, id);
    }
  }
}

function rowOf(table: Table, key: string, entry: Entry<Table>): Row {
  const { createIndex, modifyIndex, ...value } = entry;
  return { table, key, createIndex, modifyIndex, value: value as unknown as Tables[Table] };
}

/** Removals as far as they concern what client hosts see; they carry the reasons. */
function* gravesOf(view: View, after: Index): Generator<Row> {
  let last = 0;
  let part = 0;
  for (const grave of view.list("grave")) {
    part = grave.modifyIndex === last ? part + 1 : 0;
    last = grave.modifyIndex;
    if (grave.modifyIndex <= after || grave.floor !== undefined) continue;
    const scopes = grave.scopes.filter((each) => !/^(kv|tree|session|kept):/.test(each));
    if (scopes.length === 0 && (grave.gone ?? []).length === 0) continue;
    const time = String(Math.max(0, Math.floor(grave.why?.atMs ?? 0))).padStart(15, "0");
    yield rowOf("grave", `${time}.${grave.modifyIndex}.${part}`, { ...grave, scopes });
  }
}

function* rowsOf(view: View): Generator<Row> {
  for (const table of JOINED_TABLES)
    for (const entry of view.list(table)) yield rowOf(table, keyOfEntry(table, entry), entry as Entry<Table>);
  yield* gravesOf(view, 0);
}

/** What leads from one view to a later one, in the order of the line. */
function difference(before: View, after: View): Row[] {
  const rows: Row[] = [];
  for (const table of JOINED_TABLES) {
    const old = before.list(table)[Symbol.iterator]();
    let was = old.next();
    const gone = (entry: Entry<Table>): void => {
      const key = keyOfEntry(table, entry as never);
      rows.push({ table, key, value: undefined, createIndex: entry.createIndex, modifyIndex: after.index });
    };
    for (const entry of after.list(table)) {
      const key = keyOfEntry(table, entry);
      let order = -1;
      while (was.done !== true) {
        order = compareUtf8(keyOfEntry(table, was.value), key);
        if (order >= 0) break;
        gone(was.value);
        was = old.next();
      }
      if (was.done !== true && order === 0) {
        const same = was.value.modifyIndex === entry.modifyIndex;
        was = old.next();
        if (same) continue;
      }
      rows.push(rowOf(table, key, entry));
    }
    for (; was.done !== true; was = old.next()) gone(was.value);
  }
  rows.push(...gravesOf(after, before.index));
  return rows.sort((a, b) => a.modifyIndex - b.modifyIndex);
}

/** One per agent; works only while somebody reads. */
export class JoinHub {
  #line: string;
  readonly #ground: HubGround;
  #view: View | undefined;
  #ring: Delta[] = [];
  #bytes = 0;
  #readers = 0;
  #wanted: Index = 0;
  #running: AbortController | undefined;
  readonly #waiting = new Set<() => void>();

  constructor(ground: HubGround) {
    this.#ground = ground;
    this.#line = ground.random.uuid();
  }

  /** Names this memory of changes. */
  get line(): string {
    return this.#line;
  }

  /** Somebody reads from now on; returns how to say that he does no longer. */
  enter(): () => void {
    this.#readers++;
    if (this.#running === undefined) {
      this.#running = new AbortController();
      // What happened while nobody read is one change.
      this.#advance(this.#ground.directory.view());
      void this.#run(this.#running.signal);
    }
    let left = false;
    return () => {
      if (left) return;
      left = true;
      if (--this.#readers > 0) return;
      this.#running?.abort();
      this.#running = undefined;
    };
  }

  /** The text that leads from `after` to now, in pieces: deltas where they are remembered, else everything. */
  *since(after: Index, line: string): Generator<string, Index> {
    const view = this.#view ?? this.#ground.directory.view();
    const deltas = this.#ring.filter((delta) => delta.index > after);
    const first = deltas[0];
    const resumable =
      line === this.#line && after > 0 && (first === undefined ? after === view.index : first.after <= after);
    if (resumable) {
      if (first === undefined) yield batchLine({ kind: "delta", index: view.index, rows: [] });
      for (const delta of deltas) yield delta.text;
      return view.index;
    }
    let rows: Row[] = [];
    for (const row of rowsOf(view)) {
      rows.push(row);
      if (rows.length < ROWS_PER_LINE) continue;
      yield batchLine({ kind: "snapshot", index: view.index, rows, complete: false });
      rows = [];
    }
    yield batchLine({ kind: "snapshot", index: view.index, rows, complete: true });
    return view.index;
  }

  /** True where there is something beyond `after` of a line. */
  beyond(after: Index, line: string): boolean {
    return line !== this.#line || (this.#view?.index ?? 0) > after;
  }

  /** Resolves when there is something new, or when aborted. */
  next(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const done = (): void => {
        signal.removeEventListener("abort", done);
        this.#waiting.delete(done);
        resolve();
      };
      signal.addEventListener("abort", done, { once: true });
      this.#waiting.add(done);
    });
  }

  /** Readers are to be told of this index, also where nothing that they see has changed. */
  reach(index: Index): void {
    if (index <= this.#wanted) return;
    this.#wanted = index;
    this.#bell?.();
  }

  #bell: (() => void) | undefined;

  #advance(view: View): void {
    const before = this.#view;
    this.#view = view;
    if (before === undefined || view.index === before.index) return;
    if (view.index < before.index) {
      // A store that began anew has a line of its own: everybody reads everything again.
      this.#line = this.#ground.random.uuid();
      this.#ring = [];
      this.#bytes = this.#wanted = 0;
    } else {
      const text = batchLine({ kind: "delta", index: view.index, rows: difference(before, view) });
      this.#ring.push({ after: before.index, index: view.index, text });
      this.#bytes += text.length;
    }
    while (this.#ring.length > REMEMBERED.deltas || (this.#bytes > REMEMBERED.bytes && this.#ring.length > 1))
      this.#bytes -= this.#ring.shift()?.text.length ?? 0;
    for (const wake of [...this.#waiting]) wake();
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, directory, log } = this.#ground;
    while (!signal.aborted) {
      try {
        await this.#moved(signal);
        if (signal.aborted) return;
        const began = clock.monotonic();
        const view = directory.view();
        this.#advance(view);
        const pauseMs = Math.min(PAUSE.longestMs, (clock.monotonic() - began) * PAUSE.times);
        await clock.sleep(pauseMs, signal);
      } catch (error) {
        if (signal.aborted || codeOf(error) === "stopped") return;
        log.warn("telling client hosts of changes", { error: messageOf(error) });
        await clock.sleep(1000, signal).catch(() => {});
      }
    }
  }

  /** Resolves when something that client hosts see has moved, or when an index is wanted. */
  async #moved(signal: AbortSignal): Promise<void> {
    const { directory } = this.#ground;
    const view = this.#view;
    if (view === undefined || (this.#wanted > view.index && directory.view().index > view.index)) return;
    const round = new AbortController();
    let bell: (() => void) | undefined;
    const pass = (): void => round.abort(signal.reason);
    signal.addEventListener("abort", pass, { once: true });
    try {
      const waits: Promise<unknown>[] = SCOPES.map((each) => directory.changed(each, view.at(each), round.signal));
      waits.push(
        new Promise<void>((resolve) => {
          bell = resolve;
          this.#bell = resolve;
        }),
      );
      for (const wait of waits) wait.catch(() => {});
      await Promise.race(waits);
    } finally {
      // The next reader's round may have hung up its own by now.
      if (this.#bell === bell) this.#bell = undefined;
      signal.removeEventListener("abort", pass);
      round.abort();
    }
  }
}
