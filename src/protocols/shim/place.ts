// Where the hook's table lies: its folder, who may use it, the lock that keeps a second agent away, and the table of an earlier life.
import { dirname, join } from "node:path";
import type { Disk } from "../../base/disk.ts";
import { type Code, codeOf, messageOf, TrilithError } from "../../base/error.ts";
import { type FolderLock, lockFolder, lockHolder } from "../../base/lock.ts";
import {
  keptFromOthers,
  type MappedFile,
  makeOpenFolder,
  makeTrustedFolder,
  mappedFile,
  ownUid,
  whyNotUsed,
} from "../../base/mapped-file.ts";
import { HOOK_FOLDERS, makeTemporaryFolder, removeTemporaryFolder } from "../../base/temporary-folder.ts";
import { decodeHookTable, type HookTable, SUPERSEDED_AT } from "../../wire/hook-table.ts";
import { encodeHookTable } from "../../wire/hook-table-encode.ts";

/** Where programs look that are told of no table: the same in `native/table.h` and `lookup/node`. */
const USUAL_TABLE = "/run/trilith/table";
/** The library maps no more than that. */
const MOST_BYTES = 1 << 30;

/** What keeps some programs from using the table. */
export interface Limits {
  /** A sentence: who cannot, and what to do. */
  readonly text: string;
  /** True where a folder bars everybody but its owner. */
  readonly shut: boolean;
}

/** An open place; one agent has it. */
export interface Place {
  readonly file: MappedFile;
  /** Where programs write what they see of backends. */
  readonly observed: string;
  /** The table of an earlier life; undefined where there is none that can be read. */
  readonly adopted: HookTable | undefined;
  /** What keeps some programs from using it; undefined where nothing does. As it was when `identity` was last asked. */
  readonly limits: Limits | undefined;
  /** What is wrong with the table at the place where programs look that are told of none (see `identity`); undefined where nothing is, or that is this one. */
  readonly usual: string | undefined;
  /** Which file is there now: another text after somebody replaced it, wrote into it or took it away. */
  identity(): Promise<string>;
  /**
   * Puts a table without services in the place of the one that is there: programs that run go on as if there were no hook, and those that only look
   * later, too, as they would not if it were taken away. False where there is none with services. @throws as `MappedFile.replace`
   */
  empty(nowMs: number): Promise<boolean>;
  /**
   * Gives the folder back. The table stays: it is right until somebody writes another one. A temporary folder goes, unless the table was emptied: then
   * it goes when no program has it any more (`sweepTemporaryFolders`).
   */
  close(): Promise<void>;
}

/**
 * Opens a table's place; without a path in a temporary folder of its own.
 * @throws TrilithError in plain words: `locked` (another agent writes there), `conflict`, `read-only`, `not-allowed`, `disk-full`
 */
export async function openPlace(
  path: string | undefined,
  disk: Pick<Disk, "info">,
  usualTable: string = USUAL_TABLE,
): Promise<Place> {
  const temporary = path === undefined ? await makeTemporaryFolder(HOOK_FOLDERS) : undefined;
  const table = path ?? join(temporary as string, "table");
  const folder = dirname(table);
  let lock: FolderLock | undefined;
  try {
    await makeTrustedFolder(folder);
    lock = await lockFolder(folder);
    const file = mappedFile(table, { at: SUPERSEDED_AT, value: 1 });
    await file.recover();
    const adopted = await adopt(file);
    const observed = join(folder, "observed");
    await makeOpenFolder(observed);
    const held = lock;
    let limits = await limitsOf(table);
    let usual = await usualFault(table, usualTable);
    let emptied = false;
    return {
      file,
      observed,
      adopted,
      get limits() {
        return limits;
      },
      get usual() {
        return usual;
      },
      async identity() {
        limits = await limitsOf(table);
        usual = await usualFault(table, usualTable);
        const found = await disk.info(table);
        return found === undefined ? "gone" : `${found.identity} ${found.size} ${found.modifiedMs}`;
      },
      async empty(nowMs) {
        const now = await adopt(file);
        if (now === undefined || now.services.length === 0) return false;
        const { generation } = now;
        const bytes = encodeHookTable({
          ...{ ...now, generation: generation + 1, writtenAtMs: nowMs, superseded: false, services: [] },
        });
        await file.replace(bytes);
        emptied = true;
        return true;
      },
      async close() {
        const goes = temporary !== undefined && !emptied;
        if (goes) await file.remove();
        await held.release();
        if (goes) await removeTemporaryFolder(temporary);
      },
    };
  } catch (error) {
    await lock?.release();
    if (temporary !== undefined) await removeTemporaryFolder(temporary);
    throw troubleOf(table, error);
  }
}

