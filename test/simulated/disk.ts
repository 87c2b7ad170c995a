// Files in memory under a test's control: contents, identities and times, writes that take a while, faults; bells ring at each change.
import type { Clock } from "../../src/base/clock.ts";
import type { Disk } from "../../src/base/disk.ts";

interface File {
  bytes: Buffer;
  identity: string;
  modifiedMs: number;
  changedMs: number;
  mode: number;
}

export interface FakeDisk extends Disk {
  /** Writes in place, as `>` does: the same file, or a new one where there was none. */
  put(path: string, content: string): void;
  /** Appends to what is there. */
  append(path: string, content: string): void;
  /** Written elsewhere and moved here. */
  moveIn(path: string, content: string): void;
  drop(path: string): void;
  text(path: string): string | undefined;
  /** Called before each call; what it returns is thrown. */
  fault: (what: string, path: string) => Error | undefined;
  /** How often files were replaced or overwritten. */
  readonly writes: string[];
  readonly bells: number;
}

export function errno(code: string): Error {
  return Object.assign(new Error(`${code}: made by a test`), { code });
}

/** Folders are there as soon as something is in them; `folders` besides. */
export function fakeDisk(clock: Pick<Clock, "now">, folders: readonly string[] = []): FakeDisk {
  const files = new Map<string, File>();
  const bells = new Map<string, Set<() => void>>();
  const writes: string[] = [];
  let made = 0;
  const parentOf = (path: string): string => path.slice(0, path.lastIndexOf("/")) || "/";
  const isFolder = (path: string): boolean =>
    folders.includes(path) || [...files.keys()].some((each) => each.startsWith(`${path}/`));
  const ring = (path: string): void => {
    for (const each of [...(bells.get(path) ?? []), ...(bells.get(parentOf(path)) ?? [])]) each();
  };
  const check = (what: string, path: string): void => {
    const error = self.fault(what, path);
    if (error !== undefined) throw error;
  };
  const at = (path: string): File => {
    const file = files.get(path);
    if (file === undefined) throw errno("ENOENT");
    return file;
  };
  const write = (
    path: string,
    content: Uint8Array | string,
    anew: boolean,
    changedLaterMs = 0,
    mode?: number,
  ): void => {
    const now = clock.now();
    const before = files.get(path);
    files.set(path, {
      bytes: Buffer.from(content as string),
      identity: before === undefined || anew ? `0:${++made}` : before.identity,
      modifiedMs: now - changedLaterMs,
      changedMs: now,
      mode: mode ?? before?.mode ?? 0o644,
    });
    ring(path);
  };
  const self: FakeDisk = {
    fault: () => undefined,
    writes,
    get bells() {
      return [...bells.values()].reduce((sum, { size }) => sum + size, 0);
    },
    put: (path, content) => write(path, content, false),
    append: (path, content) => write(path, (self.text(path) ?? "") + content, false),
    moveIn: (path, content) => write(path, content, true, 10),
    drop(path) {
      if (files.delete(path)) ring(path);
    },
    text: (path) => files.get(path)?.bytes.toString(),
    async readBytes(path) {
      check("readBytes", path);
      return at(path).bytes;
    },
    async readText(path) {
      check("readText", path);
      return at(path).bytes.toString();
    },
    async list(path) {
      check("list", path);
      if (!isFolder(path)) throw errno("ENOENT");
      return [...files.keys()]
        .filter((each) => parentOf(each) === path)
        .map((each) => each.slice(path.length + 1))
        .sort();
    },
    async info(path) {
      check("info", path);
      const file = files.get(path);
      if (file === undefined)
        return isFolder(path)
          ? { size: 0, modifiedMs: 0, isDirectory: true, isFile: false, identity: path, mode: 0o755 }
          : undefined;
      const { bytes, ...rest } = file;
      return { ...rest, size: bytes.length, isDirectory: false, isFile: true };
    },
    async realPath(path) {
      check("realPath", path);
      return files.has(path) || isFolder(path) ? path : undefined;
    },
    async makeFolder(path) {
      check("makeFolder", path);
    },
    async replace(path, content, mode) {
      check("replace", path);
      writes.push(`replace ${path}`);
      write(path, content, true, 0, mode ?? 0o644);
    },
    async overwrite(path, content, expected) {
      check("overwrite", path);
      if (!at(path).bytes.equals(Buffer.from(expected as string))) return false;
      writes.push(`overwrite ${path}`);
      write(path, content, false);
      return true;
    },
    async remove(path) {
      check("remove", path);
      self.drop(path);
    },
    async bell(path, callback) {
      check("bell", path);
      if (!files.has(path) && !isFolder(path)) throw errno("ENOENT");
      bells.set(path, (bells.get(path) ?? new Set()).add(callback));
      return { close: () => void bells.get(path)?.delete(callback) };
    },
  };
  return self;
}
