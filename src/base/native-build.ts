// The hook's library for programs of this machine: a prebuilt one if it was shipped, else compiled once into the user's cache, where old ones are cleared away.
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { access, chmod, link, lstat, mkdir, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { TrilithError } from "./error.ts";
import { ownUid } from "./mapped-file.ts";
import { type Processes, systemProcesses } from "./process.ts";
import { namedByProcesses } from "./process-names.ts";
import { systemRandom } from "./random.ts";

/** The C libraries that there is a library for. */
export type Libc = "glibc" | "musl";

const SOURCE = "libtrilith.c";
const NAME = "libtrilith.so";
/** How every C compiler makes the library; releases are made the same way (scripts/release.mjs). @public */
export const FLAGS: readonly string[] = ["-shared", "-fPIC", "-O2", "-pthread"];
/** Only where the C library has no such functions of its own. @public */
export const LIBRARIES: readonly string[] = ["-ldl"];
/** A compiler on a machine under load. */
const COMPILE_MS = 120_000;

/** Where to look and what to compile with; tests bring their own. */
export interface BuildParts {
  readonly processes: Pick<Processes, "run" | "env">;
  /** The folder with the sources; found beside this program unless told. */
  readonly native?: string;
  readonly arch?: string;
  /** Which of the paths living processes have (base/process-names.ts). */
  readonly named?: (paths: readonly string[]) => Promise<ReadonlySet<string>>;
}

/** For so long a library stays that nobody asked for and no process has: the shells and units that name it come back. */
const KEPT_MS = 30 * 86_400_000;
/** Who asks for it says so by the file's time, at most so often. */
const TOUCHED_MS = 86_400_000;

/**
 * The path of the library for programs with that C library. Safe to be called by several processes at once. What is in the cache already needs no compiler.
 * @throws TrilithError `unavailable` where there is no compiler, with the package to install; `internal` with the compiler's words; `not-found`
 */
export async function hookLibrary(libc: Libc, parts: BuildParts = { processes: systemProcesses }): Promise<string> {
  const native = parts.native ?? (await findNative());
  const arch = parts.arch ?? process.arch;
  const prebuilt = join(native, "prebuilt", `${process.platform}-${arch}-${libc}`, NAME);
  if (await isThere(prebuilt)) return prebuilt;
  const told = toldCompiler(libc, parts.processes);
  const name = `libtrilith-${libc}-${await hashOf(native, [...told, arch])}.so`;
  const found = await findCached(name, parts.processes);
  if (found !== undefined) return found;
  const compiler = told.length > 0 ? told : await findCompiler(libc, parts.processes);
  const folder = await cacheFolder(parts.processes);
  const path = join(folder, name);
  const temporary = join(folder, `.${name}.${systemRandom.uuid()}`);
  try {
    await compile([...compiler, ...FLAGS, "-o", temporary, join(native, SOURCE), ...LIBRARIES], parts.processes);
    await chmod(temporary, 0o755);
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
  const lasting = lastingName(path);
  if (lasting !== undefined && (await isThere(lasting))) await giveName(path, lasting);
  await clearAway(folder, name, parts.named ?? namedByProcesses);
  return path;
}

/** The name that outlives versions: libtrilith-glibc.so beside libtrilith-glibc-0123….so; undefined where the path has no version. */
export function lastingName(path: string): string | undefined {
  const lasting = path.replace(/-[0-9a-f]{20}\.so$/, ".so");
  return lasting === path ? undefined : lasting;
}

async function giveName(path: string, name: string): Promise<void> {
  const temporary = `${name}.${systemRandom.uuid()}`;
  try {
    await link(path, temporary);
    await rename(temporary, name);
  } finally {
    // Renaming a file to another name of itself leaves both [rename(2)].
    await rm(temporary, { force: true });
  }
}

/**
 * The same library under a name that units and Dockerfiles can keep: it leads to the newest one that this user compiled, and is never cleared away. The path itself where the
 * folder takes no further names.
 */
export async function lastingLibrary(path: string): Promise<string> {
  const lasting = lastingName(path);
  if (lasting === undefined) return path;
  try {
    await giveName(path, lasting);
    return lasting;
  } catch {
    return path;
  }
}

/** A library that this user or root compiled earlier, in a folder of theirs. @throws TrilithError `conflict` for one that others may have changed */
async function findCached(name: string, processes: Pick<Processes, "env">): Promise<string | undefined> {
  for (const cache of caches(processes)) {
    const folder = join(cache, "trilith");
    const path = join(folder, name);
    if (!(await isThere(path)) || (await whyNotOwn(cache, folder)) !== undefined || !(await isOwn(path))) continue;
    const { uid, mtimeMs } = await stat(path);
    const now = Date.now();
    // Where that is not allowed (a read-only disk), nobody clears it away either.
    if (uid === ownUid() && now - mtimeMs > TOUCHED_MS) await utimes(path, now / 1000, now / 1000).catch(() => {});
    return path;
  }
  return undefined;
}

/** A version's library, half-made ones, and a lasting name that was not given to the end; not the lasting name itself. */
const CLEARED = /^\.?libtrilith-(glibc|musl)(-[0-9a-f]{20}\.so(\.[0-9a-f-]{36})?|\.so\.[0-9a-f-]{36})$/;

/** Removes libraries of earlier versions that nobody asked for lately and no living process has, and what was left of compilers that were killed. */
async function clearAway(folder: string, present: string, named: NonNullable<BuildParts["named"]>): Promise<void> {
  const old: string[] = [];
  for (const name of await readdir(folder)) {
    if (name === present || !CLEARED.test(name)) continue;
    const path = join(folder, name);
    const found = await lstat(path).catch(() => undefined);
    if (found === undefined || !found.isFile() || found.uid !== ownUid()) continue;
    // Where disks note it, loading it counts as well.
    if (Date.now() - Math.max(found.mtimeMs, found.atimeMs) > KEPT_MS) old.push(path);
  }
  const used = await named(old);
  for (const path of old) if (!used.has(path)) await rm(path, { force: true }).catch(() => {});
}

/** The sources lie beside `src` or `dist`; builds elsewhere find them above. */
async function findNative(): Promise<string> {
  const here = dirname(fileURLToPath(import.meta.url));
  for (let folder = dirname(here); ; folder = dirname(folder)) {
    const native = join(folder, "native");
    if (await isThere(join(native, SOURCE))) return native;
    if (dirname(folder) === folder)
      throw new TrilithError("not-found", `the sources of the hook's library (native/${SOURCE}) are not above ${here}`);
  }
}

const isThere = (path: string): Promise<boolean> =>
  access(path, constants.R_OK).then(
    () => true,
    () => false,
  );

/** What others could have put there is not loaded into programs. */
async function isOwn(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return false;
  if (found.isFile() && (found.uid === ownUid() || found.uid === 0) && (found.mode & 0o022) === 0) return true;
  throw new TrilithError("conflict", `${path} belongs to user ${found.uid} or can be written to by others: remove it`);
}

async function hashOf(native: string, more: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  for (const name of (await readdir(native)).sort())
    if (/\.[ch]$/.test(name))
      hash
        .update(`${name}\0`)
        .update(await readFile(join(native, name)))
        .update("\0");
  return hash
    .update([...FLAGS, ...LIBRARIES, ...more].join("\0"))
    .digest("hex")
    .slice(0, 20);
}

/** LD_PRELOAD parts its files by blanks and colons, so that a folder with one of them is of no use. */
const usable = (folder: string): boolean => folder.startsWith("/") && !/[\s:$]/.test(folder);

/** Where it may be kept, best first. Root's folder is the system's, since programs that it starts go on as other users; what root compiled serves everybody. */
function caches(processes: Pick<Processes, "env">): readonly string[] {
  const home = processes.env("HOME");
  return [
    processes.env("XDG_CACHE_HOME") ?? (ownUid() === 0 ? SYSTEM : ""),
    home === undefined || home === "" ? "" : join(home, ".cache"),
    join(tmpdir(), `trilith-cache-${ownUid()}`),
    SYSTEM,
  ].filter((folder, i, all) => usable(folder) && all.indexOf(folder) === i);
}

const SYSTEM = "/var/cache";

/** Why what lies there could be somebody else's; undefined where only this user or root writes there. */
async function whyNotOwn(cache: string, folder: string): Promise<string | undefined> {
  const found = await stat(folder);
  const above = await stat(cache);
  const trusted = [ownUid(), 0];
  // The temporary folder is everybody's: only what this user made there counts.
  if (trusted.includes(found.uid) && trusted.includes(above.uid) && (found.mode & 0o022) === 0) return undefined;
  return `${folder} belongs to user ${found.uid}, or others may write to it`;
}

/** A folder that this user writes to, and nobody else. */
async function cacheFolder(processes: Pick<Processes, "env">): Promise<string> {
  const all = caches(processes);
  let last: unknown;
  for (const cache of all) {
    const folder = join(cache, "trilith");
    try {
      await mkdir(folder, { recursive: true, mode: ownUid() === 0 ? 0o755 : 0o700 });
      const wrong = await whyNotOwn(cache, folder);
      if (wrong !== undefined) throw new TrilithError("conflict", wrong);
      await access(folder, constants.W_OK);
      return folder;
    } catch (error) {
      last = error;
    }
  }
  throw new TrilithError(
    "not-allowed",
    `the hook's library can be kept nowhere: ${all.map((each) => join(each, "trilith")).join(" and ")} cannot be written to; set XDG_CACHE_HOME to a folder that can`,
    last,
  );
}

const INSTALL: Readonly<Record<Libc, string>> = {
  glibc:
    "install one: apt install gcc libc6-dev (Debian, Ubuntu), dnf install gcc (Fedora, RHEL), pacman -S gcc (Arch), zypper install gcc (SUSE); or set CC",
  musl: "install one: apk add gcc musl-dev (Alpine), apt install musl-tools (Debian, Ubuntu), dnf install musl-gcc (Fedora); or set CC_MUSL",
};

/** The compiler that the user named, as a command; empty where none was. */
function toldCompiler(libc: Libc, processes: Pick<Processes, "env">): readonly string[] {
  return (processes.env(libc === "musl" ? "CC_MUSL" : "CC") ?? "").split(" ").filter((word) => word !== "");
}

/** The first compiler that makes programs for that C library, as a command. */
async function findCompiler(libc: Libc, processes: BuildParts["processes"]): Promise<readonly string[]> {
  const arch = { x64: "x86_64", arm64: "aarch64" }[process.arch as string] ?? process.arch;
  const candidates =
    libc === "musl" ? ["musl-gcc", `${arch}-linux-musl-gcc`, "cc", "gcc", "clang"] : ["cc", "gcc", "clang"];
  for (const name of candidates) {
    const machine = await processes.run([name, "-dumpmachine"], {}).catch(() => undefined);
    if (machine?.exitCode !== 0) continue;
    const target = new TextDecoder().decode(machine.output);
    // musl-gcc is the system's gcc with another library, and says so only by its name.
    const makes = name.includes("musl") || target.includes("musl") ? "musl" : "glibc";
    if (makes === libc) return [name];
  }
  throw new TrilithError(
    "unavailable",
    `there is no C compiler here${libc === "musl" ? " for programs of musl" : ""} to make the hook's library with: ${INSTALL[libc]}`,
  );
}

async function compile(command: readonly string[], processes: Pick<Processes, "run">): Promise<void> {
  const limit = AbortSignal.timeout(COMPILE_MS);
  const { exitCode, output } = await processes.run(command, { signal: limit, keepBytes: 8192 });
  if (exitCode === 0) return;
  const said = new TextDecoder().decode(output).trim();
  const headers = /(stdio|errno|dlfcn|string|stdlib|netdb)\.h: No such file/.test(said)
    ? "; the C library's headers are missing: apt install libc6-dev, or apk add musl-dev"
    : "";
  throw new TrilithError("internal", `the hook's library could not be compiled (${command[0]})${headers}:\n${said}`);
}
