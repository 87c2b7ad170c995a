// A durable map from text to bytes in the data folder, by lmdb: many writers share one sync, and a write is told only when it is on disk.
import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import { dirname } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { RootDatabase } from "lmdb";
import {
  durableFile,
  explain,
  identityOf,
  makeRoom,
  makingFile,
  markMaking,
  mustBeDatabase,
  sync,
} from "./durable-file.ts";
import { TrilithError } from "./error.ts";
import { type FolderLock, lockFolder } from "./lock.ts";

/** One change to a durable table; `value` undefined removes. */
export interface DurableWrite {
  readonly table: string;
  readonly key: string;
  readonly value: Uint8Array | undefined;
}

/** Tables of text → bytes. Keys of any length and content. Table names are short words. */
export interface Durable {
  /**
   * All or nothing; resolves when synced to disk. Writes of the same turn (and of those waiting meanwhile) share one sync.
   * When a sync fails, the writes that wait behind it fail too, as they may build upon it; later ones are tried anew.
   * The bytes must not be changed before it resolves.
   * @throws TrilithError `disk-full`, `read-only`, `stopped` (closed), `damaged` (the file was taken away), `internal`; reading goes on in any case
   */
  write(writes: readonly DurableWrite[]): Promise<void>;
  /** Everything that was in a table at the moment of the first step, in no promised order. */
  entries(table: string): AsyncIterable<readonly [key: string, value: Uint8Array]>;
  get(table: string, key: string): Uint8Array | undefined;
  /** Why writing does not work, looked at now (after a failure by another try); undefined where it works or is closed. Takes as long as a write. */
  trouble(): Promise<TrilithError | undefined>;
  /** Finishes what is being written and gives the folder back. Closing twice does nothing. */
  close(): Promise<void>;
}

/** The newest data format this version knows. Newer data is refused and left as it is. */
const DATA_FORMAT = 1;

const META_TRY = { table: "meta", key: "try" } as const;
const TRY_BYTES = 64 << 10;
const META_FORMAT = { table: "meta", key: "format" } as const;
/** lmdb takes keys of 1978 bytes at its usual page size; longer ones are stored under their hash. */
const LONGEST_KEY_BYTES = 1900;
const HASHED = 0x80;
const UTF8 = 0;
/** Text that UTF-8 cannot hold (halves of characters) is kept as UTF-16. */
const UTF16 = 1;
const SURROGATE = /\p{Surrogate}/u;

interface Place {
  readonly id: Buffer;
  /** Put in front of the value where `id` does not hold the key itself. */
  readonly prefix: Buffer | undefined;
}

function placeOf(table: string, key: string): Place {
  const kind = SURROGATE.test(key) ? UTF16 : UTF8;
  const text = Buffer.from(key, kind === UTF16 ? "utf16le" : "utf8");
  const head = Buffer.from(`${table}\u0000`);
  if (head.length + 1 + text.length <= LONGEST_KEY_BYTES)
    return { id: Buffer.concat([head, Buffer.of(kind), text]), prefix: undefined };
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length);
  return {
    id: Buffer.concat([head, Buffer.of(kind | HASHED), createHash("sha256").update(text).digest()]),
    prefix: Buffer.concat([length, text]),
  };
}

function keyAndValue(id: Buffer, stored: Buffer, headBytes: number): readonly [string, Uint8Array] {
  const kind = id[headBytes] ?? 0;
  const encoding = (kind & UTF16) === 0 ? "utf8" : "utf16le";
  if ((kind & HASHED) === 0) return [id.toString(encoding, headBytes + 1), stored];
  const end = 4 + stored.readUInt32BE(0);
  return [stored.toString(encoding, 4, end), stored.subarray(end)];
}

interface Waiting {
  readonly writes: readonly DurableWrite[];
  resolve(): void;
  reject(error: unknown): void;
}

/** Takes the folder for this process and opens what is in it. @throws TrilithError `locked`, `newer-data`, `damaged`, `disk-full`, `read-only` */
export async function openDurable(folder: string): Promise<Durable> {
  const lock = await lockFolder(folder);
  try {
    return await openLocked(folder, lock);
  } catch (error) {
    await lock.release();
    throw error;
  }
}

async function openLocked(folder: string, lock: FolderLock): Promise<Durable> {
  const file = durableFile(folder);
  const making = await mustBeDatabase(file);
  await makeRoom(folder);
  if (making) await markMaking(folder);
  const { open } = await import("lmdb");
  let database: RootDatabase<Buffer, Buffer>;
  try {
    database = open<Buffer, Buffer>({
      path: file,
      encoding: "binary",
      keyEncoding: "binary",
      // A commit is told when it is synced, not when it is merely visible.
      overlappingSync: false,
      // Groups are made here. (lmdb's own would also leave promises behind that nobody can catch when a commit fails.)
      eventTurnBatching: false,
    });
  } catch (error) {
    throw await explain(folder, error);
  }
  try {
    const format = database.get(placeOf(META_FORMAT.table, META_FORMAT.key).id);
    const known = format === undefined ? undefined : Number(format.toString());
    if (known !== undefined && !(known <= DATA_FORMAT))
      throw new TrilithError(
        "newer-data",
        `the data in ${folder} was written by a newer version (data format ${format}, this version knows up to ${DATA_FORMAT}); ` +
          "it was left as it is: use that version, or another data folder",
      );
    // A new file is only there after a power cut when its folder was synced, too.
    if (known === undefined) for (const each of [file, folder, dirname(folder)]) await sync(each);
    if (making) await rm(makingFile(folder), { force: true });
    return new LmdbDurable(folder, database, lock, known === undefined, await identityOf(file));
  } catch (error) {
    await database.close();
    throw error instanceof TrilithError ? error : await explain(folder, error);
  }
}

