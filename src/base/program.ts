// Under which name and from where this program was started, and the links by which it goes by other names.
import { access, constants, lstat, readlink, realpath, rm, symlink } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { TrilithError } from "./error.ts";

/** The name by which this program was called: "trilith", "avahi-browse"; also through a link. */
export function invokedAs(): string {
  return basename(process.argv[1] ?? "");
}

/** Where this program was called from: the folder of its link, and the file behind all links. */
export async function programPlace(): Promise<{ readonly folder: string; readonly file: string }> {
  const path = resolve(process.argv[1] ?? "");
  return { folder: dirname(path), file: await realpath(path) };
}

/** What stands at a path: nothing, a link to a file (behind all links; a link to nowhere is "" there), or something else. */
export async function linkAt(path: string): Promise<{ readonly to: string } | "nothing" | "something else"> {
  try {
    if (!(await lstat(path)).isSymbolicLink()) return "something else";
    await readlink(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "nothing";
    throw error;
  }
  return { to: await realpath(path).catch(() => "") };
}

/** Makes a link to a program. @throws TrilithError `not-allowed` where the file is not executable, errno errors where the link cannot be made */
export async function makeLink(file: string, path: string): Promise<void> {
  try {
    await access(file, constants.X_OK);
  } catch (error) {
    throw new TrilithError("not-allowed", `${file} is not executable, so that a link to it could not be run`, error);
  }
  await symlink(file, path);
}

/** Takes a link away; what it leads to stays. */
export async function removeLink(path: string): Promise<void> {
  await rm(path);
}
