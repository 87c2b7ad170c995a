// The file below `durable.ts`: looked at before lmdb may touch it, for lmdb takes the process down where it is not as expected; and what lmdb's errors mean.
import { constants } from "node:fs";
import { open as openFile, rm, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { messageOf, TrilithError } from "./error.ts";
import { cannotWrite } from "./lock.ts";

/** Where a data folder's database is. */
export const durableFile = (folder: string): string => join(folder, "trilith.mdb");

/** On a disk with less room than this an I/O error means that it is full: lmdb reports writes cut short as such. */
const LITTLE_SPACE_BYTES = 1 << 20;
/** Where an lmdb file says what it is, and what it says there. */
const MAGIC_AT = 24;
const MAGIC = 0xbeefc0de;
const MAGIC_VERSION = 2;
const SMALLEST_FILE_BYTES = 8192;
/** More than lmdb's table of readers takes. */
const LOCK_FILE_BYTES = 16_384;

/**
 * lmdb maps its lock file into memory before it has room on the disk: on a full one the process would die of it. So the room is taken
 * beforehand, where running out of it is an error. (The folder is this process's own at that time.)
 */
export async function makeRoom(folder: string): Promise<void> {
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
export async function identityOf(path: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Has the disk hold what was written to a file or folder. */
export async function sync(path: string): Promise<void> {
  const handle = await openFile(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** There while a new database is being made: what is cut short then never held anything. */
export const makingFile = (folder: string): string => `${durableFile(folder)}-making`;

/** Leaves the mark, so that it is on disk before there is a database. */
export async function markMaking(folder: string): Promise<void> {
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
export async function mustBeDatabase(file: string): Promise<boolean> {
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
export async function explain(folder: string, error: unknown): Promise<TrilithError> {
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
