// A file that another program replaces while we read it: opened where its owner can be trusted, read whole, and looked at without opening it again.
import { fs } from "./lazy-fs.ts";

/** An open file. It stays what it was, also where another one has its name by now. */
export interface SharedFile {
  readonly bytes: Uint8Array;
  /** A little-endian number as it stands in the file now; undefined where it cannot be read. */
  u32At(offset: number): number | undefined;
  /** True where another file, or none, has its name. */
  isReplaced(): boolean;
  close(): void;
}

/** Never longer than this: nobody fills our memory by a file. */
const MOST_BYTES = 1 << 30;

/**
 * Opens a file at once (without waiting: it lies in memory, or nearly). Undefined where it is missing, is no regular file, belongs to neither root
 * nor this process's user, can be written by others, or cannot be read.
 */
export function openShared(path: string): SharedFile | undefined {
  const { closeSync, constants, fstatSync, openSync, readSync, statSync } = fs();
  let descriptor: number | undefined;
  try {
    // A pipe in its place must not hold us up.
    descriptor = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const { uid, mode, size, ino, dev } = fstatSync(descriptor);
    const trusted = uid === 0 || uid === process.geteuid?.();
    const regular = (mode & constants.S_IFMT) === constants.S_IFREG;
    if (!trusted || !regular || (mode & 0o022) !== 0 || size > MOST_BYTES) {
      closeSync(descriptor);
      return undefined;
    }
    const bytes = Buffer.allocUnsafe(size);
    for (let done = 0; done < size; ) {
      const read = readSync(descriptor, bytes, done, size - done, done);
      if (read === 0) throw new Error(`${path} became shorter`);
      done += read;
    }
    const opened = descriptor;
    const field = Buffer.alloc(4);
    return {
      bytes,
      u32At(offset) {
        try {
          return readSync(opened, field, 0, 4, offset) === 4 ? field.readUInt32LE(0) : undefined;
        } catch {
          return undefined;
        }
      },
      isReplaced() {
        const now = statSync(path, { throwIfNoEntry: false });
        return now?.ino !== ino || now.dev !== dev;
      },
      close: () => closeSync(opened),
    };
  } catch {
    // Missing, not allowed, cut off while it was read: there is none that can be used.
    if (descriptor !== undefined) closeSync(descriptor);
    return undefined;
  }
}
