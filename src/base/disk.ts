// The disk: the only door to files, with the writes that survive a power cut.
import { type FSWatcher, watch as fsWatch } from "node:fs";
import { type FileHandle, mkdir, open, readdir, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";

export interface FileInfo {
  readonly size: number;
  readonly modifiedMs: number;
  /** When its content or its name last changed: later than `modifiedMs` where it was written elsewhere and moved here. */
  readonly changedMs?: number;
  readonly isDirectory: boolean;
  /** False for sockets, pipes and devices, too. */
  readonly isFile: boolean;
  /** Device and inode: the same file under any name. */
  readonly identity: string;
  /** Permission bits. */
  readonly mode?: number;
  readonly owner?: FileOwner;
}

/** User and group that a file belongs to. */
export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
}

/** Files and folders. All methods reject with Node's errno errors. */
export interface Disk {
  readBytes(path: string): Promise<Uint8Array>;
  readText(path: string): Promise<string>;
  /** Names in a folder, in order. */
  list(path: string): Promise<string[]>;
  /** Undefined where nothing is. */
  info(path: string): Promise<FileInfo | undefined>;
  /** Where a path leads when every link is followed; undefined where nothing is. */
  realPath(path: string): Promise<string | undefined>;
  makeFolder(path: string): Promise<void>;
  /**
   * Replaces a file so that readers see the old or the new content whole, also after a power cut. It belongs to this process's user unless an owner
   * is told, with whom the mode is kept whatever the umask says. Errors name the file, whatever stood in its place meanwhile.
   */
  replace(path: string, content: string | Uint8Array, mode?: number, owner?: FileOwner): Promise<void>;
  /**
   * Puts other content into a file that has to stay the same file (one that is mounted elsewhere by itself, or whose folder may not be written):
   * in one write from where it differs, so that what comes before is never touched. Readers may see both for a moment.
   * @returns false where it is not `expected` any more, and was left alone
   */
  overwrite(path: string, content: string | Uint8Array, expected: string | Uint8Array): Promise<boolean>;
  remove(path: string): Promise<void>;
  /** Calls back when something below the path may have changed (a bell, not a report). Closing stops it. Missing paths reject. */
  bell(path: string, ring: () => void): Promise<{ close(): void }>;
}

async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Makes a folder and those above it that are missing. (Node's own recursive mkdir never ends where the kernel says ENOENT below a folder
 * that is there, as in /proc.)
 */
export async function makeFolders(path: string, mode = 0o777): Promise<void> {
  const make = async (): Promise<void> => {
    try {
      await mkdir(path, mode);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST" || !(await stat(path)).isDirectory()) throw error;
    }
  };
  try {
    await make();
  } catch (error) {
    const above = dirname(path);
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || above === path) throw error;
    await makeFolders(above, mode);
    await make();
  }
}

/** Both the umask and a new owner take bits away. */
async function give(handle: FileHandle, { uid, gid }: FileOwner, mode: number): Promise<void> {
  const now = await handle.stat();
  const isOther = now.uid !== uid || now.gid !== gid;
  if (isOther) await handle.chown(uid, gid);
  if (isOther || (now.mode & 0o7777) !== mode) await handle.chmod(mode);
}

/** Files replaced so far: two replacements of one file at once are two temporary files. */
let replaced = 0;

/** The system's disk. */
export const systemDisk: Disk = {
  readBytes: (path) => readFile(path),
  readText: (path) => readFile(path, "utf8"),
  list: async (path) => (await readdir(path)).sort(),
  async info(path) {
    try {
      const found = await stat(path);
      return {
        size: found.size,
        modifiedMs: found.mtimeMs,
        changedMs: found.ctimeMs,
        isDirectory: found.isDirectory(),
        isFile: found.isFile(),
        identity: `${found.dev}:${found.ino}`,
        mode: found.mode & 0o7777,
        owner: { uid: found.uid, gid: found.gid },
      };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  },
  async realPath(path) {
    try {
      return await realpath(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  },
  makeFolder: (path) => makeFolders(path),
  async replace(path, content, mode = 0o644, owner) {
    const temporary = `${path}.${process.pid}.${++replaced}.tmp`;
    try {
      // What an earlier process with this number left must lend neither its rights nor, being a link, its target.
      await rm(temporary, { force: true });
      const handle = await open(temporary, "wx", mode);
      try {
        try {
          if (owner !== undefined) await give(handle, owner, mode);
          await handle.writeFile(content);
          await handle.sync();
        } finally {
          await handle.close();
        }
        await rename(temporary, path);
      } catch (error) {
        await rm(temporary, { force: true });
        throw error;
      }
    } catch (error) {
      // The temporary name is another one at each try: who tells an error once would tell it again.
      if (error instanceof Error) error.message = error.message.replaceAll(temporary, path);
      throw error;
    }
    await syncFolder(dirname(path));
  },
  async overwrite(path, content, expected) {
    const wanted = Buffer.from(content as string);
    const handle = await open(path, "r+");
    try {
      const found = await handle.readFile();
      if (!found.equals(Buffer.from(expected as string))) return false;
      let same = 0;
      while (same < wanted.length && same < found.length && wanted[same] === found[same]) same++;
      // What is left of longer content is empty lines until it is cut off, rather than ends of the old ones.
      const rest = Buffer.alloc(Math.max(wanted.length, found.length) - same, "\n");
      wanted.copy(rest, 0, same);
      for (let done = 0; done < rest.length; )
        done += (await handle.write(rest, done, rest.length - done, same + done)).bytesWritten;
      await handle.truncate(wanted.length);
      await handle.sync();
      return true;
    } finally {
      await handle.close();
    }
  },
  async remove(path) {
    await rm(path, { recursive: true, force: true });
  },
  async bell(path, ring) {
    await stat(path);
    let watcher: FSWatcher | undefined = fsWatch(path, { persistent: false }, ring);
    watcher.on("error", ring);
    return {
      close() {
        watcher?.close();
        watcher = undefined;
      },
    };
  },
};
