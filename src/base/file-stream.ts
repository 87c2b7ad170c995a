// Files too large to be held in memory: read and written piece by piece.
import { randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import type { Readable } from "node:stream";

/** A file's bytes as they are read. Errors with Node's errno errors. */
export function streamFrom(path: string): Readable {
  return createReadStream(path);
}

/**
 * Writes pieces into a file that stands under its name only when all of them are on disk: until then, and when something fails, what
 * stood there stays. `look` may look at the whole file before it gets its name, and reject it. Rejects with the source's error or an errno error.
 */
export async function streamTo(
  path: string,
  pieces: AsyncIterable<Uint8Array>,
  mode: number = 0o600,
  look?: (path: string) => Promise<void>,
): Promise<void> {
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    const handle = await open(temporary, "wx", mode);
    try {
      for await (const piece of pieces) await handle.writeFile(piece);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await look?.(temporary);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    // Nobody knows the temporary one.
    if (error instanceof Error) error.message = error.message.replaceAll(temporary, path);
    throw error;
  }
}
