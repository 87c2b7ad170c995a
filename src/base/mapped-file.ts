// A file that programs map into memory: replaced as a whole, the earlier one marked so that those who have it mapped look for the new one.
import { constants, type Stats } from "node:fs";
import {
  access,
  chmod,
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  rename,
  stat,
  unlink,
} from "node:fs/promises";
import { dirname } from "node:path";
import { makeFolders } from "./disk.ts";
import { TrilithError } from "./error.ts";

const errnoOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;
const OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

/** The present and the earlier file at a path. One process at a time may replace it. All reject with Node's errno errors unless told. */
export interface MappedFile {
  readonly path: string;
  /** What is there, of a regular file of at most `maxBytes`; undefined = nothing. @throws TrilithError `conflict` for what is something else */
  read(maxBytes: number): Promise<Uint8Array | undefined>;
  /** Ends what was cut short when an earlier process died: those who have the file before last mapped are told. */
  recover(): Promise<void>;
  /**
   * Puts a new file in its place. Resolves when whoever opens the path finds it and the earlier one is marked. It need not outlast a power cut:
   * content has its checksum.
   */
  replace(content: Uint8Array): Promise<void>;
  /** Takes it away, marked, so that programs notice. Missing = nothing happens. */
  remove(): Promise<void>;
}

/** The file at `path`. Earlier files get `mark.value` (u32, little-endian) at `mark.at`. */
export function mappedFile(path: string, mark: { readonly at: number; readonly value: number }): MappedFile {
  const old = `${path}.old`;
  const next = `${path}.next`;
  const word = Buffer.alloc(4);
  word.writeUInt32LE(mark.value);

  /** Opens a regular file without following links; undefined = none is there. */
  const openOwn = async (name: string, flags: number): Promise<FileHandle | undefined> => {
    let handle: FileHandle;
    try {
      handle = await open(name, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      if (errnoOf(error) === "ELOOP" || errnoOf(error) === "EISDIR" || errnoOf(error) === "ENXIO") throw strange(name);
      throw error;
    }
    if ((await handle.stat()).isFile()) return handle;
    await handle.close();
    throw strange(name);
  };
  const marked = async (handle: FileHandle): Promise<void> => {
    // A file without that place is none of ours, and must not grow.
    if ((await handle.stat()).size >= mark.at + word.length) await handle.write(word, 0, word.length, mark.at);
  };
  const removed = async (name: string): Promise<void> => {
    try {
      await unlink(name);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
    }
  };
  const markAndRemove = async (name: string): Promise<void> => {
    const handle = await openOwn(name, constants.O_RDWR);
    if (handle === undefined) return;
    try {
      await marked(handle);
    } finally {
      await handle.close();
    }
    await removed(name);
  };

  const recover = async (): Promise<void> => {
    await markAndRemove(old);
    await removed(next);
  };

  return {
    path,
    async read(maxBytes) {
      const handle = await openOwn(path, constants.O_RDONLY);
      if (handle === undefined) return undefined;
      try {
        const { size } = await handle.stat();
        if (size > maxBytes) throw strange(path);
        return await handle.readFile();
      } finally {
        await handle.close();
      }
    },
    recover,
    async replace(content) {
      // Also what an earlier try of this process left.
      await recover();
      const file = await open(
        next,
        constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
        0o644,
      );
      const present = await (async () => {
        try {
          await file.writeFile(content);
          // The process's mask must not take away that others may read it.
          await file.chmod(0o644);
          const before = await openOwn(path, constants.O_RDWR);
          // Under a second name, so that it can still be marked by whoever comes after a crash between the next two steps.
          if (before !== undefined) await link(path, old).catch(unlessUnsupported);
          return before;
        } catch (error) {
          await removed(next);
          throw error;
        } finally {
          await file.close();
        }
      })();
      try {
        await rename(next, path);
        if (present !== undefined) await marked(present);
      } finally {
        await present?.close();
      }
      await removed(old);
    },
    remove: () => markAndRemove(path),
  };
}

/** Some file systems have no second names; then a crash at the wrong moment leaves one earlier file unmarked. */
function unlessUnsupported(error: unknown): void {
  if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"].includes(errnoOf(error) ?? "")) throw error;
}

function strange(path: string): TrilithError {
  return new TrilithError(
    "conflict",
    `${path} is not a file of this program's (a folder, link or something larger): move it away`,
  );
}

/** Who this process is to the file system; -1 where the system has no such numbers. */
export function ownUid(): number {
  return process.geteuid?.() ?? -1;
}

/**
 * Makes the folder of a file that others are to trust, and sees to it that nobody else can put another file in its place.
 * @throws TrilithError `conflict` for a folder that others own or may write to; Node's errno errors
 */
export async function makeTrustedFolder(path: string): Promise<void> {
  try {
    await makeFolders(path, 0o755);
  } catch (error) {
    if (errnoOf(error) !== "EEXIST" && errnoOf(error) !== "ENOTDIR") throw error;
    throw new TrilithError("conflict", `something that is not a folder is in the place of ${path}, or above it`, error);
  }
  const found = await stat(path);
  const own = ownUid();
  if (found.uid !== own && found.uid !== 0)
    throw new TrilithError(
      "conflict",
      `the folder ${path} belongs to user ${found.uid}, and this agent runs as user ${own}: give a folder of its own`,
    );
  if ((found.mode & OTHERS_WRITE) !== 0 && (found.mode & STICKY) === 0)
    throw new TrilithError(
      "conflict",
      `the folder ${path} can be written to by others, who could put another file in its place: take that right away (chmod go-w), or give another folder`,
    );
  // A mask of 077 makes folders that nobody else can enter.
  if (found.uid === own && (found.mode & 0o055) !== 0o055 && (await readdir(path)).length === 0)
    await chmod(path, 0o755);
}

/** Makes a folder into which every user may put files, of which each keeps its own (mode 1777). @throws TrilithError `conflict`; errno errors */
export async function makeOpenFolder(path: string): Promise<void> {
  try {
    await mkdir(path, 0o700);
  } catch (error) {
    if (errnoOf(error) !== "EEXIST") throw error;
  }
  const found = await lstat(path);
  if (!found.isDirectory() || found.uid !== ownUid())
    throw new TrilithError("conflict", `${path} is not a folder of user ${ownUid()}: move it away`);
  if ((found.mode & 0o7777) !== 0o1777) await chmod(path, 0o1777);
}

/** A folder that not everybody may enter. */
export interface ClosedFolder {
  readonly path: string;
  readonly uid: number;
  /** The group that may enter it all the same; undefined = none. */
  readonly gid: number | undefined;
  /** Its permission bits. */
  readonly mode: number;
}

/** The nearest folder above a file that keeps other users from it; undefined where everybody may enter all of them. */
export async function keptFromOthers(path: string): Promise<ClosedFolder | undefined> {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const { mode, uid, gid } = await stat(folder);
    if ((mode & 0o001) === 0)
      return { path: folder, uid, gid: (mode & 0o010) === 0 ? undefined : gid, mode: mode & 0o7777 };
    if (dirname(folder) === folder) return undefined;
  }
}

