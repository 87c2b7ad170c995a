// The last known good of a client host on its own disk: what its directory held, kept a moment behind.
import type { Clock } from "../../base/clock.ts";
import type { Durable, DurableWrite } from "../../base/durable.ts";
import { messageOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Batch, Row } from "../../contracts/storage.ts";
import { recordFrom, recordText } from "../../model/codec.ts";
import type { Index, Table } from "../../model/record.ts";

const TABLE = "remote";
const META = "\u0000meta";
const DEBOUNCE_MS = 500;
/** How old a copy is counts from here, also where nothing has changed. */
const STILL_TRUE_MS = 30_000;
/** Signs of life and removals of a former life mean nothing. */
const KEPT: ReadonlySet<Table> = new Set(["node", "service", "check"]);

interface Meta {
  readonly index: Index;
  readonly asOfMs: number;
  readonly servers: readonly string[];
}

/** What was known when the copy was made. */
export interface Remembered {
  readonly rows: readonly Row[];
  readonly index: Index;
  readonly asOfMs: number;
}

/** One client host's copy. */
export class Copy {
  readonly #durable: Durable;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #servers: readonly string[];
  /** What stands on the disk or is on its way there: key → modifyIndex. */
  readonly #stands = new Map<string, Index>();
  readonly #pending = new Map<string, Uint8Array | undefined>();
  #snapshot: Row[] = [];
  #index: Index = 0;
  #asOfMs = 0;
  #writtenMs = 0;
  #timer: { cancel(): void } | undefined;
  #writing: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(durable: Durable, clock: Clock, log: Log, servers: readonly string[]) {
    this.#durable = durable;
    this.#clock = clock;
    this.#log = log;
    this.#servers = servers;
  }

  /** Undefined where there is none, or one of other servers. */
  async load(): Promise<Remembered | undefined> {
    const rows: Row[] = [];
    let meta: Meta | undefined;
    try {
      for await (const [key, bytes] of this.#durable.entries(TABLE)) {
        const parsed = JSON.parse(Buffer.from(bytes).toString("utf8")) as Record<string, unknown>;
        if (key === META) {
          meta = parsed as unknown as Meta;
          continue;
        }
        const table = parsed["table"] as Table;
        const modifyIndex = parsed["modifyIndex"] as Index;
        rows.push({
          table,
          key: parsed["key"] as string,
          createIndex: parsed["createIndex"] as Index,
          modifyIndex,
          value: recordFrom(table, parsed["value"]),
        });
        this.#stands.set(key, modifyIndex);
      }
    } catch (error) {
      this.#log.warn(`the copy of the servers' directory cannot be read and is made anew: ${messageOf(error)}`);
      return undefined;
    }
    if (meta === undefined || !meta.servers.some((url) => this.#servers.includes(url))) return undefined;
    this.#index = meta.index;
    this.#asOfMs = meta.asOfMs;
    return { rows, index: meta.index, asOfMs: meta.asOfMs };
  }

  /** Takes a batch over, true as of now unless told. Costs nothing but memory now; the disk follows. */
  take(batch: Batch, asOfMs: number = this.#clock.now()): void {
    if (this.#closed || batch.kind === "reachable") return;
    if (batch.kind === "delta") for (const row of batch.rows) this.#row(row);
    else {
      for (const row of batch.rows) this.#snapshot.push(row);
      if (!batch.complete) return;
      const gone = new Set(this.#stands.keys());
      for (const row of this.#snapshot) {
        gone.delete(nameOf(row));
        this.#row(row);
      }
      this.#snapshot = [];
      for (const name of gone) {
        this.#stands.delete(name);
        this.#pending.set(name, undefined);
      }
    }
    this.#index = batch.index;
    this.stillTrue(asOfMs);
  }

  /** What is known is true now, or at the time told. */
  stillTrue(asOfMs: number = this.#clock.now()): void {
    this.#asOfMs = asOfMs;
    const due = this.#pending.size > 0 || this.#asOfMs - this.#writtenMs >= STILL_TRUE_MS;
    if (!due || this.#timer !== undefined || this.#closed) return;
    this.#timer = this.#clock.after(DEBOUNCE_MS, () => {
      this.#timer = undefined;
      void this.#flush();
    });
  }

  /** Writes what is left; no timer runs afterwards. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer?.cancel();
    if (this.#index > 0) await this.#flush();
  }

  #row(row: Row): void {
    if (!KEPT.has(row.table)) return;
    const name = nameOf(row);
    if (row.value === undefined) {
      if (this.#stands.delete(name)) this.#pending.set(name, undefined);
      return;
    }
    if (this.#stands.get(name) === row.modifyIndex) return;
    this.#stands.set(name, row.modifyIndex);
    const { table, key, createIndex, modifyIndex, value } = row;
    const head = JSON.stringify({ table, key, createIndex, modifyIndex });
    this.#pending.set(name, Buffer.from(`${head.slice(0, -1)},"value":${recordText(table, value)}}`));
  }

  #flush(): Promise<void> {
    this.#writing = this.#writing.then(async () => {
      const pending = [...this.#pending];
      this.#pending.clear();
      const meta: Meta = { index: this.#index, asOfMs: this.#asOfMs, servers: this.#servers };
      const writes: DurableWrite[] = pending.map(([key, value]) => ({ table: TABLE, key, value }));
      writes.push({ table: TABLE, key: META, value: Buffer.from(JSON.stringify(meta)) });
      try {
        await this.#durable.write(writes);
        this.#writtenMs = this.#asOfMs;
      } catch (error) {
        // Answers do not depend on it; only the next start would know less.
        this.#log.error(`the copy of the servers' directory could not be written: ${messageOf(error)}`);
        for (const [key, value] of pending) if (!this.#pending.has(key)) this.#pending.set(key, value);
      }
    });
    return this.#writing;
  }
}

function nameOf({ table, key }: Pick<Row, "table" | "key">): string {
  return `${table}\u0000${key}`;
}
