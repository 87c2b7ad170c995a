// One process per folder: a socket in it on which the holder answers, so that the system itself tells whether the holder still lives.
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { link, mkdir, open, rmdir, stat, unlink } from "node:fs/promises";
import { createConnection, createServer, type Server } from "node:net";
import { join } from "node:path";
import { makeFolders } from "./disk.ts";
import { codeOf, TrilithError, wrap } from "./error.ts";

/** A held lock. */
export interface FolderLock {
  /** Releasing twice does nothing. */
  release(): Promise<void>;
}

const NAME = "trilith.lock";
/** A holder whose event loop is busy accepts at once all the same, but may take long to say its pid. */
const ANSWER_MS = 2000;
const GUARD_MS = 10_000;
/** Longer names do not fit into a socket's address [unix(7)]. */
const LONGEST_PATH = 100;

const errnoOf = (error: unknown): string => String((error as NodeJS.ErrnoException).code);
const UNSUPPORTED: ReadonlySet<string> = new Set(["ENOTSUP", "EOPNOTSUPP", "EINVAL", "EPERM", "ENOSYS", "EXDEV"]);

/** Why a folder cannot be written to. */
export function cannotWrite(folder: string, error: unknown): TrilithError {
  const errno = errnoOf(error);
  if (errno === "ENOENT")
    return new TrilithError(
      "not-allowed",
      `the data folder ${folder} cannot be made there (the file system takes no folders); name one on a disk with --data-dir`,
      error,
    );
  if (errno === "EEXIST" || errno === "ENOTDIR")
    return new TrilithError(
      "conflict",
      `the data folder ${folder} cannot be made: something that is not a folder is in its place or above it; name another with --data-dir`,
      error,
    );
  if (errno === "EROFS" || errno === "EACCES" || errno === "EPERM")
    return new TrilithError(
      "read-only",
      `the data folder ${folder} cannot be written to (${errno === "EROFS" ? "its file system is mounted read-only" : "permission denied"}); name another with --data-dir`,
      error,
    );
  if (codeOf(error) === "disk-full")
    return new TrilithError("disk-full", `no space is left on the disk of the data folder ${folder}`, error);
  return wrap(error, `the data folder ${folder} cannot be used`);
}

type Holder = { readonly state: "alive"; readonly pid: number | undefined } | { readonly state: "dead" | "gone" };

/**
 * Takes a folder for this process, making it if need be. The lock of a process that died, or of a container that is gone, is taken over:
 * nobody listens on its socket any more. (A pid in a file cannot tell that: pids are used again, and count per container.)
 * @throws TrilithError `locked` with the holder's pid; `read-only`, `disk-full`, `unsupported`
 */
export async function lockFolder(folder: string): Promise<FolderLock> {
  const name = join(folder, NAME);
  const temporary = `${NAME}.${process.pid}.${randomBytes(4).toString("hex")}`;
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.end(`${process.pid}\n`);
  });
  let directory: Awaited<ReturnType<typeof open>>;
  try {
    await makeFolders(folder, 0o750);
    directory = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    throw cannotWrite(folder, error);
  }
  /** The same file under a name short enough. */
  const addressOf = (file: string): string => {
    const path = join(folder, file);
    return Buffer.byteLength(path) <= LONGEST_PATH ? path : `/proc/self/fd/${directory.fd}/${file}`;
  };
  try {
    await listen(server, addressOf(temporary));
    server.unref();
    // Only a socket that answers already gets the name that others look at.
    await takeName(folder, name, temporary, addressOf);
  } catch (error) {
    await close(server);
    // What went wrong is told below; that there is nothing to clean up on such a disk adds nothing.
    await unlinkIfThere(join(folder, temporary)).catch(() => {});
    await directory.close();
    if (error instanceof TrilithError) throw error;
    if (UNSUPPORTED.has(errnoOf(error)))
      throw new TrilithError(
        "unsupported",
        `the file system of the data folder ${folder} has no sockets or links (${errnoOf(error)}); give a folder on a local file system`,
        error,
      );
    throw cannotWrite(folder, error);
  }
  await unlinkIfThere(join(folder, temporary));
  let held = true;
  return {
    async release() {
      if (!held) return;
      held = false;
      await unlinkIfThere(name);
      await close(server);
      await directory.close();
    },
  };
}

/** Who holds a folder's lock at this moment; undefined = nobody who lives. @throws errno errors, `EACCES` where that may not be asked */
export async function lockHolder(folder: string): Promise<{ readonly pid: number | undefined } | undefined> {
  const holder = await ask(join(folder, NAME));
  return holder.state === "alive" ? { pid: holder.pid } : undefined;
}

async function takeName(
  folder: string,
  name: string,
  temporary: string,
  addressOf: (file: string) => string,
): Promise<void> {
  for (;;) {
    try {
      await link(join(folder, temporary), name);
      return;
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
    }
    const holder = await ask(addressOf(NAME));
    if (holder.state === "alive") {
      const who =
        holder.pid === process.pid
          ? `this process already (pid ${holder.pid})`
          : holder.pid === undefined
            ? "another process"
            : `another process (pid ${holder.pid})`;
      throw new TrilithError(
        "locked",
        `the data folder ${folder} is in use by ${who}; stop it, or name another folder with --data-dir`,
      );
    }
    if (holder.state === "dead") await removeDead(name, () => ask(addressOf(NAME)));
  }
}

/** Removes a dead holder's name; one process at a time, so that nobody removes what another one has just taken. */
async function removeDead(name: string, askAgain: () => Promise<Holder>): Promise<void> {
  const guard = `${name}.guard`;
  try {
    await mkdir(guard);
  } catch (error) {
    if (errnoOf(error) !== "EEXIST") throw error;
    // Whoever made it is done in a moment, unless it died in this very moment.
    const made = await stat(guard).catch(() => undefined);
    if (made !== undefined && Date.now() - made.mtimeMs > GUARD_MS) await rmdir(guard).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 20));
    return;
  }
  try {
    if ((await askAgain()).state === "dead") await unlinkIfThere(name);
  } finally {
    await rmdir(guard).catch(() => {});
  }
}

function ask(address: string): Promise<Holder> {
  return new Promise((resolve, reject) => {
    let text = "";
    let connected = false;
    const socket = createConnection(address);
    const timer = setTimeout(() => done(), ANSWER_MS);
    const done = (error?: NodeJS.ErrnoException): void => {
      clearTimeout(timer);
      socket.destroy();
      const pid = Number.parseInt(text, 10);
      if (connected || error === undefined) resolve({ state: "alive", pid: Number.isNaN(pid) ? undefined : pid });
      else if (error.code === "ECONNREFUSED") resolve({ state: "dead" });
      else if (error.code === "ENOENT") resolve({ state: "gone" });
      // A full queue of callers: somebody is there.
      else if (error.code === "EAGAIN") resolve({ state: "alive", pid: undefined });
      else reject(error);
    };
    socket.on("connect", () => {
      connected = true;
    });
    socket.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
    socket.on("end", () => done());
    socket.on("error", done);
  });
}

function listen(server: Server, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(address, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}

async function unlinkIfThere(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}