/** Why programs of this user do not use a mapped file, by the rules that they follow themselves; undefined where they do. */
export async function whyNotUsed(path: string): Promise<string | undefined> {
  let found: Stats;
  try {
    found = await stat(path);
    await access(path, constants.R_OK);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return `there is no table at ${path}`;
    return `the table ${path} cannot be read by user ${ownUid()} (${errnoOf(error)}): have the agent write it where everybody may enter (hook.table = "/run/trilith/table")`;
  }
  if (!found.isFile()) return `${path} is no table, but a folder or a device`;
  if (found.uid !== 0 && found.uid !== ownUid())
    return `the table ${path} belongs to user ${found.uid}: programs believe root's and their own user's (${ownUid()}) only`;
  if ((found.mode & OTHERS_WRITE) !== 0)
    return `the table ${path} can be written to by others, so that programs do not believe it`;
  return undefined;
}

/**
 * Reads a regular file of exactly `size` bytes that belongs to the user; undefined for what is gone, something else, somebody else's or of another size. Never waits for a pipe and follows
 * no link. @throws errno errors, `EACCES` where it may not be read
 */
export async function readForeignFile(path: string, uid: number, size: number): Promise<Uint8Array | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (["ENOENT", "ELOOP", "EISDIR", "ENXIO"].includes(errnoOf(error) ?? "")) return undefined;
    throw error;
  }
  try {
    const found: Stats = await handle.stat();
    if (!found.isFile() || found.uid !== uid || found.size !== size) return undefined;
    const bytes = Buffer.alloc(size);
    let at = 0;
    while (at < size) {
      const { bytesRead } = await handle.read(bytes, at, size - at, at);
      // It was cut meanwhile.
      if (bytesRead === 0) return undefined;
      at += bytesRead;
    }
    return bytes;
  } finally {
    await handle.close();
  }
}

/**
 * Removes a file from a folder to which others may add files, unless it is a folder, or something changed about it after `sinceMs` (Unix time): true where it was removed. What is written by a
 * mapping does not always count as a change. @throws errno errors
 */
export async function removeForeignFile(path: string, sinceMs: number): Promise<boolean> {
  try {
    const found = await lstat(path);
    if (found.isDirectory() || Math.max(found.mtimeMs, found.ctimeMs) > sinceMs) return false;
    // Never a tree: whoever owns it could lead us elsewhere meanwhile.
    await unlink(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}