class LmdbDurable implements Durable {
  readonly #folder: string;
  readonly #database: RootDatabase<Buffer, Buffer>;
  readonly #lock: FolderLock;
  /** The format is written down with the first write, so that opening changes nothing. */
  #unmarked: boolean;
  /** The database's file as it was opened. */
  readonly #identity: string | undefined;
  /** Why the last write failed. */
  #trouble: TrilithError | undefined;
  #waiting: Waiting[] = [];
  #running: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  constructor(
    folder: string,
    database: RootDatabase<Buffer, Buffer>,
    lock: FolderLock,
    unmarked: boolean,
    identity: string | undefined,
  ) {
    this.#folder = folder;
    this.#database = database;
    this.#lock = lock;
    this.#unmarked = unmarked;
    this.#identity = identity;
  }

  write(writes: readonly DurableWrite[]): Promise<void> {
    if (this.#closing !== undefined) return Promise.reject(new TrilithError("stopped", "the data folder is closed"));
    if (writes.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiting.push({ writes, resolve, reject });
      this.#running ??= this.#run();
    });
  }

  async #run(): Promise<void> {
    for (;;) {
      // Everybody who writes in this turn takes part, and whoever was waiting for the sync before this one.
      await nextTurn();
      const group = this.#waiting.splice(0);
      if (group.length === 0) break;
      try {
        await this.#commit(group);
        this.#trouble = undefined;
        for (const each of group) each.resolve();
      } catch (error) {
        const told = error instanceof TrilithError ? error : await explain(this.#folder, error);
        this.#trouble = told;
        for (const each of [...group, ...this.#waiting.splice(0)]) each.reject(told);
      }
    }
    this.#running = undefined;
  }

  async #commit(group: readonly Waiting[]): Promise<void> {
    const database = this.#database;
    const parts: Promise<boolean>[] = [];
    const apply = ({ table, key, value }: DurableWrite): void => {
      const { id, prefix } = placeOf(table, key);
      if (value === undefined) parts.push(database.remove(id));
      else parts.push(database.put(id, prefix === undefined ? asBuffer(value) : Buffer.concat([prefix, value])));
    };
    // Of several writes of one key in the group only the last one counts.
    const last = new Map<string, DurableWrite>();
    if (this.#unmarked) last.set("", { ...META_FORMAT, value: Buffer.from(String(DATA_FORMAT)) });
    for (const { writes } of group) for (const write of writes) last.set(`${write.table}\u0000${write.key}`, write);
    const whole = database.batch(() => {
      for (const write of last.values()) apply(write);
    });
    // The parts fail with the whole; each would otherwise complain on its own.
    for (const part of parts) part.catch(() => {});
    await Promise.all([whole, this.#mustBeThere()]);
    this.#unmarked = false;
  }

  /** What is written to a file that nobody can open any more is synced, too, and lost all the same. */
  async #mustBeThere(): Promise<void> {
    const file = durableFile(this.#folder);
    if ((await identityOf(file)) === this.#identity) return;
    throw new TrilithError(
      "damaged",
      `${file} was removed or replaced while it is in use: nothing can be kept there any more; restart the agent`,
    );
  }

  async *entries(table: string): AsyncGenerator<readonly [string, Uint8Array], void> {
    const head = Buffer.from(`${table}\u0000`);
    const end = Buffer.from(`${table}\u0001`);
    for (const { key, value } of this.#database.getRange({ start: head, end }))
      yield keyAndValue(key, value, head.length);
  }

  get(table: string, key: string): Uint8Array | undefined {
    const { id } = placeOf(table, key);
    const stored = this.#database.get(id);
    return stored === undefined ? undefined : keyAndValue(id, stored, Buffer.byteLength(table) + 1)[1];
  }

  async trouble(): Promise<TrilithError | undefined> {
    if (this.#closing !== undefined) return undefined;
    try {
      if (this.#trouble === undefined) await this.#mustBeThere();
      // A full disk still takes a small write now and then: what lmdb freed before has room for it.
      else for (const value of [Buffer.alloc(TRY_BYTES), undefined]) await this.write([{ ...META_TRY, value }]);
      return undefined;
    } catch (error) {
      return error instanceof TrilithError ? error : await explain(this.#folder, error);
    }
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.#running;
      await this.#database.close();
      await this.#lock.release();
    })();
    return this.#closing;
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Keeps everything in memory: for `-dev` and for tests. */
export function memoryDurable(): Durable {
  const tables = new Map<string, Map<string, Uint8Array>>();
  let closed = false;
  return {
    async write(writes) {
      if (closed) throw new TrilithError("stopped", "the data folder is closed");
      for (const { table, key, value } of writes) {
        let rows = tables.get(table);
        if (rows === undefined) {
          rows = new Map();
          tables.set(table, rows);
        }
        if (value === undefined) rows.delete(key);
        else rows.set(key, new Uint8Array(value));
      }
    },
    async *entries(table) {
      yield* [...(tables.get(table) ?? [])];
    },
    get: (table, key) => tables.get(table)?.get(key),
    trouble: async () => undefined,
    async close() {
      closed = true;
    },
  };
}
