// Folders of this program's below the system's temporary one: made so that everybody may enter, removed without being led astray, also after the process that had one was killed.
import { chmod, lstat, mkdtemp, readdir, rmdir, stat, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lockFolder } from "./lock.ts";
import { ownUid } from "./mapped-file.ts";
import { namedByProcesses } from "./process-names.ts";

/** How the folders of the hook's tables are called where an agent keeps nothing on disk. */
export const HOOK_FOLDERS = "trilith-hook";

/** A younger one may be about to be locked by whoever makes it. */
const YOUNG_MS = 60_000;

const errnoOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

/** A folder of its own below the system's temporary one, which everybody may enter. */
export async function makeTemporaryFolder(name: string): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), `${name}-`));
  await chmod(path, 0o755);
  return path;
}

/** Unlinks what is no folder; what is gone already is no fault. */
async function unlinkAll(folder: string, names: readonly string[]): Promise<void> {
  for (const name of names)
    await unlink(join(folder, name)).catch((error: unknown) => {
      if (!["ENOENT", "EISDIR", "EPERM"].includes(errnoOf(error) ?? "")) throw error;
    });
}

/**
 * Removes such a folder with its files and those of the folders in it, which may be open to everybody: no link is followed, and what others made of folders within is left,
 * for whoever removes those can be led elsewhere meanwhile. False where something is left. @throws errno errors
 */
export async function removeTemporaryFolder(path: string): Promise<boolean> {
  try {
    for (const entry of await readdir(path, { withFileTypes: true })) {
      const inner = join(path, entry.name);
      if (!entry.isDirectory()) {
        await unlinkAll(path, [entry.name]);
        continue;
      }
      // From here on nobody else changes what is in it.
      await chmod(inner, 0o700);
      await unlinkAll(inner, await readdir(inner));
      await rmdir(inner);
    }
    await rmdir(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return true;
    if (errnoOf(error) === "ENOTEMPTY" || errnoOf(error) === "EEXIST") return false;
    throw error;
  }
}

/**
 * Removes what processes of this user left behind that were killed: folders that `makeTemporaryFolder` made and `lockFolder` locked, whose holder is gone, and that no living process has
 * in its environment or mapped. What cannot be told, or is not surely this user's, stays. Returns their paths.
 */
export async function sweepTemporaryFolders(name: string, nowMs: number): Promise<readonly string[]> {
  const root = tmpdir();
  const above = await stat(root).catch(() => undefined);
  // Where others may rename our folders nothing under a name is surely ours.
  if (above === undefined || ((above.mode & 0o022) !== 0 && (above.mode & 0o1000) === 0)) return [];
  const candidates: string[] = [];
  for (const entry of await readdir(root).catch((): string[] => [])) {
    if (!entry.startsWith(`${name}-`) || !/^[A-Za-z0-9]{6}$/.test(entry.slice(name.length + 1))) continue;
    const path = join(root, entry);
    const found = await lstat(path).catch(() => undefined);
    if (found?.isDirectory() !== true || found.uid !== ownUid() || (found.mode & 0o022) !== 0) continue;
    if (nowMs - found.ctimeMs >= YOUNG_MS) candidates.push(path);
  }
  if (candidates.length === 0) return [];
  const used = await namedByProcesses(candidates);
  const removed: string[] = [];
  for (const path of candidates) {
    if (used.has(path)) continue;
    try {
      const lock = await lockFolder(path);
      await lock.release();
      if (await removeTemporaryFolder(path)) removed.push(path);
    } catch {
      // Its holder lives, or another process is at it, too, or the disk does not let go of it: the next one tries again.
    }
  }
  return removed;
}
