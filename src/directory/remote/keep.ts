// What a client host keeps when its server suddenly knows less: a server that was replaced, restored or emptied has not taken other hosts' services away.
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Batch, Row } from "../../contracts/storage.ts";
import { type Index, keyOf, nodeOfKey, type Table, type Tables } from "../../model/record.ts";

/** Beyond this share of instances missing at once, nobody's word but the server's, they are kept [the sharp-drop guard's share]. */
const DROP_SHARE = 0.5;
/** So long at most. */
export const KEEP_MS = 600_000;
/** The servers' own entry says nothing about what they know. */
const SERVERS = "consul";
const COUNTED: ReadonlySet<Table> = new Set(["node", "service", "check", "alive"]);

/** How it stands with what is kept. */
export interface Kept {
  readonly missing: number;
  readonly known: number;
  /** Milliseconds since the epoch: until when what is kept was known to be true, and when keeping it ends. */
  readonly goodMs: number;
  readonly untilMs: number;
}

/** Stands between a connection's batches and the directory. */
export class Keeper {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #own: string;
  /** What the directory holds of other hosts. */
  readonly #known = new Map<string, Row>();
  /** Names of rows that the server does not have and that are kept. */
  readonly #missing = new Set<string>();
  #seen: Row[] = [];
  #kept: Kept | undefined;
  #goodMs = 0;
  #index: Index = 0;
  /** The next snapshot is taken as it comes. */
  #trusted = false;
  readonly #ended: () => void;
  #timer: { cancel(): void } | undefined;

  /** `ended`: nothing is to be kept any more, so that the server's content is to be read anew as it is. */
  constructor(node: string, clock: Clock, log: Log, ended: () => void) {
    this.#own = keyOf.node(node);
    this.#clock = clock;
    this.#log = log;
    this.#ended = ended;
  }

  /** Undefined while nothing is kept. */
  get kept(): Kept | undefined {
    return this.#kept;
  }

  /** Rows that were known before the first connection. `goodMs`: when they were. */
  remember(rows: readonly Row[], goodMs: number): void {
    for (const row of rows) this.#put(row);
    this.#goodMs = goodMs;
  }

  /** What is known is true now. */
  stillTrue(): void {
    if (this.#kept === undefined) this.#goodMs = this.#clock.now();
  }

  /** The batch to hand on. `resumed`: the server goes on with the line it told before, so that what is missing was removed there. */
  take(batch: Batch, resumed: boolean, url: string): Batch {
    if (batch.kind === "reachable") return batch;
    // A line whose numbers went back has another content.
    const goesOn = resumed && batch.index >= this.#index;
    if (batch.kind === "delta") {
      this.#index = batch.index;
      for (const row of batch.rows) this.#put(row);
      this.#weigh();
      this.stillTrue();
      return batch;
    }
    for (const row of batch.rows) this.#seen.push(row);
    if (!batch.complete) return batch;
    const seen = this.#seen;
    this.#seen = [];
    const kept = this.#trusted || goesOn ? [] : this.#absent(seen, batch.index);
    this.#trusted = false;
    this.#index = batch.index;
    this.#missing.clear();
    this.#known.clear();
    for (const row of seen) this.#put(row);
    for (const row of kept) {
      this.#put(row);
      this.#missing.add(nameOf(row));
    }
    if (kept.length === 0) this.#end();
    else this.#begin(url);
    this.stillTrue();
    return kept.length === 0 ? batch : { ...batch, rows: [...batch.rows, ...kept] };
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #put(row: Row): void {
    if (!COUNTED.has(row.table)) return;
    const name = nameOf(row);
    this.#missing.delete(name);
    if (row.value === undefined) this.#known.delete(name);
    else this.#known.set(name, row);
  }

  #isOther({ key }: Row): boolean {
    return key !== this.#own && !key.startsWith(`${this.#own}\u0000`);
  }

  #isCounted(row: Row): boolean {
    return row.table === "service" && this.#isOther(row) && (row.value as Tables["service"]).name !== SERVERS;
  }

  /** Rows of other hosts that a snapshot lacks, where it lacks too much; none where somebody has removed them. */
  #absent(seen: readonly Row[], index: Index): Row[] {
    const present = new Set(seen.map(nameOf));
    const removed = new Set<string>();
    for (const { table, value } of seen)
      if (table === "grave") for (const gone of (value as Tables["grave"]).gone ?? []) removed.add(nameOf(gone));
    const isAbsent = (table: Table, key: string): boolean => {
      const name = nameOf({ table, key });
      return !present.has(name) && !removed.has(name);
    };
    const there = seen.filter((row) => this.#isCounted(row)).length;
    const absent = [...this.#known.values()].filter(
      (row) => row.table === "service" && this.#isOther(row) && isAbsent("service", row.key),
    );
    const missing = absent.filter((row) => this.#isCounted(row)).length;
    if (missing === 0 || missing / (missing + there) <= DROP_SHARE) return [];
    // Their checks and hosts stay with them; a check alone may well be gone.
    const services = new Set(absent.filter((row) => this.#isCounted(row)).map(({ key }) => key));
    const hosts = new Set([...services].map((key) => nodeOfKey(key)));
    return [...this.#known.values()]
      .filter((row) => {
        if (!this.#isOther(row) || !isAbsent(row.table, row.key)) return false;
        if (row.table === "service") return services.has(row.key);
        if (row.table !== "check") return hosts.has(row.key);
        const { node, serviceId } = row.value as Tables["check"];
        return serviceId === ""
          ? hosts.has(keyOf.node(node)) && isAbsent("node", keyOf.node(node))
          : services.has(keyOf.service(node, serviceId));
      })
      .map((row) => ({
        ...row,
        createIndex: Math.min(row.createIndex, index),
        modifyIndex: Math.min(row.modifyIndex, index),
      }));
  }

  #counts(): { readonly missing: number; readonly known: number } {
    let missing = 0;
    let known = 0;
    for (const [name, row] of this.#known) {
      if (!this.#isCounted(row)) continue;
      known++;
      if (this.#missing.has(name)) missing++;
    }
    return { missing, known };
  }

  #begin(url: string): void {
    const now = this.#clock.now();
    const first = this.#kept === undefined;
    this.#kept = {
      ...this.#counts(),
      goodMs: this.#kept?.goodMs ?? this.#goodMs,
      untilMs: this.#kept?.untilMs ?? now + KEEP_MS,
    };
    if (!first) return;
    const { missing, known } = this.#kept;
    this.#log.warn(
      `${url} no longer knows ${missing} of ${known} instances and nobody has removed them: it may have been replaced or emptied; answers keep them for at most ${KEEP_MS / 1000} s`,
    );
    this.#timer = this.#clock.after(KEEP_MS, () => this.#release("the longest time is over"));
  }

  /** Ends keeping where most of what was missing has come back. */
  #weigh(): void {
    if (this.#kept === undefined) return;
    const counts = this.#counts();
    if (counts.missing > 0 && counts.missing / counts.known > DROP_SHARE) this.#kept = { ...this.#kept, ...counts };
    else this.#release(`${counts.known - counts.missing} of ${counts.known} instances are there again`);
  }

  #release(why: string): void {
    this.#log.info(`instances that the server no longer knows are kept no longer: ${why}`);
    this.#end();
    this.#trusted = true;
    this.#ended();
  }

  #end(): void {
    this.stop();
    this.#kept = undefined;
  }
}

function nameOf({ table, key }: { readonly table: Table; readonly key: string }): string {
  return `${table}\u0000${key}`;
}
