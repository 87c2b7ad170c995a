// Counter files that nobody has used for long, and what their makers left half-made: a megabyte for each user who ever connected, often in memory, is given back.
import type { Disk } from "../../base/disk.ts";
import { codeOf } from "../../base/error.ts";
import { decodeObserved, OBSERVED_BYTES } from "../../wire/hook-observed.ts";

/** A file that no process has used for so long goes, with what it knows. */
export const FORGET_MS: number = 7 * 86_400_000;
/** Making one takes milliseconds. */
const HALF_MADE_MS = 3_600_000;

export interface ForgottenParts {
  /** Unix milliseconds. */
  readonly now: () => number;
  readonly disk: Pick<Disk, "list">;
  /** Reads a file where it is this user's and has that size (base/mapped-file.ts). */
  readonly read: (path: string, uid: number, bytes: number) => Promise<Uint8Array | undefined>;
  /** Removes a file, unless something changed about it since. */
  readonly remove: (path: string, sinceMs: number) => Promise<boolean>;
  readonly isAlive: (pid: number) => boolean;
}

/** Removes them from the folder: their paths. What may not be read or removed stays. @throws errno errors where the folder cannot be read */
export async function clearForgotten(folder: string, parts: ForgottenParts): Promise<readonly string[]> {
  const nowMs = parts.now();
  const gone: string[] = [];
  for (const name of await parts.disk.list(folder)) {
    const path = `${folder}/${name}`;
    const keptMs = /^\.\d+\.\d+\.[0-9a-f]+$/.test(name)
      ? HALF_MADE_MS
      : /^(0|[1-9]\d{0,9})$/.test(name)
        ? FORGET_MS
        : undefined;
    if (keptMs === undefined) continue;
    try {
      if (keptMs === FORGET_MS && !(await isForgotten(path, Number(name), nowMs, parts))) continue;
      if (await parts.remove(path, nowMs - keptMs)) gone.push(path);
    } catch (error) {
      if (codeOf(error) !== "not-allowed" && codeOf(error) !== "invalid") throw error;
    }
  }
  return gone;
}

/** A process that goes on with a file which is gone would not be heard any more: none of the numbers in it may be somebody's. */
async function isForgotten(path: string, uid: number, nowMs: number, parts: ForgottenParts): Promise<boolean> {
  const bytes = await parts.read(path, uid, OBSERVED_BYTES);
  if (bytes === undefined) return false;
  return decodeObserved(bytes).every(
    ({ pid, lastUsedMs }) => nowMs - lastUsedMs > FORGET_MS && (pid === 0 || !parts.isAlive(pid)),
  );
}
