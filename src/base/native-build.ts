// The hook's library for programs of this machine: a prebuilt one if it was shipped, else compiled once into the user's cache.
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { access, chmod, mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { TrilithError } from "./error.ts";
import { ownUid } from "./mapped-file.ts";
import { type Processes, systemProcesses } from "./process.ts";
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
}

/**
 * The path of the library for programs with that C library. Safe to be called by several processes at once.
 * @throws TrilithError `unavailable` where there is no compiler, with the package to install; `internal` with the compiler's words; `not-found`
 */
export async function hookLibrary(libc: Libc, parts: BuildParts = { processes: systemProcesses }): Promise<string> {
  const native = parts.native ?? (await findNative());
  const arch = parts.arch ?? process.arch;
  const prebuilt = join(native, "prebuilt", `${process.platform}-${arch}-${libc}`, NAME);
  if (await isThere(prebuilt)) return prebuilt;
  const compiler = await findCompiler(libc, parts.processes);
  const name = `libtrilith-${libc}-${await hashOf(native, [...compiler, arch])}.so`;
  const folder = await cacheFolder(parts.processes);
  const path = join(folder, name);
  if (await isOwn(path)) return path;
  const temporary = join(folder, `.${name}.${systemRandom.uuid()}`);
  try {
    await compile([...compiler, ...FLAGS, "-o", temporary, join(native, SOURCE), ...LIBRARIES], parts.processes);
    await chmod(temporary, 0o755);
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
  return path;
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

/** A folder that this user alone writes to. Root's is the system's, since programs that it starts go on as other users. */
async function cacheFolder(processes: Pick<Processes, "env">): Promise<string> {
  const home = processes.env("HOME");
  const root = ownUid() === 0;
  const caches = [
    processes.env("XDG_CACHE_HOME") ?? (root ? "/var/cache" : ""),
    home === undefined || home === "" ? "" : join(home, ".cache"),
    join(tmpdir(), `trilith-cache-${ownUid()}`),
  ].filter(usable);
  let last: unknown;
  for (const cache of caches) {
    const folder = join(cache, "trilith");
    try {
      await mkdir(folder, { recursive: true, mode: root ? 0o755 : 0o700 });
      const found = await stat(folder);
      const above = await stat(cache);
      // The temporary folder is everybody's: only what this user made there counts.
      if (found.uid !== ownUid() || (above.uid !== ownUid() && above.uid !== 0) || (found.mode & 0o022) !== 0)
        throw new TrilithError("conflict", `${folder} belongs to user ${found.uid}, or others may write to it`);
      await access(folder, constants.W_OK);
      return folder;
    } catch (error) {
      last = error;
    }
  }
  throw new TrilithError(
    "not-allowed",
    `the hook's library can be kept nowhere: ${caches.map((each) => join(each, "trilith")).join(" and ")} cannot be written to; set XDG_CACHE_HOME to a folder that can`,
    last,
  );
}

const INSTALL: Readonly<Record<Libc, string>> = {
  glibc:
    "install one: apt install gcc libc6-dev (Debian, Ubuntu), dnf install gcc (Fedora, RHEL), pacman -S gcc (Arch), zypper install gcc (SUSE); or set CC",
  musl: "install one: apk add gcc musl-dev (Alpine), apt install musl-tools (Debian, Ubuntu), dnf install musl-gcc (Fedora); or set CC_MUSL",
};

/** The first compiler that makes programs for that C library, as a command. */
async function findCompiler(libc: Libc, processes: BuildParts["processes"]): Promise<readonly string[]> {
  const told = processes.env(libc === "musl" ? "CC_MUSL" : "CC");
  const words = told?.split(" ").filter((word) => word !== "") ?? [];
  if (words.length > 0) return words;
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