async function adopt(file: MappedFile): Promise<HookTable | undefined> {
  const bytes = await file.read(MOST_BYTES);
  if (bytes === undefined) return undefined;
  try {
    return decodeHookTable(bytes);
  } catch (error) {
    // Cut off by a power failure, or another version's: the next one takes its place.
    if (codeOf(error) === "invalid") return undefined;
    throw error;
  }
}

/** The library believes only root and its own user, and must be able to reach the file. */
async function limitsOf(table: string): Promise<Limits | undefined> {
  const uid = ownUid();
  if (uid !== 0)
    return { text: `only programs of user ${uid} believe it, since the agent does not run as root`, shut: false };
  // A folder that is gone is told elsewhere.
  const closed = await keptFromOthers(table).catch(() => undefined);
  if (closed === undefined) return undefined;
  const owner = closed.uid === 0 ? "root" : `user ${closed.uid}`;
  const barred = closed.gid === undefined ? `users other than ${owner}` : `users outside of group ${closed.gid}`;
  return {
    text: `programs of ${barred} do not have it, for they may not enter ${closed.path} (mode ${closed.mode.toString(8).padStart(4, "0")}): chmod a+x ${closed.path}, or give hook.table a path such as /run/trilith/table`,
    shut: closed.gid === undefined,
  };
}

/** A table at the usual place that another agent left: programs that are told of none believe it, however old it is. */
async function usualFault(table: string, usual: string): Promise<string | undefined> {
  if (table === usual || (await whyNotUsed(usual)) !== undefined) return undefined;
  // Who may not be asked is taken for alive.
  const holder = await lockHolder(dirname(usual)).catch(() => ({ pid: undefined }));
  if (holder !== undefined) return undefined;
  return `${usual} was left by an agent that is gone, and programs that are told of no table (TRILITH_HOOK_TABLE) take it before this one: remove it, or give hook.table that path`;
}

const SAYING: Readonly<Partial<Record<Code, (folder: string, error: unknown) => string>>> = {
  locked: (folder, error) =>
    `another agent writes its table in ${folder}${/ \(pid \d+\)/.exec(messageOf(error))?.[0] ?? ""}: stop it, or give this one another path (hook.table)`,
  "disk-full": (folder) => `no space is left on the disk of ${folder}`,
  "read-only": (folder) => `${folder} cannot be written to: its file system is read-only, or this agent's user may not`,
  "not-allowed": (folder) =>
    `this agent's user (${ownUid()}) may not write in ${folder}, or its files belong to somebody else`,
};

/** An error about the table in plain words. */
export function troubleOf(table: string, error: unknown): TrilithError {
  const code = codeOf(error);
  const say = SAYING[code];
  return new TrilithError(
    code,
    `the hook's table ${table} cannot be written: ${say === undefined ? messageOf(error) : say(dirname(table), error)}`,
    error,
  );
}

/** The table should be emptied and cannot be. */
export function emptyText(table: string, error: unknown): string {
  return `the hook is switched off, and programs go on with its table ${table}, which cannot be emptied: ${messageOf(error)}`;
}

/**
 * Empties the table that an agent of before left, where it is told that there is to be none.
 * False where there is none, or another agent writes it. @throws TrilithError as `openPlace`
 */
export async function emptyLeftTable(path: string, disk: Pick<Disk, "info">, nowMs: number): Promise<boolean> {
  if ((await disk.info(path).catch(() => undefined)) === undefined) return false;
  const place = await openPlace(path, disk).catch((error: unknown) => {
    if (codeOf(error) !== "locked") throw error;
  });
  if (place === undefined) return false;
  try {
    return await place.empty(nowMs);
  } finally {
    await place.close();
  }
}
