// A durable map from text to bytes in the data folder, by lmdb: many writers share one sync, and a write is told only when it is on disk.
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { open as openFile, rm, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { RootDatabase } from "lmdb";
import { messageOf, TrilithError } from "./error.ts";
import { cannotWrite, type FolderLock, lockFolder } from "./lock.ts";

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

export const durableFile = (folder: string): string => join(folder, "trilith.mdb");

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
/** On a disk with less room than this an I/O error means that it is full: lmdb reports writes cut short as such. */
const LITTLE_SPACE_BYTES = 1 << 20;
/** Where an lmdb file says what it is, and what it says there. */
const MAGIC_AT = 24;
const MAGIC = 0xbeefc0de;
const MAGIC_VERSION = 2;
const SMALLEST_FILE_BYTES = 8192;
/** More than lmdb's table of readers takes. */
const LOCK_FILE_BYTES = 16_384;

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

/**
 * lmdb maps its lock file into memory before it has room on the disk: on a full one the process would die of it. So the room is taken
 * beforehand, where running out of it is an error. (The folder is this process's own at that time.)
 */
async function makeRoom(folder: string): Promise<void> {
  const path = `${durableFile(folder)}-lock`;
  try {
    const handle = await openFile(path, constants.O_RDWR | constants.O_CREAT, 0o664);
    try {
      if ((await handle.stat()).blocks * 512 < LOCK_FILE_BYTES)
        await handle.write(Buffer.alloc(LOCK_FILE_BYTES), 0, LOCK_FILE_BYTES, 0);
    } finally {
      await handle.close();
    }
    const disk = await statfs(folder);
    const size = await stat(durableFile(folder)).then(
      (found) => found.size,
      () => 0,
    );
    if (size === 0 && disk.bavail * disk.bsize < SMALLEST_FILE_BYTES * 2)
      throw Object.assign(new Error("no room for an empty database"), { code: "ENOSPC" });
  } catch (error) {
    throw cannotWrite(folder, error);
  }
}

/** Which file is at a path; undefined = none. */
async function identityOf(path: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

async function sync(path: string): Promise<void> {
  const handle = await openFile(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** There while a new database is being made: what is cut short then never held anything. */
const makingFile = (folder: string): string => `${durableFile(folder)}-making`;

/** Leaves the mark, so that it is on disk before there is a database. */
async function markMaking(folder: string): Promise<void> {
  try {
    await (await openFile(makingFile(folder), "w")).close();
    await sync(folder);
  } catch (error) {
    throw cannotWrite(folder, error);
  }
}

/**
 * lmdb itself takes the whole process down over a file that is something else, and starts empty over an empty one.
 * @returns true where there is none yet, also where its making was interrupted
 */
async function mustBeDatabase(file: string): Promise<boolean> {
  let handle: Awaited<ReturnType<typeof openFile>>;
  try {
    handle = await openFile(file, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return true;
    throw cannotWrite(dirname(file), error);
  }
  try {
    const { size } = await handle.stat();
    const interrupted = (await identityOf(makingFile(dirname(file)))) !== undefined;
    if (size < SMALLEST_FILE_BYTES && interrupted) {
      await rm(file);
      return true;
    }
    if (size === 0) throw damaged(file, "it is empty: its content is lost");
    const { buffer } = await handle.read(Buffer.alloc(8), 0, 8, MAGIC_AT);
    if (
      size >= SMALLEST_FILE_BYTES &&
      buffer.readUInt32LE(0) === MAGIC &&
      (buffer.readUInt32LE(4) & 0xffff) === MAGIC_VERSION
    )
      return interrupted;
  } finally {
    await handle.close();
  }
  throw damaged(file, "it is not one");
}

function damaged(file: string, why: string, cause?: unknown): TrilithError {
  return new TrilithError(
    "damaged",
    `${file} cannot be read as a database (${why}); restore it from a backup, or move it away to start empty`,
    cause,
  );
}

/** Tells an error of lmdb, whose codes are numbers: errno or its own. */
async function explain(folder: string, error: unknown): Promise<TrilithError> {
  const { commitError } = error as { commitError?: Promise<never> };
  // The reason of a failed commit is handed over as a promise of its own.
  const cause = commitError === undefined ? error : await commitError.catch((reason: unknown) => reason);
  const code = (cause as { code?: unknown }).code;
  const text = messageOf(cause);
  if (code === 28 || code === 122) return cannotWrite(folder, Object.assign(new Error(text), { code: "ENOSPC" }));
  if (code === 30) return cannotWrite(folder, Object.assign(new Error(text), { code: "EROFS" }));
  if (code === 13 || code === 1) return cannotWrite(folder, Object.assign(new Error(text), { code: "EACCES" }));
  if (code === 5) {
    const disk = await statfs(folder).catch(() => undefined);
    if (disk !== undefined && disk.bavail * disk.bsize < LITTLE_SPACE_BYTES)
      return cannotWrite(folder, Object.assign(new Error(text), { code: "ENOSPC" }));
  }
  if (typeof code === "number" && code <= -30_790 && code >= -30_799) return damaged(durableFile(folder), text, cause);
  return new TrilithError("internal", `the data in ${folder} cannot be written or read: ${text}`, cause);
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
